//! Taking the process into user and network namespaces of its own, in which anybody may build a lab.

use std::{fs, io};

use nix::{
    errno::Errno,
    sched::{CloneFlags, unshare},
    sys::resource::{Resource, getrlimit, setrlimit},
    unistd::{Gid, Uid, getegid, geteuid},
};

/// Why the process cannot have namespaces of its own.
#[derive(Debug, thiserror::Error)]
pub enum EnterError {
    /// The kernel gives a user namespace only to a process with one thread.
    #[error("the process has more than one thread; a user namespace has to be entered before any other is started")]
    Threads,
    /// The system forbids user namespaces.
    #[error("this system forbids user namespaces ({reason}); root needs none")]
    Forbidden {
        /// The setting that forbids it.
        reason: String,
        /// The kernel's answer.
        #[source]
        source: Errno,
    },
    /// Root needs no user namespace, but may not make a network namespace either.
    #[error(
        "not even root may make a network namespace here: CAP_SYS_ADMIN is missing, or user.max_net_namespaces is too low"
    )]
    RootForbidden(#[source] Errno),
    /// The user could not be mapped to root inside.
    #[error("cannot write {file}")]
    Map {
        /// The file in `/proc`.
        file: &'static str,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
}

/// Takes the process into a user namespace, where it is root and has every capability, and an empty network namespace.
///
/// Must be called before the process starts any thread, hence before there is an asynchronous runtime. Works for every user; where
/// user namespaces are forbidden it still works for root, who then keeps his user namespace. Files are accessed with the
/// caller's own rights as before. Nothing is mounted: `/proc/sys/net` shows the namespace of the thread that opens it.
///
/// # Errors
/// The system does not allow it; the error names the setting.
pub fn enter() -> Result<(), EnterError> {
    let (user, group) = (geteuid(), getegid());
    match unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET) {
        Ok(()) => become_root_inside(user, group)?,
        Err(Errno::EINVAL) => return Err(EnterError::Threads),
        Err(_) if user.is_root() => unshare(CloneFlags::CLONE_NEWNET).map_err(EnterError::RootForbidden)?,
        Err(source) => return Err(EnterError::Forbidden { reason: forbidden_by(source, read_sysctl), source }),
    }
    allow_many_files();
    Ok(())
}

/// Maps the caller, and nobody else, to root of the new user namespace.
fn become_root_inside(user: Uid, group: Gid) -> Result<(), EnterError> {
    // The kernel wants groups renounced before an unprivileged user may map one.
    let files = [
        ("/proc/self/setgroups", "deny".to_owned()),
        ("/proc/self/uid_map", format!("0 {user} 1")),
        ("/proc/self/gid_map", format!("0 {group} 1")),
    ];
    for (file, text) in files {
        fs::write(file, text).map_err(|source| EnterError::Map { file, source })?;
    }
    Ok(())
}

/// Raises the soft limit of open files to the hard one: a matrix of probes holds some thousands of sockets.
pub(super) fn allow_many_files() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
    {
        // A lower limit only makes the waves of probes smaller, so a refusal is no error.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

/// Finds the setting that forbids user namespaces; `sysctl` reads one by its dotted name.
fn forbidden_by(errno: Errno, sysctl: impl Fn(&str) -> Option<String>) -> String {
    let is = |name: &str, value: &str| sysctl(name).is_some_and(|set| set.trim() == value);
    if is("user.max_user_namespaces", "0") {
        "sysctl user.max_user_namespaces is 0".into()
    } else if is("kernel.unprivileged_userns_clone", "0") {
        "sysctl kernel.unprivileged_userns_clone is 0".into()
    } else if is("kernel.apparmor_restrict_unprivileged_userns", "1") {
        "sysctl kernel.apparmor_restrict_unprivileged_userns is 1".into()
    } else if errno == Errno::ENOSPC {
        "sysctl user.max_user_namespaces or user.max_net_namespaces is reached, or namespaces are nested too deeply"
            .into()
    } else {
        "no sysctl does; a container runtime's seccomp filter or a security module may".into()
    }
}

fn read_sysctl(name: &str) -> Option<String> {
    fs::read_to_string(format!("/proc/sys/{}", name.replace('.', "/"))).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_setting_that_forbids_is_named() {
        let with =
            |name: &'static str, value: &'static str| move |asked: &str| (asked == name).then(|| format!("{value}\n"));
        for (name, value) in [
            ("user.max_user_namespaces", "0"),
            ("kernel.unprivileged_userns_clone", "0"),
            ("kernel.apparmor_restrict_unprivileged_userns", "1"),
        ] {
            let reason = forbidden_by(Errno::EPERM, with(name, value));
            assert_eq!(reason, format!("sysctl {name} is {value}"));
        }
        assert!(forbidden_by(Errno::ENOSPC, with("user.max_user_namespaces", "100")).contains("is reached"));
        assert!(forbidden_by(Errno::EPERM, |_| None).contains("seccomp"));
    }

    #[test]
    fn a_process_with_threads_is_told_so() {
        // The test harness runs this on a thread beside its main thread.
        assert!(matches!(enter(), Err(EnterError::Threads)));
    }
}
