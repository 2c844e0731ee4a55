//! What the container runtime says of the networks of this node's pods.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use crate::api::{LinkName, NodeName, Phase, Pod, PodKey, PodUid};

/// The network of a pod of this node, as its container runtime made it. It is there before the pod's first process, and
/// until the network has ended, whatever the API says of the pod meanwhile.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sandbox {
    /// The pod for which it was made.
    pub pod: PodKey,
    /// Which pod of this name; `None` where the runtime does not say.
    pub uid: Option<PodUid>,
    /// The addresses in the cluster's own network, ascending, each once.
    pub addresses: Vec<IpAddr>,
    /// The link of the node that leads there; `None` where the network plugin does not say.
    pub link: Option<LinkName>,
}

/// All sandboxes of the node, by pod. A clone costs nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sandboxes(Arc<BTreeMap<PodKey, Vec<Sandbox>>>);

impl Sandboxes {
    /// From a list in any order.
    pub(super) fn new(list: Vec<Sandbox>) -> Sandboxes {
        let mut by_pod: BTreeMap<PodKey, Vec<Sandbox>> = BTreeMap::new();
        for sandbox in list {
            by_pod.entry(sandbox.pod.clone()).or_default().push(sandbox);
        }
        for sandboxes in by_pod.values_mut() {
            sandboxes.sort_unstable();
            sandboxes.dedup();
        }
        Sandboxes(Arc::new(by_pod))
    }

    /// All of them, by pod.
    pub fn iter(&self) -> impl Iterator<Item = &Sandbox> {
        self.0.values().flatten()
    }

    /// Those of a pod: of its name, and not of another pod that had the name.
    pub(super) fn of<'a>(&'a self, pod: &'a Pod) -> impl Iterator<Item = &'a Sandbox> {
        let agrees = |sandbox: &&Sandbox| sandbox.uid.is_none_or(|uid| pod.uid.is_none_or(|of_pod| uid == of_pod));
        self.0.get(&pod.key).into_iter().flatten().filter(agrees)
    }

    /// The pods of which the two do not say the same.
    pub(super) fn differ(&self, other: &Sandboxes) -> Vec<PodKey> {
        let keys: BTreeSet<&PodKey> = self.0.keys().chain(other.0.keys()).collect();
        keys.into_iter().filter(|key| self.0.get(*key) != other.0.get(*key)).cloned().collect()
    }

    /// A pod with what its sandboxes add to what is reported of it: addresses, and, if it has finished by that, that its
    /// network still runs.
    pub(super) fn complete(&self, node: &NodeName, pod: &Arc<Pod>) -> Arc<Pod> {
        // Pods elsewhere have sandboxes elsewhere, and most pods are elsewhere.
        if pod.node.as_ref() != Some(node) || pod.host_network {
            return pod.clone();
        }
        let held: BTreeSet<IpAddr> = self.of(pod).flat_map(|sandbox| sandbox.addresses.iter().copied()).collect();
        if held.is_empty() {
            return pod.clone();
        }
        let mut complete = Pod::clone(pod);
        complete.held = u16::try_from(held.len()).unwrap_or(u16::MAX);
        complete.ips = held.iter().chain(pod.ips.iter().filter(|address| !held.contains(address))).copied().collect();
        if pod.phase.is_finished() {
            (complete.phase, complete.terminating, complete.lingering) = (Phase::Unknown, true, true);
        }
        Arc::new(complete)
    }
}
