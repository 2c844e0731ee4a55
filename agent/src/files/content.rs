//! What one file says.

use std::path::Path;

use compiler::api::{self, Doubt, Finding, Item, Json, Object, Parsed, Protocol, Workload, WorkloadKey};

use super::document::{self, Document};
use super::tree::Stamp;
use super::{LoadError, Note, Place};

/// What one file says, as far as it can be understood.
#[derive(Debug, Default)]
pub(super) struct Content {
    pub(super) objects: Vec<Gathered>,
    /// Deployments and the like, each with the begin of its document.
    pub(super) workloads: Vec<(Place, Parsed<Workload>)>,
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
    /// The places of lists that do not say that they are empty: their `items` are missing or `null`.
    pub(super) without_items: Vec<Place>,
    /// How the file was found when it was read, if it is sure that whoever changes it changes that.
    pub(super) stamp: Option<Stamp>,
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
    pub(super) is_unready: bool,
    pub(super) owner: Option<WorkloadKey>,
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
        let mut content = Content {
            // JSON that is cut is no JSON.
            ends_line: text.ends_with('\n') || text.trim_end().ends_with(['}', ']']),
            lines: text.lines().count(),
            ..Content::default()
        };
        // One after the other, because the values of all at once would be many times what is kept of them.
        let read = || (1..).zip(&documents).for_each(|(number, document)| content.read(path, number, document));
        match document::with_stack(read) {
            Ok(()) => content,
            Err(source) => Content::unread(LoadError::Io { path: path.to_owned(), source }),
        }
    }

    /// Reads one document, the n-th of its file counted from 1.
    fn read(&mut self, path: &Path, number: usize, document: &Document<'_>) {
        let errors = self.errors.len();
        let values = document.values();
        self.documents += usize::from(!values.as_ref().is_ok_and(Vec::is_empty));
        match values {
            Ok(values) => self.gather(path, number, document, &values),
            Err(error) => self.errors.push(error.at(path)),
        }
        if let (Some(line), true) = (document.template_line(), self.errors.len() > errors) {
            self.errors.truncate(errors);
            let place = Place { path: path.to_owned(), line, column: 1 };
            let reason = "has '{{', as the templates of a chart do: render the chart first (helm template)".into();
            self.errors.push(LoadError::Syntax { place, reason });
        }
    }

    /// Takes over the values of a document.
    fn gather(&mut self, path: &Path, number: usize, document: &Document<'_>, values: &[Json]) {
        // With the whole path, so that nameless objects of files of one name stay apart.
        let stand_in = format!("{}-document-{number}", path.to_string_lossy());
        let place = Place { path: path.to_owned(), line: document.first_line, column: 1 };
        if values.iter().any(is_without_items) {
            self.without_items.push(place.clone());
        }
        for item in values.iter().flat_map(|value| api::parse(value, &stand_in)) {
            match item {
                Item::Object { parsed, declared_ports, has_status, is_unready, owner } => self.objects.push(Gathered {
                    place: place.clone(),
                    object: parsed.value,
                    findings: parsed.findings,
                    declared_ports,
                    has_status,
                    is_unready,
                    owner,
                }),
                Item::Workload(parsed) => self.workloads.push((place.clone(), *parsed)),
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
            Object::Pod(_) | Object::Service(_) | Object::EndpointSlice(_) | Object::Node(_) => false,
        })
    }
}

/// Whether it is a list that does not say that it is empty. Programs write `null` for one that they have not filled.
fn is_without_items(value: &Json) -> bool {
    let is_list = value.get("kind").and_then(Json::as_str).is_some_and(|kind| kind.ends_with("List"));
    is_list && value.get("items").is_none_or(Json::is_null)
}
