//! The netlink socket: its buffers, its options, and what goes over it.

use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr};
use rustix::io::Errno;
use rustix::net::sockopt::{self, Timeout};
use rustix::net::{RecvFlags, SendFlags};

use crate::Error;
use crate::attr::AttrWriter;
use crate::constants::nl;
use crate::message::{self, Header, Message, Messages};

/// The kernel cuts a dump into datagrams of at most 32 KiB (`netlink_recvmsg`), and answers are far shorter.
const RECEIVE: usize = 64 * 1024;
/// Answers wait here until they are read: one for each refused message of a batch, each some hundred bytes.
const RECEIVE_BUFFER: usize = 8 * 1024 * 1024;
/// What the kernel needs of the send buffer besides the bytes of the batch (`netlink_sendmsg` wants 32).
const SEND_SLACK: usize = 4096;
/// The kernel answers a query inside the system call that sends it, or while its dump is read: who waits this long
/// waits for something that will not come.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Addresses that the kernel gives nobody by itself: it takes the number of the process (at most 2^22), or else one that is
/// negative as an `i32` (`netlink_autobind`). They are the next 2^30 from here.
const FIRST_PORT: u32 = 1 << 30;
/// How many addresses are tried that others may have.
const PORTS_TRIED: u32 = 16;

/// A netlink socket to the netfilter subsystem of one network namespace.
#[derive(Debug)]
pub(crate) struct NetlinkSocket {
    socket: Socket,
    /// Our address, by which the kernel names the owner of a table.
    port: u32,
    /// The length of the longest batch that surely fits.
    fits: usize,
    receive: Vec<u8>,
}

/// Gives a socket an address that none had before it. The kernel takes a table from its owner when a socket with the owner's
/// address ends (`nft_rcv_nl_event`), and tells of that only after the address is free: an owner that got it meanwhile would
/// lose its table to the end of another socket.
fn bind(socket: &mut Socket) -> io::Result<u32> {
    static NEXT: LazyLock<AtomicU64> = LazyLock::new(|| AtomicU64::new(RandomState::new().hash_one(())));
    let mut tried = 0;
    loop {
        let offset = NEXT.fetch_add(1, Ordering::Relaxed) % u64::from(FIRST_PORT);
        let port = FIRST_PORT + u32::try_from(offset).expect("it is less than 2^30");
        match socket.bind(&SocketAddr::new(port, 0)) {
            Ok(()) => return Ok(port),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && tried < PORTS_TRIED => tried += 1,
            Err(error) => return Err(error),
        }
    }
}

impl NetlinkSocket {
    /// Opens a socket in the network namespace of the calling thread.
    pub(crate) fn open() -> Result<NetlinkSocket, Error> {
        let failed = |what| move |source: io::Error| Error::Socket { what, source };
        let mut socket = Socket::new(NETLINK_NETFILTER).map_err(failed("open a netlink socket"))?;
        let port = bind(&mut socket).map_err(failed("bind the netlink socket"))?;
        socket.set_ext_ack(true).map_err(failed("ask for extended answers"))?;
        socket.set_cap_ack(true).map_err(failed("ask for short answers"))?;
        if sockopt::set_socket_recv_buffer_size_force(&socket, RECEIVE_BUFFER).is_err() {
            // Without CAP_NET_ADMIN the system's own limit holds (net.core.rmem_max).
            sockopt::set_socket_recv_buffer_size(&socket, RECEIVE_BUFFER)
                .map_err(|errno| failed("enlarge the receive buffer")(errno.into()))?;
        }
        let socket = NetlinkSocket { socket, port, fits: 0, receive: vec![0; RECEIVE] };
        socket.wait_at_most(ANSWER_TIMEOUT)?;
        Ok(socket)
    }

    /// Waits for whatever comes no longer than this.
    pub(crate) fn wait_at_most(&self, patience: Duration) -> Result<(), Error> {
        sockopt::set_socket_timeout(&self.socket, Timeout::Recv, Some(patience))
            .map_err(|errno| Error::Socket { what: "bound the wait for answers", source: errno.into() })
    }

    /// Joins a multicast group (`NFNLGRP_*`).
    pub(crate) fn join(&self, group: u32) -> Result<(), Error> {
        self.socket
            .add_membership(group)
            .map_err(|source| Error::Socket { what: "join a multicast group of netfilter", source })
    }

    /// Our address.
    pub(crate) fn port(&self) -> u32 {
        self.port
    }

    /// For its options.
    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Sends one datagram, which the kernel works off before this returns.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.make_room(bytes.len())?;
        match rustix::net::send(&self.socket, bytes, SendFlags::empty()) {
            Ok(_) => Ok(()),
            Err(Errno::MSGSIZE) => Err(Error::TooLarge { bytes: bytes.len() }),
            Err(errno) => Err(Error::Socket { what: "send to the kernel", source: errno.into() }),
        }
    }

    /// Sends a request and hands over each message until the answer is complete; `false` where it was disturbed. The
    /// header's flags are F_DUMP, which ends with a message of its own, or F_ACK. `what` is what is asked for, which
    /// the error of a refusal names.
    ///
    /// An answer that is cut, or of which something was lost, is an error; what is still under way then is passed over
    /// by a later request for its sequence number, which is to be another one.
    pub(crate) fn ask(
        &mut self,
        what: &'static str,
        header: Header,
        attributes: impl FnOnce(&mut AttrWriter<'_>),
        mut on_message: impl FnMut(&Message<'_>),
    ) -> Result<bool, Error> {
        let mut request = Vec::with_capacity(64);
        message::write(&mut request, header, attributes);
        self.send(&request)?;
        let mut undisturbed = true;
        loop {
            let messages = self
                .receive()
                .map_err(|errno| Error::Socket { what: "receive the kernel's answer", source: errno.into() })?;
            for message in messages.filter(|message| message.sequence == header.sequence) {
                undisturbed &= message.flags & nl::F_DUMP_INTR == 0;
                if let Some(errno) = message.end() {
                    return match errno {
                        None => Ok(undisturbed),
                        Some(source) => Err(Error::Query { what, source }),
                    };
                }
                on_message(&message);
            }
        }
    }

    /// Waits for a datagram (EAGAIN where none came in time, EMSGSIZE where it does not fit the memory for it, and is cut).
    pub(crate) fn receive(&mut self) -> Result<Messages<'_>, Errno> {
        self.receive_with(RecvFlags::empty())
    }

    /// Takes a datagram if one is there (EAGAIN if not, EMSGSIZE as in [`receive`](Self::receive)).
    pub(crate) fn try_receive(&mut self) -> Result<Messages<'_>, Errno> {
        self.receive_with(RecvFlags::DONTWAIT)
    }

    fn receive_with(&mut self, flags: RecvFlags) -> Result<Messages<'_>, Errno> {
        let (_, len) = rustix::io::retry_on_intr(|| {
            rustix::net::recv(&self.socket, &mut self.receive[..], flags | RecvFlags::TRUNC)
        })?;
        Ok(Messages::new(self.receive.get(..len).ok_or(Errno::MSGSIZE)?))
    }

    /// Enlarges the send buffer so that a datagram of this length fits.
    fn make_room(&mut self, len: usize) -> Result<(), Error> {
        if len <= self.fits {
            return Ok(());
        }
        // The kernel doubles the number that it is given; twice the need spares a call for the next bigger batch.
        let wanted = len + SEND_SLACK;
        if sockopt::set_socket_send_buffer_size_force(&self.socket, wanted).is_err() {
            sockopt::set_socket_send_buffer_size(&self.socket, wanted)
                .map_err(|errno| Error::Socket { what: "enlarge the send buffer", source: errno.into() })?;
        }
        let granted = sockopt::socket_send_buffer_size(&self.socket)
            .map_err(|errno| Error::Socket { what: "read the size of the send buffer", source: errno.into() })?;
        self.fits = granted.saturating_sub(SEND_SLACK);
        if len > self.fits { Err(Error::TooLarge { bytes: len }) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::constants::{msg, nfproto};

    #[test]
    fn an_answer_that_is_cut_is_an_error_and_the_next_is_not() {
        let mut socket = NetlinkSocket::open().unwrap();
        // Without CAP_NET_ADMIN the answer is a refusal, which is of no interest here.
        let mut ask = |sequence, room| {
            socket.receive = vec![0; room];
            let header = Header {
                kind: message::nftables(msg::GETGEN),
                flags: nl::F_ACK,
                sequence,
                family: nfproto::INET,
                resource: 0,
            };
            socket.ask("the generation", header, |_| {}, |_| {})
        };
        let Err(Error::Socket { source, .. }) = ask(1, nl::HEADER) else { panic!("half an answer is no answer") };
        assert_eq!(source.raw_os_error(), Some(Errno::MSGSIZE.raw_os_error()));
        assert!(matches!(ask(2, RECEIVE), Ok(true) | Err(Error::Query { source: Errno::PERM, .. })));
    }
}
