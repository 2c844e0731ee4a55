//! EndpointSlices.

use crate::api::findings::Findings;
use crate::api::lenient::{Lenient, Record};
use crate::api::wire::{
    EndpointConditionsWire, EndpointPortWire, EndpointSliceWire, EndpointWire, List, TargetRefWire,
};
use crate::api::{EndpointSlice, NodeName, Parsed, PodKey, SliceEndpoint, SlicePort, Str};

use super::address::address;
use super::meta::{Scope, meta};
use super::port::{port_number, protocol};

/// The label that says whose endpoints a slice holds.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

impl EndpointSliceWire {
    /// Reads the EndpointSlice; one without a name goes by `stand_in`. The entries of one whose addresses are names
    /// (`addressType: FQDN`) are left out, since nothing in a cluster sends to them.
    pub(super) fn parse_as(self, stand_in: &str, has_names: bool) -> Parsed<EndpointSlice> {
        let (meta, mut findings) = meta("EndpointSlice", Scope::Namespaced, self.metadata, stand_in);
        let endpoints = if has_names { Vec::new() } else { endpoints(self.endpoints, &meta.namespace, &mut findings) };
        let value = EndpointSlice {
            service: meta.labels.get(SERVICE_NAME).cloned(),
            namespace: meta.namespace,
            name: meta.name,
            endpoints,
            ports: ports(self.ports, &mut findings),
        };
        Parsed { value, findings: findings.into_vec() }
    }
}

fn endpoints(list: List<Record<EndpointWire>>, namespace: &Str, findings: &mut Findings) -> Vec<SliceEndpoint> {
    let mut endpoints = Vec::new();
    for (i, entry) in list.read(findings, || "endpoints".into()).unwrap_or_default().into_iter().enumerate() {
        let Some(Record(entry)) = entry.read(findings, || format!("endpoints[{i}]")) else { continue };
        let field = |name: &str| format!("endpoints[{i}].{name}");
        let addresses = entry.addresses.read(findings, || field("addresses")).unwrap_or_default();
        let first = addresses.into_iter().next().unwrap_or_default().read(findings, || field("addresses[0]"));
        let Some(Ok(address)) = first.map(|text| address(&text, || field("addresses[0]"), findings)) else { continue };
        let conditions = match entry.conditions.read(findings, || field("conditions")) {
            Some(Record(conditions)) => conditions,
            None => EndpointConditionsWire::default(),
        };
        let mut flag = |wire: Lenient<bool>, name: &str| wire.read(findings, || field(&format!("conditions.{name}")));
        let ready = flag(conditions.ready, "ready").unwrap_or(true);
        let serving = flag(conditions.serving, "serving").unwrap_or(ready);
        let terminating = flag(conditions.terminating, "terminating").unwrap_or(false);
        let node = entry.node_name.read(findings, || field("nodeName")).filter(|name| !name.is_empty());
        let target = entry.target_ref.read(findings, || field("targetRef"));
        let pod = target.and_then(|Record(target)| pod(target, namespace, &field("targetRef"), findings));
        endpoints.push(SliceEndpoint { address, ready, serving, terminating, node: node.map(NodeName), pod });
    }
    endpoints
}

fn pod(target: TargetRefWire, namespace: &Str, field: &str, findings: &mut Findings) -> Option<PodKey> {
    let kind = target.kind.read(findings, || format!("{field}.kind"))?;
    let name = target.name.read(findings, || format!("{field}.name"))?;
    let namespace =
        target.namespace.read(findings, || format!("{field}.namespace")).unwrap_or_else(|| namespace.clone());
    (&*kind == "Pod").then_some(PodKey { namespace, name })
}

fn ports(list: List<Record<EndpointPortWire>>, findings: &mut Findings) -> Vec<SlicePort> {
    let mut ports = Vec::new();
    for (i, entry) in list.read(findings, || "ports".into()).unwrap_or_default().into_iter().enumerate() {
        let Some(Record(entry)) = entry.read(findings, || format!("ports[{i}]")) else { continue };
        let field = |name: &str| format!("ports[{i}].{name}");
        let name = entry.name.read(findings, || field("name")).unwrap_or_else(|| Str::from(""));
        let port = entry.port.read(findings, || field("port")).and_then(port_number);
        if let Some(protocol) = protocol(entry.protocol, || field("protocol"), findings) {
            ports.push(SlicePort { name, protocol, port });
        }
    }
    ports
}
