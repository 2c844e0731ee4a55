//! Gathers what is found while one object is read.

use super::text::escaped;
use super::{Finding, ObjectRef, Str};

/// The most findings that are told of one object: its author mends the first ones first, and an object with thousands
/// of them must not fill the log.
const MOST: usize = 20;

/// The findings of one object, in the order in which its fields were read.
pub(super) struct Findings {
    object: ObjectRef,
    found: Vec<Finding>,
    /// How many there were beyond the most that are told.
    untold: usize,
}

/// Stands in for a part that could not be read. Its finding has been added already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Broken;

impl Findings {
    /// No findings yet about this object. What it calls itself is told in printable characters.
    pub(super) fn new(object: ObjectRef) -> Self {
        let printable = |text: Str| Str::from(&*escaped(&text));
        let ObjectRef { kind, namespace, name } = object;
        let object = ObjectRef { kind: printable(kind), namespace: namespace.map(printable), name: printable(name) };
        Findings { object, found: Vec::new(), untold: 0 }
    }

    /// Adds one; `field` is the path as kubectl prints it. Keys of the object stand in it, so it is cut to a length
    /// that fits a line.
    pub(super) fn add(&mut self, field: impl Into<String>, reason: impl Into<String>) {
        const LONGEST: usize = 300;
        if self.found.len() == MOST {
            self.untold += 1;
            return;
        }
        let mut field = field.into();
        if let Some((end, _)) = field.char_indices().nth(LONGEST) {
            field.truncate(end);
            field.push_str("...");
        }
        let (field, reason) = (escaped(&field).into_owned(), escaped(&reason.into()).into_owned());
        self.found.push(Finding { object: self.object.clone(), field, reason });
    }

    /// Adds one and gives the mark of what it is about.
    pub(super) fn broken(&mut self, field: impl Into<String>, reason: impl Into<String>) -> Broken {
        self.add(field, reason);
        Broken
    }

    /// Those that are told, and last how many more there are.
    pub(super) fn into_vec(mut self) -> Vec<Finding> {
        if self.untold > 0 {
            let reason = format!("and {} more", self.untold);
            self.found.push(Finding { object: self.object, field: String::new(), reason });
        }
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
