//! Where events come from: the API server, or files.
//!
//! ```text
//! API     stream   one list and watch each      -> Event::{Applied, Deleted, Reset}
//! files   files    all of them, on every change -> Event::Reset
//! ```
//!
//! Streams watch what the sync thread wants to know. Namespaces, NetworkPolicies and the pods of this node always;
//! pods elsewhere, by namespace and labels, only while a policy that selects a pod of this node speaks of them. Objects are
//! decoded straight into what is used of them. When the API server is away, nothing is reported, and so nothing changes.

mod access;
mod body;
mod connect;
mod failure;
pub mod files;
mod findings;
mod freshness;
mod intern;
mod kind;
mod large;
mod list;
mod request;
mod running;
mod stream;
mod told;
mod version;
mod wire;

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use compiler::api::{NodeName, Pod, PodKey};
use compiler::cluster::{Change, Event, PodQuery, PodSource};
use tokio::task::{AbortHandle, JoinSet};

use crate::metrics::WatchMetrics;
use crate::readiness::Readiness;
use crate::sync::Handle;
pub use access::Access;
pub(crate) use access::Seat;
pub use freshness::Freshness;
use intern::Interner;
use kind::{Kind, Namespaces, NetworkPolicies, Pods};
use large::Reader;
use request::Collection;
use running::Running;
use stream::{Shared, Stream};

/// How much the log and `/readyz` say of what a watch asks for, in bytes.
const LONGEST_NAME: usize = 200;

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
    access: Access,
    options: Options,
    sync: Handle,
    readiness: &Readiness,
    metrics: WatchMetrics,
) -> Infallible {
    let can_stream = Arc::new(AtomicBool::new(true));
    let reader = Reader::new();
    let shared = Shared { access, sync, readiness: readiness.clone(), metrics, can_stream, reader };
    let mut subscriptions = shared.sync.subscriptions();
    let mut tasks = JoinSet::new();
    tasks.spawn(namespaces(&options).run(shared.clone()));
    tasks.spawn(policies().run(shared.clone()));
    let mut running = Running::new();
    loop {
        let wanted = subscriptions.borrow_and_update().clone();
        running.update(&wanted, AbortHandle::abort, |source, id| {
            let shared = Shared { sync: shared.sync.reporting(id), ..shared.clone() };
            tasks.spawn(pods(&options.node, source.clone()).run(shared))
        });
        if subscriptions.changed().await.is_err() {
            // The sync thread has ended, and whoever started it knows.
            std::future::pending().await
        }
        // Collects the tasks that were ended, so that they do not pile up.
        while tasks.try_join_next().is_some() {}
    }
}

fn namespaces(options: &Options) -> Stream<Namespaces> {
    let legacy = options.legacy_namespace_isolation;
    Stream {
        collection: Collection { path: Namespaces::path(None), fields: None, labels: None },
        name: "Namespaces".to_owned(),
        trim: Box::new(move |namespace| namespace.default_deny_ingress &= legacy),
        event: Box::new(Event::Namespaces),
    }
}

fn policies() -> Stream<NetworkPolicies> {
    Stream {
        collection: Collection { path: NetworkPolicies::path(None), fields: None, labels: None },
        name: "NetworkPolicies".to_owned(),
        trim: Box::new(|_| {}),
        event: Box::new(Event::Policies),
    }
}

/// The pods of this node, or some of other nodes: those of this node are not sent twice, and those that have no address or
/// have ended, which are nobody's peers, not at all.
fn pods(node: &NodeName, source: PodSource) -> Stream<Pods> {
    let elsewhere = format!("spec.nodeName!={node},status.podIP!=,status.phase!=Succeeded,status.phase!=Failed");
    let (query, fields, name) = match source.query() {
        Some(query) => {
            let name = shortened(query.to_string());
            (query, elsewhere, name)
        }
        None => (PodQuery::of_all(), format!("spec.nodeName={node}"), format!("Pods of node {node}")),
    };
    let labels = (!query.labels.is_everything()).then(|| query.labels.to_string());
    let collection = Collection { path: Pods::path(query.namespace.as_deref()), fields: Some(fields), labels };
    let is_local = source == PodSource::Node;
    let mut interner = Interner::default();
    Stream {
        collection,
        name,
        trim: Box::new(move |pod| {
            if !is_local {
                pod.host_ips = Vec::new();
            }
            interner.share(pod);
        }),
        event: Box::new(move |change| {
            let change = if is_local { change } else { without_bystanders(change) };
            Event::Pods(source.clone(), change)
        }),
    }
}

/// The same without pods that nobody means, such as those on their node's network.
fn without_bystanders(change: Change<Pod, PodKey>) -> Change<Pod, PodKey> {
    match change {
        Change::Applied(pod) if !pod.is_policed() => Change::Deleted(pod.key),
        Change::Reset(mut pods) => {
            pods.retain(Pod::is_policed);
            Change::Reset(pods)
        }
        Change::Applied(_) | Change::Deleted(_) => change,
    }
}

/// A name that fits on a line, whatever it says of labels.
fn shortened(mut name: String) -> String {
    if name.len() > LONGEST_NAME {
        // Names and labels are ASCII.
        name.truncate(LONGEST_NAME);
        name.push_str("...");
    }
    name
}

#[cfg(test)]
mod tests;
