//! Which files the given paths mean.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::source::{Sort, name_of};
use super::{LoadError, Note, Reach};

/// A file among those that the given paths mean: by the place of its path in their list, and its own path.
pub(super) type FileKey = (usize, PathBuf);

/// What is at a path: a device and a number on it. Another file system mounted there, or another folder moved there,
/// has others.
pub(super) type Identity = (u64, u64);

/// What tells whether a path has changed: its identity, size, and the times of its change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamp(Identity, u64, [i64; 4]);

/// What is there.
#[derive(Debug, Default)]
pub(super) struct Tree {
    /// The files to be read, in that order.
    pub(super) files: Vec<(FileKey, Sort)>,
    /// The folders that were looked into.
    pub(super) folders: BTreeMap<PathBuf, Identity>,
    /// What cannot be read once it is opened for good: pipes, sockets and devices.
    pub(super) no_files: BTreeMap<PathBuf, &'static str>,
    /// Paths that cannot be looked at.
    pub(super) errors: Vec<(PathBuf, LoadError)>,
    pub(super) notes: Vec<Note>,
    /// How each path was found; none where nothing was.
    pub(super) stamps: BTreeMap<PathBuf, Option<Stamp>>,
    /// Folders that were looked into, and files by folder and name: what two paths lead to is read once.
    seen_folders: BTreeSet<Identity>,
    seen_files: BTreeSet<(Identity, OsString)>,
}

// === impl Stamp ===

impl Stamp {
    /// The size of the file in bytes.
    pub(super) fn size(&self) -> u64 {
        self.1
    }
}

// === impl Tree ===

impl Tree {
    /// Adds what one of the given paths means.
    pub(super) fn add(&mut self, given: usize, path: &Path, reach: Reach) {
        let metadata = match self.look(path) {
            Ok(metadata) => metadata,
            Err(source) => return self.fail(path, source),
        };
        if !metadata.is_dir() {
            let sort = if reach.pipes { Sort::Any } else { Sort::Regular };
            if !metadata.is_file() && sort == Sort::Regular {
                self.no_files.insert(path.to_owned(), name_of(&metadata.file_type()));
            }
            return self.file(given, path, sort);
        }
        let (before, mut passed_over) = (self.files.len(), PassedOver::default());
        let is_new = !self.seen_folders.contains(&identity(&metadata));
        self.folder(given, path, &metadata, reach, &mut passed_over);
        if is_new && self.files.len() == before && !self.errors.iter().any(|(failed, _)| failed.starts_with(path)) {
            self.notes.push(Note::EmptyFolder { path: path.to_owned() });
        }
        if !passed_over.0.is_empty() {
            self.notes.push(Note::PassedOver { path: path.to_owned(), counts: passed_over.0.into_iter().collect() });
        }
    }

    /// Adds the manifests of a folder, by name, those of its folders among them.
    fn folder(&mut self, given: usize, path: &Path, metadata: &Metadata, reach: Reach, passed_over: &mut PassedOver) {
        self.folders.insert(path.to_owned(), identity(metadata));
        // A link may lead back to where it is.
        if !self.seen_folders.insert(identity(metadata)) {
            return;
        }
        let entries = fs::read_dir(path).and_then(|entries| entries.collect::<io::Result<Vec<_>>>());
        let mut names: Vec<OsString> = match entries {
            Ok(entries) => entries.into_iter().map(|entry| entry.file_name()).collect(),
            Err(source) => return self.fail(path, source),
        };
        names.sort();
        for name in names {
            self.entry(given, &path.join(name), reach, passed_over);
        }
    }

    fn entry(&mut self, given: usize, path: &Path, reach: Reach, passed_over: &mut PassedOver) {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        // Links are followed: a mounted ConfigMap consists of them.
        let found = self.look(path);
        match &found {
            // `.git`, and what a mounted ConfigMap keeps its versions in.
            Ok(metadata) if metadata.is_dir() && (name.starts_with('.') || !reach.recursive) => {}
            Ok(metadata) if metadata.is_dir() => self.folder(given, path, metadata, reach, passed_over),
            // The lock of an editor is a link that leads nowhere.
            _ if name.starts_with(".#") => {}
            _ if !is_manifest(path) => passed_over.add(ending(path)),
            // It has been removed since the folder was looked into.
            Err(_) if is_gone(path) => {}
            // What a link fails to lead to is told on opening.
            Err(_) => self.file(given, path, Sort::Regular),
            Ok(metadata) if metadata.is_file() => self.file(given, path, Sort::Regular),
            Ok(metadata) => {
                let sort = name_of(&metadata.file_type());
                passed_over.add(sort.trim_start_matches("a ").to_owned());
                self.no_files.insert(path.to_owned(), sort);
            }
        }
    }

    fn file(&mut self, given: usize, path: &Path, sort: Sort) {
        let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let known = fs::metadata(folder).ok().zip(path.file_name());
        if known.is_none_or(|(folder, name)| self.seen_files.insert((identity(&folder), name.to_owned()))) {
            self.files.push(((given, path.to_owned()), sort));
        }
    }

    fn fail(&mut self, path: &Path, source: io::Error) {
        self.errors.push((path.to_owned(), LoadError::Io { path: path.to_owned(), source }));
    }

    fn look(&mut self, path: &Path) -> io::Result<Metadata> {
        let found = fs::metadata(path);
        self.stamps.insert(path.to_owned(), found.as_ref().ok().map(stamp));
        found
    }
}

/// Whether there is nothing at a path, not even a link that leads nowhere.
pub(super) fn is_gone(path: &Path) -> bool {
    fs::symlink_metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// How a path is found now.
pub fn stamp_of(path: &Path) -> Option<Stamp> {
    fs::metadata(path).ok().as_ref().map(stamp)
}

pub(super) fn stamp(metadata: &Metadata) -> Stamp {
    let times = [metadata.mtime(), metadata.mtime_nsec(), metadata.ctime(), metadata.ctime_nsec()];
    Stamp(identity(metadata), metadata.len(), times)
}

fn identity(metadata: &Metadata) -> Identity {
    (metadata.dev(), metadata.ino())
}

fn is_manifest(path: &Path) -> bool {
    matches!(path.extension().and_then(|ending| ending.to_str()), Some("yaml" | "yml" | "json"))
}

fn ending(path: &Path) -> String {
    let ending = path.extension().map(|ending| format!(".{}", ending.to_string_lossy()));
    ending.unwrap_or_else(|| "without an ending".to_owned())
}

/// What is in a folder and is not read, counted by what it is.
#[derive(Default)]
struct PassedOver(BTreeMap<String, usize>);

impl PassedOver {
    fn add(&mut self, what: String) {
        *self.0.entry(what).or_default() += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_vanishes_while_its_folder_is_read_is_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let (gone, dangling) = (folder.path().join("gone.yaml"), folder.path().join("link.yaml"));
        std::os::unix::fs::symlink("/nowhere", &dangling).unwrap();
        let mut tree = Tree::default();
        let reach = Reach { recursive: true, pipes: false };
        tree.entry(0, &gone, reach, &mut PassedOver::default());
        tree.entry(0, &dangling, reach, &mut PassedOver::default());
        assert_eq!(tree.files, [((0, dangling), Sort::Regular)]);
    }
}
