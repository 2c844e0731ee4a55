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

use std::collections::BTreeMap;
use std::sync::Arc;

use imbl::OrdMap;

use super::skeleton::{self, Deny};
use super::{Family, LogGroup, Table};
use crate::api::{Direction, PolicyKey};
use crate::cluster::{Endpoints, Members, PodPeers, PortSelector};
use crate::policy::{Ir, LocalPod, PodLinks, PolicyRules};
pub use bridge::{
    refused_destination_counter, refused_link_local_counter, refused_port_source_counter, refused_tag_counter,
};
use dispatch::Groups;
use groups::{GroupPart, MOST_JUMPS};
use policy_chain::PolicyChain;
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
    members: Followed<PodPeers, Members>,
    endpoints: Followed<PortSelector, Endpoints>,
    groups: GroupPart,
}

/// What the policies alone decide: their chains, and the sets of CIDRs and ports.
#[derive(Debug, Default)]
struct PolicyPart {
    from: Arc<BTreeMap<PolicyKey, Arc<PolicyRules>>>,
    chains: BTreeMap<(PolicyKey, Direction), PolicyChain>,
    objects: Table,
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
        self.lower_pods(ir);
        self.lower_policies(ir);
        let changed =
            self.members.keep_up(&ir.members, &self.families, sets::declare_pods, sets::pods_keys, &mut self.table);
        self.endpoints.keep_up(
            &ir.endpoints,
            &self.families,
            sets::declare_endpoints,
            sets::endpoints_keys,
            &mut self.table,
        );
        self.groups.keep_up(ir, &self.pods.groups, &self.families, &changed, &mut self.table);
        self.table.clone()
    }

    fn lower_pods(&mut self, ir: &Ir) {
        let is_same = |(pods, links): &(Arc<_>, Arc<_>)| Arc::ptr_eq(pods, &ir.pods) && Arc::ptr_eq(links, &ir.links);
        if self.pods.from.as_ref().is_some_and(is_same) {
            return;
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
    }

    fn lower_policies(&mut self, ir: &Ir) {
        if Arc::ptr_eq(&self.policies.from, &ir.policies) {
            return;
        }
        let mut part = PolicyPart { from: ir.policies.clone(), ..PolicyPart::default() };
        for (key, rules) in ir.policies.iter() {
            let unchanged = self.policies.from.get(key).is_some_and(|before| Arc::ptr_eq(before, rules));
            for direction in Direction::ALL {
                let Some(of_direction) = rules.rules(direction) else { continue };
                let slot = (key.clone(), direction);
                let known = self.policies.chains.remove(&slot).filter(|_| unchanged);
                let chain = known.unwrap_or_else(|| policy_chain::lower(key, direction, of_direction, &self.families));
                part.objects.chains.insert(chain.name.clone(), chain.chain.clone());
                for (name, set) in &chain.sets {
                    // Another policy may have made the same set: it keeps its reference while both are there.
                    let known = self.policies.objects.sets.get(name).unwrap_or(set);
                    part.objects.sets.entry(name.clone()).or_insert_with(|| known.clone());
                }
                part.chains.insert(slot, chain);
            }
        }
        replace(&mut self.table, &self.policies.objects, &part.objects);
        self.policies = part;
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
