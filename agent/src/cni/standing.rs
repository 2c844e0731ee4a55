//! Whether a network still stands of which a file tells: files stay where a node has lost its power, or a runtime its mind.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, SystemTime};

use compiler::api::LinkName;
use rustix::io::Errno;
use rustix::net::netdevice::name_to_index;
use rustix::net::{AddressFamily, SocketType, socket};
use rustix::system::sysinfo;

use super::result::Recorded;

/// What there is on the node, in the network namespace of the thread that makes it.
pub(super) struct Standing {
    socket: OwnedFd,
    /// Whether a link is there, as far as that was asked.
    links: BTreeMap<LinkName, bool>,
    /// When the system started, by the clock as it is set now.
    started: SystemTime,
}

// === impl Standing ===

impl Standing {
    /// Ready to look.
    pub(super) fn new() -> io::Result<Standing> {
        let socket = socket(AddressFamily::UNIX, SocketType::DGRAM, None)?;
        Ok(Standing { socket, links: BTreeMap::new(), started: SystemTime::UNIX_EPOCH })
    }

    /// What was seen before is forgotten.
    pub(super) fn look_anew(&mut self) {
        self.links.clear();
        let uptime = Duration::from_secs(u64::try_from(sysinfo().uptime).unwrap_or_default());
        self.started = SystemTime::now().checked_sub(uptime).unwrap_or(SystemTime::UNIX_EPOCH);
    }

    /// Whether a network stands: all its links on the node are there. Where it has none of which the plugins tell, it stands
    /// unless it was made before the system started, which no network outlives.
    pub(super) fn has(&mut self, recorded: &Recorded, written: SystemTime) -> bool {
        if recorded.links.is_empty() {
            return self.started <= written;
        }
        let Standing { socket, links, started: _ } = self;
        recorded.links.iter().all(|link| {
            *links.entry(*link).or_insert_with(|| {
                // If the kernel does not say, the file is to be believed.
                name_to_index(&*socket, &link.to_string()) != Err(Errno::NODEV)
            })
        })
    }
}
