//! On which pods the verdict may differ between two IRs.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use crate::api::{Direction, PodKey, PolicyKey};
use crate::cluster::{ListId, PodPeers, PortSelector};
use crate::policy::{Ir, LocalPod, PeerSet, PolicyRules, PortSet};

/// The addresses of local pods on which the verdict may not be what it was. It errs on the side of too many.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// In whatever way it differs, also of pods that are gone; where that was not asked for, some of them.
    pub(super) touched: BTreeSet<IpAddr>,
    /// Of isolated pods, where something may be refused that was allowed.
    pub(super) narrowed: BTreeSet<IpAddr>,
    /// Whether the local pods, their addresses or how they are isolated differ.
    pub(super) pods_changed: bool,
}

/// What happened to the policies of the second IR.
#[derive(Debug, Default)]
struct Policies<'a> {
    touched: BTreeSet<&'a PolicyKey>,
    narrowed: BTreeSet<&'a PolicyKey>,
}

/// What happened to what the selectors mean.
#[derive(Debug)]
struct Meanings<K> {
    touched: BTreeSet<Arc<K>>,
    narrowed: BTreeSet<Arc<K>>,
}

impl Changes {
    pub(super) fn between(before: Option<&Ir>, now: &Ir, all_touched: bool) -> Changes {
        let Some(before) = before else {
            let addresses =
                now.pods.iter().filter(|pod| pod.is_isolated()).flat_map(|pod| pod.addresses.iter().copied());
            let narrowed: BTreeSet<IpAddr> = addresses.collect();
            let touched = now.pods.iter().flat_map(|pod| pod.addresses.iter().copied()).collect();
            return Changes { touched, narrowed, pods_changed: true };
        };
        let policies = Policies::between(before, now, all_touched);
        let pods_changed = !Arc::ptr_eq(&before.pods, &now.pods);
        let mut changes = Changes { pods_changed, ..Changes::default() };
        if pods_changed {
            changes.compare_pods(&before.pods, &now.pods);
        }
        if !policies.touched.is_empty() {
            // Many pods share a list.
            let mut known: BTreeMap<ListId, [bool; 2]> = BTreeMap::new();
            for pod in now.pods.iter() {
                for isolation in Direction::ALL.into_iter().filter_map(|direction| pod.isolation(direction)) {
                    let list = &isolation.policies;
                    let is_in = || [&policies.touched, &policies.narrowed].map(|keys| names_any(list, keys));
                    let [touched, narrowed] = *known.entry(list.id()).or_insert_with(is_in);
                    changes.add(pod, touched, narrowed);
                }
            }
        }
        changes
    }

    fn compare_pods(&mut self, before: &[LocalPod], now: &[LocalPod]) {
        let mut known: BTreeMap<&PodKey, &LocalPod> = before.iter().map(|pod| (&pod.key, pod)).collect();
        for pod in now {
            let Some(old) = known.remove(&pod.key) else {
                self.add(pod, true, true);
                continue;
            };
            self.touched.extend(old.addresses.iter().filter(|address| !pod.addresses.contains(address)));
            let differs = |direction| match (old.isolation(direction), pod.isolation(direction)) {
                (None, None) => false,
                (Some(old), Some(new)) => {
                    old.policies.id() != new.policies.id() || old.by_namespace != new.by_namespace
                }
                (None, Some(_)) | (Some(_), None) => true,
            };
            let differs = Direction::ALL.into_iter().any(differs) || old.addresses != pod.addresses;
            self.add(pod, differs, differs);
        }
        self.touched.extend(known.into_values().flat_map(|pod| pod.addresses.iter()));
    }

    fn add(&mut self, pod: &LocalPod, touched: bool, narrowed: bool) {
        if touched {
            self.touched.extend(&pod.addresses);
        }
        if narrowed && pod.is_isolated() {
            self.narrowed.extend(&pod.addresses);
        }
    }
}

impl<'a> Policies<'a> {
    /// A policy that comes or goes changes the lists of its pods, and is not among these.
    fn between(before: &Ir, now: &'a Ir, all_touched: bool) -> Policies<'a> {
        let mut policies = Policies::default();
        if !Arc::ptr_eq(&before.policies, &now.policies) {
            let is_another = |(key, rules): &(&PolicyKey, &Arc<PolicyRules>)| {
                before.policies.get(*key).is_some_and(|old| !Arc::ptr_eq(old, rules))
            };
            policies.touched.extend(now.policies.iter().filter(is_another).map(|(key, _)| key));
            policies.narrowed.clone_from(&policies.touched);
        }
        let members = Meanings::between(&before.members, &now.members);
        let endpoints = Meanings::between(&before.endpoints, &now.endpoints);
        if all_touched && !(members.touched.is_empty() && endpoints.touched.is_empty()) {
            let speaks = |(_, rules): &(_, &Arc<_>)| speaks_of(rules, &members.touched, &endpoints.touched);
            policies.touched.extend(now.policies.iter().filter(speaks).map(|(key, _)| key));
        }
        if !(members.narrowed.is_empty() && endpoints.narrowed.is_empty()) {
            let speaks = |(_, rules): &(_, &Arc<_>)| speaks_of(rules, &members.narrowed, &endpoints.narrowed);
            let narrowed = now.policies.iter().filter(speaks).map(|(key, _)| key);
            policies.narrowed.extend(narrowed);
            policies.touched.extend(policies.narrowed.iter().copied());
        }
        policies
    }
}

impl<K: Ord> Meanings<K> {
    /// Selectors that come or go do so with policies that change.
    fn between<T: Ord>(before: &BTreeMap<Arc<K>, Arc<Vec<T>>>, now: &BTreeMap<Arc<K>, Arc<Vec<T>>>) -> Meanings<K> {
        let mut meanings = Meanings { touched: BTreeSet::new(), narrowed: BTreeSet::new() };
        if std::ptr::eq(before, now) {
            return meanings;
        }
        // Selectors are long to compare, and mostly the same ones.
        let same = before.len() == now.len() && before.keys().zip(now.keys()).all(|(old, new)| Arc::ptr_eq(old, new));
        let changed: Vec<_> = if same {
            let pairs = before.values().zip(now).filter(|(old, (_, members))| !Arc::ptr_eq(old, members));
            pairs.map(|(old, (selector, members))| (selector, old, members)).collect()
        } else {
            let pair = |(selector, members)| {
                let old = before.get(selector).filter(|old| !Arc::ptr_eq(old, members))?;
                Some((selector, old, members))
            };
            now.iter().filter_map(pair).collect()
        };
        for (selector, old, members) in changed {
            meanings.touched.insert(selector.clone());
            if old.iter().any(|member| members.binary_search(member).is_err()) {
                meanings.narrowed.insert(selector.clone());
            }
        }
        meanings
    }
}

/// Whether a list names one of these policies.
fn names_any(list: &[PolicyKey], policies: &BTreeSet<&PolicyKey>) -> bool {
    if list.len() < policies.len() {
        list.iter().any(|key| policies.contains(key))
    } else {
        policies.iter().any(|key| list.binary_search(key).is_ok())
    }
}

/// Whether a rule of the policy names these pods or ports.
fn speaks_of(rules: &PolicyRules, pods: &BTreeSet<Arc<PodPeers>>, ports: &BTreeSet<Arc<PortSelector>>) -> bool {
    let of_direction = |direction| {
        let rules = rules.rules(direction).unwrap_or_default();
        rules.iter().any(|rule| {
            let peers = match &rule.peers {
                PeerSet::Any => None,
                PeerSet::These { pods, .. } => pods.as_ref(),
            };
            let names = match &rule.ports {
                PortSet::These { names, .. } if !names.is_empty() && !ports.is_empty() => Some(names),
                PortSet::These { .. } | PortSet::Any => None,
            };
            peers.is_some_and(|peers| pods.contains(peers))
                || names.is_some_and(|names| {
                    [peers, None]
                        .into_iter()
                        .any(|peers| ports.contains(&PortSelector::of_rule(direction, peers, names)))
                })
        })
    };
    Direction::ALL.into_iter().any(of_direction)
}
