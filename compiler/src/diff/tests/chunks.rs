//! Big loads go in parts, into sets that nothing refers to yet.

use super::*;

fn limits(chunk: usize) -> Limits {
    Limits { chunk, ..Limits::default() }
}

fn user_of(sets: &[&str]) -> Table {
    Table::default().chain("c", sets.iter().map(|set| look_up(set)))
}

#[test]
fn a_big_load_goes_in_parts() {
    let full = user_of(&["s", "t"]).set("s", &[1, 2, 3]).set("t", &[4, 5, 6, 7]);
    let kernel = || Kernel::new(Release::AtOnce);
    let way = |chunk| way_of(kernel(), kernel().dump(), &full, limits(chunk));
    assert_eq!(way(7).len(), 1, "as many keys as a chunk has need no parts");
    assert_eq!(
        way(3),
        [
            vec!["add the table", "add set s", "add 3 keys to set s"],
            vec!["add set t", "add 3 keys to set t"],
            vec!["add 1 keys to set t", "add chain c", "add 2 rules to chain c"],
        ]
    );
    assert_eq!(
        way(5),
        [
            vec!["add the table", "add set s", "add set t", "add 3 keys to set s", "add 2 keys to set t"],
            vec!["add 2 keys to set t", "add chain c", "add 2 rules to chain c"],
        ]
    );
    assert_eq!(way(1).len(), 7, "a last key goes with the rules");
}

#[test]
fn keys_never_go_in_parts_into_a_set_in_use() {
    let empty = |in_use: &[&str]| user_of(in_use).set("s", &[]).set("t", &[]);
    let full = |in_use: &[&str]| user_of(in_use).set("s", &[1, 2, 3]).set("t", &[4, 5, 6]);
    let both = ["s", "t"];
    assert_eq!(
        way(&empty(&both), &full(&both), limits(1)),
        [["add 3 keys to set s", "add 3 keys to set t"]],
        "both are in use"
    );
    assert_eq!(
        way(&empty(&["s"]), &full(&both), limits(2)),
        [
            vec!["add 2 keys to set t"],
            vec!["add 3 keys to set s", "add 1 keys to set t", "flush chain c", "add 2 rules to chain c"],
        ],
        "one is in use"
    );
    assert_eq!(way(&empty(&["s"]), &full(&["s"]), limits(3)).len(), 1, "what is left to the free set fits");
}

#[test]
fn every_way_of_use_counts() {
    let users: [(&str, Stmt); 2] = [
        ("a look-up", look_up("s")),
        ("ports", Stmt::Match(Match::PortIn(crate::api::Protocol::Tcp, SetName::from_kernel("s")))),
    ];
    for (name, stmt) in users {
        let table = |keys: &[u16]| {
            let keys = keys.iter().map(|port| Key::Ports(crate::api::PortRange::single(*port))).collect();
            let mut table = Table::default().chain("c", [stmt.clone()]);
            let set = Set { key_type: KeyType::PortRange, comment: None, keys: Arc::new(keys) };
            table.sets.insert(SetName::from_kernel("s"), Arc::new(set));
            table
        };
        let mirror = Mirror { table: Some(table(&[])), ..Kernel::new(Release::AtOnce).dump() };
        let transaction = next(&table(&[1, 5, 9]), &mirror, limits(1)).expect("keys are missing");
        assert_eq!(transaction.ops().len(), 1, "{name}");
        assert_eq!(transaction.result(), Some(&table(&[1, 5, 9])), "{name}: all at once");
    }
}

#[test]
fn keys_that_are_there_do_not_count() {
    let from = user_of(&[]).set("s", &[1, 2, 3, 4, 5]);
    assert_eq!(way(&from, &user_of(&[]).set("s", &[1, 2, 3, 4, 5, 6, 7]), limits(2)), [["add 2 keys to set s"]]);
    let more = user_of(&["s"]).set("s", &[0, 1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(
        way(&from, &more, limits(2)),
        [vec!["add 2 keys to set s"], vec!["add 1 keys to set s", "flush chain c", "add 1 rules to chain c"]]
            .map(|ops| ops.into_iter().filter(|op| *op != "flush chain c").collect::<Vec<_>>()),
        "a part may go before what is there"
    );
}

#[test]
fn what_was_loaded_for_nothing_goes() {
    // The desired table changes while a load is under way.
    let mut kernel = Kernel::new(Release::AtOnce);
    let mut mirror = kernel.dump();
    let first = user_of(&["s"]).set("s", &[1, 2, 3, 4]);
    let transaction = next(&first, &mirror, limits(2)).expect("there is something to do");
    let generation = kernel.commit(&transaction).expect("a part is taken");
    mirror.committed(transaction, generation);
    let second = user_of(&["s"]).set("s", &[2, 7, 8, 9]);
    assert_eq!(
        way_of(kernel, mirror, &second, limits(2)),
        [
            vec!["delete 1 keys of set s", "add 2 keys to set s"],
            vec!["add 1 keys to set s", "add chain c", "add 1 rules to chain c"],
        ]
    );
}

#[test]
fn ranges_that_are_there_make_room_first() {
    let from = user_of(&[]).ranges("r", &[(0, 99)]);
    let to = user_of(&[]).ranges("r", &[(0, 9), (20, 29), (40, 49)]);
    assert_eq!(
        way(&from, &to, limits(2)),
        [vec!["delete 1 keys of set r", "add 2 keys to set r"], vec!["add 1 keys to set r"]]
    );
}
