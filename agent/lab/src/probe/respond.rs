//! The answering ends: listeners in the namespaces of the probed.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::SocketAddr,
    time::Duration,
};

use socket2::{Domain, Socket, Type};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    task::JoinSet,
    time,
};

use super::{Endpoint, Netns, Probe, Protocol, Responder, sctp};

/// More connections than one port is asked for at a time.
const BACKLOG: i32 = 4_096;

/// Larger than any datagram.
const BUFFER: usize = 65_536;

/// Everybody who answers while this lives.
pub(crate) struct Responders {
    /// The tasks end, and their sockets are closed, when this is dropped.
    tasks: JoinSet<()>,
    failures: BTreeMap<(Protocol, Responder), String>,
}

/// A socket to be opened: of SCTP one for all ports of an address, for every raw socket gets the messages to all ports.
type Wanted = BTreeMap<Netns, BTreeSet<(Protocol, Endpoint, BTreeSet<u16>)>>;

// === impl Responders ===

impl Responders {
    /// Opens the sockets of all responders that the probes name; each is ready when this returns, or has a failure.
    pub(crate) fn open(probes: &[Probe]) -> Self {
        let mut tasks = JoinSet::new();
        let mut failures = BTreeMap::new();
        for (netns, wanted) in wanted(probes) {
            // All sockets of a namespace are opened in one go: each visit costs a thread.
            let opened =
                netns.run(|| wanted.iter().map(|(protocol, at, ports)| open(*protocol, at, ports)).collect::<Vec<_>>());
            let opened =
                opened.unwrap_or_else(|error| wanted.iter().map(|_| Err(io::Error::from(error.kind()))).collect());
            for ((protocol, at, ports), socket) in wanted.into_iter().zip(opened) {
                let serving = socket.and_then(|socket| serve(&mut tasks, protocol, socket, ports.clone()));
                if let Err(error) = serving {
                    let reason = format!("nobody can listen on {} {}: {error}", at.address, protocol.as_str());
                    failures.extend(
                        ports.into_iter().map(|port| ((protocol, Responder { at: at.clone(), port }), reason.clone())),
                    );
                }
            }
        }
        Self { tasks, failures }
    }

    /// Closes all sockets. When this returns, others can listen on the same ports; after a mere drop, some moments later.
    pub(crate) async fn close(mut self) {
        self.tasks.shutdown().await;
    }

    /// Why one of the probe's responders is not there.
    pub(crate) fn failure(&self, probe: &Probe) -> Option<String> {
        let failure = |responder: &Responder| self.failures.get(&(probe.protocol, responder.clone()));
        probe.responders.iter().find_map(failure).cloned()
    }
}

fn wanted(probes: &[Probe]) -> Wanted {
    let mut ports = BTreeMap::<(Protocol, &Endpoint), BTreeSet<u16>>::new();
    for probe in probes {
        for responder in &probe.responders {
            ports.entry((probe.protocol, &responder.at)).or_default().insert(responder.port);
        }
    }
    let mut wanted = Wanted::new();
    for ((protocol, at), ports) in ports {
        let sockets = wanted.entry(at.netns.clone()).or_default();
        match protocol {
            Protocol::Icmp => {}
            Protocol::Sctp => {
                sockets.insert((protocol, at.clone(), ports));
            }
            Protocol::Tcp | Protocol::Udp => {
                sockets.extend(ports.into_iter().map(|port| (protocol, at.clone(), BTreeSet::from([port]))));
            }
        }
    }
    wanted
}

/// Opens a non-blocking socket in the namespace that the thread is in.
fn open(protocol: Protocol, at: &Endpoint, ports: &BTreeSet<u16>) -> io::Result<Socket> {
    let (kind, number) = match protocol {
        Protocol::Tcp => (Type::STREAM, None),
        Protocol::Udp => (Type::DGRAM, None),
        Protocol::Sctp | Protocol::Icmp => (Type::RAW, Some(sctp::PROTOCOL.into())),
    };
    // A raw socket's port would be read as a protocol.
    let port = if kind == Type::RAW { 0 } else { ports.first().copied().unwrap_or(0) };
    // Bound to the address, so that the answer comes from the one that was asked.
    let address = SocketAddr::new(at.address, port);
    let socket = Socket::new(Domain::for_address(address), kind.nonblocking(), number)?;
    socket.set_reuse_address(kind == Type::STREAM)?;
    socket.bind(&address.into())?;
    if kind == Type::STREAM {
        socket.listen(BACKLOG)?;
    }
    Ok(socket)
}

fn serve(tasks: &mut JoinSet<()>, protocol: Protocol, socket: Socket, ports: BTreeSet<u16>) -> io::Result<()> {
    match protocol {
        Protocol::Tcp => {
            tasks.spawn(echo_streams(TcpListener::from_std(socket.into())?));
        }
        Protocol::Udp => {
            tasks.spawn(echo_datagrams(UdpSocket::from_std(socket.into())?));
        }
        Protocol::Sctp => {
            let is_ipv4 = socket.domain()? == Domain::IPV4;
            // The runtime's type for all sockets that send and receive datagrams, raw ones too.
            tasks.spawn(answer_handshakes(UdpSocket::from_std(socket.into())?, is_ipv4, ports));
        }
        Protocol::Icmp => {}
    }
    Ok(())
}

async fn echo_streams(listener: TcpListener) {
    let mut connections = JoinSet::new();
    loop {
        // An error of accepting is that of one connection that is gone, or a passing lack of files.
        if let Ok((stream, _)) = listener.accept().await {
            connections.spawn(echo_stream(stream));
        } else {
            time::sleep(Duration::from_millis(5)).await;
        }
        while connections.try_join_next().is_some() {}
    }
}

async fn echo_stream(mut stream: TcpStream) {
    let mut buffer = vec![0; 8_192];
    while let Ok(length @ 1..) = stream.read(&mut buffer).await {
        if stream.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}

async fn echo_datagrams(socket: UdpSocket) {
    let mut buffer = vec![0; BUFFER];
    loop {
        // What cannot be received or sent is a lost packet; whoever asks sends again.
        if let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            let _ = socket.send_to(&buffer[..length], from).await;
        }
    }
}

async fn answer_handshakes(socket: UdpSocket, is_ipv4: bool, ports: BTreeSet<u16>) {
    let mut buffer = vec![0; BUFFER];
    loop {
        if let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            let payload = sctp::payload(&buffer[..length], is_ipv4);
            if let Some(reply) = payload.and_then(|payload| sctp::reply(payload, |port| ports.contains(&port))) {
                let _ = socket.send_to(&reply, from).await;
            }
        }
    }
}
