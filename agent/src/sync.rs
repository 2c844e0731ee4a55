//! The sync thread: the one owner of the compiler's state, of what is believed about the kernel, and of the connection.
//!
//! ```text
//! watches -> Handle::event -> [ apply, compile, diff, commit ] -> kernel
//! ```
//!
//! It is a thread of its own because a commit blocks: the kernel runs the whole transaction inside the call that sends
//! it. An event that comes alone is committed at once; what comes while a commit runs is taken together. Nothing is
//! written before every watch has delivered its list.

mod engine;
mod heartbeat;
mod sources;

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

use compiler::api::NodeName;
use compiler::cluster::{Event, PodSource};
use compiler::diff::Limits;
use compiler::nft::Deny;
use netlink::Error;
use tokio::sync::{oneshot, watch};

use crate::explanation::Explanation;
use crate::kernel::Kernel;
use crate::metrics::{Report, SyncMetrics};
use crate::probes::Probe;
use crate::readiness::Readiness;

use engine::Engine;
pub use heartbeat::Heartbeat;

/// For how long events are taken before they are acted on, though ever more are there.
const LONGEST_TAKING: Duration = Duration::from_millis(50);

/// What the sync thread works with.
#[derive(Debug)]
pub struct Settings {
    /// The node whose pods are policed.
    pub node: NodeName,
    /// How a packet is refused.
    pub deny: Deny,
    /// Where the events come from.
    pub origin: Origin,
    /// What transactions may do.
    pub limits: Limits,
    /// How often the table is read back and compared.
    pub verify_interval: Duration,
}

/// Where the events come from, and so which lists must be there before anything is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The API: Namespaces, NetworkPolicies, the pods of this node, and of the others those that policies speak about.
    Api,
    /// Files, whose pods are one list ([`PodSource::Cluster`]).
    Files,
}

/// The other end of the sync thread. Every clone speaks to the same one.
#[derive(Debug, Clone)]
pub struct Handle {
    inbox: Sender<Message>,
    followed: watch::Receiver<BTreeSet<PodSource>>,
    heartbeat: Arc<Heartbeat>,
}

/// What the sync thread is told.
#[derive(Debug)]
enum Message {
    /// A watch reports something.
    Event {
        event: Event,
        /// When it came, for the time until it is enforced.
        received: Instant,
    },
    /// Somebody wants to know.
    Report(oneshot::Sender<Report>),
    /// Somebody wants to know what the policies say of a probe.
    Explain(Probe, oneshot::Sender<Result<Explanation, String>>),
    /// End; the rules stay.
    Stop,
}

/// Starts the sync thread. `connect` is called on it, and again when the connection breaks.
///
/// The thread ends when it is told to, or when it lacks the permission to do its work, which is the error that the
/// receiver gets. It leaves the rules in either case.
///
/// # Errors
///
/// If the system gives no thread.
pub fn spawn<K: Kernel + 'static>(
    settings: Settings,
    connect: impl FnMut() -> Result<K, Error> + Send + 'static,
    readiness: &Readiness,
    metrics: SyncMetrics,
) -> io::Result<(Handle, oneshot::Receiver<Result<(), Error>>)> {
    let (inbox, messages) = mpsc::channel();
    let (follow, followed) = watch::channel(BTreeSet::new());
    let heartbeat = Arc::new(Heartbeat::new());
    let handle = Handle { inbox, followed, heartbeat: heartbeat.clone() };
    let first_commit = readiness.guard("the first commit");
    let readiness = readiness.clone();
    let (ended, end) = oneshot::channel();
    thread::Builder::new().name("sync".to_owned()).spawn(move || {
        let mut engine = Engine::new(settings, Box::new(connect), follow, readiness, first_commit, metrics);
        // Whoever started the thread may have gone.
        let _ = ended.send(run(&mut engine, &messages, &heartbeat));
    })?;
    Ok((handle, end))
}

/// Takes what has come, all at once, and lets the engine act, until told to stop.
fn run<K: Kernel>(engine: &mut Engine<K>, messages: &Receiver<Message>, heartbeat: &Heartbeat) -> Result<(), Error> {
    loop {
        heartbeat.beat();
        let mut next = engine.step(Instant::now())?;
        let mut taking_since = None;
        while taking_since.is_none_or(|since: Instant| since.elapsed() < LONGEST_TAKING) {
            heartbeat.beat();
            let wait = next.saturating_duration_since(Instant::now());
            match messages.recv_timeout(wait) {
                Ok(Message::Stop) | Err(mpsc::RecvTimeoutError::Disconnected) => return Ok(()),
                Err(mpsc::RecvTimeoutError::Timeout) => break,
                Ok(Message::Report(answer)) => {
                    // Whoever asked may have gone.
                    let _ = answer.send(engine.report());
                }
                Ok(Message::Explain(probe, answer)) => {
                    let _ = answer.send(engine.explain(&probe));
                }
                Ok(Message::Event { event, received }) => {
                    engine.take(event, received);
                    // What has come by now is taken too; what comes later waits for this commit.
                    next = *taking_since.get_or_insert_with(Instant::now);
                }
            }
        }
    }
}

// === impl Handle ===

impl Handle {
    /// Reports an event. It is enforced soon; nobody is told when.
    pub fn event(&self, event: Event) {
        self.send(Message::Event { event, received: Instant::now() });
    }

    /// What the sync thread holds; `None` if it is busy for longer than a scrape can wait.
    pub async fn report(&self) -> Option<Report> {
        self.ask(Message::Report).await
    }

    /// What the policies of this node say of a probe, or why it makes no sense; `None` if the thread is busy.
    pub async fn explain(&self, probe: Probe) -> Option<Result<Explanation, String>> {
        self.ask(|answer| Message::Explain(probe, answer)).await
    }

    async fn ask<T>(&self, message: impl FnOnce(oneshot::Sender<T>) -> Message) -> Option<T> {
        const PATIENCE: Duration = Duration::from_secs(2);
        let (answer, answered) = oneshot::channel();
        self.send(message(answer));
        tokio::time::timeout(PATIENCE, answered).await.ok()?.ok()
    }

    /// The watches of pods that are wanted now. Each reports a `Reset` first.
    pub fn followed(&self) -> watch::Receiver<BTreeSet<PodSource>> {
        self.followed.clone()
    }

    /// How long the thread has not been seen alive.
    pub fn silence(&self) -> Duration {
        self.heartbeat.age()
    }

    /// Ends the thread after the commit that it is in. The rules stay.
    pub fn stop(&self) {
        self.send(Message::Stop);
    }

    fn send(&self, message: Message) {
        // A thread that has ended needs no telling; whoever started it sees its end.
        let _ = self.inbox.send(message);
    }
}
