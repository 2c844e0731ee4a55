//! The types of the IR.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use imbl::OrdMap;

use super::{AddressRange, Gate, PodLinks};
use crate::api::{Direction, NetworkPolicy, NodeName, PodKey, PodPeers, PolicyKey, PortRange, Protocol, Str};
use crate::cluster::{EndpointsByPort, MembersByPeers, PolicyList, Quarantine};

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
    /// The addresses that are its own, ascending. An address that another local pod has the better claim to, or goes before
    /// it in sharing, is not among them.
    pub addresses: Vec<IpAddr>,
    /// Those of its addresses that other local pods have as well, ascending.
    pub shared: Vec<SharedAddress>,
    /// How it is isolated for ingress; `None` where it is not. Of shared addresses they say so themselves.
    pub ingress: Option<Isolation>,
    /// How it is isolated for egress; `None` where it is not. Of shared addresses they say so themselves.
    pub egress: Option<Isolation>,
}

/// An address that several pods of this node claim with the same right. Who is behind it is not known, and so none of
/// them may open what another has closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedAddress {
    /// The address.
    pub address: IpAddr,
    /// The pods, the one first to which it belongs in all other respects.
    pub pods: Vec<PodKey>,
    /// How those of them are isolated for ingress that are, each way once.
    pub ingress: Vec<Isolation>,
    /// How those of them are isolated for egress that are, each way once.
    pub egress: Vec<Isolation>,
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

    /// How one of its addresses is isolated in one direction; empty where it is not.
    ///
    /// Where it is in several ways, those who share it are isolated by different policies, and nothing is allowed. What
    /// each of them allows could be, and has no form in a table: who is accepted once is accepted.
    pub fn isolations_at(&self, address: IpAddr, direction: Direction) -> &[Isolation] {
        match (self.shared_at(address), direction) {
            (None, _) => self.isolation(direction).map_or(&[], std::slice::from_ref),
            (Some(shared), Direction::Ingress) => &shared.ingress,
            (Some(shared), Direction::Egress) => &shared.egress,
        }
    }

    /// Whether one of its addresses is isolated in any direction.
    pub fn is_isolated_at(&self, address: IpAddr) -> bool {
        Direction::ALL.into_iter().any(|direction| !self.isolations_at(address, direction).is_empty())
    }

    /// Who else has one of its addresses, if it is shared.
    pub fn shared_at(&self, address: IpAddr) -> Option<&SharedAddress> {
        self.shared.iter().find(|shared| shared.address == address)
    }

    /// All ways in which the pod or one of its addresses is isolated.
    pub fn isolations(&self) -> impl Iterator<Item = &Isolation> {
        let shared = self.shared.iter().flat_map(|shared| shared.ingress.iter().chain(&shared.egress));
        self.ingress.iter().chain(&self.egress).chain(shared)
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
