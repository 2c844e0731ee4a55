//! What changes, and by which operations.

use std::collections::BTreeSet;

use super::*;
use crate::diff::{Generation, Transaction};

#[test]
fn nothing_to_do() {
    assert_eq!(only(&start(), &start()), Vec::<String>::new());
    let mut mirror = kernel_with(&start(), Release::AtOnce).1;
    let desired = start();
    mirror.settled(desired.clone());
    assert_eq!(next(&desired, &mirror, Limits::default()), None);
    let of_mirror = mirror.table.as_ref().expect("it shows a table");
    assert!(of_mirror.sets.iter().zip(&desired.sets).all(|((_, a), (_, b))| Arc::ptr_eq(a, b)), "parts are shared");
}

#[test]
fn from_nothing_and_back() {
    let kernel = Kernel::new(Release::AtOnce);
    let mirror = kernel.dump();
    let way = way_of(kernel, mirror, &start(), Limits::default());
    let expected = [
        "add table inet",
        "add counter n",
        "add set r",
        "add set s",
        "add map m",
        "add 2 keys to set r",
        "add 3 keys to set s",
        "add chain base",
        "add chain c",
        "add chain leaf",
        "add 1 rules to chain base",
        "add 4 rules to chain c",
        "add 1 rules to chain leaf",
        "add 2 elements to map m",
    ];
    assert_eq!(way, [expected]);
    assert_eq!(
        only(&start(), &Table::default()),
        [
            "delete 2 elements of map m",
            "flush chain base",
            "flush chain c",
            "flush chain leaf",
            "delete chain base",
            "delete chain c",
            "delete chain leaf",
            "delete set r",
            "delete set s",
            "delete map m",
            "delete counter n",
        ]
    );

    let (mut kernel, mut mirror) = kernel_with(&start(), Release::AtOnce);
    let cleanup = Transaction::cleanup();
    assert_eq!((cleanup.ops().len(), cleanup.result()), (1, None));
    let generation = kernel.commit(&cleanup).expect("the table can always be removed");
    mirror.committed(cleanup, generation);
    assert_eq!((mirror.table.as_ref(), kernel.dump().table), (None, None));
}

#[test]
fn an_empty_table_is_a_table() {
    let kernel = Kernel::new(Release::AtOnce);
    let mirror = kernel.dump();
    assert_eq!(way_of(kernel, mirror, &Table::default(), Limits::default()), [["add table inet"]]);
}

#[test]
fn only_what_differs() {
    let cases: Vec<(&str, Table, &[&str])> = vec![
        ("a key comes", start().set("s", &[1, 2, 3, 5]), &["add 1 keys to set s"]),
        ("keys at both ends", start().set("s", &[0, 1, 3, 5, 9, 10]), &["add 3 keys to set s"]),
        ("a key goes", start().set("s", &[1, 5]), &["delete 1 keys of set s"]),
        ("the first and the last", start().set("s", &[3]), &["delete 2 keys of set s"]),
        ("all keys", start().set("s", &[]), &["delete 3 keys of set s"]),
        ("others", start().set("s", &[2, 5, 6]), &["delete 2 keys of set s", "add 2 keys to set s"]),
        (
            "ranges that overlap those before",
            start().ranges("r", &[(1, 8), (15, 25)]),
            &["delete 2 keys of set r", "add 2 keys to set r"],
        ),
        ("a set comes", start().set("t", &[7]), &["add set t", "add 1 keys to set t"]),
        ("an empty set", start().set("t", &[]), &["add set t"]),
        (
            "a key leads elsewhere",
            start().map("m", &[(1, "leaf"), (2, "c")]),
            &["delete 1 elements of map m", "add 1 elements to map m"],
        ),
        (
            "a key with another comment",
            start().with_map("m", |map| {
                let elements = Arc::make_mut(&mut map.elements);
                elements.values_mut().next().expect("there are two").comment = comment("other");
            }),
            &["delete 1 elements of map m", "add 1 elements to map m"],
        ),
        ("a key of a map comes", start().map("m", &[(1, "c"), (2, "c"), (3, "leaf")]), &["add 1 elements to map m"]),
        ("a key of a map goes", start().map("m", &[(2, "c")]), &["delete 1 elements of map m"]),
        ("a map comes", start().map("o", &[(1, "leaf")]), &["add map o", "add 1 elements to map o"]),
        ("an empty map", start().map("o", &[]), &["add map o"]),
        (
            "other rules",
            start().chain("leaf", [count("n"), drop_all()]),
            &["flush chain leaf", "add 2 rules to chain leaf"],
        ),
        ("no rules", start().chain("leaf", []), &["flush chain leaf"]),
        ("a chain comes", start().chain("d", [drop_all()]), &["add chain d", "add 1 rules to chain d"]),
        ("an empty chain", start().chain("d", []), &["add chain d"]),
        ("a counter", start().counter("o"), &["add counter o"]),
    ];
    for (name, to, there) in cases {
        assert_eq!(only(&start(), &to), there, "{name}");
        let back = only(&to, &start());
        assert!(!back.is_empty(), "{name}: and back");
    }
}

#[test]
fn what_goes_is_deleted_in_the_order_of_reference() {
    let more = start()
        .counter("old")
        .set("t", &[1])
        .map("o", &[(1, "old"), (2, "leaf")])
        .chain("old", [look_up("t"), count("old"), jump("older")])
        .chain("older", [])
        .chain("base", [dispatch("m"), dispatch("o")])
        .with_chain("base", |chain| chain.base = forward());
    assert_eq!(
        only(&more, &start()),
        [
            "delete 2 elements of map o",
            "flush chain base",
            "flush chain old",
            "add 1 rules to chain base",
            "delete chain old",
            "delete chain older",
            "delete set t",
            "delete map o",
            "delete counter old",
        ]
    );
}

#[test]
fn a_chain_is_there_before_an_address_is_led_to_it() {
    let to = start()
        .set("t", &[7])
        .chain("d", [jump("new-leaf"), jump("leaf")])
        .chain("new-leaf", [look_up("t"), look_up("s")])
        .chain("leaf", [count("n"), drop_all()])
        .set("s", &[1, 3, 5, 7])
        .map("m", &[(1, "d"), (2, "c"), (3, "d")]);
    let first = [
        "add set t",
        "add 1 keys to set t",
        "add chain d",
        "add chain new-leaf",
        "add 2 rules to chain d",
        "add 2 rules to chain new-leaf",
    ];
    let second = [
        "delete 1 elements of map m",
        "add 1 keys to set s",
        "flush chain leaf",
        "add 2 rules to chain leaf",
        "add 2 elements to map m",
    ];
    let all = |ops: &[&str]| ops.iter().map(|op| (*op).to_owned()).collect::<BTreeSet<_>>();
    let way: Vec<BTreeSet<String>> =
        way(&start(), &to, Limits::default()).into_iter().map(|ops| ops.into_iter().collect()).collect();
    assert_eq!(way, [all(&first), all(&second)]);
    assert_eq!(only(&to, &start()).len(), 10, "a chain that was there may be led to, and others go, at once");

    let of_new_keys = start().chain("d", [drop_all()]).map("m", &[(1, "c"), (2, "c"), (3, "d")]);
    assert_eq!(only(&start(), &of_new_keys).len(), 3, "whom nobody has isolated loses nothing");
}

#[test]
fn a_chain_that_goes_ahead_takes_along_where_its_maps_lead() {
    let to = start()
        .chain("d", [dispatch("by-peer"), drop_all()])
        .map("by-peer", &[(5, "e"), (6, "leaf")])
        .chain("e", [look_up("t")])
        .set("t", &[7])
        .map("m", &[(1, "d"), (2, "c")]);
    let way = way(&start(), &to, Limits::default());
    let first = [
        "add set t",
        "add map by-peer",
        "add 1 keys to set t",
        "add chain d",
        "add chain e",
        "add 2 rules to chain d",
        "add 1 rules to chain e",
        "add 2 elements to map by-peer",
    ];
    assert_eq!(way[0], first);
    assert_eq!(way[1..], [["delete 1 elements of map m", "add 1 elements to map m"]]);
}

#[test]
fn changes_without_end_do_not_put_off_those_whose_chains_went_ahead() {
    let (mut kernel, mut mirror) = kernel_with(&start(), Release::AtOnce);
    let mut way = Way::default();
    for n in 0..10 {
        // One pod is led elsewhere at every turn, and another is isolated meanwhile.
        let busy = format!("d{n}");
        let desired = start().chain(&busy, [drop_all()]).chain("e", [drop_all()]).map("m", &[(1, &*busy), (3, "e")]);
        let transaction = way.next(&desired, &mirror, Limits::default()).expect("there is always more to do");
        let generation = kernel.commit(&transaction).expect("the kernel takes it");
        mirror.committed(transaction, generation);
        let leads_to = |last| {
            let map = &mirror.table.as_ref().expect("there is a table").maps[&SetName::from_kernel("m")];
            map.elements.get(&Key::V4(address(last))).map(|element| element.verdict.to_string())
        };
        // What went ahead at one turn is led to at the next, though something else is wanted by then.
        let expected = if n == 0 { "goto c".to_string() } else { format!("goto d{}", (n - 1) / 2 * 2) };
        assert_eq!(leads_to(1), Some(expected), "in turn {n}");
        assert_eq!(leads_to(3).is_some(), n > 0, "in turn {n}");
    }
}

#[test]
fn old_kernels_delete_a_chain_in_a_second_step() {
    let more = start().chain("old", [look_up("s")]).chain("free", [drop_all()]).map("m", &[(1, "old"), (2, "c")]);
    let limits = Limits { defer_chain_delete: true, ..Limits::default() };
    let first = [
        "delete 1 elements of map m",
        "flush chain free",
        "flush chain old",
        "add 1 elements to map m",
        "delete chain free",
    ];
    assert_eq!(way(&more, &start(), limits), [first.to_vec(), vec!["delete chain old"]]);
    let at_once = ["delete 1 elements of map m", "flush chain free", "flush chain old", "add 1 elements to map m"];
    assert_eq!(only(&more, &start()), [&at_once[..], &["delete chain free", "delete chain old"]].concat());

    let jumps = more.clone().with_map("m", |map| {
        let verdict = Verdict::Jump(ChainName::from_kernel("old"));
        Arc::make_mut(&mut map.elements).insert(Key::V4(address(1)), MapElement { verdict, comment: None });
    });
    assert_eq!(way(&jumps, &start(), limits).len(), 2, "a jump holds the chain as a goto does");
    let accepts = more.with_map("m", |map| {
        let element = MapElement { verdict: Verdict::Accept, comment: None };
        Arc::make_mut(&mut map.elements).insert(Key::V4(address(1)), element);
    });
    assert_eq!(way(&accepts, &start(), limits).len(), 1, "a verdict that leads nowhere holds nothing");
}

#[test]
fn what_is_declared_otherwise_is_replaced_as_a_whole() {
    let cases: Vec<(&str, Table)> = vec![
        ("the comment of a set", start().with_set("s", |set| set.comment = comment("other"))),
        ("the type of a set", start().ranges("s", &[(1, 2)]).chain("c", [jump("leaf"), count("n")])),
        ("the comment of a map", start().with_map("m", |map| map.comment = comment("other"))),
        ("the comment of a chain", start().with_chain("leaf", |chain| chain.comment = comment("other"))),
        ("a chain that hangs elsewhere", start().with_chain("base", |chain| chain.base = None)),
        ("a map that was a set", {
            let mut table = start().chain("c", [look_up("r"), jump("leaf"), count("n")]).map("s", &[]);
            table.sets.remove(&SetName::from_kernel("s"));
            table
        }),
        ("a set that was a map", {
            let mut table = start().set("m", &[1]).chain("base", []).with_chain("base", |chain| chain.base = forward());
            table.maps.remove(&SetName::from_kernel("m"));
            table
        }),
    ];
    for (name, from) in cases {
        for (from, to) in [(&from, &start()), (&start(), &from)] {
            let ops = only(from, to);
            assert_eq!(ops[..2], ["destroy the tables", "add table inet"], "{name}");
            let declared = to.sets.len() + to.maps.len() + to.chains.len() + to.counters.len();
            let adds =
                |op: &&String| ["add set", "add map", "add chain", "add counter"].iter().any(|add| op.starts_with(add));
            assert_eq!(ops.iter().filter(adds).count(), declared, "{name}: all of it is made anew");
        }
    }
}

#[test]
fn what_is_foreign_makes_the_table_be_replaced() {
    let (kernel, mut mirror) = kernel_with(&start(), Release::AtOnce);
    mirror.foreign.push("chain somebody-elses".to_owned());
    let way = way_of(kernel, mirror, &start(), Limits { weight: 1, ..Limits::default() });
    assert_eq!(way.len(), 1, "at no moment without the rules: {way:?}");
    assert_eq!(way[0][..2], ["destroy the tables", "add table inet"]);
    assert_eq!(way[0].len(), 15, "and all of it is made anew");
}

#[test]
fn a_commit_settles_the_mirror() {
    let mut mirror = Mirror { table: None, generation: Generation(7), foreign: vec!["set x".to_owned()] };
    let transaction = next(&start(), &mirror, Limits::default()).expect("there is something to do");
    assert_eq!(transaction.result(), Some(&start()));
    mirror.committed(transaction, Generation(9));
    assert_eq!(mirror, Mirror { table: Some(start()), generation: Generation(9), foreign: vec![] });
}
