//! Services, as far as questions about them and a throw-away cluster need them.

use std::net::IpAddr;

use super::{Labels, Protocol, Str};

/// A Service: addresses that stand for the pods behind it. Policies never see them, since traffic is judged
/// after its destination has been translated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// `metadata.namespace`
    pub namespace: Str,
    /// `metadata.name`
    pub name: Str,
    /// `spec.type`
    pub kind: ServiceKind,
    /// `spec.clusterIPs`, and `spec.clusterIP` where that list is absent. Empty for a headless Service, and where
    /// the manifest leaves the choice to the API server.
    pub cluster_ips: Vec<IpAddr>,
    /// Whether `spec.clusterIP` is `None`: the Service's name stands for the addresses of its endpoints.
    pub headless: bool,
    /// `spec.ipFamilies`: whether each entry is IPv4. Empty where the manifest leaves the choice to the API server.
    pub families_are_v4: Vec<bool>,
    /// `spec.externalIPs`: addresses outside that nodes take for the Service's.
    pub external_ips: Vec<IpAddr>,
    /// The addresses of `status.loadBalancer.ingress`.
    pub balancer_ips: Vec<IpAddr>,
    /// `spec.externalName`: the name for which an ExternalName Service stands.
    pub external_name: Option<Str>,
    /// `spec.publishNotReadyAddresses`: whether pods that are not ready count, too.
    pub publish_not_ready: bool,
    /// Whether `spec.externalTrafficPolicy` is `Local`: traffic from outside stays on its node and keeps its source.
    pub external_local: bool,
    /// Whether `spec.internalTrafficPolicy` is `Local`: traffic from inside stays on its node.
    pub internal_local: bool,
    /// `spec.selector`: labels that a pod of the same namespace must all have. `None` where the Service selects
    /// nothing by itself.
    pub selector: Option<Labels>,
    /// `spec.ports`
    pub ports: Vec<ServicePort>,
}

/// `spec.type` of a Service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ServiceKind {
    /// An address inside the cluster; the default.
    ClusterIp,
    /// That, and a port of every node.
    NodePort,
    /// That, and an address outside.
    LoadBalancer,
    /// Only a name for another name.
    ExternalName,
}

/// One entry of `spec.ports` of a Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePort {
    /// `name`; empty where the Service has one port and does not name it.
    pub name: Str,
    /// `port`: where clients send to.
    pub port: u16,
    /// `targetPort`: where the pods listen.
    pub target: TargetPort,
    /// `protocol`, TCP where absent.
    pub protocol: Protocol,
    /// `nodePort`: where every node takes traffic for the Service.
    pub node_port: Option<u16>,
}

impl Service {
    /// All addresses that stand for it, those inside the cluster first.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.cluster_ips.iter().chain(&self.external_ips).chain(&self.balancer_ips).copied()
    }

    /// The port of this number and protocol.
    pub fn port(&self, protocol: Protocol, number: u16) -> Option<&ServicePort> {
        self.ports.iter().find(|port| port.protocol == protocol && port.port == number)
    }
}

/// `targetPort` of a Service's port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetPort {
    /// A number; the Service's own port where the field is absent.
    Number(u16),
    /// The name of a container port, to be looked up in each pod.
    Named(Str),
}
