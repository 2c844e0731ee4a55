//! A cluster as its manifests.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;

use super::to_yaml;
use crate::Compiler;
use crate::api::{Finding, Item, Namespace, NetworkPolicy, NodeName, Object, Pod, parse};
use crate::cluster::{Change, Event, PodSource};
use crate::nft::{Deny, Table};
use crate::policy::Ir;

/// The objects of a cluster. Prints as YAML.
#[derive(Clone, PartialEq, Default)]
pub struct Cluster {
    /// Nodes, Namespaces, Pods and NetworkPolicies.
    pub objects: Vec<Value>,
}

/// What the compiler makes of a cluster at one node.
#[derive(Debug, Clone)]
pub struct Compiled {
    /// Who may talk to whom.
    pub ir: Ir,
    /// What enforces it.
    pub table: Table,
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
        let mut read = ParsedCluster::default();
        for item in self.objects.iter().flat_map(|object| parse(object, "unnamed")) {
            let Item::Object { parsed, .. } = item else { continue };
            read.findings.extend(parsed.findings);
            match parsed.value {
                Object::Namespace(namespace) => read.namespaces.push(namespace),
                Object::Pod(pod) => read.pods.push(pod),
                Object::NetworkPolicy(policy) => read.policies.push(policy),
                Object::Service(_) | Object::EndpointSlice(_) | Object::Node(_) => {}
            }
        }
        read
    }

    /// Compiles the cluster at every node.
    pub fn compile(&self, deny: Deny) -> BTreeMap<String, Compiled> {
        let read = self.parse();
        self.node_names()
            .map(|name| {
                let mut compiler = Compiler::new(NodeName(name.into()), deny);
                for event in read.events() {
                    compiler.apply(event);
                }
                (name.to_string(), Compiled { ir: compiler.ir(), table: compiler.table() })
            })
            .collect()
    }
}

impl ParsedCluster {
    /// The objects as watches list them.
    pub fn events(&self) -> [Event; 3] {
        [
            Event::Namespaces(Change::Reset(self.namespaces.clone())),
            Event::Policies(Change::Reset(self.policies.clone())),
            Event::Pods(PodSource::Cluster, Change::Reset(self.pods.clone())),
        ]
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&to_yaml(&self.objects))
    }
}
