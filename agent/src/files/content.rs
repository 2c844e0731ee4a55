//! What one file says.

use std::path::Path;

use compiler::api::{self, Doubt, Finding, Item, Object, Protocol};
use serde_json::Value;

use super::document::{self, Document};
use super::{LoadError, Note, Place};

/// What one file says, as far as it can be understood.
#[derive(Debug, Default)]
pub(super) struct Content {
    pub(super) objects: Vec<Gathered>,
    /// Policies of others, which nobody here enforces.
    pub(super) findings: Vec<Finding>,
    /// Objects of kinds that are surely misspelt.
    pub(super) misspelt: Vec<(Place, Finding)>,
    pub(super) errors: Vec<LoadError>,
    pub(super) notes: Vec<Note>,
    /// How many documents it has that hold more than `null`.
    pub(super) documents: usize,
    /// Whether its last line has an end, as a text has that was written as a whole.
    pub(super) ends_line: bool,
    pub(super) lines: usize,
}

/// An object of a file.
#[derive(Debug, Clone)]
pub(super) struct Gathered {
    /// The begin of its document.
    pub(super) place: Place,
    pub(super) object: Object,
    pub(super) findings: Vec<Finding>,
    pub(super) declared_ports: Vec<(Protocol, u16)>,
    pub(super) has_status: bool,
}

// === impl Content ===

impl Content {
    /// Nothing, and why.
    pub(super) fn unread(error: LoadError) -> Content {
        Content { errors: vec![error], ..Content::default() }
    }

    /// Reads the bytes of a file.
    pub(super) fn of(path: &Path, bytes: &[u8]) -> Content {
        let text = match std::str::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => {
                let place = Place::after(path, &bytes[..error.valid_up_to()]);
                return Content::unread(LoadError::Syntax { place, reason: "is not text in UTF-8".into() });
            }
        };
        let documents = document::split(text);
        let values = match document::values(&documents) {
            Ok(values) => values,
            Err(source) => return Content::unread(LoadError::Io { path: path.to_owned(), source }),
        };
        let mut content = Content {
            documents: values.iter().filter(|values| !values.as_ref().is_ok_and(Vec::is_empty)).count(),
            // JSON that is cut is no JSON.
            ends_line: text.ends_with('\n') || text.trim_end().ends_with(['}', ']']),
            lines: text.lines().count(),
            ..Content::default()
        };
        for (number, (document, values)) in (1..).zip(documents.iter().zip(values)) {
            let errors = content.errors.len();
            match values {
                Ok(values) => content.document(path, number, document, &values),
                Err(error) => content.errors.push(error.at(path)),
            }
            if let (Some(line), true) = (document.template_line(), content.errors.len() > errors) {
                content.errors.truncate(errors);
                let place = Place { path: path.to_owned(), line, column: 1 };
                let reason = "has '{{', as the templates of a chart do: render the chart first (helm template)".into();
                content.errors.push(LoadError::Syntax { place, reason });
            }
        }
        content
    }

    /// Takes the values of one document, the n-th of its file counted from 1.
    fn document(&mut self, path: &Path, number: usize, document: &Document<'_>, values: &[Value]) {
        // With the whole path, so that nameless objects of files of one name stay apart.
        let stand_in = format!("{}-document-{number}", path.to_string_lossy());
        let place = Place { path: path.to_owned(), line: document.first_line, column: 1 };
        for item in values.iter().flat_map(|value| api::parse(value, &stand_in)) {
            match item {
                Item::Object { parsed, declared_ports, has_status } => self.objects.push(Gathered {
                    place: place.clone(),
                    object: parsed.value,
                    findings: parsed.findings,
                    declared_ports,
                    has_status,
                }),
                Item::Skipped(object) => match object.doubt {
                    Some(Doubt::Misspelt(finding)) => self.misspelt.push((place.clone(), finding)),
                    Some(Doubt::OfOthers(finding)) => self.findings.push(finding),
                    None => self.notes.push(Note::Skipped { place: place.clone(), object }),
                },
                Item::Invalid(source) => self.errors.push(LoadError::Object { place: place.clone(), source }),
            }
        }
    }

    /// Whether it isolates anybody.
    pub(super) fn isolates(&self) -> bool {
        self.objects.iter().any(|gathered| match &gathered.object {
            Object::NetworkPolicy(_) => true,
            Object::Namespace(namespace) => namespace.default_deny_ingress,
            Object::Pod(_) | Object::Service(_) | Object::Node(_) => false,
        })
    }
}
