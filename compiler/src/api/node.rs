//! Nodes, as far as a throw-away cluster and the gate need them.

use std::net::IpAddr;

use ipnet::IpNet;

use super::NodeName;

/// A Node: its name, where it is reached, and where its pods are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// `metadata.name`
    pub name: NodeName,
    /// `status.addresses` of type InternalIP, each once, in the object's order.
    pub addresses: Vec<IpAddr>,
    /// `spec.podCIDRs`, and `spec.podCIDR` where that list is absent, each once.
    pub pod_ranges: Vec<IpNet>,
}
