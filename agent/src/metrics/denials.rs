//! Metrics of what is told of refused packets.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use compiler::nft::{CounterName, Refusal, TableFamily, unlogged_counter};
use netlink::Count;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::Label;
use crate::denials::Ledger;

/// Metrics of denials. Clones are the same ones.
#[derive(Debug, Clone, Default)]
pub struct DenialMetrics {
    told: Family<[(&'static str, &'static str); 2], Counter>,
    untold: Family<Label, Counter>,
}

impl DenialMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        let help = "Refused packets of which the kernel told; the counters of packets count all";
        registry.register("denials", help, self.told.clone());
        let help = "Refused packets of which was not told: because of the limit in the kernel (limit), because they came \
                    faster than they were read (lost), or because they cannot be read (unreadable); and what is told of no \
                    more because newer ones needed the room (forgotten)";
        registry.register("denials_untold", help, self.untold.clone());
    }

    /// The kernel told of a packet.
    pub fn told(&self, refusal: Refusal) {
        let label = [("direction", refusal.direction().as_str()), ("reason", refusal.reason())];
        self.told.get_or_create(&label).inc();
    }

    /// So many packets came faster than they were read.
    pub fn lost(&self, packets: u32) {
        self.because("lost").inc_by(packets.into());
    }

    /// A packet was none.
    pub fn unreadable(&self) {
        self.because("unreadable").inc();
    }

    /// Takes over what others count.
    pub(super) fn gather(&self, ledger: &Ledger, counters: &BTreeMap<CounterName, Count>) {
        let unlogged = TableFamily::ALL.iter().filter_map(|family| counters.get(&unlogged_counter(*family)));
        let counts: Vec<u64> = unlogged.map(|count| count.packets).collect();
        if !counts.is_empty() {
            self.because("limit").inner().store(counts.into_iter().sum(), Ordering::Relaxed);
        }
        self.because("forgotten").inner().store(ledger.forgotten(), Ordering::Relaxed);
    }

    fn because(&self, why: &'static str) -> Counter {
        self.untold.get_or_create_owned(&[("why", why)])
    }
}
