//! What is wrong with an object, said so that its author can mend it.

use std::fmt;

use super::Str;

/// Something about an object that cannot be understood, or that surely means something else than it says.
///
/// Prints as `NetworkPolicy prod/db: spec.ingress[0].ports[1].port: 70000 is not a port (1 to 65535)`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// Whose finding it is.
    pub object: ObjectRef,
    /// The path of the field, as kubectl prints it; empty where it is about the object as a whole.
    pub field: String,
    /// What is wrong, and what is done about it where that is not plain.
    pub reason: String,
}

/// An object by kind, namespace and name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectRef {
    /// `kind`
    pub kind: Str,
    /// `metadata.namespace`; `None` for objects that have none.
    pub namespace: Option<Str>,
    /// `metadata.name`
    pub name: Str,
}

/// What was read, and what was found on the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parsed<T> {
    /// What is enforced; broken parts match nothing.
    pub value: T,
    /// In the order of the fields.
    pub findings: Vec<Finding>,
}

impl<T> Parsed<T> {
    /// The same findings with another value.
    pub(super) fn map<U>(self, value: impl FnOnce(T) -> U) -> Parsed<U> {
        Parsed { value: value(self.value), findings: self.findings }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.object)?;
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.reason)
    }
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{} {namespace}/{}", self.kind, self.name),
            None => write!(f, "{} {}", self.kind, self.name),
        }
    }
}
