//! Services.

use std::net::IpAddr;

use crate::api::findings::{Findings, quoted};
use crate::api::lenient::{Lenient, Record};
use crate::api::wire::{IntOrText, List, ServicePortWire, ServiceSpecWire, ServiceWire};
use crate::api::{Parsed, Service, ServiceKind, ServicePort, Str, TargetPort};

use super::address::address;
use super::meta::{Scope, labels, meta};
use super::port::{not_a_port, not_a_port_name, number, port_number, protocol};
use super::syntax::is_port_name;

/// What a headless Service has instead of an address.
const HEADLESS: &str = "None";

impl ServiceWire {
    /// Reads the Service; one without a name goes by `stand_in`.
    pub(super) fn parse_as(self, stand_in: &str) -> Parsed<Service> {
        let (meta, mut findings) = meta("Service", Scope::Namespaced, self.metadata, stand_in);
        let spec = match self.spec.read(&mut findings, || "spec".into()) {
            Some(Record(spec)) => spec,
            None => ServiceSpecWire::default(),
        };
        let value = Service {
            namespace: meta.namespace,
            name: meta.name,
            kind: kind(spec.kind, &mut findings),
            cluster_ips: cluster_ips(spec.cluster_ips, spec.cluster_ip, &mut findings),
            selector: spec
                .selector
                .is_present()
                .then(|| labels(spec.selector, "spec.selector", &mut findings))
                .filter(|labels| labels.iter().next().is_some()),
            ports: ports(spec.ports, &mut findings),
        };
        Parsed { value, findings: findings.into_vec() }
    }
}

fn kind(wire: Lenient<Str>, findings: &mut Findings) -> ServiceKind {
    match wire.read(findings, || "spec.type".into()).as_deref() {
        None | Some("ClusterIP") => ServiceKind::ClusterIp,
        Some("NodePort") => ServiceKind::NodePort,
        Some("LoadBalancer") => ServiceKind::LoadBalancer,
        Some("ExternalName") => ServiceKind::ExternalName,
        Some(other) => {
            findings.add("spec.type", format!("{} is not a type of Service; it is taken for ClusterIP", quoted(other)));
            ServiceKind::ClusterIp
        }
    }
}

fn cluster_ips(list: List<Str>, single: Lenient<Str>, findings: &mut Findings) -> Vec<IpAddr> {
    let mut texts = Vec::new();
    for (i, entry) in list.read(findings, || "spec.clusterIPs".into()).unwrap_or_default().into_iter().enumerate() {
        let field = format!("spec.clusterIPs[{i}]");
        texts.extend(entry.read(findings, || field.clone()).map(|text| (field, text)));
    }
    let single = single.read(findings, || "spec.clusterIP".into());
    if texts.is_empty() {
        texts.extend(single.map(|text| ("spec.clusterIP".to_owned(), text)));
    }
    let mut addresses = Vec::new();
    for (field, text) in texts {
        if text.is_empty() || &*text == HEADLESS {
            continue;
        }
        // A finding has been added where there is none.
        if let Ok(address) = address(&text, || field, findings)
            && !addresses.contains(&address)
        {
            addresses.push(address);
        }
    }
    addresses
}

fn ports(list: List<Record<ServicePortWire>>, findings: &mut Findings) -> Vec<ServicePort> {
    let mut ports = Vec::new();
    for (i, entry) in list.read(findings, || "spec.ports".into()).unwrap_or_default().into_iter().enumerate() {
        let Some(Record(entry)) = entry.read(findings, || format!("spec.ports[{i}]")) else { continue };
        let field = |name: &str| format!("spec.ports[{i}].{name}");
        let protocol = protocol(entry.protocol, || field("protocol"), findings);
        let Some(port) = number(entry.port, || field("port"), findings) else { continue };
        let target = target(entry.target_port, port, || field("targetPort"), findings);
        if let (Some(protocol), Some(target)) = (protocol, target) {
            ports.push(ServicePort { port, target, protocol });
        }
    }
    ports
}

/// `None` with a finding where it is no port at all.
fn target(
    wire: Lenient<IntOrText>,
    port: u16,
    field: impl Fn() -> String,
    findings: &mut Findings,
) -> Option<TargetPort> {
    if wire == Lenient::Absent {
        return Some(TargetPort::Number(port));
    }
    let (target, reason) = match wire.read(findings, &field)? {
        // The API takes the 0 of an empty field for the Service's own port.
        IntOrText::Int(0) => (Some(TargetPort::Number(port)), String::new()),
        IntOrText::Int(number) => (port_number(number).map(TargetPort::Number), not_a_port(number)),
        IntOrText::Text(name) if is_port_name(&name) => (Some(TargetPort::Named(name)), String::new()),
        IntOrText::Text(name) => (None, not_a_port_name(&name)),
    };
    if target.is_none() {
        findings.add(field(), format!("{reason}; the entry is left out"));
    }
    target
}
