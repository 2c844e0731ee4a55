//! The bytes of one file.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::thread;
use std::time::{Duration, SystemTime};

use nix::fcntl::OFlag;

use super::tree::{Stamp, stamp};

/// The most bytes that are read of one file: far more than the objects of a large cluster have, and few enough that
/// a path such as `/dev/zero` ends in an error.
pub(super) const LARGEST: u64 = 512 << 20;

/// How long after a change the times of a file may stay the same through another one: a tick of the kernel's coarse clock,
/// and much more where a file system keeps whole seconds.
const GRAIN: Duration = Duration::from_millis(50);
const COARSE_GRAIN: Duration = Duration::from_secs(3);

/// How often a file is read again that changes meanwhile.
const ATTEMPTS: usize = 3;

/// Which files may be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sort {
    /// Regular ones, which end: anything else could hold the reader up for good.
    Regular,
    /// Also pipes and devices, as a shell's `<(command)` makes one.
    Any,
}

/// The bytes of a file, and how it was found, if it is sure that whoever changes it after that changes the stamp too.
pub(super) struct Bytes(pub(super) Vec<u8>, pub(super) Option<Stamp>);

/// Reads a file as it is at one moment.
pub(super) fn read_file(path: &Path, sort: Sort) -> io::Result<Bytes> {
    for _ in 0..ATTEMPTS {
        // Without O_NONBLOCK a pipe that has taken the file's place would be waited for, for ever.
        let flags = if sort == Sort::Regular { OFlag::O_NONBLOCK } else { OFlag::empty() };
        let mut file = OpenOptions::new().read(true).custom_flags(flags.bits()).open(path)?;
        let before = file.metadata()?;
        if sort == Sort::Regular && !before.is_file() {
            return Err(io::Error::other(format!("is {}, and no file", name_of(&before.file_type()))));
        }
        let bytes = read(&mut file, LARGEST)?;
        if !before.is_file() || is_settled(&file, &before, bytes.len())? {
            let stamp = (before.is_file() && has_rested(&before, SystemTime::now())).then(|| stamp(&before));
            return Ok(Bytes(bytes, stamp));
        }
    }
    Err(io::Error::other("changes while it is read"))
}

/// Reads to the end, if that comes within so many bytes.
pub(super) fn read(source: &mut dyn Read, largest: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    source.take(largest + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > largest {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("more than {largest} bytes")));
    }
    Ok(bytes)
}

/// What something is that is no regular file.
pub(super) fn name_of(sort: &fs::FileType) -> &'static str {
    use std::os::unix::fs::FileTypeExt as _;
    if sort.is_dir() {
        "a folder"
    } else if sort.is_fifo() {
        "a pipe"
    } else if sort.is_socket() {
        "a socket"
    } else {
        "a device"
    }
}

/// Whether a file has not changed for so long that its next change gives it other times.
fn has_rested(metadata: &fs::Metadata, now: SystemTime) -> bool {
    let times = [(metadata.mtime(), metadata.mtime_nsec()), (metadata.ctime(), metadata.ctime_nsec())];
    let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    times.into_iter().all(|(seconds, nanoseconds)| {
        let grain = if nanoseconds == 0 { COARSE_GRAIN } else { GRAIN };
        // Times before 1970 are old; times in the future may come again.
        let changed = Duration::from_secs(seconds.try_into().unwrap_or(0))
            + Duration::from_nanos(nanoseconds.try_into().unwrap_or(0));
        changed + grain < now
    })
}

/// Waits until a file has rested, unless it has whole seconds for times.
pub(super) fn let_rest(path: &Path) {
    let rests = |metadata: fs::Metadata| has_rested(&metadata, SystemTime::now());
    if !fs::metadata(path).is_ok_and(rests) {
        thread::sleep(GRAIN);
    }
}

/// Whether nobody has written to the file since.
fn is_settled(file: &File, before: &fs::Metadata, read: usize) -> io::Result<bool> {
    let now = file.metadata()?;
    let time = |metadata: &fs::Metadata| (metadata.mtime(), metadata.mtime_nsec());
    // The files of some file systems, such as proc, have no size.
    Ok(time(&now) == time(before) && (now.len() == read as u64 || before.len() == 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_tell_only_after_a_while() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let metadata = file.as_file().metadata().unwrap();
        let ctime = Duration::from_secs(metadata.ctime().unsigned_abs())
            + Duration::from_nanos(metadata.ctime_nsec().unsigned_abs());
        let at = |later: Duration| has_rested(&metadata, SystemTime::UNIX_EPOCH + ctime + later);
        assert!(!at(Duration::ZERO) && !at(GRAIN / 2), "another change may leave the same times");
        assert!(at(COARSE_GRAIN * 2));
        assert!(!has_rested(&metadata, SystemTime::UNIX_EPOCH), "times in the future come again");
    }
}
