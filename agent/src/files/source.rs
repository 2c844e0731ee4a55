//! The bytes of one file.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use nix::fcntl::OFlag;

/// The most bytes that are read of one file: far more than the objects of a large cluster have, and few enough that
/// a path such as `/dev/zero` ends in an error.
pub(super) const LARGEST: u64 = 512 << 20;

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

/// Reads a file as it is at one moment.
pub(super) fn read_file(path: &Path, sort: Sort) -> io::Result<Vec<u8>> {
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
            return Ok(bytes);
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

/// Whether nobody has written to the file since.
fn is_settled(file: &File, before: &fs::Metadata, read: usize) -> io::Result<bool> {
    let now = file.metadata()?;
    let time = |metadata: &fs::Metadata| (metadata.mtime(), metadata.mtime_nsec());
    // The files of some file systems, such as proc, have no size.
    Ok(time(&now) == time(before) && (now.len() == read as u64 || before.len() == 0))
}
