//! Addresses that a node gives to pods, and that no pod has.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::address::block_contains;
use super::pods::{
    addresses_of_node, addresses_of_pod, has_ended, has_network, is_on_node_network, of_kind, reported_addresses,
};
use super::{Content, Packet, is_upkeep_of_the_network};
use crate::api::{Direction, Protocol};

/// *postern*: what comes from an address of the ranges of a node's pods, or goes there, is refused while no pod is known to
/// have it, but for the upkeep of the network, answers of DHCP servers, and what the node sends itself.
pub(super) fn allows(objects: &[Value], packet: &Packet, direction: Direction, address: IpAddr) -> bool {
    let Some(node) = node_of(objects, address) else { return true };
    let is_from_node = addresses_of_node(objects, &json!(node)).contains(&packet.source);
    let is_answer_of_dhcp = packet.content == Content::Port(Protocol::Udp, 68);
    is_upkeep_of_the_network(packet) || direction == Direction::Ingress && (is_answer_of_dhcp || is_from_node)
}

/// The node that takes an address for one of its pods, and refuses it.
pub(super) fn node_of(objects: &[Value], address: IpAddr) -> Option<&str> {
    let takes = |node: &&Value| {
        let name = &node["metadata"]["name"];
        is_in_ranges(node, address) && stands(objects, node) && !addresses_of_node(objects, name).contains(&address)
    };
    of_kind(objects, "Node").find(takes)?["metadata"]["name"].as_str()
}

/// *postern*: only where all that is known speaks for it that pods of the node, and none but them, have addresses of its
/// ranges.
fn stands(objects: &[Value], node: &Value) -> bool {
    let name = &node["metadata"]["name"];
    let is_here = |pod: &Value| pod["spec"]["nodeName"] == *name;
    let pods = || of_kind(objects, "Pod");
    let here = pods().filter(|pod| is_here(pod) && has_network(objects, pod));
    let local: Vec<IpAddr> = here.flat_map(|pod| addresses_of_pod(objects, pod)).collect();
    let is_of_range_family = |address: &IpAddr| {
        ranges(node).any(|range| range.as_str().is_some_and(|text| text.contains(':')) == address.is_ipv6())
    };
    let is_used = local.iter().any(|address| is_in_ranges(node, *address));
    let all_inside =
        local.iter().filter(|address| is_of_range_family(address)).all(|address| is_in_ranges(node, *address));
    let is_foreign = |pod: &Value| {
        let counts = !is_here(pod) && !is_on_node_network(pod) && !has_ended(pod);
        counts && reported_addresses(pod).into_iter().any(|address| is_in_ranges(node, address))
    };
    is_used && all_inside && !pods().any(is_foreign)
}

/// The reference of NodeSpec, `podCIDRs`: "represents the IP ranges assigned to the node for usage by Pods on that node. If
/// this field is specified, the 0th entry must match the podCIDR field."
fn ranges(node: &Value) -> impl Iterator<Item = &Value> {
    node["spec"]["podCIDRs"].as_array().into_iter().flatten()
}

fn is_in_ranges(node: &Value, address: IpAddr) -> bool {
    ranges(node).any(|range| block_contains(&json!({"cidr": range}), address))
}
