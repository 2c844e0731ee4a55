//! Selectors by what a pod must have to be meant, so that only those are tried that may mean it.

use std::collections::{BTreeMap, BTreeSet};

use super::{NamespaceScope, Operator, Pod, PodSelector, Requirement, Str};

/// What stands for selectors, each found by the one thing that tells most of the pods that the selector means.
#[derive(Debug, Clone)]
pub(crate) struct SelectorIndex<T> {
    by_value: BTreeMap<Str, BTreeMap<Str, BTreeSet<T>>>,
    by_key: BTreeMap<Str, BTreeSet<T>>,
    by_namespace: BTreeMap<Str, BTreeSet<T>>,
    /// Those that want nothing of it, and so may mean any pod.
    others: BTreeSet<T>,
}

/// What a pod must have, in the order in which it tells.
pub(crate) enum Wanted<'a> {
    Value(&'a Str, &'a BTreeSet<Str>),
    Namespace(&'a Str),
    Key(&'a Str),
    Nothing,
}

// === impl SelectorIndex ===

impl<T: Ord + Clone> SelectorIndex<T> {
    /// Makes something be found by a selector.
    pub(crate) fn insert(&mut self, selector: &PodSelector, of: &T) {
        match wanted(selector) {
            Wanted::Value(key, values) => {
                let by_value = self.by_value.entry(key.clone()).or_default();
                values.iter().for_each(|value| _ = by_value.entry(value.clone()).or_default().insert(of.clone()));
            }
            Wanted::Namespace(name) => _ = self.by_namespace.entry(name.clone()).or_default().insert(of.clone()),
            Wanted::Key(key) => _ = self.by_key.entry(key.clone()).or_default().insert(of.clone()),
            Wanted::Nothing => _ = self.others.insert(of.clone()),
        }
    }

    /// Takes that back. What stands for several selectors is taken back for all of them.
    pub(crate) fn remove(&mut self, selector: &PodSelector, of: &T) {
        match wanted(selector) {
            Wanted::Value(key, values) => {
                let Some(by_value) = self.by_value.get_mut(key) else { return };
                values.iter().for_each(|value| remove(by_value, value, of));
                if by_value.is_empty() {
                    self.by_value.remove(key);
                }
            }
            Wanted::Namespace(name) => remove(&mut self.by_namespace, name, of),
            Wanted::Key(key) => remove(&mut self.by_key, key, of),
            Wanted::Nothing => _ = self.others.remove(of),
        }
    }

    /// What may mean a pod; nothing else does. What stands for several selectors may come several times.
    pub(crate) fn candidates<'a>(&'a self, pod: &'a Pod) -> impl Iterator<Item = &'a T> {
        let by_label = pod.labels.iter().flat_map(|(key, value)| {
            let by_value = self.by_value.get(key).and_then(|values| values.get(value));
            by_value.into_iter().chain(self.by_key.get(key)).flatten()
        });
        self.others.iter().chain(self.by_namespace.get(&pod.key.namespace).into_iter().flatten()).chain(by_label)
    }
}

impl<T> Default for SelectorIndex<T> {
    fn default() -> Self {
        let (by_value, by_key, by_namespace) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        SelectorIndex { by_value, by_key, by_namespace, others: BTreeSet::new() }
    }
}

fn remove<T: Ord>(by: &mut BTreeMap<Str, BTreeSet<T>>, key: &Str, of: &T) {
    let Some(all) = by.get_mut(key) else { return };
    all.remove(of);
    if all.is_empty() {
        by.remove(key);
    }
}

/// The one thing that tells most of the pods that a selector means.
pub(crate) fn wanted(selector: &PodSelector) -> Wanted<'_> {
    let mut exists = None;
    for Requirement { key, operator } in selector.pods.requirements() {
        match operator {
            Operator::In(values) => return Wanted::Value(key, values),
            Operator::Exists => exists = exists.or(Some(key)),
            Operator::NotIn(_) | Operator::DoesNotExist => {}
        }
    }
    match (&selector.namespaces, exists) {
        (NamespaceScope::Named(name), _) => Wanted::Namespace(name),
        (NamespaceScope::Selected(_), Some(key)) => Wanted::Key(key),
        (NamespaceScope::Selected(_), None) => Wanted::Nothing,
    }
}
