//! Gathers what is found while one object is read.

use super::{Finding, ObjectRef};

/// The findings of one object, in the order in which its fields were read.
pub(super) struct Findings {
    object: ObjectRef,
    found: Vec<Finding>,
}

/// Stands in for a part that could not be read. Its finding has been added already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Broken;

impl Findings {
    /// No findings yet about this object.
    pub(super) fn new(object: ObjectRef) -> Self {
        Findings { object, found: Vec::new() }
    }

    /// Adds one; `field` is the path as kubectl prints it. Keys of the object stand in it, so it is cut to a length
    /// that fits a line.
    pub(super) fn add(&mut self, field: impl Into<String>, reason: impl Into<String>) {
        const LONGEST: usize = 300;
        let mut field = field.into();
        if let Some((end, _)) = field.char_indices().nth(LONGEST) {
            field.truncate(end);
            field.push_str("...");
        }
        self.found.push(Finding { object: self.object.clone(), field, reason: reason.into() });
    }

    /// Adds one and gives the mark of what it is about.
    pub(super) fn broken(&mut self, field: impl Into<String>, reason: impl Into<String>) -> Broken {
        self.add(field, reason);
        Broken
    }

    /// All of them.
    pub(super) fn into_vec(self) -> Vec<Finding> {
        self.found
    }
}

/// What is said of a field of the wrong type: `a number where a string is due; quote it`.
pub(super) fn wrong_type(found: &str, due: &str) -> String {
    // YAML reads 1.20, yes and 0x1 as something else than text, which surprises in labels.
    let hint = if due == "a string" && matches!(found, "a number" | "a boolean") { "; quote it" } else { "" };
    format!("{found} where {due} is due{hint}")
}

/// A text from an object, quoted and cut to a length that fits a line.
pub(super) fn quoted(text: &str) -> String {
    const LONGEST: usize = 80;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{:?}... ({} bytes)", &text[..end], text.len()),
        None => format!("{text:?}"),
    }
}
