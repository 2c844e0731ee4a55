//! One network namespace, held by a file descriptor and by nothing else.

use std::{
    cmp::Ordering,
    fmt,
    fs::{self, File},
    io,
    os::{fd::AsRawFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
    process,
    sync::Arc,
    thread,
};

use nix::sched::{CloneFlags, setns, unshare};

/// A network namespace that lives as long as a clone of this value, or a socket opened in it, does.
///
/// There is no name under `/run/netns` and no mount: when the process ends, by whatever signal, the kernel frees it.
/// Two values are equal when they are the same namespace.
#[derive(Clone)]
pub struct Netns(Arc<Held>);

struct Held {
    file: File,
    inode: u64,
}

// === impl Netns ===

impl Netns {
    /// Makes an empty namespace (a loopback link that is down).
    ///
    /// # Errors
    /// The kernel's answer: `EPERM` without CAP_SYS_ADMIN in the user namespace, `ENOSPC` at `user.max_net_namespaces`.
    pub fn new() -> io::Result<Self> {
        on_a_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            Self::of_this_thread()
        })?
    }

    /// Takes hold of the namespace that the calling thread is in.
    ///
    /// # Errors
    /// The error of opening `/proc/thread-self/ns/net`: no `/proc`, or no file descriptor left.
    pub fn of_this_thread() -> io::Result<Self> {
        let file = File::open("/proc/thread-self/ns/net")?;
        let inode = file.metadata()?.ino();
        Ok(Self(Arc::new(Held { file, inode })))
    }

    /// Runs `work` inside the namespace, on a thread of its own, and waits for it.
    ///
    /// A socket keeps the namespace in which it was opened, so what `work` returns can be used from anywhere. A process that
    /// `work` starts is inside, too. The calling thread never changes namespace; a panic in `work` goes on in the caller.
    ///
    /// # Errors
    /// No thread could be started, or it could not enter: limits, or a missing CAP_SYS_ADMIN.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        on_a_thread(|| {
            setns(&self.0.file, CloneFlags::CLONE_NEWNET)?;
            Ok(work())
        })?
    }

    /// Sets a sysctl of the namespace, `key` being its path under `/proc/sys`.
    ///
    /// # Errors
    /// The error of writing the file; its text names the sysctl.
    pub fn set_sysctl(&self, key: &str, value: &str) -> io::Result<()> {
        self.set_sysctls(&[(key, value)])
    }

    /// Sets several sysctls in the given order, on one thread.
    pub(super) fn set_sysctls(&self, settings: &[(&str, &str)]) -> io::Result<()> {
        self.run(|| {
            settings.iter().try_for_each(|(key, value)| {
                fs::write(Path::new("/proc/sys").join(key), value)
                    .map_err(|error| io::Error::new(error.kind(), format!("sysctl {key}={value}: {error}")))
            })
        })?
    }

    /// Says whether the kernel offers this sysctl in the namespace.
    pub(super) fn has_sysctl(&self, key: &str) -> io::Result<bool> {
        self.run(|| Path::new("/proc/sys").join(key).exists())
    }

    /// A path at which other processes can enter the namespace, as long as this value and this process live.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/fd/{}", process::id(), self.raw_fd()))
    }

    /// The descriptor's number, as a netlink message wants it.
    pub(super) fn raw_fd(&self) -> i32 {
        self.0.file.as_raw_fd()
    }
}

impl PartialEq for Netns {
    fn eq(&self, other: &Self) -> bool {
        self.0.inode == other.0.inode
    }
}

impl Eq for Netns {}

impl PartialOrd for Netns {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Netns {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.inode.cmp(&other.0.inode)
    }
}

impl fmt::Debug for Netns {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "net:[{}]", self.0.inode)
    }
}

/// A thread that changed its namespace must not serve anybody else, so each piece of work gets one and the thread ends.
fn on_a_thread<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("netns".into()).spawn_scoped(scope, work)?;
        thread.join().map_or_else(|panic| std::panic::resume_unwind(panic), Ok)
    })
}
