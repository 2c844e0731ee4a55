//! Services: where their traffic ends up.

use std::collections::BTreeSet;
use std::net::IpAddr;

use compiler::api::{
    EndpointSlice, NodeName, Pod, PodKey, Protocol, Service, ServiceKind, ServicePort, SlicePort, TargetPort,
};
use compiler::nft::Family;

use super::{EndError, Model};

/// The Services of a cluster with what tells where their traffic goes, as far as it is known.
#[derive(Debug, Clone, Default)]
pub struct Services {
    /// The Services.
    pub services: Vec<Service>,
    /// Their EndpointSlices. A Service without any has the pods that its selector selects.
    pub slices: Vec<EndpointSlice>,
    /// The pods that are not ready.
    pub unready: BTreeSet<PodKey>,
}

/// Somebody behind a Service, who gets its traffic.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Backend {
    /// The pod, where it is one.
    pub pod: Option<PodKey>,
    /// The address.
    pub address: IpAddr,
    /// The port there.
    pub target: u16,
    /// The node.
    pub node: Option<NodeName>,
}

/// Who is behind a port of a Service.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Backends {
    /// Those who get its traffic, by name.
    pub usable: Vec<Backend>,
    /// How many are not ready, and get none.
    pub unready: usize,
}

/// A port of a Service, and an address and port behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// The address of the Service.
    pub service: IpAddr,
    /// The protocol.
    pub protocol: Protocol,
    /// The port of the Service.
    pub port: u16,
    /// The address behind it.
    pub address: IpAddr,
    /// The port there.
    pub target: u16,
    /// Its place among the endpoints of this address and port, from 0.
    pub index: usize,
    /// The only node whose pods reach it, for `internalTrafficPolicy: Local`.
    pub only_on: Option<NodeName>,
}

/// Which port of the endpoints is meant.
#[derive(Debug, Clone, Copy)]
pub enum Wanted<'a> {
    /// That to which a port of the Service leads.
    Behind(&'a ServicePort),
    /// This one: nothing translates the port of a headless Service.
    Same(u16),
}

/// An endpoint, whether it gets traffic or not.
struct Candidate {
    backend: Backend,
    ready: bool,
    serving: bool,
    terminating: bool,
}

impl Services {
    /// A Service by name.
    pub fn named(&self, namespace: &str, name: &str) -> Option<&Service> {
        self.services.iter().find(|service| &*service.namespace == namespace && &*service.name == name)
    }

    /// The Service that has an address.
    pub fn at(&self, address: IpAddr) -> Option<&Service> {
        let index = self.index_at(address)?;
        self.services.get(index)
    }

    pub(super) fn index_at(&self, address: IpAddr) -> Option<usize> {
        self.services.iter().position(|service| service.addresses().any(|own| own == address))
    }

    /// Who gets the traffic of a Service, in one family: as kube-proxy does it, those that are ready, or else those that
    /// end but still answer. `pods` are asked where the Service has no EndpointSlices.
    pub fn backends<'a>(
        &self,
        service: &Service,
        wanted: Wanted<'_>,
        family: Family,
        pods: impl Iterator<Item = &'a Pod>,
    ) -> Backends {
        let of_service = |slice: &&EndpointSlice| {
            slice.namespace == service.namespace && slice.service.as_ref() == Some(&service.name)
        };
        let mut candidates = Vec::new();
        if self.slices.iter().any(|slice| of_service(&slice)) {
            self.slices.iter().filter(of_service).for_each(|slice| of_slice(slice, wanted, &mut candidates));
        } else if let Some(selector) = &service.selector {
            let selected = |pod: &&Pod| {
                pod.key.namespace == service.namespace
                    && selector.iter().all(|(key, value)| pod.labels.get(key) == Some(value))
            };
            let selected = pods.filter(selected).filter(|pod| !pod.phase.is_finished());
            candidates.extend(selected.flat_map(|pod| self.of_pod(service, pod, wanted)));
        }
        candidates.retain(|candidate| Family::of(candidate.backend.address) == family);
        candidates.sort_by(|a, b| a.backend.cmp(&b.backend));
        candidates.dedup_by(|a, b| (a.backend.address, a.backend.target) == (b.backend.address, b.backend.target));
        let any_ready = candidates.iter().any(|candidate| candidate.ready);
        let is_usable = |c: &Candidate| if any_ready { c.ready } else { c.serving && c.terminating };
        let (usable, rest): (Vec<_>, Vec<_>) = candidates.into_iter().partition(is_usable);
        Backends { usable: usable.into_iter().map(|candidate| candidate.backend).collect(), unready: rest.len() }
    }

    fn of_pod(&self, service: &Service, pod: &Pod, wanted: Wanted<'_>) -> Vec<Candidate> {
        let declared = |name: &str, protocol: Protocol| {
            pod.ports.iter().find(|port| &*port.name == name && port.protocol == protocol).map(|port| port.number)
        };
        let target = match wanted {
            Wanted::Same(port) => Some(port),
            Wanted::Behind(port) => match &port.target {
                TargetPort::Number(number) => Some(*number),
                TargetPort::Named(name) => declared(name, port.protocol),
            },
        };
        let Some(target) = target else { return Vec::new() };
        let serving = service.publish_not_ready || !self.unready.contains(&pod.key);
        let candidate = |address: &IpAddr| Candidate {
            backend: Backend { pod: Some(pod.key.clone()), address: *address, target, node: pod.node.clone() },
            ready: service.publish_not_ready || serving && !pod.terminating,
            serving,
            terminating: pod.terminating,
        };
        pod.ips.iter().map(candidate).collect()
    }
}

fn of_slice(slice: &EndpointSlice, wanted: Wanted<'_>, candidates: &mut Vec<Candidate>) {
    let target = match wanted {
        Wanted::Same(port) => Some(port),
        Wanted::Behind(port) => {
            let is_its = |of: &&SlicePort| of.name == port.name && of.protocol == port.protocol;
            let every = match port.target {
                TargetPort::Number(number) => number,
                TargetPort::Named(_) => port.port,
            };
            slice.ports.iter().find(is_its).map(|of| of.port.unwrap_or(every))
        }
    };
    let Some(target) = target else { return };
    candidates.extend(slice.endpoints.iter().map(|endpoint| Candidate {
        backend: Backend { pod: endpoint.pod.clone(), address: endpoint.address, target, node: endpoint.node.clone() },
        ready: endpoint.ready,
        serving: endpoint.serving,
        terminating: endpoint.terminating,
    }));
}

/// What a question about a port of a Service is about.
///
/// # Errors
///
/// In words, if the Service has no such port, or none at all.
pub fn wanted<'a>(service: &'a Service, asked: Option<(Protocol, u16)>) -> Result<Wanted<'a>, EndError> {
    let name = format!("{}/{}", service.namespace, service.name);
    if service.kind == ServiceKind::ExternalName {
        let target = service.external_name.as_deref().unwrap_or("a name that it does not give");
        return Err(EndError::ExternalName(name, target.to_owned()));
    }
    let Some((protocol, number)) = asked else { return Err(EndError::NoEcho(name)) };
    if service.headless {
        return Ok(Wanted::Same(number));
    }
    let offered = || {
        let ports: Vec<_> = service.ports.iter().map(|port| format!("{}/{}", port.port, port.protocol)).collect();
        if ports.is_empty() { "it has none".to_owned() } else { format!("it has {}", ports.join(", ")) }
    };
    let none = || EndError::NoServicePort(name.clone(), format!("{number}/{protocol}"), offered());
    service.port(protocol, number).map(Wanted::Behind).ok_or_else(none)
}

/// Why nobody is behind a Service that has the port.
pub fn nobody(service: &Service, backends: &Backends, family: Family) -> EndError {
    let reason = match (backends.unready, &service.selector) {
        (0, Some(_)) => format!("no pod with an address of IP{family} stands behind it"),
        (0, None) => format!("it has no selector, and no EndpointSlice of IP{family} with this port"),
        (1, _) => "its only endpoint is not ready".to_owned(),
        (unready, _) => format!("none of its {unready} endpoints is ready"),
    };
    EndError::NoEndpoint(format!("{}/{}", service.namespace, service.name), reason)
}

impl Model {
    /// Where the traffic to each address and port of each Service goes.
    pub fn endpoints(&self) -> Vec<Endpoint> {
        let mut endpoints = Vec::new();
        for service in self.services.services.iter().filter(|service| service.kind != ServiceKind::ExternalName) {
            for (address, port) in service.addresses().flat_map(|a| service.ports.iter().map(move |port| (a, port))) {
                let backends =
                    self.services.backends(service, Wanted::Behind(port), Family::of(address), self.pods()).usable;
                endpoints.extend(backends.into_iter().enumerate().map(|(index, backend)| Endpoint {
                    service: address,
                    protocol: port.protocol,
                    port: port.port,
                    address: backend.address,
                    target: backend.target,
                    index,
                    only_on: backend.node.filter(|_| service.internal_local && service.cluster_ips.contains(&address)),
                }));
            }
        }
        endpoints
    }
}
