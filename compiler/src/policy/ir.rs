//! The types of the IR.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use imbl::OrdMap;

use super::{AddressRange, Gate, PodLinks};
use crate::api::{Direction, NetworkPolicy, NodeName, PodKey, PolicyKey, PortRange, Protocol, Str};
use crate::cluster::{EndpointsByPort, MembersByPeers, PodPeers, PolicyList, Quarantine};

/// Who may talk to whom on one node.
///
/// Its parts are shared: a part that has not changed since the last [`Resolver::resolve`](super::Resolver::resolve) is the
/// same by reference, and of a map so is whatever has not changed in it.
#[derive(Debug, Clone)]
pub struct Ir {
    /// The node.
    pub node: NodeName,
    /// The pods of this node that have a network of their own, by key.
    pub pods: Arc<Vec<LocalPod>>,
    /// The policies that select at least one of them.
    pub policies: RulesByPolicy,
    /// The addresses of the pods that the rules of those policies name.
    pub members: MembersByPeers,
    /// The endpoints that the named ports of those policies mean.
    pub endpoints: EndpointsByPort,
    /// The links of the node that lead to the pods.
    pub links: Arc<PodLinks>,
    /// What is refused of addresses that none of the pods has.
    pub gate: Arc<Gate>,
}

/// The rules of policies.
pub type RulesByPolicy = OrdMap<PolicyKey, Arc<PolicyRules>>;

/// A pod of this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalPod {
    /// Namespace and name.
    pub key: PodKey,
    /// The addresses that are its own, ascending. An address that another local pod has the better claim to is not
    /// among them.
    pub addresses: Vec<IpAddr>,
    /// How it is isolated for ingress; `None` where it is not.
    pub ingress: Option<Isolation>,
    /// How it is isolated for egress; `None` where it is not.
    pub egress: Option<Isolation>,
}

/// Why a pod is isolated in one direction, and whose rules open it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Isolation {
    /// The policies that speak about the pod in this direction: their rules are what is allowed.
    pub policies: PolicyList,
    /// The namespace of the pod, where the annotation of Kubernetes 1.3 isolates it.
    pub by_namespace: Option<Str>,
}

/// The rules of one policy, normalised. `None` for a direction about which it says nothing. A policy in quarantine has
/// no rules in the directions about which it speaks, and so allows nothing there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyRules {
    /// The policy.
    pub key: PolicyKey,
    /// What it was made of, for whoever asks why a rule does not allow something.
    pub source: Arc<NetworkPolicy>,
    /// Whether the policy isolates the pods that it selects; those of the first generation do not.
    pub isolates: bool,
    /// Why it is not enforced as it is written, if so.
    pub quarantine: Option<Quarantine>,
    /// What it allows towards the selected pods.
    pub ingress: Option<Vec<ResolvedRule>>,
    /// What it allows from the selected pods.
    pub egress: Option<Vec<ResolvedRule>>,
}

/// One rule of a policy: any of the peers on any of the ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedRule {
    /// Its place in the list of the object, from 0.
    pub index: usize,
    /// The other end.
    pub peers: PeerSet,
    /// The ports of the destination.
    pub ports: PortSet,
}

/// The other ends that a rule means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerSet {
    /// Everybody.
    Any,
    /// Any of these.
    These {
        /// The pods, by their selectors; `None` where there are none among the peers.
        pods: Option<Arc<PodPeers>>,
        /// The addresses of all `ipBlock` peers together: ascending, disjoint, not adjacent.
        blocks: Vec<AddressRange>,
        /// The `ipBlock` peers as the manifest writes them, for people.
        blocks_text: String,
    },
}

/// The ports that a rule means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PortSet {
    /// All traffic, also of protocols that have no ports.
    Any,
    /// Any of these.
    These {
        /// Numbers by protocol, joined; [`PortRange::ALL`] where the whole protocol is meant.
        numbers: BTreeMap<Protocol, Vec<PortRange>>,
        /// Names, sorted. The direction and the peer say in which pods they are looked up.
        names: Arc<[(Protocol, Str)]>,
    },
}

impl LocalPod {
    /// How the pod is isolated in one direction; `None` where it is not.
    pub fn isolation(&self, direction: Direction) -> Option<&Isolation> {
        match direction {
            Direction::Ingress => self.ingress.as_ref(),
            Direction::Egress => self.egress.as_ref(),
        }
    }

    /// Whether the pod is isolated in any direction.
    pub fn is_isolated(&self) -> bool {
        self.ingress.is_some() || self.egress.is_some()
    }
}

impl PolicyRules {
    /// The rules of one direction; `None` where the policy says nothing about it.
    pub fn rules(&self, direction: Direction) -> Option<&[ResolvedRule]> {
        match direction {
            Direction::Ingress => self.ingress.as_deref(),
            Direction::Egress => self.egress.as_deref(),
        }
    }
}
