//! Files into documents, and documents into values.

use std::path::Path;

use serde_json::Value;
use serde_saphyr::{Options, UserMessageFormatter};

use super::{LoadError, Place};

/// The deepest nesting that is read. Objects of the API stay far below it.
const DEEPEST: usize = 128;

/// The most nodes of one document, for a list with all objects of a large cluster. What aliases repeat is bounded
/// apart from this, and much closer.
const MOST_NODES: usize = 50_000_000;

/// One document of a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Document<'a> {
    /// The line of the file in which it begins, from 1.
    pub(super) first_line: u64,
    text: &'a str,
}

/// Why a document is not YAML.
#[derive(Debug)]
pub(super) struct SyntaxError {
    line: u64,
    column: u64,
    reason: String,
}

/// Takes a file apart at the lines that begin with `---`, so that each document fails alone.
///
/// Documents without any content are left out.
pub(super) fn split(text: &str) -> Vec<Document<'_>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut documents = Vec::new();
    let mut begin = (0, 1);
    let mut offset = 0;
    for (i, line) in text.split_inclusive('\n').enumerate() {
        let so_far = &text[begin.0..offset];
        // A directive belongs to the document that the marker after it begins.
        if is_marker(line) && !is_directives(so_far) {
            documents.push(Document { first_line: begin.1, text: so_far });
            begin = (offset, i as u64 + 1);
        }
        offset += line.len();
    }
    documents.push(Document { first_line: begin.1, text: &text[begin.0..] });
    documents.retain(|document| document.text.lines().any(has_content));
    documents
}

/// Whether the line begins a document: three dashes, and nothing or a space after them.
fn is_marker(line: &str) -> bool {
    line.strip_prefix("---").is_some_and(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace))
}

fn is_directives(text: &str) -> bool {
    text.lines().any(|line| line.starts_with('%'))
        && text.lines().all(|line| line.starts_with('%') || !has_content(line))
}

fn has_content(line: &str) -> bool {
    let line = if is_marker(line) { &line[3..] } else { line }.trim();
    !line.is_empty() && !line.starts_with('#') && line != "..."
}

// === impl Document ===

impl Document<'_> {
    /// Reads the document. JSON is read as YAML, which contains it.
    ///
    /// There is more than one value where `...` ends a document and another begins, and none where there is only
    /// `null`.
    pub(super) fn values(&self) -> Result<Vec<Value>, SyntaxError> {
        serde_saphyr::from_multiple_with_options(self.text, options()).map_err(|error| self.syntax_error(&error))
    }

    fn syntax_error(&self, error: &serde_saphyr::Error) -> SyntaxError {
        let (line, column) = error.location().map_or((1, 1), |place| (place.line().max(1), place.column().max(1)));
        let mut reason = error.without_snippet().render_with_formatter(&UserMessageFormatter);
        // The place is told apart from this, and counted from the begin of the file.
        if let Some(end) = reason.rfind(" at line ") {
            reason.truncate(end);
        }
        SyntaxError { line: self.first_line + line - 1, column, reason }
    }
}

// === impl SyntaxError ===

impl SyntaxError {
    pub(super) fn at(self, path: &Path) -> LoadError {
        let SyntaxError { line, column, reason } = self;
        LoadError::Syntax { place: Place { path: path.to_owned(), line, column }, reason }
    }
}

/// YAML as kubectl reads it: `yes` is a boolean and `0644` is octal. Keys that stand twice are errors.
fn options() -> Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: DEEPEST,
            flow_nesting_limit: DEEPEST,
            max_events: MOST_NODES,
            max_nodes: MOST_NODES,
            max_total_scalar_bytes: usize::MAX,
            max_documents: usize::MAX,
        },
        legacy_octal_numbers: true,
        with_snippet: false,
    }
}
