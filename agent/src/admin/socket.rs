//! The agent's socket: what is told there is for root of the node, and for whoever may `exec` in the agent's pod.
//!
//! Every process in the network namespace of the node reaches the admin address, pods on the host network among them, and
//! so does an abstract socket; whose they are cannot be told, as most are user 0. A file is reached by who sees the folder
//! that it is in, and that is the node and the agent's own pod.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _};
use std::path::Path;

use nix::sys::stat::{Mode, fchmod};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, socket_with};
use tokio::net::UnixListener;

/// The mode of a folder that is made for the socket.
const FOLDER_MODE: u32 = 0o700;
/// How many may wait to be taken.
const BACKLOG: i32 = 128;

/// Listens on a socket that only this user can reach, in the place of one that a former life of the agent left. The folder
/// is made if it is not there.
///
/// # Errors
///
/// If the path names no file in a folder that can be written, or something else than a socket is there.
pub fn listen(path: &Path) -> io::Result<UnixListener> {
    let folder = path.parent().ok_or_else(|| io::Error::other("it is in no folder"))?;
    DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(folder)?;
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => fs::remove_file(path)?,
        Ok(_) => return Err(io::Error::other("there is a file that is no socket")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    // A file gets the mode of the socket that is bound there, and so has it from the moment that it is there.
    fchmod(&socket, Mode::S_IRUSR | Mode::S_IWUSR)?;
    bind(&socket, &SocketAddrUnix::new(path)?)?;
    rustix::net::listen(&socket, BACKLOG)?;
    UnixListener::from_std(socket.into())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[tokio::test]
    async fn nobody_else_can_reach_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run/agent.sock");
        drop(listen(&path).unwrap());
        let again = listen(&path).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        drop(again);
    }

    #[tokio::test]
    async fn a_file_is_not_put_away() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent.sock");
        fs::write(&path, "mine").unwrap();
        assert!(listen(&path).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
    }
}
