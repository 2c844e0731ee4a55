//! The transactions between small tables, in the words of the operations, and what a kernel says to each.

mod on_the_way;
mod order;
mod stages;
mod steps;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use super::{Limits, Mirror, Way, next};
use crate::nft::{
    BaseChain, Chain, ChainName, ChainPolicy, Comment, CounterName, Family, Field, Hook, Key, KeyType, MapElement,
    Match, Rule, Set, SetName, Stmt, Table, Verdict, VerdictMap,
};
use crate::sim::{Kernel, Release};

/// Tables in a line each.
impl Table {
    /// A set of the addresses 10.0.0.x.
    fn set(mut self, name: &str, last_bytes: &[u8]) -> Table {
        let keys = last_bytes.iter().map(|last| Key::V4(address(*last))).collect();
        let set = Set { key_type: KeyType::Address(Family::V4), comment: None, keys: Arc::new(keys), filled: None };
        self.sets.insert(SetName::from_kernel(name), Arc::new(set));
        self
    }

    /// A set of the ranges 10.0.0.x-10.0.0.y.
    fn ranges(mut self, name: &str, bounds: &[(u8, u8)]) -> Table {
        let keys = bounds.iter().map(|(first, last)| Key::V4Range(address(*first), address(*last))).collect();
        let set =
            Set { key_type: KeyType::AddressRange(Family::V4), comment: None, keys: Arc::new(keys), filled: None };
        self.sets.insert(SetName::from_kernel(name), Arc::new(set));
        self
    }

    /// A map from the addresses 10.0.0.x to chains.
    fn map(mut self, name: &str, targets: &[(u8, &str)]) -> Table {
        let element = |(last, chain): &(u8, &str)| {
            let verdict = Verdict::Goto(ChainName::from_kernel(chain));
            (Key::V4(address(*last)), MapElement { verdict, comment: None })
        };
        let elements: BTreeMap<_, _> = targets.iter().map(element).collect();
        let map = VerdictMap { key_type: KeyType::Address(Family::V4), comment: None, elements: Arc::new(elements) };
        self.maps.insert(SetName::from_kernel(name), Arc::new(map));
        self
    }

    /// A chain of these rules.
    fn chain(mut self, name: &str, rules: impl IntoIterator<Item = Stmt>) -> Table {
        let rules = rules.into_iter().map(|stmt| Rule { stmts: vec![stmt], comment: None }).collect();
        self.chains.insert(ChainName::from_kernel(name), Arc::new(Chain { rules, ..Chain::default() }));
        self
    }

    fn counter(mut self, name: &str) -> Table {
        self.counters.insert(CounterName::from_kernel(name));
        self
    }

    /// Does something to an object that is there.
    #[track_caller]
    fn with_set(mut self, name: &str, change: impl FnOnce(&mut Set)) -> Table {
        change(Arc::make_mut(self.sets.get_mut(&SetName::from_kernel(name)).expect("the set is there")));
        self
    }

    #[track_caller]
    fn with_map(mut self, name: &str, change: impl FnOnce(&mut VerdictMap)) -> Table {
        change(Arc::make_mut(self.maps.get_mut(&SetName::from_kernel(name)).expect("the map is there")));
        self
    }

    #[track_caller]
    fn with_chain(mut self, name: &str, change: impl FnOnce(&mut Chain)) -> Table {
        change(Arc::make_mut(self.chains.get_mut(&ChainName::from_kernel(name)).expect("the chain is there")));
        self
    }
}

fn address(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, last)
}

fn comment(text: &str) -> Option<Comment> {
    Some(Comment::new(text))
}

fn forward() -> Option<BaseChain> {
    Some(BaseChain { hook: Hook::Forward, priority: 0, policy: ChainPolicy::Accept })
}

fn jump(chain: &str) -> Stmt {
    Stmt::Verdict(Verdict::Jump(ChainName::from_kernel(chain)))
}

fn look_up(set: &str) -> Stmt {
    Stmt::Match(Match::In(Field::Source(Family::V4), SetName::from_kernel(set)))
}

fn dispatch(map: &str) -> Stmt {
    Stmt::VerdictMap(Field::Source(Family::V4), SetName::from_kernel(map))
}

fn count(counter: &str) -> Stmt {
    Stmt::CounterName(CounterName::from_kernel(counter))
}

fn drop_all() -> Stmt {
    Stmt::Verdict(Verdict::Drop)
}

/// A kernel that holds a table, and the mirror of it.
#[track_caller]
fn kernel_with(table: &Table, release: Release) -> (Kernel, Mirror) {
    let mut kernel = Kernel::new(release);
    if let Some(transaction) = next(table, &kernel.dump(), Limits { weight: usize::MAX, ..Limits::default() }) {
        kernel.commit(&transaction).expect("a first load is taken");
    }
    let mirror = kernel.dump();
    assert_eq!(mirror.table.as_ref(), Some(table), "the kernel holds the table");
    (kernel, mirror)
}

/// The operations of every transaction from one table to another, which a kernel takes and which end in the other.
#[track_caller]
fn way(from: &Table, to: &Table, limits: Limits) -> Vec<Vec<String>> {
    let release = if limits.defer_chain_delete { Release::AfterCommit } else { Release::AtOnce };
    let (kernel, mirror) = kernel_with(from, release);
    way_of(kernel, mirror, to, limits)
}

/// The same from a kernel and a mirror that need not show all of it.
#[track_caller]
fn way_of(mut kernel: Kernel, mut mirror: Mirror, to: &Table, limits: Limits) -> Vec<Vec<String>> {
    let mut transactions = Vec::new();
    while let Some(transaction) = next(to, &mirror, limits) {
        transactions.push(transaction.ops().iter().map(ToString::to_string).collect());
        assert!(transactions.len() < 100, "there is no end: {transactions:?}");
        let generation = kernel.commit(&transaction).unwrap_or_else(|refused| panic!("{refused}: {transactions:?}"));
        mirror.committed(transaction, generation);
        assert_eq!(mirror, kernel.dump(), "the mirror shows what the kernel holds: {transactions:?}");
    }
    assert_eq!(mirror.table.as_ref(), Some(to), "the way ends where it should: {transactions:?}");
    transactions
}

/// The operations of the only transaction.
#[track_caller]
fn only(from: &Table, to: &Table) -> Vec<String> {
    let mut way = way(from, to, Limits::default());
    assert!(way.len() < 2, "one transaction is enough: {way:?}");
    way.pop().unwrap_or_default()
}

/// Something of every kind, all of it in use.
fn start() -> Table {
    Table::default()
        .counter("n")
        .set("s", &[1, 3, 5])
        .ranges("r", &[(1, 9), (20, 29)])
        .map("m", &[(1, "c"), (2, "c")])
        .chain("c", [look_up("s"), look_up("r"), jump("leaf"), count("n")])
        .chain("leaf", [drop_all()])
        .chain("base", [dispatch("m")])
        .with_chain("base", |chain| chain.base = forward())
}
