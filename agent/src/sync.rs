//! The sync thread: the one owner of the compiler's state, of what is believed about the kernel, and of the connection.
//!
//! ```text
//! watches -> Handle::event -> [ apply, compile, diff, commit ] -> kernel
//! ```
//!
//! It is a thread of its own because a commit blocks: the kernel runs the whole transaction inside the call that sends
//! it. An event that comes alone is committed at once; what comes while a commit runs is admitted together, also between
//! two transactions of one change. Nothing is written before it is known who is isolated.
//!
//! Nobody asks the thread anything: after each turn it gives away a [`Snapshot`], and questions are answered from that.

mod engine;
mod heartbeat;
mod reviewer;
mod snapshot;
mod sources;

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use compiler::api::NodeName;
use compiler::cluster::{Budget, Event};
use compiler::diff::Limits;
use compiler::flows::Reviewed;
use compiler::nft::{Deny, LogGroup};
use compiler::policy::OwnAddresses;
use netlink::Error;
use tokio::sync::{oneshot, watch};

use crate::kernel::Kernel;
use crate::metrics::SyncMetrics;
use crate::readiness::Readiness;

use engine::Engine;
pub use heartbeat::Heartbeat;
pub use reviewer::Look;
pub use snapshot::{Enforced, Snapshot};
use sources::Sources;
pub use sources::{SubscriptionId, Subscriptions};

/// For how long events are admitted before they are acted on, though ever more are there.
const LONGEST_ADMISSION: Duration = Duration::from_millis(20);

/// What the sync thread works with.
#[derive(Debug)]
pub struct Settings {
    /// The node whose pods are policed.
    pub node: NodeName,
    /// How a packet is refused.
    pub deny: Deny,
    /// To whom the table tells of refused packets, if to anybody.
    pub log: Option<LogGroup>,
    /// What policies may cost.
    pub budget: Budget,
    /// Whose packets must have a source of their own.
    pub own_addresses: OwnAddresses,
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
    /// Files, whose pods are one list ([`PodSource::Cluster`](compiler::cluster::PodSource::Cluster)).
    Files,
}

/// The other end of the sync thread. Every clone speaks to the same one.
#[derive(Debug, Clone)]
pub struct Handle {
    inbox: Sender<Message>,
    /// The subscription under which events are reported.
    subscription: Option<SubscriptionId>,
    subscriptions: watch::Receiver<Subscriptions>,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    heartbeat: Arc<Heartbeat>,
}

/// What the sync thread is told.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "nearly all messages are events")]
enum Message {
    /// A watch reports something.
    Event { event: Event, subscription: Option<SubscriptionId>, arrival: Arrival },
    /// Open flows have been looked at, or could not be.
    Reviewed(Result<Reviewed, String>),
    /// End; the rules stay.
    Stop,
}

/// From when on the time is counted until an event is enforced.
#[derive(Debug, Clone, Copy)]
struct Arrival {
    /// When it came.
    received: Instant,
    /// When the object was changed, if that is known.
    changed: Option<Instant>,
}

/// Starts the sync thread. `connect` is called on it, and again when the connection breaks. `look` looks at the open flows
/// of the node, on a thread of its own; without it they are left alone.
///
/// The thread ends when it is told to, or when it lacks the permission to do its work, which is the error that the
/// receiver gets. It leaves the rules in either case.
///
/// # Errors
///
/// If the system gives no thread.
pub fn spawn<K: Kernel + Send + 'static>(
    settings: Settings,
    connect: impl FnMut() -> Result<K, Error> + Send + 'static,
    look: Option<Look>,
    readiness: &Readiness,
    metrics: SyncMetrics,
) -> io::Result<(Handle, oneshot::Receiver<Result<(), Error>>)> {
    let (inbox, messages) = mpsc::channel();
    let (running, subscriptions) = watch::channel(Subscriptions::new());
    let sources = Sources::new(settings.origin, running);
    let clock = Box::new(Instant::now);
    let review = look.map(|look| reviewer::spawn(look, inbox.clone())).transpose()?;
    let (mut engine, snapshots) =
        Engine::new(settings, sources, Box::new(connect), review, clock, readiness.clone(), metrics);
    let heartbeat = Arc::new(Heartbeat::new());
    let handle = Handle { inbox, subscription: None, subscriptions, snapshots, heartbeat: heartbeat.clone() };
    let (ended, end) = oneshot::channel();
    thread::Builder::new().name("sync".to_owned()).spawn(move || {
        // Whoever started the thread may have gone.
        let _ = ended.send(run(&mut engine, &messages, &heartbeat));
    })?;
    Ok((handle, end))
}

/// Admits what has come, all at once, and lets the engine act, until told to stop.
fn run<K: Kernel>(engine: &mut Engine<K>, messages: &Receiver<Message>, heartbeat: &Heartbeat) -> Result<(), Error> {
    loop {
        heartbeat.beat();
        let mut next = engine.step()?;
        let mut admitting_since = None;
        while admitting_since.is_none_or(|since: Instant| since.elapsed() < LONGEST_ADMISSION) {
            heartbeat.beat();
            let wait = next.saturating_duration_since(Instant::now());
            match messages.recv_timeout(wait) {
                Ok(Message::Stop) | Err(mpsc::RecvTimeoutError::Disconnected) => return Ok(()),
                Err(mpsc::RecvTimeoutError::Timeout) => break,
                Ok(Message::Event { event, subscription, arrival }) => engine.admit(event, subscription, arrival),
                Ok(Message::Reviewed(found)) => engine.reviewed(found),
            }
            // What has come by now is admitted too; what comes later waits for this commit.
            next = *admitting_since.get_or_insert_with(Instant::now);
        }
    }
}

// === impl Handle ===

impl Handle {
    /// The same, for a watch that reports the pods of a subscription.
    pub fn reporting(&self, subscription: SubscriptionId) -> Handle {
        Handle { subscription: Some(subscription), ..self.clone() }
    }

    /// Reports an event. It is enforced soon; nobody is told when. Pods elsewhere are to be reported under the
    /// subscription that asked for them.
    pub fn event(&self, event: Event) {
        self.event_of_change(event, None);
    }

    /// The same, of an object that was changed at a time by the API server's clock, in seconds since 1970, if that is
    /// known. A time that is still to come by the clock of this node counts as now.
    pub fn event_of_change(&self, event: Event, changed_at: Option<i64>) {
        let received = Instant::now();
        let changed_at = changed_at.and_then(|seconds| u64::try_from(seconds).ok()).map(Duration::from_secs);
        let age = changed_at.map(|at| SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().saturating_sub(at));
        let arrival = Arrival { received, changed: age.and_then(|age| received.checked_sub(age)) };
        self.send(Message::Event { event, subscription: self.subscription, arrival });
    }

    /// Where every snapshot can be read as it is made.
    pub fn snapshots(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.snapshots.clone()
    }

    /// What is known and what is enforced, as of the last turn of the thread.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshots.borrow().clone()
    }

    /// The subscriptions to pods that are to run. Each reports a `Reset` first. One that has another name than before
    /// is another one, though its source be the same: the old one is to end, and a new one to begin.
    pub fn subscriptions(&self) -> watch::Receiver<Subscriptions> {
        self.subscriptions.clone()
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
