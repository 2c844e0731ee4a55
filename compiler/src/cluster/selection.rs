//! Which policies select a local pod, kept up to date as either changes.

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::api::{Direction, NetworkPolicy, Pod, PodKey, PolicyKey, Str};

/// The policies that speak about a pod in one direction, sorted. Pods with the same policies share one list, so that
/// they can be grouped by its id.
#[derive(Debug, Clone, Default)]
pub struct PolicyList {
    keys: Arc<[PolicyKey]>,
    id: ListId,
}

/// Tells a shared list from all others of this process. The empty list has the least one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ListId(u64);

/// The policies that select each local pod, by direction, and how many local pods each policy selects.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    by_pod: BTreeMap<PodKey, SelectedBy>,
    /// Policies that select at least one local pod.
    users: BTreeMap<PolicyKey, usize>,
    /// Every list that is in use, so that equal lists are one.
    lists: BTreeSet<PolicyList>,
    /// How many policies the lists of a namespace name in all.
    named: BTreeMap<Str, usize>,
    /// The namespaces with lists that there were not at the last look.
    grown: BTreeSet<Str>,
}

/// What lists have become with or without one policy.
type Successors = BTreeMap<(ListId, bool), PolicyList>;

#[derive(Debug, Clone, Default)]
struct SelectedBy {
    policies: BTreeSet<PolicyKey>,
    ingress: PolicyList,
    egress: PolicyList,
}

// === impl PolicyList ===

impl PolicyList {
    /// The name of this list.
    pub fn id(&self) -> ListId {
        self.id
    }

    fn new(keys: Vec<PolicyKey>) -> PolicyList {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        PolicyList { keys: keys.into(), id: ListId(NEXT.fetch_add(1, Ordering::Relaxed)) }
    }
}

impl Deref for PolicyList {
    type Target = [PolicyKey];

    fn deref(&self) -> &[PolicyKey] {
        &self.keys
    }
}

impl Borrow<[PolicyKey]> for PolicyList {
    fn borrow(&self) -> &[PolicyKey] {
        &self.keys
    }
}

impl PartialEq for PolicyList {
    fn eq(&self, other: &Self) -> bool {
        self.keys == other.keys
    }
}

impl Eq for PolicyList {}

impl PartialOrd for PolicyList {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for PolicyList {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.keys.cmp(&other.keys)
    }
}

// === impl Selection ===

impl Selection {
    /// The policies that select a local pod and speak about this direction.
    pub fn policies(&self, pod: &PodKey, direction: Direction) -> PolicyList {
        self.by_pod.get(pod).map_or_else(PolicyList::default, |selected| match direction {
            Direction::Ingress => selected.ingress.clone(),
            Direction::Egress => selected.egress.clone(),
        })
    }

    /// Whether a policy selects any local pod.
    pub fn is_used(&self, policy: &PolicyKey) -> bool {
        self.users.contains_key(policy)
    }

    /// The policies that select a local pod.
    pub fn used(&self) -> impl Iterator<Item = &PolicyKey> {
        self.users.keys()
    }

    /// How many policies the lists of the pods of a namespace name in all, a list that pods share counting once.
    pub(super) fn named(&self, namespace: &Str) -> usize {
        self.named.get(namespace).copied().unwrap_or_default()
    }

    /// How many of these lists name each policy.
    pub(super) fn lists_naming(&self, namespace: &Str) -> BTreeMap<&PolicyKey, usize> {
        let mut counts = BTreeMap::new();
        for key in self.lists.iter().filter(|list| is_of(list, namespace)).flat_map(|list| list.iter()) {
            *counts.entry(key).or_default() += 1;
        }
        counts
    }

    /// The namespaces whose pods have other lists since the last call.
    pub(super) fn take_grown(&mut self) -> BTreeSet<Str> {
        std::mem::take(&mut self.grown)
    }

    /// Works out anew which policies select a pod; `None` where it is not, or no longer, a local pod.
    pub(super) fn put_pod<'a>(
        &mut self,
        key: &PodKey,
        pod: Option<&Pod>,
        policies: impl Iterator<Item = &'a Arc<NetworkPolicy>>,
    ) {
        let before = self.by_pod.remove(key).unwrap_or_default();
        let selecting: Vec<_> =
            pod.map_or_else(Vec::new, |pod| policies.filter(|policy| selects(policy, pod)).collect());
        for policy in &before.policies {
            self.unuse(policy);
        }
        if pod.is_some() {
            for policy in &selecting {
                *self.users.entry(policy.key.clone()).or_default() += 1;
            }
            let list = |direction| -> Vec<PolicyKey> {
                let speaking = selecting.iter().filter(|policy| policy.rules(direction).is_some());
                speaking.map(|policy| policy.key.clone()).collect()
            };
            let (ingress, egress) = (list(Direction::Ingress), list(Direction::Egress));
            let selected = SelectedBy {
                policies: selecting.iter().map(|policy| policy.key.clone()).collect(),
                ingress: self.share(ingress),
                egress: self.share(egress),
            };
            self.by_pod.insert(key.clone(), selected);
        }
        drop(before);
        self.sweep();
    }

    /// Takes over a change of one policy for the local pods of its namespace, and says whether it now selects other
    /// pods, or speaks about other directions.
    pub(super) fn put_policy<'a>(
        &mut self,
        key: &PolicyKey,
        policy: Option<&NetworkPolicy>,
        local_pods: impl Iterator<Item = &'a Arc<Pod>>,
    ) -> bool {
        let mut changed = false;
        // Pods share their lists, and so what becomes of a list is found once.
        let mut ingress = Successors::default();
        let mut egress = Successors::default();
        for pod in local_pods {
            let mut selected = self.by_pod.remove(&pod.key).unwrap_or_default();
            let now = policy.filter(|policy| selects(policy, pod));
            match (selected.policies.contains(key), now.is_some()) {
                (true, false) => {
                    selected.policies.remove(key);
                    self.unuse(key);
                }
                (false, true) => {
                    selected.policies.insert(key.clone());
                    *self.users.entry(key.clone()).or_default() += 1;
                }
                (true, true) | (false, false) => {}
            }
            let speaks = |direction| now.is_some_and(|policy| policy.rules(direction).is_some());
            for (direction, list, successors) in [
                (Direction::Ingress, &mut selected.ingress, &mut ingress),
                (Direction::Egress, &mut selected.egress, &mut egress),
            ] {
                let listed = speaks(direction);
                let successor =
                    successors.entry((list.id(), listed)).or_insert_with(|| self.with(list, key, listed)).clone();
                changed |= successor.id() != list.id();
                *list = successor;
            }
            self.by_pod.insert(pod.key.clone(), selected);
        }
        self.sweep();
        changed
    }

    /// The list with or without one policy.
    fn with(&mut self, list: &PolicyList, key: &PolicyKey, listed: bool) -> PolicyList {
        match list.binary_search(key) {
            Ok(at) if !listed => {
                let mut changed = list.to_vec();
                changed.remove(at);
                self.share(changed)
            }
            Err(at) if listed => {
                let mut changed = list.to_vec();
                changed.insert(at, key.clone());
                self.share(changed)
            }
            Ok(_) | Err(_) => list.clone(),
        }
    }

    fn share(&mut self, keys: Vec<PolicyKey>) -> PolicyList {
        if keys.is_empty() {
            return PolicyList::default();
        }
        if let Some(known) = self.lists.get(&*keys) {
            return known.clone();
        }
        let namespace = keys[0].namespace.clone();
        *self.named.entry(namespace.clone()).or_default() += keys.len();
        self.grown.insert(namespace);
        let list = PolicyList::new(keys);
        self.lists.insert(list.clone());
        list
    }

    fn unuse(&mut self, policy: &PolicyKey) {
        if let Some(users) = self.users.get_mut(policy) {
            *users -= 1;
            if *users == 0 {
                self.users.remove(policy);
            }
        }
    }

    /// Forgets lists that nobody holds any more.
    fn sweep(&mut self) {
        let named = &mut self.named;
        self.lists.retain(|list| {
            let is_held = Arc::strong_count(&list.keys) > 1;
            if !is_held && let Some(count) = list.first().and_then(|first| named.get_mut(&first.namespace)) {
                *count -= list.len();
            }
            is_held
        });
        named.retain(|_, count| *count > 0);
    }
}

/// Whether a list is of pods of a namespace; a list that names nobody is of none.
fn is_of(list: &PolicyList, namespace: &Str) -> bool {
    list.first().is_some_and(|first| first.namespace == *namespace)
}

fn selects(policy: &NetworkPolicy, pod: &Pod) -> bool {
    policy.key.namespace == pod.key.namespace && policy.pod_selector.matches(&pod.labels)
}
