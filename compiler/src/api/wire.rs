//! The API's own shapes of what is watched in bulk, with the fields that are used and no others.
//!
//! A cluster has many Pods and an object is large: what is not named here is passed over while it is decoded and
//! never stored. No field fails the object by its type, see [`Lenient`](super::lenient::Lenient).

use serde::Deserialize;
use serde::de::SeqAccess;

use super::lenient::{Entries, Lenient, Record, Shape};
use super::{Str, seconds};

/// A list of `T`.
pub(super) type List<T> = Lenient<Vec<Lenient<T>>>;

/// A `v1` Pod.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct PodWire {
    pub(super) metadata: Lenient<Record<MetaWire>>,
    pub(super) spec: Lenient<Record<PodSpecWire>>,
    pub(super) status: Lenient<Record<PodStatusWire>>,
}

/// A `v1` Namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct NamespaceWire {
    pub(super) metadata: Lenient<Record<MetaWire>>,
}

/// A `v1` Service.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct ServiceWire {
    pub(super) metadata: Lenient<Record<MetaWire>>,
    pub(super) spec: Lenient<Record<ServiceSpecWire>>,
    pub(super) status: Lenient<Record<ServiceStatusWire>>,
}

/// A `discovery.k8s.io/v1` EndpointSlice.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct EndpointSliceWire {
    pub(super) metadata: Lenient<Record<MetaWire>>,
    pub(super) endpoints: List<Record<EndpointWire>>,
    pub(super) ports: List<Record<EndpointPortWire>>,
}

/// A `v1` Node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct NodeWire {
    pub(super) metadata: Lenient<Record<MetaWire>>,
    pub(super) spec: Lenient<Record<NodeSpecWire>>,
    pub(super) status: Lenient<Record<NodeStatusWire>>,
}

/// `spec` of a Node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct NodeSpecWire {
    #[serde(rename = "podCIDR")]
    pub(super) pod_cidr: Lenient<Str>,
    #[serde(rename = "podCIDRs")]
    pub(super) pod_cidrs: List<Str>,
}

/// `metadata` of any object.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct MetaWire {
    pub(super) name: Lenient<Str>,
    pub(super) namespace: Lenient<Str>,
    pub(super) uid: Lenient<Str>,
    pub(super) labels: Lenient<Entries>,
    pub(super) annotations: Lenient<Record<AnnotationsWire>>,
    pub(super) resource_version: Lenient<Str>,
    pub(super) creation_timestamp: Lenient<Str>,
    pub(super) deletion_timestamp: Lenient<Str>,
    pub(super) managed_fields: Lenient<Newest>,
}

/// The newest `time` in `metadata.managedFields`, in seconds since 1970. Nothing else of them is kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Newest(Option<i64>);

/// An entry of `metadata.managedFields`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct ManagedWire {
    time: Lenient<Seconds>,
}

/// A time of the API, in seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seconds(i64);

/// `metadata.annotations`
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct AnnotationsWire {
    #[serde(rename = "net.beta.kubernetes.io/network-policy")]
    pub(super) network_policy: Lenient<Str>,
    /// Of the image of a static pod: the id by which its kubelet knows it.
    #[serde(rename = "kubernetes.io/config.mirror")]
    pub(super) mirror: Lenient<Str>,
}

/// `spec` of a Pod.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct PodSpecWire {
    pub(super) node_name: Lenient<Str>,
    pub(super) host_network: Lenient<bool>,
    pub(super) containers: List<Record<ContainerWire>>,
    pub(super) init_containers: List<Record<ContainerWire>>,
}

/// An entry of `containers` or `initContainers`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct ContainerWire {
    pub(super) restart_policy: Lenient<Str>,
    pub(super) ports: List<Record<ContainerPortWire>>,
}

/// An entry of `ports` of a container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct ContainerPortWire {
    pub(super) name: Lenient<Str>,
    pub(super) container_port: Lenient<i64>,
    pub(super) protocol: Lenient<Str>,
}

/// `status` of a Pod.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct PodStatusWire {
    pub(super) phase: Lenient<Str>,
    #[serde(rename = "podIP")]
    pub(super) pod_ip: Lenient<Str>,
    #[serde(rename = "podIPs")]
    pub(super) pod_ips: List<Record<IpWire>>,
    #[serde(rename = "hostIP")]
    pub(super) host_ip: Lenient<Str>,
    #[serde(rename = "hostIPs")]
    pub(super) host_ips: List<Record<IpWire>>,
}

/// An entry of `podIPs` or `hostIPs`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct IpWire {
    pub(super) ip: Lenient<Str>,
}

/// `spec` of a Service.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct ServiceSpecWire {
    #[serde(rename = "type")]
    pub(super) kind: Lenient<Str>,
    #[serde(rename = "clusterIP")]
    pub(super) cluster_ip: Lenient<Str>,
    #[serde(rename = "clusterIPs")]
    pub(super) cluster_ips: List<Str>,
    #[serde(rename = "ipFamilies")]
    pub(super) ip_families: List<Str>,
    #[serde(rename = "externalIPs")]
    pub(super) external_ips: List<Str>,
    #[serde(rename = "externalName")]
    pub(super) external_name: Lenient<Str>,
    #[serde(rename = "externalTrafficPolicy")]
    pub(super) external_traffic_policy: Lenient<Str>,
    #[serde(rename = "internalTrafficPolicy")]
    pub(super) internal_traffic_policy: Lenient<Str>,
    #[serde(rename = "publishNotReadyAddresses")]
    pub(super) publish_not_ready_addresses: Lenient<bool>,
    pub(super) selector: Lenient<Entries>,
    pub(super) ports: List<Record<ServicePortWire>>,
}

/// `status` of a Service.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct ServiceStatusWire {
    pub(super) load_balancer: Lenient<Record<LoadBalancerWire>>,
}

/// `status.loadBalancer` of a Service.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct LoadBalancerWire {
    pub(super) ingress: List<Record<IpWire>>,
}

/// An entry of `endpoints` of an EndpointSlice.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct EndpointWire {
    pub(super) addresses: List<Str>,
    pub(super) conditions: Lenient<Record<EndpointConditionsWire>>,
    pub(super) node_name: Lenient<Str>,
    pub(super) target_ref: Lenient<Record<TargetRefWire>>,
}

/// `conditions` of an endpoint.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct EndpointConditionsWire {
    pub(super) ready: Lenient<bool>,
    pub(super) serving: Lenient<bool>,
    pub(super) terminating: Lenient<bool>,
}

/// `targetRef` of an endpoint.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct TargetRefWire {
    pub(super) kind: Lenient<Str>,
    pub(super) namespace: Lenient<Str>,
    pub(super) name: Lenient<Str>,
}

/// An entry of `ports` of an EndpointSlice.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct EndpointPortWire {
    pub(super) name: Lenient<Str>,
    pub(super) port: Lenient<i64>,
    pub(super) protocol: Lenient<Str>,
}

/// An entry of `ports` of a Service.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct ServicePortWire {
    pub(super) name: Lenient<Str>,
    pub(super) node_port: Lenient<i64>,
    pub(super) port: Lenient<i64>,
    pub(super) target_port: Lenient<IntOrText>,
    pub(super) protocol: Lenient<Str>,
}

/// `status` of a Node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct NodeStatusWire {
    pub(super) addresses: List<Record<NodeAddressWire>>,
}

/// An entry of `addresses` of a Node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct NodeAddressWire {
    #[serde(rename = "type")]
    pub(super) kind: Lenient<Str>,
    pub(super) address: Lenient<Str>,
}

/// The API's `IntOrString`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum IntOrText {
    /// A number.
    Int(i64),
    /// A name.
    Text(Str),
}

// === impl PodWire ===

impl PodWire {
    /// `metadata.resourceVersion`: where a watch that breaks after this object goes on.
    pub fn resource_version(&self) -> Option<&str> {
        resource_version(&self.metadata)
    }

    /// When the object was last changed, see [`changed_at`](super::changed_at).
    pub fn changed_at(&self) -> Option<i64> {
        changed_at(&self.metadata)
    }
}

// === impl NamespaceWire ===

impl NamespaceWire {
    /// `metadata.resourceVersion`: where a watch that breaks after this object goes on.
    pub fn resource_version(&self) -> Option<&str> {
        resource_version(&self.metadata)
    }

    /// When the object was last changed, see [`changed_at`](super::changed_at).
    pub fn changed_at(&self) -> Option<i64> {
        changed_at(&self.metadata)
    }
}

fn resource_version(metadata: &Lenient<Record<MetaWire>>) -> Option<&str> {
    if let Lenient::Good(Record(meta)) = metadata
        && let Lenient::Good(version) = &meta.resource_version
    {
        Some(version)
    } else {
        None
    }
}

fn changed_at(metadata: &Lenient<Record<MetaWire>>) -> Option<i64> {
    let Lenient::Good(Record(meta)) = metadata else { return None };
    let created = if let Lenient::Good(text) = &meta.creation_timestamp { seconds(text) } else { None };
    let managed = if let Lenient::Good(Newest(time)) = meta.managed_fields { time } else { None };
    created.max(managed)
}

// === impl Newest ===

impl<'de> Shape<'de> for Newest {
    const DUE: &'static str = "a list";

    fn from_list<A: SeqAccess<'de>>(mut entries: A) -> Result<Option<Newest>, A::Error> {
        let mut newest = None;
        while let Some(entry) = entries.next_element::<Lenient<Record<ManagedWire>>>()? {
            if let Lenient::Good(Record(ManagedWire { time: Lenient::Good(Seconds(time)) })) = entry {
                newest = newest.max(Some(time));
            }
        }
        Ok(Some(Newest(newest)))
    }
}

// === impl Seconds ===

impl Shape<'_> for Seconds {
    const DUE: &'static str = "a time";

    fn from_text(text: &str) -> Option<Seconds> {
        seconds(text).map(Seconds)
    }
}

// === impl IntOrText ===

impl Shape<'_> for IntOrText {
    const DUE: &'static str = "a number or a string";

    fn from_text(text: &str) -> Option<Self> {
        Some(IntOrText::Text(Str::from(text)))
    }

    fn from_integer(number: i64) -> Option<Self> {
        Some(IntOrText::Int(number))
    }
}
