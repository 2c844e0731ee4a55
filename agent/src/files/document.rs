//! Files into documents, and documents into values.

use std::io;
use std::path::Path;
use std::thread;

use compiler::api::Json;
use serde::de::IgnoredAny;
use serde_saphyr::{Options, UserMessageFormatter};

use super::{LoadError, Place};

/// The deepest nesting that is read. Objects of the API stay far below it.
const DEEPEST: usize = 128;

/// The stack on which documents are read, in bytes. A level of nesting takes some 30,000 in a build for debugging,
/// more in all than the threads of a test or of tokio have.
const STACK: usize = 32 << 20;

/// The most nodes of one document, for a list with all objects of a large cluster.
const MOST_NODES: usize = 50_000_000;

/// The most nodes that anchors keep for their aliases.
const MOST_ANCHORED_NODES: usize = 100_000;

/// The most nodes that aliases repeat in one document. What aliases of aliases would repeat ends here.
const MOST_REPEATED_NODES: usize = 1_000_000;

/// The most anchors, aliases and merge keys of one document, each.
const MOST_ANCHORS: usize = 1_000_000;

/// The most comment lines on end: all that the largest file can hold. The reader keeps those between a key and its value.
const MOST_COMMENTS: usize = usize::MAX;

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

/// Takes a file apart before the lines that begin with `---` and after those that begin with `...`, and between JSON
/// objects that follow each other, so that each document fails alone.
///
/// Documents without any content are left out.
pub(super) fn split(text: &str) -> Vec<Document<'_>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut documents = Vec::new();
    let (mut begin, mut first_line) = (0, 1);
    let mut end = 0;
    for (line, number) in text.split_inclusive('\n').zip(1..) {
        // A directive belongs to the document that the marker after it begins.
        if is_marker(line, "---") && !is_directives(&text[begin..end]) {
            documents.push(Document { first_line, text: &text[begin..end] });
            (begin, first_line) = (end, number);
        }
        end += line.len();
        if is_marker(line, "...") {
            documents.push(Document { first_line, text: &text[begin..end] });
            (begin, first_line) = (end, number + 1);
        }
    }
    documents.push(Document { first_line, text: &text[begin..] });
    documents.retain(|document| document.text.lines().any(has_content));
    documents.into_iter().flat_map(Document::json_objects).collect()
}

/// Does something on a thread whose stack has room for the deepest nesting. The error is about that thread.
pub(super) fn with_stack<T: Send>(read: impl FnOnce() -> T + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let reader = thread::Builder::new().stack_size(STACK).spawn_scoped(scope, read)?;
        reader.join().map_err(|_| io::Error::other("the parser broke off"))
    })
}

/// Whether the line begins with the marker, and nothing or a space after it.
fn is_marker(line: &str, marker: &str) -> bool {
    line.strip_prefix(marker).is_some_and(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace))
}

fn is_directives(text: &str) -> bool {
    text.lines().any(|line| line.starts_with('%'))
        && text.lines().all(|line| line.starts_with('%') || !has_content(line))
}

fn has_content(line: &str) -> bool {
    let is_bounds = is_marker(line, "---") || is_marker(line, "...");
    let content = if is_bounds { &line[3..] } else { line }.trim();
    !content.is_empty() && !content.starts_with('#')
}

// === impl Document ===

impl<'a> Document<'a> {
    /// The objects of a stream of JSON, as kubectl takes it and `kubectl get -o json` in a loop writes it; anything else
    /// stays one document. What follows the last whole object is a document too, and says what is wrong with it.
    fn json_objects(self) -> Vec<Document<'a>> {
        let before: usize = self.text.split_inclusive('\n').take_while(|line| !has_content(line)).map(str::len).sum();
        if !self.text[before..].trim_start().starts_with('{') {
            return vec![self];
        }
        let mut objects = serde_json::Deserializer::from_str(&self.text[before..]).into_iter::<IgnoredAny>();
        let mut ends = Vec::new();
        while let Some(Ok(_)) = objects.next() {
            ends.push(before + objects.byte_offset());
        }
        let (mut documents, mut begin, mut first_line) = (Vec::new(), 0, self.first_line);
        // A comment behind the last one belongs to it.
        ends.pop_if(|end| !self.text[*end..].lines().any(has_content));
        for end in ends.into_iter().chain([self.text.len()]) {
            let text = &self.text[begin..end];
            documents.push(Document { first_line, text });
            first_line += text.matches('\n').count() as u64;
            begin = end;
        }
        documents
    }

    /// The first line with `{{` and `}}`, as templates of charts have it; no field of an object that policies are about does.
    pub(super) fn template_line(&self) -> Option<u64> {
        let line =
            self.text.lines().position(|line| line.contains("{{") && line.contains("}}") && has_content(line))?;
        Some(self.first_line + line as u64)
    }

    /// Reads the document: its value, or none where there is only `null`.
    pub(super) fn values(&self) -> Result<Vec<Json>, SyntaxError> {
        // What is no JSON after all is said by the reader of YAML, with the place.
        if self.text.trim_start().starts_with('{')
            && let Ok(value) = serde_json::from_str(self.text)
        {
            return Ok(vec![value]);
        }
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
            max_anchors: MOST_ANCHORS,
            max_aliases: MOST_ANCHORS,
            max_merge_keys: MOST_ANCHORS,
            max_recorded_anchor_events: MOST_ANCHORED_NODES,
            // A label set that a hundred objects share is no attack; what aliases repeat is bounded below.
            enforce_alias_anchor_ratio: false,
            max_buffered_comment_events: MOST_COMMENTS,
            max_total_comment_bytes: usize::MAX,
            max_total_scalar_bytes: usize::MAX,
            max_documents: usize::MAX,
        },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: MOST_REPEATED_NODES },
        legacy_octal_numbers: true,
        with_snippet: false,
    }
}
