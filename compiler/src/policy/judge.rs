//! The verdict of the IR on a packet, and why.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use super::{Ir, Isolation, LocalPod, PeerSet, PortSet, ResolvedRule};

use crate::api::{Direction, PodPeers, PolicyKey, Protocol};
use crate::cluster::PortSelector;

/// The first packet of a flow, as the forward hook sees it: after DNAT, before SNAT.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Packet {
    /// The address of the sender.
    pub source: IpAddr,
    /// The address of the receiver, of the same family.
    pub destination: IpAddr,
    /// The protocol, with the port of the receiver.
    pub protocol: PacketProtocol,
}

/// The protocol of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PacketProtocol {
    /// A protocol with ports, and the port of the receiver in host order.
    Port(Protocol, u16),
    /// An echo request of ICMP or ICMPv6: policed, and without ports.
    Echo,
}

impl PacketProtocol {
    /// The port of the receiver, if the protocol has ports.
    pub fn port(self) -> Option<u16> {
        match self {
            PacketProtocol::Port(_, port) => Some(port),
            PacketProtocol::Echo => None,
        }
    }
}

/// What one direction says of a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    /// Whether the packet passes this direction.
    pub allowed: bool,
    /// The policies that isolate the local pod; empty where it is not isolated, or the end is no local pod.
    pub isolated_by: Vec<PolicyKey>,
    /// The namespace whose annotation isolates the local pod.
    pub isolated_by_namespace: Option<String>,
    /// The first rule that allows the packet: the policy, and the rule's index.
    pub rule: Option<(PolicyKey, usize)>,
}

impl Judgement {
    /// The judgement of an end that is not isolated, or that no policy is about.
    pub fn free() -> Judgement {
        Judgement { allowed: true, isolated_by: Vec::new(), isolated_by_namespace: None, rule: None }
    }
}

/// What the policies of this node say of a packet in one direction: egress for its source, ingress for its
/// destination. An end that is no local pod passes, unless the gate refuses it, and a pod always reaches itself.
pub fn judge(ir: &Ir, direction: Direction, packet: &Packet) -> Judgement {
    let (own, _) = ends(direction, packet);
    let pod = ir.pods.iter().find(|pod| pod.addresses.contains(&own));
    if pod.is_none() && ir.gate.guards(own) {
        return Judgement { allowed: is_of_dhcp(direction, packet), ..Judgement::free() };
    }
    judge_pod(ir, pod, direction, packet)
}

/// Whether a packet may be a server's answer to a client of DHCP that has no address yet.
fn is_of_dhcp(direction: Direction, packet: &Packet) -> bool {
    direction == Direction::Ingress && packet.protocol == PacketProtocol::Port(Protocol::Udp, 68)
}

/// The same, where it is known which local pod is judged, if any, and the gate is not asked.
pub fn judge_pod(ir: &Ir, pod: Option<&LocalPod>, direction: Direction, packet: &Packet) -> Judgement {
    let (own, peer) = ends(direction, packet);
    let isolations = pod.map_or(&[][..], |pod| pod.isolations_at(own, direction));
    let rule = match isolations {
        [] => return Judgement::free(),
        [isolation] => allowing_rule(ir, direction, isolation, peer, packet),
        _ => None,
    };
    let isolates = |key: &&PolicyKey| ir.policies.get(*key).is_some_and(|rules| rules.isolates);
    let isolating: BTreeSet<&PolicyKey> =
        isolations.iter().flat_map(|isolation| isolation.policies.iter()).filter(isolates).collect();
    let namespace = isolations.iter().find_map(|isolation| isolation.by_namespace.as_deref());
    Judgement {
        allowed: rule.is_some() || own == peer,
        isolated_by: isolating.into_iter().cloned().collect(),
        isolated_by_namespace: namespace.map(str::to_string),
        rule,
    }
}

/// The end that is judged, and the other one.
pub(super) fn ends(direction: Direction, packet: &Packet) -> (IpAddr, IpAddr) {
    match direction {
        Direction::Egress => (packet.source, packet.destination),
        Direction::Ingress => (packet.destination, packet.source),
    }
}

fn allowing_rule(
    ir: &Ir,
    direction: Direction,
    isolation: &Isolation,
    peer: IpAddr,
    packet: &Packet,
) -> Option<(PolicyKey, usize)> {
    for key in isolation.policies.iter() {
        for rule in ir.policies.get(key).and_then(|policy| policy.rules(direction)).unwrap_or_default() {
            if allows(ir, direction, rule, peer, packet) {
                return Some((key.clone(), rule.index));
            }
        }
    }
    None
}

fn allows(ir: &Ir, direction: Direction, rule: &ResolvedRule, peer: IpAddr, packet: &Packet) -> bool {
    let (pods, in_blocks) = match &rule.peers {
        PeerSet::Any => return ports_allow(ir, direction, &rule.ports, None, packet),
        PeerSet::These { pods, blocks, blocks_text: _ } => (pods, blocks.iter().any(|range| range.contains(peer))),
    };
    let is_member =
        |peers: &&Arc<PodPeers>| ir.members.get(*peers).is_some_and(|members| members.binary_search(&peer).is_ok());
    pods.iter().filter(is_member).any(|peers| ports_allow(ir, direction, &rule.ports, Some(peers), packet))
        || in_blocks && ports_allow(ir, direction, &rule.ports, None, packet)
}

/// Whether the ports allow the packet, where the peer was found among pods or, `None`, by its address alone.
fn ports_allow(
    ir: &Ir,
    direction: Direction,
    ports: &PortSet,
    found_by: Option<&Arc<PodPeers>>,
    packet: &Packet,
) -> bool {
    let (numbers, names) = match ports {
        PortSet::Any => return true,
        PortSet::These { numbers, names } => (numbers, names),
    };
    let PacketProtocol::Port(protocol, port) = packet.protocol else { return false };
    if numbers.get(&protocol).is_some_and(|ranges| ranges.iter().any(|range| range.contains(port))) {
        return true;
    }
    let endpoint = (packet.destination, protocol, port);
    let endpoints = ir.endpoints.get(&PortSelector::of_rule(direction, found_by, names));
    endpoints.is_some_and(|endpoints| endpoints.binary_search(&endpoint).is_ok())
}
