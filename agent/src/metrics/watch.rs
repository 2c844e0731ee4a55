//! Metrics of the watches.

use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use super::Label;
use crate::watch::Freshness;

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

// === impl WatchMetrics ===

impl WatchMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
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

    pub(super) fn set_ages(&self) {
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
