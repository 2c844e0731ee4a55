//! Transactions, and the one place where the order of operations is decided.

use std::fmt;
use std::sync::Arc;

use crate::nft::{Chain, ChainName, CounterName, Key, MapElement, Set, SetName, Table, TableFamily, VerdictMap};

/// Operations that land together or not at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transaction {
    /// In the order in which the kernel must see them; see [`Op`].
    pub(super) ops: Vec<Op>,
    /// What the kernel holds afterwards.
    pub(super) result: Option<Table>,
}

/// One operation on the tables of postern; a name says on which of them.
///
/// **The variants stand in the order in which a transaction carries them**, and [`Transaction`] sorts by it
/// (stably, so that rules keep theirs):
///
/// 1. The tables, destroyed first if they are to be replaced.
/// 2. Elements of verdict maps go before anything that they could jump to, also where the whole map goes, and before
///    the same key comes back with another verdict, which the kernel would refuse as EEXIST.
/// 3. Keys of sets go before keys come: ranges of an interval set may not overlap even for a moment.
/// 4. New things come in the order of reference: counters, sets and maps, keys, chains, rules, and last the map
///    elements, which are what lets packets in.
/// 5. Old things go in reverse: all chains are emptied of rules before the first is deleted, because they may
///    refer to each other; then sets, maps and counters, to which nothing refers any more, and a table in which nothing
///    is left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Removes both tables and all in them, as far as they are there.
    DestroyTables,
    /// Creates the table of a family, or does nothing if it is there.
    AddTable(TableFamily),
    /// Removes keys from a verdict map.
    DeleteMapElements(SetName, Vec<Key>),
    /// Removes keys from a set.
    DeleteKeys(SetName, Vec<Key>),
    /// Creates a counter.
    AddCounter(CounterName),
    /// Creates a set, without its keys.
    AddSet(SetName, Arc<Set>),
    /// Creates a verdict map, without its elements.
    AddMap(SetName, Arc<VerdictMap>),
    /// Adds keys to a set.
    AddKeys(SetName, Vec<Key>),
    /// Creates a chain, without its rules.
    AddChain(ChainName, Arc<Chain>),
    /// Removes all rules of a chain.
    FlushChain(ChainName),
    /// Appends all rules of the chain, in order.
    AddRules(ChainName, Arc<Chain>),
    /// Adds elements to a verdict map.
    AddMapElements(SetName, Vec<(Key, MapElement)>),
    /// Deletes a chain that has no rules and to which nothing refers.
    DeleteChain(ChainName),
    /// Deletes a set to which nothing refers.
    DeleteSet(SetName),
    /// Deletes a verdict map to which nothing refers.
    DeleteMap(SetName),
    /// Deletes a counter to which nothing refers.
    DeleteCounter(CounterName),
    /// Deletes the table of a family, in which there is nothing any more.
    DeleteTable(TableFamily),
}

impl Op {
    /// The family of the table that the operation is about; `None` is both.
    pub fn family(&self) -> Option<TableFamily> {
        match self {
            Op::DestroyTables => None,
            Op::AddTable(family) | Op::DeleteTable(family) => Some(*family),
            Op::AddCounter(name) | Op::DeleteCounter(name) => Some(name.family()),
            Op::AddChain(name, _) | Op::FlushChain(name) | Op::AddRules(name, _) | Op::DeleteChain(name) => {
                Some(name.family())
            }
            Op::DeleteMapElements(name, _)
            | Op::DeleteKeys(name, _)
            | Op::AddSet(name, _)
            | Op::AddMap(name, _)
            | Op::AddKeys(name, _)
            | Op::AddMapElements(name, _)
            | Op::DeleteSet(name)
            | Op::DeleteMap(name) => Some(name.family()),
        }
    }

    /// The place of this kind of operation in a transaction.
    fn rank(&self) -> u8 {
        match self {
            Op::DestroyTables => 0,
            Op::AddTable(_) => 1,
            Op::DeleteMapElements(..) => 2,
            Op::DeleteKeys(..) => 3,
            Op::AddCounter(_) => 4,
            Op::AddSet(..) | Op::AddMap(..) => 5,
            Op::AddKeys(..) => 6,
            Op::AddChain(..) => 7,
            Op::FlushChain(_) => 8,
            Op::AddRules(..) => 9,
            Op::AddMapElements(..) => 10,
            Op::DeleteChain(_) => 11,
            Op::DeleteSet(_) | Op::DeleteMap(_) => 12,
            Op::DeleteCounter(_) => 13,
            Op::DeleteTable(_) => 14,
        }
    }
}

impl Transaction {
    /// A transaction of these operations, put in order, after which the kernel holds `result`.
    pub fn new(mut ops: Vec<Op>, result: Option<Table>) -> Transaction {
        ops.sort_by_key(Op::rank);
        Transaction { ops, result }
    }

    /// Removes the tables.
    pub fn cleanup() -> Transaction {
        Transaction::new(vec![Op::DestroyTables], None)
    }

    /// The operations, in the order in which the kernel must see them.
    pub fn ops(&self) -> &[Op] {
        &self.ops
    }

    /// What the kernel holds afterwards; `None` is no table.
    pub fn result(&self) -> Option<&Table> {
        self.result.as_ref()
    }
}

impl fmt::Display for Op {
    /// The operation in one short line, as logs and errors show it: `add 3 keys to set pods-...`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Op::DestroyTables => f.write_str("destroy the tables"),
            Op::AddTable(family) => write!(f, "add table {family}"),
            Op::DeleteTable(family) => write!(f, "delete table {family}"),
            Op::DeleteMapElements(map, keys) => write!(f, "delete {} elements of map {map}", keys.len()),
            Op::DeleteKeys(set, keys) => write!(f, "delete {} keys of set {set}", keys.len()),
            Op::AddCounter(name) => write!(f, "add counter {name}"),
            Op::AddSet(name, _) => write!(f, "add set {name}"),
            Op::AddMap(name, _) => write!(f, "add map {name}"),
            Op::AddKeys(set, keys) => write!(f, "add {} keys to set {set}", keys.len()),
            Op::AddChain(name, _) => write!(f, "add chain {name}"),
            Op::FlushChain(name) => write!(f, "flush chain {name}"),
            Op::AddRules(name, chain) => write!(f, "add {} rules to chain {name}", chain.rules.len()),
            Op::AddMapElements(map, elements) => write!(f, "add {} elements to map {map}", elements.len()),
            Op::DeleteChain(name) => write!(f, "delete chain {name}"),
            Op::DeleteSet(name) => write!(f, "delete set {name}"),
            Op::DeleteMap(name) => write!(f, "delete map {name}"),
            Op::DeleteCounter(name) => write!(f, "delete counter {name}"),
        }
    }
}
