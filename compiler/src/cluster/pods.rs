//! The Pods, and whose an address is.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::PodSource;
use crate::api::{NodeName, Phase, Pod, PodKey};

/// The Pods, by key and by address.
#[derive(Debug, Clone)]
pub struct Pods {
    node: NodeName,
    by_key: BTreeMap<PodKey, Copies>,
    /// The policed pods that claim an address, the one that has it first. One is the rule; there are several for a
    /// moment when an address passes from a pod that ends to a new one.
    by_ip: BTreeMap<IpAddr, Vec<Arc<Pod>>>,
    /// The pods that are this node's to police.
    local: BTreeMap<PodKey, Arc<Pod>>,
}

/// What each watch says of one pod; never empty.
type Copies = BTreeMap<PodSource, Arc<Pod>>;

impl Pods {
    pub(super) fn new(node: NodeName) -> Pods {
        Pods { node, by_key: BTreeMap::new(), by_ip: BTreeMap::new(), local: BTreeMap::new() }
    }

    /// One pod.
    pub fn get(&self, key: &PodKey) -> Option<&Arc<Pod>> {
        self.by_key.get(key).and_then(believed)
    }

    /// All pods, by namespace and name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Pod>> {
        self.by_key.values().filter_map(believed)
    }

    /// The pods of one namespace, by name.
    pub fn in_namespace<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = &'a Arc<Pod>> {
        let first = PodKey { namespace: namespace.into(), name: "".into() };
        self.by_key
            .range(first..)
            .take_while(move |(key, _)| &*key.namespace == namespace)
            .filter_map(|(_, copies)| believed(copies))
    }

    /// The pods that are this node's to police, by namespace and name.
    pub fn local(&self) -> impl Iterator<Item = &Arc<Pod>> {
        self.local.values()
    }

    /// Whether a pod is this node's to police.
    pub fn is_local(&self, pod: &Pod) -> bool {
        pod.is_policed() && pod.node.as_ref() == Some(&self.node)
    }

    /// The pod that has an address: of the policed pods that claim it, the one that runs and is the newest.
    pub fn owner(&self, address: IpAddr) -> Option<&Arc<Pod>> {
        self.by_ip.get(&address).and_then(|claims| claims.first())
    }

    /// The pod of this node that has an address, whatever pods elsewhere claim: packets of this node's links are
    /// its, and what pods elsewhere are known must not decide how it is isolated.
    pub fn local_owner(&self, address: IpAddr) -> Option<&Arc<Pod>> {
        self.by_ip.get(&address).and_then(|claims| claims.iter().find(|pod| self.is_local(pod)))
    }

    /// All addresses of policed pods, each with the pod that has it, in ascending order.
    pub fn addresses(&self) -> impl Iterator<Item = (IpAddr, &Arc<Pod>)> {
        self.by_ip.iter().filter_map(|(address, claims)| claims.first().map(|pod| (*address, pod)))
    }

    /// The pods that a watch has reported.
    pub(super) fn of_source(&self, source: &PodSource) -> Vec<PodKey> {
        self.by_key.iter().filter(|(_, copies)| copies.contains_key(source)).map(|(key, _)| key.clone()).collect()
    }

    /// Takes over what a watch says of a pod, `None` being that it is gone. Gives back what was believed of the pod
    /// before, and what is now.
    pub(super) fn put(
        &mut self,
        source: PodSource,
        key: &PodKey,
        pod: Option<Pod>,
    ) -> (Option<Arc<Pod>>, Option<Arc<Pod>>) {
        let copies = self.by_key.entry(key.clone()).or_default();
        let before = believed(copies).cloned();
        match pod {
            Some(pod) if copies.get(&source).is_some_and(|known| **known == pod) => {}
            Some(pod) => {
                copies.insert(source, Arc::new(pod));
            }
            None => {
                copies.remove(&source);
            }
        }
        let after = believed(copies).cloned();
        if copies.is_empty() {
            self.by_key.remove(key);
        }
        if before != after {
            before.iter().for_each(|pod| self.unclaim(pod));
            after.iter().for_each(|pod| self.claim(pod));
            match after.as_ref().filter(|pod| self.is_local(pod)) {
                Some(pod) => self.local.insert(key.clone(), pod.clone()),
                None => self.local.remove(key),
            };
        }
        (before, after)
    }

    fn claim(&mut self, pod: &Arc<Pod>) {
        if !pod.is_policed() {
            return;
        }
        for address in &pod.ips {
            let claims = self.by_ip.entry(*address).or_default();
            let at = claims.partition_point(|other| rank(other) < rank(pod));
            claims.insert(at, pod.clone());
        }
    }

    fn unclaim(&mut self, pod: &Arc<Pod>) {
        for address in &pod.ips {
            if let Some(claims) = self.by_ip.get_mut(address) {
                claims.retain(|other| other.key != pod.key);
                if claims.is_empty() {
                    self.by_ip.remove(address);
                }
            }
        }
    }
}

fn believed(copies: &Copies) -> Option<&Arc<Pod>> {
    copies.first_key_value().map(|(_, pod)| pod)
}

/// Lower has the better claim to an address: running before not, newer before older. The rest makes the order total.
fn rank(pod: &Pod) -> (bool, Reverse<i64>, bool, &PodKey) {
    (pod.phase != Phase::Running, Reverse(pod.created), pod.terminating, &pod.key)
}
