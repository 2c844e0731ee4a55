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

use super::next::{Change, Changes, diff_keys, differing_elements, differing_keys};
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

/// How far the rules of policies and the sets behind them get with so much weight, the lightest first. `None` if that is
/// all the way, or if nothing gets so far without content that is loaded first.
pub(super) fn milestone(desired: &Table, base: &Table, changes: &Changes<'_>, limit: usize) -> Option<Table> {
    if is_surely_light(changes, base, limit) {
        return None;
    }
    let plan = Plan::of(desired, base, changes, limit);
    if plan.is_complete() {
        return None;
    }
    Some(plan.first_stage()).filter(|first| first != base)
}

/// The weight of a key that is added or deleted is 1, which is a microsecond of the kernel's time.
const RULE: usize = 2;
/// A set that is added, in a table without others.
const ADDED_SET: usize = 25;
/// A set that is deleted, likewise.
const DELETED_SET: usize = 10;
/// The kernel finds sets by name in a list, several times for a set that comes: so many weigh 1.
const SETS_AN_ADDED_SET: usize = 9;
/// The same for a set that goes and for a rule that looks into one, for which it is found once.
const SETS_A_LOOK_UP: usize = 50;
/// The kernel rebuilds a set of ranges with every change: so many ranges weigh 1.
const RANGES: usize = 3;

/// What is to be done, and what of it is left for later. To find it costs as much as there is left to do, not as much as
/// there is: what is the same in both tables is looked at only where a set that is there gets other keys.
struct Plan<'a> {
    desired: &'a Table,
    base: &'a Table,
    changes: &'a Changes<'a>,
    /// The sets to which no rule of the kernel's table refers, with what they lack.
    lacking: BTreeMap<&'a SetName, Lacking<'a>>,
    /// The sets that are not desired any more.
    gone: BTreeSet<&'a SetName>,
    /// The chains of policies whose rules are left for later, the lightest first.
    held: Vec<&'a ChainName>,
    /// Sets that nothing refers to any more, and that are deleted later.
    kept: Vec<&'a SetName>,
}

/// A set that is not as it should be, or not there yet.
struct Lacking<'a> {
    old: Option<&'a Arc<Set>>,
    new: &'a Arc<Set>,
    weight: usize,
}

/// Whether the changes cannot weigh more than the limit, by a look at themselves alone: nearly all are small.
fn is_surely_light(changes: &Changes<'_>, base: &Table, limit: usize) -> bool {
    let size = |set: Option<&Arc<Set>>| set.map_or(0, |set| set.keys.len());
    let of_set = |set: &Change<'_, SetName, Set>| match (set.old, set.new) {
        // A large set of which little changes is no reason to look at the whole table.
        (Some(old), Some(new)) if !new.key_type.is_interval() => differing_keys(&old.keys, &new.keys),
        (old, new) => size(old) + size(new),
    };
    let sets: usize = changes.sets.iter().map(|set| of_set(set) + of_added_set(base)).sum();
    let elements = |map: Option<&Arc<VerdictMap>>| map.map_or(0, |map| map.elements.len());
    let maps: usize = changes.maps.iter().map(|map| elements(map.old) + elements(map.new)).sum();
    sets + maps + changes.chains.iter().map(|chain| of_chain(chain, base)).sum::<usize>() <= limit
}

/// Adding a set.
fn of_added_set(base: &Table) -> usize {
    ADDED_SET + base.sets.len() / SETS_AN_ADDED_SET
}

/// Deleting a set.
fn of_deleted_set(base: &Table) -> usize {
    DELETED_SET + base.sets.len() / SETS_A_LOOK_UP
}

/// The elements of a map that come, and those that go before it does.
fn of_map(change: &Change<'_, SetName, VerdictMap>) -> usize {
    let nothing = BTreeMap::new();
    let [old, new] = [change.old, change.new].map(|map| map.map_or(&nothing, |map| &*map.elements));
    differing_elements(old, new).count()
}

/// Flushing a chain and filling it.
fn of_chain(change: &Change<'_, ChainName, Chain>, base: &Table) -> usize {
    let rules = |chain: Option<&Arc<Chain>>| chain.map_or(0, |chain| chain.rules.len());
    let look_ups = change.new.map_or(0, |chain| sets_of(chain).count());
    RULE * (rules(change.old) + rules(change.new)) + look_ups * (base.sets.len() / SETS_A_LOOK_UP)
}

// === impl Plan ===

impl<'a> Plan<'a> {
    fn of(desired: &'a Table, base: &'a Table, changes: &'a Changes<'a>, limit: usize) -> Plan<'a> {
        let in_use = changed_in_use(base, changes);
        let (lacking, gone, held, kept) = (BTreeMap::new(), BTreeSet::new(), Vec::new(), Vec::new());
        let mut plan = Plan { desired, base, changes, lacking, gone, held, kept };
        // What is done at once, whatever it weighs: it concerns what is in force.
        let mut spent = 0;
        for set in &changes.sets {
            let Some(new) = set.new else {
                plan.gone.insert(set.name);
                continue;
            };
            let lacking = Lacking::of(set.old, new, base);
            if in_use.contains(set.name) {
                spent += lacking.weight;
            } else {
                plan.lacking.insert(set.name, lacking);
            }
        }
        spent += changes.maps.iter().map(of_map).sum::<usize>();
        let (waiting, others): (Vec<_>, Vec<_>) =
            changes.chains.iter().partition(|chain| chain.new.is_some() && chain.name.is_of_policy());
        spent += others.into_iter().map(|chain| of_chain(chain, base)).sum::<usize>();

        let with_sets = |chain: &'a Change<'a, ChainName, Chain>| {
            let sets = plan.sets_behind(chain);
            let weight = of_chain(chain, base) + sets.iter().map(|set| plan.weight_of_set(set)).sum::<usize>();
            (weight, chain, sets)
        };
        let mut waiting: Vec<_> = waiting.into_iter().map(with_sets).collect();
        waiting.sort_by_key(|(weight, chain, _)| (*weight, chain.name));
        let (mut counted, mut used) = (BTreeSet::new(), BTreeSet::new());
        for (_, chain, mut sets) in waiting {
            sets.retain(|set| !counted.contains(set));
            let weight = of_chain(chain, base) + sets.iter().map(|set| plan.weight_of_set(set)).sum::<usize>();
            if spent + weight <= limit {
                spent += weight;
                counted.extend(sets);
            } else {
                plan.held.push(chain.name);
                used.extend(chain.old.into_iter().flat_map(|old| sets_of(old)));
            }
        }
        for set in changes.sets.iter().filter(|set| set.new.is_none()) {
            if used.contains(set.name) || counted.contains(set.name) {
                continue;
            }
            // At least one, so that there is an end.
            if spent == 0 || spent + of_deleted_set(base) <= limit {
                spent += of_deleted_set(base);
            } else {
                plan.kept.push(set.name);
            }
        }
        plan
    }

    /// The sets that come or change for the new rules of a chain, and those that may go with the old ones. That they go
    /// together keeps the kernel's list of sets short.
    fn sets_behind(&self, chain: &Change<'a, ChainName, Chain>) -> BTreeSet<&'a SetName> {
        let come = chain.new.into_iter().flat_map(|new| sets_of(new)).filter(|set| self.lacking.contains_key(set));
        let go = chain.old.into_iter().flat_map(|old| sets_of(old)).filter(|set| self.gone.contains(set));
        come.chain(go).collect()
    }

    fn weight_of_set(&self, set: &SetName) -> usize {
        self.lacking.get(set).map_or_else(|| of_deleted_set(self.base), |lacking| lacking.weight)
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
        let names: BTreeSet<&ChainName> = held.iter().copied().collect();
        let (held, others): (Vec<_>, Vec<_>) = self.changes.chains.iter().partition(|chain| names.contains(chain.name));
        // A set that lacks something is in no use yet, and so only chains that change can want it.
        let wanted: BTreeSet<&SetName> =
            others.into_iter().filter_map(|chain| chain.new).flat_map(|chain| sets_of(chain)).collect();
        let mut target = self.desired.clone();
        for Change { name, old, new } in &held {
            let Some(new) = new else { continue };
            let before = old.map_or_else(|| Arc::new(Chain { rules: Vec::new(), ..Chain::clone(new) }), Arc::clone);
            target.chains.insert((*name).clone(), before);
            let unwanted = |set: &&SetName| self.lacking.contains_key(set) && !wanted.contains(set);
            for set in sets_of(new).filter(unwanted) {
                match self.base.sets.get(set) {
                    Some(partial) => target.sets.insert(set.clone(), partial.clone()),
                    None => target.sets.remove(set),
                };
            }
        }
        // What the rules of before refer to stays as long as they do.
        let used = held.iter().filter_map(|chain| chain.old).flat_map(|old| sets_of(old));
        for name in used.filter(|set| self.gone.contains(set)).chain(self.kept.iter().copied()) {
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
                room = room.saturating_sub(of_added_set(self.base));
                Arc::new(Set { keys: Arc::default(), ..Set::clone(lacking.new) })
            });
            let (to_add, to_delete) = lacking.keys();
            // At least one, so that each slice is a step.
            let added = &to_add[..to_add.len().min(room.max(1))];
            room = room.saturating_sub(added.len());
            let stay = known.keys.iter().filter(|key| to_delete.binary_search(key).is_err());
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
    fn of(old: Option<&'a Arc<Set>>, new: &'a Arc<Set>, base: &Table) -> Lacking<'a> {
        let mut weight = match old {
            None => of_added_set(base) + new.keys.len(),
            Some(old) => {
                let (to_add, to_delete) = diff_keys(&old.keys, &new.keys);
                to_add.len() + to_delete.len()
            }
        };
        if weight > 0 && new.key_type.is_interval() {
            weight += new.keys.len() / RANGES;
        }
        Lacking { old, new, weight }
    }

    /// The keys of which it has too few, and those of which it has too many.
    fn keys(&self) -> (Vec<Key>, Vec<Key>) {
        diff_keys(self.old.map_or(&[][..], |old| &old.keys), &self.new.keys)
    }
}

/// The sets that are there, get other keys, and are referred to by some rule of the kernel's table.
fn changed_in_use<'a>(base: &'a Table, changes: &Changes<'a>) -> BTreeSet<&'a SetName> {
    let stays = |set: &&Change<'a, SetName, Set>| set.old.is_some() && set.new.is_some();
    let changed: BTreeSet<&SetName> = changes.sets.iter().filter(stays).map(|set| set.name).collect();
    if changed.is_empty() {
        return changed;
    }
    base.chains.values().flat_map(|chain| sets_of(chain)).filter(|set| changed.contains(set)).collect()
}
