//! A cluster as its manifests.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use serde_json::Value;

use super::to_yaml;
use crate::Compiler;
use crate::api::{Finding, Item, Namespace, NetworkPolicy, Node, NodeName, Object, Pod, PodKey, PodUid, Str, parse};
use crate::cluster::{Change, Event, PodSource, Sandbox};
use crate::nft::{Deny, Table};
use crate::policy::Ir;

/// The objects of a cluster. Prints as YAML.
#[derive(Clone, PartialEq, Default)]
pub struct Cluster {
    /// Nodes, Namespaces, Pods and NetworkPolicies; and what the nodes' container runtimes say, which is no object of the
    /// API: `{kind: Sandbox, metadata: {namespace, name}, uid, node, addresses}`.
    pub objects: Vec<Value>,
}

/// What the compiler makes of a cluster at one node.
#[derive(Debug, Clone)]
pub struct Compiled {
    /// Who may talk to whom.
    pub ir: Ir,
    /// What enforces it.
    pub table: Table,
    /// What enforces it where every pod is led to its policies by peer, however few they are.
    pub by_peer: Table,
}

/// The objects as the compiler reads them.
#[derive(Debug, Clone, Default)]
pub struct ParsedCluster {
    /// The Namespaces.
    pub namespaces: Vec<Namespace>,
    /// The Pods.
    pub pods: Vec<Pod>,
    /// The NetworkPolicies.
    pub policies: Vec<NetworkPolicy>,
    /// The Nodes.
    pub nodes: Vec<Node>,
    /// The sandboxes, each with its node.
    pub sandboxes: Vec<(NodeName, Sandbox)>,
    /// What is wrong with any of them.
    pub findings: Vec<Finding>,
}

impl Cluster {
    /// The objects of one kind.
    pub fn of_kind<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Value> {
        self.objects.iter().filter(move |object| object["kind"] == kind)
    }

    /// The names of the nodes.
    pub fn node_names(&self) -> impl Iterator<Item = &str> {
        self.of_kind("Node").filter_map(|node| node["metadata"]["name"].as_str())
    }

    /// The same cluster with something done to each object.
    pub fn changed(&self, mut change: impl FnMut(&mut Value)) -> Cluster {
        let mut cluster = self.clone();
        cluster.objects.iter_mut().for_each(&mut change);
        cluster
    }

    /// Reads all objects.
    pub fn parse(&self) -> ParsedCluster {
        let mut read =
            ParsedCluster { sandboxes: self.of_kind("Sandbox").filter_map(sandbox).collect(), ..Default::default() };
        for item in self.objects.iter().flat_map(|object| parse(&object.into(), "unnamed")) {
            let Item::Object { parsed, .. } = item else { continue };
            read.findings.extend(parsed.findings);
            match parsed.value {
                Object::Namespace(namespace) => read.namespaces.push(namespace),
                Object::Pod(pod) => read.pods.push(pod),
                Object::NetworkPolicy(policy) => read.policies.push(policy),
                Object::Node(node) => read.nodes.push(node),
                Object::Service(_) | Object::EndpointSlice(_) => {}
            }
        }
        read
    }

    /// Compiles the cluster at every node.
    pub fn compile(&self, deny: Deny) -> BTreeMap<String, Compiled> {
        let read = self.parse();
        self.node_names()
            .map(|name| {
                let node = NodeName(name.into());
                let compiler = || Compiler::new(node.clone(), deny);
                let [mut compiler, mut by_peer] = [compiler(), compiler().with_most_jumps(0)];
                let of_node = [Event::Sandboxes(read.sandboxes_of(&node)), Event::PodRanges(read.pod_ranges_of(&node))];
                for event in read.events().into_iter().chain(of_node) {
                    compiler.apply(event.clone());
                    by_peer.apply(event);
                }
                let (ir, table, by_peer) = (compiler.ir(), compiler.table(), by_peer.table());
                (name.to_string(), Compiled { ir, table, by_peer })
            })
            .collect()
    }
}

impl ParsedCluster {
    /// What the container runtime of a node says.
    pub fn sandboxes_of(&self, node: &NodeName) -> Vec<Sandbox> {
        let of_node = self.sandboxes.iter().filter(|(of, _)| of == node);
        of_node.map(|(_, sandbox)| sandbox.clone()).collect()
    }

    /// The ranges of the pods of a node.
    pub fn pod_ranges_of(&self, node: &NodeName) -> Vec<IpNet> {
        let of_node = self.nodes.iter().filter(|of| of.name == *node);
        of_node.flat_map(|of| of.pod_ranges.iter().copied()).collect()
    }

    /// The objects as watches list them.
    pub fn events(&self) -> [Event; 3] {
        [
            Event::Namespaces(Change::Reset(self.namespaces.clone())),
            Event::Policies(Change::Reset(self.policies.clone())),
            Event::Pods(PodSource::Cluster, Change::Reset(self.pods.clone())),
        ]
    }
}

/// A sandbox as it stands among the objects, with its node.
fn sandbox(object: &Value) -> Option<(NodeName, Sandbox)> {
    let text = |value: &Value| value.as_str().map(Str::from);
    let metadata = &object["metadata"];
    let addresses = object["addresses"].as_array()?.iter();
    let addresses: BTreeSet<IpAddr> = addresses.filter_map(|address| address.as_str()?.parse().ok()).collect();
    let sandbox = Sandbox {
        pod: PodKey { namespace: text(&metadata["namespace"])?, name: text(&metadata["name"])? },
        uid: object["uid"].as_str().and_then(PodUid::parse),
        addresses: addresses.into_iter().collect(),
        link: None,
    };
    Some((NodeName(text(&object["node"])?), sandbox))
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&to_yaml(&self.objects))
    }
}
