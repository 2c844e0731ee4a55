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

mod policy_chain;
mod sets;

use std::collections::BTreeMap;
use std::sync::Arc;

use super::skeleton::{self, Deny, dispatch_map, self_set};
use super::{
    Chain, ChainName, Comment, Family, Key, KeyType, MapElement, Set, SetName, Stmt, Table, Verdict, VerdictMap,
};
use crate::api::{Direction, PolicyKey};
use crate::cluster::PolicyList;
use crate::policy::{Ir, Isolation, PolicyRules};
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
    /// By the address of the list that it was made of, which it keeps alive.
    groups: BTreeMap<(usize, bool, Direction), (Isolation, ChainName, Arc<Chain>)>,
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
        self.lower_groups(ir, &mut table);
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

    fn lower_groups(&mut self, ir: &Ir, table: &mut Table) {
        let mut used = BTreeMap::new();
        let mut maps: BTreeMap<(Direction, Family), BTreeMap<Key, MapElement>> = BTreeMap::new();
        let mut pairs: BTreeMap<Family, Vec<Key>> = BTreeMap::new();
        for pod in &ir.pods {
            for direction in Direction::ALL {
                let Some(isolation) = pod.isolation(direction) else { continue };
                let slot = (Arc::as_ptr(&isolation.policies) as usize, isolation.by_namespace.is_some(), direction);
                let group = self.groups.remove(&slot).filter(|(known, ..)| known == isolation);
                let group =
                    used.entry(slot).or_insert_with(|| group.unwrap_or_else(|| lower_group(direction, isolation)));
                for address in &pod.addresses {
                    let element = MapElement {
                        verdict: Verdict::Goto(group.1.clone()),
                        comment: Some(Comment::new(&pod.key.to_string())),
                    };
                    maps.entry((direction, Family::of(*address))).or_default().insert(Key::address(*address), element);
                }
            }
            if pod.ingress.is_some() || pod.egress.is_some() {
                for address in &pod.addresses {
                    pairs.entry(Family::of(*address)).or_default().push(Key::pair(*address));
                }
            }
        }
        self.groups = used;
        for (_, name, chain) in self.groups.values() {
            table.chains.insert(name.clone(), chain.clone());
        }
        for family in Family::ALL {
            for direction in Direction::ALL {
                let elements = maps.remove(&(direction, family)).unwrap_or_default();
                let map = VerdictMap {
                    key_type: KeyType::Address(family),
                    comment: Some(Comment::new(&format!("isolated for {}", direction.as_str()))),
                    elements: Arc::new(elements),
                };
                table.maps.insert(dispatch_map(direction, family), Arc::new(map));
            }
            let mut keys = pairs.remove(&family).unwrap_or_default();
            keys.sort_unstable();
            keys.dedup();
            let comment = Some(Comment::new("every isolated pod with itself"));
            let set = Set { key_type: KeyType::Pair(family), comment, keys: Arc::new(keys) };
            table.sets.insert(self_set(family), Arc::new(set));
        }
    }
}

/// The table of an IR, from nothing.
pub fn lower(ir: &Ir, deny: Deny) -> Table {
    Lowerer::new(deny).lower(ir)
}

/// The chain of the pods that one list of policies isolates: the chain of each policy, and then no more.
fn lower_group(direction: Direction, isolation: &Isolation) -> (Isolation, ChainName, Arc<Chain>) {
    let why = describe(&isolation.policies, isolation.by_namespace.as_deref());
    let name = ChainName::hashed(&format!("{}-pods", direction.as_str()), &identity(isolation), "");
    let jump = |key| [Stmt::Verdict(Verdict::Jump(policy_chain::name(key, direction)))];
    let mut rules: Vec<_> = isolation.policies.iter().map(|key| skeleton::rule(jump(key), None)).collect();
    rules.push(skeleton::rule([Stmt::Verdict(Verdict::Goto(skeleton::deny_chain(direction)))], None));
    let chain = Chain { base: None, comment: Some(Comment::new(&why)), rules };
    (isolation.clone(), name, Arc::new(chain))
}

/// Everything by which the chain of one isolation differs from that of another.
fn identity(isolation: &Isolation) -> String {
    let mut identity = isolation.by_namespace.as_deref().unwrap_or_default().to_string();
    for key in isolation.policies.iter() {
        identity.push('\n');
        identity.push_str(&key.to_string());
    }
    identity
}

fn describe(policies: &PolicyList, by_namespace: Option<&str>) -> String {
    let annotation = by_namespace.map(|name| format!("annotation of Namespace {name}"));
    let parts: Vec<String> = annotation.into_iter().chain(policies.iter().map(ToString::to_string)).collect();
    format!("isolated by {}", parts.join(", "))
}
