//! New versions of policies that wait for the pods of which they speak.
//!
//! To replace rules that are in force by ones whose peers are not known yet would refuse, for a moment, peers that both
//! versions allow. So the old version stays until the new one's peers are known. Without end, though, an API server that
//! is slow would keep it from taking effect. What isolates more than before takes effect at once, and so waits for nothing:
//! a policy that is new, that selects other pods, or that speaks about another direction.

use std::collections::BTreeMap;
use std::time::Instant;

use compiler::api::{Direction, NetworkPolicy, PolicyKey};
use compiler::cluster::{Change, Event, Interest, State};

use super::PATIENCE;
use crate::sync::Arrival;
use crate::sync::sources::Sources;

/// The versions that wait. The state has the old ones.
#[derive(Debug, Default)]
pub(super) struct Held {
    by_key: BTreeMap<PolicyKey, Version>,
}

#[derive(Debug)]
struct Version {
    policy: NetworkPolicy,
    arrival: Arrival,
    /// The pods of which it speaks, by the Namespaces of this [`State::versions`].
    interest: Interest,
    of_namespaces: u64,
    /// When it takes effect at the latest. Versions that follow on each other wait no longer than the first of them.
    until: Instant,
}

// === impl Held ===

impl Held {
    /// Keeps back what has to wait, and returns what is left of the event.
    pub(super) fn admit(&mut self, event: Event, arrival: Arrival, state: &State, sources: &Sources) -> Option<Event> {
        let change = match event {
            Event::Policies(change) => change,
            Event::Pods(..) | Event::Namespaces(_) | Event::Links(_) | Event::Sandboxes(_) | Event::PodRanges(_) => {
                return Some(event);
            }
        };
        let left = match change {
            Change::Applied(policy) => Change::Applied(self.put(policy, arrival, state, sources)?),
            Change::Deleted(key) => {
                self.by_key.remove(&key);
                Change::Deleted(key)
            }
            Change::Reset(policies) => {
                let listed = |key: &PolicyKey| policies.iter().any(|policy| policy.key == *key);
                self.by_key.retain(|key, _| listed(key));
                let now_or_before = |policy: NetworkPolicy| {
                    let key = policy.key.clone();
                    let now = self.put(policy, arrival, state, sources);
                    now.or_else(|| state.policies().get(&key).map(|before| NetworkPolicy::clone(before)))
                };
                Change::Reset(policies.into_iter().filter_map(now_or_before).collect())
            }
        };
        Some(Event::Policies(left))
    }

    /// Keeps a policy back, or gives it back if it need not wait.
    fn put(
        &mut self,
        policy: NetworkPolicy,
        arrival: Arrival,
        state: &State,
        sources: &Sources,
    ) -> Option<NetworkPolicy> {
        let before = self.by_key.remove(&policy.key);
        let is_in_force = state.policies().get(&policy.key).is_some_and(|in_force| **in_force == policy);
        if is_in_force || !takes_place(&policy, state) {
            return Some(policy);
        }
        let interest = Interest::of_policy(&policy, state.namespaces());
        if sources.cover(&interest) {
            return Some(policy);
        }
        let until = before.map_or(arrival.received + PATIENCE, |before| before.until);
        let of_namespaces = state.versions().namespaces;
        self.by_key.insert(policy.key.clone(), Version { policy, arrival, interest, of_namespaces, until });
        None
    }

    /// The versions that need not wait any more, each with when it came.
    pub(super) fn release(&mut self, state: &State, sources: &Sources, now: Instant) -> Vec<(NetworkPolicy, Arrival)> {
        if self.by_key.is_empty() {
            return Vec::new();
        }
        let of_namespaces = state.versions().namespaces;
        for version in self.by_key.values_mut().filter(|version| version.of_namespaces != of_namespaces) {
            version.interest = Interest::of_policy(&version.policy, state.namespaces());
            version.of_namespaces = of_namespaces;
        }
        let is_due = |version: &Version| {
            version.until <= now || !takes_place(&version.policy, state) || sources.cover(&version.interest)
        };
        let due = self.by_key.iter().filter(|(_, version)| is_due(version));
        let due: Vec<PolicyKey> = due.map(|(key, _)| key.clone()).collect();
        let released = due.iter().filter_map(|key| self.by_key.remove(key));
        released.map(|version| (version.policy, version.arrival)).collect()
    }

    /// What they wait for.
    pub(super) fn interests(&self) -> impl Iterator<Item = &Interest> {
        self.by_key.values().map(|version| &version.interest)
    }

    /// When the next one takes effect at the latest.
    pub(super) fn release_at(&self) -> Option<Instant> {
        self.by_key.values().map(|version| version.until).min()
    }
}

/// Whether a policy takes the place of rules that are in force, and isolates as they do.
fn takes_place(policy: &NetworkPolicy, state: &State) -> bool {
    let in_force = state.policies().get(&policy.key).filter(|_| state.selection().is_used(&policy.key));
    let mut local = state.pods().local().filter(|pod| pod.key.namespace == policy.key.namespace);
    in_force.is_some_and(|in_force| isolates_alike(in_force, policy))
        && local.any(|pod| policy.pod_selector.matches(&pod.labels))
}

fn isolates_alike(one: &NetworkPolicy, other: &NetworkPolicy) -> bool {
    let speaks = |policy: &NetworkPolicy| Direction::ALL.map(|direction| policy.rules(direction).is_some());
    one.pod_selector == other.pod_selector && speaks(one) == speaks(other)
}
