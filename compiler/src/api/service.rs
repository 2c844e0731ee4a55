//! Services, as far as a throw-away cluster needs them.

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
    /// `port`: where clients send to.
    pub port: u16,
    /// `targetPort`: where the pods listen.
    pub target: TargetPort,
    /// `protocol`, TCP where absent.
    pub protocol: Protocol,
}

/// `targetPort` of a Service's port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetPort {
    /// A number; the Service's own port where the field is absent.
    Number(u16),
    /// The name of a container port, to be looked up in each pod.
    Named(Str),
}
