//! Building a lab: namespaces, their sysctls, and how they are joined.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr},
};

use super::{
    Attachment, FABRIC_V4, Fabric, HOST_V6, Lab, LabError, NODE_GATEWAY_V4, Namespace, Netns, Node, Pod, ROUTER_V6,
    RunningNode, RunningPod, Topology, UPLINK_V4, first_of_family,
    links::{BRIDGE, ETH0, FIRST_PORT, Hop, LOOPBACK, Links, host_prefix},
    topology::{self, Addresses, Owner},
};

type Sysctl = (&'static str, &'static str);

/// Every namespace. Written before the first link is made, for links copy the `default` settings.
const EVERYWHERE: [Sysctl; 5] = [
    // The paths of a lab are symmetric, but a router's link-local source addresses are not where the filter expects them.
    ("net/ipv4/conf/all/rp_filter", "0"),
    ("net/ipv4/conf/default/rp_filter", "0"),
    // ICMP errors are answers of a probe: none may be held back. An empty mask frees all types from the limits.
    ("net/ipv4/icmp_ratemask", "0"),
    // Echo requests are sent from unprivileged sockets, whose answers the kernel sorts by their identifier.
    ("net/ipv4/ping_group_range", "0 0"),
    ("net/ipv4/ip_unprivileged_port_start", "0"),
];

/// Every namespace of a kernel with IPv6.
const EVERYWHERE_V6: [Sysctl; 8] = [
    ("net/ipv6/icmp/ratelimit", "0"),
    ("net/ipv6/conf/all/disable_ipv6", "0"),
    ("net/ipv6/conf/default/disable_ipv6", "0"),
    ("net/ipv6/conf/all/accept_dad", "0"),
    ("net/ipv6/conf/default/accept_dad", "0"),
    ("net/ipv6/conf/all/accept_ra", "0"),
    ("net/ipv6/conf/default/accept_ra", "0"),
    // The lab sets the link-local addresses itself.
    ("net/ipv6/conf/default/addr_gen_mode", "1"),
];

/// Nodes and the fabric. Before [`EVERYWHERE`]: changing `ip_forward` resets other settings.
const ROUTERS: [Sysctl; 3] = [
    ("net/ipv4/ip_forward", "1"),
    ("net/ipv4/conf/all/send_redirects", "0"),
    ("net/ipv4/conf/default/send_redirects", "0"),
];

const ROUTERS_V6: [Sysctl; 1] = [("net/ipv6/conf/all/forwarding", "1")];

/// Shows packets between ports of one bridge to the forward hook; on nodes with a bridge.
pub(super) const BRIDGE_NETFILTER: [Sysctl; 2] =
    [("net/bridge/bridge-nf-call-iptables", "1"), ("net/bridge/bridge-nf-call-ip6tables", "1")];

/// What a namespace is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Router,
    Host,
}

// === impl Lab ===

impl Lab {
    /// Builds a cluster. Everything in it can be reached when this returns.
    ///
    /// Must be called within a tokio runtime, which drives the netlink sockets while the lab lives.
    ///
    /// # Errors
    /// The description contradicts itself, or the kernel refuses.
    pub async fn build(topology: Topology) -> Result<Self, LabError> {
        topology::check(&topology)?;
        let Topology { attachment, nodes, pods, outside } = topology;

        let namespace = Namespace::new(Role::Router).await?;
        namespace.links.add_address(LOOPBACK, FABRIC_V4.into(), 32).await?;
        let outside_host = Namespace::new(Role::Host).await?;
        let outside_port = fabric_port(nodes.len());
        let mut lab = Self {
            attachment,
            addresses: Addresses::default(),
            nodes: Vec::with_capacity(nodes.len()),
            pods: BTreeMap::new(),
            fabric: Fabric { namespace, outside_port },
            outside: outside_host,
        };
        lab.fabric.connect(outside_port, "outside", &lab.outside, &[]).await?;
        for node in nodes {
            lab.add_node(node).await?;
        }
        // All pods' addresses are claimed before a bridge takes one of the rest.
        for pod in &pods {
            lab.claim_pod(pod)?;
        }
        for address in outside {
            lab.add_outside(address).await?;
        }
        for pod in pods {
            lab.attach(pod).await?;
        }
        Ok(lab)
    }

    async fn add_node(&mut self, node: Node) -> Result<(), LabError> {
        let index = self.nodes.len();
        for &address in &node.addresses {
            self.addresses.claim(address, Owner::Node(index))?;
        }
        let namespace = Namespace::new(Role::Router).await?;
        namespace.links.add_address(LOOPBACK, NODE_GATEWAY_V4.into(), 32).await?;
        let fabric_port = fabric_port(index);
        self.fabric.connect(fabric_port, &format!("node{index}"), &namespace, &node.addresses).await?;
        if self.attachment == Attachment::Bridged {
            namespace.links.add_bridge(BRIDGE, "cni0").await?;
            namespace.add_link_local(BRIDGE, ROUTER_V6).await?;
            let is_offered = namespace.netns.has_sysctl(BRIDGE_NETFILTER[0].0).map_err(LabError::Namespace)?;
            if is_offered {
                namespace.netns.set_sysctls(&BRIDGE_NETFILTER).map_err(LabError::Namespace)?;
            }
        }
        let running = RunningNode { namespace, addresses: node.addresses, fabric_port, next_port: FIRST_PORT };
        for &address in &running.addresses {
            self.fabric.namespace.links.add_host_route(address, running.hop_from_fabric(address)).await?;
        }
        self.nodes.push(running);
        Ok(())
    }

    /// Claims a pod's addresses.
    pub(super) fn claim_pod(&mut self, pod: &Pod) -> Result<(), LabError> {
        pod.addresses.iter().try_for_each(|&address| self.addresses.claim(address, Owner::Pod(pod.id.clone())))
    }

    /// Joins a pod, whose addresses are claimed, to its node and makes it known to the fabric.
    pub(super) async fn attach(&mut self, pod: Pod) -> Result<(), LabError> {
        let Pod { id, node: index, addresses } = pod;
        let host = Namespace::new(Role::Host).await?;
        let node = &mut self.nodes[index];
        let port = node.next_port;
        node.next_port += 1;

        let links = &node.namespace.links;
        links.add_veth(port, &format!("veth{port}"), &host).await?;
        host.add_link_local(ETH0, HOST_V6).await?;
        match self.attachment {
            Attachment::Routed => {
                node.namespace.add_link_local(port, ROUTER_V6).await?;
                for &address in &addresses {
                    host.links.add_address(ETH0, address, host_prefix(address)).await?;
                    let hop = Hop { link: port, gateway: None, source: node.source_for(address) };
                    links.add_host_route(address, hop).await?;
                }
            }
            Attachment::Bridged => {
                if let Some(&first) = addresses.first() {
                    links.add_port(BRIDGE, port, &host.links, first).await?;
                }
                for &address in &addresses {
                    let prefix = topology::bridge_subnet(address).prefix_len();
                    if let Some((gateway, prefix)) = self.addresses.claim_subnet(index, address)? {
                        links.add_address(BRIDGE, gateway, prefix).await?;
                    }
                    host.links.add_address(ETH0, address, prefix).await?;
                }
            }
        }
        for family in families(&addresses) {
            let gateway = match self.attachment {
                Attachment::Bridged => self.addresses.gateway(family),
                Attachment::Routed if family.is_ipv4() => Some(NODE_GATEWAY_V4.into()),
                Attachment::Routed => Some(ROUTER_V6.into()),
            };
            let gateway = gateway.expect("a bridged pod's subnet was claimed above, with a gateway");
            host.links.add_default_route(gateway, Some(family)).await?;
        }
        for &address in &addresses {
            self.fabric.namespace.links.add_host_route(address, node.hop_from_fabric(address)).await?;
        }
        links.wait_until_up(port).await?;
        host.links.wait_until_up(ETH0).await?;
        self.pods.insert(id, RunningPod { netns: host.netns, node: index, port, addresses });
        Ok(())
    }
}

// === impl Namespace ===

impl Namespace {
    async fn new(role: Role) -> Result<Self, LabError> {
        let netns = Netns::new().map_err(LabError::Namespace)?;
        let mut settings = Vec::new();
        let has_ipv6 = netns.has_sysctl(EVERYWHERE_V6[0].0).map_err(LabError::Namespace)?;
        if role == Role::Router {
            settings.extend(ROUTERS);
        }
        settings.extend(EVERYWHERE);
        if has_ipv6 {
            settings.extend(EVERYWHERE_V6);
            if role == Role::Router {
                settings.extend(ROUTERS_V6);
            }
        }
        netns.set_sysctls(&settings).map_err(LabError::Namespace)?;
        let links = Links::open(&netns).await?;
        Ok(Self { netns, links, has_ipv6 })
    }

    /// Gives a link its link-local address, on a kernel with IPv6.
    async fn add_link_local(&self, link: u32, address: Ipv6Addr) -> Result<(), LabError> {
        if self.has_ipv6 { self.links.add_address(link, address.into(), 64).await } else { Ok(()) }
    }
}

// === impl Fabric ===

impl Fabric {
    /// Joins a namespace to the fabric: its `eth0` gets the addresses, and both default routes.
    async fn connect(&self, port: u32, name: &str, host: &Namespace, addresses: &[IpAddr]) -> Result<(), LabError> {
        let links = &self.namespace.links;
        links.add_veth(port, name, host).await?;
        self.namespace.add_link_local(port, ROUTER_V6).await?;
        // The node's own addresses come first: the kernel takes the first as the source where no route names one.
        for &address in addresses {
            host.links.add_address(ETH0, address, host_prefix(address)).await?;
        }
        host.links.add_address(ETH0, UPLINK_V4.into(), 32).await?;
        host.add_link_local(ETH0, HOST_V6).await?;
        for gateway in [IpAddr::from(FABRIC_V4), ROUTER_V6.into()] {
            if gateway.is_ipv4() || host.has_ipv6 {
                host.links.add_default_route(gateway, first_of_family(addresses, gateway)).await?;
            }
        }
        links.wait_until_up(port).await?;
        host.links.wait_until_up(ETH0).await
    }
}

fn fabric_port(index: usize) -> u32 {
    FIRST_PORT + u32::try_from(index).expect("a lab has fewer nodes than a link index can count")
}

/// The first address of each family.
fn families(addresses: &[IpAddr]) -> impl Iterator<Item = IpAddr> {
    let first = |is_ipv4| addresses.iter().copied().find(move |address| address.is_ipv4() == is_ipv4);
    [first(true), first(false)].into_iter().flatten()
}
