//! Which policies speak of which pods and ports.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::api::{Direction, PodPeers, PolicyKey};
use crate::cluster::PortSelector;
use crate::policy::{Ir, PeerSet, PolicyRules, PortSet, RulesByPolicy};
use crate::shared::changed_keys;

/// The policies of an IR by what their rules name, so that what a selector means anew concerns those alone that name it.
#[derive(Debug, Default)]
pub(super) struct Speakers {
    policies: RulesByPolicy,
    by_pods: BTreeMap<Arc<PodPeers>, BTreeSet<PolicyKey>>,
    by_ports: BTreeMap<PortSelector, BTreeSet<PolicyKey>>,
}

// === impl Speakers ===

impl Speakers {
    /// Takes over the policies of an IR.
    pub(super) fn follow(&mut self, ir: &Ir) {
        let before = std::mem::replace(&mut self.policies, ir.policies.clone());
        for key in changed_keys(&before, &ir.policies) {
            for (pods, ports) in before.get(key).into_iter().flat_map(|rules| named(rules)) {
                pods.iter().for_each(|pods| remove(&mut self.by_pods, pods, key));
                ports.iter().for_each(|port| remove(&mut self.by_ports, port, key));
            }
            for (pods, ports) in ir.policies.get(key).into_iter().flat_map(|rules| named(rules)) {
                if let Some(pods) = pods {
                    self.by_pods.entry(pods.clone()).or_default().insert(key.clone());
                }
                for port in ports {
                    self.by_ports.entry(port).or_default().insert(key.clone());
                }
            }
        }
    }

    /// The policies that speak of any of these.
    pub(super) fn of(&self, pods: &[&Arc<PodPeers>], ports: &[&Arc<PortSelector>]) -> impl Iterator<Item = &PolicyKey> {
        let by_pods = pods.iter().filter_map(|pods| self.by_pods.get(*pods)).flatten();
        by_pods.chain(ports.iter().filter_map(|port| self.by_ports.get(&***port)).flatten())
    }
}

/// The pods and the named ports of each rule.
fn named(rules: &PolicyRules) -> impl Iterator<Item = (Option<&Arc<PodPeers>>, Vec<PortSelector>)> {
    let of_direction = |direction| {
        let rules = rules.rules(direction).unwrap_or_default();
        rules.iter().map(move |rule| {
            let pods = match &rule.peers {
                PeerSet::Any => None,
                PeerSet::These { pods, .. } => pods.as_ref(),
            };
            let ports = match &rule.ports {
                PortSet::These { names, .. } if !names.is_empty() => {
                    // Whom else the rule names may have them too.
                    let of = |pods| PortSelector::of_rule(direction, pods, names);
                    pods.map(Some).into_iter().chain([None]).map(of).collect()
                }
                PortSet::These { .. } | PortSet::Any => Vec::new(),
            };
            (pods, ports)
        })
    };
    Direction::ALL.into_iter().flat_map(of_direction)
}

fn remove<K: Ord>(by: &mut BTreeMap<K, BTreeSet<PolicyKey>>, of: &K, key: &PolicyKey) {
    if let Some(keys) = by.get_mut(of) {
        keys.remove(key);
        if keys.is_empty() {
            by.remove(of);
        }
    }
}
