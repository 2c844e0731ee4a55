//! Flows as they begin and end.

use std::time::Duration;

use rustix::io::Errno;

use super::Entry;
use super::entry::entry;
use crate::Error;
use crate::constants::{ct_group, ct_msg, nfnl};
use crate::socket::NetlinkSocket;

/// Tells which flows begin and end, from when it was opened.
///
/// The kernel tells of a flow only if somebody was listening, or `net.netfilter.nf_conntrack_events` was 1, when the flow
/// began: of older ones the end is not told.
#[derive(Debug)]
pub struct Events {
    socket: NetlinkSocket,
}

/// What became of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Its first packet has passed all rules.
    Begun,
    /// Its entry is gone.
    Ended,
}

/// What came of waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// Some changes were shown.
    Changes,
    /// There were none.
    Silence,
    /// Some were lost, because they came faster than they were read.
    Lost,
}

// === impl Events ===

impl Events {
    /// Listens in the network namespace of the calling thread. [`Events::next`] will wait this long.
    ///
    /// # Errors
    /// [`Error::is_permission`] without CAP_NET_ADMIN in the user namespace that owns the network namespace.
    pub fn open(patience: Duration) -> Result<Events, Error> {
        let socket = NetlinkSocket::open()?;
        socket.wait_at_most(patience)?;
        socket.join(ct_group::NEW)?;
        socket.join(ct_group::DESTROY)?;
        Ok(Events { socket })
    }

    /// Waits for changes, and shows those that have come.
    ///
    /// # Errors
    /// If the socket cannot be read.
    pub fn next(&mut self, mut on_change: impl FnMut(Change, Entry)) -> Result<Heard, Error> {
        let messages = match self.socket.receive() {
            Ok(messages) => messages,
            Err(Errno::AGAIN) => return Ok(Heard::Silence),
            Err(Errno::NOBUFS) => return Ok(Heard::Lost),
            Err(errno) => {
                return Err(Error::Socket { what: "receive what the kernel tells of flows", source: errno.into() });
            }
        };
        for message in messages {
            let change = match message.of(nfnl::SUBSYS_CTNETLINK) {
                Some(ct_msg::NEW) => Change::Begun,
                Some(ct_msg::DELETE) => Change::Ended,
                Some(_) | None => continue,
            };
            if let Some(entry) = entry(&message) {
                on_change(change, entry);
            }
        }
        Ok(Heard::Changes)
    }
}
