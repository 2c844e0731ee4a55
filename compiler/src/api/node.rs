//! Nodes, as far as a throw-away cluster needs them.

use std::net::IpAddr;

use super::NodeName;

/// A Node: its name and where it is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// `metadata.name`
    pub name: NodeName,
    /// `status.addresses` of type InternalIP, each once, in the object's order.
    pub addresses: Vec<IpAddr>,
}
