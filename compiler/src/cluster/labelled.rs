//! The addresses of pods by the labels that selectors ask for, so that a selector that comes is not tried on every pod.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::Pods;
use crate::api::{Pod, PodPeers, Str, Wanted, wanted};

/// For each label by which some selector in use is told from others: whose addresses have which value of it. There are no
/// more entries than known pods have such labels.
#[derive(Debug, Clone, Default)]
pub(super) struct Labelled {
    by_key: BTreeMap<Str, Label>,
}

/// One label.
#[derive(Debug, Clone, Default)]
struct Label {
    /// How many selectors in use are told by it; it is forgotten with the last.
    users: usize,
    by_value: BTreeMap<Str, BTreeSet<IpAddr>>,
}

// === impl Labelled ===

impl Labelled {
    /// Begins to keep the labels by which the pods of these selectors are found.
    pub(super) fn acquire(&mut self, peers: &PodPeers, pods: &Pods) {
        for key in keys(peers) {
            let is_new = !self.by_key.contains_key(key);
            self.by_key.entry(key.clone()).or_default().users += 1;
            if is_new {
                for (address, pod) in pods.addresses() {
                    self.put(key, address, pod);
                }
            }
        }
    }

    /// Ends what [`Labelled::acquire`] began.
    pub(super) fn release(&mut self, peers: &PodPeers) {
        for key in keys(peers) {
            let Some(label) = self.by_key.get_mut(key) else { continue };
            label.users -= 1;
            if label.users == 0 {
                self.by_key.remove(key);
            }
        }
    }

    /// Brings everything in line with whoever has an address now: before, it was one of these pods, or nobody.
    pub(super) fn refresh<'a>(
        &mut self,
        address: IpAddr,
        owner: Option<&Arc<Pod>>,
        before: impl Iterator<Item = &'a Arc<Pod>>,
    ) {
        for (key, value) in before.flat_map(|pod| pod.labels.iter()) {
            let Some(by_value) = self.by_key.get_mut(key).map(|label| &mut label.by_value) else { continue };
            if let Some(addresses) = by_value.get_mut(value) {
                addresses.remove(&address);
                if addresses.is_empty() {
                    by_value.remove(value);
                }
            }
        }
        for (key, value) in owner.into_iter().flat_map(|pod| pod.labels.iter()) {
            if let Some(label) = self.by_key.get_mut(key) {
                label.by_value.entry(value.clone()).or_default().insert(address);
            }
        }
    }

    /// The addresses among which are all that these selectors mean, ascending; `None` where these may be any.
    pub(super) fn candidates(&self, peers: &PodPeers, pods: &Pods) -> Option<BTreeSet<IpAddr>> {
        let mut candidates = BTreeSet::new();
        for selector in peers.selectors() {
            match wanted(selector) {
                Wanted::Value(key, values) => {
                    let by_value = &self.by_key.get(key)?.by_value;
                    candidates.extend(values.iter().filter_map(|value| by_value.get(value)).flatten());
                }
                Wanted::Namespace(name) => candidates.extend(pods.in_namespace(name).flat_map(|pod| &pod.ips)),
                Wanted::Key(key) => candidates.extend(self.by_key.get(key)?.by_value.values().flatten()),
                Wanted::Nothing => return None,
            }
        }
        Some(candidates)
    }

    fn put(&mut self, key: &Str, address: IpAddr, pod: &Pod) {
        if let (Some(label), Some(value)) = (self.by_key.get_mut(key), pod.labels.get(key)) {
            label.by_value.entry(value.clone()).or_default().insert(address);
        }
    }
}

/// The labels by which selectors are told.
fn keys(peers: &PodPeers) -> impl Iterator<Item = &Str> {
    peers.selectors().iter().filter_map(|selector| match wanted(selector) {
        Wanted::Value(key, _) | Wanted::Key(key) => Some(key),
        Wanted::Namespace(_) | Wanted::Nothing => None,
    })
}
