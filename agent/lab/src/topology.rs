//! What a lab is to look like: plain values, and the checks that need no kernel.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;

use super::LabError;

/// How the pods of a node are joined to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attachment {
    /// Every pod has a link of its own to the node and host routes lead to it (Calico, kind's ptp).
    Routed,
    /// The pods of a node are ports of its bridge `cni0` and share a subnet, /24 and /64 (flannel, k3s).
    Bridged,
}

/// A cluster to build.
#[derive(Clone, Debug)]
pub struct Topology {
    /// How pods are joined to their nodes; one way for the whole cluster.
    pub attachment: Attachment,
    /// The nodes; pods name them by their index here.
    pub nodes: Vec<Node>,
    /// The pods that exist from the beginning.
    pub pods: Vec<Pod>,
    /// Addresses of the one host outside of the cluster.
    pub outside: Vec<IpAddr>,
}

/// A node: a router with links to its pods and one uplink.
#[derive(Clone, Debug)]
pub struct Node {
    /// Used in error texts only.
    pub name: String,
    /// Its addresses, at most one of each family being its source towards its pods: the first.
    pub addresses: Vec<IpAddr>,
}

/// A pod: a namespace with one link, `eth0`.
#[derive(Clone, Debug)]
pub struct Pod {
    /// The caller's name for it, unique in the lab.
    pub id: String,
    /// Index of its node in [`Topology::nodes`].
    pub node: usize,
    /// Its addresses, of one family or both.
    pub addresses: Vec<IpAddr>,
}

/// Who has an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    Node(usize),
    Pod(String),
    Outside,
}

/// Every address of a lab with its owner, and the subnets of the bridges.
///
/// Kept apart from the links so that a description is refused before anything is built.
#[derive(Clone, Debug, Default)]
pub(super) struct Addresses {
    owners: BTreeMap<IpAddr, Owner>,
    /// Subnet of a bridge -> its node.
    subnets: BTreeMap<IpNet, usize>,
}

// === impl Addresses ===

impl Addresses {
    pub(super) fn owner(&self, address: IpAddr) -> Option<&Owner> {
        self.owners.get(&address)
    }

    pub(super) fn claim(&mut self, address: IpAddr, owner: Owner) -> Result<(), LabError> {
        // On a bridge the neighbours are expected on the same link; routed pods may have any address.
        let subnet = self.subnets.iter().find(|(subnet, _)| subnet.contains(&address));
        if let Some((&subnet, &of)) = subnet
            && !matches!(owner, Owner::Pod(_))
        {
            return Err(LabError::ForeignSubnet { address, subnet, node: of });
        }
        if self.owners.contains_key(&address) {
            return Err(LabError::AddressTaken(address));
        }
        self.owners.insert(address, owner);
        Ok(())
    }

    pub(super) fn release(&mut self, address: IpAddr) {
        self.owners.remove(&address);
    }

    /// Gives `node` the bridge subnet that holds the pod address `address`.
    ///
    /// Returns the bridge's new address and its prefix length, or `None` when the bridge is in this subnet already.
    pub(super) fn claim_subnet(&mut self, node: usize, address: IpAddr) -> Result<Option<(IpAddr, u8)>, LabError> {
        let subnet = bridge_subnet(address);
        match self.subnets.get(&subnet) {
            Some(&of) if of == node => return Ok(None),
            Some(&of) => return Err(LabError::ForeignSubnet { address, subnet, node: of }),
            None => {}
        }
        if let Some((&address, _)) =
            self.owners.iter().find(|(other, owner)| subnet.contains(*other) && !matches!(owner, Owner::Pod(_)))
        {
            return Err(LabError::ForeignSubnet { address, subnet, node });
        }
        let gateway = hosts(subnet).find(|host| !self.owners.contains_key(host)).ok_or(LabError::SubnetFull(subnet))?;
        self.owners.insert(gateway, Owner::Node(node));
        self.subnets.insert(subnet, node);
        Ok(Some((gateway, subnet.prefix_len())))
    }

    /// The bridge address through which the pods of this subnet leave it.
    pub(super) fn gateway(&self, address: IpAddr) -> Option<IpAddr> {
        let subnet = bridge_subnet(address);
        hosts(subnet).find(|host| matches!(self.owners.get(host), Some(Owner::Node(_))))
    }
}

/// The subnet of a bridged pod: /24 or /64, the sizes that flannel hands to a node.
pub(super) fn bridge_subnet(address: IpAddr) -> IpNet {
    let length = if address.is_ipv4() { 24 } else { 64 };
    IpNet::new(address, length).expect("24 and 64 are prefix lengths of their families").trunc()
}

/// The first host addresses of a subnet. 254 are enough for both families: an IPv6 subnet is never full.
fn hosts(subnet: IpNet) -> impl Iterator<Item = IpAddr> {
    // `IpNet::hosts` of an IPv6 net begins with the subnet-router anycast address, which nobody may own.
    let skipped = usize::from(subnet.addr().is_ipv6());
    subnet.hosts().skip(skipped).take(254)
}

/// Checks what concerns the pods' names and nodes.
pub(super) fn check(topology: &Topology) -> Result<(), LabError> {
    let mut ids = BTreeSet::new();
    for pod in &topology.pods {
        if !ids.insert(&pod.id) {
            return Err(LabError::PodExists(pod.id.clone()));
        }
        check_node(pod, topology.nodes.len())?;
    }
    Ok(())
}

/// Checks that the pod's node exists.
pub(super) fn check_node(pod: &Pod, nodes: usize) -> Result<(), LabError> {
    if pod.node < nodes { Ok(()) } else { Err(LabError::NoSuchNode { pod: pod.id.clone(), node: pod.node }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_bridge_takes_the_first_address_that_no_pod_has() {
        let mut addresses = Addresses::default();
        addresses.claim(ip("10.244.1.1"), Owner::Pod("a/web".into())).unwrap();
        assert_eq!(addresses.claim_subnet(0, ip("10.244.1.1")).unwrap(), Some((ip("10.244.1.2"), 24)));
        assert_eq!(addresses.claim_subnet(0, ip("10.244.1.9")).unwrap(), None, "one bridge address a subnet");
        assert_eq!(addresses.gateway(ip("10.244.1.77")), Some(ip("10.244.1.2")));

        assert_eq!(addresses.claim_subnet(0, ip("fd00:1::9")).unwrap(), Some((ip("fd00:1::1"), 64)));
    }

    #[test]
    fn a_bridge_subnet_belongs_to_one_node_and_to_nobody_outside() {
        let mut addresses = Addresses::default();
        addresses.claim_subnet(0, ip("10.244.1.5")).unwrap();
        let two_nodes = addresses.claim_subnet(1, ip("10.244.1.6"));
        assert!(matches!(two_nodes, Err(LabError::ForeignSubnet { node: 0, .. })), "{two_nodes:?}");
        let inside = addresses.claim(ip("10.244.1.200"), Owner::Outside);
        assert!(matches!(inside, Err(LabError::ForeignSubnet { node: 0, .. })), "{inside:?}");

        addresses.claim(ip("192.168.0.9"), Owner::Outside).unwrap();
        let around = addresses.claim_subnet(1, ip("192.168.0.3"));
        assert!(matches!(around, Err(LabError::ForeignSubnet { node: 1, .. })), "{around:?}");
    }

    #[test]
    fn an_address_has_one_owner_until_it_is_released() {
        let mut addresses = Addresses::default();
        addresses.claim(ip("10.0.0.1"), Owner::Node(0)).unwrap();
        let again = addresses.claim(ip("10.0.0.1"), Owner::Pod("a/web".into()));
        assert!(matches!(again, Err(LabError::AddressTaken(_))), "{again:?}");
        addresses.release(ip("10.0.0.1"));
        addresses.claim(ip("10.0.0.1"), Owner::Pod("a/web".into())).unwrap();
        assert_eq!(addresses.owner(ip("10.0.0.1")), Some(&Owner::Pod("a/web".into())));
    }

    #[test]
    fn a_pod_needs_a_name_of_its_own_and_a_node() {
        let pod = |id: &str, node| Pod { id: id.into(), node, addresses: vec![] };
        let node = Node { name: "one".into(), addresses: vec![] };
        let topology =
            |pods| Topology { attachment: Attachment::Routed, nodes: vec![node.clone()], pods, outside: vec![] };
        assert!(check(&topology(vec![pod("a", 0), pod("b", 0)])).is_ok());
        assert!(matches!(check(&topology(vec![pod("a", 0), pod("a", 0)])), Err(LabError::PodExists(_))));
        assert!(matches!(check(&topology(vec![pod("a", 1)])), Err(LabError::NoSuchNode { node: 1, .. })));
    }
}
