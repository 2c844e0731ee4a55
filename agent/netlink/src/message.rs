//! Netlink messages with the header of nfnetlink.

use compiler::nft::TableFamily;
use rustix::io::Errno;

use crate::attr::{AttrReader, AttrWriter};
use crate::constants::{nfnl, nfproto, nl};

/// What a message starts with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Header {
    /// `nlmsg_type`, with the subsystem.
    pub(crate) kind: u16,
    /// `nlmsg_flags`; F_REQUEST is added.
    pub(crate) flags: u16,
    /// `nlmsg_seq`
    pub(crate) sequence: u32,
    /// `nfgen_family`
    pub(crate) family: u8,
    /// `res_id`, which only the begin and the end of a batch use.
    pub(crate) resource: u16,
}

/// One message that was received.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Message<'a> {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) sequence: u32,
    /// The message from its first byte on.
    pub(crate) whole: &'a [u8],
    /// What follows `struct nlmsghdr`.
    body: &'a [u8],
}

/// The messages of a datagram. Ends at the first one that is malformed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Messages<'a> {
    bytes: &'a [u8],
}

/// The kernel's answer to one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ack {
    /// The sequence number of the message.
    pub(crate) sequence: u32,
    /// `None` where the message was processed.
    pub(crate) errno: Option<Errno>,
    /// The place of the attribute that the kernel objects to, from the start of the message.
    pub(crate) offset: Option<usize>,
}

/// The number of the family of a table in `linux/netfilter.h`.
pub(crate) fn family_number(family: TableFamily) -> u8 {
    match family {
        TableFamily::Inet => nfproto::INET,
        TableFamily::Bridge => nfproto::BRIDGE,
    }
}

/// The type of a message of nf_tables.
pub(crate) fn nftables(kind: u16) -> u16 {
    of(nfnl::SUBSYS_NFTABLES, kind)
}

/// The type of a message of one of netfilter's subsystems (`NFNL_SUBSYS_*`).
pub(crate) fn of(subsystem: u16, kind: u16) -> u16 {
    (subsystem << 8) | kind
}

/// Appends a message and gives the place of its first byte.
pub(crate) fn write(buffer: &mut Vec<u8>, header: Header, attributes: impl FnOnce(&mut AttrWriter<'_>)) -> usize {
    let start = buffer.len();
    buffer.extend_from_slice(&[0; 4]);
    buffer.extend_from_slice(&header.kind.to_ne_bytes());
    buffer.extend_from_slice(&(header.flags | nl::F_REQUEST).to_ne_bytes());
    buffer.extend_from_slice(&header.sequence.to_ne_bytes());
    // The port of the sender is filled in by the kernel; the version of nfgenmsg is 0.
    buffer.extend_from_slice(&[0, 0, 0, 0, header.family, 0]);
    buffer.extend_from_slice(&header.resource.to_be_bytes());
    attributes(&mut AttrWriter::new(buffer));
    let len = u32::try_from(buffer.len() - start).expect("a message holds few attributes, each below 64 KiB");
    buffer[start..start + 4].copy_from_slice(&len.to_ne_bytes());
    start
}

// === impl Message ===

impl<'a> Message<'a> {
    /// The type of a message of nf_tables; `None` for every other message.
    pub(crate) fn nftables(&self) -> Option<u16> {
        self.of(nfnl::SUBSYS_NFTABLES)
    }

    /// The type of a message of this subsystem of netfilter; `None` for every other message.
    pub(crate) fn of(&self, subsystem: u16) -> Option<u16> {
        (self.kind >> 8 == subsystem).then_some(self.kind & 0xff)
    }

    /// `nfgen_family`; 0 where the message is too short.
    pub(crate) fn family(&self) -> u8 {
        self.body.first().copied().unwrap_or(0)
    }

    pub(crate) fn attributes(&self) -> AttrReader<'a> {
        AttrReader::new(self.body.get(nl::NFGEN_HEADER - nl::HEADER..).unwrap_or(&[]))
    }

    /// Whether the message ends the answer to a request, and with which error.
    pub(crate) fn end(&self) -> Option<Option<Errno>> {
        // NLMSG_DONE and NLMSG_ERROR both start with an error code; an older kernel's NLMSG_DONE may lack it.
        (self.kind == nl::MSG_DONE || self.kind == nl::MSG_ERROR)
            .then(|| self.body.first_chunk().and_then(|code| errno(i32::from_ne_bytes(*code))))
    }

    /// Reads `struct nlmsgerr`; `None` for a message of another type or that is too short.
    pub(crate) fn ack(&self) -> Option<Ack> {
        if self.kind != nl::MSG_ERROR {
            return None;
        }
        let word = |at: usize| Some(u32::from_ne_bytes(self.body.get(at..at + 4)?.try_into().ok()?));
        let code = i32::from_ne_bytes(self.body.get(..4)?.try_into().ok()?);
        let errno = errno(code);
        let answered = usize::try_from(word(4)?).ok()?;
        let sequence = word(12)?;
        let mut offset = None;
        if self.flags & nl::F_ACK_TLVS != 0 {
            // The header of the message that is answered, or all of it, stands between the error and the attributes.
            let repeated = if self.flags & nl::F_CAPPED != 0 { nl::HEADER } else { answered };
            let start = repeated.checked_add(4)?.checked_next_multiple_of(4)?;
            let attributes = AttrReader::new(self.body.get(start..).unwrap_or(&[]));
            offset = attributes
                .get(nl::ERR_ATTR_OFFS)
                .and_then(|value| usize::try_from(u32::from_ne_bytes(value.try_into().ok()?)).ok());
        }
        Some(Ack { sequence, errno, offset })
    }
}

// === impl Messages ===

impl<'a> Messages<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }
}

impl<'a> Iterator for Messages<'a> {
    type Item = Message<'a>;

    fn next(&mut self) -> Option<Message<'a>> {
        let header: [u8; nl::HEADER] = *self.bytes.first_chunk()?;
        let [l0, l1, l2, l3, k0, k1, f0, f1, s0, s1, s2, s3, ..] = header;
        let len = usize::try_from(u32::from_ne_bytes([l0, l1, l2, l3])).ok()?;
        let whole = self.bytes.get(..len)?;
        let body = whole.get(nl::HEADER..)?;
        self.bytes = len.checked_next_multiple_of(4).and_then(|len| self.bytes.get(len..)).unwrap_or(&[]);
        Some(Message {
            kind: u16::from_ne_bytes([k0, k1]),
            flags: u16::from_ne_bytes([f0, f1]),
            sequence: u32::from_ne_bytes([s0, s1, s2, s3]),
            whole,
            body,
        })
    }
}

/// The error of a code as the kernel sends it; 0 is none.
fn errno(code: i32) -> Option<Errno> {
    match code {
        0 => None,
        // MAX_ERRNO of `linux/err.h`, beyond which there is no errno.
        -4095..=-1 => Some(Errno::from_raw_os_error(-code)),
        i32::MIN..=-4096 | 1..=i32::MAX => Some(Errno::PROTO),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(flags: u16, code: i32, tail: &[u8]) -> Vec<u8> {
        let mut body = code.to_ne_bytes().to_vec();
        body.extend_from_slice(&20u32.to_ne_bytes());
        body.extend_from_slice(&[0; 4]);
        body.extend_from_slice(&77u32.to_ne_bytes());
        body.extend_from_slice(&[0; 4]);
        body.extend_from_slice(tail);
        let mut bytes = u32::try_from(body.len() + 16).unwrap().to_ne_bytes().to_vec();
        bytes.extend_from_slice(&nl::MSG_ERROR.to_ne_bytes());
        bytes.extend_from_slice(&flags.to_ne_bytes());
        bytes.extend_from_slice(&[0; 8]);
        bytes.extend_from_slice(&body);
        bytes
    }

    #[test]
    fn errors_name_message_and_attribute() {
        let mut offset = Vec::new();
        AttrWriter::new(&mut offset).bytes(nl::ERR_ATTR_OFFS, &44u32.to_ne_bytes());
        let bytes = error(nl::F_CAPPED | nl::F_ACK_TLVS, -2, &offset);
        let expected = Ack { sequence: 77, errno: Some(Errno::NOENT), offset: Some(44) };
        assert_eq!(Messages::new(&bytes).next().unwrap().ack(), Some(expected));

        // Without NLM_F_CAPPED the message of 20 bytes is repeated whole.
        let mut repeated = vec![0; 4];
        repeated.extend_from_slice(&offset);
        let bytes = error(nl::F_ACK_TLVS, -2, &repeated);
        assert_eq!(Messages::new(&bytes).next().unwrap().ack(), Some(expected));

        let bytes = error(nl::F_CAPPED, 0, &[]);
        let ack = Messages::new(&bytes).next().unwrap().ack();
        assert_eq!(ack, Some(Ack { sequence: 77, errno: None, offset: None }));
    }

    #[test]
    fn truncated_messages_end_the_datagram() {
        let bytes = error(nl::F_CAPPED, -1, &[]);
        for len in 0..bytes.len() {
            assert!(Messages::new(&bytes[..len]).next().is_none(), "{len} bytes");
        }
        let mut short = bytes.clone();
        short[0] = 15;
        assert!(Messages::new(&short).next().is_none(), "a length below that of the header");
        short[0] = 16;
        assert_eq!(Messages::new(&short).next().unwrap().ack(), None);
    }
}
