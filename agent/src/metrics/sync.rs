//! Metrics of the sync thread.

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use super::Label;

/// Metrics of the sync thread.
#[derive(Debug, Clone)]
pub struct SyncMetrics {
    events: Family<Label, Counter>,
    commits: Family<Label, Counter>,
    ops: Counter,
    commit_duration: Histogram,
    event_to_commit: Histogram,
    programming: Histogram,
    drift_repairs: Counter,
    failing: Gauge,
    quarantined: Gauge,
    rejudged: Gauge,
    cut_flows: Gauge,
    bridge_unfiltered: Gauge,
}

/// How a commit ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommitResult {
    /// The kernel acknowledged it.
    Ok,
    /// Somebody else committed in between; it is computed anew.
    Restart,
    /// The kernel refused it, or its answer was lost.
    Error,
}

// === impl SyncMetrics ===

impl SyncMetrics {
    pub(super) fn new() -> SyncMetrics {
        // 50 us to 26 s.
        let buckets = || Histogram::new(exponential_buckets(0.000_05, 2.0, 20));
        SyncMetrics {
            events: Family::default(),
            commits: Family::default(),
            ops: Counter::default(),
            commit_duration: buckets(),
            event_to_commit: buckets(),
            // 0.25 s to 17 minutes: the times from which it is counted are whole seconds.
            programming: Histogram::new(exponential_buckets(0.25, 2.0, 13)),
            drift_repairs: Counter::default(),
            failing: Gauge::default(),
            quarantined: Gauge::default(),
            rejudged: Gauge::default(),
            cut_flows: Gauge::default(),
            bridge_unfiltered: Gauge::default(),
        }
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register("events", "Events from the watches; a list is one", self.events.clone());
        registry.register("commits", "Transactions sent to the kernel", self.commits.clone());
        registry.register("transaction_ops", "Operations that were committed", self.ops.clone());
        registry.register_with_unit(
            "commit_duration",
            "From the transaction to the kernel's answer",
            Unit::Seconds,
            self.commit_duration.clone(),
        );
        registry.register_with_unit(
            "event_to_commit",
            "From an event to the kernel's answer that it is enforced",
            Unit::Seconds,
            self.event_to_commit.clone(),
        );
        registry.register_with_unit(
            "programming_duration",
            "From the change of an object to the kernel's answer that it is enforced. The change is the newest time in \
             metadata.managedFields, or creationTimestamp: whole seconds, so up to 1 s too long, and by the API \
             server's clock, which is compared with the node's. Lists and deletions have no such time and do not count",
            Unit::Seconds,
            self.programming.clone(),
        );
        registry.register("drift_repairs", "Times the table was not as committed", self.drift_repairs.clone());
        registry.register("commit_failing", "1 while the kernel does not take what it should", self.failing.clone());
        let help = "Policies that cost too much or that the kernel refuses: they isolate and allow nothing";
        registry.register("quarantined_policies", help, self.quarantined.clone());
        let help = "Addresses of pods whose open flows are judged again, because policies changed";
        registry.register("rejudged_addresses", help, self.rejudged.clone());
        let help = "Open flows that are refused because policies do not allow them any more";
        registry.register("cut_flows", help, self.cut_flows.clone());
        registry.register(
            "bridge_unfiltered",
            "1 while packets between pods of one bridge do not meet the rules",
            self.bridge_unfiltered.clone(),
        );
    }

    /// An event came.
    pub fn event(&self, kind: &'static str) {
        self.events.get_or_create(&[("kind", kind)]).inc();
    }

    /// A commit of so many operations ended.
    pub fn commit(&self, result: CommitResult, ops: usize, duration: Duration) {
        self.commits.get_or_create(&[("result", result.as_str())]).inc();
        self.commit_duration.observe(duration.as_secs_f64());
        if result == CommitResult::Ok {
            self.ops.inc_by(ops as u64);
        }
    }

    /// An event is enforced, so long after it came.
    pub fn enforced(&self, after: Duration) {
        self.event_to_commit.observe(after.as_secs_f64());
    }

    /// A change of an object is enforced, so long after it was made.
    pub fn programmed(&self, after: Duration) {
        self.programming.observe(after.as_secs_f64());
    }

    /// The table was not as committed.
    pub fn drift_repair(&self) {
        self.drift_repairs.inc();
    }

    /// Whether the kernel takes what it should.
    pub fn set_failing(&self, failing: bool) {
        self.failing.set(failing.into());
    }

    /// Whether the kernel does not take what it should.
    pub fn is_failing(&self) -> bool {
        self.failing.get() != 0
    }

    /// How many policies are not enforced as they are written.
    pub fn set_quarantined(&self, policies: usize) {
        self.quarantined.set(i64::try_from(policies).unwrap_or(i64::MAX));
    }

    /// How many addresses are rejudged, and how many flows are cut.
    pub fn set_open_flows(&self, rejudged: usize, cut: usize) {
        self.rejudged.set(i64::try_from(rejudged).unwrap_or(i64::MAX));
        self.cut_flows.set(i64::try_from(cut).unwrap_or(i64::MAX));
    }

    /// Whether packets pass bridges unseen.
    pub fn set_bridge_unfiltered(&self, unfiltered: bool) {
        self.bridge_unfiltered.set(unfiltered.into());
    }
}

// === impl CommitResult ===

impl CommitResult {
    fn as_str(self) -> &'static str {
        match self {
            CommitResult::Ok => "ok",
            CommitResult::Restart => "restart",
            CommitResult::Error => "error",
        }
    }
}
