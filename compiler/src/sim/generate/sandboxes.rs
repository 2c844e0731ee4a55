//! What container runtimes might say of the networks of a cluster's pods, and the ranges of their addresses.
//!
//! The API knows no such objects. They are of the kind `Sandbox` here, so that all that a cluster is made of is one list:
//! `metadata` names the pod, `uid` which pod of this name, `node` where it is, and `addresses` are its addresses.

use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::Cluster;
use super::{Place, object, place, pods};

/// A sandbox before it is known which pods there are.
#[derive(Debug, Clone)]
struct SandboxDraft {
    pod: Place,
    /// Whose addresses it has, by place; those of the pod itself if there is none.
    addresses_of: Option<usize>,
    dual: bool,
    whose: Whose,
}

#[derive(Debug, Clone, Copy)]
enum Whose {
    /// The pod's that is there.
    Present,
    /// The runtime does not say.
    Unsaid,
    /// That of a pod that had the name before.
    Former,
}

/// Clusters whose runtimes say nothing, or of some pods what their networks are.
pub(super) fn added_to(cluster: impl Strategy<Value = Cluster>) -> impl Strategy<Value = Cluster> {
    let whose = prop_oneof![6 => Just(Whose::Present), 2 => Just(Whose::Unsaid), 1 => Just(Whose::Former)];
    let addresses_of = prop_oneof![2 => Just(None), 3 => (0usize..25).prop_map(Some)];
    let draft = (place(), addresses_of, any::<bool>(), whose)
        .prop_map(|(pod, addresses_of, dual, whose)| SandboxDraft { pod, addresses_of, dual, whose });
    (cluster, vec(draft, 0..=6), vec(ranges(), 3)).prop_map(|(mut cluster, drafts, ranges)| {
        let nodes = cluster.objects.iter_mut().filter(|object| object["kind"] == "Node");
        for (node, ranges) in nodes.zip(ranges) {
            if !ranges.is_empty() {
                node["spec"] = json!({"podCIDR": ranges[0], "podCIDRs": ranges});
            }
        }
        let pods: Vec<Value> = cluster.of_kind("Pod").cloned().collect();
        if !pods.is_empty() {
            cluster.objects.extend(drafts.iter().map(|draft| draft.finish(&pods)));
        }
        cluster
    })
}

/// The ranges of the pods of a node: none, those of all pods, or of some. The addresses of nodes lie in some of them.
fn ranges() -> impl Strategy<Value = Vec<&'static str>> {
    prop_oneof![
        4 => Just(vec![]),
        4 => Just(vec!["10.0.0.0/23", "fd00::/96"]),
        2 => Just(vec!["10.0.0.0/23"]),
        1 => Just(vec!["fd00::/112", "10.0.0.0/24"]),
        1 => Just(vec!["10.0.1.0/28", "fd00::1:0/112"]),
    ]
}

impl SandboxDraft {
    fn finish(&self, pods: &[Value]) -> Value {
        let at = self.pod.below(pods.len());
        let (metadata, node) = (&pods[at]["metadata"], &pods[at]["spec"]["nodeName"]);
        let mut addresses = pods::addresses(self.addresses_of.unwrap_or(at)).to_vec();
        if !self.dual {
            addresses.truncate(1);
        }
        let uid = match self.whose {
            Whose::Present => Some(metadata["uid"].clone()),
            Whose::Unsaid => None,
            Whose::Former => Some(json!("f".repeat(32))),
        };
        object([
            ("kind", Some(json!("Sandbox"))),
            ("metadata", Some(json!({"namespace": metadata["namespace"], "name": metadata["name"]}))),
            ("uid", uid),
            ("node", Some(node.clone())),
            ("addresses", Some(json!(addresses))),
        ])
    }
}
