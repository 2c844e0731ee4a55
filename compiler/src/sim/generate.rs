//! Clusters of any kind that an API server would hold, small enough to read.
//!
//! Everything is drawn from few names, labels, addresses and ports, so that things meet: two policies select one pod,
//! a CIDR ends where a pod's address begins, two pods give one port name two numbers. Two clusters that are drawn apart
//! have most of their names in common, so that one is a later state of the other.

mod labels;
mod pods;
mod policies;
mod ports;
mod sandboxes;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::strategy::ValueTree;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};
use serde_json::{Map, Value, json};

use super::Cluster;
use pods::PodDraft;
use policies::PolicyDraft;

/// What is decided about objects before it is known which others exist.
#[derive(Debug, Clone)]
struct Draft {
    nodes: usize,
    namespaces: Vec<Value>,
    pods: Vec<PodDraft>,
    policies: Vec<PolicyDraft>,
}

/// A place in a list whose length is not known yet.
#[derive(Debug, Clone)]
struct Place(Index);

/// Clusters of 1 to 3 nodes, 1 to 5 namespaces, 0 to 20 pods and 0 to 8 policies.
pub fn cluster() -> impl Strategy<Value = Cluster> {
    (1usize..=3, vec(namespace(), 1..=5), vec(pods::pod(), 0..=20), vec(policies::policy(), 0..=8))
        .prop_map(|(nodes, namespaces, pods, policies)| Draft { nodes, namespaces, pods, policies }.finish())
}

/// The same, where container runtimes say of some pods what their networks are.
pub fn cluster_with_sandboxes() -> impl Strategy<Value = Cluster> {
    sandboxes::added_to(cluster())
}

/// The same without end.
pub fn clusters_with_sandboxes(seed: u64) -> impl Iterator<Item = Cluster> {
    let mut runner = runner(seed);
    std::iter::repeat_with(move || cluster_with_sandboxes().new_tree(&mut runner).expect(NEVER_REJECTS).current())
}

/// Clusters without end, the same for the same seed.
pub fn clusters(seed: u64) -> impl Iterator<Item = Cluster> {
    let mut runner = runner(seed);
    std::iter::repeat_with(move || cluster().new_tree(&mut runner).expect(NEVER_REJECTS).current())
}

/// Something that draws the same for the same seed.
pub(super) fn runner(seed: u64) -> TestRunner {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    TestRunner::new_with_rng(ProptestConfig::default(), TestRng::from_seed(RngAlgorithm::ChaCha, &bytes))
}

/// Why a cluster can always be drawn.
pub(super) const NEVER_REJECTS: &str = "no strategy here rejects what it draws";

impl Draft {
    /// Gives everything its name and its place.
    fn finish(self) -> Cluster {
        let Draft { nodes, mut namespaces, pods, policies } = self;
        for (namespace, name) in namespaces.iter_mut().zip('a'..) {
            namespace["metadata"]["name"] = json!(name.to_string());
            // What the API server sets on every Namespace.
            namespace["metadata"]["labels"]["kubernetes.io/metadata.name"] = json!(name.to_string());
        }
        let names: Vec<String> =
            namespaces.iter().map(|n| n["metadata"]["name"].as_str().unwrap_or("").into()).collect();
        let mut objects: Vec<Value> = (0..nodes).map(node).collect();
        objects.extend(namespaces);
        objects.extend(pods.into_iter().enumerate().map(|(index, pod)| pod.finish(index, nodes, &names)));
        objects.extend(policies.into_iter().enumerate().map(|(index, policy)| policy.finish(index, &names)));
        Cluster { objects }
    }
}

/// The name of a node.
fn node_name(index: usize) -> String {
    format!("node-{index}")
}

/// The addresses of a node, next to those of the pods.
fn node_addresses(index: usize) -> [String; 2] {
    [format!("10.0.1.{}", 254 - index), format!("fd00::1:{:x}", 254 - index)]
}

fn node(index: usize) -> Value {
    let addresses = node_addresses(index).map(|address| json!({"type": "InternalIP", "address": address}));
    json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": node_name(index)}, "status": {"addresses": addresses},
    })
}

/// A Namespace without its name, perhaps isolated as Kubernetes 1.3 did it.
fn namespace() -> impl Strategy<Value = Value> {
    let annotation = prop_oneof![
        12 => Just(None),
        1 => Just(Some(r#"{"ingress":{"isolation":"DefaultDeny"}}"#)),
        1 => Just(Some("{}")),
    ];
    (labels::map(), annotation).prop_map(|(labels, annotation)| {
        let annotations = annotation.map(|text| json!({"net.beta.kubernetes.io/network-policy": text}));
        let mut metadata = json!({"name": null, "labels": labels.unwrap_or(json!({}))});
        if let Some(annotations) = annotations {
            metadata["annotations"] = annotations;
        }
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
    })
}

/// A list that may be absent, or empty, or have a few entries.
fn list(entry: impl Strategy<Value = Value>, most: usize) -> impl Strategy<Value = Option<Value>> {
    prop_oneof![
        1 => Just(None),
        1 => Just(Some(json!([]))),
        6 => vec(entry, 1..=most).prop_map(|entries| Some(Value::Array(entries))),
    ]
}

/// An object of those fields that are there.
fn object<const N: usize>(fields: [(&str, Option<Value>); N]) -> Value {
    let present = fields.into_iter().filter_map(|(name, value)| Some((name.to_string(), value?)));
    Value::Object(present.collect::<Map<String, Value>>())
}

fn place() -> impl Strategy<Value = Place> {
    any::<Index>().prop_map(Place)
}

impl Place {
    fn of<'a, T>(&self, list: &'a [T]) -> &'a T {
        self.0.get(list)
    }

    fn below(&self, bound: usize) -> usize {
        self.0.index(bound)
    }
}
