//! Which pods of other nodes have to be known before one policy takes effect.

use std::collections::BTreeSet;

use super::Interest;
use crate::api::{Direction, NamespaceScope, NetworkPolicy, Peer, Peers, PortMatch, Ports, Rule, Str};
use crate::cluster::Namespaces;

impl Interest {
    /// What a policy would need to know if it selected a local pod, whether the state holds it or not.
    pub fn of_policy(policy: &NetworkPolicy, namespaces: &Namespaces) -> Interest {
        let mut needed = BTreeSet::new();
        for direction in Direction::ALL {
            for rule in policy.rules(direction).unwrap_or_default() {
                if needs_everything(direction, rule) || !add_namespaces(rule, namespaces, &mut needed) {
                    return Interest::Cluster;
                }
            }
        }
        Interest::of_namespaces(needed)
    }
}

/// Whether named ports are looked up in all pods: those of destinations that no selector names.
fn needs_everything(direction: Direction, rule: &Rule) -> bool {
    let has_names = match &rule.ports {
        Ports::Any => false,
        Ports::These(ports) => ports.iter().any(|port| matches!(port.port, PortMatch::Named(_))),
    };
    let has_anybody = match &rule.peers {
        Peers::Any => true,
        Peers::These(peers) => peers.iter().any(|peer| matches!(peer, Peer::IpBlock(_))),
    };
    direction == Direction::Egress && has_names && has_anybody
}

/// Adds the namespaces that the peers of a rule mean, and says whether they can be told one by one.
fn add_namespaces(rule: &Rule, namespaces: &Namespaces, needed: &mut BTreeSet<Str>) -> bool {
    let Peers::These(peers) = &rule.peers else { return true };
    for selector in peers.iter().filter_map(Peer::pods) {
        match &selector.namespaces {
            NamespaceScope::Named(name) => {
                needed.insert(name.clone());
            }
            NamespaceScope::Selected(labels) if labels.is_everything() => return false,
            NamespaceScope::Selected(labels) => {
                let matching = namespaces.iter().filter(|namespace| labels.matches(&namespace.labels));
                needed.extend(matching.map(|namespace| namespace.name.clone()));
            }
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use crate::cluster::{Event, Interest};
    use crate::testing::{block, namespace, pod, pods_of, pods_where, policy, rule, state};

    #[test]
    fn a_policy_needs_what_the_state_needs_once_it_holds_it() {
        let web = || Event::from(pod("a/web").ip("10.0.0.1"));
        let namespaces = [namespace("a", "team=x"), namespace("b", "team=x"), namespace("c", "team=y")];
        let common: Vec<Event> = namespaces.into_iter().map(Event::from).chain([web()]).collect();
        let named = |count: usize| rule().peers((0..count).map(|i| pods_of(&format!("n{i:02}"), "")));
        let http = || rule().ports(&["http/TCP"]);
        let blocks = || block("10.0.0.0/8", &[]);
        let cases = [
            ("no peers", policy("a/p").ingress([rule()]).egress([rule()])),
            ("nobody", policy("a/p").ingress([]).egress([])),
            ("a block", policy("a/p").ingress([rule().peers([blocks()])])),
            ("namespaces", policy("a/p").ingress([rule().peers([pods_of("b", ""), pods_where("team=y", "")])])),
            ("both directions", policy("a/p").ingress([named(1)]).egress([rule().peers([pods_of("b", "")])])),
            ("everybody", policy("a/p").egress([rule().peers([pods_where("", "app=web")])])),
            ("own named ports", policy("a/p").ingress([http()])),
            ("named ports of anybody", policy("a/p").egress([http()])),
            ("named ports of a block", policy("a/p").egress([http().peers([pods_of("b", ""), blocks()])])),
            ("named ports of peers", policy("a/p").egress([http().peers([pods_of("b", "")])])),
            ("as many as are watched one by one", policy("a/p").ingress([named(16)])),
            ("more", policy("a/p").ingress([named(17)])),
        ];
        for (name, policy) in cases {
            let without = state(common.iter().cloned());
            let needed = Interest::of_policy(&policy.clone().build(), without.namespaces());
            let with = state(common.iter().cloned().chain([policy.into()]));
            assert_eq!(needed, Interest::of(&with), "{name}");
        }
    }
}
