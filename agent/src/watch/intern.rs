//! One copy of what many pods have in common.

use std::collections::HashSet;
use std::sync::Arc;

use compiler::api::{Labels, NodeName, Pod, Str};

/// Past so many strings that nobody else holds the interner looks for them.
const FIRST_SWEEP: usize = 1024;

/// Shares equal strings and equal labels. A pod's name is its own; its namespace, node and labels are those of many.
#[derive(Debug)]
pub(super) struct Interner {
    strings: HashSet<Str>,
    labels: HashSet<Labels>,
    sweep_at: usize,
}

// === impl Interner ===

impl Default for Interner {
    fn default() -> Self {
        Interner { strings: HashSet::new(), labels: HashSet::new(), sweep_at: FIRST_SWEEP }
    }
}

impl Interner {
    /// Replaces what an earlier pod had too by that pod's.
    pub(super) fn share(&mut self, pod: &mut Pod) {
        pod.key.namespace = self.string(&pod.key.namespace);
        if let Some(NodeName(node)) = &mut pod.node {
            *node = self.string(node);
        }
        for port in &mut pod.ports {
            port.name = self.string(&port.name);
        }
        pod.labels = self.labels(&pod.labels);
        pod.ips.shrink_to_fit();
        pod.host_ips.shrink_to_fit();
        pod.ports.shrink_to_fit();
        if self.strings.len() + self.labels.len() > self.sweep_at {
            self.sweep();
        }
    }

    fn string(&mut self, string: &Str) -> Str {
        match self.strings.get(string) {
            Some(shared) => shared.clone(),
            None => {
                self.strings.insert(string.clone());
                string.clone()
            }
        }
    }

    fn labels(&mut self, labels: &Labels) -> Labels {
        if let Some(shared) = self.labels.get(labels) {
            return shared.clone();
        }
        let labels: Labels = labels.iter().map(|(key, value)| (self.string(key), self.string(value))).collect();
        self.labels.insert(labels.clone());
        labels
    }

    /// Lets go of what no pod holds any more.
    fn sweep(&mut self) {
        // Who holds a set of labels cannot be asked; a set that is forgotten too early is only shared by fewer.
        self.labels.clear();
        self.strings.retain(|string| Arc::strong_count(string) > 1);
        self.sweep_at = FIRST_SWEEP.max(2 * self.strings.len());
    }
}

#[cfg(test)]
mod tests {
    use compiler::api::PodWire;

    use super::*;

    fn pod(name: &str, app: &str) -> Pod {
        let object = serde_json::json!({"metadata": {"name": name, "namespace": "shop", "labels": {"app": app}},
            "spec": {"nodeName": "node-1"}});
        serde_json::from_value::<PodWire>(object).unwrap().parse().value
    }

    #[test]
    fn equal_parts_are_one() {
        let mut interner = Interner::default();
        let (mut a, mut b) = (pod("a", "web"), pod("b", "web"));
        let before = b.clone();
        interner.share(&mut a);
        interner.share(&mut b);
        assert_eq!(b, before);
        assert!(Arc::ptr_eq(&a.key.namespace, &b.key.namespace));
        assert!(Arc::ptr_eq(a.labels.get("app").unwrap(), b.labels.get("app").unwrap()));
    }

    #[test]
    fn what_nobody_holds_is_let_go() {
        let mut interner = Interner::default();
        let mut kept = pod("kept", "kept");
        interner.share(&mut kept);
        for i in 0..10 * FIRST_SWEEP {
            interner.share(&mut pod("short-lived", &format!("app-{i}")));
        }
        assert!(interner.strings.len() <= FIRST_SWEEP + 4, "{} strings are held", interner.strings.len());
        let mut again = pod("again", "kept");
        interner.share(&mut again);
        assert!(Arc::ptr_eq(kept.labels.get("app").unwrap(), again.labels.get("app").unwrap()));
    }
}
