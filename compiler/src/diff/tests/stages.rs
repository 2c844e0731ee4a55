//! What would keep the kernel too long goes in stages: what isolates, then content that nothing refers to, then rules.

use super::*;

/// Chains of policies, which alone may be held back.
const P: &str = "ingress-np-p";
const Q: &str = "ingress-np-q";

fn limits(weight: usize) -> Limits {
    Limits { weight, ..Limits::default() }
}

/// The addresses 10.0.0.0 to 10.0.0.(n-1).
fn keys(n: u8) -> Vec<u8> {
    (0..n).collect()
}

/// A pod that is dispatched to the chain of one policy, which looks into a set.
fn isolated(policy: &str, set: &str, members: u8) -> Table {
    Table::default()
        .set(set, &keys(members))
        .chain(policy, [look_up(set)])
        .chain("ingress-pods", [jump(policy), drop_all()])
        .map("m", &[(1, "ingress-pods")])
}

fn short(way: Vec<Vec<String>>) -> Vec<String> {
    way.into_iter().map(|ops| ops.join(", ")).collect()
}

#[test]
fn what_is_light_goes_at_once() {
    let kernel = Kernel::new(Release::AtOnce);
    let mirror = kernel.dump();
    assert_eq!(way_of(kernel, mirror, &isolated(P, "s", 100), limits(1000)).len(), 1);
}

#[test]
fn a_heavy_policy_isolates_first_and_allows_when_its_content_is_there() {
    let kernel = Kernel::new(Release::AtOnce);
    let mirror = kernel.dump();
    assert_eq!(
        short(way_of(kernel, mirror, &isolated(P, "s", 100), limits(60))),
        [
            "add table inet, add map m, add chain ingress-np-p, add chain ingress-pods, add 2 rules to chain \
             ingress-pods, add 1 elements to map m",
            "add set s, add 35 keys to set s",
            "add 60 keys to set s",
            "add 5 keys to set s, add 1 rules to chain ingress-np-p",
        ]
    );
}

#[test]
fn a_policy_keeps_its_rules_until_the_new_ones_have_what_they_need() {
    let before = isolated(P, "old", 3);
    let after = isolated(P, "new", 100);
    assert_eq!(
        short(way(&before, &after, limits(90))),
        [
            "add set new, add 65 keys to set new",
            "add 35 keys to set new, flush chain ingress-np-p, add 1 rules to chain ingress-np-p, delete set old",
        ]
    );
}

#[test]
fn others_do_not_wait_for_a_heavy_policy() {
    let cluster = |heavy: u8, light: &[u8]| {
        isolated(P, "s", heavy).set("t", light).chain(Q, [look_up("t")]).chain("ingress-pods", [jump(P), jump(Q)])
    };
    let before = cluster(0, &[]);
    let mut kernel = kernel_with(&before, Release::AtOnce).0;
    let mut mirror = kernel.dump();
    // The heavy one gets another set, and while that is loaded the light one changes too.
    let heavy = |light: &[u8]| {
        let mut table = cluster(0, light).set("big", &keys(200)).chain(P, [look_up("big")]);
        table.sets.remove(&SetName::from_kernel("s"));
        table
    };
    let mut step = |desired: &Table| {
        let transaction = next(desired, &mirror, limits(90)).expect("there is something to do");
        let ops: Vec<String> = transaction.ops().iter().map(ToString::to_string).collect();
        let generation = kernel.commit(&transaction).expect("the kernel takes it");
        mirror.committed(transaction, generation);
        ops.join(", ")
    };
    assert_eq!(step(&heavy(&[])), "add set big, add 65 keys to set big");
    assert_eq!(step(&heavy(&[7])), "add 1 keys to set t", "at once, and alone");
    assert_eq!(step(&heavy(&[7])), "add 90 keys to set big");
}

#[test]
fn the_lightest_policies_come_first() {
    let cluster = isolated(P, "s", 100).set("t", &[1]).chain(Q, [look_up("t")]);
    let kernel = Kernel::new(Release::AtOnce);
    let mirror = kernel.dump();
    let way = short(way_of(kernel, mirror, &cluster, limits(100)));
    assert!(way[0].contains("add 1 rules to chain ingress-np-q"), "{way:?}");
    assert!(way[0].contains("add chain ingress-np-p") && !way[0].contains("add set s"), "{way:?}");
}

#[test]
fn keys_never_go_in_parts_into_a_set_in_use() {
    let way = way(&isolated(P, "s", 0), &isolated(P, "s", 100), limits(10));
    assert_eq!(way, [["add 100 keys to set s"]]);
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
            let mut table = Table::default().chain(P, [stmt.clone()]);
            let set = Set { key_type: KeyType::PortRange, comment: None, keys: Arc::new(keys), filled: None };
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
fn what_was_loaded_for_nothing_goes() {
    // The desired table changes while a load is under way.
    let mut kernel = kernel_with(&isolated(P, "s", 0), Release::AtOnce).0;
    let mut mirror = kernel.dump();
    let loading = |first: u8| {
        let mut table =
            isolated(P, "s", 0).set("t", &(first..100 + first).collect::<Vec<_>>()).chain(P, [look_up("t")]);
        table.sets.remove(&SetName::from_kernel("s"));
        table
    };
    let transaction = next(&loading(0), &mirror, limits(75)).expect("there is something to do");
    let generation = kernel.commit(&transaction).expect("a part is taken");
    mirror.committed(transaction, generation);
    assert_eq!(
        short(way_of(kernel, mirror, &loading(20), limits(75))),
        [
            "delete 20 keys of set t, add 70 keys to set t",
            "flush chain ingress-np-p, add 1 rules to chain ingress-np-p, delete set s",
        ]
    );
}

#[test]
fn ranges_that_are_there_make_room_first() {
    let table =
        |ranges: &[(u8, u8)], user: &str| Table::default().ranges("r", ranges).set("s", &[]).chain(P, [look_up(user)]);
    let from = table(&[(0, 99)], "s");
    let to = table(&[(0, 9), (20, 29), (40, 49)], "r");
    assert_eq!(
        short(way(&from, &to, limits(4))),
        ["delete 1 keys of set r, add 3 keys to set r", "flush chain ingress-np-p, add 1 rules to chain ingress-np-p"]
    );
}

#[test]
fn many_sets_go_in_several_transactions() {
    let names: Vec<String> = (0..9).map(|i| format!("s{i}")).collect();
    let full = names.iter().fold(Table::default().chain("c", []), |table, name| table.set(name, &[1]));
    let way = way(&full, &Table::default().chain("c", []), limits(30));
    assert_eq!(way.iter().map(Vec::len).collect::<Vec<_>>(), [3, 3, 3], "{way:?}");
}

#[test]
fn what_cannot_be_divided_goes_whole() {
    let rules = |n: usize| Table::default().chain(P, (0..n).map(|_| drop_all()));
    assert_eq!(short(way(&rules(0), &rules(100), limits(10))), ["add 100 rules to chain ingress-np-p"]);
}

/// So many policies, each of which looks into a set of its own.
fn many(policies: usize, version: &str) -> Table {
    (0..policies).fold(Table::default().chain("c", []), |table, i| {
        let set = format!("s{i}-{version}");
        table.set(&set, &[1]).chain(&format!("{P}{i:04}"), [look_up(&set)])
    })
}

#[test]
fn many_changed_policies_take_few_transactions() {
    let stages = |policies| way(&many(policies, "old"), &many(policies, "new"), Limits::default());
    assert_eq!(stages(50).len(), 1);
    let way = stages(500);
    assert!(way.len() <= 14, "{} transactions", way.len());
    let ops: usize = way.iter().map(Vec::len).sum();
    assert_eq!(ops, 5 * 500, "a set and its keys come, a chain is emptied and filled, a set goes: {way:?}");
    let (last, before) = way.split_last().expect("there are some");
    assert!(before.iter().all(|ops| ops.len() >= 30 * 5), "each carries as much as it may: {way:?}");
    assert!(way.iter().all(|ops| ops.len().is_multiple_of(5)), "the set that goes does so with its policy: {last:?}");
}

#[test]
fn sets_that_go_weigh_less_than_sets_that_come() {
    let from = many(500, "old");
    let to = Table::default().chain("c", []);
    assert!(way(&from, &to, Limits::default()).len() <= 2);
}

#[test]
fn what_is_remembered_of_a_way_gives_way_to_news() {
    let (mut kernel, mut mirror) = kernel_with(&many(500, "old"), Release::AtOnce);
    let mut way = Way::default();
    let mut step = |desired: &Table| -> Option<Vec<String>> {
        let transaction = way.next(desired, &mirror, limits(1_000))?;
        let generation = kernel.commit(&transaction).expect("the kernel takes it");
        let ops = transaction.ops().iter().map(ToString::to_string).collect();
        mirror.committed(transaction, generation);
        Some(ops)
    };
    let desired = many(500, "new");
    for _ in 0..5 {
        let ops = step(&desired).expect("there is more to do");
        assert_eq!(ops.len(), 8 * 5, "as much as there is room for: {ops:?}");
    }
    // The lightest comes first, also before those that were to be next.
    let desired = desired.chain(&format!("{P}0499"), []);
    let mut desired_now = desired.clone();
    desired_now.sets.remove(&SetName::from_kernel("s499-new"));
    let ops = step(&desired_now).expect("there is more to do");
    assert!(ops.contains(&format!("flush chain {P}0499")), "{ops:?}");
    let rest = std::iter::from_fn(|| step(&desired_now)).count();
    assert!(rest < 70, "{rest} more transactions");
    assert_eq!(mirror.table, Some(desired_now));
}
