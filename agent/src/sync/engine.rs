//! What the sync thread does in one turn: admit events, compile, commit one transaction, verify.
//!
//! ```text
//! Waiting -> Behind <-> InForce      Waiting: for lists, before the first commit
//!     \         |         /          Behind:  the kernel is to be written
//!      `---- Failing ----'           Failing: it refuses, or cannot be reached
//! ```
//!
//! A failure ends when the kernel holds what it should, or can be reached where nothing is to be written yet, and not
//! before.

mod bond;
mod held;
mod moving;
mod reviews;
mod state;
mod suspects;
mod unenforced;
mod wanted;

use std::sync::Arc;
use std::time::{Duration, Instant};

use compiler::Compiler;
use compiler::api::PolicyKey;
use compiler::cluster::{Change, Event, Interest};
use compiler::diff::Limits;
use compiler::flows::Reviewed;
use compiler::nft::Table;
use compiler::policy::Ir;
use jiff::Timestamp;
use netlink::Error;
use tokio::sync::watch::Receiver;
use tracing::{debug, error, info, warn};

use super::snapshot::{Enforced, Publisher, Snapshot};
use super::sources::{Sources, SubscriptionId};
use super::{Arrival, Settings};
use crate::backoff::Backoff;
use crate::kernel::Kernel;
use crate::metrics::SyncMetrics;
use crate::readiness::Readiness;
use crate::telemetry::Causes;
use bond::{Bond, Objects};
use held::Held;
use moving::Moving;
pub(super) use reviews::Begin;
use reviews::Reviews;
use state::{Due, FIRST_RETRY, Failing, Start, State, describe};
use suspects::Suspects;
use unenforced::Unenforced;
use wanted::Wanted;

/// How often a table that others may edit is checked for an edit: one question of some ten microseconds. The thread
/// wakes up as often, to be seen alive.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// How many other writers may be faster, one after the other, before they are given a rest.
const MOST_RESTARTS: u32 = 10;
/// How long a change waits for pods of which it speaks.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often policies in quarantine get another chance, besides when they change.
const RECONSIDER_INTERVAL: Duration = Duration::from_secs(600);

/// What tells the time: the system, and in tests a hand.
pub(super) type Clock = Box<dyn Fn() -> Instant + Send>;
/// What opens a connection.
pub(super) type Connect<K> = Box<dyn FnMut() -> Result<K, Error> + Send>;

/// The state of the sync thread.
pub(super) struct Engine<K> {
    compiler: Compiler,
    sources: Sources,
    held: Held,
    moving: Moving,
    wanted: Wanted,
    limits: Limits,
    verify_interval: Duration,
    connect: Connect<K>,
    clock: Clock,
    /// The kernel and what we believe it holds; `None` where there is no connection.
    bond: Option<Bond<K>>,
    state: State,
    /// `None` after the first commit.
    start: Option<Start>,
    /// When the events came that are not enforced yet.
    unenforced: Unenforced,
    /// When the objects were changed of which they are, as far as that is known.
    unenforced_changes: Unenforced,
    suspects: Suspects,
    /// `None` where open flows are left alone.
    reviews: Option<Reviews>,
    /// When policies in quarantine get another chance, if there are any.
    reconsider_at: Instant,
    /// Transactions that have landed since the kernel last held what it should.
    commits: usize,
    verify_at: Instant,
    poll_at: Instant,
    backoff: Backoff,
    readiness: Readiness,
    metrics: SyncMetrics,
    publisher: Publisher,
}

/// How a turn ended.
enum Turn {
    /// Nothing may be written yet.
    Waits(State),
    /// One transaction has landed, or policies were left out because the kernel refused it, and there is more to do.
    Landed,
    /// The kernel holds what it should.
    Done,
}

/// Why a turn came to nothing.
struct Setback {
    error: Error,
    /// The table that the kernel would not become.
    refused: Option<Arc<Table>>,
}

impl From<Error> for Setback {
    fn from(error: Error) -> Setback {
        Setback { error, refused: None }
    }
}

// === impl Engine ===

impl<K: Kernel> Engine<K> {
    /// An engine that knows nothing yet, and where its snapshots can be read.
    pub(super) fn new(
        settings: Settings,
        sources: Sources,
        connect: Connect<K>,
        review: Option<Begin>,
        clock: Clock,
        readiness: Readiness,
        metrics: SyncMetrics,
    ) -> (Engine<K>, Receiver<Arc<Snapshot>>) {
        let Settings { node, deny, log, budget, own_addresses, origin: _, limits, verify_interval } = settings;
        let now = clock();
        let compiler = Compiler::with_budget(node, deny, budget).logging(log).checking(own_addresses);
        let compiler = if review.is_some() { compiler.cutting_flows() } else { compiler };
        let (publisher, snapshots) = Publisher::new(compiler.state());
        let engine = Engine {
            compiler,
            sources,
            held: Held::default(),
            moving: Moving::default(),
            wanted: Wanted::default(),
            limits,
            verify_interval,
            connect,
            clock,
            bond: None,
            state: State::Waiting { until: None },
            start: Some(Start::new(readiness.guard("the first commit"))),
            unenforced: Unenforced::default(),
            unenforced_changes: Unenforced::default(),
            suspects: Suspects::default(),
            reviews: review.map(|begin| Reviews::new(begin, now)),
            reconsider_at: now + RECONSIDER_INTERVAL,
            commits: 0,
            verify_at: now + verify_interval,
            poll_at: now + POLL_INTERVAL,
            backoff: Backoff::new(FIRST_RETRY, Duration::from_secs(30)),
            readiness,
            metrics,
            publisher,
        };
        (engine, snapshots)
    }

    /// Takes note of an event, without acting on it yet.
    pub(super) fn admit(&mut self, event: Event, id: Option<SubscriptionId>, arrival: Arrival) {
        self.metrics.event(event.kind());
        if !self.sources.admit(&event, id) {
            return;
        }
        // Before the first commit there is nothing in force that could stay.
        if self.start.is_some() {
            return self.apply(event, Some(arrival));
        }
        let Some(event) = self.held.admit(event, arrival, self.compiler.state(), &self.sources) else { return };
        for (event, arrival) in self.moving.admit(event, arrival, self.compiler.state(), &self.sources) {
            self.apply(event, Some(arrival));
        }
    }

    /// Does what is due, and says when to come back at the latest.
    ///
    /// # Errors
    ///
    /// If the process lacks the permission that it needs, which no waiting mends.
    pub(super) fn step(&mut self) -> Result<Instant, Error> {
        let now = (self.clock)();
        self.release(now);
        self.compiler.decide();
        self.reconsider(now);
        // The first commit waits for what is asked for; later ones do not even wait for the asking.
        if self.start.is_some() {
            self.subscribe(now);
        }
        if self.is_due(now) {
            match self.turn(now) {
                Ok(turn) => self.went(turn, now),
                Err(Setback { error, .. }) if error.is_permission() => return Err(error),
                // The attempt may have taken long, and the pause comes after it.
                Err(setback) => self.failed(setback, (self.clock)()),
            }
        }
        self.subscribe(now);
        self.review(now);
        self.publisher.publish(self.compiler.state(), None);
        Ok(self.wake_at(now))
    }

    /// Takes over what was found of open flows, or why they could not be looked at.
    pub(super) fn reviewed(&mut self, found: Result<Reviewed, String>) {
        let now = (self.clock)();
        let (Some(reviews), Some(flows)) = (&mut self.reviews, self.compiler.flows_mut()) else { return };
        if let Some(found) = reviews.ended(found, now, &self.readiness) {
            flows.reviewed(found);
            self.state.desired_changed();
        }
    }

    /// Has open flows reviewed, if that is due. The kernel has to hold what was compiled: flows that begin later are
    /// judged by that.
    fn review(&mut self, now: Instant) {
        if let (Some(reviews), Some(flows), State::InForce) = (&mut self.reviews, self.compiler.flows(), &self.state)
            && reviews.due_at(flows.need()).is_some_and(|due| due <= now)
            && let Some(review) = flows.review()
        {
            reviews.begin(review, now);
        }
    }

    fn apply(&mut self, event: Event, arrival: Option<Arrival>) {
        if self.compiler.apply(event) {
            self.publisher.state_changed();
            self.state.desired_changed();
            if let Some(Arrival { received, changed }) = arrival {
                self.unenforced.push(received);
                changed.into_iter().for_each(|changed| self.unenforced_changes.push(changed));
            }
        }
    }

    /// Lets take effect what has waited: policies for pods, and the leaving of pods for their being reported by others.
    fn release(&mut self, now: Instant) {
        for (event, arrival) in self.moving.release(now) {
            self.apply(event, Some(arrival));
        }
        for (policy, arrival) in self.held.release(self.compiler.state(), &self.sources, now) {
            self.apply(Event::Policies(Change::Applied(policy)), Some(arrival));
        }
    }

    /// Gives policies in quarantine another chance when it is time to.
    fn reconsider(&mut self, now: Instant) {
        if self.reconsider_at <= now {
            self.reconsider_at = now + RECONSIDER_INTERVAL;
            if !self.compiler.state().quarantined().is_empty() {
                self.compiler.reconsider();
                self.state.desired_changed();
            }
        }
    }

    /// Subscribes to the pods of which policies speak, and forgets those that come from nowhere any more.
    fn subscribe(&mut self, now: Instant) {
        if !self.sources.can_subscribe() {
            return;
        }
        let state = self.compiler.state();
        let wanted = self.wanted.of(state);
        let missing: Vec<&Interest> = self.held.interests().filter(|interest| !self.sources.cover(interest)).collect();
        let interest = if missing.is_empty() { wanted } else { Arc::new(wanted.and(missing.into_iter())) };
        for source in self.sources.subscribe(&interest, now) {
            self.apply(Event::Pods(source, Change::Reset(Vec::new())), None);
        }
    }

    /// Whether there may be something to do for the kernel. Where it fails, there is not at every event.
    fn is_due(&mut self, now: Instant) -> bool {
        let State::Failing(failing) = &mut self.state else { return true };
        failing.tell(now);
        match failing.due(now) {
            Due::Nothing => false,
            Due::Retry => true,
            Due::News => failing.is_another(&self.compiler.table()),
        }
    }

    fn turn(&mut self, now: Instant) -> Result<Turn, Setback> {
        let is_new = self.bond.is_none();
        let bond = match &mut self.bond {
            Some(bond) => bond,
            empty @ None => empty.insert(Bond::new((self.connect)()?)?),
        };
        if is_new
            && self.start.is_some()
            && bond.has_rules()
            && let Some(table) = &bond.mirror.table
        {
            self.compiler.adopt(table);
            if let Some(flows) = self.compiler.flows_mut() {
                flows.adopt(table);
            }
        }
        if let Some(start) = &mut self.start
            && let Some(waits) = start.wait(&self.sources, bond.has_rules(), now)
        {
            return Ok(Turn::Waits(waits));
        }
        match &self.state {
            State::Failing(failing) if failing.must_reread(now) && !is_new => bond.mirror = bond.kernel.dump()?,
            State::InForce | State::Behind => self.check(now)?,
            State::Failing(_) | State::Waiting { .. } => {}
        }
        if matches!(self.state, State::InForce) { Ok(Turn::Done) } else { self.advance() }
    }

    /// Compares the table with the mirror if it is time to.
    fn check(&mut self, now: Instant) -> Result<(), Error> {
        let Some(bond) = &mut self.bond else { return Ok(()) };
        let mut is_due = self.verify_at <= now;
        if self.poll_at <= now {
            self.poll_at = now + POLL_INTERVAL;
            is_due |= bond.may_have_drifted();
        }
        if is_due {
            self.verify_at = now + self.verify_interval;
            if let Some(drift) = bond.reread(self.limits)? {
                self.metrics.drift_repair();
                self.state.desired_changed();
                warn!(differs = %Objects(&drift), "the table was changed by somebody else, repairing it");
            }
        }
        Ok(())
    }

    /// Brings the kernel one transaction closer to what the compiler wants.
    fn advance(&mut self) -> Result<Turn, Setback> {
        let (ir, desired) = (self.compiler.ir(), Arc::new(self.compiler.table()));
        let is_failing = matches!(self.state, State::Failing(_));
        let mut may_retry = !is_failing;
        let mut restarts = 0;
        let bond = self.bond.as_mut().expect("a turn begins with a connection");
        while let Some(transaction) = bond.way.next(&desired, &bond.mirror, self.limits) {
            let Err(failed) = bond.commit(transaction, self.unenforced.count(), &self.clock, &self.metrics) else {
                self.commits += 1;
                if bond.mirror.table.as_ref() == Some(&*desired) {
                    break;
                }
                return Ok(Turn::Landed);
            };
            let (error, transaction) = *failed;
            if error.is_restart() && restarts < MOST_RESTARTS {
                restarts += 1;
                if let Some(drift) = bond.reread(self.limits)? {
                    self.metrics.drift_repair();
                    warn!(differs = %Objects(&drift), "the table was changed by somebody else, repairing it");
                }
            } else if is_lost(&error) {
                // A connection that is opened again reads the table too.
                return Err(error.into());
            } else if may_retry {
                may_retry = false;
                warn!(error = %Causes(&error), "not committed, reading the table back to try again");
                bond.mirror = bond.kernel.dump()?;
            } else {
                let before = bond.mirror.table.iter();
                let tables: Vec<&Table> = before.chain([&*desired]).collect();
                let policies: Vec<&PolicyKey> = ir.policies.keys().collect();
                let mut accused = self.suspects.accuse(&error, &transaction, &tables, policies.iter().copied());
                // What is refused though a policy is left out is not mended by leaving it out again.
                accused.retain(|policy| !self.compiler.state().quarantined().contains_key(policy));
                if accused.is_empty() {
                    return Err(Setback { error, refused: Some(desired) });
                }
                let reason = Causes(&error).to_string();
                accused.iter().for_each(|policy| self.compiler.refuse(policy, reason.clone()));
                return Ok(Turn::Landed);
            }
        }
        self.arrived(ir, desired);
        Ok(Turn::Done)
    }

    /// The kernel holds what the compiler wants. Policies that were left out on suspicion are given back, some at a time.
    fn arrived(&mut self, ir: Ir, desired: Arc<Table>) {
        let bond = self.bond.as_mut().expect("a turn begins with a connection");
        let commits = std::mem::take(&mut self.commits);
        if let Some(flows) = self.compiler.flows() {
            self.metrics.set_open_flows(flows.rejudged().len(), flows.cut().len());
        }
        if commits == 0 {
            // Else the last transaction has left a mirror that shares its parts with what is desired.
            bond.mirror.settled(Table::clone(&desired));
        }
        let now = (self.clock)();
        for received in self.unenforced.drain().filter(|_| commits > 0) {
            self.metrics.enforced(now.saturating_duration_since(received));
        }
        for changed in self.unenforced_changes.drain().filter(|_| commits > 0) {
            self.metrics.programmed(now.saturating_duration_since(changed));
        }
        let generation = bond.mirror.generation;
        let enforced = Enforced { generation, since: Timestamp::now(), ir, table: desired };
        self.publisher.publish(self.compiler.state(), Some(enforced));
        if let Some(policies) = self.suspects.acquit() {
            self.compiler.pardon(policies);
        }
        if self.start.take().is_some() {
            self.readiness.started();
            let (generation, protected) = (generation.0, bond.is_protected());
            let in_sync = self.sources.are_in_sync();
            info!(commits, generation, protected, in_sync, "the rules are in force");
        }
    }

    /// Takes note of a turn that did what it could.
    fn went(&mut self, turn: Turn, now: Instant) {
        let (next, recovered) = match turn {
            Turn::Landed => {
                match &mut self.state {
                    State::Failing(failing) => failing.progressed(now),
                    state @ (State::Waiting { .. } | State::Behind | State::InForce) => *state = State::Behind,
                }
                return;
            }
            Turn::Waits(waits) => (waits, "the kernel can be written again"),
            Turn::Done if self.suspects.is_trying() => (State::Behind, "the kernel holds what it should again"),
            Turn::Done => (State::InForce, "the kernel holds what it should again"),
        };
        if let State::Failing(_) = std::mem::replace(&mut self.state, next) {
            self.metrics.set_failing(false);
            self.backoff.reset();
            info!("{recovered}");
        }
    }

    /// Takes note of a turn that came to nothing.
    fn failed(&mut self, setback: Setback, now: Instant) {
        let Setback { error, refused } = setback;
        if is_lost(&error) {
            self.bond = None;
        }
        let text = describe(&error);
        let mut is_news = false;
        if !matches!(self.state, State::Failing(_)) {
            is_news = true;
            self.metrics.set_failing(true);
            let guard = self.readiness.guard("a commit that the kernel takes");
            self.state = State::Failing(Failing::new(text.clone(), guard, now));
        }
        let State::Failing(failing) = &mut self.state else { return };
        // An attempt for news takes nothing away from the one that is due anyway.
        let wait = failing.left(now).unwrap_or_else(|| self.backoff.next_wait());
        is_news |= failing.again(text.clone(), refused, now, wait);
        if is_news {
            error!(error = text, retry_in = ?wait, "the kernel does not hold what it should; the old rules stay");
        } else {
            debug!(error = text, retry_in = ?wait, "still failing");
        }
    }

    fn wake_at(&self, now: Instant) -> Instant {
        let checks_at = self.verify_at.min(self.poll_at);
        let review_at = match (&self.reviews, self.compiler.flows(), &self.state) {
            (Some(reviews), Some(flows), State::InForce) => reviews.due_at(flows.need()),
            _ => None,
        };
        let due = [
            self.state.due_at(now, checks_at),
            self.held.release_at(),
            self.moving.release_at(),
            self.sources.ends_at(),
            review_at,
        ];
        due.into_iter().flatten().fold(now + POLL_INTERVAL, Instant::min)
    }
}

/// Whether there is nothing to be done with a connection any more: it is broken, or the table belongs to another one.
fn is_lost(error: &Error) -> bool {
    matches!(error, Error::Socket { .. }) || error.is_owned_by_other()
}

#[cfg(test)]
mod tests;
