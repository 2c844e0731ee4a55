//! What a watch reports.

use std::sync::Arc;

use ipnet::IpNet;

use super::{Link, PodQuery, Sandbox};
use crate::api::{Namespace, NetworkPolicy, Pod, PodKey, PolicyKey, Str};

/// Something that happened to the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// To the pods of one watch.
    Pods(PodSource, Change<Pod, PodKey>),
    /// To the Namespaces.
    Namespaces(Change<Namespace, Str>),
    /// To the NetworkPolicies.
    Policies(Change<NetworkPolicy, PolicyKey>),
    /// To the links of the node: these may lead to pods, and no others.
    Links(Vec<Link>),
    /// To the networks of this node's pods, by its container runtime: these stand, and no others. One stands as long as
    /// the network runs, and no longer.
    Sandboxes(Vec<Sandbox>),
    /// To the ranges from which this node gives its pods addresses: these, or none that are known.
    PodRanges(Vec<IpNet>),
}

/// What happened to objects of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change<T, K> {
    /// The object was created or changed, or is reported again as it is.
    Applied(T),
    /// The object is gone.
    Deleted(K),
    /// A list: these objects exist, and no others. Deletions may be known by nothing else.
    Reset(Vec<T>),
}

/// The watch that reports a pod. A pod may be reported by several; each speaks for itself, so that the end of one
/// watch, or a pod's leaving the labels that one asks for, does not take away what another still sees. Where they differ,
/// the newest version is believed, and of equal ones the first in this order.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PodSource {
    /// Nobody any more: the pod is gone or has finished by what was reported, but its network still runs: it has a
    /// [`Sandbox`], or the node still routes its address to a link of its own. It is kept as it was until that ends. No watch reports it.
    Lingering,
    /// The pods of this node.
    Node,
    /// The pods of other nodes with some labels.
    Labelled(Arc<PodQuery>),
    /// The pods of one namespace, on whichever node.
    Namespace(Str),
    /// All pods. A folder of manifests is one such source.
    Cluster,
}

impl PodSource {
    /// What a watch of pods of other nodes asks for.
    pub fn query(&self) -> Option<PodQuery> {
        match self {
            PodSource::Lingering | PodSource::Node => None,
            PodSource::Labelled(query) => Some(PodQuery::clone(query)),
            PodSource::Namespace(name) => Some(PodQuery::of_namespace(name.clone())),
            PodSource::Cluster => Some(PodQuery::of_all()),
        }
    }
}

impl From<PodQuery> for PodSource {
    fn from(query: PodQuery) -> PodSource {
        match (&query.namespace, query.labels.is_everything()) {
            (None, true) => PodSource::Cluster,
            (Some(name), true) => PodSource::Namespace(name.clone()),
            (_, false) => PodSource::Labelled(Arc::new(query)),
        }
    }
}

impl Event {
    /// The kind of the objects, as metrics and logs name it.
    pub fn kind(&self) -> &'static str {
        match self {
            Event::Pods(..) => "Pod",
            Event::Namespaces(_) => "Namespace",
            Event::Policies(_) => "NetworkPolicy",
            Event::Links(_) => "Link",
            Event::Sandboxes(_) => "Sandbox",
            Event::PodRanges(_) => "PodRange",
        }
    }
}
