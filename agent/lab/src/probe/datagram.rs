//! Protocols without connections: a datagram is sent, again after a while, and an answer that belongs to it awaited.

use std::{io, net::SocketAddr, os::fd::AsRawFd, time::Duration};

use nix::sys::socket::{MsgFlags, recv, send};
use socket2::{Protocol, Socket, Type};
use tokio::{
    io::Interest,
    net::UdpSocket,
    time::{self, Instant},
};

use super::{Outcome, Probe, nonce};

/// The first pause before a datagram is sent again; each further pause is twice as long, up to [`LONGEST_PAUSE`].
pub(super) const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_millis(200);

/// Larger than any answer that a probe expects.
const BUFFER: usize = 2_048;

/// Asks once by UDP.
pub(super) async fn ask_udp(probe: &Probe, window: Duration) -> Outcome {
    let request = nonce().to_be_bytes();
    let opened = probe.socket(Type::DGRAM, None).and_then(|socket| connected(socket, probe, probe.port));
    exchange(opened, &request, window, |answer| answer == request).await
}

/// Asks once by an ICMP or ICMPv6 echo request.
pub(super) async fn ask_icmp(probe: &Probe, window: Duration) -> Outcome {
    let (protocol, kind) = if probe.to.is_ipv4() { (Protocol::ICMPV4, 8) } else { (Protocol::ICMPV6, 128) };
    // Type, code, checksum, identifier, sequence number. The kernel fills in checksum and identifier, and hands out only the
    // answers to this identifier, without their IP header.
    let mut request = [kind, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0];
    request[8..].copy_from_slice(&nonce().to_be_bytes());
    let opened = probe.socket(Type::DGRAM, Some(protocol)).and_then(|socket| connected(socket, probe, 0));
    exchange(opened, &request, window, |answer| answer.get(8..) == Some(&request[8..])).await
}

/// Restricts a socket to the probe's other end, and registers it with the runtime.
///
/// The result is the runtime's type for all sockets that send and receive datagrams, raw ones too.
pub(super) fn connected(socket: Socket, probe: &Probe, port: u16) -> io::Result<UdpSocket> {
    socket.connect(&SocketAddr::new(probe.to, port).into())?;
    UdpSocket::from_std(socket.into())
}

async fn exchange(
    opened: io::Result<UdpSocket>,
    request: &[u8],
    window: Duration,
    is_answer: impl Fn(&[u8]) -> bool,
) -> Outcome {
    let socket = match opened {
        Ok(socket) => socket,
        Err(error) => return Outcome::of_error(&error),
    };
    let mut buffer = vec![0; BUFFER];
    let receive = |socket: &UdpSocket, buffer: &mut [u8]| {
        let length = recv(socket.as_raw_fd(), buffer, MsgFlags::empty())?;
        Ok(is_answer(&buffer[..length]).then_some(()))
    };
    let send = |socket: &UdpSocket| send_now(socket, request);
    match ask_repeatedly(&socket, window, FIRST_PAUSE, &mut buffer, send, receive).await {
        Ok(Some(())) => Outcome::Allowed,
        Ok(None) => Outcome::Refused,
        Err(error) => Outcome::of_error(&error),
    }
}

/// Calls `send` again and again, for the first time after `pause`, until `receive` takes an answer or the window is over.
///
/// `receive` reads one message; it returns `None` for one that is not the answer.
pub(super) async fn ask_repeatedly<T>(
    socket: &UdpSocket,
    window: Duration,
    mut pause: Duration,
    buffer: &mut [u8],
    send: impl Fn(&UdpSocket) -> io::Result<usize>,
    mut receive: impl FnMut(&UdpSocket, &mut [u8]) -> io::Result<Option<T>>,
) -> io::Result<Option<T>> {
    let end = Instant::now() + window;
    loop {
        match send(socket) {
            // A full send queue is a lost packet: the next one makes it good.
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
            Ok(_) | Err(_) => {}
        }
        let again = (Instant::now() + pause).min(end);
        // An error does not make a socket readable, but reading is how the kernel hands it out.
        while let Ok(ready) = time::timeout_at(again, socket.ready(Interest::READABLE | Interest::ERROR)).await {
            let event = if ready?.is_error() { Interest::ERROR } else { Interest::READABLE };
            match socket.try_io(event, || receive(socket, buffer)) {
                Ok(Some(answer)) => return Ok(Some(answer)),
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
                Ok(None) | Err(_) => {}
            }
        }
        if Instant::now() >= end {
            return Ok(None);
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Sends on a connected socket without asking the runtime, which learns of the room in new sockets only after a while.
pub(super) fn send_now(socket: &UdpSocket, message: &[u8]) -> io::Result<usize> {
    Ok(send(socket.as_raw_fd(), message, MsgFlags::empty())?)
}
