//! What `-f PATH...` means: objects from files, as kubectl takes them.
//!
//! A path is a file, a folder, or `-` for standard input. Of a folder the files `*.yaml`, `*.yml` and `*.json` are
//! read, in the order of their names, and no folders in it. A file holds any number of documents in YAML or JSON,
//! and each document is an object or a list of objects. What cannot be read is told, and does not stop the rest.

mod document;
mod place;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use compiler::api::{
    self, ApiGeneration, Finding, Item, Labels, Namespace, Object, ObjectRef, PodKey, Protocol, SkippedKind, Str,
};

use serde_json::Value;

use document::Document;
pub use place::{LoadError, Note, Place};

/// The label that the API server sets on every Namespace, with its name for a value.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// The annotation by which a Namespace of Kubernetes 1.3 isolates its pods.
const ISOLATION_ANNOTATION: &str = "net.beta.kubernetes.io/network-policy";

/// The most bytes that are read of one file: far more than the objects of a large cluster have, and few enough that
/// a path such as `/dev/zero` ends in an error.
const LARGEST_FILE: u64 = 512 << 20;

/// Everything that a list of paths holds.
#[derive(Debug, Default)]
pub struct Loaded {
    /// The objects, each once, in the order in which they were read; last the Namespaces that objects name and no
    /// file defines. All Namespaces have the label `kubernetes.io/metadata.name`, as the API server would set it.
    pub objects: Vec<Object>,
    /// The ports that the containers of Pods declare, named or not: what is worth probing.
    pub declared_ports: BTreeMap<PodKey, Vec<(Protocol, u16)>>,
    /// What is wrong with the objects, in their order.
    pub findings: Vec<Finding>,
    /// What could not be read at all.
    pub errors: Vec<LoadError>,
    /// What was read and does not count.
    pub notes: Vec<Note>,
}

/// Reads all paths.
pub fn load(paths: &[PathBuf]) -> Loaded {
    load_with(paths, &mut io::stdin())
}

/// The same, with something else for standard input.
fn load_with(paths: &[PathBuf], standard_input: &mut dyn Read) -> Loaded {
    let mut loader = Loader::new(LARGEST_FILE);
    for path in paths {
        loader.path(path, standard_input);
    }
    loader.finish()
}

/// Gathers objects, the later one of two with one name in the place of the earlier.
struct Loader {
    /// The most bytes that are read of one file.
    largest_file: u64,
    objects: BTreeMap<ObjectRef, (usize, Gathered)>,
    read: usize,
    errors: Vec<LoadError>,
    notes: Vec<Note>,
}

struct Gathered {
    object: Object,
    findings: Vec<Finding>,
    declared_ports: Vec<(Protocol, u16)>,
}

// === impl Loader ===

impl Loader {
    fn new(largest_file: u64) -> Self {
        Loader { largest_file, objects: BTreeMap::new(), read: 0, errors: Vec::new(), notes: Vec::new() }
    }

    fn path(&mut self, path: &Path, standard_input: &mut dyn Read) {
        if path == Path::new("-") {
            self.source(Path::new("(standard input)"), standard_input);
            return;
        }
        let is_folder = match fs::metadata(path) {
            Ok(metadata) => metadata.is_dir(),
            Err(source) => return self.errors.push(LoadError::Io { path: path.to_owned(), source }),
        };
        if !is_folder {
            return self.file(path);
        }
        match manifests_in(path) {
            Ok(files) if files.is_empty() => self.notes.push(Note::EmptyFolder { path: path.to_owned() }),
            Ok(files) => files.iter().for_each(|file| self.file(file)),
            Err(source) => self.errors.push(LoadError::Io { path: path.to_owned(), source }),
        }
    }

    fn file(&mut self, path: &Path) {
        match fs::File::open(path) {
            Ok(mut file) => self.source(path, &mut file),
            Err(source) => self.errors.push(LoadError::Io { path: path.to_owned(), source }),
        }
    }

    fn source(&mut self, path: &Path, source: &mut dyn Read) {
        let mut bytes = Vec::new();
        let read = source.take(self.largest_file + 1).read_to_end(&mut bytes).and_then(|_| {
            let reason = format!("more than {} bytes", self.largest_file);
            if bytes.len() as u64 > self.largest_file {
                Err(io::Error::new(io::ErrorKind::FileTooLarge, reason))
            } else {
                Ok(())
            }
        });
        if let Err(source) = read {
            return self.errors.push(LoadError::Io { path: path.to_owned(), source });
        }
        let text = match std::str::from_utf8(&bytes) {
            Ok(text) => text,
            Err(error) => {
                let place = Place::after(path, &bytes[..error.valid_up_to()]);
                return self.errors.push(LoadError::Syntax { place, reason: "is not text in UTF-8".into() });
            }
        };
        let documents = document::split(text);
        let values = match document::values(&documents) {
            Ok(values) => values,
            Err(source) => return self.errors.push(LoadError::Io { path: path.to_owned(), source }),
        };
        for (number, (document, values)) in (1..).zip(documents.iter().zip(values)) {
            match values {
                Ok(values) => self.document(path, number, document, &values),
                Err(error) => self.errors.push(error.at(path)),
            }
        }
    }

    /// Takes the values of one document, the n-th of its file counted from 1.
    fn document(&mut self, path: &Path, number: usize, document: &Document<'_>, values: &[Value]) {
        let stand_in = format!("{}-document-{number}", path.file_name().unwrap_or(path.as_os_str()).to_string_lossy());
        let place = Place { path: path.to_owned(), line: document.first_line, column: 1 };
        for item in values.iter().flat_map(|value| api::parse(value, &stand_in)) {
            match item {
                Item::Object { parsed, declared_ports } => {
                    self.object(&place, Gathered { object: parsed.value, findings: parsed.findings, declared_ports });
                }
                Item::Skipped(object) => self.notes.push(Note::Skipped { place: place.clone(), object }),
                Item::Invalid(source) => self.errors.push(LoadError::Object { place: place.clone(), source }),
            }
        }
    }

    fn object(&mut self, place: &Place, gathered: Gathered) {
        let reference = gathered.object.reference();
        self.read += 1;
        if self.objects.insert(reference.clone(), (self.read, gathered)).is_some() {
            self.notes.push(Note::Replaced { place: place.clone(), object: reference });
        }
    }

    fn finish(self) -> Loaded {
        let Loader { largest_file: _, objects, read: _, errors, notes } = self;
        let mut loaded = Loaded { errors, notes, ..Loaded::default() };
        let mut in_order: Vec<_> = objects.into_values().collect();
        in_order.sort_by_key(|(read, _)| *read);
        for (_, Gathered { object, findings, declared_ports }) in in_order {
            loaded.findings.extend(findings);
            if let Object::Pod(pod) = &object
                && !declared_ports.is_empty()
            {
                loaded.declared_ports.insert(pod.key.clone(), declared_ports);
            }
            loaded.objects.push(object);
        }
        complete_namespaces(&mut loaded.objects);
        loaded.findings.extend(without_effect(&loaded.objects));
        loaded
    }
}

/// The manifests of a folder, by name.
fn manifests_in(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let is_manifest = matches!(path.extension().and_then(|e| e.to_str()), Some("yaml" | "yml" | "json"));
        // Links are followed: a mounted ConfigMap consists of them. What they fail to lead to is told on opening.
        if is_manifest && fs::metadata(&path).map_or(true, |metadata| !metadata.is_dir()) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// The policies of the first generation whose Namespace does not isolate: they isolate nobody, and so only add to what
/// other policies allow.
fn without_effect(objects: &[Object]) -> Vec<Finding> {
    let isolating: BTreeSet<&Str> = objects
        .iter()
        .filter_map(|object| match object {
            Object::Namespace(namespace) if namespace.default_deny_ingress => Some(&namespace.name),
            Object::Namespace(_) | Object::Pod(_) | Object::NetworkPolicy(_) | Object::Service(_) | Object::Node(_) => {
                None
            }
        })
        .collect();
    let finding = |object: &Object| match object {
        Object::NetworkPolicy(policy)
            if policy.api == ApiGeneration::First && !isolating.contains(&policy.key.namespace) =>
        {
            Some(Finding {
                object: object.reference(),
                field: "apiVersion".to_string(),
                reason: format!(
                    "a policy of extensions/v1beta1 isolates nobody, and Namespace {} has no annotation {ISOLATION_ANNOTATION} \
                     that would; the policy is without effect",
                    policy.key.namespace
                ),
            })
        }
        Object::NetworkPolicy(_) | Object::Namespace(_) | Object::Pod(_) | Object::Service(_) | Object::Node(_) => None,
    };
    objects.iter().filter_map(finding).collect()
}

/// Does to Namespaces what the API server would: sets the label with their name, and lets none be missing.
fn complete_namespaces(objects: &mut Vec<Object>) {
    let mut named = BTreeSet::new();
    let mut defined = BTreeSet::new();
    for object in objects.iter_mut() {
        match object {
            Object::Namespace(namespace) => {
                let name_label = (Str::from(NAME_LABEL), namespace.name.clone());
                namespace.labels = labels_with(&namespace.labels, name_label);
                defined.insert(namespace.name.clone());
            }
            Object::Pod(pod) => _ = named.insert(pod.key.namespace.clone()),
            Object::NetworkPolicy(policy) => _ = named.insert(policy.key.namespace.clone()),
            Object::Service(service) => _ = named.insert(service.namespace.clone()),
            Object::Node(_) => {}
        }
    }
    objects.extend(named.difference(&defined).map(|name| {
        let labels = labels_with(&Labels::default(), (Str::from(NAME_LABEL), name.clone()));
        Object::Namespace(Namespace { name: name.clone(), labels, default_deny_ingress: false })
    }));
}

/// The labels and one more, which counts where both have its key.
fn labels_with(labels: &Labels, label: (Str, Str)) -> Labels {
    labels.iter().map(|(key, value)| (key.clone(), value.clone())).chain([label]).collect()
}

#[cfg(test)]
mod tests;
