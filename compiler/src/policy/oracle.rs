//! The meaning of the API's words, slowly and obviously: the judge of the compiler.
//!
//! One small function for each sentence that decides something, with the sentence's source. The objects are read as
//! they are written, again for every packet; nothing is prepared, indexed or shared with the stages that are judged,
//! not even selectors and CIDR arithmetic. Objects must be such as an API server stores or kubectl takes: what a
//! broken object means is not the API's business, and not this module's.
//!
//! Sources, named in the functions:
//! - *v1*: the reference of `networking.k8s.io/v1` NetworkPolicy, by its type and field.
//! - *concept*: the page "Network Policies" of the Kubernetes documentation.
//! - *1.3*: the reference of `extensions/v1beta1` and the page "Network Policies" of Kubernetes 1.3.
//! - *postern*: what the API leaves open and this project decides; the README lists these.

mod address;
mod gate;
mod pods;
mod policies;
mod selector;

use std::net::IpAddr;

use serde_json::Value;

use crate::api::{Direction, Protocol};

/// A packet on its way between two addresses: after DNAT, before SNAT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet {
    /// The address of the sender.
    pub source: IpAddr,
    /// The address of the receiver, of the same family.
    pub destination: IpAddr,
    /// What is inside.
    pub content: Content,
    /// How many more routers it may pass.
    pub hop_limit: u8,
    /// Whether it belongs to a flow that has been let through, or answers one.
    pub of_known_flow: bool,
}

/// What is inside a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// A protocol with ports, and the port of the receiver in host order.
    Port(Protocol, u16),
    /// ICMP with type and code (RFC 792), or ICMPv6 (RFC 4443) where the addresses are of IPv6.
    Icmp(u8, u8),
}

/// What both directions say of a packet. It arrives if both let it pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// What is said at the end of the sender.
    pub egress: Side,
    /// What is said at the end of the receiver.
    pub ingress: Side,
}

/// What one direction says of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Side {
    /// Whether this end is a pod that is isolated in this direction.
    pub isolated: bool,
    /// Whether the packet passes.
    pub allowed: bool,
}

/// Judges a packet in the cluster of these objects: Pods, Namespaces, NetworkPolicies and Nodes, in any order.
pub fn verdict(objects: &[Value], packet: &Packet) -> Verdict {
    Verdict { egress: side(objects, packet, Direction::Egress), ingress: side(objects, packet, Direction::Ingress) }
}

/// The node of the pod that has an address, and whether another address is that node's own. `None` where no pod has it, and
/// no node takes it for an address of its pods.
///
/// It is there that the pod's policies are enforced, and the address is refused that nobody has.
pub fn node_of(objects: &[Value], address: IpAddr, other: IpAddr) -> Option<(&str, bool)> {
    let name = match pods::owners(objects, address).first() {
        Some(pod) => pods::node_name(pod)?,
        None => gate::node_of(objects, address)?,
    };
    Some((name, pods::addresses_of_node(objects, &name.into()).contains(&other)))
}

/// How many pods have an address together.
pub fn pods_with(objects: &[Value], address: IpAddr) -> usize {
    pods::owners(objects, address).len()
}

/// *concept*, "The two sorts of pod isolation": "For a connection from a source pod to a destination pod to be
/// allowed, both the egress policy on the source pod and the ingress policy on the destination pod need to allow the
/// connection."
fn side(objects: &[Value], packet: &Packet, direction: Direction) -> Side {
    let own_address = match direction {
        Direction::Egress => packet.source,
        Direction::Ingress => packet.destination,
    };
    let pods = pods::owners(objects, own_address);
    let Some(first) = pods.first() else {
        // An end that is no pod has no policies.
        return Side {
            isolated: false,
            allowed: is_reply(packet) || gate::allows(objects, packet, direction, own_address),
        };
    };
    let isolated: Vec<&Value> =
        pods.iter().filter(|pod| policies::isolated(objects, pod, direction)).copied().collect();
    let allowed = isolated.is_empty()
        || is_reply(packet)
        || is_upkeep_of_the_network(packet)
        || is_to_itself(packet)
        || direction == Direction::Ingress && is_from_own_node(objects, first, packet)
        || rules_allow(objects, &pods, &isolated, direction, packet);
    Side { isolated: !isolated.is_empty(), allowed }
}

/// *postern*: where several pods have one address, what opens those of them that are isolated must open all of them. It does
/// if they have the same policies; else nothing does, which is less than what would open each by itself.
fn rules_allow(objects: &[Value], all: &[&Value], isolated: &[&Value], direction: Direction, packet: &Packet) -> bool {
    let policies = policies::that_open(objects, isolated[0], direction);
    let are_alike = isolated.iter().all(|pod| policies::that_open(objects, pod, direction) == policies);
    are_alike && policies::some_rule_allows(objects, isolated[0], all, direction, packet)
}

/// *concept*, "The two sorts of pod isolation": "reply traffic for those allowed connections will also be implicitly
/// allowed."
fn is_reply(packet: &Packet) -> bool {
    packet.of_known_flow
}

/// *postern*: neighbour discovery (RFC 4861: ICMPv6 types 133 to 137) always passes that no router has passed on, which
/// its hop limit of 255 says. Without it there is no network to police. Errors belong to the flow that they are about.
fn is_upkeep_of_the_network(packet: &Packet) -> bool {
    match (packet.content, packet.source) {
        (Content::Port(..), _) | (Content::Icmp(..), IpAddr::V4(_)) => false,
        (Content::Icmp(kind, _), IpAddr::V6(_)) => packet.hop_limit == 255 && (133..=137).contains(&kind),
    }
}

/// *concept*, "Network Policies": "A pod cannot block access to itself".
fn is_to_itself(packet: &Packet) -> bool {
    packet.source == packet.destination
}

/// *v1*, `NetworkPolicySpec.ingress`: "Traffic is allowed to a pod if [...] the traffic source is the pod's local
/// node".
fn is_from_own_node(objects: &[Value], pod: &Value, packet: &Packet) -> bool {
    pods::node_addresses(objects, pod).contains(&packet.source)
}
