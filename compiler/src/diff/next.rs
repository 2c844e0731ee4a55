//! The next transaction.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Mirror, Op, Transaction};
use crate::nft::{Chain, ChainName, Key, MapElement, Match, Set, SetName, Stmt, Table, Verdict, VerdictMap};

/// What one transaction may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The most keys that are loaded in one transaction into sets to which no rule refers yet. Other writers of the
    /// host wait for a transaction to end.
    pub chunk: usize,
    /// Whether a chain must be deleted in a later transaction than the map element that led to it. Kernels before
    /// 6.2 release the reference late and would refuse with EBUSY.
    pub defer_chain_delete: bool,
}

impl Default for Limits {
    /// 10,000 keys take the kernel some ten milliseconds.
    fn default() -> Limits {
        Limits { chunk: 10_000, defer_chain_delete: false }
    }
}

/// The next transaction from the mirror to the desired table, or `None` where they are equal.
pub fn next(desired: &Table, mirror: &Mirror, limits: Limits) -> Option<Transaction> {
    let nothing = Table::default();
    let (base, mut ops) = match &mirror.table {
        Some(table) if mirror.foreign.is_empty() && same_declarations(desired, table) => (table, Vec::new()),
        Some(_) => (&nothing, vec![Op::DestroyTable, Op::AddTable]),
        None => (&nothing, vec![Op::AddTable]),
    };
    let replaces = ops.contains(&Op::DestroyTable);
    if !replaces && let Some(transaction) = preload(desired, base, &ops, limits.chunk) {
        return Some(transaction);
    }
    let mut result = desired.clone();
    diff_sets(desired, base, &mut ops);
    diff_maps(desired, base, &mut ops);
    diff_chains(desired, base, limits, &mut ops, &mut result);
    ops.extend(desired.counters.difference(&base.counters).cloned().map(Op::AddCounter));
    ops.extend(base.counters.difference(&desired.counters).cloned().map(Op::DeleteCounter));
    (!ops.is_empty()).then(|| Transaction::new(ops, Some(result)))
}

/// Whether everything that stands in both tables is declared alike: what the kernel cannot change in place, a base
/// chain's hook, a set's type, any comment. Names are made of what an object stands for, so that this differs only
/// where another version of postern, or somebody else, wrote the table.
fn same_declarations(desired: &Table, base: &Table) -> bool {
    let sets = desired.sets.iter().all(|(name, set)| {
        base.sets.get(name).is_none_or(|other| Arc::ptr_eq(set, other) || set.same_header(other))
            && !base.maps.contains_key(name)
    });
    let maps = desired.maps.iter().all(|(name, map)| {
        base.maps.get(name).is_none_or(|other| Arc::ptr_eq(map, other) || map.same_header(other))
            && !base.sets.contains_key(name)
    });
    let chains = desired.chains.iter().all(|(name, chain)| {
        base.chains
            .get(name)
            .is_none_or(|other| Arc::ptr_eq(chain, other) || chain.base == other.base && chain.comment == other.comment)
    });
    sets && maps && chains
}

/// A part of a big load: keys for sets that no rule of the kernel's table refers to, so that nobody sees them half
/// full. `None` where what is left of such keys fits the last transaction.
fn preload(desired: &Table, base: &Table, ops: &[Op], chunk: usize) -> Option<Transaction> {
    let mut missing: Vec<(&SetName, &Arc<Set>, Vec<Key>)> = Vec::new();
    for (name, set) in &desired.sets {
        let have = base.sets.get(name);
        if have.is_some_and(|have| Arc::ptr_eq(&have.keys, &set.keys)) {
            continue;
        }
        let (to_add, _) = diff_keys(have.map_or(&[][..], |have| &have.keys), &set.keys);
        missing.push((name, set, to_add));
    }
    if missing.iter().map(|(_, _, keys)| keys.len()).sum::<usize>() <= chunk {
        return None;
    }
    let in_use = referenced_sets(base);
    missing.retain(|(name, _, keys)| !in_use.contains(name) && !keys.is_empty());
    if missing.iter().map(|(_, _, keys)| keys.len()).sum::<usize>() <= chunk {
        return None;
    }
    let mut result = base.clone();
    let mut ops = ops.to_vec();
    let mut room = chunk;
    for (name, set, mut keys) in missing {
        if room == 0 {
            break;
        }
        keys.truncate(room);
        room -= keys.len();
        let partial = result.sets.entry(name.clone()).or_insert_with(|| {
            let empty = Arc::new(Set { keys: Arc::default(), ..(**set).clone() });
            ops.push(Op::AddSet(name.clone(), empty.clone()));
            empty
        });
        let mut together = [&partial.keys[..], &keys[..]].concat();
        together.sort_unstable();
        *partial = Arc::new(Set { keys: Arc::new(together), ..(**set).clone() });
        ops.push(Op::AddKeys(name.clone(), keys));
    }
    Some(Transaction::new(ops, Some(result)))
}

/// The sets and maps to which some rule refers.
fn referenced_sets(table: &Table) -> BTreeSet<&SetName> {
    let stmts = table.chains.values().flat_map(|chain| &chain.rules).flat_map(|rule| &rule.stmts);
    stmts
        .filter_map(|stmt| match stmt {
            Stmt::Match(Match::In(_, set) | Match::PortIn(_, set)) => Some(set),
            Stmt::VerdictMap(_, map) => Some(map),
            Stmt::Match(
                Match::CtState(_)
                | Match::Protocol(_)
                | Match::Port(..)
                | Match::Icmpv6Type(..)
                | Match::IcmpFragNeeded,
            )
            | Stmt::Counter
            | Stmt::CounterName(_)
            | Stmt::Reject(_)
            | Stmt::Verdict(_) => None,
        })
        .collect()
}

fn diff_sets(desired: &Table, base: &Table, ops: &mut Vec<Op>) {
    for (name, set) in &desired.sets {
        let have = base.sets.get(name);
        if have.is_some_and(|have| Arc::ptr_eq(have, set) || Arc::ptr_eq(&have.keys, &set.keys)) {
            continue;
        }
        if have.is_none() {
            ops.push(Op::AddSet(name.clone(), set.clone()));
        }
        let (to_add, to_delete) = diff_keys(have.map_or(&[][..], |have| &have.keys), &set.keys);
        if !to_delete.is_empty() {
            ops.push(Op::DeleteKeys(name.clone(), to_delete));
        }
        if !to_add.is_empty() {
            ops.push(Op::AddKeys(name.clone(), to_add));
        }
    }
    let gone = base.sets.keys().filter(|name| !desired.sets.contains_key(name));
    ops.extend(gone.cloned().map(Op::DeleteSet));
}

/// What is to be added to and deleted from a sorted list to make it another.
fn diff_keys(have: &[Key], want: &[Key]) -> (Vec<Key>, Vec<Key>) {
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

fn diff_maps(desired: &Table, base: &Table, ops: &mut Vec<Op>) {
    for (name, map) in &desired.maps {
        let have = base.maps.get(name);
        if have.is_some_and(|have| Arc::ptr_eq(have, map)) {
            continue;
        }
        if have.is_none() {
            ops.push(Op::AddMap(name.clone(), map.clone()));
        }
        let (to_add, to_delete) = diff_elements(have, map);
        if !to_delete.is_empty() {
            ops.push(Op::DeleteMapElements(name.clone(), to_delete));
        }
        if !to_add.is_empty() {
            ops.push(Op::AddMapElements(name.clone(), to_add));
        }
    }
    let gone = base.maps.keys().filter(|name| !desired.maps.contains_key(name));
    ops.extend(gone.cloned().map(Op::DeleteMap));
}

/// A key that gets another verdict, or another comment, is deleted and added.
fn diff_elements(have: Option<&Arc<VerdictMap>>, want: &VerdictMap) -> (Vec<(Key, MapElement)>, Vec<Key>) {
    let nothing = BTreeMap::new();
    let have: &BTreeMap<Key, MapElement> = have.map_or(&nothing, |have| &have.elements);
    let to_add = want.elements.iter().filter(|(key, element)| have.get(key) != Some(element));
    let to_delete = have.iter().filter(|(key, element)| want.elements.get(key) != Some(element));
    (to_add.map(|(key, element)| (*key, element.clone())).collect(), to_delete.map(|(key, _)| *key).collect())
}

fn diff_chains(desired: &Table, base: &Table, limits: Limits, ops: &mut Vec<Op>, result: &mut Table) {
    for (name, chain) in &desired.chains {
        let have = base.chains.get(name);
        if have.is_some_and(|have| Arc::ptr_eq(have, chain) || have.rules == chain.rules) {
            continue;
        }
        match have {
            None => ops.push(Op::AddChain(name.clone(), chain.clone())),
            Some(have) if have.rules.is_empty() => {}
            Some(_) => ops.push(Op::FlushChain(name.clone())),
        }
        if !chain.rules.is_empty() {
            ops.push(Op::AddRules(name.clone(), chain.clone()));
        }
    }
    let held = if limits.defer_chain_delete { chains_of_elements(base) } else { BTreeSet::new() };
    for (name, chain) in base.chains.iter().filter(|(name, _)| !desired.chains.contains_key(name)) {
        if !chain.rules.is_empty() {
            ops.push(Op::FlushChain(name.clone()));
        }
        if held.contains(name) {
            let emptied = Chain { rules: Vec::new(), ..(**chain).clone() };
            result.chains.insert(name.clone(), Arc::new(emptied));
        } else {
            ops.push(Op::DeleteChain(name.clone()));
        }
    }
}

/// The chains to which an element of a verdict map leads.
fn chains_of_elements(table: &Table) -> BTreeSet<&ChainName> {
    let elements = table.maps.values().flat_map(|map| map.elements.values());
    elements
        .filter_map(|element| match &element.verdict {
            Verdict::Jump(chain) | Verdict::Goto(chain) => Some(chain),
            Verdict::Accept | Verdict::Drop | Verdict::Return => None,
        })
        .collect()
}
