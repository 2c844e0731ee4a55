//! Nodes.

use ipnet::IpNet;

use crate::api::findings::{Findings, quoted};
use crate::api::lenient::{Lenient, Record};
use crate::api::wire::{NodeSpecWire, NodeStatusWire, NodeWire};
use crate::api::{Node, NodeName, Parsed, Str};

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
        let spec = match self.spec.read(&mut findings, || "spec".into()) {
            Some(Record(spec)) => spec,
            None => NodeSpecWire::default(),
        };
        let pod_ranges = pod_ranges(spec, &mut findings);
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
        Parsed { value: Node { name: NodeName(meta.name), addresses, pod_ranges }, findings: findings.into_vec() }
    }
}

/// The ranges of the node's pods; what is none is left out.
fn pod_ranges(spec: NodeSpecWire, findings: &mut Findings) -> Vec<IpNet> {
    let mut ranges = Vec::new();
    let mut add = |text: Lenient<Str>, field: &dyn Fn() -> String, findings: &mut Findings| {
        let Some(text) = text.read(findings, field) else { return };
        match text.parse::<IpNet>() {
            Ok(range) if !ranges.contains(&range.trunc()) => ranges.push(range.trunc()),
            Ok(_) => {}
            // What the API has before anybody has given the node a range.
            Err(_) if text.is_empty() => {}
            Err(_) => findings.add(field(), format!("{} is not a CIDR", quoted(&text))),
        }
    };
    let listed = spec.pod_cidrs.read(findings, || "spec.podCIDRs".into()).unwrap_or_default();
    if listed.is_empty() {
        add(spec.pod_cidr, &|| "spec.podCIDR".into(), findings);
    }
    for (i, text) in listed.into_iter().enumerate() {
        add(text, &|| format!("spec.podCIDRs[{i}]"), findings);
    }
    ranges
}
