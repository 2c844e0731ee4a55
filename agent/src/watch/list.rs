//! A list while it is read. What was known before counts until it is complete.

use std::collections::BTreeMap;

use compiler::api::{Finding, Parsed};

use super::kind::Kind;

/// The objects that have come, and what is wrong with them.
pub(super) struct List<K: Kind> {
    pub(super) objects: Vec<K::Model>,
    pub(super) findings: BTreeMap<K::Key, Vec<Finding>>,
    /// How many could not be read.
    pub(super) holes: usize,
}

// === impl List ===

impl<K: Kind> List<K> {
    /// An object is there, or in place of what it was when the list said so before.
    pub(super) fn put(&mut self, object: Parsed<K::Model>, was_known: bool) {
        let Parsed { value, findings } = object;
        let key = K::key(&value);
        if was_known {
            self.remove(&key);
        }
        if !findings.is_empty() {
            self.findings.insert(key, findings);
        }
        self.objects.push(value);
    }

    /// An object was deleted while the list was read. That is rare, and the list needs no index for it.
    pub(super) fn remove(&mut self, key: &K::Key) {
        self.objects.retain(|object| K::key(object) != *key);
        self.findings.remove(key);
    }
}

impl<K: Kind> Default for List<K> {
    fn default() -> Self {
        List { objects: Vec::new(), findings: BTreeMap::new(), holes: 0 }
    }
}
