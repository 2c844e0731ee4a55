//! What is in force of files that change, break and vanish: what a file last said, until it can be read again.
//!
//! * A file that can be read says what it says: an object that is no longer in it is deleted.
//! * A file that cannot be read, not in full, or that holds no document any more, or whose last line is cut off, or whose
//!   policy has lost its name in an edit, or of whose pods and namespaces less can be read than before, keeps the *whole* of what it said last. A file that never could be read in full
//!   counts as far as it can be read.
//! * A file that is gone takes its objects with it, if the folder that it was in is there, or has been taken out of a
//!   folder that is. Not so if a path that was given cannot be looked at, if something else is there that is no file, or
//!   if the folder holds no manifest at all any more and held policies, or is another one now, such as the one beneath
//!   a file system that was unmounted. Who wants nothing to be in force says so with an empty list:
//!   `{apiVersion: v1, kind: List, items: []}`.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use compiler::api::Object;

use super::content::Content;
use super::large::{LargeFiles, Step};
use super::merge::{Workloads, merge};
use super::place::printed;
use super::tree::{FileKey, Identity};
use super::{Loaded, Reach, Reading, Stamp, read_with};

/// What files said when they could last be read.
#[derive(Default)]
pub struct Memory {
    files: BTreeMap<FileKey, Content>,
    /// How files were found when they were last read, if that tells of each change, and what was wrong with them then.
    looks: BTreeMap<FileKey, (Option<Stamp>, Vec<String>)>,
    folders: BTreeMap<PathBuf, Identity>,
    /// Where large files are read beside the others.
    large: Option<LargeFiles>,
}

/// What is in force after a reading.
pub struct InForce {
    /// The objects, of this reading and of earlier ones.
    pub loaded: Loaded,
    /// Why some of them are of earlier ones, or some are missing.
    pub faults: Vec<String>,
    /// How each path was found, before it was read.
    pub stamps: BTreeMap<PathBuf, Option<Stamp>>,
}

// === impl Memory ===

impl Memory {
    /// From now on large files are read beside the others, on a thread that tells each of its steps. What such a file
    /// said last stays in force until the reading that follows its [`Step::End`].
    ///
    /// # Errors
    ///
    /// If the system gives no thread.
    pub fn read_large_beside(&mut self, tell: impl Fn(Step) + Send + 'static) -> io::Result<()> {
        self.large = Some(LargeFiles::spawn(tell)?);
        Ok(())
    }

    /// Looks at all paths, and reads the files that are not as they were when they were last read.
    pub fn read(&mut self, paths: &[PathBuf], reach: Reach) -> InForce {
        let Memory { looks, large, .. } = self;
        if let Some(large) = large {
            large.begin();
        }
        let stands = |key: &FileKey, now: &Stamp, given: &Path| {
            looks.get(key).is_some_and(|(stamp, _)| stamp.as_ref() == Some(now))
                || large.as_mut().is_some_and(|large| large.leave(key, now, given))
        };
        let mut reading = read_with(paths, reach, stands, &mut io::stdin());
        if let Some(large) = large {
            reading.files.extend(large.end(&mut reading.standing));
        }
        self.keep(reading)
    }

    fn keep(&mut self, reading: Reading) -> InForce {
        let Reading { files, standing, folders, no_files, errors, notes, stamps } = reading;
        let mut faults: Vec<String> = errors.iter().map(|(_, error)| error.to_string()).collect();
        let mut read: BTreeSet<FileKey> = standing.into_iter().collect();
        self.looks.retain(|key, _| read.contains(key));
        faults.extend(self.looks.values().flat_map(|(_, faults)| faults.clone()));
        for (key, mut content) in files {
            let before = self.files.get(&key);
            let wrong = faults_of(&key.1, &content, before);
            read.insert(key.clone());
            self.looks.insert(key.clone(), (content.stamp.take(), wrong.clone()));
            if wrong.is_empty() || before.is_none() {
                self.files.insert(key, content);
            }
            faults.extend(wrong);
        }
        let mut emptied: BTreeMap<PathBuf, bool> = BTreeMap::new();
        let gone: Vec<FileKey> = self.files.keys().filter(|key| !read.contains(*key)).cloned().collect();
        for key in gone {
            let path = &key.1;
            // Those are faults already.
            if errors.iter().any(|(failed, _)| path.starts_with(failed)) {
                continue;
            }
            let instead = no_files.get(path).copied().or(folders.contains_key(path).then_some("a folder"));
            if let Some(instead) = instead {
                faults.push(format!("{}: is {instead} now, and was a file", printed(path)));
                continue;
            }
            let is_empty = |folder: &Path| !read.iter().any(|(_, path)| path.starts_with(folder));
            let around: Vec<&PathBuf> = folders.keys().filter(|of| path.starts_with(of) && is_empty(of)).collect();
            let is_another =
                around.iter().any(|of| self.folders.get(*of).is_some_and(|id| folders.get(*of) != Some(id)));
            match around.first() {
                Some(folder) if is_another || self.files[&key].isolates() => {
                    emptied.insert((*folder).clone(), true);
                }
                Some(folder) => _ = emptied.entry((*folder).clone()).or_insert(false),
                None => _ = self.files.remove(&key),
            }
        }
        for (folder, is_kept) in &emptied {
            if *is_kept {
                faults.push(format!(
                    "{}: holds no manifest any more (is its file system mounted? an empty List says that it shall hold \
                     nothing)",
                    printed(folder)
                ));
            } else {
                self.files.retain(|(_, path), _| !path.starts_with(folder));
            }
        }
        let is_kept = |folder: &Path| emptied.iter().any(|(of, is_kept)| *is_kept && folder.starts_with(of));
        // What a folder was when its files were read is what it is held against.
        self.folders.extend(folders.into_iter().filter(|(folder, _)| !is_kept(folder)));
        let mut loaded = merge(self.files.values(), Workloads::PassedOver);
        loaded.notes.splice(0..0, notes);
        InForce { loaded, faults, stamps }
    }
}

/// What is wrong with a file, or looks as if somebody was still writing it.
fn faults_of(path: &Path, content: &Content, before: Option<&Content>) -> Vec<String> {
    let mut faults: Vec<String> = content.errors.iter().map(ToString::to_string).collect();
    faults.extend(content.misspelt.iter().map(|(place, finding)| format!("{place}: {finding}")));
    let Some(before) = before.filter(|before| !before.objects.is_empty()) else { return faults };
    if !faults.is_empty() {
        return faults;
    }
    if content.documents == 0 {
        faults.push(format!("{}: holds nothing any more", printed(path)));
    } else if before.ends_line && !content.ends_line {
        let line = content.lines;
        faults.push(format!("{}:{line}: is cut off in its last line (end it with a line break if not)", printed(path)));
    }
    let lists = content.without_items.iter();
    faults.extend(lists.map(|place| format!("{place}: has no items (an empty list is written as items: [])")));
    if !faults.is_empty() {
        return faults;
    }
    for gathered in &content.objects {
        let lost = gathered.findings.iter().filter(|finding| is_of_identity(&gathered.object, &finding.field));
        let is_new = |finding: &&_| !before.objects.iter().any(|earlier| earlier.findings.contains(finding));
        faults.extend(lost.filter(is_new).map(|finding| format!("{}: {finding}", gathered.place)));
    }
    faults
}

/// Whether a finding about a field says that an object may be another one than it was: what a policy lacks allows less, but
/// without its labels or addresses a pod is isolated by nobody.
fn is_of_identity(object: &Object, field: &str) -> bool {
    match object {
        Object::NetworkPolicy(_) => matches!(field, "metadata" | "metadata.name" | "metadata.namespace"),
        Object::Pod(_) | Object::Namespace(_) => true,
        Object::Service(_) | Object::EndpointSlice(_) | Object::Node(_) => false,
    }
}

// === impl InForce ===

impl InForce {
    /// Whether an agent that has just started may replace what the kernel holds by this. `has_rules` says whether the
    /// kernel holds rules of an agent before it; they stand for what cannot be read.
    pub fn may_begin(&self, has_rules: impl FnOnce() -> bool) -> bool {
        let isolates = self.loaded.objects.iter().any(|object| match object {
            Object::NetworkPolicy(_) => true,
            Object::Namespace(namespace) => namespace.default_deny_ingress,
            Object::Pod(_) | Object::Service(_) | Object::EndpointSlice(_) | Object::Node(_) => false,
        });
        match (self.faults.is_empty(), self.loaded.objects.is_empty()) {
            (true, false) => true,
            (true, true) => !has_rules(),
            // Without rules from before, what can be read is better than nothing; and nothing is not worth a table.
            (false, _) => isolates && !has_rules(),
        }
    }
}

#[cfg(test)]
mod tests;
