//! The files of the folder.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, Metadata, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use nix::fcntl::OFlag;

use super::result::{Fault, Recorded, parse};

/// The most bytes of one file: configuration and result take some thousand.
const LARGEST: u64 = 1 << 20;
/// The most files: of all pods that a node can have, with some networks each, and what a long life has left behind.
const MOST_FILES: usize = 10_000;
/// How long after a change a file may still be in the making: what is wrong with it is not told before, and the time of the
/// file may stay the same through another change.
const IN_THE_MAKING: Duration = Duration::from_secs(1);

/// The folder, with what was read of it.
pub(super) struct Folder {
    path: PathBuf,
    known: BTreeMap<OsString, Known>,
}

/// A file as it was read.
#[derive(Debug)]
struct Known {
    stamp: Stamp,
    /// Whether it was not in the making any more.
    is_settled: bool,
    content: Content,
}

/// What the files say.
#[derive(Debug, Default)]
pub(super) struct Reading {
    /// Those that tell of a pod's network.
    pub(super) recorded: Vec<RecordedFile>,
    /// Those that cannot be used, by name.
    pub(super) faults: Vec<(OsString, Fault)>,
}

/// A file that tells of a pod's network.
#[derive(Debug)]
pub(super) struct RecordedFile {
    /// Its name.
    pub(super) name: OsString,
    /// What it tells.
    pub(super) recorded: Recorded,
    /// When it was written.
    pub(super) written: SystemTime,
}

/// What is in a file.
type Content = Result<Option<Recorded>, Fault>;

/// How a file was found: another one, or another content, has another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

// === impl Folder ===

impl Folder {
    /// The folder at a path, whether it is there or not.
    pub(super) fn new(path: PathBuf) -> Folder {
        Folder { path, known: BTreeMap::new() }
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the files that are not as they were.
    pub(super) fn read(&mut self, now: SystemTime) -> io::Result<Reading> {
        let mut reading = Reading::default();
        let mut known = BTreeMap::new();
        for (name, found) in self.files(&mut reading)? {
            let (stamp, written) = (Stamp::of(&found), found.modified().unwrap_or(now));
            // A time that is still to come is no reason to wait for it.
            let is_settled = now.duration_since(written).is_ok_and(|age| age >= IN_THE_MAKING) || written > now;
            let before = self.known.remove(&name).filter(|before| before.stamp == stamp);
            // What is in the making and can be used is read once more, when it is settled.
            let is_as_before = |before: &Known| before.is_settled || !is_settled && before.content.is_ok();
            let before = before.filter(is_as_before).map(|before| before.content);
            let Some(content) = before.or_else(|| self.content(&name)) else { continue };
            match &content {
                Ok(None) => {}
                Ok(Some(recorded)) => {
                    reading.recorded.push(RecordedFile { name: name.clone(), recorded: recorded.clone(), written });
                }
                Err(fault) if is_settled => reading.faults.push((name.clone(), fault.clone())),
                Err(_) => {}
            }
            known.insert(name, Known { stamp, is_settled, content });
        }
        self.known = known;
        Ok(reading)
    }

    /// The regular files, by name: if there are too many, the newest. What else there is goes among the faults.
    fn files(&self, reading: &mut Reading) -> io::Result<BTreeMap<OsString, Metadata>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            // Of the entry itself, wherever it may lead.
            match entry.metadata() {
                Ok(found) if found.is_file() => files.push((entry.file_name(), found)),
                Ok(found) => reading.faults.push((entry.file_name(), Fault::NoFile(name_of(&found)))),
                // It has been removed meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => reading.faults.push((entry.file_name(), Fault::Unreadable(error.to_string()))),
            }
        }
        if files.len() > MOST_FILES {
            files.sort_by_cached_key(|(name, found)| {
                (std::cmp::Reverse((found.mtime(), found.mtime_nsec())), name.clone())
            });
            let too_many = files.split_off(MOST_FILES).into_iter();
            reading.faults.extend(too_many.map(|(name, _)| (name, Fault::TooMany(MOST_FILES))));
        }
        Ok(files.into_iter().collect())
    }

    /// What is in a file; `None` where it is gone.
    fn content(&self, name: &OsStr) -> Option<Content> {
        match read(&self.path.join(name)) {
            Ok(Some(bytes)) => Some(parse(&name.to_string_lossy(), &bytes)),
            Ok(None) => None,
            Err(fault) => Some(Err(fault)),
        }
    }
}

/// The bytes of a regular file, and of nothing that has taken its place; `None` where it is gone.
fn read(path: &Path) -> Result<Option<Vec<u8>>, Fault> {
    let unreadable = |error: io::Error| Fault::Unreadable(error.to_string());
    // A pipe is not waited for, and a link not followed.
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let file = match OpenOptions::new().read(true).custom_flags(flags.bits()).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(error)),
    };
    let found = file.metadata().map_err(unreadable)?;
    if !found.is_file() {
        return Err(Fault::NoFile(name_of(&found)));
    }
    let mut bytes = Vec::new();
    file.take(LARGEST + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > LARGEST { Err(Fault::TooLarge(LARGEST)) } else { Ok(Some(bytes)) }
}

fn name_of(found: &Metadata) -> &'static str {
    let sort = found.file_type();
    if sort.is_symlink() {
        "a link"
    } else if sort.is_dir() {
        "a folder"
    } else if sort.is_fifo() {
        "a pipe"
    } else if sort.is_socket() {
        "a socket"
    } else {
        "a device"
    }
}

// === impl Stamp ===

impl Stamp {
    fn of(found: &Metadata) -> Stamp {
        Stamp {
            inode: found.ino(),
            size: found.size(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        }
    }
}
