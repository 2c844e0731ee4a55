//! Services.

use std::net::IpAddr;

use crate::api::findings::{Findings, quoted};
use crate::api::lenient::{Lenient, Record};
use crate::api::wire::{
    IntOrText, List, LoadBalancerWire, ServicePortWire, ServiceSpecWire, ServiceStatusWire, ServiceWire,
};
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
        let status = match self.status.read(&mut findings, || "status".into()) {
            Some(Record(status)) => status,
            None => ServiceStatusWire::default(),
        };
        let mut is_local = |policy: Lenient<Str>, field: &str| {
            policy.read(&mut findings, || field.into()).is_some_and(|policy| &*policy == "Local")
        };
        let external_local = is_local(spec.external_traffic_policy, "spec.externalTrafficPolicy");
        let internal_local = is_local(spec.internal_traffic_policy, "spec.internalTrafficPolicy");
        let publish_not_ready =
            spec.publish_not_ready_addresses.read(&mut findings, || "spec.publishNotReadyAddresses".into());
        let external_name = spec.external_name.read(&mut findings, || "spec.externalName".into());
        let value = Service {
            namespace: meta.namespace,
            name: meta.name,
            headless: is_headless(&spec.cluster_ips, &spec.cluster_ip),
            families_are_v4: texts(spec.ip_families, "spec.ipFamilies", &mut findings)
                .map(|(_, family)| &*family == "IPv4")
                .collect(),
            external_ips: addresses(texts(spec.external_ips, "spec.externalIPs", &mut findings), &mut findings),
            balancer_ips: balancer_ips(status, &mut findings),
            external_name: external_name.filter(|name| !name.is_empty()),
            publish_not_ready: publish_not_ready.unwrap_or(false),
            external_local,
            internal_local,
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

fn is_headless(list: &List<Str>, single: &Lenient<Str>) -> bool {
    let is_none = |text: &Lenient<Str>| matches!(text, Lenient::Good(text) if &**text == HEADLESS);
    is_none(single) || matches!(list, Lenient::Good(entries) if entries.iter().any(is_none))
}

fn cluster_ips(list: List<Str>, single: Lenient<Str>, findings: &mut Findings) -> Vec<IpAddr> {
    let mut given: Vec<_> = texts(list, "spec.clusterIPs", findings).collect();
    let single = single.read(findings, || "spec.clusterIP".into());
    if given.is_empty() {
        given.extend(single.map(|text| ("spec.clusterIP".to_owned(), text)));
    }
    given.retain(|(_, text)| !text.is_empty() && &**text != HEADLESS);
    addresses(given.into_iter(), findings)
}

fn balancer_ips(status: ServiceStatusWire, findings: &mut Findings) -> Vec<IpAddr> {
    const FIELD: &str = "status.loadBalancer";
    let balancer = match status.load_balancer.read(findings, || FIELD.into()) {
        Some(Record(balancer)) => balancer,
        None => LoadBalancerWire::default(),
    };
    let entries = balancer.ingress.read(findings, || format!("{FIELD}.ingress")).unwrap_or_default();
    let mut given = Vec::new();
    for (i, entry) in entries.into_iter().enumerate() {
        let Some(Record(entry)) = entry.read(findings, || format!("{FIELD}.ingress[{i}]")) else { continue };
        let field = format!("{FIELD}.ingress[{i}].ip");
        given.extend(entry.ip.read(findings, || field.clone()).filter(|text| !text.is_empty()).map(|ip| (field, ip)));
    }
    addresses(given.into_iter(), findings)
}

/// The entries of a list of strings, each with its field.
fn texts(list: List<Str>, field: &str, findings: &mut Findings) -> std::vec::IntoIter<(String, Str)> {
    let mut texts = Vec::new();
    for (i, entry) in list.read(findings, || field.to_owned()).unwrap_or_default().into_iter().enumerate() {
        let field = format!("{field}[{i}]");
        texts.extend(entry.read(findings, || field.clone()).map(|text| (field, text)));
    }
    texts.into_iter()
}

/// Those that are addresses, each once.
fn addresses(texts: impl Iterator<Item = (String, Str)>, findings: &mut Findings) -> Vec<IpAddr> {
    let mut addresses = Vec::new();
    for (field, text) in texts {
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
        let name = entry.name.read(findings, || field("name")).unwrap_or_else(|| Str::from(""));
        let node_port = entry.node_port.read(findings, || field("nodePort")).and_then(port_number);
        if let (Some(protocol), Some(target)) = (protocol, target) {
            ports.push(ServicePort { name, port, target, protocol, node_port });
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
