//! From the state of the cluster to the IR.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use imbl::OrdMap;

use super::{
    Gate, Ir, Isolation, LocalPod, OwnAddresses, PeerSet, PodLinks, PolicyRules, PortSet, ResolvedRule, RulesByPolicy,
    SharedAddress, merge_ports, subtract_and_merge,
};
use crate::api::{
    ApiGeneration, Direction, IpBlock, NetworkPolicy, Peer, Peers, Pod, PolicyKey, PortMatch, PortRange, Ports, Rule,
};
use crate::cluster::{MembersByPeers, Quarantine, State, Versions, named_ports};
use crate::shared::changed_keys;

/// Resolves a state to IRs as it changes, and remembers what has not changed.
///
/// The memory only saves work: a resolver that has seen the state before gives the same IR as a new one. It belongs to
/// one [`State`], whose [`versions`](State::versions) tell it what to work out anew.
#[derive(Debug, Clone, Default)]
pub struct Resolver {
    versions: Option<Versions>,
    pods: Arc<Vec<LocalPod>>,
    policies: RulesByPolicy,
    /// What the policies' rules were made of.
    sources: OrdMap<PolicyKey, Arc<NetworkPolicy>>,
    quarantined: OrdMap<PolicyKey, Quarantine>,
    own_addresses: OwnAddresses,
    links: Arc<PodLinks>,
    gate: Arc<Gate>,
}

impl Resolver {
    /// A resolver that says whose packets must have a source of their own. By default nobody's must.
    pub fn checking(own_addresses: OwnAddresses) -> Resolver {
        Resolver { own_addresses, ..Resolver::default() }
    }

    /// The IR of the state.
    pub fn resolve(&mut self, state: &State) -> Ir {
        let (before, now) = (self.versions.replace(state.versions()), state.versions());
        let same_policies = before.is_some_and(|before| before.used_policies == now.used_policies);
        let same_pods = before.is_some_and(|before| before.local_pods == now.local_pods);
        if !same_policies {
            self.resolve_policies(state);
        }
        if !same_pods {
            let pods = state.pods().local().map(|pod| local_pod(state, pod, &self.policies));
            self.pods = Arc::new(pods.collect());
            self.gate = Arc::new(Gate::of(state, &self.pods));
        }
        // What anybody may send to the port of a bridge is for the rules of the policies to say.
        if !same_pods || (!same_policies && self.links.has_ports()) {
            let links = PodLinks::of(state, &self.pods, &self.policies, &self.own_addresses, &self.gate);
            if *self.links != links {
                self.links = Arc::new(links);
            }
        }
        Ir {
            node: state.node().clone(),
            pods: self.pods.clone(),
            policies: self.policies.clone(),
            members: state.memberships().members().clone(),
            endpoints: state.memberships().endpoints().clone(),
            links: self.links.clone(),
            gate: self.gate.clone(),
        }
    }

    fn resolve_policies(&mut self, state: &State) {
        let sources = std::mem::replace(&mut self.sources, state.used_policies().clone());
        let quarantined = std::mem::replace(&mut self.quarantined, state.quarantined().clone());
        let changed = changed_keys(&sources, &self.sources).chain(changed_keys(&quarantined, &self.quarantined));
        for key in changed.collect::<BTreeSet<_>>() {
            match self.sources.get(key) {
                Some(policy) => {
                    let rules = policy_rules(policy, self.quarantined.get(key), state.memberships().members());
                    self.policies.insert(key.clone(), Arc::new(rules));
                }
                None => _ = self.policies.remove(key),
            }
        }
    }
}

fn local_pod(state: &State, pod: &Pod, policies: &RulesByPolicy) -> LocalPod {
    let own = |address: &_| state.pods().local_owner(*address).is_some_and(|owner| owner.key == pod.key);
    let addresses: BTreeSet<_> = pod.ips.iter().copied().filter(own).collect();
    LocalPod {
        key: pod.key.clone(),
        shared: addresses.iter().filter_map(|address| shared_address(state, *address, policies)).collect(),
        addresses: addresses.into_iter().collect(),
        ingress: isolation(state, pod, Direction::Ingress, policies),
        egress: isolation(state, pod, Direction::Egress, policies),
    }
}

fn isolation(state: &State, pod: &Pod, direction: Direction, policies: &RulesByPolicy) -> Option<Isolation> {
    let list = state.selection().policies(&pod.key, direction);
    let by_namespace = match direction {
        Direction::Ingress => state.namespaces().default_deny_ingress(&pod.key.namespace),
        Direction::Egress => false,
    };
    let isolates = |key| policies.get(key).is_some_and(|rules| rules.isolates);
    let isolated = by_namespace || list.iter().any(isolates);
    let by_namespace = by_namespace.then(|| pod.key.namespace.clone());
    isolated.then_some(Isolation { policies: list, by_namespace })
}

/// Who has an address together; `None` where one pod has it alone, as is the rule.
fn shared_address(state: &State, address: IpAddr, policies: &RulesByPolicy) -> Option<SharedAddress> {
    let owners: Vec<&Arc<Pod>> = state.pods().local_owners(address).collect();
    if owners.len() < 2 {
        return None;
    }
    let isolations = |direction| {
        let mut ways: Vec<Isolation> = Vec::new();
        for way in owners.iter().filter_map(|pod| isolation(state, pod, direction, policies)) {
            if !ways.contains(&way) {
                ways.push(way);
            }
        }
        ways
    };
    Some(SharedAddress {
        address,
        pods: owners.iter().map(|pod| pod.key.clone()).collect(),
        ingress: isolations(Direction::Ingress),
        egress: isolations(Direction::Egress),
    })
}

fn policy_rules(policy: &Arc<NetworkPolicy>, quarantine: Option<&Quarantine>, members: &MembersByPeers) -> PolicyRules {
    #[cfg(test)]
    crate::work::count(crate::work::Work::PolicyResolved);
    let mut enforced = |rules: &[Rule]| match quarantine {
        Some(_) => Vec::new(),
        None => rules.iter().map(|rule| resolved_rule(rule, members)).collect(),
    };
    let mut rules = |direction| policy.rules(direction).map(&mut enforced);
    PolicyRules {
        key: policy.key.clone(),
        source: policy.clone(),
        isolates: policy.api == ApiGeneration::V1,
        quarantine: quarantine.cloned(),
        ingress: rules(Direction::Ingress),
        egress: rules(Direction::Egress),
    }
}

fn resolved_rule(rule: &Rule, members: &MembersByPeers) -> ResolvedRule {
    ResolvedRule { index: rule.index, peers: peer_set(&rule.peers, members), ports: port_set(&rule.ports) }
}

fn peer_set(peers: &Peers, members: &MembersByPeers) -> PeerSet {
    // Many rules may name the same pods at length, of which one copy is kept.
    let pods = peers.pods().map(|pods| members.get_key_value(&pods).map_or(pods.clone(), |(known, _)| known.clone()));
    let peers = match peers {
        Peers::Any => return PeerSet::Any,
        Peers::These(peers) => peers,
    };
    let blocks: BTreeSet<&IpBlock> = peers.iter().filter_map(Peer::ip_block).collect();
    PeerSet::These {
        pods,
        blocks: subtract_and_merge(blocks.iter().copied()),
        blocks_text: blocks.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "),
    }
}

fn port_set(ports: &Ports) -> PortSet {
    let names = named_ports(ports);
    let ports = match ports {
        Ports::Any => return PortSet::Any,
        Ports::These(ports) => ports,
    };
    let mut numbers: BTreeMap<_, Vec<PortRange>> = BTreeMap::new();
    for port in ports {
        match &port.port {
            PortMatch::Any => numbers.entry(port.protocol).or_default().push(PortRange::ALL),
            PortMatch::Numbers(range) => numbers.entry(port.protocol).or_default().push(*range),
            PortMatch::Named(_) => {}
        }
    }
    PortSet::These {
        numbers: numbers.into_iter().map(|(protocol, ranges)| (protocol, merge_ports(ranges))).collect(),
        names,
    }
}
