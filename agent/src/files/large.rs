//! Large files, which are read on a thread of their own.
//!
//! A policy may have as much as 1.5 MiB, and files of half of that have taken a third of a second to read, for which no
//! other file's change should wait. What a large file said last stands until it has been read, as if it were being
//! written all the while.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, Sender};
use std::{io, thread};

use super::content::Content;
use super::content_at;
use super::source::{self, Sort};
use super::tree::{FileKey, Stamp};

/// The size in bytes from which a file is a large one: below it reading takes no longer than files are waited for that
/// are written in several steps.
pub(super) const LARGE: u64 = 32 << 10;

/// What the thread that reads large files says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// It begins with a file.
    Begin,
    /// It is done with it: another reading finds what it says.
    End,
}

/// The thread that reads large files one after the other, and the files that are there to be read or to be taken over.
pub(super) struct LargeFiles {
    files: Sender<File>,
    contents: Receiver<(FileKey, Option<Content>)>,
    /// The files that the thread has been given and has not read yet.
    reading: BTreeSet<FileKey>,
    read: BTreeMap<FileKey, Content>,
}

/// A file, and which of the given paths led to it.
struct File {
    key: FileKey,
    given: PathBuf,
}

// === impl LargeFiles ===

impl LargeFiles {
    /// Starts the thread, which tells each of its steps.
    pub(super) fn spawn(tell: impl Fn(Step) + Send + 'static) -> io::Result<LargeFiles> {
        let (files, to_read) = mpsc::channel::<File>();
        let (done, contents) = mpsc::channel();
        thread::Builder::new().name("files-large".to_owned()).spawn(move || {
            for File { key, given } in to_read {
                tell(Step::Begin);
                // So that its times tell of each change after that, and it need not be read twice.
                source::let_rest(&key.1);
                let content = content_at(&key.1, Sort::Regular, &given);
                let is_wanted = done.send((key, content)).is_ok();
                tell(Step::End);
                if !is_wanted {
                    return;
                }
            }
        })?;
        Ok(LargeFiles { files, contents, reading: BTreeSet::new(), read: BTreeMap::new() })
    }

    /// A reading begins: what has been read since the last one is there to be taken over.
    pub(super) fn begin(&mut self) {
        for (key, content) in self.contents.try_iter() {
            self.reading.remove(&key);
            if let Some(content) = content {
                self.read.insert(key, content);
            }
        }
    }

    /// Whether what a changed file said last stands for now, as it has been given to the thread or is there to be taken
    /// over.
    pub(super) fn leave(&mut self, key: &FileKey, now: &Stamp, given: &Path) -> bool {
        if self.reading.contains(key) {
            return true;
        }
        match self.read.get(key).map(|content| &content.stamp) {
            Some(Some(stamp)) if stamp == now => return true,
            // It cannot be read, or its times do not tell: with the others, or this would have no end.
            Some(None) => return false,
            Some(Some(_)) | None => {}
        }
        let file = File { key: key.clone(), given: given.to_owned() };
        let is_left = now.size() >= LARGE && self.files.send(file).is_ok();
        if is_left {
            self.reading.insert(key.clone());
        }
        is_left
    }

    /// Whether no file is being read.
    #[cfg(test)]
    pub(super) fn is_idle(&self) -> bool {
        self.reading.is_empty()
    }

    /// The reading ends: what has been read of files whose old contents would stand otherwise takes their place.
    pub(super) fn end(&mut self, standing: &mut Vec<FileKey>) -> Vec<(FileKey, Content)> {
        let read = std::mem::take(&mut self.read);
        let mut contents = Vec::new();
        for (key, content) in read {
            if let Some(place) = standing.iter().position(|stands| *stands == key) {
                standing.swap_remove(place);
                contents.push((key, content));
            }
        }
        contents
    }
}
