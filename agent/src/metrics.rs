//! What `/metrics` shows, in the text format of Prometheus.
//!
//! One struct for each part of the agent. Counters and histograms are written where the thing happens; sizes are
//! gathered when somebody asks, from a [`Snapshot`]. Names of pods are never labels, and of policies only where these are few.

mod admin;
mod denials;
mod policies;
mod sizes;
mod sync;
mod watch;

use std::collections::BTreeMap;
use std::fs;
use std::sync::atomic::Ordering;

use compiler::api::Direction;
use compiler::nft::{
    CounterName, denied_counter, refused_destination_counter, refused_gate_counter, refused_link_local_counter,
    refused_port_source_counter, refused_source_counter, refused_tag_counter,
};
use netlink::Count;
use prometheus_client::encoding::text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

pub use admin::AdminMetrics;
pub use denials::DenialMetrics;
pub use sync::{CommitResult, SyncMetrics};
pub use watch::WatchMetrics;

use policies::PolicyMetrics;
use sizes::Sizes;

use crate::denials::Ledger;
use crate::sync::Snapshot;
use crate::telemetry;

/// Of how many policies is told by name, if nothing else is said.
pub const MOST_POLICIES: usize = 200;

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
    policies: PolicyMetrics,
    denied: Family<Label, Counter>,
    refused: [(CounterName, Counter); 5],
    log_lines_dropped: Counter,
    resident: Gauge,
}

// === impl Metrics ===

impl Metrics {
    /// All of them at zero.
    #[allow(clippy::new_without_default, reason = "registers with a registry of its own, which is more than a default")]
    pub fn new() -> Metrics {
        Metrics::with_policies(MOST_POLICIES)
    }

    /// The same, which tell of each policy if there are not more than so many.
    pub fn with_policies(most: usize) -> Metrics {
        let mut registry = Registry::default();
        let (watch, sync, sizes) = (WatchMetrics::default(), SyncMetrics::new(), Sizes::default());
        let (denied, resident) = (Family::<Label, Counter>::default(), Gauge::default());
        registry.register_with_unit("process_resident_memory", "Resident memory", Unit::Bytes, resident.clone());
        let postern = registry.sub_registry_with_prefix("postern");
        postern.register("build", "The version that runs", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
        watch.register(postern);
        sync.register(postern);
        sizes.register(postern);
        let policies = PolicyMetrics::new(most);
        policies.register(postern);
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
        Metrics {
            registry,
            watch,
            sync,
            admin,
            denials,
            ledger,
            sizes,
            policies,
            denied,
            refused,
            log_lines_dropped,
            resident,
        }
    }

    /// The text for a scrape: sizes as a snapshot has them, and the values of the table's counters. Those that could not
    /// be read are as they were in the last scrape.
    pub fn encode(&self, snapshot: &Snapshot, counters: &BTreeMap<CounterName, Count>) -> String {
        self.sizes.set(snapshot);
        self.policies.set(snapshot);
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

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
            "postern_policies_untold 0",
            "postern_drift_repairs_total 0",
            "postern_log_lines_dropped_total 0",
        ] {
            assert!(text.lines().any(|have| have == line), "{line} is not in\n{text}");
        }
        assert!(text.contains("postern_build_info{version="), "{text}");
        assert!(!text.contains("postern_policy_pods"), "nothing is enforced: {text}");
        let resident = text.lines().find_map(|line| line.strip_prefix("process_resident_memory_bytes "));
        assert!(resident.unwrap().parse::<u64>().unwrap() > 1_000_000, "{text}");
    }
}
