//! Clients that ask without end, to see what passes in the moments in which rules change.
//!
//! They send datagrams, each from a new port, so that each is judged afresh and none is sent twice: one that is lost
//! stays lost. What passed is counted where it arrives, so that an answer which comes too late is not overlooked.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use lab::{Endpoint, Netns};

/// How long a client waits for an answer that has to come.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two datagrams of one client, unless another pause is asked for: a queue of the kernel must not overflow.
const PAUSE: Duration = Duration::from_micros(300);
/// How often a server looks whether it is to end.
const TICK: Duration = Duration::from_millis(20);

/// A server that answers every datagram and counts them by client.
pub struct Echo {
    received: Arc<Mutex<BTreeMap<IpAddr, u64>>>,
    _worker: Worker,
}

/// A client that asks one server without end.
pub struct Hammer {
    sent: Arc<AtomicU64>,
    answered: Arc<AtomicU64>,
    worker: Worker,
}

/// A thread that ends when this is dropped.
struct Worker {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

// === impl Echo ===

impl Echo {
    /// Listens at an end.
    ///
    /// # Errors
    ///
    /// If it cannot.
    pub fn start(at: &Endpoint, port: u16) -> io::Result<Echo> {
        let address = at.address;
        let socket = at.netns.run(move || UdpSocket::bind((address, port)))??;
        socket.set_read_timeout(Some(TICK))?;
        let received = Arc::new(Mutex::new(BTreeMap::new()));
        let counts = received.clone();
        let worker = Worker::start(&at.netns, move || {
            let mut buffer = [0; 64];
            // No answer within the tick is no error, and one that cannot be sent is a lost packet.
            if let Ok((length, from)) = socket.recv_from(&mut buffer) {
                *counts.lock().expect("nobody panics with the lock held").entry(from.ip()).or_default() += 1;
                let _ = socket.send_to(&buffer[..length], from);
            }
        })?;
        Ok(Echo { received, _worker: worker })
    }

    /// How many datagrams have come from a client so far.
    pub fn received_from(&self, client: IpAddr) -> u64 {
        self.received.lock().expect("nobody panics with the lock held").get(&client).copied().unwrap_or_default()
    }
}

// === impl Hammer ===

impl Hammer {
    /// Asks without waiting for answers.
    ///
    /// # Errors
    ///
    /// If it cannot.
    pub fn refused(from: &Endpoint, to: SocketAddr) -> io::Result<Hammer> {
        Hammer::start(from, to, None, PAUSE)
    }

    /// Asks, and waits for each answer before it asks again.
    ///
    /// # Errors
    ///
    /// If it cannot.
    pub fn allowed(from: &Endpoint, to: SocketAddr) -> io::Result<Hammer> {
        Hammer::start(from, to, Some(PATIENCE), PAUSE)
    }

    /// Asks without waiting for answers, or waits for each, but not as fast as it can: for a long time.
    ///
    /// # Errors
    ///
    /// If it cannot.
    pub fn steady(from: &Endpoint, to: SocketAddr, is_allowed: bool, pause: Duration) -> io::Result<Hammer> {
        Hammer::start(from, to, is_allowed.then_some(PATIENCE), pause)
    }

    fn start(from: &Endpoint, to: SocketAddr, patience: Option<Duration>, pause: Duration) -> io::Result<Hammer> {
        let (sent, answered) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let (from, (sends, answers)) = (from.clone(), (sent.clone(), answered.clone()));
        let netns = from.netns.clone();
        let ask = move || {
            let socket = UdpSocket::bind((from.address, 0))?;
            socket.connect(to)?;
            socket.set_read_timeout(patience)?;
            socket.send(b"hello")?;
            sends.fetch_add(1, Ordering::SeqCst);
            if patience.is_some() {
                socket.recv(&mut [0; 8])?;
                answers.fetch_add(1, Ordering::SeqCst);
            }
            io::Result::Ok(())
        };
        let worker = Worker::start(&netns, move || {
            // Whoever looks at the counts sees what went wrong.
            let _ = ask();
            thread::sleep(pause);
        })?;
        Ok(Hammer { sent, answered, worker })
    }

    /// How many datagrams were sent so far.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::SeqCst)
    }

    /// How many answers have come so far. One may be under way.
    pub fn answered(&self) -> u64 {
        self.answered.load(Ordering::SeqCst)
    }

    /// Ends it, and returns how many were sent and how many of these were answered.
    pub fn stop(mut self) -> (u64, u64) {
        self.worker.stop();
        (self.sent.load(Ordering::SeqCst), self.answered.load(Ordering::SeqCst))
    }
}

// === impl Worker ===

impl Worker {
    /// Does something again and again, inside a namespace.
    fn start(netns: &Netns, work: impl Fn() + Send + 'static) -> io::Result<Worker> {
        let stop = Arc::new(AtomicBool::new(false));
        let (is_over, netns) = (stop.clone(), netns.clone());
        let repeat = move || {
            while !is_over.load(Ordering::SeqCst) {
                work();
            }
        };
        let thread = thread::Builder::new().spawn(move || {
            netns.run(repeat).expect("the namespace is held, so it can be entered");
        })?;
        Ok(Worker { stop, thread: Some(thread) })
    }

    fn stop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            // A panic has been printed, and shows in the counts.
            let _ = thread.join();
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.stop();
    }
}
