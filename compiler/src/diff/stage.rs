//! How far the next transaction goes, where all that is to be done would keep the kernel too long.
//!
//! While the kernel takes a transaction in, every other writer of nftables waits, and so does whoever's change comes
//! next. What is to be done is therefore weighed, and beyond a limit it is done in stages, each of which is a table
//! that may stand:
//!
//! 1. What isolates, and all that is small. A policy whose sets weigh too much keeps the rules that it had; a new one
//!    has none yet, and so isolates its pods and allows nothing.
//! 2. The content of those sets, in slices. No rule refers to them yet, so nobody sees them half full.
//! 3. The rules of the policies whose sets are complete: the next time that stage 1 is asked for.
//!
//! The lightest policies come first. Nothing is remembered between two stages: where the way goes on is seen from the
//! kernel's table and the desired one, which may be another by then.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::next::{Change, Changes, diff_keys};
use crate::nft::{Chain, ChainName, Key, Set, SetName, Table, VerdictMap, sets_of};

/// The table to which the next transaction leads, if it is not the desired one because that would weigh more than the
/// limit.
pub(super) fn target(desired: &Table, base: &Table, changes: &Changes<'_>, limit: usize) -> Option<Table> {
    if is_surely_light(changes, base, limit) {
        return None;
    }
    let plan = Plan::of(desired, base, changes, limit);
    if plan.is_complete() {
        return None;
    }
    let first = plan.first_stage();
    if first != *base {
        return Some(first);
    }
    // Where no content is missing either, what is left weighs too much only because it cannot be divided.
    Some(plan.content(limit).unwrap_or_else(|| plan.with_lightest_chain()))
}

/// The weight of a key that is added or deleted is 1, which is a microsecond of the kernel's time.
const RULE: usize = 2;
/// A set or a map that is added or deleted, in a table without others.
const SET: usize = 25;
/// The kernel finds sets by name in a list, several times for a set that comes or goes: so many weigh 1.
const SETS_A_SET: usize = 9;
/// The same for a rule, which is looked up once.
const SETS_A_RULE: usize = 50;
/// The kernel rebuilds a set of ranges with every change: so many ranges weigh 1.
const RANGES: usize = 3;

/// What is to be done, and what of it is left for later.
struct Plan<'a> {
    desired: &'a Table,
    base: &'a Table,
    /// The sets to which no rule of the kernel's table refers, with what they lack.
    lacking: BTreeMap<&'a SetName, Lacking<'a>>,
    /// The chains of policies whose rules are left for later, the lightest first.
    held: Vec<&'a ChainName>,
    /// Sets that nothing refers to any more, and that are deleted later.
    kept: Vec<&'a SetName>,
}

/// What a set has too few and too many of; a set that is not there yet lacks itself.
struct Lacking<'a> {
    new: &'a Arc<Set>,
    to_add: Vec<Key>,
    to_delete: Vec<Key>,
    weight: usize,
}

/// Whether the changes cannot weigh more than the limit, by a look at their sizes alone: nearly all are small.
fn is_surely_light(changes: &Changes<'_>, base: &Table, limit: usize) -> bool {
    let size = |set: Option<&Arc<Set>>| set.map_or(0, |set| set.keys.len());
    let sets: usize = changes.sets.iter().map(|set| size(set.old) + size(set.new) + of_set(base)).sum();
    let elements = |map: Option<&Arc<VerdictMap>>| map.map_or(0, |map| map.elements.len());
    let maps: usize = changes.maps.iter().map(|map| elements(map.old) + elements(map.new)).sum();
    sets + maps + changes.chains.iter().map(|chain| of_chain(chain, base)).sum::<usize>() <= limit
}

/// Adding or deleting a set.
fn of_set(base: &Table) -> usize {
    SET + base.sets.len() / SETS_A_SET
}

/// Flushing a chain and filling it.
fn of_chain(change: &Change<'_, ChainName, Chain>, base: &Table) -> usize {
    let rules = |chain: Option<&Arc<Chain>>| chain.map_or(0, |chain| chain.rules.len());
    RULE * rules(change.old) + (RULE + base.sets.len() / SETS_A_RULE) * rules(change.new)
}

// === impl Plan ===

impl<'a> Plan<'a> {
    fn of(desired: &'a Table, base: &'a Table, changes: &Changes<'a>, limit: usize) -> Plan<'a> {
        let in_use = referenced_sets(base);
        let mut plan = Plan { desired, base, lacking: BTreeMap::new(), held: Vec::new(), kept: Vec::new() };
        // What is done at once, whatever it weighs: it concerns what is in force.
        let mut spent = 0;
        for set in &changes.sets {
            let Some(new) = set.new else { continue };
            let lacking = Lacking::of(set, new, base);
            if in_use.contains(set.name) {
                spent += lacking.weight;
            } else {
                plan.lacking.insert(set.name, lacking);
            }
        }
        spent += changes.maps.iter().map(|map| map.new.map_or(0, |map| map.elements.len())).sum::<usize>();
        let (waiting, others): (Vec<_>, Vec<_>) =
            changes.chains.iter().partition(|chain| chain.new.is_some() && chain.name.is_of_policy());
        spent += others.into_iter().map(|chain| of_chain(chain, base)).sum::<usize>();

        let mut waiting: Vec<_> = waiting.into_iter().map(|chain| (plan.weight(chain), chain)).collect();
        waiting.sort_by_key(|(weight, chain)| (*weight, chain.name));
        let mut filled = BTreeSet::new();
        for (_, chain) in waiting {
            let new = chain.new.expect("only chains that stay were taken");
            let sets: Vec<_> = sets_of(new).filter(|set| !filled.contains(set)).collect();
            let weight = of_chain(chain, base) + sets.iter().map(|set| plan.weight_of_set(set)).sum::<usize>();
            if spent + weight <= limit {
                spent += weight;
                filled.extend(sets);
            } else {
                plan.held.push(chain.name);
            }
        }
        for set in changes.sets.iter().filter(|set| set.new.is_none()) {
            // At least one, so that there is an end.
            if spent == 0 || spent + of_set(base) <= limit {
                spent += of_set(base);
            } else {
                plan.kept.push(set.name);
            }
        }
        plan
    }

    fn weight(&self, chain: &Change<'_, ChainName, Chain>) -> usize {
        let sets: BTreeSet<_> = chain.new.into_iter().flat_map(|chain| sets_of(chain)).collect();
        of_chain(chain, self.base) + sets.into_iter().map(|set| self.weight_of_set(set)).sum::<usize>()
    }

    fn weight_of_set(&self, set: &SetName) -> usize {
        self.lacking.get(set).map_or(0, |lacking| lacking.weight)
    }

    fn is_complete(&self) -> bool {
        self.held.is_empty() && self.kept.is_empty()
    }

    /// Everything but the rules that are held, with the sets to which it refers.
    fn first_stage(&self) -> Table {
        self.without(&self.held)
    }

    /// The desired table, where these chains of policies are as they were, or empty if they were not.
    fn without(&self, held: &[&ChainName]) -> Table {
        let mut target = self.desired.clone();
        for name in held {
            let Some(chain) = target.chains.get_mut(*name) else { continue };
            *chain = match self.base.chains.get(*name) {
                Some(before) => before.clone(),
                None => Arc::new(Chain { rules: Vec::new(), ..Chain::clone(chain) }),
            };
        }
        let referenced: BTreeSet<SetName> = referenced_sets(&target).into_iter().cloned().collect();
        let of_held = held.iter().filter_map(|name| self.desired.chains.get(*name)).flat_map(|chain| sets_of(chain));
        for name in of_held.filter(|name| self.lacking.contains_key(name) && !referenced.contains(*name)) {
            match self.base.sets.get(name) {
                Some(partial) => target.sets.insert(name.clone(), partial.clone()),
                None => target.sets.remove(name),
            };
        }
        // What the rules of before refer to stays as long as they do.
        let stay = referenced.iter().filter(|name| !target.sets.contains_key(*name)).cloned().collect::<Vec<_>>();
        for name in stay.iter().chain(self.kept.iter().copied()) {
            if let Some(set) = self.base.sets.get(name) {
                target.sets.insert(name.clone(), set.clone());
            }
        }
        target
    }

    /// The kernel's table with a slice of the content that is missing; `None` if none is.
    fn content(&self, limit: usize) -> Option<Table> {
        let mut target = self.base.clone();
        let mut room = limit;
        let chains = self.held.iter().filter_map(|name| self.desired.chains.get(*name));
        for name in chains.flat_map(|chain| sets_of(chain)) {
            let Some(lacking) = self.lacking.get(name) else { continue };
            let known = target.sets.get(name).cloned();
            if known.as_ref().is_some_and(|known| known.keys == lacking.new.keys) {
                continue;
            }
            if room == 0 {
                break;
            }
            let known = known.unwrap_or_else(|| {
                room = room.saturating_sub(of_set(self.base));
                Arc::new(Set { keys: Arc::default(), ..Set::clone(lacking.new) })
            });
            // At least one, so that each slice is a step.
            let added = &lacking.to_add[..lacking.to_add.len().min(room.max(1))];
            room = room.saturating_sub(added.len());
            let stay = known.keys.iter().filter(|key| lacking.to_delete.binary_search(key).is_err());
            let mut keys: Vec<Key> = stay.chain(added).copied().collect();
            keys.sort_unstable();
            target.sets.insert(name.clone(), Arc::new(Set { keys: Arc::new(keys), ..Set::clone(lacking.new) }));
        }
        (target != *self.base).then_some(target)
    }

    /// One more chain than the limit has room for.
    fn with_lightest_chain(&self) -> Table {
        self.without(self.held.get(1..).unwrap_or_default())
    }
}

// === impl Lacking ===

impl<'a> Lacking<'a> {
    fn of(set: &Change<'a, SetName, Set>, new: &'a Arc<Set>, base: &Table) -> Lacking<'a> {
        let (to_add, to_delete) = diff_keys(set.old.map_or(&[][..], |old| &old.keys), &new.keys);
        let mut weight = to_add.len() + to_delete.len();
        if set.old.is_none() {
            weight += of_set(base);
        }
        if weight > 0 && new.key_type.is_interval() {
            weight += new.keys.len() / RANGES;
        }
        Lacking { new, to_add, to_delete, weight }
    }
}

/// The sets and maps to which some rule refers.
fn referenced_sets(table: &Table) -> BTreeSet<&SetName> {
    table.chains.values().flat_map(|chain| sets_of(chain)).collect()
}
