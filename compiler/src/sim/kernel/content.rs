//! What the kernel holds, and what each operation does to it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Errno, Release};
use crate::diff::Op;
use crate::nft::{
    BaseChain, Chain, ChainName, Comment, CounterName, Filled, Key, KeyType, MapElement, Rule, Set, SetName, Table,
    TableFamily, Verdict, VerdictMap,
};

/// The content of the tables.
#[derive(Debug, Clone, Default)]
pub(super) struct Content {
    /// The tables that are there.
    pub(super) families: BTreeSet<TableFamily>,
    pub(super) counters: BTreeSet<CounterName>,
    pub(super) sets: BTreeMap<SetName, HeldSet>,
    pub(super) maps: BTreeMap<SetName, HeldMap>,
    pub(super) chains: BTreeMap<ChainName, HeldChain>,
    /// Chains to which an element led that the running transaction has deleted, where that counts until its end.
    pub(super) released: BTreeSet<ChainName>,
}

#[derive(Debug, Clone)]
pub(super) struct HeldSet {
    pub(super) key_type: KeyType,
    comment: Option<Comment>,
    keys: BTreeSet<Key>,
    pub(super) filled: Option<Filled>,
}

#[derive(Debug, Clone)]
pub(super) struct HeldMap {
    pub(super) key_type: KeyType,
    comment: Option<Comment>,
    pub(super) elements: BTreeMap<Key, MapElement>,
}

#[derive(Debug, Clone)]
pub(super) struct HeldChain {
    pub(super) base: Option<BaseChain>,
    comment: Option<Comment>,
    pub(super) rules: Vec<Rule>,
}

impl Content {
    /// Does one operation on what is in the table.
    pub(super) fn apply(&mut self, op: &Op, release: Release) -> Result<(), Errno> {
        if op.family().is_some_and(|family| !self.families.contains(&family)) {
            return Err(Errno::Enoent);
        }
        match op {
            Op::DestroyTables | Op::AddTable(_) => unreachable!("to make tables is the caller's"),
            Op::DeleteTable(family) => {
                self.unreferenced(self.has_objects_in(*family))?;
                self.families.remove(family);
                Ok(())
            }
            Op::DeleteMapElements(map, keys) => self.delete_elements(map, keys, release),
            Op::DeleteKeys(set, keys) => self.delete_keys(set, keys),
            Op::AddCounter(counter) => {
                self.counters.insert(counter.clone());
                Ok(())
            }
            Op::AddSet(name, set) => self.add_set(name, set),
            Op::AddMap(name, map) => self.add_map(name, map),
            Op::AddKeys(set, keys) => self.add_keys(set, keys),
            Op::AddChain(name, chain) => self.add_chain(name, chain),
            Op::FlushChain(name) => {
                self.chains.get_mut(name).ok_or(Errno::Enoent)?.rules.clear();
                Ok(())
            }
            Op::AddRules(name, chain) => self.add_rules(name, &chain.rules),
            Op::AddMapElements(map, elements) => self.add_elements(map, elements),
            Op::DeleteChain(name) => self.delete_chain(name),
            Op::DeleteSet(name) => {
                self.unreferenced(self.refers_to_set(name))?;
                self.sets.remove(name).map(drop).ok_or(Errno::Enoent)
            }
            Op::DeleteMap(name) => self.delete_map(name, release),
            Op::DeleteCounter(name) => {
                self.unreferenced(self.refers_to_counter(name))?;
                self.counters.remove(name).then_some(()).ok_or(Errno::Enoent)
            }
        }
    }

    /// Ends a transaction.
    pub(super) fn forget_released(&mut self) {
        self.released.clear();
    }

    /// The table as a dump shows it.
    pub(super) fn to_table(&self) -> Table {
        let set = |set: &HeldSet| {
            let HeldSet { key_type, comment, keys, filled } = set;
            let keys = Arc::new(keys.iter().copied().collect());
            Arc::new(Set { key_type: *key_type, comment: comment.clone(), keys, filled: *filled })
        };
        let map = |map: &HeldMap| {
            let HeldMap { key_type, comment, elements } = map;
            Arc::new(VerdictMap { key_type: *key_type, comment: comment.clone(), elements: Arc::new(elements.clone()) })
        };
        let chain = |chain: &HeldChain| {
            let HeldChain { base, comment, rules } = chain;
            Arc::new(Chain { base: *base, comment: comment.clone(), rules: rules.clone() })
        };
        Table {
            counters: self.counters.clone(),
            sets: self.sets.iter().map(|(name, held)| (name.clone(), set(held))).collect(),
            maps: self.maps.iter().map(|(name, held)| (name.clone(), map(held))).collect(),
            chains: self.chains.iter().map(|(name, held)| (name.clone(), chain(held))).collect(),
        }
    }

    fn has_objects_in(&self, family: TableFamily) -> bool {
        let sets = self.sets.keys().chain(self.maps.keys()).map(SetName::family);
        let others = self.chains.keys().map(ChainName::family).chain(self.counters.iter().map(CounterName::family));
        sets.chain(others).any(|of_object| of_object == family)
    }

    fn unreferenced(&self, is_referenced: bool) -> Result<(), Errno> {
        if is_referenced { Err(Errno::Ebusy) } else { Ok(()) }
    }

    /// Sets and maps share one name space. Creating one again as it is does nothing; the comment is not compared.
    fn add_set(&mut self, name: &SetName, set: &Set) -> Result<(), Errno> {
        match self.sets.get(name) {
            Some(held) if held.key_type == set.key_type && held.filled == set.filled => return Ok(()),
            Some(_) => return Err(Errno::Eexist),
            None if self.maps.contains_key(name) => return Err(Errno::Eexist),
            None => {}
        }
        let Set { key_type, comment, keys: _, filled } = set;
        let (comment, keys) = (comment.clone(), BTreeSet::new());
        let held = HeldSet { key_type: *key_type, comment, keys, filled: *filled };
        self.sets.insert(name.clone(), held);
        Ok(())
    }

    fn add_map(&mut self, name: &SetName, map: &VerdictMap) -> Result<(), Errno> {
        match self.maps.get(name) {
            Some(held) if held.key_type == map.key_type => return Ok(()),
            Some(_) => return Err(Errno::Eexist),
            None if self.sets.contains_key(name) => return Err(Errno::Eexist),
            None => {}
        }
        let held = HeldMap { key_type: map.key_type, comment: map.comment.clone(), elements: BTreeMap::new() };
        self.maps.insert(name.clone(), held);
        Ok(())
    }

    /// The same key again does nothing; a range that overlaps another is refused.
    fn add_keys(&mut self, name: &SetName, keys: &[Key]) -> Result<(), Errno> {
        let set = self.sets.get_mut(name).ok_or(Errno::Enoent)?;
        for key in keys {
            if key.key_type() != set.key_type || is_inverted(key) {
                return Err(Errno::Einval);
            }
            if !set.keys.contains(key) && set.keys.iter().any(|other| overlap(key, other)) {
                return Err(Errno::Eexist);
            }
            set.keys.insert(*key);
        }
        Ok(())
    }

    fn delete_keys(&mut self, name: &SetName, keys: &[Key]) -> Result<(), Errno> {
        let set = self.sets.get_mut(name).ok_or(Errno::Enoent)?;
        keys.iter().try_for_each(|key| set.keys.remove(key).then_some(()).ok_or(Errno::Enoent))
    }

    fn add_chain(&mut self, name: &ChainName, chain: &Chain) -> Result<(), Errno> {
        match self.chains.get(name) {
            Some(held) if held.base == chain.base => return Ok(()),
            Some(_) => return Err(Errno::Eexist),
            None => {}
        }
        let held = HeldChain { base: chain.base, comment: chain.comment.clone(), rules: Vec::new() };
        self.chains.insert(name.clone(), held);
        Ok(())
    }

    fn add_rules(&mut self, name: &ChainName, rules: &[Rule]) -> Result<(), Errno> {
        for rule in rules {
            self.check_rule(name.family(), rule)?;
        }
        self.chains.get_mut(name).ok_or(Errno::Enoent)?.rules.extend_from_slice(rules);
        self.check_depth()
    }

    /// The rules of the chain go with it.
    fn delete_chain(&mut self, name: &ChainName) -> Result<(), Errno> {
        self.unreferenced(self.refers_to_chain(name))?;
        self.chains.remove(name).map(drop).ok_or(Errno::Enoent)
    }

    /// A key that is there with another verdict is refused, and so is a range that overlaps another.
    fn add_elements(&mut self, name: &SetName, elements: &[(Key, MapElement)]) -> Result<(), Errno> {
        for (_, element) in elements {
            self.check_verdict(name.family(), &element.verdict)?;
        }
        let map = self.maps.get_mut(name).ok_or(Errno::Enoent)?;
        for (key, element) in elements {
            if key.key_type() != map.key_type || is_inverted(key) {
                return Err(Errno::Einval);
            }
            match map.elements.get(key) {
                None if map.elements.keys().any(|other| overlap(key, other)) => return Err(Errno::Eexist),
                Some(held) if held.verdict != element.verdict => return Err(Errno::Eexist),
                Some(_) => {}
                None => {
                    map.elements.insert(*key, element.clone());
                }
            }
        }
        self.check_depth()
    }

    fn delete_elements(&mut self, name: &SetName, keys: &[Key], release: Release) -> Result<(), Errno> {
        let map = self.maps.get_mut(name).ok_or(Errno::Enoent)?;
        for key in keys {
            let element = map.elements.remove(key).ok_or(Errno::Enoent)?;
            if release == Release::AfterCommit
                && let Some(chain) = target(&element.verdict)
            {
                self.released.insert(chain.clone());
            }
        }
        Ok(())
    }

    /// The elements of the map go with it.
    fn delete_map(&mut self, name: &SetName, release: Release) -> Result<(), Errno> {
        self.unreferenced(self.refers_to_set(name))?;
        let keys: Vec<Key> = self.maps.get(name).ok_or(Errno::Enoent)?.elements.keys().copied().collect();
        self.delete_elements(name, &keys, release)?;
        self.maps.remove(name);
        Ok(())
    }
}

/// The chain to which a verdict leads.
pub(super) fn target(verdict: &Verdict) -> Option<&ChainName> {
    match verdict {
        Verdict::Jump(chain) | Verdict::Goto(chain) => Some(chain),
        Verdict::Accept | Verdict::Drop | Verdict::Return => None,
    }
}

/// The first and last member of a range, in numbers that compare alike.
fn bounds(key: &Key) -> Option<(u128, u128)> {
    match key {
        Key::V4Range(first, last) => Some((first.to_bits().into(), last.to_bits().into())),
        Key::V6Range(first, last) => Some((first.to_bits(), last.to_bits())),
        Key::Ports(range) => Some((range.first.into(), range.last.into())),
        Key::V4(_)
        | Key::V6(_)
        | Key::V4Endpoint(..)
        | Key::V6Endpoint(..)
        | Key::V4Pair(..)
        | Key::V6Pair(..)
        | Key::V4Flow(..)
        | Key::V6Flow(..)
        | Key::Link(_) => None,
    }
}

fn is_inverted(key: &Key) -> bool {
    bounds(key).is_some_and(|(first, last)| first > last)
}

fn overlap(one: &Key, other: &Key) -> bool {
    match (bounds(one), bounds(other)) {
        (Some((first, last)), Some((other_first, other_last))) => first <= other_last && other_first <= last,
        (None, _) | (_, None) => false,
    }
}
