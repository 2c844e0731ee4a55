//! What `-f PATH...` means: objects from files, as kubectl takes them.
//!
//! A path is a file, a folder, or `-` for standard input. Of a folder the files `*.yaml`, `*.yml` and `*.json` are
//! read, in the order of their names, and those of the folders in it, but for hidden ones. A file holds any number of
//! documents in YAML or JSON, and each document is an object or a list of objects. What cannot be read is told, and does
//! not stop the rest.
//!
//! ```text
//! tree     paths           -> files
//! source   a file          -> bytes
//! document bytes           -> values (those of JSON by a reader that is several times as fast)
//! content  values          -> what the file says
//! merge    several files   -> objects, findings
//! making   workloads       -> the Pods that a cluster would make of them, for commands
//! memory   one reading after the other -> what is in force
//! large    the files that are read beside the others
//! ```
//!
//! An agent remembers: [`memory`] says what happens to the objects of a file that breaks or vanishes.

mod applied;
mod content;
mod document;
mod large;
mod making;
pub mod memory;
mod merge;
mod place;
mod source;
mod tree;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use compiler::api::{Finding, Object, PodKey, Protocol};

use crate::model::Workloads;
pub use applied::applied;
use content::Content;
pub use large::Step;
pub use place::{LoadError, Note, Place};
use source::{Bytes, LARGEST, Sort};
use tree::{FileKey, Identity, Tree, is_gone};
pub use tree::{Stamp, stamp_of};

/// What the path `-` is called.
const STANDARD_INPUT: &str = "(standard input)";

/// Everything that a list of paths holds.
#[derive(Debug, Default)]
pub struct Loaded {
    /// The objects, each once, in the order in which they were read; last the Namespaces that objects name and no
    /// file defines. All Namespaces have the label `kubernetes.io/metadata.name`, as the API server would set it.
    pub objects: Vec<Object>,
    /// The ports that the containers of Pods declare, named or not: what is worth probing.
    pub declared_ports: BTreeMap<PodKey, Vec<(Protocol, u16)>>,
    /// The Pods whose status is there and has no address: nobody has given them one yet.
    pub without_address: BTreeSet<PodKey>,
    /// The Pods whose status says that they are not ready: Services pass them by.
    pub unready: BTreeSet<PodKey>,
    /// Deployments and the like with their Pods, those among the objects that were made of them included.
    pub workloads: Workloads,
    /// What is wrong with the objects, in their order; then what is passed over and should not be.
    pub findings: Vec<Finding>,
    /// What could not be read at all.
    pub errors: Vec<LoadError>,
    /// What was read and does not count.
    pub notes: Vec<Note>,
}

/// How far paths lead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reach {
    /// Whether the folders in a folder are read, too.
    pub recursive: bool,
    /// Whether a path may be a pipe or a device, which is waited for. In folders they are passed over in any case.
    pub pipes: bool,
}

/// What was found at the paths at one time.
struct Reading {
    files: Vec<(FileKey, Content)>,
    /// The files of which stands what they said before: nobody has changed them since, or they are being read.
    standing: Vec<FileKey>,
    folders: BTreeMap<PathBuf, Identity>,
    no_files: BTreeMap<PathBuf, &'static str>,
    errors: Vec<(PathBuf, LoadError)>,
    notes: Vec<Note>,
    /// How each path was found, before it was read.
    stamps: BTreeMap<PathBuf, Option<Stamp>>,
}

/// Reads all paths, for a command: with the Pods that a cluster would make of Deployments and the like.
pub fn load(paths: &[PathBuf]) -> Loaded {
    load_as(paths, Reach { recursive: true, pipes: true })
}

/// The same, as far as `reach` says.
pub fn load_as(paths: &[PathBuf], reach: Reach) -> Loaded {
    load_with(paths, reach, &mut io::stdin())
}

/// The same, with something else for standard input.
fn load_with(paths: &[PathBuf], reach: Reach, standard_input: &mut dyn Read) -> Loaded {
    let Reading { files, errors, notes, .. } = read_with(paths, reach, |_, _, _| false, standard_input);
    let mut loaded = merge::merge(files.iter().map(|(_, content)| content), merge::Workloads::Run);
    loaded.notes.splice(0..0, notes);
    loaded.errors = errors.into_iter().map(|(_, error)| error).collect();
    for (_, content) in files {
        loaded.errors.extend(content.errors);
        loaded.findings.extend(content.misspelt.into_iter().map(|(_, finding)| finding));
    }
    loaded
}

/// Reads all paths, but for the files of which stands what they said before: by the key, how the file is found, and the
/// path that led to it.
fn read_with(
    paths: &[PathBuf],
    reach: Reach,
    mut stands: impl FnMut(&FileKey, &Stamp, &Path) -> bool,
    standard_input: &mut dyn Read,
) -> Reading {
    let mut tree = Tree::default();
    let (mut files, mut standing) = (Vec::new(), Vec::new());
    for (given, path) in paths.iter().enumerate() {
        if path == Path::new("-") {
            let path = PathBuf::from(STANDARD_INPUT);
            let bytes = source::read(standard_input, LARGEST).map(|bytes| Bytes(bytes, None));
            let content = content_of(&path, bytes);
            files.push(((given, path), content));
            continue;
        }
        tree.add(given, path, reach);
        for (key, sort) in tree.files.drain(..) {
            let stamp = tree.stamps.get(&key.1).and_then(Option::as_ref);
            if stamp.is_some_and(|stamp| stands(&key, stamp, path)) {
                standing.push(key);
            } else if let Some(content) = content_at(&key.1, sort, path) {
                files.push((key, content));
            }
        }
    }
    let Tree { folders, no_files, errors, notes, stamps, .. } = tree;
    Reading { files, standing, folders, no_files, errors, notes, stamps }
}

/// Reads a file; none if it has been removed from its folder meanwhile.
fn content_at(path: &Path, sort: Sort, given: &Path) -> Option<Content> {
    let bytes = source::read_file(path, sort);
    let is_removed = bytes.is_err() && path != given && is_gone(path);
    (!is_removed).then(|| content_of(path, bytes))
}

fn content_of(path: &Path, bytes: io::Result<Bytes>) -> Content {
    match bytes {
        Ok(Bytes(bytes, stamp)) => Content { stamp, ..Content::of(path, &bytes) },
        Err(source) => Content::unread(LoadError::Io { path: path.to_owned(), source }),
    }
}

#[cfg(test)]
mod tests;
