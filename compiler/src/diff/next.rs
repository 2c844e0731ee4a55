//! The next transaction.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use imbl::OrdMap;
use imbl::ordmap::DiffItem;

use super::ahead::{self, chain_of};
use super::{Mirror, Op, Transaction, behind, opening, stage};
use crate::nft::{Chain, ChainName, Key, MapElement, Set, SetName, Table, TableFamily, VerdictMap};

/// What one transaction may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// How much one transaction may weigh, in keys of sets; rules and sets count as several. Other writers of the host
    /// wait for a transaction to end.
    pub weight: usize,
    /// Whether a chain must be deleted in a later transaction than the map element that led to it. Kernels before
    /// 6.2 release the reference late and would refuse with EBUSY.
    pub defer_chain_delete: bool,
}

impl Default for Limits {
    /// A weight of 5,000 takes the kernel some five milliseconds, and less than twenty on a machine that is busy.
    fn default() -> Limits {
        Limits { weight: 5_000, defer_chain_delete: false }
    }
}

/// The next transaction from the mirror to the desired table, or `None` where they are equal.
pub fn next(desired: &Table, mirror: &Mirror, limits: Limits) -> Option<Transaction> {
    step(desired, mirror, limits).map(|step| step.transaction)
}

/// A transaction, and what it has begun.
pub(super) struct Step {
    pub(super) transaction: Transaction,
    /// Where it only lets chains go ahead, leaves one half way or the gate shut: the table to which that leads.
    pub(super) begun: Option<Table>,
}

impl From<Transaction> for Step {
    fn from(transaction: Transaction) -> Step {
        Step { transaction, begun: None }
    }
}

/// The same as [`next`], with what it has begun.
pub(super) fn step(desired: &Table, mirror: &Mirror, limits: Limits) -> Option<Step> {
    let nothing = Table::default();
    let (base, ops) = match &mirror.table {
        Some(table) if mirror.foreign.is_empty() => (table, Vec::new()),
        Some(_) => (&nothing, vec![Op::DestroyTables, Op::AddTable(TableFamily::Inet)]),
        None => (&nothing, vec![Op::AddTable(TableFamily::Inet)]),
    };
    let changes = Changes::between(base, desired);
    if !changes.can_be_made_in_place(base) {
        let ops = vec![Op::DestroyTables, Op::AddTable(TableFamily::Inet)];
        let changes = Changes::between(&nothing, desired);
        return transaction(desired, &nothing, &changes, ops, limits).map(Step::from);
    }
    // A table that replaces another has to be whole at once.
    if ops.contains(&Op::DestroyTables) {
        return transaction(desired, base, &changes, ops, limits).map(Step::from);
    }
    let staged = stage::target(desired, base, &changes, limits.weight);
    let (target, changes) = match &staged {
        Some(staged) => (staged, Changes::between(base, staged)),
        None => (desired, changes),
    };
    let between = behind::target(target, base, &changes);
    let is_half_way = between.as_ref().is_some_and(|between| between.is_half_way);
    let (reached, changes) = match &between {
        Some(between) => (&between.table, Changes::between(base, &between.table)),
        None => (target, changes),
    };
    let ahead = ahead::target(reached, base, &changes);
    let (reached, changes) = match &ahead {
        Some(ahead) => (ahead, Changes::between(base, ahead)),
        None => (reached, changes),
    };
    let shut = opening::target(reached, &changes);
    let (reached, changes) = match &shut {
        Some(shut) => (shut, Changes::between(base, shut)),
        None => (reached, changes),
    };
    let has_begun = ahead.is_some() || shut.is_some() || is_half_way;
    let transaction = transaction(reached, base, &changes, ops, limits)?;
    Some(Step { transaction, begun: has_begun.then(|| target.clone()) })
}

/// A table that may stand, on the way from the mirror to the desired table: as far as transactions of this weight in all
/// lead. `None` if that is far enough for the desired table, or if what is there cannot be built upon.
pub(super) fn milestone(desired: &Table, mirror: &Mirror, limits: Limits) -> Option<Table> {
    let base = mirror.table.as_ref().filter(|_| mirror.foreign.is_empty())?;
    let changes = Changes::between(base, desired);
    if !changes.can_be_made_in_place(base) {
        return None;
    }
    stage::milestone(desired, base, &changes, limits.weight)
}

/// What differs by name between two tables: what was there, and what is to be.
pub(super) struct Changes<'a> {
    pub(super) sets: Vec<Change<'a, SetName, Set>>,
    pub(super) maps: Vec<Change<'a, SetName, VerdictMap>>,
    pub(super) chains: Vec<Change<'a, ChainName, Chain>>,
}

/// One name with what was there and what is to be; at least one of them is something.
pub(super) struct Change<'a, N, T> {
    pub(super) name: &'a N,
    pub(super) old: Option<&'a Arc<T>>,
    pub(super) new: Option<&'a Arc<T>>,
}

impl<'a> Changes<'a> {
    fn between(base: &'a Table, desired: &'a Table) -> Changes<'a> {
        Changes {
            sets: differing(&base.sets, &desired.sets),
            maps: differing(&base.maps, &desired.maps),
            chains: differing(&base.chains, &desired.chains),
        }
    }

    /// Whether what stands in both tables is declared alike: the kernel cannot change a base chain's hook, a set's
    /// type or any comment in place. Names are made of what an object stands for, so that this fails only where
    /// another version of postern, or somebody else, wrote the table.
    fn can_be_made_in_place(&self, base: &Table) -> bool {
        let sets = self.sets.iter().all(|set| match (set.old, set.new) {
            (Some(old), Some(new)) => new.same_header(old),
            (None, Some(_)) => !base.maps.contains_key(set.name),
            (_, None) => true,
        });
        let maps = self.maps.iter().all(|map| match (map.old, map.new) {
            (Some(old), Some(new)) => new.same_header(old),
            (None, Some(_)) => !base.sets.contains_key(map.name),
            (_, None) => true,
        });
        let chains = self.chains.iter().all(|chain| match (chain.old, chain.new) {
            (Some(old), Some(new)) => new.base == old.base && new.comment == old.comment,
            (None, _) | (_, None) => true,
        });
        sets && maps && chains
    }
}

/// The names under which two maps do not hold the same. What they share is not looked at.
fn differing<'a, N: Ord, T: Eq>(old: &'a OrdMap<N, Arc<T>>, new: &'a OrdMap<N, Arc<T>>) -> Vec<Change<'a, N, T>> {
    let change = |item| {
        #[cfg(test)]
        crate::work::count(crate::work::Work::ObjectCompared);
        match item {
            DiffItem::Add(name, new) => Change { name, old: None, new: Some(new) },
            DiffItem::Update { old: (_, old), new: (name, new) } => Change { name, old: Some(old), new: Some(new) },
            DiffItem::Remove(name, old) => Change { name, old: Some(old), new: None },
        }
    };
    old.diff(new).map(change).collect()
}

/// All changes in one transaction, after the given operations.
fn transaction(
    desired: &Table,
    base: &Table,
    changes: &Changes<'_>,
    mut ops: Vec<Op>,
    limits: Limits,
) -> Option<Transaction> {
    let mut result = desired.clone();
    changes.sets.iter().for_each(|change| diff_set(change, &mut ops));
    changes.maps.iter().for_each(|change| diff_map(change, &mut ops));
    diff_chains(&changes.chains, base, limits, &mut ops, &mut result);
    ops.extend(desired.counters.difference(&base.counters).cloned().map(Op::AddCounter));
    ops.extend(base.counters.difference(&desired.counters).cloned().map(Op::DeleteCounter));
    match (base.has_bridge(), result.has_bridge()) {
        (false, true) => ops.push(Op::AddTable(TableFamily::Bridge)),
        (true, false) => ops.push(Op::DeleteTable(TableFamily::Bridge)),
        (false, false) | (true, true) => {}
    }
    (!ops.is_empty()).then(|| Transaction::new(ops, Some(result)))
}

fn diff_set(change: &Change<'_, SetName, Set>, ops: &mut Vec<Op>) {
    let name = change.name;
    let Some(new) = change.new else { return ops.push(Op::DeleteSet(name.clone())) };
    if change.old.is_none() {
        ops.push(Op::AddSet(name.clone(), new.clone()));
    }
    let (to_add, to_delete) = diff_keys(change.old.map_or(&[][..], |old| &old.keys), &new.keys);
    if !to_delete.is_empty() {
        ops.push(Op::DeleteKeys(name.clone(), to_delete));
    }
    if !to_add.is_empty() {
        ops.push(Op::AddKeys(name.clone(), to_add));
    }
}

/// How many keys are in one of two sorted lists and not in the other.
pub(super) fn differing_keys(have: &[Key], want: &[Key]) -> usize {
    let (mut differing, mut have, mut want) = (0, have.iter().peekable(), want.iter().peekable());
    while let (Some(old), Some(new)) = (have.peek(), want.peek()) {
        let order = old.cmp(new);
        differing += usize::from(order.is_ne());
        if order.is_le() {
            have.next();
        }
        if order.is_ge() {
            want.next();
        }
    }
    differing + have.count() + want.count()
}

/// What is to be added to and deleted from a sorted list to make it another.
pub(super) fn diff_keys(have: &[Key], want: &[Key]) -> (Vec<Key>, Vec<Key>) {
    let (mut to_add, mut to_delete) = (Vec::new(), Vec::new());
    let (mut have, mut want) = (have.iter().peekable(), want.iter().peekable());
    loop {
        match (have.peek(), want.peek()) {
            (None, None) => return (to_add, to_delete),
            (Some(old), Some(new)) if old == new => {
                have.next();
                want.next();
            }
            (Some(old), Some(new)) if old > new => to_add.extend(want.next()),
            (None, Some(_)) => to_add.extend(want.next()),
            (Some(_), _) => to_delete.extend(have.next()),
        }
    }
}

/// A key that gets another verdict, or another comment, is deleted and added. A map that goes is emptied first: its
/// elements would hold the chains that go with it.
fn diff_map(change: &Change<'_, SetName, VerdictMap>, ops: &mut Vec<Op>) {
    let name = change.name;
    let nothing = BTreeMap::new();
    let have = change.old.map_or(&nothing, |old| &*old.elements);
    let want = change.new.map_or(&nothing, |new| &*new.elements);
    match (change.old, change.new) {
        (None, Some(new)) => ops.push(Op::AddMap(name.clone(), new.clone())),
        (Some(_), None) => ops.push(Op::DeleteMap(name.clone())),
        (Some(_), Some(_)) | (None, None) => {}
    }
    let (mut to_add, mut to_delete) = (Vec::new(), Vec::new());
    for (key, old, new) in differing_elements(have, want) {
        to_delete.extend(old.map(|_| *key));
        to_add.extend(new.map(|element| (*key, element.clone())));
    }
    if !to_delete.is_empty() {
        ops.push(Op::DeleteMapElements(name.clone(), to_delete));
    }
    if !to_add.is_empty() {
        ops.push(Op::AddMapElements(name.clone(), to_add));
    }
}

/// The keys that two maps do not hold alike, with what each holds. Takes one walk through both.
pub(super) fn differing_elements<'a>(
    have: &'a BTreeMap<Key, MapElement>,
    want: &'a BTreeMap<Key, MapElement>,
) -> impl Iterator<Item = (&'a Key, Option<&'a MapElement>, Option<&'a MapElement>)> {
    let (mut have, mut want) = (have.iter().peekable(), want.iter().peekable());
    std::iter::from_fn(move || {
        loop {
            let old = have.next_if(|(key, _)| want.peek().is_none_or(|(other, _)| key <= other));
            let new = want.next_if(|(key, _)| match old {
                Some((same, _)) => *key == same,
                None => true,
            });
            match (old, new) {
                (Some((_, old)), Some((_, new))) if old == new => {}
                (Some((key, old)), new) => return Some((key, Some(old), new.map(|(_, new)| new))),
                (None, Some((key, new))) => return Some((key, None, Some(new))),
                (None, None) => return None,
            }
        }
    })
}

fn diff_chains(
    changes: &[Change<'_, ChainName, Chain>],
    base: &Table,
    limits: Limits,
    ops: &mut Vec<Op>,
    result: &mut Table,
) {
    let any_gone = changes.iter().any(|change| change.new.is_none());
    let held = if limits.defer_chain_delete && any_gone { chains_of_elements(base) } else { BTreeSet::new() };
    for Change { name, old, new } in changes {
        if let (None, Some(new)) = (old, new) {
            ops.push(Op::AddChain((*name).clone(), (*new).clone()));
        }
        if old.is_some_and(|old| !old.rules.is_empty()) {
            ops.push(Op::FlushChain((*name).clone()));
        }
        match (old, new) {
            (_, Some(new)) if new.rules.is_empty() => {}
            (_, Some(new)) => ops.push(Op::AddRules((*name).clone(), (*new).clone())),
            (Some(old), None) if held.contains(name) => {
                let emptied = Chain { rules: Vec::new(), ..Chain::clone(old) };
                result.chains.insert((*name).clone(), Arc::new(emptied));
            }
            (_, None) => ops.push(Op::DeleteChain((*name).clone())),
        }
    }
}

/// The chains to which an element of a verdict map leads.
fn chains_of_elements(table: &Table) -> BTreeSet<&ChainName> {
    let elements = table.maps.values().flat_map(|map| map.elements.values());
    elements.filter_map(|element| chain_of(&element.verdict)).collect()
}
