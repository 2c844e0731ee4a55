//! Kubernetes objects, read once and made plain.
//!
//! This is the last place where the API's own shapes are seen. What leaves here has its defaults applied, its
//! strings parsed, and nothing optional that the API does not mean to be optional. Reading never fails as a
//! whole where a part can be saved: what cannot be understood becomes a [`Finding`] and matches nothing, and a
//! policy that is broken still isolates the pods that it selects.
//!
//! Sources: the API reference of `networking.k8s.io/v1` NetworkPolicy, and of `v1` Pod and Namespace.

mod endpoint_slice;
mod finding;
mod findings;
mod ip_block;
mod json;
mod labels;
mod lenient;
mod link_name;
mod name;
mod namespace;
mod network_policy;
mod node;
mod parse;
mod peer_list;
mod pod;
mod pod_peers;
mod port;
mod reader;
mod selector;
mod selector_index;
mod service;
mod text;
mod wire;
mod workload;

pub use endpoint_slice::{EndpointSlice, SliceEndpoint, SlicePort};
pub use finding::{Finding, ObjectRef, Parsed};
pub use ip_block::IpBlock;
pub use json::Json;
pub use labels::Labels;
pub use link_name::LinkName;
pub use name::{NodeName, PodKey, PodUid, PolicyKey, Str};
pub use namespace::Namespace;
pub use network_policy::{
    ApiGeneration, Direction, NamespaceScope, NetworkPolicy, Peer, Peers, PodSelector, Ports, Revision, Rule,
};
pub use node::Node;
pub use parse::{Doubt, InvalidObject, Item, Object, SkippedKind, changed_at, parse, parse_network_policy, seconds};
pub use peer_list::PeerList;
pub use pod::{ContainerPort, Phase, Pod};
pub use pod_peers::PodPeers;
pub use port::{Port, PortMatch, PortRange, Protocol};
pub use selector::{Operator, Requirement, Selector};
pub(crate) use selector_index::{SelectorIndex, Wanted, wanted};
pub use service::{Service, ServiceKind, ServicePort, TargetPort};
pub use text::escaped;
pub use wire::{NamespaceWire, PodWire};
pub use workload::{PodCount, Workload, WorkloadKey, WorkloadKind};
