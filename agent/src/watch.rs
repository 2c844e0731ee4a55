//! Where events come from: the API server, or files.
//!
//! ```text
//! API     stream   one list and watch each      -> Event::{Applied, Deleted, Reset}
//! files   files    all of them, on every change -> Event::Reset
//! ```
//!
//! Streams watch what the sync thread wants to know. Namespaces, NetworkPolicies and the pods of this node always;
//! pods elsewhere, by namespace or all, only while a policy that selects a pod of this node speaks of them. Objects are
//! decoded straight into what is used of them. When the API server is away, nothing is reported, and so nothing changes.

mod failure;
pub mod files;
mod findings;
mod intern;
mod kind;
mod running;
mod stream;

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use compiler::api::NodeName;
use compiler::cluster::{Event, PodSource};
use kube::{Api, Client};
use tokio::task::{AbortHandle, JoinSet};

use crate::metrics::WatchMetrics;
use crate::readiness::Readiness;
use crate::sync::Handle;
use intern::Interner;
use kind::{Namespaces, NetworkPolicies, Pods};
use running::Running;
use stream::{Shared, Stream};

/// What of the API is watched, and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// The node whose pods are policed.
    pub node: NodeName,
    /// Whether the Namespace annotation of Kubernetes 1.3 isolates.
    pub legacy_namespace_isolation: bool,
}

/// Watches the API and reports to the sync thread, for ever.
pub async fn follow(
    client: Client,
    options: Options,
    sync: Handle,
    readiness: &Readiness,
    metrics: WatchMetrics,
) -> Infallible {
    let shared = Shared { sync, readiness: readiness.clone(), metrics, can_stream: Arc::new(AtomicBool::new(true)) };
    let mut subscriptions = shared.sync.subscriptions();
    let mut tasks = JoinSet::new();
    tasks.spawn(namespaces(&client, &options).run(shared.clone()));
    tasks.spawn(policies(&client).run(shared.clone()));
    let mut running = Running::new();
    loop {
        let wanted = subscriptions.borrow_and_update().clone();
        running.update(&wanted, AbortHandle::abort, |source, id| {
            let shared = Shared { sync: shared.sync.reporting(id), ..shared.clone() };
            tasks.spawn(pods(&client, &options.node, source.clone()).run(shared))
        });
        if subscriptions.changed().await.is_err() {
            // The sync thread has ended, and whoever started it knows.
            std::future::pending().await
        }
        // Collects the tasks that were ended, so that they do not pile up.
        while tasks.try_join_next().is_some() {}
    }
}

fn namespaces(client: &Client, options: &Options) -> Stream<Namespaces> {
    let legacy = options.legacy_namespace_isolation;
    Stream {
        api: Api::all(client.clone()),
        fields: None,
        name: "Namespaces".to_owned(),
        trim: Box::new(move |namespace| namespace.default_deny_ingress &= legacy),
        event: Box::new(Event::Namespaces),
    }
}

fn policies(client: &Client) -> Stream<NetworkPolicies> {
    Stream {
        api: Api::all(client.clone()),
        fields: None,
        name: "NetworkPolicies".to_owned(),
        trim: Box::new(|_| {}),
        event: Box::new(Event::Policies),
    }
}

/// The pods of this node, or those of other nodes: those of this node are not sent twice, and those that have ended,
/// which are nobody's peers, not at all.
fn pods(client: &Client, node: &NodeName, source: PodSource) -> Stream<Pods> {
    let elsewhere = format!("spec.nodeName!={node},status.phase!=Succeeded,status.phase!=Failed");
    let (api, fields, name) = match &source {
        PodSource::Node => (Api::all(client.clone()), format!("spec.nodeName={node}"), format!("Pods of node {node}")),
        PodSource::Namespace(namespace) => {
            (Api::namespaced(client.clone(), namespace), elsewhere, format!("Pods of namespace {namespace}"))
        }
        PodSource::Cluster => (Api::all(client.clone()), elsewhere, "Pods of the other nodes".to_owned()),
    };
    let is_local = source == PodSource::Node;
    let mut interner = Interner::default();
    Stream {
        api,
        fields: Some(fields),
        name,
        trim: Box::new(move |pod| {
            if !is_local {
                pod.host_ips = Vec::new();
            }
            interner.share(pod);
        }),
        event: Box::new(move |change| Event::Pods(source.clone(), change)),
    }
}

#[cfg(test)]
mod tests;
