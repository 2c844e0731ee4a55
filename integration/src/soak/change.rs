//! A change of the cluster, and how the API is told of it.

use std::fmt;
use std::net::IpAddr;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::Api;
use kube::api::PostParams;
use serde_json::{Value, json};

use crate::control_plane::ControlPlane;

/// The namespace and the name of an object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Name {
    pub(super) namespace: &'static str,
    pub(super) name: String,
}

/// Something that happens to one object.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Change {
    /// A pod is created on a node, and runs with these addresses.
    PodComes { pod: Name, node: &'static str, app: &'static str, addresses: Vec<IpAddr> },
    /// A pod gets other addresses.
    PodMoves { pod: Name, addresses: Vec<IpAddr> },
    /// The label `app` of a pod changes.
    PodLabelled { pod: Name, app: &'static str },
    /// A pod has done its work, and keeps its address.
    PodFinishes { pod: Name },
    /// A pod is deleted.
    PodGoes { pod: Name },
    /// A policy is created.
    PolicyComes { policy: Name, spec: Value },
    /// A policy is replaced.
    PolicyChanges { policy: Name, spec: Value },
    /// A policy is deleted.
    PolicyGoes { policy: Name },
    /// The label `team` of a namespace changes, or goes.
    NamespaceLabelled { namespace: &'static str, team: Option<&'static str> },
}

// === impl Name ===

impl Name {
    pub(super) fn new(namespace: &'static str, name: impl Into<String>) -> Name {
        Name { namespace, name: name.into() }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

// === impl Change ===

impl Change {
    /// What is counted together in a report.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Change::PodComes { .. } => "pod comes",
            Change::PodMoves { .. } => "pod changes its address",
            Change::PodLabelled { .. } => "pod changes its label",
            Change::PodFinishes { .. } => "pod finishes",
            Change::PodGoes { .. } => "pod goes",
            Change::PolicyComes { .. } => "policy comes",
            Change::PolicyChanges { .. } => "policy changes",
            Change::PolicyGoes { .. } => "policy goes",
            Change::NamespaceLabelled { .. } => "namespace changes its label",
        }
    }

    /// Tells the API.
    ///
    /// # Errors
    ///
    /// If it refuses; the error names the object.
    pub(super) async fn tell(&self, api: &ControlPlane) -> Result<()> {
        match self {
            Change::PodComes { pod, node, app, addresses } => {
                api.run_pod(&named_ports(pod, node, app), addresses).await.with_context(|| pod.to_string())
            }
            Change::PodMoves { pod, addresses } => {
                let moved = api.set_pod_status(pod.namespace, &pod.name, "Running", addresses).await;
                moved.with_context(|| pod.to_string())
            }
            Change::PodLabelled { pod, app } => {
                let labelled = api.label_pod(pod.namespace, &pod.name, &[("app", Some(app))]).await;
                labelled.with_context(|| pod.to_string())
            }
            Change::PodFinishes { pod } => {
                api.finish_pod(pod.namespace, &pod.name).await.with_context(|| pod.to_string())
            }
            Change::PodGoes { pod } => api.delete_pod(pod.namespace, &pod.name).await.with_context(|| pod.to_string()),
            Change::PolicyComes { policy, spec } => {
                let created = policies(api, policy).create(&PostParams::default(), &object(policy, spec)?).await;
                created.map(drop).with_context(|| policy.to_string())
            }
            Change::PolicyChanges { policy, spec } => {
                let new = object(policy, spec)?;
                let replaced = policies(api, policy).replace(&policy.name, &PostParams::default(), &new).await;
                replaced.map(drop).with_context(|| policy.to_string())
            }
            Change::PolicyGoes { policy } => {
                api.delete_policy(policy.namespace, &policy.name).await.with_context(|| policy.to_string())
            }
            Change::NamespaceLabelled { namespace, team } => {
                api.label_namespace(namespace, &[("team", *team)]).await.context(*namespace)
            }
        }
    }
}

fn policies(api: &ControlPlane, policy: &Name) -> Api<NetworkPolicy> {
    Api::namespaced(api.client(), policy.namespace)
}

fn object(policy: &Name, spec: &Value) -> Result<NetworkPolicy> {
    let metadata = json!({"namespace": policy.namespace, "name": policy.name});
    Ok(serde_json::from_value(json!({"metadata": metadata, "spec": spec}))?)
}

/// A pod whose name says at which port it serves by the name of `web`.
fn named_ports(pod: &Name, node: &str, app: &str) -> Pod {
    let port = 8000 + pod.name.len();
    let ports =
        json!([{"name": "web", "containerPort": port}, {"name": "dns", "containerPort": 53, "protocol": "UDP"}]);
    serde_json::from_value(json!({
        "metadata": {"namespace": pod.namespace, "name": pod.name, "labels": {"app": app}},
        "spec": {"nodeName": node, "containers": [{"name": "main", "image": "example.test/main", "ports": ports}]},
    }))
    .expect("the object above has the form of a Pod")
}
