//! Probes: may this end talk to that address, by this protocol, on this port? Asked of the network with real packets.
//!
//! An answer shows at once that a probe is allowed, and an error message that it is rejected. That it is refused is known only by
//! silence, so silence is doubted: within its window a probe sends again several times (a lost packet, a socket queue that
//! overflowed), and a probe that stayed without answer is tried once more from the beginning before it counts.

mod datagram;
mod respond;
mod sctp;
mod tcp;

use std::{
    collections::BTreeSet,
    fmt, io,
    net::{IpAddr, SocketAddr},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use futures::{StreamExt, stream};
use nix::sys::{
    resource::{Resource, getrlimit},
    socket::{setsockopt, sockopt},
};
use socket2::{Domain, Socket, Type};

use super::Netns;

pub(super) use respond::Responders;
pub(super) use sctp::Association;
pub(super) use tcp::connect;

/// One end of a probe: a namespace, and the address that it uses there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    /// Where the packets come from, or where they are answered.
    pub netns: Netns,
    /// An address that the namespace has. It is bound explicitly.
    pub address: IpAddr,
}

/// What a probe is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// A connection, and bytes both ways.
    Tcp,
    /// A datagram and its echo.
    Udp,
    /// The handshake of an association (four messages) from raw sockets: many kernels have no SCTP, conntrack has.
    Sctp,
    /// Echo request and reply, of ICMP or ICMPv6.
    Icmp,
}

/// Somebody who answers probes. ICMP needs none: the kernel answers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Responder {
    /// Where it listens.
    pub at: Endpoint,
    /// On which port.
    pub port: u16,
}

/// A question to the network.
#[derive(Clone, Debug)]
pub struct Probe {
    /// Who asks.
    pub from: Endpoint,
    /// Whom: the destination address that the packets are sent with.
    pub to: IpAddr,
    /// By which protocol.
    pub protocol: Protocol,
    /// On which port; without meaning for ICMP.
    pub port: u16,
    /// The DSCP of its packets, 0 to 63: by which a translation on the way may choose among several endpoints of a Service.
    pub dscp: u8,
    /// Who answers. Listening starts before the first probe does and ends after the last.
    pub responders: Vec<Responder>,
}

/// What the network did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The packets arrived, and so did the answer.
    Allowed,
    /// Silence: packets were dropped.
    Refused,
    /// An answer that says no: a TCP reset, or an ICMP error other than "no route".
    Rejected,
    /// The question could not be asked, or nobody could be asked.
    Error(String),
}

/// How probes are run.
#[derive(Clone, Copy, Debug)]
pub struct ProbeOptions {
    /// How long one try waits for an answer.
    pub window: Duration,
    /// How many tries have to stay without answer before a probe counts as refused; at least one.
    pub tries: u32,
    /// How many probes are on their way at the same time; fewer if the process may not open so many files.
    pub concurrency: usize,
}

// === impl Probe ===

impl Probe {
    /// Asks an end directly; it answers on that port.
    #[must_use]
    pub fn new(from: Endpoint, to: Endpoint, protocol: Protocol, port: u16) -> Self {
        Self { from, to: to.address, protocol, port, dscp: 0, responders: vec![Responder { at: to, port }] }
    }

    /// Asks a Service: an address that nobody has, whose packets a node translates to one of the `responders`.
    #[must_use]
    pub fn to_service(from: Endpoint, to: SocketAddr, protocol: Protocol, responders: Vec<Responder>) -> Self {
        Self { from, to: to.ip(), protocol, port: to.port(), dscp: 0, responders }
    }

    /// Tries once.
    async fn ask(&self, window: Duration) -> Outcome {
        match self.protocol {
            Protocol::Tcp => tcp::ask(self, window).await,
            Protocol::Udp => datagram::ask_udp(self, window).await,
            Protocol::Icmp => datagram::ask_icmp(self, window).await,
            Protocol::Sctp => sctp::ask(self, window).await,
        }
    }

    /// Opens a non-blocking socket in the asker's namespace, bound to its address and set to talk to the other end only.
    pub(super) fn socket(&self, kind: Type, protocol: Option<socket2::Protocol>) -> io::Result<Socket> {
        let domain = Domain::for_address(SocketAddr::new(self.to, 0));
        let socket = self.from.netns.run(|| Socket::new(domain, kind.nonblocking(), protocol))??;
        if kind == Type::STREAM {
            // The port is chosen when the destination is known, so that it need not be unique for all destinations.
            setsockopt(&socket, sockopt::IpBindAddressNoPort, &true)?;
        }
        if kind != Type::DGRAM {
            // TCP: the error that answers the very first segment comes while the kernel is still sending it, and would be kept back until
            // the segment is sent again. Raw: see there.
            if self.to.is_ipv4() {
                setsockopt(&socket, sockopt::Ipv4RecvErr, &true)?;
            } else {
                setsockopt(&socket, sockopt::Ipv6RecvErr, &true)?;
            }
        }
        if self.dscp != 0 {
            // The upper six bits of the octet; the others are for congestion.
            let octet = u32::from(self.dscp) << 2;
            if self.to.is_ipv4() { socket.set_tos_v4(octet)? } else { socket.set_tclass_v6(octet)? }
        }
        socket.bind(&SocketAddr::new(self.from.address, 0).into())?;
        Ok(socket)
    }
}

// === impl Protocol ===

impl Protocol {
    /// The name as the API writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
            Self::Icmp => "ICMP",
        }
    }
}

// === impl Outcome ===

impl Outcome {
    /// Reads an error of a socket that was to send something.
    pub(super) fn of_error(error: &io::Error) -> Self {
        use nix::libc::{EACCES, ECONNREFUSED, ECONNRESET, EHOSTUNREACH, EPERM, EPIPE, ETIMEDOUT};
        match error.raw_os_error() {
            // ECONNREFUSED: a reset, or "port unreachable". EHOSTUNREACH: ICMP "administratively prohibited" reads the same as "host
            // unreachable", which a lab's routers never send, for they have a route to living hosts only. EACCES: ICMPv6's prohibition.
            Some(ECONNREFUSED | ECONNRESET | EPIPE | EHOSTUNREACH | EACCES) => Self::Rejected,
            // EPERM: dropped by the asker's own output hook.
            Some(ETIMEDOUT | EPERM) => Self::Refused,
            Some(_) | None => Self::Error(error.to_string()),
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Allowed => formatter.write_str("allowed"),
            Self::Refused => formatter.write_str("refused"),
            Self::Rejected => formatter.write_str("rejected"),
            Self::Error(reason) => write!(formatter, "error: {reason}"),
        }
    }
}

// === impl ProbeOptions ===

impl Default for ProbeOptions {
    fn default() -> Self {
        Self { window: Duration::from_secs(1), tries: 2, concurrency: 1_024 }
    }
}

/// How many sockets may be open at once, by the process's limit of open files.
struct Budget {
    responders: usize,
    concurrency: usize,
}

// === impl Budget ===

impl Budget {
    fn new(options: &ProbeOptions) -> Self {
        // The rest of the process has files, too: namespaces, netlink sockets, the runtime.
        const OTHERS: u64 = 512;
        let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((1_024, 1_024));
        let free = usize::try_from(soft.saturating_sub(OTHERS)).unwrap_or(usize::MAX).max(64);
        // A TCP probe in flight has a socket at each end.
        Self { responders: free / 2, concurrency: options.concurrency.clamp(1, free / 4) }
    }
}

/// Sends probes and returns what became of them, in their order.
///
/// Must be called within a tokio runtime. Responders listen in waves, as many at a time as the process may open files; the same
/// responder named by many probes is one.
pub async fn probe(probes: &[Probe], options: &ProbeOptions) -> Vec<Outcome> {
    let budget = Budget::new(options);
    let mut outcomes = Vec::with_capacity(probes.len());
    let mut rest = probes;
    while !rest.is_empty() {
        let (wave, later) = rest.split_at(wave_length(rest, budget.responders));
        outcomes.extend(probe_wave(wave, options, budget.concurrency).await);
        rest = later;
    }
    outcomes
}

/// How many of the probes, from the first on, need no more than so many responders; at least one.
fn wave_length(probes: &[Probe], responders: usize) -> usize {
    let mut distinct = BTreeSet::new();
    for (index, probe) in probes.iter().enumerate() {
        distinct.extend(probe.responders.iter().map(|responder| (probe.protocol, responder)));
        if distinct.len() > responders {
            return index.max(1);
        }
    }
    probes.len()
}

async fn probe_wave(probes: &[Probe], options: &ProbeOptions, concurrency: usize) -> Vec<Outcome> {
    let responders = Responders::open(probes);
    let ask = async |index: usize| {
        let probe: &Probe = &probes[index];
        let outcome = match responders.failure(probe) {
            Some(reason) => Outcome::Error(reason),
            None => probe.ask(options.window).await,
        };
        (index, outcome)
    };
    let mut outcomes = vec![Outcome::Refused; probes.len()];
    for _ in 0..options.tries.max(1) {
        let silent: Vec<_> = (0..probes.len()).filter(|&index| outcomes[index] == Outcome::Refused).collect();
        let mut answers = std::pin::pin!(stream::iter(silent).map(&ask).buffer_unordered(concurrency));
        while let Some((index, outcome)) = answers.next().await {
            outcomes[index] = outcome;
        }
    }
    responders.close().await;
    outcomes
}

/// A number that no other probe of this process has: to tell its answer from that to an earlier one with the same ports.
fn nonce() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}
