//! Ends that send to each other without pause, and write down what has arrived.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use lab::Netns;
use nix::net::if_::if_nametoindex;
use socket2::{Domain, Socket, Type};

/// The port that policies open, and another one.
pub(super) const OPEN: u16 = 80;
/// The port that they do not open.
pub(super) const SHUT: u16 = 81;
/// Between two looks for what has arrived, or is to be sent.
const TICK: Duration = Duration::from_millis(1);
/// How many ticks there are between two forbidden packets to each target.
const EVERY: u64 = 10;

/// Where forbidden packets go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    /// To an address and port.
    To(SocketAddr),
    /// To all nodes on the link `eth0`, by IPv6.
    AllNodes,
    /// To everybody on the link, by IPv4.
    Broadcast,
}

/// What all ends have sent and received.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// How many forbidden packets were sent.
    forbidden: AtomicU64,
    /// Those that arrived: who sent, who received.
    passed: Mutex<Vec<String>>,
    /// The numbers of the allowed packets that arrived.
    arrived: Mutex<BTreeSet<u64>>,
    next: AtomicU64,
}

/// A host that listens on both ports in both families, and sends. Dropping it ends it.
pub(super) struct End {
    targets: Arc<Mutex<Vec<Target>>>,
    once: Sender<(SocketAddr, u64)>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// The thread of an end, inside its namespace.
struct Worker {
    name: String,
    ledger: Arc<Ledger>,
    targets: Arc<Mutex<Vec<Target>>>,
    once: Receiver<(SocketAddr, u64)>,
    listening: Vec<(u16, UdpSocket)>,
    /// What sends forbidden packets, by IPv4 and by IPv6.
    sending: [UdpSocket; 2],
    /// What sends allowed ones: apart, so that no flow of those is one of these.
    asking: [UdpSocket; 2],
}

// === impl Ledger ===

impl Ledger {
    /// A number for an allowed packet.
    pub(super) fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Waits until an allowed packet has arrived, and says whether it has.
    pub(super) fn has(&self, number: u64, patience: Duration) -> bool {
        let begun = Instant::now();
        loop {
            if self.arrived.lock().expect("nobody panics with the lock held").contains(&number) {
                return true;
            }
            if begun.elapsed() >= patience {
                return false;
            }
            thread::sleep(TICK);
        }
    }

    /// How many forbidden packets were sent, and those that arrived.
    pub(super) fn forbidden(&self) -> (u64, Vec<String>) {
        let passed = self.passed.lock().expect("nobody panics with the lock held").clone();
        (self.forbidden.load(Ordering::Relaxed), passed)
    }

    fn receive(&self, by: &str, port: u16, from: SocketAddr, bytes: &[u8]) {
        let text = String::from_utf8_lossy(bytes);
        match text.strip_prefix("allowed ").and_then(|number| number.parse().ok()) {
            Some(number) => {
                self.arrived.lock().expect("nobody panics with the lock held").insert(number);
            }
            // What is for everybody comes back to its sender.
            None if text.strip_prefix("forbidden of ") == Some(by) => {}
            None => {
                let line = format!("{text} ({from}) -> {by} {port}/UDP");
                self.passed.lock().expect("nobody panics with the lock held").push(line);
            }
        }
    }
}

// === impl End ===

impl End {
    /// Starts an end, which may have no network yet.
    ///
    /// # Errors
    ///
    /// If the namespace cannot be entered, or a port is taken.
    pub(super) fn start(name: &str, netns: &Netns, targets: Vec<Target>, ledger: &Arc<Ledger>) -> io::Result<End> {
        let open = || {
            let mut listening = Vec::new();
            for port in [OPEN, SHUT] {
                for any in [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)] {
                    listening.push((port, socket(any, port)?));
                }
            }
            let unbound = || Ok([socket(Ipv4Addr::UNSPECIFIED.into(), 0)?, socket(Ipv6Addr::UNSPECIFIED.into(), 0)?]);
            let [sending, asking]: [io::Result<[UdpSocket; 2]>; 2] = [unbound(), unbound()];
            let (sending, asking) = (sending?, asking?);
            sending[0].set_broadcast(true)?;
            io::Result::Ok((listening, sending, asking))
        };
        let (listening, sending, asking) = netns.run(open)??;
        let (once, received) = mpsc::channel();
        let (targets, stop) = (Arc::new(Mutex::new(targets)), Arc::new(AtomicBool::new(false)));
        let worker = Worker {
            name: name.to_owned(),
            ledger: ledger.clone(),
            targets: targets.clone(),
            once: received,
            listening,
            sending,
            asking,
        };
        let (is_over, netns) = (stop.clone(), netns.clone());
        let thread = thread::Builder::new().name("end".to_owned()).spawn(move || {
            netns.run(move || worker.work(&is_over)).expect("the namespace is held, so it can be entered");
        })?;
        Ok(End { targets, once, stop, thread: Some(thread) })
    }

    /// Sends to these from now on, what must not arrive.
    pub(super) fn aim(&self, targets: Vec<Target>) {
        *self.targets.lock().expect("nobody panics with the lock held") = targets;
    }

    /// Sends one allowed packet, once.
    pub(super) fn send(&self, to: SocketAddr, number: u64) {
        // A worker that has ended has panicked, and then the packet does not arrive.
        let _ = self.once.send((to, number));
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic has been printed.
            let _ = thread.join();
        }
    }
}

/// A socket that never waits, for one family.
fn socket(address: IpAddr, port: u16) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address((address, port).into()), Type::DGRAM, None)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::new(address, port).into())?;
    Ok(socket.into())
}

// === impl Worker ===

impl Worker {
    fn work(&self, is_over: &AtomicBool) {
        let mut ticks = 0u64;
        while !is_over.load(Ordering::Relaxed) {
            self.receive();
            for (to, number) in self.once.try_iter() {
                // One that cannot be sent does not arrive, and is counted for that.
                let _ = self.asking[usize::from(to.is_ipv6())].send_to(format!("allowed {number}").as_bytes(), to);
            }
            if ticks.is_multiple_of(EVERY) {
                self.hammer();
            }
            ticks += 1;
            thread::sleep(TICK);
        }
        self.receive();
    }

    fn receive(&self) {
        let mut buffer = [0; 128];
        for (port, socket) in &self.listening {
            while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                self.ledger.receive(&self.name, *port, from, &buffer[..length]);
            }
        }
    }

    fn hammer(&self) {
        let targets = self.targets.lock().expect("nobody panics with the lock held").clone();
        for target in targets {
            let to = match target {
                Target::To(to) => to,
                Target::Broadcast => (Ipv4Addr::BROADCAST, OPEN).into(),
                Target::AllNodes => {
                    // The link comes with the network.
                    let Ok(link) = if_nametoindex("eth0") else { continue };
                    SocketAddrV6::new("ff02::1".parse().expect("an address"), OPEN, 0, link).into()
                }
            };
            // Without a network, or a route, nothing leaves.
            if self.sending[usize::from(to.is_ipv6())]
                .send_to(format!("forbidden of {}", self.name).as_bytes(), to)
                .is_ok()
            {
                self.ledger.forbidden.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}
