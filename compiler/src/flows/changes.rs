//! On which pods the verdict may differ between two IRs.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use imbl::OrdMap;
use imbl::ordmap::DiffItem;

use super::isolated_addresses;
use super::speakers::Speakers;
use crate::api::{Direction, PodKey, PolicyKey};
use crate::cluster::ListId;
use crate::policy::{Ir, LocalPod};

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
struct Meanings<'a, K> {
    touched: Vec<&'a Arc<K>>,
    narrowed: Vec<&'a Arc<K>>,
}

impl Changes {
    /// What differs between two IRs, of which the second has these `speakers`.
    pub(super) fn between(before: Option<&Ir>, now: &Ir, speakers: &Speakers, all_touched: bool) -> Changes {
        let Some(before) = before else {
            let narrowed: BTreeSet<IpAddr> = now.pods.iter().flat_map(isolated_addresses).collect();
            let touched = now.pods.iter().flat_map(|pod| pod.addresses.iter().copied()).collect();
            return Changes { touched, narrowed, pods_changed: true };
        };
        let policies = Policies::between(before, now, speakers, all_touched);
        let pods_changed = !Arc::ptr_eq(&before.pods, &now.pods);
        let mut changes = Changes { pods_changed, ..Changes::default() };
        if pods_changed {
            changes.compare_pods(&before.pods, &now.pods);
        }
        if !policies.touched.is_empty() {
            // Many pods share a list.
            let mut known: BTreeMap<ListId, [bool; 2]> = BTreeMap::new();
            for pod in now.pods.iter() {
                for isolation in pod.isolations() {
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
            let differs =
                Direction::ALL.into_iter().any(differs) || old.addresses != pod.addresses || old.shared != pod.shared;
            self.add(pod, differs, differs);
        }
        self.touched.extend(known.into_values().flat_map(|pod| pod.addresses.iter()));
    }

    fn add(&mut self, pod: &LocalPod, touched: bool, narrowed: bool) {
        if touched {
            self.touched.extend(&pod.addresses);
        }
        if narrowed {
            self.narrowed.extend(isolated_addresses(pod));
        }
    }
}

impl<'a> Policies<'a> {
    /// A policy that comes or goes changes the lists of its pods, and is not among these.
    fn between(before: &Ir, now: &'a Ir, speakers: &'a Speakers, all_touched: bool) -> Policies<'a> {
        let mut policies = Policies::default();
        for item in before.policies.diff(&now.policies) {
            match item {
                DiffItem::Update { new: (key, _), .. } => _ = policies.touched.insert(key),
                DiffItem::Add(..) | DiffItem::Remove(..) => {}
            }
        }
        policies.narrowed.clone_from(&policies.touched);
        let members = Meanings::between(&before.members, &now.members);
        let endpoints = Meanings::between(&before.endpoints, &now.endpoints);
        policies.narrowed.extend(speakers.of(&members.narrowed, &endpoints.narrowed));
        policies.touched.extend(policies.narrowed.iter().copied());
        if all_touched {
            policies.touched.extend(speakers.of(&members.touched, &endpoints.touched));
        }
        policies
    }
}

impl<'a, K: Ord> Meanings<'a, K> {
    /// Selectors that come or go do so with policies that change.
    fn between<T: Ord>(before: &OrdMap<Arc<K>, Arc<Vec<T>>>, now: &'a OrdMap<Arc<K>, Arc<Vec<T>>>) -> Meanings<'a, K> {
        let mut meanings = Meanings { touched: Vec::new(), narrowed: Vec::new() };
        for item in before.diff(now) {
            let (old, selector, members) = match item {
                DiffItem::Update { old: (_, old), new: (selector, members) } => (old, selector, members),
                DiffItem::Add(..) | DiffItem::Remove(..) => continue,
            };
            meanings.touched.push(selector);
            if old.iter().any(|member| members.binary_search(member).is_err()) {
                meanings.narrowed.push(selector);
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
