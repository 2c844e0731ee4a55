//! The order of operations is the one that [`Op`](crate::diff::Op) promises.

use super::*;
use crate::diff::{Op, Transaction};
use crate::nft::TableFamily;

/// One of each, in the order in which the variants stand.
fn one_of_each() -> Vec<Op> {
    let set_name = || SetName::from_kernel("s");
    let chain_name = || ChainName::from_kernel("c");
    let table = Table::default().set("s", &[1]).map("s", &[(1, "c")]).chain("c", [drop_all()]);
    let set = || table.sets[&set_name()].clone();
    let map = || table.maps[&set_name()].clone();
    let chain = || table.chains[&chain_name()].clone();
    let element = map().elements.iter().map(|(key, element)| (*key, element.clone())).collect();
    vec![
        Op::DestroyTables,
        Op::AddTable(TableFamily::Inet),
        Op::DeleteMapElements(set_name(), vec![Key::V4(address(1))]),
        Op::DeleteKeys(set_name(), vec![Key::V4(address(1)), Key::V4(address(2))]),
        Op::AddCounter(CounterName::from_kernel("n")),
        Op::AddSet(set_name(), set()),
        Op::AddMap(set_name(), map()),
        Op::AddKeys(set_name(), vec![Key::V4(address(1))]),
        Op::AddChain(chain_name(), chain()),
        Op::FlushChain(chain_name()),
        Op::AddRules(chain_name(), chain()),
        Op::AddMapElements(set_name(), element),
        Op::DeleteChain(chain_name()),
        Op::DeleteSet(set_name()),
        Op::DeleteMap(set_name()),
        Op::DeleteCounter(CounterName::from_kernel("n")),
        Op::DeleteTable(TableFamily::Bridge),
    ]
}

#[test]
fn operations_come_in_the_order_of_the_variants() {
    // Those that stand side by side with equal rights keep the order in which they were given.
    let mut shuffled = one_of_each();
    shuffled.reverse();
    for (first, second) in [("add map s", "add set s"), ("delete map s", "delete set s")] {
        let at = |ops: &[Op], text: &str| ops.iter().position(|op| op.to_string() == text).expect("it is there");
        let (a, b) = (at(&shuffled, first), at(&shuffled, second));
        shuffled.swap(a, b);
    }
    let transaction = Transaction::new(shuffled, None);
    assert_eq!(transaction.ops(), one_of_each());
}

#[test]
fn rules_of_one_chain_keep_their_order() {
    let rules = |name: &str| {
        let table = Table::default().chain(name, [drop_all()]);
        let (name, chain) = table.chains.into_iter().next().expect("one chain was added");
        Op::AddRules(name, chain)
    };
    let given = vec![rules("b"), rules("a"), rules("c")];
    assert_eq!(Transaction::new(given.clone(), None).ops(), given);
}

#[test]
fn operations_are_described_in_a_line() {
    let texts: Vec<String> = one_of_each().iter().map(ToString::to_string).collect();
    assert_eq!(
        texts,
        [
            "destroy the tables",
            "add table inet",
            "delete 1 elements of map s",
            "delete 2 keys of set s",
            "add counter n",
            "add set s",
            "add map s",
            "add 1 keys to set s",
            "add chain c",
            "flush chain c",
            "add 1 rules to chain c",
            "add 1 elements to map s",
            "delete chain c",
            "delete set s",
            "delete map s",
            "delete counter n",
            "delete table bridge",
        ]
    );
}
