//! EndpointSlices: what stands behind a Service at the moment.

use std::net::IpAddr;

use super::{NodeName, PodKey, Protocol, Str};

/// An EndpointSlice: some of the endpoints of a Service, of one family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointSlice {
    /// `metadata.namespace`
    pub namespace: Str,
    /// `metadata.name`
    pub name: Str,
    /// The label `kubernetes.io/service-name`: the Service of the same namespace whose endpoints these are.
    pub service: Option<Str>,
    /// `endpoints`, but for those that have a DNS name for their address.
    pub endpoints: Vec<SliceEndpoint>,
    /// `ports`
    pub ports: Vec<SlicePort>,
}

/// One entry of `endpoints` of an EndpointSlice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SliceEndpoint {
    /// The first of `addresses`, the only one that is used (all of them mean the same endpoint).
    pub address: IpAddr,
    /// `conditions.ready`, true where absent.
    pub ready: bool,
    /// `conditions.serving`, as `ready` where absent: whether it answers, though it may be terminating.
    pub serving: bool,
    /// `conditions.terminating`
    pub terminating: bool,
    /// `nodeName`
    pub node: Option<NodeName>,
    /// `targetRef`, where it is a Pod.
    pub pod: Option<PodKey>,
}

/// One entry of `ports` of an EndpointSlice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlicePort {
    /// `name`: that of the Service's port; empty where that has none.
    pub name: Str,
    /// `protocol`, TCP where absent.
    pub protocol: Protocol,
    /// `port`; `None` for all ports.
    pub port: Option<u16>,
}
