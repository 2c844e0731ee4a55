//! What `/metrics` shows, in the text format of Prometheus.
//!
//! One struct for each part of the agent. Counters and histograms are written where the thing happens; sizes are
//! gathered when somebody asks, from a [`Snapshot`]. Names of pods or policies are never labels.

mod denials;

use std::collections::BTreeMap;
use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use compiler::api::Direction;
use compiler::nft::{
    CounterName, Table, denied_counter, refused_destination_counter, refused_gate_counter, refused_link_local_counter,
    refused_port_source_counter, refused_source_counter, refused_tag_counter,
};
use netlink::Count;
use prometheus_client::encoding::text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

pub use denials::DenialMetrics;

use crate::denials::Ledger;
use crate::sync::Snapshot;
use crate::telemetry;
use crate::watch::Freshness;

/// A label with a value of a closed list.
type Label = [(&'static str, &'static str); 1];

/// All metrics of an agent.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Of the watches.
    pub watch: WatchMetrics,
    /// Of the sync thread.
    pub sync: SyncMetrics,
    /// Of the admin server.
    pub admin: AdminMetrics,
    /// Of what is told of refused packets.
    pub denials: DenialMetrics,
    /// What was told of them.
    pub ledger: Ledger,
    sizes: Sizes,
    denied: Family<Label, Counter>,
    refused: [(CounterName, Counter); 5],
    log_lines_dropped: Counter,
    resident: Gauge,
}

/// Metrics of the watches.
#[derive(Debug, Clone, Default)]
pub struct WatchMetrics {
    restarts: Family<Label, Counter>,
    errors: Family<Label, Counter>,
    invalid: Family<Label, Gauge>,
    silence: Family<Label, Gauge<f64, AtomicU64>>,
    /// When the API server last had a word for each watch.
    pub(crate) freshness: Freshness,
}

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

/// Metrics of the admin server.
#[derive(Debug, Clone, Default)]
pub struct AdminMetrics {
    closed: Counter,
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

/// Sizes, set on each scrape.
#[derive(Debug, Default)]
struct Sizes {
    objects: Family<Label, Gauge>,
    chains: Gauge,
    rules: Gauge,
    sets: Gauge,
    elements: Gauge,
}

// === impl Metrics ===

impl Metrics {
    /// All of them at zero.
    #[allow(clippy::new_without_default, reason = "registers with a registry of its own, which is more than a default")]
    pub fn new() -> Metrics {
        let mut registry = Registry::default();
        let (watch, sync, sizes) = (WatchMetrics::default(), SyncMetrics::new(), Sizes::default());
        let (denied, resident) = (Family::<Label, Counter>::default(), Gauge::default());
        registry.register_with_unit("process_resident_memory", "Resident memory", Unit::Bytes, resident.clone());
        let postern = registry.sub_registry_with_prefix("postern");
        postern.register("build", "The version that runs", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
        watch.register(postern);
        sync.register(postern);
        sizes.register(postern);
        postern.register("denied_packets", "Packets that isolation refused", denied.clone());
        let refused = [
            (
                "refused_source_packets",
                "Packets refused because their source is not that of the pod that sent them",
                refused_source_counter(),
            ),
            (
                "refused_destination_packets",
                "Packets on a bridge to the port of an isolated pod, refused because they are for no pod's address",
                refused_destination_counter(),
            ),
            (
                "refused_link_local_packets",
                "Packets on a bridge refused because they came from a link-local address by the port of a pod that is isolated for egress",
                refused_link_local_counter(),
            ),
            (
                "refused_gate_packets",
                "Packets refused because no pod is known to have their address of the node's pod ranges",
                refused_gate_counter(),
            ),
            ("refused_tag_packets", "Frames on a bridge refused because they have a VLAN tag", refused_tag_counter()),
        ]
        .map(|(name, help, of_table)| {
            let counter = Counter::default();
            postern.register(name, help, counter.clone());
            (of_table, counter)
        });
        let (admin, log_lines_dropped) = (AdminMetrics::default(), Counter::default());
        admin.register(postern);
        let (denials, ledger) = (DenialMetrics::default(), Ledger::default());
        denials.register(postern);
        postern.register("log_lines_dropped", "Lines of the log that nobody took", log_lines_dropped.clone());
        Metrics { registry, watch, sync, admin, denials, ledger, sizes, denied, refused, log_lines_dropped, resident }
    }

    /// The text for a scrape: sizes as a snapshot has them, and the values of the table's counters. Those that could not
    /// be read are as they were in the last scrape.
    pub fn encode(&self, snapshot: &Snapshot, counters: &BTreeMap<CounterName, Count>) -> String {
        self.sizes.set(snapshot);
        for direction in [Direction::Ingress, Direction::Egress] {
            if let Some(count) = counters.get(&denied_counter(direction)) {
                let label = [("direction", direction.as_str())];
                self.denied.get_or_create(&label).inner().store(count.packets, Ordering::Relaxed);
            }
        }
        for (of_table, counter) in &self.refused {
            // On a bridge sources are checked by its ports.
            let of_bridge = (*of_table == refused_source_counter()).then(refused_port_source_counter);
            let counts: Vec<u64> = of_bridge
                .iter()
                .chain([of_table])
                .filter_map(|name| counters.get(name))
                .map(|count| count.packets)
                .collect();
            if !counts.is_empty() {
                counter.inner().store(counts.into_iter().sum(), Ordering::Relaxed);
            }
        }
        self.denials.gather(&self.ledger, counters);
        self.watch.set_ages();
        self.log_lines_dropped.inner().store(telemetry::dropped_lines(), Ordering::Relaxed);
        self.resident.set(resident_bytes().unwrap_or(0));
        let mut text = String::new();
        text::encode(&mut text, &self.registry).expect("a String takes all text");
        text
    }
}

/// The resident memory of this process: `VmRSS` of `/proc/self/status`, in kB.
fn resident_bytes() -> Option<i64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let value = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(value.trim().strip_suffix(" kB")?.parse::<i64>().ok()? * 1024)
}

// === impl WatchMetrics ===

impl WatchMetrics {
    fn register(&self, registry: &mut Registry) {
        registry.register("watch_restarts", "Lists read anew after the first", self.restarts.clone());
        registry.register("watch_errors", "Errors of lists and watches", self.errors.clone());
        let help = "Since the API server last had a word for the watch that has waited longest";
        registry.register_with_unit("watch_silence", help, Unit::Seconds, self.silence.clone());
        registry.register("invalid_objects", "Objects that cannot be understood as a whole", self.invalid.clone());
    }

    /// What `/readyz` has to say of the watches.
    pub fn freshness(&self) -> &Freshness {
        &self.freshness
    }

    fn set_ages(&self) {
        for (kind, age) in self.freshness.ages() {
            self.silence.get_or_create(&[("kind", kind)]).set(age.as_secs_f64());
        }
    }

    /// A list is read anew.
    pub fn restarted(&self, kind: &'static str) {
        self.restarts.get_or_create(&[("kind", kind)]).inc();
    }

    /// A list or watch failed.
    pub fn failed(&self, kind: &'static str) {
        self.errors.get_or_create(&[("kind", kind)]).inc();
    }

    /// So many more objects of a kind, or fewer, have findings.
    pub fn invalid_changed(&self, kind: &'static str, by: i64) {
        self.invalid.get_or_create(&[("kind", kind)]).inc_by(by);
    }
}

// === impl SyncMetrics ===

impl SyncMetrics {
    fn new() -> SyncMetrics {
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

    fn register(&self, registry: &mut Registry) {
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

// === impl AdminMetrics ===

impl AdminMetrics {
    fn register(&self, registry: &mut Registry) {
        registry.register("admin_connections_closed", "Connections closed because of too many", self.closed.clone());
    }

    /// There were too many connections, and one was closed.
    pub fn connection_closed(&self) {
        self.closed.inc();
    }

    /// How many connections were closed because there were too many.
    pub fn closed_connections(&self) -> u64 {
        self.closed.get()
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

// === impl Sizes ===

impl Sizes {
    fn register(&self, registry: &mut Registry) {
        registry.register("objects", "Objects that are known", self.objects.clone());
        registry.register("table_chains", "Chains of the table", self.chains.clone());
        registry.register("table_rules", "Rules of the table", self.rules.clone());
        registry.register("table_sets", "Sets and maps of the table", self.sets.clone());
        registry.register("table_elements", "Elements of all sets and maps", self.elements.clone());
    }

    fn set(&self, snapshot: &Snapshot) {
        let size = |size: usize| i64::try_from(size).unwrap_or(i64::MAX);
        for (kind, count) in &snapshot.objects {
            self.objects.get_or_create(&[("kind", *kind)]).set(size(*count));
        }
        let nothing = Table::default();
        let table = snapshot.table().map_or(&nothing, |table| table);
        let keys: usize = table.sets.values().map(|set| set.keys.len()).sum();
        let elements: usize = table.maps.values().map(|map| map.elements.len()).sum();
        self.chains.set(size(table.chains.len()));
        self.rules.set(size(table.chains.values().map(|chain| chain.rules.len()).sum()));
        self.sets.set(size(table.sets.len() + table.maps.len()));
        self.elements.set(size(keys + elements));
    }
}

#[cfg(test)]
mod tests {
    use compiler::api::NodeName;
    use compiler::cluster::State;

    use super::*;

    #[test]
    fn a_scrape_shows_sizes_and_counts() {
        let metrics = Metrics::new();
        metrics.sync.event("Pod");
        metrics.sync.commit(CommitResult::Ok, 7, Duration::from_millis(1));
        metrics.watch.invalid_changed("NetworkPolicy", 2);
        metrics.watch.invalid_changed("NetworkPolicy", -1);
        let denied = denied_counter(Direction::Ingress);
        let counters = BTreeMap::from([
            (denied, Count { packets: 5, bytes: 300 }),
            (refused_source_counter(), Count { packets: 2, bytes: 120 }),
            (refused_port_source_counter(), Count { packets: 1, bytes: 60 }),
            (refused_tag_counter(), Count { packets: 2, bytes: 120 }),
            (refused_gate_counter(), Count { packets: 4, bytes: 240 }),
        ]);
        let pods = State::new(NodeName("node-1".into())).pods().clone();
        let snapshot = Snapshot {
            epoch: 1,
            objects: vec![("Pod", 3)],
            pods,
            policies: Default::default(),
            namespaces: Default::default(),
            links: Default::default(),
            enforced: None,
        };
        let text = metrics.encode(&snapshot, &counters);
        for line in [
            "postern_events_total{kind=\"Pod\"} 1",
            "postern_commits_total{result=\"ok\"} 1",
            "postern_transaction_ops_total 7",
            "postern_commit_duration_seconds_count 1",
            "postern_objects{kind=\"Pod\"} 3",
            "postern_invalid_objects{kind=\"NetworkPolicy\"} 1",
            "postern_denied_packets_total{direction=\"ingress\"} 5",
            "postern_refused_source_packets_total 3",
            "postern_refused_tag_packets_total 2",
            "postern_refused_destination_packets_total 0",
            "postern_refused_gate_packets_total 4",
            "postern_table_chains 0",
            "postern_drift_repairs_total 0",
            "postern_log_lines_dropped_total 0",
        ] {
            assert!(text.lines().any(|have| have == line), "{line} is not in\n{text}");
        }
        assert!(text.contains("postern_build_info{version="), "{text}");
        let resident = text.lines().find_map(|line| line.strip_prefix("process_resident_memory_bytes "));
        assert!(resident.unwrap().parse::<u64>().unwrap() > 1_000_000, "{text}");
    }
}
