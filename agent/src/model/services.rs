//! Services: where their traffic ends up.

use std::net::IpAddr;

use compiler::api::{Pod, Protocol, Service, ServiceKind, ServicePort, TargetPort};
use compiler::nft::Family;

use super::Model;

/// A port of a Service, and a pod's address and port behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    /// The address of the Service.
    pub service: IpAddr,
    /// The protocol.
    pub protocol: Protocol,
    /// The port of the Service.
    pub port: u16,
    /// The address of the pod.
    pub address: IpAddr,
    /// The port of the pod.
    pub target: u16,
}

impl Model {
    /// Where the traffic to each address and port of each Service goes: to the first ready pod by name. A real cluster
    /// spreads it over all of them; here the same probe must mean the same packet each time.
    pub fn endpoints(&self) -> Vec<Endpoint> {
        self.services.iter().flat_map(|service| self.endpoints_of(service)).collect()
    }

    fn endpoints_of(&self, service: &Service) -> Vec<Endpoint> {
        let mut endpoints = Vec::new();
        if service.kind == ServiceKind::ExternalName {
            return endpoints;
        }
        for cluster_ip in &service.cluster_ips {
            for port in &service.ports {
                let behind = self.pods().filter(|pod| stands_behind(service, pod));
                endpoints.extend(behind.filter_map(|pod| endpoint(*cluster_ip, port, pod)).next());
            }
        }
        endpoints
    }
}

fn stands_behind(service: &Service, pod: &Pod) -> bool {
    let selected = |selector: &compiler::api::Labels| {
        selector.iter().next().is_some() && selector.iter().all(|(key, value)| pod.labels.get(key) == Some(value))
    };
    let ready = !pod.phase.is_finished() && !pod.terminating;
    ready && pod.key.namespace == service.namespace && service.selector.as_ref().is_some_and(selected)
}

fn endpoint(service: IpAddr, port: &ServicePort, pod: &Pod) -> Option<Endpoint> {
    let address = pod.ips.iter().find(|address| Family::of(**address) == Family::of(service))?;
    let target = match &port.target {
        TargetPort::Number(number) => *number,
        TargetPort::Named(name) => {
            pod.ports.iter().find(|declared| declared.name == *name && declared.protocol == port.protocol)?.number
        }
    };
    Some(Endpoint { service, protocol: port.protocol, port: port.port, address: *address, target })
}
