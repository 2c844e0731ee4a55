//! What is told about files, and where in them.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use compiler::api::{InvalidObject, ObjectRef, SkippedKind, WorkloadKey, escaped};

/// A place in a file. Prints as `cluster.yaml:12:3`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The file, as it was named or found.
    pub path: PathBuf,
    /// The line, from 1.
    pub line: u64,
    /// The column in characters, from 1.
    pub column: u64,
}

/// Something that could not be read.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file itself.
    #[error("{}: {source}", printed(path))]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A document that is neither YAML nor JSON.
    #[error("{place}: {}", escaped(reason))]
    Syntax {
        /// Where it breaks.
        place: Place,
        /// Why, in the parser's words.
        reason: String,
    },
    /// A document, or an item of a list, that is no object.
    #[error("{place}: {}", escaped(&source.to_string()))]
    Object {
        /// The begin of the document.
        place: Place,
        /// What it lacks.
        source: InvalidObject,
    },
}

/// Something that was read and does not count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// A folder without any file that kubectl would read.
    EmptyFolder {
        /// The folder.
        path: PathBuf,
    },
    /// What is in a folder and is not read.
    PassedOver {
        /// The folder.
        path: PathBuf,
        /// How many there are of each ending or sort.
        counts: Vec<(String, usize)>,
    },
    /// An object of a kind that policies are not about.
    Skipped {
        /// The begin of its document.
        place: Place,
        /// The object.
        object: SkippedKind,
    },
    /// An object whose Pods are not made from it.
    NotRun {
        /// The begin of its document.
        place: Place,
        /// The object.
        workload: WorkloadKey,
    },
    /// An object that makes no Pods.
    NoPods {
        /// The object.
        workload: WorkloadKey,
        /// Why not.
        reason: String,
    },
    /// An object of which fewer Pods are made than it says.
    FewerPods {
        /// The object.
        workload: WorkloadKey,
        /// How many it says.
        due: u32,
        /// How many are made.
        made: u32,
    },
    /// An object that takes the place of one of the same name that was read before it.
    Replaced {
        /// The begin of the later one's document.
        place: Place,
        /// The object.
        object: ObjectRef,
    },
}

/// A path as it is printed.
pub(super) fn printed(path: &Path) -> String {
    escaped(&path.to_string_lossy()).into_owned()
}

// === impl Place ===

impl Place {
    /// The place after some text of a file.
    pub(super) fn after(path: &Path, text: &[u8]) -> Self {
        let text = String::from_utf8_lossy(text);
        let lines = text.matches('\n').count();
        let last_line = text.rsplit('\n').next().unwrap_or_default();
        Place { path: path.to_owned(), line: lines as u64 + 1, column: last_line.chars().count() as u64 + 1 }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", printed(&self.path), self.line, self.column)
    }
}

// === impl Note ===

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Note::EmptyFolder { path } => {
                write!(f, "{}: holds no file that ends in .yaml, .yml or .json", printed(path))
            }
            Note::PassedOver { path, counts } => {
                const SHOWN: usize = 8;
                let mut shown: Vec<String> =
                    counts.iter().take(SHOWN).map(|(what, count)| format!("{count} {}", escaped(what))).collect();
                if counts.len() > SHOWN {
                    shown.push("others".to_owned());
                }
                write!(f, "{}: not read: {}", printed(path), shown.join(", "))
            }
            Note::Skipped { place, object } => write!(f, "{place}: {object}"),
            Note::NotRun { place, workload } => {
                write!(f, "{place}: {workload}: its Pods are not made from it, and policies are about Pods; skipped")
            }
            Note::NoPods { workload, reason } => write!(f, "{workload} makes no pods: {reason}"),
            Note::FewerPods { workload, due, made } => {
                write!(f, "{workload}: of its {due} pods, which are alike, {made} are made")
            }
            Note::Replaced { place, object } => {
                write!(f, "{place}: {} again; the one read last counts", escaped(&object.to_string()))
            }
        }
    }
}
