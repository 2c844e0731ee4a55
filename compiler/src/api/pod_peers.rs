//! The pods that one rule names, taken together.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use super::{Labels, NamespaceScope, Peer, Pod, PodSelector, SelectorIndex};

/// Past this many selectors the ones that can mean a pod are found by its labels.
pub(super) const MOST_TRIED: usize = 8;

/// The selectors of one rule's `from` or `to`, of which a pod must match any: sorted, each once, at least one.
///
/// They are one thing and not each its own, because a rule asks no more than whether the other end is any of them: so
/// what is kept for a rule, here and in the kernel, is as large as the pods that it means, however it lists them.
#[derive(Debug, Clone)]
pub struct PodPeers {
    /// Of the selectors, so that those of two rules are told apart by a look: what is kept by them is sought by every
    /// change.
    hash: u64,
    selectors: Vec<PodSelector>,
    /// By their places in the list.
    index: Option<SelectorIndex<usize>>,
}

// === impl PodPeers ===

impl PodPeers {
    /// The selectors among the peers of a rule, if there are any.
    pub(super) fn of(peers: &[Peer]) -> Option<PodPeers> {
        let selectors: BTreeSet<&PodSelector> = peers.iter().filter_map(Peer::pods).collect();
        (!selectors.is_empty()).then(|| PodPeers::new(selectors.into_iter().cloned().collect()))
    }

    fn new(selectors: Vec<PodSelector>) -> PodPeers {
        let index = (selectors.len() > MOST_TRIED).then(|| {
            let mut index = SelectorIndex::default();
            selectors.iter().enumerate().for_each(|(at, selector)| index.insert(selector, &at));
            index
        });
        let mut hasher = DefaultHasher::new();
        selectors.hash(&mut hasher);
        PodPeers { hash: hasher.finish(), selectors, index }
    }

    /// The selectors.
    pub fn selectors(&self) -> &[PodSelector] {
        &self.selectors
    }

    /// Whether any of the selectors means the pod, whose namespace has these labels; `None` where it is not known.
    pub fn select(&self, pod: &Pod, of_namespace: Option<&Labels>) -> bool {
        let selects = |selector: &PodSelector| selects(selector, pod, of_namespace);
        match &self.index {
            None => self.selectors.iter().any(selects),
            Some(index) => index.candidates(pod).any(|at| selects(&self.selectors[*at])),
        }
    }
}

impl PartialEq for PodPeers {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for PodPeers {}

impl PartialOrd for PodPeers {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for PodPeers {
    fn cmp(&self, other: &Self) -> Ordering {
        // Most are compared with themselves.
        if std::ptr::eq(self, other) {
            return Ordering::Equal;
        }
        self.hash.cmp(&other.hash).then_with(|| self.selectors.cmp(&other.selectors))
    }
}

/// Whether a selector means a pod.
fn selects(selector: &PodSelector, pod: &Pod, of_namespace: Option<&Labels>) -> bool {
    #[cfg(test)]
    crate::work::count(crate::work::Work::SelectorTried);
    let in_scope = match &selector.namespaces {
        NamespaceScope::Named(name) => *name == pod.key.namespace,
        NamespaceScope::Selected(labels) => of_namespace.is_some_and(|of_namespace| labels.matches(of_namespace)),
    };
    in_scope && selector.pods.matches(&pod.labels)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{Operator, Requirement, Selector, Str};

    fn requirement(key: &str, operator: Operator) -> Requirement {
        Requirement { key: key.into(), operator }
    }

    fn is(key: &str, values: &[&str]) -> Requirement {
        requirement(key, Operator::In(values.iter().map(|value| Str::from(*value)).collect()))
    }

    #[test]
    fn an_index_finds_what_trying_each_finds() {
        let of_namespace: Labels = [("team".into(), "x".into())].into_iter().collect();
        let of_namespace = Some(&of_namespace);
        let of_all = |requirements: Vec<Requirement>| PodSelector {
            namespaces: NamespaceScope::Selected(Selector::default()),
            pods: requirements.into_iter().collect(),
        };
        let padding = (0..MOST_TRIED).map(|i| of_all(vec![is("never", &[&i.to_string()])]));
        for (name, selector, expected) in [
            ("a value", of_all(vec![is("app", &["db", "web"])]), true),
            ("another", of_all(vec![is("app", &["db"])]), false),
            ("a key", of_all(vec![requirement("app", Operator::Exists)]), true),
            ("another key", of_all(vec![requirement("tier", Operator::Exists)]), false),
            ("a value and a key", of_all(vec![is("app", &["web"]), requirement("tier", Operator::Exists)]), false),
            ("a key before a value", of_all(vec![requirement("aaa", Operator::Exists), is("app", &["web"])]), false),
            ("nothing that must be there", of_all(vec![requirement("tier", Operator::DoesNotExist)]), true),
            ("and does not match", of_all(vec![requirement("app", Operator::DoesNotExist)]), false),
            ("everything", of_all(vec![]), true),
        ] {
            let pod = crate::testing::pod("b/web").labels("app=web,zone=1").build();
            let alone = PodPeers::new(vec![selector.clone()]);
            let among = PodPeers::new(padding.clone().chain([selector]).collect());
            assert!(alone.index.is_none() && among.index.is_some());
            assert_eq!(alone.select(&pod, of_namespace), expected, "{name}");
            assert_eq!(among.select(&pod, of_namespace), expected, "{name}, among others");
        }
    }
}
