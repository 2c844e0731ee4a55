//! Which addresses a peer selector means, kept up to date as pods and namespaces change.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;

use super::{Namespaces, Pods};
use crate::api::{Direction, NamespaceScope, Pod, PodSelector, Protocol, Str};

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

impl PortSelector {
    /// Where a named port of a rule is looked up. Towards a local pod it is the pod's own. From a local pod it is the
    /// destination's: one of the pods of the peer, or, where the peer is an address block or anybody (`None`), of all.
    pub fn of_rule(direction: Direction, peer: Option<&PodSelector>, protocol: Protocol, name: &Str) -> PortSelector {
        let pods = match direction {
            Direction::Ingress => None,
            Direction::Egress => Some(peer.cloned().unwrap_or_else(PodSelector::everything)),
        };
        PortSelector { pods, name: name.clone(), protocol }
    }
}

/// The members of every selector in use. Shared like its values: whoever compares two by reference knows whether
/// anything in them changed.
pub type MembersBySelector = Arc<BTreeMap<Arc<PodSelector>, Members>>;

/// The endpoints of every named port in use, shared in the same way.
pub type EndpointsByPort = Arc<BTreeMap<Arc<PortSelector>, Endpoints>>;

/// The members of every selector, and the endpoints of every named port, that some policy in use names.
///
/// An address belongs to the pod that has it ([`Pods::owner`]), so of two pods with one address only one counts.
#[derive(Debug, Clone, Default)]
pub struct Memberships {
    members: MembersBySelector,
    endpoints: EndpointsByPort,
    /// How many policies name a selector; it is forgotten with the last.
    selector_users: BTreeMap<Arc<PodSelector>, usize>,
    /// The same for a named port.
    port_users: BTreeMap<Arc<PortSelector>, usize>,
}

impl Memberships {
    /// The members of every selector in use.
    pub fn members(&self) -> &MembersBySelector {
        &self.members
    }

    /// The endpoints of every named port in use.
    pub fn endpoints(&self) -> &EndpointsByPort {
        &self.endpoints
    }

    /// Starts to keep the members of a selector, for one more user.
    pub(super) fn acquire_pods(&mut self, selector: &PodSelector, pods: &Pods, namespaces: &Namespaces) {
        if let Some(users) = self.selector_users.get_mut(selector) {
            *users += 1;
            return;
        }
        let meant = pods.addresses().filter(|(_, pod)| selects(selector, pod, namespaces));
        let members = Arc::new(meant.map(|(address, _)| address).collect());
        let selector = Arc::new(selector.clone());
        self.selector_users.insert(selector.clone(), 1);
        Arc::make_mut(&mut self.members).insert(selector, members);
    }

    /// Starts to keep the endpoints of a named port, for one more user.
    pub(super) fn acquire_port(&mut self, port: &PortSelector, pods: &Pods, namespaces: &Namespaces) {
        if let Some(users) = self.port_users.get_mut(port) {
            *users += 1;
            return;
        }
        let addresses = pods.addresses();
        let endpoints = addresses.flat_map(|(address, _)| endpoints_at(port, address, pods, namespaces)).collect();
        let port = Arc::new(port.clone());
        self.port_users.insert(port.clone(), 1);
        Arc::make_mut(&mut self.endpoints).insert(port, Arc::new(endpoints));
    }

    /// Ends one use of a selector.
    pub(super) fn release_pods(&mut self, selector: &PodSelector) {
        if release(&mut self.selector_users, selector) {
            Arc::make_mut(&mut self.members).remove(selector);
        }
    }

    /// Ends one use of a named port.
    pub(super) fn release_port(&mut self, port: &PortSelector) {
        if release(&mut self.port_users, port) {
            Arc::make_mut(&mut self.endpoints).remove(port);
        }
    }

    /// Brings everything in line with whoever has an address now.
    pub(super) fn refresh(&mut self, address: IpAddr, pods: &Pods, namespaces: &Namespaces) {
        let owner = pods.owner(address);
        let mut changed = Vec::new();
        for (selector, members) in self.members.iter() {
            let belongs = owner.is_some_and(|pod| selects(selector, pod, namespaces));
            if members.binary_search(&address).is_ok() != belongs {
                changed.push(selector.clone());
            }
        }
        for selector in changed {
            let members = Arc::make_mut(&mut self.members).get_mut(&selector).expect("the selector was just found");
            let members = Arc::make_mut(members);
            match members.binary_search(&address) {
                Ok(at) => drop(members.remove(at)),
                Err(at) => members.insert(at, address),
            }
        }
        let mut changed = Vec::new();
        for (port, endpoints) in self.endpoints.iter() {
            let now = endpoints_at(port, address, pods, namespaces);
            if endpoints[at_address(endpoints, address)] != now[..] {
                changed.push((port.clone(), now));
            }
        }
        for (port, now) in changed {
            let endpoints = Arc::make_mut(&mut self.endpoints).get_mut(&port).expect("the port was just found");
            let place = at_address(endpoints, address);
            Arc::make_mut(endpoints).splice(place, now);
        }
    }
}

/// Where the endpoints of one address stand.
fn at_address(endpoints: &[(IpAddr, u16)], address: IpAddr) -> Range<usize> {
    let from = endpoints.partition_point(|(other, _)| *other < address);
    let to = endpoints.partition_point(|(other, _)| *other <= address);
    from..to
}

/// Ends one use, and says whether it was the last.
fn release<K: Ord>(users: &mut BTreeMap<Arc<K>, usize>, key: &K) -> bool {
    let Some(count) = users.get_mut(key) else { return false };
    *count -= 1;
    let last = *count == 0;
    if last {
        users.remove(key);
    }
    last
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
