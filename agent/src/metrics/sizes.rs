//! How much there is, set on each scrape.

use compiler::nft::Table;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::Label;
use crate::sync::Snapshot;

/// Sizes, set on each scrape.
#[derive(Debug, Default)]
pub(super) struct Sizes {
    objects: Family<Label, Gauge>,
    chains: Gauge,
    rules: Gauge,
    sets: Gauge,
    elements: Gauge,
}

impl Sizes {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register("objects", "Objects that are known", self.objects.clone());
        registry.register("table_chains", "Chains of the table", self.chains.clone());
        registry.register("table_rules", "Rules of the table", self.rules.clone());
        registry.register("table_sets", "Sets and maps of the table", self.sets.clone());
        registry.register("table_elements", "Elements of all sets and maps", self.elements.clone());
    }

    pub(super) fn set(&self, snapshot: &Snapshot) {
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
