//! Which addresses a rule's pods have, and which endpoints its named ports, kept up to date as pods and namespaces
//! change.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;

use imbl::OrdMap;

use super::labelled::Labelled;
use super::{Namespaces, PodScope, Pods, PortSelector};
use crate::api::{Pod, PodPeers, Protocol, SelectorIndex, Str};

/// The addresses of the pods that are meant, ascending. Shared: a change makes a new list.
pub type Members = Arc<Vec<IpAddr>>;

/// An address with a protocol and a number that a named port has there.
pub type Endpoint = (IpAddr, Protocol, u16);

/// The endpoints that named ports mean, ascending. A name may stand for several numbers.
pub type Endpoints = Arc<Vec<Endpoint>>;

/// The members of all pod peers in use. A copy shares all that has not changed since, so that what differs between two is
/// found by a look at just that.
pub type MembersByPeers = OrdMap<Arc<PodPeers>, Members>;

/// The endpoints of all named ports in use, shared in the same way.
pub type EndpointsByPort = OrdMap<Arc<PortSelector>, Endpoints>;

/// How many policies of each namespace use something; never empty.
type Users = BTreeMap<Str, usize>;

/// The members of all pod peers, and the endpoints of all named ports, that some policy in use names.
///
/// An address belongs to the pod that has it ([`Pods::owner`]), so of two pods with one address only one counts.
#[derive(Debug, Clone, Default)]
pub struct Memberships {
    members: MembersByPeers,
    endpoints: EndpointsByPort,
    /// Whose policies name them; they are forgotten with the last.
    users_of_members: BTreeMap<Arc<PodPeers>, Users>,
    users_of_endpoints: BTreeMap<Arc<PortSelector>, Users>,
    /// The pod peers by what a pod must have to be one of them, and the named ports by their names.
    by_selector: SelectorIndex<Arc<PodPeers>>,
    by_name: BTreeMap<(Protocol, Str), BTreeSet<Arc<PortSelector>>>,
    /// The addresses by what the pod peers ask for.
    labelled: Labelled,
    /// Grows when pod peers or named ports come or go, and not when they mean something else.
    version: u64,
    /// How many members and endpoints are kept for each namespace, those that its policies share once.
    elements: BTreeMap<Str, usize>,
    /// The namespaces for which more are kept than when it was last asked.
    grown: BTreeSet<Str>,
}

impl Memberships {
    /// The members of all pod peers in use.
    pub fn members(&self) -> &MembersByPeers {
        &self.members
    }

    /// The endpoints of all named ports in use.
    pub fn endpoints(&self) -> &EndpointsByPort {
        &self.endpoints
    }

    /// Grows when pod peers or named ports come into use or go out of it.
    pub(super) fn version(&self) -> u64 {
        self.version
    }

    /// How many members and endpoints are kept for the policies of a namespace.
    pub(super) fn elements(&self, namespace: &str) -> usize {
        self.elements.get(namespace).copied().unwrap_or_default()
    }

    /// The namespaces for which more has been kept since the last call.
    pub(super) fn take_grown(&mut self) -> BTreeSet<Str> {
        std::mem::take(&mut self.grown)
    }

    /// Starts to keep the members of pod peers, for one more policy of a namespace.
    pub(super) fn acquire_members(&mut self, peers: &Arc<PodPeers>, user: &Str, pods: &Pods, namespaces: &Namespaces) {
        if let Some(users) = self.users_of_members.get_mut(peers) {
            if add_user(users, user) {
                count(&mut self.elements, &mut self.grown, user, 0, self.members[peers].len());
            }
            return;
        }
        self.labelled.acquire(peers, pods);
        let members: Vec<IpAddr> = match self.labelled.candidates(peers, pods) {
            Some(candidates) => {
                let is_meant =
                    |address: &IpAddr| pods.owner(*address).is_some_and(|pod| selects(peers, pod, namespaces));
                candidates.into_iter().filter(is_meant).collect()
            }
            None => {
                let meant = pods.addresses().filter(|(_, pod)| selects(peers, pod, namespaces));
                meant.map(|(address, _)| address).collect()
            }
        };
        count(&mut self.elements, &mut self.grown, user, 0, members.len());
        self.users_of_members.insert(peers.clone(), Users::from([(user.clone(), 1)]));
        peers.selectors().iter().for_each(|selector| self.by_selector.insert(selector, peers));
        self.members.insert(peers.clone(), Arc::new(members));
        self.version += 1;
    }

    /// Starts to keep the endpoints of named ports, for one more policy of a namespace.
    pub(super) fn acquire_endpoints(
        &mut self,
        port: &Arc<PortSelector>,
        user: &Str,
        pods: &Pods,
        namespaces: &Namespaces,
    ) {
        if let Some(users) = self.users_of_endpoints.get_mut(port) {
            if add_user(users, user) {
                count(&mut self.elements, &mut self.grown, user, 0, self.endpoints[port].len());
            }
            return;
        }
        let addresses = match &port.pods {
            // Also of pods that linger, whose own ports their policies name.
            PodScope::Local => Some(pods.local().flat_map(|pod| pod.ips.iter().copied()).collect()),
            // The peers of named ports are peers of the same rules, for which what is asked for here is kept.
            PodScope::Peers(peers) => self.labelled.candidates(peers, pods),
            PodScope::All => None,
        };
        let at = |address| endpoints_at(port, address, pods, namespaces);
        let endpoints: Vec<Endpoint> = match addresses {
            Some(addresses) => addresses.into_iter().flat_map(at).collect(),
            None => pods.claimed().flat_map(at).collect(),
        };
        count(&mut self.elements, &mut self.grown, user, 0, endpoints.len());
        self.users_of_endpoints.insert(port.clone(), Users::from([(user.clone(), 1)]));
        for name in port.names.iter() {
            self.by_name.entry(name.clone()).or_default().insert(port.clone());
        }
        self.endpoints.insert(port.clone(), Arc::new(endpoints));
        self.version += 1;
    }

    /// Ends one use of pod peers.
    pub(super) fn release_members(&mut self, peers: &Arc<PodPeers>, user: &Str) {
        let size = self.members.get(peers).map_or(0, |members| members.len());
        if remove_user(&mut self.users_of_members, peers, user) {
            count(&mut self.elements, &mut self.grown, user, size, 0);
        }
        if !self.users_of_members.contains_key(peers) && self.members.remove(peers).is_some() {
            self.version += 1;
            peers.selectors().iter().for_each(|selector| self.by_selector.remove(selector, peers));
            self.labelled.release(peers);
        }
    }

    /// Ends one use of named ports.
    pub(super) fn release_endpoints(&mut self, port: &Arc<PortSelector>, user: &Str) {
        let size = self.endpoints.get(port).map_or(0, |endpoints| endpoints.len());
        if remove_user(&mut self.users_of_endpoints, port, user) {
            count(&mut self.elements, &mut self.grown, user, size, 0);
        }
        if !self.users_of_endpoints.contains_key(port) && self.endpoints.remove(port).is_some() {
            self.version += 1;
            for name in port.names.iter() {
                if let Some(ports) = self.by_name.get_mut(name) {
                    ports.remove(port);
                    if ports.is_empty() {
                        self.by_name.remove(name);
                    }
                }
            }
        }
    }

    /// Brings everything in line with whoever has an address now. That may have been another pod of those that claim it, or
    /// one of these `others`; nothing else can be different than what a pod of theirs may be meant by.
    pub(super) fn refresh<'a>(
        &mut self,
        address: IpAddr,
        others: impl Iterator<Item = &'a Arc<Pod>>,
        pods: &'a Pods,
        namespaces: &Namespaces,
    ) {
        let owner = pods.owner(address);
        let others: Vec<&Arc<Pod>> = others.chain(pods.claimants(address)).collect();
        self.labelled.refresh(address, owner, others.iter().copied());
        let (mut may_mean, mut may_name) = (BTreeSet::new(), BTreeSet::new());
        for pod in others {
            may_mean.extend(self.by_selector.candidates(pod).cloned());
            let names = pod.ports.iter().filter_map(|port| self.by_name.get(&(port.protocol, port.name.clone())));
            may_name.extend(names.flatten().cloned());
        }
        let mut changed = Vec::new();
        for peers in may_mean {
            let belongs = owner.is_some_and(|pod| selects(&peers, pod, namespaces));
            if self.members[&peers].binary_search(&address).is_ok() != belongs {
                changed.push(peers);
            }
        }
        for peers in changed {
            let members = self.members.get_mut(&peers).expect("the peers were just found");
            let members = Arc::make_mut(members);
            let before = members.len();
            match members.binary_search(&address) {
                Ok(at) => drop(members.remove(at)),
                Err(at) => members.insert(at, address),
            }
            for user in self.users_of_members[&peers].keys() {
                count(&mut self.elements, &mut self.grown, user, before, members.len());
            }
        }
        let mut changed = Vec::new();
        for port in may_name {
            let endpoints = &self.endpoints[&port];
            let now = endpoints_at(&port, address, pods, namespaces);
            if endpoints[at_address(endpoints, address)] != now[..] {
                changed.push((port, now));
            }
        }
        for (port, now) in changed {
            let endpoints = self.endpoints.get_mut(&port).expect("the port was just found");
            let place = at_address(endpoints, address);
            let endpoints = Arc::make_mut(endpoints);
            let before = endpoints.len();
            endpoints.splice(place, now);
            for user in self.users_of_endpoints[&port].keys() {
                count(&mut self.elements, &mut self.grown, user, before, endpoints.len());
            }
        }
    }
}

/// Whether peers mean a pod.
fn selects(peers: &PodPeers, pod: &Pod, namespaces: &Namespaces) -> bool {
    peers.select(pod, namespaces.labels(&pod.key.namespace))
}

/// Takes over that one thing that is kept for a namespace has another size.
fn count(elements: &mut BTreeMap<Str, usize>, grown: &mut BTreeSet<Str>, user: &Str, before: usize, now: usize) {
    let total = elements.entry(user.clone()).or_default();
    *total = *total + now - before;
    if *total == 0 {
        elements.remove(user);
    }
    if now > before {
        grown.insert(user.clone());
    }
}

/// Adds one use, and says whether it is the namespace's first.
fn add_user(users: &mut Users, user: &Str) -> bool {
    let uses = users.entry(user.clone()).or_default();
    *uses += 1;
    *uses == 1
}

/// Ends one use, and says whether it was the namespace's last.
fn remove_user<K: Ord>(all: &mut BTreeMap<Arc<K>, Users>, key: &Arc<K>, user: &Str) -> bool {
    let Some(users) = all.get_mut(key) else { return false };
    let Some(uses) = users.get_mut(user) else { return false };
    *uses -= 1;
    if *uses > 0 {
        return false;
    }
    users.remove(user);
    if users.is_empty() {
        all.remove(key);
    }
    true
}

/// Where the endpoints of one address stand.
fn at_address(endpoints: &[Endpoint], address: IpAddr) -> Range<usize> {
    let from = endpoints.partition_point(|(other, ..)| *other < address);
    let to = endpoints.partition_point(|(other, ..)| *other <= address);
    from..to
}

/// The endpoints of named ports at one address, ascending.
fn endpoints_at(selector: &PortSelector, address: IpAddr, pods: &Pods, namespaces: &Namespaces) -> Vec<Endpoint> {
    let pod = match &selector.pods {
        PodScope::Local => return own_endpoints_at(selector, address, pods),
        PodScope::All => pods.owner(address).filter(|pod| namespaces.labels(&pod.key.namespace).is_some()),
        PodScope::Peers(peers) => pods.owner(address).filter(|pod| selects(peers, pod, namespaces)),
    };
    pod.map(|pod| endpoints_of(selector, address, pod)).unwrap_or_default()
}

/// The endpoints at an address of a pod that a policy selects. Where several pods have it, a name means a number that all
/// of them call so: else one could open a port of another by its name.
fn own_endpoints_at(selector: &PortSelector, address: IpAddr, pods: &Pods) -> Vec<Endpoint> {
    let mut owners = pods.local_owners(address).map(|pod| endpoints_of(selector, address, pod));
    let Some(mut endpoints) = owners.next() else { return Vec::new() };
    for others in owners {
        endpoints.retain(|endpoint| others.binary_search(endpoint).is_ok());
    }
    endpoints
}

fn endpoints_of(selector: &PortSelector, address: IpAddr, pod: &Pod) -> Vec<Endpoint> {
    let named = pod.ports.iter().filter(|port| selector.has(port.protocol, &port.name));
    let mut endpoints: Vec<_> = named.map(|port| (address, port.protocol, port.number)).collect();
    endpoints.sort_unstable();
    endpoints.dedup();
    endpoints
}
