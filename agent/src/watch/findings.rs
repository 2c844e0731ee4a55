//! What is wrong with the objects of one list: logged when it changes, counted as long as it stays.

use std::collections::BTreeMap;

use compiler::api::Finding;
use tracing::warn;

use crate::metrics::WatchMetrics;

/// The findings of the objects of one kind, by what names them.
pub(super) struct Findings<K: Ord> {
    kind: &'static str,
    by_object: BTreeMap<K, Vec<Finding>>,
    metrics: WatchMetrics,
}

// === impl Findings ===

impl<K: Ord> Findings<K> {
    /// None yet.
    pub(super) fn new(kind: &'static str, metrics: WatchMetrics) -> Self {
        Findings { kind, by_object: BTreeMap::new(), metrics }
    }

    /// What is found in an object as it is now.
    pub(super) fn put(&mut self, key: K, findings: Vec<Finding>) {
        let before = self.by_object.len();
        if findings.is_empty() {
            self.by_object.remove(&key);
        } else if self.by_object.get(&key) != Some(&findings) {
            log(&findings);
            self.by_object.insert(key, findings);
        }
        self.count_from(before);
    }

    /// The object is gone.
    pub(super) fn remove(&mut self, key: &K) {
        let before = self.by_object.len();
        self.by_object.remove(key);
        self.count_from(before);
    }

    /// What is found in all objects, those without findings left out.
    pub(super) fn reset(&mut self, all: BTreeMap<K, Vec<Finding>>) {
        let before = self.by_object.len();
        for (key, findings) in &all {
            if self.by_object.get(key) != Some(findings) {
                log(findings);
            }
        }
        self.by_object = all;
        self.count_from(before);
    }

    fn count_from(&self, before: usize) {
        let size = |size: usize| i64::try_from(size).unwrap_or(i64::MAX);
        if before != self.by_object.len() {
            self.metrics.invalid_changed(self.kind, size(self.by_object.len()) - size(before));
        }
    }
}

impl<K: Ord> Drop for Findings<K> {
    fn drop(&mut self) {
        self.reset(BTreeMap::new());
    }
}

fn log(findings: &[Finding]) {
    for finding in findings {
        warn!(object = %finding.object, field = finding.field, "{}", finding.reason);
    }
}
