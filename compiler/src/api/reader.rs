//! A place in an object, which knows its path.

use std::fmt;
use std::rc::Rc;

use super::findings::{Broken, Findings, wrong_type};
use super::json::{Entries, Json};

/// The way to a place in an object, as kubectl prints it: `spec.ingress[0].from[1]`.
///
/// Most places have nothing wrong with them, and a policy may have a hundred thousand: so it is a chain of steps, which
/// the places of one list or object share but for the last, and becomes a text in a finding only.
#[derive(Clone, Default)]
pub(super) struct Path<'a> {
    /// The way to the list or object around it, and the step from there; `None` for the object as a whole.
    last: Option<(Rc<Path<'a>>, Step<'a>)>,
}

#[derive(Clone, Copy)]
enum Step<'a> {
    Field(&'a str),
    Item(usize),
}

/// A value with the path that leads to it.
#[derive(Clone)]
pub(super) struct Reader<'a> {
    path: Path<'a>,
    value: &'a Json,
}

/// The fields of an object, with the path that leads to it.
#[derive(Default)]
pub(super) struct Fields<'a> {
    path: Rc<Path<'a>>,
    /// `None` where nothing stands for the object, which to the API is one without fields.
    map: Option<&'a Entries>,
}

// === impl Path ===

impl<'a> Path<'a> {
    fn from(around: &Rc<Path<'a>>, step: Step<'a>) -> Path<'a> {
        Path { last: Some((Rc::clone(around), step)) }
    }

    fn is_empty(&self) -> bool {
        self.last.is_none()
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // An object is nested no deeper than its document may be, so that this ends on any stack.
        match &self.last {
            None => Ok(()),
            Some((before, Step::Item(place))) => write!(f, "{before}[{place}]"),
            Some((before, Step::Field(name))) if before.is_empty() => f.write_str(name),
            Some((before, Step::Field(name))) => write!(f, "{before}.{name}"),
        }
    }
}

impl From<&Path<'_>> for String {
    fn from(path: &Path<'_>) -> String {
        path.to_string()
    }
}

impl From<Path<'_>> for String {
    fn from(path: Path<'_>) -> String {
        path.to_string()
    }
}

// === impl Reader ===

impl<'a> Reader<'a> {
    /// The object as a whole.
    pub(super) fn root(value: &'a Json) -> Self {
        Reader { path: Path::default(), value }
    }

    /// The path to it.
    pub(super) fn path(&self) -> &Path<'a> {
        &self.path
    }

    /// The value as it is.
    pub(super) fn value(&self) -> &'a Json {
        self.value
    }

    /// The value as a string. A null in a list or map is an empty one to the API.
    pub(super) fn text(&self, findings: &mut Findings) -> Result<&'a str, Broken> {
        if self.value.is_null() {
            return Ok("");
        }
        self.value.as_str().ok_or_else(|| self.wrong_type("a string", findings))
    }

    /// The value as an object. A null in a list is one without fields to the API; the object as a whole has to be one.
    pub(super) fn fields(&self, findings: &mut Findings) -> Result<Fields<'a>, Broken> {
        if self.value.is_null() && !self.path.is_empty() {
            return Ok(Fields { path: Rc::new(self.path.clone()), map: None });
        }
        match self.value.as_object() {
            Some(map) => Ok(Fields { path: Rc::new(self.path.clone()), map: Some(map) }),
            None => Err(self.wrong_type("an object", findings)),
        }
    }

    /// The value as a list, each item with its own path.
    pub(super) fn items(&self, findings: &mut Findings) -> Result<Vec<Reader<'a>>, Broken> {
        match self.value.as_list() {
            Some(list) => {
                let path = Rc::new(self.path.clone());
                let item = |(i, value)| Reader { path: Path::from(&path, Step::Item(i)), value };
                Ok(list.iter().enumerate().map(item).collect())
            }
            None => Err(self.wrong_type("a list", findings)),
        }
    }

    /// Adds a finding: the value has another type than the one that is due.
    pub(super) fn wrong_type(&self, due: &str, findings: &mut Findings) -> Broken {
        findings.broken(&self.path, wrong_type(type_of(self.value), due))
    }
}

// === impl Fields ===

impl<'a> Fields<'a> {
    /// Those of an object at this path that has none.
    pub(super) fn none(path: &'a str) -> Fields<'a> {
        Fields { path: Rc::new(Path::from(&Rc::default(), Step::Field(path))), map: None }
    }

    /// The path of the object that the fields belong to.
    pub(super) fn path(&self) -> &Path<'a> {
        &self.path
    }

    /// The path of a field.
    pub(super) fn path_of(&self, name: &'a str) -> Path<'a> {
        Path::from(&self.path, Step::Field(name))
    }

    /// A field; `None` where it is absent or null, which the API takes for the same.
    pub(super) fn get(&self, name: &'a str) -> Option<Reader<'a>> {
        let value = self.map?.get(name).filter(|value| !value.is_null())?;
        Some(Reader { path: self.path_of(name), value })
    }

    /// All fields, as a map of any keys such as `matchLabels` has them.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&'a str, Reader<'a>)> {
        let entries = self.map.into_iter().flat_map(Entries::iter);
        entries.map(|(key, value)| (key, Reader { path: self.path_of(key), value }))
    }

    /// The fields that are not among the known ones, null or not.
    pub(super) fn unknown(&self, known: &[&str]) -> Vec<&'a str> {
        let names = self.map.into_iter().flat_map(Entries::iter).map(|(name, _)| name);
        names.filter(|name| !known.contains(name)).collect()
    }
}

/// The type of a value in words.
pub(super) fn type_of(value: &Json) -> &'static str {
    match value {
        Json::Null => "null",
        Json::Bool(_) => "a boolean",
        Json::Number(_) => "a number",
        Json::String(_) => "a string",
        Json::List(_) => "a list",
        Json::Object(_) => "an object",
    }
}
