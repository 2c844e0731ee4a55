//! Which addresses a peer selector means, kept up to date as pods and namespaces change.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::{Namespaces, Pods};
use crate::api::{NamespaceScope, Pod, PodSelector, Protocol, Str};

/// The addresses of the pods that a selector means, ascending. Shared: a change makes a new list, so that whoever
/// compares two lists by reference knows whether there was one.
pub type Members = Arc<Vec<IpAddr>>;

/// Addresses with the numbers that a named port has there, ascending. A name may stand for several numbers.
pub type Endpoints = Arc<Vec<(IpAddr, u16)>>;

/// A named port of some pods.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortSelector {
    /// The pods whose port is meant; `None` for all pods of this node.
    pub pods: Option<PodSelector>,
    /// The name of the port.
    pub name: Str,
    /// The protocol under which the pod declares it.
    pub protocol: Protocol,
}

/// The members of every selector, and the endpoints of every named port, that some policy in use names.
///
/// An address belongs to the pod that has it ([`Pods::owner`]), so of two pods with one address only one counts.
#[derive(Debug, Clone, Default)]
pub struct Memberships {
    pods: BTreeMap<PodSelector, Entry<Members>>,
    ports: BTreeMap<PortSelector, Entry<Endpoints>>,
}

#[derive(Debug, Clone)]
struct Entry<T> {
    /// How many policies name it; it is forgotten with the last.
    users: usize,
    value: T,
}

impl Memberships {
    /// The members of a selector in use.
    pub fn members(&self, selector: &PodSelector) -> Option<&Members> {
        self.pods.get(selector).map(|entry| &entry.value)
    }

    /// The endpoints of a named port in use.
    pub fn endpoints(&self, selector: &PortSelector) -> Option<&Endpoints> {
        self.ports.get(selector).map(|entry| &entry.value)
    }

    /// All selectors in use with their members.
    pub fn all_members(&self) -> impl Iterator<Item = (&PodSelector, &Members)> {
        self.pods.iter().map(|(selector, entry)| (selector, &entry.value))
    }

    /// All named ports in use with their endpoints.
    pub fn all_endpoints(&self) -> impl Iterator<Item = (&PortSelector, &Endpoints)> {
        self.ports.iter().map(|(selector, entry)| (selector, &entry.value))
    }

    /// Starts to keep the members of a selector, for one more user.
    pub(super) fn acquire_pods(&mut self, selector: &PodSelector, pods: &Pods, namespaces: &Namespaces) {
        if let Some(entry) = self.pods.get_mut(selector) {
            entry.users += 1;
            return;
        }
        let members = pods
            .addresses()
            .filter(|(_, pod)| selects(selector, pod, namespaces))
            .map(|(address, _)| address)
            .collect();
        self.pods.insert(selector.clone(), Entry { users: 1, value: Arc::new(members) });
    }

    /// Starts to keep the endpoints of a named port, for one more user.
    pub(super) fn acquire_port(&mut self, selector: &PortSelector, pods: &Pods, namespaces: &Namespaces) {
        if let Some(entry) = self.ports.get_mut(selector) {
            entry.users += 1;
            return;
        }
        let endpoints =
            pods.addresses().flat_map(|(address, _)| endpoints_at(selector, address, pods, namespaces)).collect();
        self.ports.insert(selector.clone(), Entry { users: 1, value: Arc::new(endpoints) });
    }

    /// Ends one use of a selector.
    pub(super) fn release_pods(&mut self, selector: &PodSelector) {
        release(&mut self.pods, selector);
    }

    /// Ends one use of a named port.
    pub(super) fn release_port(&mut self, selector: &PortSelector) {
        release(&mut self.ports, selector);
    }

    /// Brings everything in line with whoever has an address now.
    pub(super) fn refresh(&mut self, address: IpAddr, pods: &Pods, namespaces: &Namespaces) {
        let owner = pods.owner(address);
        for (selector, entry) in &mut self.pods {
            let belongs = owner.is_some_and(|pod| selects(selector, pod, namespaces));
            match entry.value.binary_search(&address) {
                Ok(at) if !belongs => {
                    Arc::make_mut(&mut entry.value).remove(at);
                }
                Err(at) if belongs => Arc::make_mut(&mut entry.value).insert(at, address),
                Ok(_) | Err(_) => {}
            }
        }
        for (selector, entry) in &mut self.ports {
            let now = endpoints_at(selector, address, pods, namespaces);
            let from = entry.value.partition_point(|(other, _)| *other < address);
            let to = entry.value.partition_point(|(other, _)| *other <= address);
            if entry.value[from..to] != now[..] {
                Arc::make_mut(&mut entry.value).splice(from..to, now);
            }
        }
    }
}

fn release<K: Ord, T>(entries: &mut BTreeMap<K, Entry<T>>, key: &K) {
    if let Some(entry) = entries.get_mut(key) {
        entry.users -= 1;
        if entry.users == 0 {
            entries.remove(key);
        }
    }
}

/// Whether a selector means a pod.
fn selects(selector: &PodSelector, pod: &Pod, namespaces: &Namespaces) -> bool {
    let in_scope = match &selector.namespaces {
        NamespaceScope::Named(name) => *name == pod.key.namespace,
        NamespaceScope::Selected(labels) => {
            namespaces.labels(&pod.key.namespace).is_some_and(|of_pod| labels.matches(of_pod))
        }
    };
    in_scope && selector.pods.matches(&pod.labels)
}

/// The endpoints of a named port at one address, ascending.
fn endpoints_at(selector: &PortSelector, address: IpAddr, pods: &Pods, namespaces: &Namespaces) -> Vec<(IpAddr, u16)> {
    let pod = match &selector.pods {
        None => pods.local_owner(address),
        Some(meant) => pods.owner(address).filter(|pod| selects(meant, pod, namespaces)),
    };
    let Some(pod) = pod else { return Vec::new() };
    let mut endpoints: Vec<_> = pod
        .ports
        .iter()
        .filter(|port| port.name == selector.name && port.protocol == selector.protocol)
        .map(|port| (address, port.number))
        .collect();
    endpoints.sort_unstable();
    endpoints.dedup();
    endpoints
}
