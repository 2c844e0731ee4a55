//! From the state of the cluster to the IR.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Ir, Isolation, LocalPod, PeerSet, PolicyRules, PortSet, ResolvedRule, merge_ports, subtract_and_merge};
use crate::api::{
    ApiGeneration, Direction, IpBlock, NetworkPolicy, Peer, Peers, Pod, PolicyKey, PortMatch, PortRange, Ports, Rule,
};
use crate::cluster::State;

/// Resolves states to IRs, and remembers the rules of policies that have not changed.
///
/// The memory only saves work: a resolver that has seen other states before gives the same IR as a new one.
#[derive(Debug, Clone, Default)]
pub struct Resolver {
    policies: BTreeMap<PolicyKey, (Arc<NetworkPolicy>, Arc<PolicyRules>)>,
}

impl Resolver {
    /// The IR of a state.
    pub fn resolve(&mut self, state: &State) -> Ir {
        self.policies.retain(|key, _| state.selection().is_used(key));
        let used = state.selection().used().filter_map(|key| state.policies().get(key));
        let policies: BTreeMap<_, _> = used.map(|policy| (policy.key.clone(), self.rules(policy))).collect();
        let memberships = state.memberships();
        let pods = state.pods().iter().filter(|pod| state.pods().is_local(pod));
        Ir {
            node: state.node().clone(),
            pods: pods.map(|pod| local_pod(state, pod, &policies)).collect(),
            policies,
            members: memberships.all_members().map(|(selector, members)| (selector.clone(), members.clone())).collect(),
            endpoints: memberships.all_endpoints().map(|(port, endpoints)| (port.clone(), endpoints.clone())).collect(),
        }
    }

    fn rules(&mut self, policy: &Arc<NetworkPolicy>) -> Arc<PolicyRules> {
        match self.policies.get(&policy.key) {
            Some((from, rules)) if Arc::ptr_eq(from, policy) => rules.clone(),
            Some(_) | None => {
                let rules = Arc::new(policy_rules(policy));
                self.policies.insert(policy.key.clone(), (policy.clone(), rules.clone()));
                rules
            }
        }
    }
}

fn local_pod(state: &State, pod: &Pod, policies: &BTreeMap<PolicyKey, Arc<PolicyRules>>) -> LocalPod {
    let isolation = |direction, by_namespace| -> Option<Isolation> {
        let list = state.selection().policies(&pod.key, direction);
        let isolates = |key| policies.get(key).is_some_and(|rules| rules.isolates);
        let isolated = by_namespace || list.iter().any(isolates);
        let by_namespace = by_namespace.then(|| pod.key.namespace.clone());
        isolated.then_some(Isolation { policies: list, by_namespace })
    };
    let own = |address: &_| state.pods().local_owner(*address).is_some_and(|owner| owner.key == pod.key);
    let addresses: BTreeSet<_> = pod.ips.iter().copied().filter(own).collect();
    LocalPod {
        key: pod.key.clone(),
        addresses: addresses.into_iter().collect(),
        ingress: isolation(Direction::Ingress, state.namespaces().default_deny_ingress(&pod.key.namespace)),
        egress: isolation(Direction::Egress, false),
    }
}

fn policy_rules(policy: &NetworkPolicy) -> PolicyRules {
    let rules = |direction| policy.rules(direction).map(|rules| rules.iter().map(resolved_rule).collect());
    PolicyRules {
        key: policy.key.clone(),
        isolates: policy.api == ApiGeneration::V1,
        ingress: rules(Direction::Ingress),
        egress: rules(Direction::Egress),
    }
}

fn resolved_rule(rule: &Rule) -> ResolvedRule {
    ResolvedRule { index: rule.index, peers: peer_set(&rule.peers), ports: port_set(&rule.ports) }
}

fn peer_set(peers: &Peers) -> PeerSet {
    let peers = match peers {
        Peers::Any => return PeerSet::Any,
        Peers::These(peers) => peers,
    };
    let pods: BTreeSet<_> = peers.iter().filter_map(Peer::pods).cloned().collect();
    let blocks: BTreeSet<&IpBlock> = peers.iter().filter_map(Peer::ip_block).collect();
    PeerSet::These {
        pods: pods.into_iter().collect(),
        blocks: subtract_and_merge(blocks.iter().copied()),
        blocks_text: blocks.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "),
    }
}

fn port_set(ports: &Ports) -> PortSet {
    let ports = match ports {
        Ports::Any => return PortSet::Any,
        Ports::These(ports) => ports,
    };
    let mut numbers: BTreeMap<_, Vec<PortRange>> = BTreeMap::new();
    let mut names = BTreeSet::new();
    for port in ports {
        match &port.port {
            PortMatch::Any => numbers.entry(port.protocol).or_default().push(PortRange::ALL),
            PortMatch::Numbers(range) => numbers.entry(port.protocol).or_default().push(*range),
            PortMatch::Named(name) => {
                names.insert((port.protocol, name.clone()));
            }
        }
    }
    PortSet::These {
        numbers: numbers.into_iter().map(|(protocol, ranges)| (protocol, merge_ports(ranges))).collect(),
        names: names.into_iter().collect(),
    }
}
