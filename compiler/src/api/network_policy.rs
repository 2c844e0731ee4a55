//! NetworkPolicy, with its defaults applied.

use std::sync::Arc;

use super::{IpBlock, PeerList, PodPeers, PolicyKey, Port, Selector, Str};

/// A NetworkPolicy, ready to be enforced.
///
/// A direction is `None` where `policyTypes` leaves it out: the policy then says nothing about it. `Some` with no
/// rules allows nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkPolicy {
    /// Namespace and name.
    pub key: PolicyKey,
    /// Which of the texts that it has had this is.
    pub revision: Revision,
    /// Which generation of the API the object was written for.
    pub api: ApiGeneration,
    /// `spec.podSelector`: the pods of the policy's own namespace that it is about.
    pub pod_selector: Selector,
    /// `spec.ingress`: who may reach the selected pods.
    pub ingress: Option<Vec<Rule>>,
    /// `spec.egress`: whom the selected pods may reach.
    pub egress: Option<Vec<Rule>>,
}

/// Tells the texts of an object apart that the API has had by one name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Revision {
    /// `metadata.uid`: one object; `None` where it has none, as in files.
    pub uid: Option<Str>,
    /// `metadata.generation`: grows with each change of the spec; 0 where the object has none.
    pub generation: u64,
}

/// Which generation of the API a NetworkPolicy was written for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ApiGeneration {
    /// `networking.k8s.io/v1`: a policy isolates the pods that it selects.
    V1,
    /// `extensions/v1beta1` with the meaning of Kubernetes 1.3: a policy isolates nobody, and only opens what the
    /// annotation of the Namespace has closed.
    First,
}

/// The two directions that a policy can speak about, as in `policyTypes`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// Towards the selected pod.
    Ingress,
    /// From the selected pod.
    Egress,
}

/// One entry of `ingress` or `egress`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Its place in the list of the object, from 0: what people count by when they read the manifest.
    pub index: usize,
    /// `from` or `to`
    pub peers: Peers,
    /// `ports`
    pub ports: Ports,
}

/// `from` or `to` of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peers {
    /// The list is absent or empty: everybody, pods or not.
    Any,
    /// Any one of these. Empty, where every entry was broken: nobody.
    These(PeerList),
}

/// One entry of `from` or `to`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Peer {
    /// `podSelector`, `namespaceSelector`, or both.
    Pods(PodSelector),
    /// `ipBlock`
    IpBlock(IpBlock),
}

/// Pods by the labels of their namespace and their own: both must match.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodSelector {
    /// The namespaces.
    pub namespaces: NamespaceScope,
    /// The pods in them.
    pub pods: Selector,
}

/// The namespaces that a peer means.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NamespaceScope {
    /// No `namespaceSelector`: the namespace of the policy, here by its name.
    Named(Str),
    /// `namespaceSelector`; an empty one means all namespaces.
    Selected(Selector),
}

/// `ports` of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ports {
    /// The list is absent or empty: all traffic, also of protocols that have no ports.
    Any,
    /// Any one of these. Empty, where every entry was broken: nothing.
    These(Vec<Port>),
}

impl NetworkPolicy {
    /// The rules of one direction; `None` where the policy says nothing about it.
    pub fn rules(&self, direction: Direction) -> Option<&[Rule]> {
        match direction {
            Direction::Ingress => self.ingress.as_deref(),
            Direction::Egress => self.egress.as_deref(),
        }
    }
}

impl Peers {
    /// The selectors of pods among them, if there are any.
    pub fn pods(&self) -> Option<Arc<PodPeers>> {
        match self {
            Peers::Any => None,
            Peers::These(peers) => peers.pods(),
        }
    }
}

impl Peer {
    /// The selector, if this is a peer of pods.
    pub fn pods(&self) -> Option<&PodSelector> {
        match self {
            Peer::Pods(selector) => Some(selector),
            Peer::IpBlock(_) => None,
        }
    }

    /// The address block, if this is one.
    pub fn ip_block(&self) -> Option<&IpBlock> {
        match self {
            Peer::IpBlock(block) => Some(block),
            Peer::Pods(_) => None,
        }
    }
}

impl Direction {
    /// Both directions, in the order in which a packet meets them.
    pub const ALL: [Direction; 2] = [Direction::Egress, Direction::Ingress];

    /// The word that names and comments use: `ingress` or `egress`.
    pub fn as_str(self) -> &'static str {
        match self {
            Direction::Ingress => "ingress",
            Direction::Egress => "egress",
        }
    }
}
