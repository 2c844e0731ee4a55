//! The named ports of one rule, and in which pods they are looked up.

use std::sync::Arc;

use crate::api::{Direction, PodPeers, PortMatch, Ports, Protocol, Str};

/// Named ports of some pods.
///
/// All names of a rule are one thing, as its pods are ([`PodPeers`]): a pair of every pod with every name would be a
/// product, which a tenant can make as large as he likes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PortSelector {
    /// The pods whose ports are meant.
    pub pods: PodScope,
    /// The names, each under the protocol with which a pod declares it: sorted, each once, at least one.
    pub names: Arc<[(Protocol, Str)]>,
}

/// Some pods.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum PodScope {
    /// Those of this node.
    Local,
    /// Those that a rule names.
    Peers(Arc<PodPeers>),
    /// Those of all namespaces that are known.
    All,
}

impl PortSelector {
    /// Where the named ports of a rule are looked up. Towards a local pod they are the pod's own. From a local pod they
    /// are the destination's: a pod of the peers, or, where the peer is an address block or anybody (`None`), any pod.
    pub fn of_rule(direction: Direction, peers: Option<&Arc<PodPeers>>, names: &Arc<[(Protocol, Str)]>) -> Self {
        let pods = match (direction, peers) {
            (Direction::Ingress, _) => PodScope::Local,
            (Direction::Egress, Some(peers)) => PodScope::Peers(peers.clone()),
            (Direction::Egress, None) => PodScope::All,
        };
        PortSelector { pods, names: names.clone() }
    }

    /// Whether a port of this protocol and name is meant.
    pub fn has(&self, protocol: Protocol, name: &Str) -> bool {
        self.names.binary_search_by(|(of, known)| of.cmp(&protocol).then_with(|| known.cmp(name))).is_ok()
    }
}

/// The names among the ports of a rule, sorted, each once.
pub fn named_ports(ports: &Ports) -> Arc<[(Protocol, Str)]> {
    let Ports::These(ports) = ports else { return Arc::from([]) };
    let names = ports.iter().filter_map(|port| match &port.port {
        PortMatch::Named(name) => Some((port.protocol, name.clone())),
        PortMatch::Any | PortMatch::Numbers(_) => None,
    });
    let mut names: Vec<_> = names.collect();
    names.sort_unstable();
    names.dedup();
    names.into()
}
