//! The lab: throw-away clusters of network namespaces, and probes that send real packets through them.
//!
//! A lab has a namespace for every node and every pod, one for the fabric (the router between the nodes) and one for a
//! host outside of the cluster. It knows nothing of policies: what a node's nftables hold is the business of whoever
//! enters the node's [`Netns`].
//!
//! ```text
//!   pod --eth0--+                                             +--eth0-- pod
//!   pod --eth0--+- node --eth0--- fabric ---eth0-- node ------+--eth0-- pod
//!                                   |
//!                                 eth0 -- outside (any number of addresses)
//! ```
//!
//! Nothing is left behind. Namespaces, and with them links, addresses and rules, are held by file descriptors only, and
//! nothing is mounted: the kernel frees all of it when the process ends, however it ends.
//!
//! The order of use: [`enter`] while the process has one thread (tests: [`isolated`]), [`Lab::build`], then [`probe`] for
//! a matrix of probes and [`Flow`] for a connection that is watched over time. Building needs CAP_NET_ADMIN and
//! CAP_SYS_ADMIN, which [`enter`] gives to anybody inside namespaces of his own.

mod build;
mod enter;
mod flow;
mod isolated;
mod links;
mod netns;
mod probe;
mod topology;

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::IpNet;

use links::{ETH0, Hop, Links, host_prefix};
use topology::{Addresses, Owner};

pub use enter::{EnterError, enter};
pub use flow::Flow;
pub use isolated::isolated;
pub use netns::Netns;
pub use probe::{Endpoint, Outcome, Probe, ProbeOptions, Protocol, Responder, probe};
pub use topology::{Attachment, Node, Pod, Topology};

/// The router's address on every routed pod's link and on every uplink: links are told apart by their interface.
const ROUTER_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
/// The other end's address on those links.
const HOST_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2);
/// A node, as its routed pods see it. Apart from the fabric's, for a node cannot have a route through an address of its own.
const NODE_GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
/// The fabric, as nodes and the outside host see it.
const FABRIC_V4: Ipv4Addr = Ipv4Addr::new(169, 254, 2, 1);
/// A node or the outside host, as the fabric sees it.
const UPLINK_V4: Ipv4Addr = Ipv4Addr::new(169, 254, 2, 2);

/// A cluster of network namespaces. Dropping it ends it.
pub struct Lab {
    attachment: Attachment,
    addresses: Addresses,
    nodes: Vec<RunningNode>,
    pods: BTreeMap<String, RunningPod>,
    fabric: Fabric,
    outside: Namespace,
}

/// Why a lab cannot be built or changed.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// A namespace could not be made or entered, or a sysctl of it not be set.
    #[error("cannot set up a network namespace")]
    Namespace(#[source] io::Error),
    /// The kernel refused a link, an address or a route.
    #[error("cannot {what}")]
    Network {
        /// What was asked of the kernel, as the rest of a sentence.
        what: String,
        /// Its answer.
        #[source]
        source: rtnetlink::Error,
    },
    /// A link did not come up within two seconds.
    #[error("link {0} does not come up")]
    LinkDown(u32),
    /// Two pods have one name.
    #[error("pod {0} exists already")]
    PodExists(String),
    /// There is no pod of this name.
    #[error("there is no pod {0}")]
    NoSuchPod(String),
    /// A pod is on a node that does not exist.
    #[error("pod {pod} is on node number {node}, which does not exist")]
    NoSuchNode {
        /// The pod's name.
        pod: String,
        /// The index that it gives.
        node: usize,
    },
    /// Two owners want one address.
    #[error("address {0} is taken")]
    AddressTaken(IpAddr),
    /// Bridged pods look for their whole subnet on their own bridge, so nobody else can have an address of it.
    #[error("address {address} is in {subnet}, which is on the bridge of node number {node}")]
    ForeignSubnet {
        /// The address that is somewhere else.
        address: IpAddr,
        /// The bridge's subnet.
        subnet: IpNet,
        /// The bridge's node.
        node: usize,
    },
    /// No address is left for the bridge.
    #[error("no address of {0} is free for the bridge")]
    SubnetFull(IpNet),
}

/// A namespace with its rtnetlink socket.
struct Namespace {
    netns: Netns,
    links: Links,
    has_ipv6: bool,
}

struct Fabric {
    namespace: Namespace,
    /// The port that leads to the outside host. Node n's port is `FIRST_PORT + n`.
    outside_port: u32,
}

struct RunningNode {
    namespace: Namespace,
    addresses: Vec<IpAddr>,
    fabric_port: u32,
    next_port: u32,
}

struct RunningPod {
    netns: Netns,
    node: usize,
    port: u32,
    addresses: Vec<IpAddr>,
}

// === impl Lab ===

impl Lab {
    /// The namespace of the node with this index in [`Topology::nodes`]: where its agent opens its netlink socket.
    #[must_use]
    pub fn node(&self, index: usize) -> Option<&Netns> {
        self.nodes.get(index).map(|node| &node.namespace.netns)
    }

    /// The namespace of a pod.
    #[must_use]
    pub fn pod(&self, id: &str) -> Option<&Netns> {
        self.pods.get(id).map(|pod| &pod.netns)
    }

    /// The namespace of the host outside of the cluster.
    #[must_use]
    pub fn outside(&self) -> &Netns {
        &self.outside.netns
    }

    /// The end that has this address: a pod, a node (also by its bridge's address) or the outside host.
    #[must_use]
    pub fn endpoint(&self, address: IpAddr) -> Option<Endpoint> {
        let netns = match self.addresses.owner(address)? {
            Owner::Node(index) => &self.nodes[*index].namespace.netns,
            Owner::Pod(id) => &self.pods.get(id)?.netns,
            Owner::Outside => &self.outside.netns,
        };
        Some(Endpoint { netns: netns.clone(), address })
    }

    /// Whether the kernel can show the packets between two ports of one bridge to nftables' forward hook (`br_netfilter`).
    ///
    /// # Errors
    /// The node's namespace cannot be entered.
    pub fn has_bridge_netfilter(&self) -> Result<bool, LabError> {
        match self.nodes.first() {
            Some(node) => node.namespace.netns.has_sysctl(build::BRIDGE_NETFILTER[0].0).map_err(LabError::Namespace),
            None => Ok(false),
        }
    }

    /// Adds a pod at run time. It can be reached when this returns.
    ///
    /// # Errors
    /// Its name or an address is taken, its node does not exist, or the kernel refuses. A refused pod leaves no address
    /// claimed.
    pub async fn add_pod(&mut self, pod: Pod) -> Result<(), LabError> {
        topology::check_node(&pod, self.nodes.len())?;
        if self.pods.contains_key(&pod.id) {
            return Err(LabError::PodExists(pod.id));
        }
        let before = self.addresses.clone();
        let added = match self.claim_pod(&pod) {
            Ok(()) => self.attach(pod).await,
            Err(error) => Err(error),
        };
        if added.is_err() {
            self.addresses = before;
        }
        added
    }

    /// Removes a pod with its namespace. Its addresses are free again, and unreachable.
    ///
    /// # Errors
    /// There is no such pod, or the kernel refuses.
    pub async fn remove_pod(&mut self, id: &str) -> Result<(), LabError> {
        let pod = self.pods.remove(id).ok_or_else(|| LabError::NoSuchPod(id.to_owned()))?;
        let node = &self.nodes[pod.node];
        for &address in &pod.addresses {
            self.fabric.namespace.links.remove_host_route(address, node.hop_from_fabric(address)).await?;
            self.addresses.release(address);
        }
        node.namespace.links.remove(pod.port).await
    }

    /// Gives the outside host one more address.
    ///
    /// # Errors
    /// The address is taken, or the kernel refuses.
    pub async fn add_outside(&mut self, address: IpAddr) -> Result<(), LabError> {
        self.addresses.claim(address, Owner::Outside)?;
        self.outside.links.add_address(ETH0, address, host_prefix(address)).await?;
        let hop = uplink_hop(self.fabric.outside_port, address);
        self.fabric.namespace.links.add_host_route(address, hop).await
    }
}

// === impl RunningNode ===

impl RunningNode {
    /// The node's source address towards others of the same family.
    fn source_for(&self, address: IpAddr) -> Option<IpAddr> {
        first_of_family(&self.addresses, address)
    }

    /// The fabric's hop towards this node.
    fn hop_from_fabric(&self, address: IpAddr) -> Hop {
        uplink_hop(self.fabric_port, address)
    }
}

/// The first of `addresses` that is of the family of `like`.
fn first_of_family(addresses: &[IpAddr], like: IpAddr) -> Option<IpAddr> {
    addresses.iter().copied().find(|own| own.is_ipv4() == like.is_ipv4())
}

/// The fabric's hop to whoever is at the other end of one of its links.
fn uplink_hop(port: u32, address: IpAddr) -> Hop {
    let gateway = if address.is_ipv4() { UPLINK_V4.into() } else { HOST_V6.into() };
    Hop { link: port, gateway: Some(gateway), source: None }
}
