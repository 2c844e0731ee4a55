//! From the policy IR to the table that enforces it.
//!
//! ```text
//! base chain -> dispatch map by pod address -> chain of a set of policies -> chain of one policy -> accept
//!                                                                        \-> deny
//! ```
//!
//! Pods that the same policies isolate share one chain; a policy has one chain a direction, whoever it selects. What
//! a selector means is a set of its own, shared by every rule that names the selector, so that a pod that comes or
//! goes is one element and no rule changes.

mod dispatch;
mod policy_chain;
mod sets;

use std::collections::BTreeMap;
use std::sync::Arc;

use super::skeleton::{self, Deny};
use super::{Family, Table};
use crate::api::{Direction, PolicyKey};
use crate::policy::{Ir, PolicyRules};
use dispatch::Dispatch;
use policy_chain::PolicyChain;
use sets::LoweredSets;

/// Lowers IRs to tables, and remembers what it made of parts that have not changed.
///
/// The memory only saves work: a lowerer that has seen other IRs before gives the same table as a new one. What has
/// not changed is the same `Arc` as before, so that the diff passes over it.
#[derive(Debug, Default)]
pub struct Lowerer {
    deny: Deny,
    skeleton: Option<Table>,
    families: Vec<Family>,
    policies: BTreeMap<(PolicyKey, Direction), (Arc<PolicyRules>, PolicyChain)>,
    dispatch: Option<Dispatch>,
    sets: LoweredSets,
}

impl Lowerer {
    /// A lowerer whose tables refuse in this way.
    pub fn new(deny: Deny) -> Lowerer {
        Lowerer { deny, ..Lowerer::default() }
    }

    /// The table that enforces an IR.
    pub fn lower(&mut self, ir: &Ir) -> Table {
        self.forget_other_families(ir);
        let mut table = self.skeleton();
        self.lower_policies(ir, &mut table);
        self.lower_pods(ir, &mut table);
        self.sets.lower(ir, &self.families, &mut table);
        table
    }

    /// Rules and sets of a family are there only if some local pod has an address of it.
    fn forget_other_families(&mut self, ir: &Ir) {
        let has = |family: &Family| {
            ir.pods.iter().any(|pod| pod.addresses.iter().any(|address| Family::of(*address) == *family))
        };
        let families: Vec<Family> = Family::ALL.into_iter().filter(has).collect();
        if families != self.families {
            self.policies.clear();
            self.families = families;
        }
    }

    fn skeleton(&mut self) -> Table {
        let deny = self.deny;
        self.skeleton
            .get_or_insert_with(|| {
                let mut table = Table::default();
                skeleton::add_to(&mut table, deny);
                table
            })
            .clone()
    }

    fn lower_policies(&mut self, ir: &Ir, table: &mut Table) {
        self.policies.retain(|(key, _), _| ir.policies.contains_key(key));
        for (key, rules) in &ir.policies {
            for direction in Direction::ALL {
                let Some(of_direction) = rules.rules(direction) else { continue };
                let slot = (key.clone(), direction);
                let known = self.policies.get(&slot).filter(|(from, _)| Arc::ptr_eq(from, rules));
                if known.is_none() {
                    let chain = policy_chain::lower(key, direction, of_direction, &self.families);
                    self.policies.insert(slot.clone(), (rules.clone(), chain));
                }
                let (_, lowered) = &self.policies[&slot];
                table.chains.insert(lowered.name.clone(), lowered.chain.clone());
                table.sets.extend(lowered.sets.iter().cloned());
            }
        }
    }

    fn lower_pods(&mut self, ir: &Ir, table: &mut Table) {
        let known = self.dispatch.take().filter(|known| known.pods == ir.pods);
        let dispatch = known.unwrap_or_else(|| Dispatch::of(&ir.pods));
        table.chains.extend(dispatch.chains.iter().cloned());
        table.maps.extend(dispatch.maps.iter().cloned());
        table.sets.extend(dispatch.sets.iter().cloned());
        self.dispatch = Some(dispatch);
    }
}

/// The table of an IR, from nothing.
pub fn lower(ir: &Ir, deny: Deny) -> Table {
    Lowerer::new(deny).lower(ir)
}
