//! Pods.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::api::findings::{Findings, quoted};
use crate::api::lenient::{Lenient, Record};
use crate::api::wire::{AnnotationsWire, ContainerWire, IpWire, List, PodSpecWire, PodStatusWire, PodWire};
use crate::api::{ContainerPort, NodeName, Parsed, Phase, Pod, PodKey, PodUid, Protocol, Str};

use super::address::address;
use super::meta::{Scope, meta};
use super::port::{known_protocol, not_a_port_name, number, port_number, protocol};
use super::syntax::is_port_name;

impl PodWire {
    /// Reads the Pod; what is broken in it is left out.
    ///
    /// A Pod without any status, such as people write into files, counts as running.
    pub fn parse(self) -> Parsed<Pod> {
        self.parse_as("unnamed")
    }

    /// The same; a Pod without a name goes by `stand_in`.
    pub(super) fn parse_as(self, stand_in: &str) -> Parsed<Pod> {
        let version = self.resource_version().and_then(|version| version.parse().ok()).unwrap_or_default();
        let (meta, mut findings) = meta("Pod", Scope::Namespaced, self.metadata, stand_in);
        let has_status = self.status.is_present();
        let spec = match self.spec.read(&mut findings, || "spec".into()) {
            Some(Record(spec)) => spec,
            None => PodSpecWire::default(),
        };
        let node = spec.node_name.read(&mut findings, || "spec.nodeName".into()).filter(|name| !name.is_empty());
        let host_network = spec.host_network.read(&mut findings, || "spec.hostNetwork".into()).unwrap_or(false);
        let mut ports = Vec::new();
        named_ports(spec.containers, "spec.containers", |_| true, &mut ports, &mut findings);
        named_ports(spec.init_containers, "spec.initContainers", is_sidecar, &mut ports, &mut findings);
        let status = match self.status.read(&mut findings, || "status".into()) {
            Some(Record(status)) => status,
            None => PodStatusWire::default(),
        };
        let host_ips = addresses(status.host_ips, status.host_ip, "status.hostIP", Both::Count, &mut findings);
        let ips = addresses(status.pod_ips, status.pod_ip, "status.podIP", Both::ListFirst, &mut findings);
        let value = Pod {
            key: PodKey { namespace: meta.namespace, name: meta.name },
            uid: uid(meta.uid, &meta.annotations),
            version,
            labels: meta.labels,
            node: node.map(NodeName),
            host_network,
            phase: phase(status.phase, !has_status || !ips.is_empty(), &mut findings),
            terminating: meta.terminating,
            lingering: false,
            created: meta.created,
            ips,
            held: 0,
            host_ips,
            ports,
        };
        Parsed { value, findings: findings.into_vec() }
    }

    /// The ports that its containers declare, named or not, each once; what is no port is not among them.
    pub(super) fn declared_ports(&self) -> Vec<(Protocol, u16)> {
        let Lenient::Good(Record(spec)) = &self.spec else { return Vec::new() };
        let containers = good(&spec.containers);
        let sidecars = good(&spec.init_containers).filter(|container| is_sidecar(container));
        let declared: BTreeSet<_> = containers
            .chain(sidecars)
            .flat_map(|container| good(&container.ports))
            .filter_map(|port| {
                let protocol = match &port.protocol {
                    Lenient::Absent => Some(Protocol::Tcp),
                    Lenient::Good(name) => known_protocol(name),
                    Lenient::Wrong(_) => None,
                };
                match &port.container_port {
                    Lenient::Good(number) => Some((protocol?, port_number(*number)?)),
                    Lenient::Absent | Lenient::Wrong(_) => None,
                }
            })
            .collect();
        declared.into_iter().collect()
    }
}

/// The id by which the runtime knows the pod. An id that is none is not known: nobody depends on it alone.
fn uid(uid: Option<Str>, annotations: &AnnotationsWire) -> Option<PodUid> {
    match &annotations.mirror {
        Lenient::Good(of_kubelet) => PodUid::parse(of_kubelet),
        Lenient::Absent | Lenient::Wrong(_) => uid.and_then(|uid| PodUid::parse(&uid)),
    }
}

/// The entries of a list that are of the right type.
fn good<T>(list: &List<Record<T>>) -> impl Iterator<Item = &T> {
    let entries = match list {
        Lenient::Good(entries) => entries.as_slice(),
        Lenient::Absent | Lenient::Wrong(_) => &[],
    };
    entries.iter().filter_map(|entry| match entry {
        Lenient::Good(Record(entry)) => Some(entry),
        Lenient::Absent | Lenient::Wrong(_) => None,
    })
}

/// Whether an init container keeps running beside the others. An ordinary one has ended before the pod serves
/// anybody.
fn is_sidecar(container: &ContainerWire) -> bool {
    match &container.restart_policy {
        Lenient::Good(policy) => &**policy == "Always",
        Lenient::Absent | Lenient::Wrong(_) => false,
    }
}

/// What the single address means beside the list.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Both {
    /// It counts only where the list is absent or empty.
    ListFirst,
    /// Both count.
    Count,
}

/// The addresses of a list such as `podIPs` and of its single form, each once.
fn addresses(
    list: List<Record<IpWire>>,
    single: Lenient<Str>,
    field: &str,
    both: Both,
    findings: &mut Findings,
) -> Vec<IpAddr> {
    let mut addresses: Vec<IpAddr> = Vec::new();
    let mut take = |text: Str, field: String, findings: &mut Findings| {
        // A finding has been added where there is none.
        if let Ok(address) = address(&text, || field, findings)
            && !addresses.contains(&address)
        {
            addresses.push(address);
        }
    };
    let entries = list.read(findings, || format!("{field}s")).unwrap_or_default();
    let has_list = !entries.is_empty();
    for (i, entry) in entries.into_iter().enumerate() {
        if let Some(Record(IpWire { ip })) = entry.read(findings, || format!("{field}s[{i}]"))
            && let Some(text) = ip.read(findings, || format!("{field}s[{i}].ip"))
        {
            take(text, format!("{field}s[{i}].ip"), findings);
        }
    }
    if let Some(text) = single.read(findings, || field.to_owned())
        && !text.is_empty()
        && (both == Both::Count || !has_list)
    {
        take(text, field.to_owned(), findings);
    }
    addresses
}

fn phase(wire: Lenient<Str>, runs_by_default: bool, findings: &mut Findings) -> Phase {
    const FIELD: &str = "status.phase";
    let is_wrong = matches!(wire, Lenient::Wrong(_));
    match wire.read(findings, || FIELD.into()).as_deref() {
        Some("Pending") => Phase::Pending,
        Some("Running") => Phase::Running,
        Some("Succeeded") => Phase::Succeeded,
        Some("Failed") => Phase::Failed,
        Some("Unknown") => Phase::Unknown,
        Some(other) => {
            findings.add(
                FIELD,
                format!(
                    "{} is not a phase (Pending, Running, Succeeded, Failed, Unknown); it is taken for Unknown",
                    quoted(other)
                ),
            );
            Phase::Unknown
        }
        None if is_wrong => Phase::Unknown,
        None if runs_by_default => Phase::Running,
        None => Phase::Pending,
    }
}

/// The named ports of the containers that count.
fn named_ports(
    containers: List<Record<ContainerWire>>,
    path: &str,
    counts: impl Fn(&ContainerWire) -> bool,
    named: &mut Vec<ContainerPort>,
    findings: &mut Findings,
) {
    for (i, container) in containers.read(findings, || path.to_owned()).unwrap_or_default().into_iter().enumerate() {
        let Some(Record(container)) = container.read(findings, || format!("{path}[{i}]")) else { continue };
        if !counts(&container) {
            continue;
        }
        let ports = container.ports.read(findings, || format!("{path}[{i}].ports")).unwrap_or_default();
        for (j, port) in ports.into_iter().enumerate() {
            let Some(Record(port)) = port.read(findings, || format!("{path}[{i}].ports[{j}]")) else { continue };
            let field = |name: &str| format!("{path}[{i}].ports[{j}].{name}");
            // Ports without a name mean nothing to a policy, and nothing else is read of them.
            let Some(name) = port.name.read(findings, || field("name")).filter(|name| !name.is_empty()) else {
                continue;
            };
            if !is_port_name(&name) {
                findings.add(field("name"), not_a_port_name(&name));
                continue;
            }
            let Some(number) = number(port.container_port, || field("containerPort"), findings) else { continue };
            if let Some(protocol) = protocol(port.protocol, || field("protocol"), findings) {
                named.push(ContainerPort { name, protocol, number });
            }
        }
    }
}
