//! From the policy IR to the table that enforces it.
//!
//! ```text
//! base chain -> dispatch map by pod address -> chain of a set of policies -> chain of one policy -> accept
//!                                                                        \-> deny
//! ```
//!
//! Pods that the same policies isolate share one chain. Where these are more than a handful, it leads by the peer's
//! address to those that name it, so that a new connection costs the same however many there are; else it asks them in
//! turn. A policy has one chain a direction, whoever it selects. The
//! pods that a rule names are one set, whatever the number of their selectors, and shared by all rules that name the
//! same ones; so are its named ports. A pod that comes or goes is one element and no rule changes, and no policy is
//! larger in the kernel than the sum of what it says.

mod bridge;
mod by_peer;
mod dispatch;
mod groups;
mod naming;
mod policy_chain;
mod segments;
mod sets;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use imbl::OrdMap;

use super::skeleton::{self, Deny};
use super::{Family, LogGroup, SetName, Table};
use crate::api::{Direction, PodPeers, PolicyKey};
use crate::cluster::{Endpoint, PortSelector};
use crate::policy::{Ir, LocalPod, PodLinks, RulesByPolicy};
use crate::shared::changed_keys;
pub(super) use bridge::known_ports;
pub use bridge::{
    refused_destination_counter, refused_link_local_counter, refused_port_source_counter, refused_tag_counter,
};
use dispatch::Groups;
use groups::{Changed, GroupPart, MOST_JUMPS};
use policy_chain::{Known, PolicyChain};
use sets::Followed;

/// Lowers IRs to tables, and remembers what it made of parts that have not changed.
///
/// The memory only saves work: a lowerer that has seen other IRs before gives the same table as a new one. What has
/// not changed is the same `Arc` as before, so that the diff passes over it.
#[derive(Debug)]
pub struct Lowerer {
    deny: Deny,
    log: Option<LogGroup>,
    families: Vec<Family>,
    table: Table,
    policies: PolicyPart,
    pods: PodPart,
    members: Followed<PodPeers, IpAddr>,
    endpoints: Followed<PortSelector, Endpoint>,
    groups: GroupPart,
}

/// What the policies alone decide: their chains, and the sets of CIDRs and ports.
#[derive(Debug, Default)]
struct PolicyPart {
    from: RulesByPolicy,
    chains: BTreeMap<(PolicyKey, Direction), PolicyChain>,
    /// How many rules look into each of their sets.
    users: BTreeMap<SetName, usize>,
}

/// What the local pods alone decide.
#[derive(Debug, Default)]
struct PodPart {
    from: Option<(Arc<Vec<LocalPod>>, Arc<PodLinks>)>,
    groups: Groups,
    objects: Table,
}

impl Lowerer {
    /// A lowerer whose tables refuse in this way, and tell of it to the default group.
    pub fn new(deny: Deny) -> Lowerer {
        Lowerer::with_log(deny, Some(LogGroup::default()))
    }

    fn with_log(deny: Deny, log: Option<LogGroup>) -> Lowerer {
        let mut table = Table::default();
        skeleton::add_to(&mut table, deny, log);
        Lowerer {
            deny,
            log,
            families: Vec::new(),
            table,
            policies: PolicyPart::default(),
            pods: PodPart::default(),
            members: Followed::default(),
            endpoints: Followed::default(),
            groups: GroupPart::new(MOST_JUMPS),
        }
    }

    /// The same, that has lowered nothing yet, whose tables tell of refused packets to another group, or to nobody.
    #[must_use]
    pub fn logging(self, log: Option<LogGroup>) -> Lowerer {
        Lowerer::with_log(self.deny, log).with_most_jumps(self.groups.most_jumps())
    }

    /// The same, that has lowered nothing yet, whose pods with more policies than this are led to them by peer.
    #[must_use]
    pub fn with_most_jumps(self, most_jumps: usize) -> Lowerer {
        Lowerer { groups: GroupPart::new(most_jumps), ..self }
    }

    /// The table that enforces an IR.
    pub fn lower(&mut self, ir: &Ir) -> Table {
        let groups = self.lower_pods(ir);
        // Before the chains that look into the sets: they call them by their names.
        let turned =
            self.members.keep_up(&ir.members, &self.families, sets::declare_pods, sets::pods_keys, &mut self.table);
        self.endpoints.keep_up(
            &ir.endpoints,
            &self.families,
            sets::declare_endpoints,
            sets::endpoints_keys,
            &mut self.table,
        );
        let policies = self.lower_policies(ir);
        let changed = Changed { groups, policies: &policies, selectors: &turned };
        self.groups.keep_up(ir, &self.pods.groups, &self.families, &changed, &mut self.table);
        self.table.clone()
    }

    /// Says whether there may be other groups of pods than before.
    fn lower_pods(&mut self, ir: &Ir) -> bool {
        let is_same = |(pods, links): &(Arc<_>, Arc<_>)| Arc::ptr_eq(pods, &ir.pods) && Arc::ptr_eq(links, &ir.links);
        if self.pods.from.as_ref().is_some_and(is_same) {
            return false;
        }
        // Rules and sets of a family are there only if some local pod has an address of it.
        let has = |family: &Family| {
            ir.pods.iter().any(|pod| pod.addresses.iter().any(|address| Family::of(*address) == *family))
        };
        let families: Vec<Family> = Family::ALL.into_iter().filter(has).collect();
        if families != self.families {
            let anew = Lowerer::with_log(self.deny, self.log).with_most_jumps(self.groups.most_jumps());
            *self = Lowerer { families, ..anew };
        }
        let mut objects = dispatch::lower(ir, &mut self.pods.groups, self.log);
        bridge::add_to(&mut objects, &ir.pods, &ir.links, self.log);
        replace(&mut self.table, &self.pods.objects, &objects);
        self.pods.from = Some((ir.pods.clone(), ir.links.clone()));
        self.pods.objects = objects;
        true
    }

    /// Gives the policies whose rules are others than before.
    fn lower_policies(&mut self, ir: &Ir) -> BTreeSet<PolicyKey> {
        let PolicyPart { from, chains, users } = &mut self.policies;
        let known = Known { families: &self.families, members: &self.members, endpoints: &self.endpoints };
        let changed: BTreeSet<PolicyKey> = changed_keys(from, &ir.policies).cloned().collect();
        let slots = changed.iter().flat_map(|key| Direction::ALL.map(|direction| (key.clone(), direction)));
        // What comes, comes first: a set that both have stays as it is.
        for slot in slots {
            let (key, direction) = &slot;
            let rules = ir.policies.get(key).and_then(|policy| policy.rules(*direction));
            let now = rules.map(|rules| policy_chain::lower(key, *direction, rules, &known));
            if let Some(now) = &now {
                self.table.chains.insert(now.name.clone(), now.chain.clone());
                for (name, set) in &now.sets {
                    let users = users.entry(name.clone()).or_default();
                    *users += 1;
                    if *users == 1 {
                        self.table.sets.insert(name.clone(), set.clone());
                    }
                }
            }
            let before = match now {
                Some(now) => chains.insert(slot, now),
                None => {
                    let before = chains.remove(&slot);
                    before.iter().for_each(|before| _ = self.table.chains.remove(&before.name));
                    before
                }
            };
            for (name, _) in before.iter().flat_map(|before| &before.sets) {
                let Some(left) = users.get_mut(name) else { continue };
                *left -= 1;
                if *left == 0 {
                    users.remove(name);
                    self.table.sets.remove(name);
                }
            }
        }
        from.clone_from(&ir.policies);
        changed
    }
}

/// Takes one part of the table out and puts another in its place.
fn replace(table: &mut Table, old: &Table, new: &Table) {
    fn replace_in<K: Ord + Clone, V>(all: &mut OrdMap<K, Arc<V>>, old: &OrdMap<K, Arc<V>>, new: &OrdMap<K, Arc<V>>) {
        for name in old.keys().filter(|name| !new.contains_key(*name)) {
            all.remove(name);
        }
        for (name, object) in new {
            if !old.get(name).is_some_and(|before| Arc::ptr_eq(before, object)) {
                all.insert(name.clone(), object.clone());
            }
        }
    }
    for gone in old.counters.difference(&new.counters) {
        table.counters.remove(gone);
    }
    table.counters.extend(new.counters.difference(&old.counters).cloned());
    replace_in(&mut table.sets, &old.sets, &new.sets);
    replace_in(&mut table.maps, &old.maps, &new.maps);
    replace_in(&mut table.chains, &old.chains, &new.chains);
}

/// The table of an IR, from nothing.
pub fn lower(ir: &Ir, deny: Deny) -> Table {
    Lowerer::new(deny).lower(ir)
}

#[cfg(test)]
mod tests;
