//! Pods.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Place, labels, list, node_addresses, node_name, object, place, ports};

/// A pod before it has its name, its namespace, its node and its addresses.
#[derive(Debug, Clone)]
pub(super) struct PodDraft {
    namespace: Place,
    node: Place,
    kind: Kind,
    families: Families,
    /// The pod's addresses are those of the pod with this index, which may or may not exist.
    shares_with: Option<usize>,
    labels: Option<Value>,
    containers: Option<Value>,
    init_containers: Option<Value>,
    /// Larger is newer.
    age: u8,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Running,
    Pending,
    Unknown,
    /// A manifest that says nothing of the phase.
    Unsaid,
    Terminating,
    Succeeded,
    Failed,
    HostNetwork,
}

#[derive(Debug, Clone, Copy)]
enum Families {
    None,
    V4,
    V6,
    Both,
    /// Both, the other one first.
    V6First,
}

pub(super) fn pod() -> impl Strategy<Value = PodDraft> {
    let kind = prop_oneof![
        10 => Just(Kind::Running),
        1 => Just(Kind::Pending),
        1 => Just(Kind::Unknown),
        1 => Just(Kind::Unsaid),
        1 => Just(Kind::Terminating),
        1 => Just(Kind::Succeeded),
        1 => Just(Kind::Failed),
        2 => Just(Kind::HostNetwork),
    ];
    let families = prop_oneof![
        6 => Just(Families::Both),
        3 => Just(Families::V4),
        2 => Just(Families::V6),
        1 => Just(Families::V6First),
        1 => Just(Families::None),
    ];
    let sidecar = option::of(Just(json!("Always")));
    let init_container = (sidecar, ports::of_container()).prop_map(|(restart, ports)| {
        object([("name", Some(json!("i"))), ("restartPolicy", restart), ("ports", ports)])
    });
    let container = ports::of_container().prop_map(|ports| object([("name", Some(json!("c"))), ("ports", ports)]));
    let containers = vec(container, 1..=2).prop_map(|containers| Some(json!(containers)));
    let place = (place(), place(), option::weighted(0.2, 0usize..20), any::<u8>());
    (place, kind, families, labels::map(), containers, list(init_container, 2)).prop_map(
        |((namespace, node, shares_with, age), kind, families, labels, containers, init_containers)| PodDraft {
            namespace,
            node,
            kind,
            families,
            shares_with,
            labels,
            containers,
            init_containers,
            age,
        },
    )
}

impl PodDraft {
    pub(super) fn finish(self, index: usize, nodes: usize, namespaces: &[String]) -> Value {
        let node = self.node.below(nodes);
        let host_network = matches!(self.kind, Kind::HostNetwork);
        let addresses = if host_network { node_addresses(node) } else { addresses(self.shares_with.unwrap_or(index)) };
        let [v4, v6] = addresses.map(|address| json!({"ip": address}));
        let pod_ips = match self.families {
            Families::None => vec![],
            Families::V4 => vec![v4],
            Families::V6 => vec![v6],
            Families::Both => vec![v4, v6],
            Families::V6First => vec![v6, v4],
        };
        let phase = match self.kind {
            Kind::Running | Kind::Terminating | Kind::HostNetwork => Some("Running"),
            Kind::Pending => Some("Pending"),
            Kind::Unknown => Some("Unknown"),
            Kind::Unsaid => None,
            Kind::Succeeded => Some("Succeeded"),
            Kind::Failed => Some("Failed"),
        };
        let deleted = matches!(self.kind, Kind::Terminating).then(|| json!("2026-03-01T00:00:00Z"));
        // No two pods are of one age: the index tells apart those that were drawn alike.
        let created = format!("2026-02-01T{:02}:{:02}:{index:02}Z", self.age / 60, self.age % 60);
        let metadata = object([
            ("name", Some(json!(format!("pod-{index}")))),
            ("namespace", Some(json!(self.namespace.of(namespaces)))),
            ("uid", Some(json!(format!("{index:032x}")))),
            ("labels", self.labels),
            ("creationTimestamp", Some(json!(created))),
            ("deletionTimestamp", deleted),
        ]);
        let spec = object([
            ("nodeName", Some(json!(node_name(node)))),
            ("hostNetwork", host_network.then_some(json!(true))),
            ("containers", self.containers),
            ("initContainers", self.init_containers),
        ]);
        let status = object([
            ("phase", phase.map(Value::from)),
            ("podIP", pod_ips.first().map(|entry| entry["ip"].clone())),
            ("podIPs", (!pod_ips.is_empty()).then(|| json!(pod_ips))),
        ]);
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec, "status": status})
    }
}

/// The addresses of a pod that shares them with none. They run across the border of two /24, so that CIDRs of all sizes
/// begin and end among them.
pub(super) fn addresses(index: usize) -> [String; 2] {
    let (third, fourth) = ((250 + index) / 256, (250 + index) % 256);
    [format!("10.0.{third}.{fourth}"), format!("fd00::{third}:{fourth:x}")]
}
