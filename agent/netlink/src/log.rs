//! NFLOG: the packets of which rules tell.
//!
//! The kernel gathers them and sends some at a time (`linux/netfilter/nfnetlink_log.h`). Only one socket of a network
//! namespace can listen to a group.

use compiler::nft::{LogGroup, SNAPLEN};
use rustix::io::Errno;

use crate::Error;
use crate::attr::AttrReader;
use crate::constants::{log, nfnl, nfproto, nl};
use crate::message::{self, Header, Message};
use crate::socket::NetlinkSocket;

/// After so many packets, and after so many hundredths of a second, the kernel sends what it has gathered.
const GATHERED: u32 = 64;
const GATHERED_FOR: u32 = 10;
/// Up to so many bytes. The datagrams are to fit the memory in which the socket receives.
const GATHERED_BYTES: u32 = 32 * 1024;

/// A socket that listens to a group, in the network namespace in which it was opened.
#[derive(Debug)]
pub struct LogReader {
    socket: NetlinkSocket,
    /// The number of the next packet: the kernel counts them, also those that it could not send.
    next: u32,
}

/// A packet of which a rule told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Logged<'a> {
    /// What the rule has put in front of it.
    pub prefix: &'a str,
    /// The link from which it came, by its index; `None` where it began on this node.
    pub input: Option<u32>,
    /// The port of a bridge by which it came, if it came by one.
    pub port: Option<u32>,
    /// What the packet is, as a frame says it: by numbers of IEEE 802.
    pub ether_type: u16,
    /// The beginning of the packet, as whoever sent it made it.
    pub packet: &'a [u8],
}

impl LogReader {
    /// Listens to a group from now on.
    ///
    /// # Errors
    /// [`Error::is_permission`] without CAP_NET_ADMIN in the user namespace that owns the network namespace;
    /// [`Error::is_unsupported`] where the kernel has no `nfnetlink_log`; [`Error::is_busy`] where another socket listens to
    /// the group.
    pub fn open(group: LogGroup) -> Result<LogReader, Error> {
        let mut socket = NetlinkSocket::open()?;
        let kind = message::of(nfnl::SUBSYS_ULOG, log::MSG_CONFIG);
        let header = Header { kind, flags: nl::F_ACK, sequence: 1, family: nfproto::UNSPEC, resource: group.0 };
        let settings = |w: &mut crate::attr::AttrWriter<'_>| {
            w.bytes(log::CFG_CMD, &[log::CMD_BIND]);
            let [a, b, c, d] = SNAPLEN.to_be_bytes();
            w.bytes(log::CFG_MODE, &[a, b, c, d, log::COPY_PACKET, 0]);
            w.be32(log::CFG_NLBUFSIZ, GATHERED_BYTES);
            w.be32(log::CFG_TIMEOUT, GATHERED_FOR);
            w.be32(log::CFG_QTHRESH, GATHERED);
            w.bytes(log::CFG_FLAGS, &log::F_SEQ.to_be_bytes());
        };
        const WHAT: &str = "the packets of a log group";
        match socket.ask(WHAT, header, settings, |_| {}) {
            Ok(_) => Ok(LogReader { socket, next: 0 }),
            // So it says both where somebody else listens, and without the capability to do anything here. Only then it says so
            // of another group, too, though nothing is asked of it.
            Err(error @ Error::Query { source: Errno::PERM, .. }) => {
                let of_another = Header { sequence: 2, resource: !group.0, ..header };
                match socket.ask(WHAT, of_another, |_| {}, |_| {}) {
                    Err(Error::Query { source: Errno::PERM, .. }) => Err(error),
                    Ok(_) | Err(_) => Err(Error::Query { what: WHAT, source: Errno::BUSY }),
                }
            }
            Err(error) => Err(error),
        }
    }

    /// Waits for packets, for half a minute at most, and shows those that came together. Gives how many were lost before
    /// them, because they came faster than they were read.
    ///
    /// # Errors
    /// [`Error::Socket`] where nothing more can be received.
    pub fn read(&mut self, mut on_packet: impl FnMut(Logged<'_>)) -> Result<u32, Error> {
        let messages = match self.socket.receive() {
            Ok(messages) => messages,
            // Of what did not fit, the numbers of those that follow tell how many they were.
            Err(Errno::AGAIN | Errno::NOBUFS | Errno::MSGSIZE) => return Ok(0),
            Err(errno) => return Err(Error::Socket { what: "receive packets of a log group", source: errno.into() }),
        };
        let mut lost = 0;
        for message in messages {
            let Some((number, packet)) = logged(&message) else { continue };
            lost += number.map_or(0, |number| number.wrapping_sub(self.next));
            self.next = number.unwrap_or(self.next).wrapping_add(1);
            on_packet(packet);
        }
        Ok(lost)
    }
}

/// Reads one packet, with its number; `None` for messages of other types, and where something is missing.
pub(crate) fn logged<'a>(message: &Message<'a>) -> Option<(Option<u32>, Logged<'a>)> {
    if message.of(nfnl::SUBSYS_ULOG)? != log::MSG_PACKET {
        return None;
    }
    let attributes: AttrReader<'a> = message.attributes();
    let packet = Logged {
        prefix: attributes.string(log::PREFIX)?,
        input: attributes.be32(log::IFINDEX_INDEV),
        port: attributes.be32(log::IFINDEX_PHYSINDEV),
        // Behind it stands in which hook.
        ether_type: u16::from_be_bytes(*attributes.get(log::PACKET_HDR)?.first_chunk()?),
        packet: attributes.get(log::PAYLOAD)?,
    };
    Some((attributes.be32(log::SEQ), packet))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Messages;

    fn written(kind: u16, prefix: bool) -> Vec<u8> {
        let mut bytes = Vec::new();
        let kind = message::of(nfnl::SUBSYS_ULOG, kind);
        let header = Header { kind, flags: 0, sequence: 0, family: nfproto::IPV4, resource: 5 };
        message::write(&mut bytes, header, |w| {
            w.bytes(log::PACKET_HDR, &[8, 0, 2, 0]);
            w.be32(log::IFINDEX_INDEV, 3);
            w.bytes(log::PAYLOAD, &[0x45, 0, 0]);
            if prefix {
                w.string(log::PREFIX, "postern: source");
            }
            w.be32(log::SEQ, 9);
        });
        bytes
    }

    #[test]
    fn a_packet_is_read_with_its_number() {
        let bytes = written(log::MSG_PACKET, true);
        let message = Messages::new(&bytes).next().unwrap();
        let (ether_type, packet) = (0x800, &[0x45, 0, 0][..]);
        let due = Logged { prefix: "postern: source", input: Some(3), port: None, ether_type, packet };
        assert_eq!(logged(&message), Some((Some(9), due)));
    }

    #[test]
    fn what_is_no_packet_is_passed_over() {
        for bytes in [written(log::MSG_CONFIG, true), written(log::MSG_PACKET, false)] {
            assert_eq!(logged(&Messages::new(&bytes).next().unwrap()), None);
        }
    }
}
