//! What the sync thread does in one turn: take events, compile, commit, verify.

use std::collections::BTreeSet;
use std::fmt::{self, Write};
use std::time::{Duration, Instant};

use compiler::Compiler;
use compiler::cluster::{Change, Event, PodSource};
use compiler::diff::{self, Generation, Limits, Mirror, Op, Transaction};
use compiler::nft::Table;
use netlink::{Claim, Error};
use tokio::sync::watch;
use tracing::{debug, error, info, warn};

use super::Settings;
use super::sources::Sources;
use crate::backoff::Backoff;
use crate::explanation::{Explanation, explain};
use crate::kernel::Kernel;
use crate::metrics::{CommitResult, Report, SyncMetrics};
use crate::model::Model;
use crate::probes::Probe;
use crate::readiness::{Guard, Readiness};
use crate::telemetry::Causes;

/// How often a table that others may edit is checked for an edit: one question of some ten microseconds.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// How many other writers may be faster, one after the other, before they are given a rest.
const MOST_RESTARTS: u32 = 10;

/// The state of the sync thread.
pub(super) struct Engine<K> {
    compiler: Compiler,
    sources: Sources,
    limits: Limits,
    verify_interval: Duration,
    connect: Box<dyn FnMut() -> Result<K, Error> + Send>,
    /// The kernel and what we believe it holds; `None` where there is no connection.
    bond: Option<Bond<K>>,
    /// Whether what the compiler wants may differ from what the kernel holds.
    is_dirty: bool,
    /// Whether something has come since the last attempt that failed.
    has_news: bool,
    /// When the events came that are not enforced yet.
    unenforced: Vec<Instant>,
    verify_at: Instant,
    poll_at: Instant,
    /// When to try again what failed.
    retry_at: Option<Instant>,
    backoff: Backoff,
    readiness: Readiness,
    first_commit: Option<Guard>,
    failure: Option<Failure>,
    metrics: SyncMetrics,
}

/// A connection, and what we believe it holds.
struct Bond<K> {
    kernel: K,
    mirror: Mirror,
    /// Nobody else can edit the table.
    is_protected: bool,
}

/// What keeps the kernel from holding what it should, and the agent from being ready.
struct Failure {
    text: String,
    _guard: Guard,
}

// === impl Engine ===

impl<K: Kernel> Engine<K> {
    pub(super) fn new(
        settings: Settings,
        connect: Box<dyn FnMut() -> Result<K, Error> + Send>,
        followed: watch::Sender<BTreeSet<PodSource>>,
        readiness: Readiness,
        first_commit: Guard,
        metrics: SyncMetrics,
    ) -> Engine<K> {
        let Settings { node, deny, origin, limits, verify_interval } = settings;
        let now = Instant::now();
        Engine {
            compiler: Compiler::new(node, deny),
            sources: Sources::new(origin, followed),
            limits,
            verify_interval,
            connect,
            bond: None,
            is_dirty: true,
            has_news: false,
            unenforced: Vec::new(),
            verify_at: now + verify_interval,
            poll_at: now + POLL_INTERVAL,
            retry_at: None,
            backoff: Backoff::new(Duration::from_millis(100), Duration::from_secs(30)),
            readiness,
            first_commit: Some(first_commit),
            failure: None,
            metrics,
        }
    }

    /// Takes over an event, without acting on it yet.
    pub(super) fn take(&mut self, event: Event, received: Instant) {
        self.metrics.event(event.kind());
        if !self.sources.admit(&event) {
            return;
        }
        self.has_news = true;
        if self.compiler.apply(event) {
            self.is_dirty = true;
            self.unenforced.push(received);
        }
    }

    /// Does what is due, and says when to come back at the latest.
    ///
    /// # Errors
    ///
    /// If the process lacks the permission that it needs, which no waiting mends.
    pub(super) fn step(&mut self, now: Instant) -> Result<Instant, Error> {
        self.follow(now);
        let has_news = std::mem::take(&mut self.has_news);
        if self.retry_at.is_none_or(|at| at <= now || has_news) {
            match self.act(now) {
                Ok(()) => self.succeeded(),
                Err(error) if error.is_permission() => return Err(error),
                Err(error) => self.failed(&error, now),
            }
        }
        Ok(self.wake_at(now))
    }

    /// What the policies of this node say of a probe, and whether the table that the kernel is believed to hold agrees.
    pub(super) fn explain(&mut self, probe: &Probe) -> Result<Explanation, String> {
        let table = self.bond.as_ref().and_then(|bond| bond.mirror.table.clone());
        let table = table.ok_or("the kernel holds no table yet")?;
        probe.packet_protocol()?;
        explain(&Model::of_node(&mut self.compiler, table), probe).map_err(|error| error.to_string())
    }

    /// What the thread holds.
    pub(super) fn report(&mut self) -> Report {
        let state = self.compiler.state();
        let local = state.pods().iter().filter(|pod| state.pods().is_local(pod)).count();
        let objects = vec![
            ("Namespace", state.namespaces().iter().count()),
            ("NetworkPolicy", state.policies().iter().count()),
            ("Pod", state.pods().iter().count()),
            ("LocalPod", local),
        ];
        let (table, counters) = match &mut self.bond {
            // Counters that cannot be read now are read on the next scrape.
            Some(bond) => (bond.mirror.table.clone(), bond.kernel.counters().unwrap_or_default()),
            None => Default::default(),
        };
        Report { objects, table, counters }
    }

    /// Follows what the state speaks about, and forgets what it no longer does.
    fn follow(&mut self, now: Instant) {
        for source in self.sources.follow(self.compiler.state(), now) {
            self.is_dirty |= self.compiler.apply(Event::Pods(source, Change::Reset(Vec::new())));
        }
    }

    fn act(&mut self, now: Instant) -> Result<(), Error> {
        if self.bond.is_none() {
            let mut kernel = (self.connect)()?;
            let is_protected = kernel.adopt()? == Claim::Owned;
            let mirror = kernel.dump()?;
            self.bond = Some(Bond { kernel, mirror, is_protected });
            self.is_dirty = true;
        }
        let is_started = self.first_commit.is_none();
        if is_started && self.check_due(now) {
            self.check()?;
        }
        let may_commit = if is_started { self.sources.wait_until(now).is_none() } else { self.sources.are_in_sync() };
        if self.is_dirty && may_commit {
            self.settle()?;
        }
        Ok(())
    }

    /// Whether it is time to compare the table with the mirror.
    fn check_due(&mut self, now: Instant) -> bool {
        if self.verify_at <= now {
            return true;
        }
        if self.poll_at > now {
            return false;
        }
        self.poll_at = now + POLL_INTERVAL;
        let Some(bond) = &mut self.bond else { return false };
        // An error here comes again in the check, or is gone by then.
        !bond.is_protected && bond.kernel.generation().is_ok_and(|now| now != bond.mirror.generation)
    }

    /// Reads the table back; what differs is to be committed again.
    fn check(&mut self) -> Result<(), Error> {
        let Some(bond) = &mut self.bond else { return Ok(()) };
        self.verify_at = Instant::now() + self.verify_interval;
        if let Some(drift) = bond.reread(self.limits)? {
            self.metrics.drift_repair();
            self.is_dirty = true;
            warn!(differs = %Objects(&drift), "the table was changed by somebody else, repairing it");
        }
        Ok(())
    }

    /// Brings the kernel to what the compiler wants.
    fn settle(&mut self) -> Result<(), Error> {
        let desired = self.compiler.table();
        let mut may_retry = true;
        let mut restarts = 0;
        let mut commits = 0;
        let Some(bond) = &mut self.bond else { return Ok(()) };
        while let Some(transaction) = diff::next(&desired, &bond.mirror, self.limits) {
            match bond.commit(transaction, self.unenforced.len(), &self.metrics) {
                Ok(()) => commits += 1,
                Err(error) if error.is_restart() && restarts < MOST_RESTARTS => {
                    restarts += 1;
                    if let Some(drift) = bond.catch_up(self.limits)? {
                        self.metrics.drift_repair();
                        warn!(differs = %Objects(&drift), "the table was changed by somebody else, repairing it");
                    }
                }
                // A lost connection is opened again, which reads the table too.
                Err(error @ Error::Socket { .. }) => return Err(error),
                Err(error) if may_retry => {
                    may_retry = false;
                    let said = "not committed, reading the table back to try again";
                    // What goes on failing has been told, and is tried again at every event.
                    if self.failure.is_none() {
                        warn!(error = %Causes(&error), "{said}");
                    } else {
                        debug!(error = %Causes(&error), "{said}");
                    }
                    bond.mirror = bond.kernel.dump()?;
                }
                Err(error) => return Err(error),
            }
        }
        bond.mirror.settled(desired);
        self.is_dirty = false;
        let unenforced = std::mem::take(&mut self.unenforced);
        if commits > 0 {
            unenforced.iter().for_each(|received| self.metrics.enforced(received.elapsed()));
        }
        if self.first_commit.take().is_some() {
            let generation = bond.mirror.generation.0;
            info!(commits, generation, protected = bond.is_protected, "in sync, the rules are in force");
        }
        Ok(())
    }

    fn succeeded(&mut self) {
        self.retry_at = None;
        self.backoff.reset();
        if self.failure.take().is_some() {
            self.metrics.set_failing(false);
            info!("the kernel holds what it should again");
        }
    }

    fn failed(&mut self, error: &Error, now: Instant) {
        if matches!(error, Error::Socket { .. } | Error::OwnedByOther { .. }) {
            self.bond = None;
        }
        let wait = self.backoff.next_wait();
        self.retry_at = Some(now + wait);
        let mut text = Causes(error).to_string();
        if error.is_unsupported() {
            text.push_str("; the kernel has no nf_tables (CONFIG_NF_TABLES, CONFIG_NF_TABLES_INET)");
        } else if error.is_owned_by_other() {
            text.push_str("; another agent runs on this node");
        } else if let Some(expression) = error.missing_expression() {
            let _ = write!(
                text,
                "; the kernel lacks the expression {expression}, which the module nft_{expression} brings"
            );
        }
        match &mut self.failure {
            Some(failure) if failure.text == text => debug!(error = text, retry_in = ?wait, "still failing"),
            failure => {
                error!(error = text, retry_in = ?wait, "the kernel does not hold what it should; the old rules stay");
                let guard = self.readiness.guard("a commit that the kernel takes");
                guard.because(text.clone());
                *failure = Some(Failure { text, _guard: guard });
                self.metrics.set_failing(true);
            }
        }
    }

    fn wake_at(&self, now: Instant) -> Instant {
        if let Some(at) = self.retry_at {
            return at.min(now + POLL_INTERVAL);
        }
        let waits = [Some(self.verify_at), Some(self.poll_at), self.sources.wait_until(now).filter(|_| self.is_dirty)];
        // Once a second at the latest, to be seen alive.
        waits.into_iter().flatten().fold(now + POLL_INTERVAL, Instant::min).max(now + Duration::from_millis(1))
    }
}

// === impl Bond ===

impl<K: Kernel> Bond<K> {
    fn commit(&mut self, transaction: Transaction, events: usize, metrics: &SyncMetrics) -> Result<(), Error> {
        // Nobody else can edit a protected table, so it does not matter that others edited theirs.
        let base: Generation = if self.is_protected { self.kernel.generation()? } else { self.mirror.generation };
        debug!(commands = %transaction, "committing");
        let begun = Instant::now();
        let ops = transaction.ops().len();
        let result = self.kernel.commit(&transaction, base);
        let duration = begun.elapsed();
        let outcome = match &result {
            Ok(_) => CommitResult::Ok,
            Err(error) if error.is_restart() => CommitResult::Restart,
            Err(_) => CommitResult::Error,
        };
        metrics.commit(outcome, ops, duration);
        let committed = result?;
        info!(ops, bytes = committed.bytes, ?duration, generation = committed.generation.0, events, "committed");
        let creates = transaction.ops().contains(&Op::AddTable);
        self.mirror.committed(transaction, committed.generation);
        if creates {
            self.is_protected = self.kernel.adopt()? == Claim::Owned;
        }
        Ok(())
    }

    /// After somebody else committed: learns the generation, and reads the table back if it may have been edited.
    fn catch_up(&mut self, limits: Limits) -> Result<Option<Transaction>, Error> {
        if self.is_protected {
            self.mirror.generation = self.kernel.generation()?;
            return Ok(None);
        }
        self.reread(limits)
    }

    /// Reads the table back and returns what would undo the edits of others, if there are any.
    fn reread(&mut self, limits: Limits) -> Result<Option<Transaction>, Error> {
        let mut found = self.kernel.dump()?;
        let believed = self.mirror.table.take();
        let nothing = Table::default();
        let drift = match &believed {
            Some(table) => diff::next(table, &found, limits),
            // Where there was no table, any that is there now was made by somebody else.
            None => found.table.as_ref().and_then(|_| diff::next(&nothing, &found, limits)),
        };
        if let (None, Some(table)) = (&drift, believed) {
            found.settled(table);
        }
        self.mirror = found;
        Ok(drift)
    }
}

/// The objects that a transaction touches, as the log shows them.
struct Objects<'a>(&'a Transaction);

impl fmt::Display for Objects<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 5;
        let ops = self.0.ops();
        let shown: Vec<String> = ops.iter().take(SHOWN).map(ToString::to_string).collect();
        f.write_str(&shown.join(", "))?;
        if ops.len() > SHOWN { write!(f, ", and {} more", ops.len() - SHOWN) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests;
