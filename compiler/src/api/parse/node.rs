//! Nodes.

use crate::api::lenient::Record;
use crate::api::wire::{NodeStatusWire, NodeWire};
use crate::api::{Node, NodeName, Parsed};

use super::address::address;
use super::meta::{Scope, meta};

/// The type of the addresses that a node has inside the cluster.
const INTERNAL_IP: &str = "InternalIP";

impl NodeWire {
    /// Reads the Node; one without a name goes by `stand_in`.
    pub(super) fn parse_as(self, stand_in: &str) -> Parsed<Node> {
        let (meta, mut findings) = meta("Node", Scope::Cluster, self.metadata, stand_in);
        let status = match self.status.read(&mut findings, || "status".into()) {
            Some(Record(status)) => status,
            None => NodeStatusWire::default(),
        };
        let mut addresses = Vec::new();
        let entries = status.addresses.read(&mut findings, || "status.addresses".into()).unwrap_or_default();
        for (i, entry) in entries.into_iter().enumerate() {
            let Some(Record(entry)) = entry.read(&mut findings, || format!("status.addresses[{i}]")) else { continue };
            let kind = entry.kind.read(&mut findings, || format!("status.addresses[{i}].type"));
            if kind.as_deref() != Some(INTERNAL_IP) {
                continue;
            }
            let field = || format!("status.addresses[{i}].address");
            if let Some(text) = entry.address.read(&mut findings, field)
                && let Ok(address) = address(&text, field, &mut findings)
                && !addresses.contains(&address)
            {
                addresses.push(address);
            }
        }
        Parsed { value: Node { name: NodeName(meta.name), addresses }, findings: findings.into_vec() }
    }
}
