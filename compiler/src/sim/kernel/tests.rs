//! The kernel in memory refuses what the kernel refuses, each with its own errno.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::*;
use crate::api::PortRange;
use crate::nft::{
    BaseChain, Chain, ChainName, ChainPolicy, CounterName, Family, Field, Hook, Key, KeyType, MapElement, Match, Rule,
    Set, SetName, Stmt, TableFamily, Verdict, VerdictMap,
};

fn set_name(name: &str) -> SetName {
    SetName::from_kernel(name)
}

fn chain_name(name: &str) -> ChainName {
    ChainName::from_kernel(name)
}

fn set(name: &str, key_type: KeyType) -> Op {
    Op::AddSet(set_name(name), Arc::new(Set { key_type, comment: None, keys: Arc::default(), filled: None }))
}

fn map(name: &str) -> Op {
    let key_type = KeyType::Address(Family::V4);
    Op::AddMap(set_name(name), Arc::new(VerdictMap { key_type, comment: None, elements: Arc::new(BTreeMap::new()) }))
}

fn chain(name: &str) -> Op {
    Op::AddChain(chain_name(name), Arc::default())
}

fn rules(name: &str, stmts: Vec<Stmt>) -> Op {
    let rules = vec![Rule { stmts, comment: None }];
    Op::AddRules(chain_name(name), Arc::new(Chain { rules, ..Chain::default() }))
}

fn jump(from: &str, to: &str) -> Op {
    rules(from, vec![Stmt::Verdict(Verdict::Jump(chain_name(to)))])
}

fn look_up(chain: &str, set: &str) -> Op {
    rules(chain, vec![Stmt::Match(Match::In(Field::Source(Family::V4), set_name(set)))])
}

fn dispatch(chain: &str, map: &str) -> Op {
    rules(chain, vec![Stmt::VerdictMap(Field::Source(Family::V4), set_name(map))])
}

fn key(last: u8) -> Key {
    Key::V4([10, 0, 0, last].into())
}

fn range(first: u8, last: u8) -> Key {
    Key::V4Range([10, 0, 0, first].into(), [10, 0, 0, last].into())
}

fn element(last: u8, verdict: Verdict) -> (Key, MapElement) {
    (key(last), MapElement { verdict, comment: None })
}

fn elements(map: &str, list: Vec<(Key, MapElement)>) -> Op {
    Op::AddMapElements(set_name(map), list)
}

fn goto(chain: &str) -> Verdict {
    Verdict::Goto(chain_name(chain))
}

/// Commits the table, then each of the rest; what the last one is answered.
fn last_of(release: Release, transactions: Vec<Vec<Op>>) -> Option<Errno> {
    let mut kernel = Kernel::new(release);
    kernel.commit(&Transaction::new(vec![Op::AddTable(TableFamily::Inet)], None)).unwrap();
    let count = transactions.len();
    for (index, ops) in transactions.into_iter().enumerate() {
        let before = kernel.dump();
        match kernel.commit(&Transaction::new(ops, None)) {
            Ok(generation) => assert_ne!(generation, before.generation),
            Err(refused) => {
                assert_eq!(index + 1, count, "only the last may be refused: {refused}");
                assert_eq!(kernel.dump(), before, "what is refused leaves nothing behind");
                return Some(refused.errno);
            }
        }
    }
    None
}

#[track_caller]
fn check(transactions: Vec<Vec<Op>>, expected: Option<Errno>) {
    assert_eq!(last_of(Release::AtOnce, transactions), expected);
}

#[test]
fn nothing_without_the_table() {
    let refused = Kernel::new(Release::AtOnce).commit(&Transaction::new(vec![chain("a")], None)).unwrap_err();
    assert_eq!(refused.to_string(), "operation 0 of the transaction, to add chain a: ENOENT");
}

#[test]
fn a_refused_transaction_leaves_nothing() {
    check(vec![vec![chain("a"), jump("a", "missing")]], Some(Errno::Enoent));
}

#[test]
fn destroyed_with_everything() {
    let mut kernel = Kernel::new(Release::AtOnce);
    kernel
        .commit(&Transaction::new(vec![Op::AddTable(TableFamily::Inet), chain("a"), chain("b"), jump("a", "b")], None))
        .unwrap();
    kernel.commit(&Transaction::cleanup()).unwrap();
    kernel.commit(&Transaction::cleanup()).expect("to destroy what is not there is no error");
    assert_eq!(kernel.dump().table, None);
}

#[test]
fn sets() {
    let v4 = KeyType::Address(Family::V4);
    let add = |keys| Op::AddKeys(set_name("s"), keys);
    let delete = |keys| Op::DeleteKeys(set_name("s"), keys);
    check(vec![vec![set("s", v4)], vec![set("s", v4)]], None);
    check(vec![vec![set("s", v4)], vec![set("s", KeyType::Address(Family::V6))]], Some(Errno::Eexist));
    check(vec![vec![set("s", v4)], vec![map("s")]], Some(Errno::Eexist));
    check(vec![vec![map("s")], vec![set("s", v4)]], Some(Errno::Eexist));
    check(vec![vec![add(vec![key(1)])]], Some(Errno::Enoent));
    check(vec![vec![set("s", v4), add(vec![key(1)])], vec![add(vec![key(1)])]], None);
    check(vec![vec![set("s", v4), add(vec![range(1, 2)])]], Some(Errno::Einval));
    check(vec![vec![set("s", v4), add(vec![key(1)])], vec![delete(vec![key(1), key(2)])]], Some(Errno::Enoent));
    check(vec![vec![set("s", v4)], vec![Op::DeleteSet(set_name("s"))]], None);
    check(vec![vec![Op::DeleteSet(set_name("s"))]], Some(Errno::Enoent));
    let used = vec![set("s", v4), chain("c"), look_up("c", "s")];
    check(vec![used.clone(), vec![Op::DeleteSet(set_name("s"))]], Some(Errno::Ebusy));
    check(vec![used, vec![Op::FlushChain(chain_name("c")), Op::DeleteSet(set_name("s"))]], None);
}

#[test]
fn ranges() {
    let ranges = || set("s", KeyType::AddressRange(Family::V4));
    let add = |keys| Op::AddKeys(set_name("s"), keys);
    check(vec![vec![ranges(), add(vec![range(1, 4), range(5, 6)])]], None);
    check(vec![vec![ranges(), add(vec![range(1, 4)])], vec![add(vec![range(1, 4)])]], None);
    check(vec![vec![ranges(), add(vec![range(1, 4), range(4, 6)])]], Some(Errno::Eexist));
    check(vec![vec![ranges(), add(vec![range(2, 3)])], vec![add(vec![range(1, 4)])]], Some(Errno::Eexist));
    check(vec![vec![ranges(), add(vec![range(1, 4)])], vec![add(vec![range(2, 2)])]], Some(Errno::Eexist));
    check(vec![vec![ranges(), add(vec![range(4, 1)])]], Some(Errno::Einval));
    let swap = vec![Op::DeleteKeys(set_name("s"), vec![range(1, 4)]), add(vec![range(2, 3)])];
    check(vec![vec![ranges(), add(vec![range(1, 4)])], swap], None);
    let ports = |first, last| Key::Ports(PortRange { first, last });
    check(vec![vec![set("s", KeyType::PortRange), add(vec![ports(1, 4), ports(3, 9)])]], Some(Errno::Eexist));
}

#[test]
fn look_ups_have_the_type_of_their_set() {
    let of = |key_type| vec![vec![set("s", key_type), chain("c"), look_up("c", "s")]];
    check(of(KeyType::Address(Family::V4)), None);
    check(of(KeyType::AddressRange(Family::V4)), None);
    check(of(KeyType::Address(Family::V6)), Some(Errno::Einval));
    check(of(KeyType::Pair(Family::V4)), Some(Errno::Einval));
    check(vec![vec![chain("c"), look_up("c", "s")]], Some(Errno::Enoent));
    check(vec![vec![map("s"), chain("c"), look_up("c", "s")]], Some(Errno::Enoent));
}

#[test]
fn maps() {
    let start = || vec![map("m"), chain("c"), chain("d"), elements("m", vec![element(1, goto("c"))])];
    let delete = || Op::DeleteMapElements(set_name("m"), vec![key(1)]);
    check(vec![start(), vec![elements("m", vec![element(1, goto("c"))])]], None);
    check(vec![start(), vec![elements("m", vec![element(1, goto("d"))])]], Some(Errno::Eexist));
    check(vec![start(), vec![delete(), elements("m", vec![element(1, goto("d"))])]], None);
    check(vec![start(), vec![elements("m", vec![element(2, goto("x"))])]], Some(Errno::Enoent));
    check(vec![start(), vec![delete()], vec![delete()]], Some(Errno::Enoent));
    check(vec![start(), vec![dispatch("d", "m")], vec![Op::DeleteMap(set_name("m"))]], Some(Errno::Ebusy));
    check(vec![start(), vec![Op::DeleteMap(set_name("m"))], vec![Op::DeleteChain(chain_name("c"))]], None);
}

#[test]
fn chains() {
    let base = BaseChain { hook: Hook::Forward, priority: 0, policy: ChainPolicy::Accept };
    let base_chain = || Op::AddChain(chain_name("c"), Arc::new(Chain { base: Some(base), ..Chain::default() }));
    check(vec![vec![base_chain()], vec![base_chain()]], None);
    check(vec![vec![base_chain()], vec![chain("c")]], Some(Errno::Eexist));
    check(vec![vec![base_chain(), chain("a"), jump("a", "c")]], Some(Errno::Eopnotsupp));
    check(vec![vec![base_chain(), map("m"), elements("m", vec![element(1, goto("c"))])]], Some(Errno::Eopnotsupp));
    check(vec![vec![Op::FlushChain(chain_name("c"))]], Some(Errno::Enoent));
    check(vec![vec![jump("c", "c")]], Some(Errno::Enoent));
    let two = || vec![chain("a"), chain("b"), jump("a", "b")];
    check(vec![two(), vec![Op::DeleteChain(chain_name("b"))]], Some(Errno::Ebusy));
    check(vec![two(), vec![Op::DeleteChain(chain_name("a"))], vec![Op::DeleteChain(chain_name("b"))]], None);
    check(vec![two(), vec![Op::FlushChain(chain_name("a")), Op::DeleteChain(chain_name("b"))]], None);
}

#[test]
fn counters() {
    let counter = || CounterName::from_kernel("n");
    let counts = || vec![Op::AddCounter(counter()), chain("c"), rules("c", vec![Stmt::CounterName(counter())])];
    check(vec![counts(), vec![Op::DeleteCounter(counter())]], Some(Errno::Ebusy));
    check(vec![counts(), vec![Op::FlushChain(chain_name("c"))], vec![Op::DeleteCounter(counter())]], None);
    check(vec![vec![chain("c"), rules("c", vec![Stmt::CounterName(counter())])]], Some(Errno::Enoent));
    check(vec![vec![Op::DeleteCounter(counter())]], Some(Errno::Enoent));
}

#[test]
fn old_kernels_let_go_of_a_chain_late() {
    let start = || vec![map("m"), chain("c"), elements("m", vec![element(1, goto("c"))])];
    let both = || vec![Op::DeleteMapElements(set_name("m"), vec![key(1)]), Op::DeleteChain(chain_name("c"))];
    assert_eq!(last_of(Release::AtOnce, vec![start(), both()]), None);
    assert_eq!(last_of(Release::AfterCommit, vec![start(), both()]), Some(Errno::Ebusy));
    let one_by_one = both().into_iter().map(|op| vec![op]);
    assert_eq!(last_of(Release::AfterCommit, [start()].into_iter().chain(one_by_one).collect()), None);
}

#[test]
fn fifteen_jumps_and_no_circle() {
    let row = |jumps: usize| -> Vec<Op> {
        let chains = (0..=jumps).map(|i| chain(&format!("c{i}")));
        chains.chain((0..jumps).map(|i| jump(&format!("c{i}"), &format!("c{}", i + 1)))).collect()
    };
    check(vec![row(15)], None);
    check(vec![row(16)], Some(Errno::Emlink));
    check(vec![row(3), vec![jump("c3", "c0")]], Some(Errno::Emlink));
    check(vec![vec![chain("c"), jump("c", "c")]], Some(Errno::Emlink));
    let through_a_map = vec![map("m"), dispatch("c3", "m"), elements("m", vec![element(1, goto("c0"))])];
    check(vec![row(3), through_a_map], Some(Errno::Emlink));
}

#[test]
fn maps_by_range() {
    let key_type = KeyType::AddressRange(Family::V4);
    let map = || Op::AddMap(set_name("m"), Arc::new(VerdictMap { key_type, comment: None, elements: Arc::default() }));
    let add = |ranges: &[(u8, u8)]| {
        let element =
            |(first, last): &(u8, u8)| (range(*first, *last), MapElement { verdict: Verdict::Drop, comment: None });
        Op::AddMapElements(set_name("m"), ranges.iter().map(element).collect())
    };
    check(vec![vec![map(), add(&[(1, 4), (5, 6), (9, 9)])]], None);
    check(vec![vec![map(), add(&[(1, 4)])], vec![add(&[(4, 6)])]], Some(Errno::Eexist));
    check(vec![vec![map(), add(&[(4, 1)])]], Some(Errno::Einval));
    let swap = vec![Op::DeleteMapElements(set_name("m"), vec![range(1, 4)]), add(&[(1, 2), (3, 4)])];
    check(vec![vec![map(), add(&[(1, 4), (5, 5)])], swap], None);
    let rule = |field| rules("c", vec![Stmt::VerdictMap(field, set_name("m"))]);
    check(vec![vec![map(), chain("c"), rule(Field::Source(Family::V4))]], None);
    check(vec![vec![map(), chain("c"), rule(Field::Source(Family::V6))]], Some(Errno::Einval));
}
