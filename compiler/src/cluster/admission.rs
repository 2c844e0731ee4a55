//! Which of the policies in use are enforced as they are written, and what is kept for them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use imbl::OrdMap;

use super::budget::{Budget, Cost, Measure, Quarantine, Spender};
use super::needs::Needs;
use super::{Memberships, Namespaces, Pods, PortSelector, Selection};
use crate::api::{NetworkPolicy, PodPeers, PolicyKey, Str};

/// The policies that select a local pod, and what is kept for them.
#[derive(Debug, Clone)]
pub(super) struct Admission {
    budget: Budget,
    used: BTreeMap<PolicyKey, Used>,
    /// The same policies, and nothing else.
    policies: OrdMap<PolicyKey, Arc<NetworkPolicy>>,
    /// The policies that are not enforced as written, and why.
    quarantined: OrdMap<PolicyKey, Quarantine>,
    /// What the kernel has refused: the policy as it was then, and why.
    refused: BTreeMap<PolicyKey, (Arc<NetworkPolicy>, String)>,
    /// What the policies that are kept cost, by namespace; memberships and the longest list of ranges aside.
    kept: BTreeMap<Str, Cost>,
    /// Namespaces for which it is to be decided anew. Once for many changes: it takes a look at all their policies.
    undecided: BTreeSet<Str>,
}

#[derive(Debug, Clone)]
struct Used {
    policy: Arc<NetworkPolicy>,
    needs: Needs,
    /// Whether its memberships are kept.
    is_kept: bool,
}

/// What is tried again for policies that were quarantined before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Retry {
    /// Only what costs nothing to find out: the policies of a namespace may change all the time.
    Cheap,
    /// All.
    All,
}

/// What memberships are worked out from, and where they are kept.
pub(super) struct Keeper<'a> {
    pub(super) selection: &'a Selection,
    pub(super) memberships: &'a mut Memberships,
    pub(super) pods: &'a Pods,
    pub(super) namespaces: &'a Namespaces,
}

// === impl Admission ===

impl Admission {
    /// No policy, and for the policies of each namespace so much.
    pub(super) fn new(budget: Budget) -> Admission {
        Admission {
            budget,
            used: BTreeMap::new(),
            policies: OrdMap::new(),
            quarantined: OrdMap::new(),
            refused: BTreeMap::new(),
            kept: BTreeMap::new(),
            undecided: BTreeSet::new(),
        }
    }

    /// The policies that are in use.
    pub(super) fn policies(&self) -> &OrdMap<PolicyKey, Arc<NetworkPolicy>> {
        &self.policies
    }

    /// The policies that are not enforced as written, and why.
    pub(super) fn quarantined(&self) -> &OrdMap<PolicyKey, Quarantine> {
        &self.quarantined
    }

    /// Takes note of a policy as it is now; `None` where it is gone, or selects no local pod any more. What follows for
    /// policies that do not fit is decided by [`Admission::decide`].
    pub(super) fn put(&mut self, key: &PolicyKey, policy: Option<&Arc<NetworkPolicy>>, mut keeper: Keeper<'_>) {
        let before = self.used.remove(key);
        match policy {
            Some(policy) => _ = self.policies.insert(key.clone(), policy.clone()),
            None => _ = self.policies.remove(key),
        }
        if let Some(before) = before.as_ref().filter(|before| before.is_kept) {
            self.spend(&key.namespace, before.needs.cost, Cost::less);
        }
        let was_quarantined = self.quarantined.remove(key).is_some();
        self.refused.retain(|of, (known, _)| of != key || policy.is_some_and(|policy| Arc::ptr_eq(known, policy)));
        if let Some(policy) = policy {
            let mut used = Used { policy: policy.clone(), needs: Needs::of(policy), is_kept: false };
            let Budget { policy: alone, namespace: together } = self.budget;
            let cost = self.cost_of(&key.namespace).and(used.needs.cost);
            let room = together.elements.saturating_sub(cost.elements);
            let fits = used.needs.cost.within(alone, Spender::Policy).and(cost.within(together, Spender::Namespace));
            if fits.is_ok() {
                used.is_kept = keeper.acquire(&used.needs, &key.namespace, room);
            }
            if used.is_kept {
                self.spend(&key.namespace, used.needs.cost, Cost::and);
            }
            self.used.insert(key.clone(), used);
        }
        // After the new version has what it needs, so that what both need is not worked out anew.
        if let Some(before) = before.filter(|before| before.is_kept) {
            keeper.release(&before.needs, &key.namespace);
        }
        let is_refused = self.refused.contains_key(key);
        let is_left_out = self.used.get(key).is_some_and(|used| !used.is_kept);
        if was_quarantined || is_refused || is_left_out || self.has_quarantined(&key.namespace) {
            self.undecided.insert(key.namespace.clone());
        }
    }

    /// Takes note that the kernel refuses what a policy becomes. That counts until the policy changes.
    pub(super) fn refuse(&mut self, key: &PolicyKey, reason: String) {
        if let Some(used) = self.used.get(key) {
            self.refused.insert(key.clone(), (used.policy.clone(), reason));
            self.undecided.insert(key.namespace.clone());
        }
    }

    /// Takes back what was noted about these policies, in quarantine or not.
    pub(super) fn pardon(&mut self, policies: &[PolicyKey]) {
        for key in policies {
            if self.refused.remove(key).is_some() {
                self.undecided.insert(key.namespace.clone());
            }
        }
    }

    /// Gives every policy in quarantine another chance.
    pub(super) fn reconsider(&mut self, mut keeper: Keeper<'_>) {
        self.refused.clear();
        let namespaces: BTreeSet<Str> = self.quarantined.keys().map(|key| key.namespace.clone()).collect();
        for namespace in namespaces {
            self.balance(&namespace, Retry::All, &mut keeper);
        }
    }

    /// Decides what is undecided, also for namespaces for which more is kept by now than their budgets allow, and for those
    /// whose pods have `other_lists` of policies. Says whether any policy may be enforced otherwise than before.
    pub(super) fn decide(&mut self, other_lists: BTreeSet<Str>, mut keeper: Keeper<'_>) -> bool {
        for namespace in other_lists {
            let too_many = keeper.selection.named(&namespace) > self.budget.namespace.jumps;
            if too_many || self.has_quarantined(&namespace) {
                self.undecided.insert(namespace);
            }
        }
        // What has grown by a decision is among them. It fits, and so it is not decided upon again.
        for namespace in keeper.memberships.take_grown() {
            let elements = self.cost_of(&namespace).elements + keeper.memberships.elements(&namespace);
            if elements > self.budget.namespace.elements {
                self.undecided.insert(namespace);
            }
        }
        let undecided = std::mem::take(&mut self.undecided);
        for namespace in &undecided {
            self.balance(namespace, Retry::Cheap, &mut keeper);
        }
        !undecided.is_empty()
    }

    /// Decides anew for all policies of a namespace. The cheapest come first, and of equal ones the first by name: what
    /// is decided depends on the policies and not on the order in which they came.
    fn balance(&mut self, namespace: &Str, retry: Retry, keeper: &mut Keeper<'_>) {
        let keys: Vec<PolicyKey> = self.in_namespace(namespace).map(|(key, _)| key.clone()).collect();
        let before: BTreeMap<_, _> = keys.iter().filter_map(|key| self.quarantined.remove_with_key(key)).collect();
        let are_too_many = keeper.selection.named(namespace) > self.budget.namespace.jumps;
        let lists = if are_too_many { keeper.selection.lists_naming(namespace) } else { BTreeMap::new() };
        let cost = |key: &PolicyKey, used: &Used| {
            let jumps = lists.get(key).copied().unwrap_or_default();
            Cost { jumps, ..used.needs.cost }
        };
        let of_namespace = self.in_namespace(namespace).map(|(key, used)| (cost(key, used), key.clone()));
        let mut order: Vec<(Cost, PolicyKey)> = of_namespace.collect();
        order.sort_unstable();
        let mut spent = Spent::default();
        self.kept.remove(namespace);
        for (cost, key) in order {
            let used = self.used.get_mut(&key).expect("the key was just found");
            let fits = match (self.refused.get(&key), before.get(&key)) {
                (Some((_, reason)), _) => Err(Quarantine::Refused { reason: reason.clone() }),
                (None, Some(known)) if retry == Retry::Cheap && known.took_long() => Err(known.clone()),
                (None, _) => spent.add(cost, &used.needs, namespace, self.budget, keeper),
            };
            if used.is_kept {
                // What was added has now been acquired once more.
                keeper.release(&used.needs, namespace);
            }
            used.is_kept = fits.is_ok();
            let cost = used.needs.cost;
            match fits {
                Ok(()) => self.spend(namespace, cost, Cost::and),
                Err(quarantine) => drop(self.quarantined.insert(key, quarantine)),
            }
        }
    }

    /// What the kept policies of a namespace cost, memberships aside.
    fn cost_of(&self, namespace: &Str) -> Cost {
        self.kept.get(namespace).copied().unwrap_or_default()
    }

    fn spend(&mut self, namespace: &Str, cost: Cost, how: impl Fn(Cost, Cost) -> Cost) {
        let kept = self.kept.entry(namespace.clone()).or_default();
        // Each policy has to keep within the ranges of a namespace by itself.
        *kept = Cost { ranges: 0, ..how(*kept, cost) };
        if *kept == Cost::default() {
            self.kept.remove(namespace);
        }
    }

    fn has_quarantined(&self, namespace: &Str) -> bool {
        let first = PolicyKey { namespace: namespace.clone(), name: "".into() };
        self.quarantined.range(first..).next().is_some_and(|(key, _)| key.namespace == *namespace)
    }

    fn in_namespace<'a>(&'a self, namespace: &'a Str) -> impl Iterator<Item = (&'a PolicyKey, &'a Used)> {
        let first = PolicyKey { namespace: namespace.clone(), name: "".into() };
        self.used.range(first..).take_while(move |(key, _)| key.namespace == *namespace)
    }
}

impl Quarantine {
    /// Whether memberships had to be worked out to find that the policy does not fit.
    fn took_long(&self) -> bool {
        matches!(self, Quarantine::OverBudget { of: Measure::Elements, .. })
    }
}

/// What the policies that have been decided upon cost.
#[derive(Default)]
struct Spent {
    cost: Cost,
    /// What has been counted: policies that share a membership pay for it once.
    needs: Needs,
}

impl Spent {
    /// Acquires what one more policy needs, or says why it does not fit.
    fn add(
        &mut self,
        own: Cost,
        needs: &Needs,
        namespace: &Str,
        budget: Budget,
        keeper: &mut Keeper<'_>,
    ) -> Result<(), Quarantine> {
        let mut cost = self.cost.and(own);
        own.within(budget.policy, Spender::Policy)?;
        let limit = budget.namespace;
        cost.within(limit, Spender::Namespace)?;
        let mut acquired = Needs::default();
        for peers in &needs.pods {
            keeper.acquire_members(peers, namespace);
            acquired.pods.insert(peers.clone());
            if !self.needs.pods.contains(peers) {
                cost.elements += keeper.memberships.members()[peers].len();
            }
            if cost.elements > limit.elements {
                break;
            }
        }
        for port in &needs.ports {
            if cost.elements > limit.elements {
                break;
            }
            keeper.acquire_endpoints(port, namespace);
            acquired.ports.insert(port.clone());
            if !self.needs.ports.contains(port) {
                cost.elements += keeper.memberships.endpoints()[port].len();
            }
        }
        if let Err(over) = cost.within(limit, Spender::Namespace) {
            keeper.release(&acquired, namespace);
            return Err(over);
        }
        self.cost = cost;
        // Not appended, which would take as long as there are elements in both.
        self.needs.pods.extend(acquired.pods);
        self.needs.ports.extend(acquired.ports);
        Ok(())
    }
}

// === impl Keeper ===

impl Keeper<'_> {
    /// Acquires everything, unless more than `room` is then kept for the namespace: then nothing, and it says no.
    fn acquire(&mut self, needs: &Needs, user: &Str, room: usize) -> bool {
        let mut acquired = Needs::default();
        for peers in &needs.pods {
            if self.memberships.elements(user) > room {
                break;
            }
            self.acquire_members(peers, user);
            acquired.pods.insert(peers.clone());
        }
        for port in &needs.ports {
            if self.memberships.elements(user) > room {
                break;
            }
            self.acquire_endpoints(port, user);
            acquired.ports.insert(port.clone());
        }
        let fits = self.memberships.elements(user) <= room;
        if !fits {
            self.release(&acquired, user);
        }
        fits
    }

    fn acquire_members(&mut self, peers: &Arc<PodPeers>, user: &Str) {
        self.memberships.acquire_members(peers, user, self.pods, self.namespaces);
    }

    fn acquire_endpoints(&mut self, port: &Arc<PortSelector>, user: &Str) {
        self.memberships.acquire_endpoints(port, user, self.pods, self.namespaces);
    }

    fn release(&mut self, needs: &Needs, user: &Str) {
        for peers in &needs.pods {
            self.memberships.release_members(peers, user);
        }
        for port in &needs.ports {
            self.memberships.release_endpoints(port, user);
        }
    }
}
