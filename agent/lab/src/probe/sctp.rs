//! SCTP without the kernel's SCTP: both ends of the handshake of RFC 9260 section 5.1, on raw IP sockets.
//!
//! The messages are valid, with their CRC32c, because conntrack checks them and follows the association's state.

use std::{
    io::{self, IoSliceMut},
    os::fd::AsRawFd,
    sync::atomic::{AtomicU16, Ordering},
    time::Duration,
};

use nix::{
    cmsg_space,
    errno::Errno,
    libc::{sock_extended_err, sockaddr_in6},
    sys::socket::{ControlMessageOwned, MsgFlags, recv, recvmsg},
};
use socket2::{Protocol, Type};
use tokio::net::UdpSocket;

use super::{Outcome, Probe, datagram, nonce};

/// SCTP's number among the IP protocols.
pub(super) const PROTOCOL: i32 = 132;

const HEADER: usize = 12;
/// Larger than any message of a handshake between two labs, with its IP header.
const BUFFER: usize = 512;

/// The chunk types that a handshake has, the one that refuses it, and those that ask whether the other end is there.
const INIT: u8 = 1;
const INIT_ACK: u8 = 2;
const ABORT: u8 = 6;
const HEARTBEAT: u8 = 4;
const HEARTBEAT_ACK: u8 = 5;
const COOKIE_ECHO: u8 = 10;
const COOKIE_ACK: u8 = 11;

/// The parameter of INIT ACK that the other side sends back: its type, and its length with the initiator's tag as the cookie.
const COOKIE_PARAMETER: [u8; 4] = [0, 7, 0, 8];

/// The head of a message and its first chunk.
#[derive(Debug, PartialEq, Eq)]
struct Message<'a> {
    source: u16,
    destination: u16,
    tag: u32,
    chunk: u8,
    /// The chunk without its four bytes of type, flags and length.
    value: &'a [u8],
}

/// What became of one message.
enum Answer {
    Chunk(u8, Vec<u8>),
    Failed(io::Error),
}

/// Asks once: INIT, INIT ACK, COOKIE ECHO, COOKIE ACK.
pub(super) async fn ask(probe: &Probe, window: Duration) -> Outcome {
    match handshake(probe, window).await {
        Ok(Ok(_) | Err(Opened::NoListener)) => Outcome::Allowed,
        Ok(Err(Opened::Not(outcome))) => outcome,
        Err(error) => Outcome::of_error(&error),
    }
}

/// Why there is no association, though nothing failed here.
enum Opened {
    NoListener,
    Not(Outcome),
}

async fn handshake(probe: &Probe, window: Duration) -> io::Result<Result<Association, Opened>> {
    let not = |outcome| Ok(Err(Opened::Not(outcome)));
    let socket = probe.socket(Type::RAW, Some(Protocol::from(PROTOCOL)))?;
    let socket = datagram::connected(socket, probe, 0)?;
    let tag = nonce();
    let link = Link { socket, is_ipv4: probe.to.is_ipv4(), source: source_port(), destination: probe.port, tag };

    let init =
        Message { source: link.source, destination: link.destination, tag: 0, chunk: INIT, value: &init_value(tag) };
    let answer = match link.exchange(&init, window, datagram::FIRST_PAUSE).await? {
        None => return not(Outcome::Refused),
        Some(Answer::Failed(error)) => return Err(error),
        // A kernel with SCTP but no listener answers so: the message has arrived, and the answer has come back.
        Some(Answer::Chunk(ABORT, _)) => return Ok(Err(Opened::NoListener)),
        Some(Answer::Chunk(_, value)) => value,
    };
    let (Some(peer_tag), Some(cookie)) = (read_u32(&answer), answer.get(20..24)) else {
        return not(Outcome::Error("an INIT ACK without a cookie".into()));
    };
    let echo = Message {
        source: link.source,
        destination: link.destination,
        tag: peer_tag,
        chunk: COOKIE_ECHO,
        value: cookie,
    };
    match link.exchange(&echo, window, datagram::FIRST_PAUSE).await? {
        None => not(Outcome::Refused),
        Some(Answer::Failed(error)) => Err(error),
        Some(Answer::Chunk(..)) => Ok(Ok(Association { link, peer_tag })),
    }
}

/// An association that is kept open. What is said in it are heartbeats (RFC 9260 section 8.3), each with a message that
/// comes back.
pub(in super::super) struct Association {
    link: Link,
    peer_tag: u32,
}

// === impl Association ===

impl Association {
    /// Opens the association that the probe describes.
    pub(in super::super) async fn open(probe: &Probe, window: Duration) -> Result<Self, Outcome> {
        match handshake(probe, window).await {
            Ok(Ok(association)) => Ok(association),
            Ok(Err(Opened::NoListener)) => Err(Outcome::Error("nobody listens".into())),
            Ok(Err(Opened::Not(outcome))) => Err(outcome),
            Err(error) => Err(Outcome::of_error(&error)),
        }
    }

    /// Sends a message of at most 400 bytes, and again after a pause, and waits for it to come back.
    pub(in super::super) async fn exchange(&self, message: &[u8], window: Duration, pause: Duration) -> Outcome {
        // One parameter, of type 1, with its length; chunks end at multiples of four.
        let length = (4 + message.len()).next_multiple_of(4);
        let mut value = vec![0, 1];
        value.extend(u16::try_from(length).expect("a short message").to_be_bytes());
        value.extend(message);
        value.resize(length, 0);
        let Link { source, destination, .. } = self.link;
        let heartbeat = Message { source, destination, tag: self.peer_tag, chunk: HEARTBEAT, value: &value };
        match self.link.exchange(&heartbeat, window, pause).await {
            Ok(Some(Answer::Chunk(HEARTBEAT_ACK, _))) => Outcome::Allowed,
            Ok(Some(Answer::Chunk(..))) => Outcome::Error("the association was aborted".into()),
            Ok(Some(Answer::Failed(error))) | Err(error) => Outcome::of_error(&error),
            Ok(None) => Outcome::Refused,
        }
    }
}

/// The asker's end of an association.
struct Link {
    socket: UdpSocket,
    is_ipv4: bool,
    source: u16,
    destination: u16,
    tag: u32,
}

// === impl Link ===

impl Link {
    /// Sends a message until the chunk that answers it comes, or an ABORT, or an ICMP error about it.
    async fn exchange(&self, message: &Message<'_>, window: Duration, pause: Duration) -> io::Result<Option<Answer>> {
        let bytes = encode(message);
        let expected = message.chunk + 1;
        let mut buffer = [0; BUFFER];
        // The first call may hand out an error that belongs to another association between the same addresses.
        let send =
            |socket: &UdpSocket| datagram::send_now(socket, &bytes).or_else(|_| datagram::send_now(socket, &bytes));
        let receive = |socket: &UdpSocket, buffer: &mut [u8]| {
            if let Some(error) = self.next_icmp_error(socket, buffer)? {
                return Ok(Some(Answer::Failed(error)));
            }
            let length = match recv(socket.as_raw_fd(), buffer, MsgFlags::empty()) {
                Err(error) if error != Errno::EAGAIN => return Ok(None),
                result => result?,
            };
            let is_ours = |answer: &Message<'_>| {
                (answer.source, answer.destination, answer.tag) == (self.destination, self.source, self.tag)
                    && (answer.chunk == expected || answer.chunk == ABORT)
                    && (answer.chunk != HEARTBEAT_ACK || answer.value == message.value)
            };
            let answer = payload(&buffer[..length], self.is_ipv4).and_then(decode).filter(is_ours);
            Ok(answer.map(|answer| Answer::Chunk(answer.chunk, answer.value.to_vec())))
        };
        datagram::ask_repeatedly(&self.socket, window, pause, &mut buffer, send, receive).await
    }

    /// Takes the errors from the socket's queue until one is about a message of this association: raw sockets between the same two
    /// addresses all get each other's ICMP errors, and only the queue tells whose packet it was.
    fn next_icmp_error(&self, socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<Option<io::Error>> {
        loop {
            let mut control = cmsg_space!(sock_extended_err, sockaddr_in6);
            let mut parts = [IoSliceMut::new(buffer)];
            let message =
                match recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::MSG_ERRQUEUE) {
                    Err(Errno::EAGAIN) => return Ok(None),
                    result => result?,
                };
            let length = message.bytes;
            let error = message.cmsgs()?.find_map(|control| {
                if let ControlMessageOwned::Ipv4RecvErr(error, _) | ControlMessageOwned::Ipv6RecvErr(error, _) = control
                {
                    Some(error)
                } else {
                    None
                }
            });
            let quoted = &buffer[..length];
            let is_ours = quoted.get(..4) == Some(&ports(self.source, self.destination));
            if let Some(error) = error.filter(|_| is_ours) {
                return Ok(Some(io::Error::from_raw_os_error(i32::try_from(error.ee_errno).unwrap_or(0))));
            }
        }
    }
}

/// What a responder says to a received IP payload, if its destination port is one on which it listens.
pub(super) fn reply(received: &[u8], is_listening: impl Fn(u16) -> bool) -> Option<Vec<u8>> {
    let message = decode(received).filter(|message| is_listening(message.destination))?;
    let (source, destination) = (message.destination, message.source);
    match message.chunk {
        INIT => {
            // All state is in the answer: our tag is made of theirs, and theirs is the cookie.
            let tag = read_u32(message.value)?;
            let mut value = init_value(!tag).to_vec();
            value.extend(COOKIE_PARAMETER);
            value.extend(tag.to_be_bytes());
            Some(encode(&Message { source, destination, tag, chunk: INIT_ACK, value: &value }))
        }
        COOKIE_ECHO => {
            let tag = read_u32(message.value).filter(|tag| message.tag == !tag)?;
            Some(encode(&Message { source, destination, tag, chunk: COOKIE_ACK, value: &[] }))
        }
        // Whoever knows our tag has been given it.
        HEARTBEAT => {
            let (tag, value) = (!message.tag, message.value);
            Some(encode(&Message { source, destination, tag, chunk: HEARTBEAT_ACK, value }))
        }
        _ => None,
    }
}

/// The part of a raw socket's message that comes after the IP header, which only IPv4 sockets hand out.
pub(super) fn payload(received: &[u8], is_ipv4: bool) -> Option<&[u8]> {
    let header = if is_ipv4 { usize::from(received.first()? & 0x0f) * 4 } else { 0 };
    received.get(header..)
}

/// Source ports of all probes of the process, one after the other, in the range that is for such use.
fn source_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    49_152 + NEXT.fetch_add(1, Ordering::Relaxed) % 16_384
}

/// Initiate tag, receive window, one stream each way, first sequence number.
fn init_value(tag: u32) -> [u8; 16] {
    let mut value = [0; 16];
    value[..4].copy_from_slice(&tag.to_be_bytes());
    value[4..8].copy_from_slice(&65_536_u32.to_be_bytes());
    value[8..12].copy_from_slice(&[0, 1, 0, 1]);
    value[12..].copy_from_slice(&1_u32.to_be_bytes());
    value
}

fn ports(source: u16, destination: u16) -> [u8; 4] {
    let ([a, b], [c, d]) = (source.to_be_bytes(), destination.to_be_bytes());
    [a, b, c, d]
}

fn read_u32(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk().copied().map(u32::from_be_bytes)
}

fn encode(message: &Message<'_>) -> Vec<u8> {
    let length = u16::try_from(4 + message.value.len()).expect("the chunks are short");
    let mut bytes = ports(message.source, message.destination).to_vec();
    bytes.extend(message.tag.to_be_bytes());
    bytes.extend([0; 4]);
    bytes.extend([message.chunk, 0]);
    bytes.extend(length.to_be_bytes());
    bytes.extend(message.value);
    // RFC 9260 appendix A: the CRC of the message with a zero in its place, its least significant byte first.
    let crc = crc32c(&bytes);
    bytes[8..HEADER].copy_from_slice(&crc.to_le_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> Option<Message<'_>> {
    let (header, chunk) = bytes.split_first_chunk::<HEADER>()?;
    let length = usize::from(u16::from_be_bytes([*chunk.get(2)?, *chunk.get(3)?]));
    Some(Message {
        source: u16::from_be_bytes([header[0], header[1]]),
        destination: u16::from_be_bytes([header[2], header[3]]),
        tag: read_u32(&header[4..])?,
        chunk: chunk[0],
        value: chunk.get(4..length)?,
    })
}

/// The CRC of Castagnoli, bit by bit: messages are some dozens of bytes long.
fn crc32c(bytes: &[u8]) -> u32 {
    const REVERSED_POLYNOMIAL: u32 = 0x82f6_3b78;
    let shift = |crc: u32| if crc & 1 == 1 { (crc >> 1) ^ REVERSED_POLYNOMIAL } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| shift(crc)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_that_of_rfc_3720() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
    }

    #[test]
    fn a_handshake_ends_with_the_initiators_tag() {
        let init = encode(&Message { source: 50_000, destination: 80, tag: 0, chunk: INIT, value: &init_value(7) });
        assert_eq!(reply(&init, |port| port == 81), None, "another port");
        let ack = reply(&init, |port| port == 80).unwrap();
        let ack = decode(&ack).unwrap();
        assert_eq!((ack.source, ack.destination, ack.tag, ack.chunk), (80, 50_000, 7, INIT_ACK));

        let (peer_tag, cookie) = (read_u32(ack.value).unwrap(), &ack.value[20..24]);
        let echo = Message { source: 50_000, destination: 80, tag: peer_tag, chunk: COOKIE_ECHO, value: cookie };
        let done = reply(&encode(&echo), |port| port == 80).unwrap();
        assert_eq!(
            decode(&done).unwrap(),
            Message { source: 80, destination: 50_000, tag: 7, chunk: COOKIE_ACK, value: &[] }
        );
        let forged = encode(&Message { tag: peer_tag ^ 1, ..echo });
        assert_eq!(reply(&forged, |port| port == 80), None, "a tag that was never given");
        let heartbeat = Message { tag: peer_tag, chunk: HEARTBEAT, value: b"back", ..echo };
        let back = reply(&encode(&heartbeat), |port| port == 80).unwrap();
        let due = Message { source: 80, destination: 50_000, tag: 7, chunk: HEARTBEAT_ACK, value: b"back" };
        assert_eq!(decode(&back).unwrap(), due);
    }

    #[test]
    fn broken_messages_are_no_messages() {
        let init = encode(&Message { source: 1, destination: 2, tag: 0, chunk: INIT, value: &init_value(7) });
        for length in 0..init.len() {
            assert_eq!(decode(&init[..length]), None, "{length} bytes");
        }
        assert_eq!(payload(&[], true), None);
        assert_eq!(payload(&[0x45, 0, 0], true), None, "shorter than its header says");
    }
}
