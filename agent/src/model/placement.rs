//! What manifests leave open and a running cluster would have decided: nodes and addresses.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use compiler::api::{
    EndpointSlice, Namespace, NetworkPolicy, NodeName, Object, Peer, Peers, Pod, PodKey, Service, ServiceKind,
};
use compiler::cluster::{Change, Event, PodSource};

/// The node of pods that name none, where no pod names one.
const ONLY_NODE: &str = "node";

/// The place in a row of the first address that may be free: the one before it is a gateway's by custom.
const FIRST_FREE: u16 = 2;

/// What may be invented where objects leave addresses open.
#[derive(Debug)]
pub struct Openings<'a> {
    /// The pods that have none and get none: their status says what there is of them.
    pub without_address: &'a BTreeSet<PodKey>,
    /// Addresses by which somebody else is meant.
    pub reserved: &'a BTreeSet<IpAddr>,
    /// The pods that are not ready: Services pass them by.
    pub unready: &'a BTreeSet<PodKey>,
}

/// The objects of a cluster, with nothing left open.
pub(super) struct Placed {
    pub(super) nodes: BTreeMap<NodeName, Vec<IpAddr>>,
    pub(super) services: Vec<Service>,
    pub(super) slices: Vec<EndpointSlice>,
    pods: Vec<Pod>,
    namespaces: Vec<Namespace>,
    policies: Vec<NetworkPolicy>,
}

/// Decides what the objects leave open, the same way each time: pods without a node are on the first node by name;
/// nodes without an address get `10.213.0.n` and `fd00:10:213::n`; pods without one get `10.244.<node>.n` and
/// `fd00:10:244:<node>::n`; Services without one that need one get `10.96.0.n` and `fd00:10:96::n`. Addresses that some object has, that a policy names as
/// a block of one, or that are reserved, are passed over.
pub(super) fn place(objects: &[Object], openings: &Openings<'_>) -> Placed {
    let mut placed = Placed {
        nodes: BTreeMap::new(),
        services: Vec::new(),
        slices: Vec::new(),
        pods: Vec::new(),
        namespaces: Vec::new(),
        policies: Vec::new(),
    };
    for object in objects {
        match object {
            Object::Pod(pod) => placed.pods.push(pod.clone()),
            Object::Namespace(namespace) => placed.namespaces.push(namespace.clone()),
            Object::NetworkPolicy(policy) => placed.policies.push(policy.clone()),
            Object::Service(service) => placed.services.push(service.clone()),
            Object::EndpointSlice(slice) => placed.slices.push(slice.clone()),
            Object::Node(node) => {
                placed.nodes.insert(node.name.clone(), node.addresses.clone());
            }
        }
    }
    placed.pods.sort_by(|a, b| a.key.cmp(&b.key));
    placed.place_pods();
    let mut taken = placed.taken();
    taken.extend(openings.reserved);
    placed.address_nodes(&mut taken);
    placed.address_pods(&mut taken, openings.without_address);
    placed.address_services(&mut taken);
    placed
}

impl Placed {
    /// The objects as an agent is told of them.
    pub(super) fn events(&self) -> Vec<Event> {
        vec![
            Event::Namespaces(Change::Reset(self.namespaces.clone())),
            Event::Policies(Change::Reset(self.policies.clone())),
            Event::Pods(PodSource::Cluster, Change::Reset(self.pods.clone())),
        ]
    }

    fn place_pods(&mut self) {
        for node in self.pods.iter().filter_map(|pod| pod.node.as_ref()) {
            self.nodes.entry(node.clone()).or_default();
        }
        if self.nodes.is_empty() {
            self.nodes.insert(NodeName(ONLY_NODE.into()), Vec::new());
        }
        let first = self.nodes.keys().next().cloned();
        for pod in &mut self.pods {
            pod.node = pod.node.take().or_else(|| first.clone());
        }
    }

    /// Every address that some object names.
    fn taken(&self) -> BTreeSet<IpAddr> {
        let of_pods = self.pods.iter().flat_map(|pod| pod.ips.iter().chain(&pod.host_ips));
        let of_services = self.services.iter().flat_map(Service::addresses);
        let of_slices = self.slices.iter().flat_map(|slice| &slice.endpoints).map(|endpoint| endpoint.address);
        let of_policies = self.policies.iter().flat_map(single_addresses);
        let of_others = of_services.chain(of_slices).chain(of_policies);
        of_pods.chain(self.nodes.values().flatten()).copied().chain(of_others).collect()
    }

    /// A node has what its Node object says, what its pods say of it, and one address of each family in any case.
    fn address_nodes(&mut self, taken: &mut BTreeSet<IpAddr>) {
        for (name, addresses) in &mut self.nodes {
            for pod in self.pods.iter().filter(|pod| pod.node.as_ref() == Some(name)) {
                let own = if pod.host_network { &pod.ips[..] } else { &[] };
                for address in pod.host_ips.iter().chain(own) {
                    if !addresses.contains(address) {
                        addresses.push(*address);
                    }
                }
            }
            if !addresses.iter().any(IpAddr::is_ipv4) {
                addresses.extend(free(taken, |n| Ipv4Addr::from(0x0ad5_0000 + u32::from(n)).into()));
            }
            if !addresses.iter().any(IpAddr::is_ipv6) {
                addresses.extend(free(taken, |n| Ipv6Addr::new(0xfd00, 0x10, 0x213, 0, 0, 0, 0, n).into()));
            }
        }
    }

    fn address_pods(&mut self, taken: &mut BTreeSet<IpAddr>, without_address: &BTreeSet<PodKey>) {
        let mut rows: BTreeMap<usize, [u16; 2]> = BTreeMap::new();
        for pod in &mut self.pods {
            let node = self.nodes.iter().position(|(name, _)| pod.node.as_ref() == Some(name)).unwrap_or_default();
            if pod.host_network {
                pod.ips = self.nodes.values().nth(node).cloned().unwrap_or_default();
            } else if pod.ips.is_empty() && !pod.phase.is_finished() && !without_address.contains(&pod.key) {
                let subnet = u16::try_from(node % 256).expect("a number below 256 fits 16 bits");
                // What is taken stays so: each node's row goes on where its last pod is.
                let [v4, v6] = rows.entry(node).or_insert([FIRST_FREE; 2]);
                pod.ips.extend(free_from(v4, taken, |n| {
                    Ipv4Addr::from(0x0af4_0000 + (u32::from(subnet) << 8) + u32::from(n)).into()
                }));
                pod.ips.extend(free_from(v6, taken, |n| Ipv6Addr::new(0xfd00, 0x10, 0x244, subnet, 0, 0, 0, n).into()));
            }
        }
    }
}

impl Placed {
    /// A Service of the families that its manifest names, or else of both.
    fn address_services(&mut self, taken: &mut BTreeSet<IpAddr>) {
        let needs_one = |service: &&mut Service| {
            service.kind != ServiceKind::ExternalName && !service.headless && service.cluster_ips.is_empty()
        };
        for service in self.services.iter_mut().filter(needs_one) {
            let families = &service.families_are_v4;
            if families.is_empty() || families.contains(&true) {
                service.cluster_ips.extend(free(taken, |n| Ipv4Addr::from(0x0a60_0000 + u32::from(n)).into()));
            }
            if families.is_empty() || families.contains(&false) {
                service.cluster_ips.extend(free(taken, |n| Ipv6Addr::new(0xfd00, 0x10, 0x96, 0, 0, 0, 0, n).into()));
            }
        }
    }
}

/// The addresses that a policy names one by one, as a block of one or an exception of one.
fn single_addresses(policy: &NetworkPolicy) -> impl Iterator<Item = IpAddr> {
    let rules = [&policy.ingress, &policy.egress].into_iter().flatten().flatten();
    let peers = rules.flat_map(|rule| match &rule.peers {
        Peers::These(peers) => &peers[..],
        Peers::Any => &[],
    });
    let networks = peers.flat_map(|peer| match peer {
        Peer::IpBlock(block) => [block.cidr].into_iter().chain(block.except.iter().copied()).collect(),
        Peer::Pods(_) => Vec::new(),
    });
    networks.filter(|network| network.prefix_len() == network.max_prefix_len()).map(|network| network.addr())
}

/// The first address of a row that nobody has; `None` where all 65,000 are taken, and it has to do without.
fn free(taken: &mut BTreeSet<IpAddr>, nth: impl Fn(u16) -> IpAddr) -> Option<IpAddr> {
    let mut place = FIRST_FREE;
    free_from(&mut place, taken, nth)
}

/// The first one from this place on, which becomes that of the address.
fn free_from(place: &mut u16, taken: &mut BTreeSet<IpAddr>, nth: impl Fn(u16) -> IpAddr) -> Option<IpAddr> {
    let free = (*place..u16::MAX).find(|n| !taken.contains(&nth(*n)));
    *place = free.unwrap_or(u16::MAX);
    let address = nth(free?);
    taken.insert(address);
    Some(address)
}

#[cfg(test)]
mod tests {
    use compiler::api::{Item, parse};
    use compiler::nft::Deny;
    use serde_json::json;

    use super::*;
    use crate::model::{EndError, Model, Workloads};

    #[test]
    fn what_is_invented_is_nobody_elses() {
        let document = json!({"apiVersion": "v1", "kind": "List", "items": [
            {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "open"}},
            {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pending"}, "status": {"phase": "Pending"}},
            {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "x"}, "spec": {
                "podSelector": {}, "ingress": [{"from": [
                    {"ipBlock": {"cidr": "10.244.0.2/32"}},
                    {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.244.0.3/32"]}},
                ]}]}},
        ]});
        let (mut objects, mut without_address) = (Vec::new(), BTreeSet::new());
        for item in parse(&document.into(), "nameless") {
            let Item::Object { parsed, has_status, .. } = item else { panic!("{item:?}") };
            if let (Object::Pod(pod), true) = (&parsed.value, has_status) {
                without_address.insert(pod.key.clone());
            }
            objects.push(parsed.value);
        }
        let reserved = BTreeSet::from(["10.244.0.4".parse().unwrap(), "fd00:10:244::2".parse().unwrap()]);
        let unready = BTreeSet::new();
        let openings = Openings { without_address: &without_address, reserved: &reserved, unready: &unready };
        let model = Model::with(&objects, &openings, Workloads::default(), Deny::default());
        let expected: [IpAddr; 2] = ["10.244.0.5".parse().unwrap(), "fd00:10:244::3".parse().unwrap()];
        assert_eq!(model.addresses("default/open").unwrap(), expected);
        assert_eq!(model.addresses("default/pending"), Err(EndError::NoAddress("default/pending".into())));
    }
}
