//! What packets that are on their way still look into.

use super::*;

/// [`start`] with a pod whose packets are led by peer.
fn by_peer() -> Table {
    start()
        .chain("group", [dispatch("peers"), drop_all()])
        .map("peers", &[(5, "policy")])
        .chain("policy", [look_up("t")])
        .set("t", &[7])
        .map("m", &[(1, "group"), (2, "c")])
}

#[test]
fn a_map_outlives_the_chain_that_looks_into_it() {
    let way = way(&by_peer(), &start(), Limits::default());
    let first = ["delete 1 elements of map m", "flush chain group", "add 1 elements to map m", "delete chain group"];
    assert_eq!(way[0], first);
    let then = [
        "delete 1 elements of map peers",
        "flush chain policy",
        "delete chain policy",
        "delete set t",
        "delete map peers",
    ];
    assert_eq!(way[1..], [then]);
}

#[test]
fn a_chain_that_stays_leads_to_more_before_it_leads_to_less() {
    let in_turn = by_peer().chain("group", [jump("policy"), drop_all()]);
    let maps = in_turn.maps.without(&SetName::from_kernel("peers"));
    let in_turn = Table { maps, ..in_turn };
    let both = ["flush chain group", "add 3 rules to chain group"];
    let one = ["flush chain group", "add 2 rules to chain group"];
    let gone = ["delete 1 elements of map peers", "delete map peers"];
    assert_eq!(way(&by_peer(), &in_turn, Limits::default()), [&both[..], &one[..], &gone[..]]);

    let partly = by_peer().chain("group", [dispatch("peers"), jump("policy"), drop_all()]).map("peers", &[(5, "leaf")]);
    let elements = ["delete 1 elements of map peers", "add 1 elements to map peers"];
    assert_eq!(way(&by_peer(), &partly, Limits::default()), [&both[..], &elements[..]]);
    assert_eq!(way(&partly, &by_peer(), Limits::default()), [&elements[..], &one[..]]);
}

#[test]
fn what_is_half_way_comes_to_its_end_whatever_else_is_wanted() {
    let (mut kernel, mut mirror) = kernel_with(&by_peer(), Release::AtOnce);
    let mut way = Way::default();
    let mut rules = Vec::new();
    for n in 0..6 {
        // At each turn the chain is to jump elsewhere, and to name another peer.
        let chain = ["leaf", "policy"][n % 2];
        let peer = 10 + u8::try_from(n).expect("it is small");
        let desired =
            by_peer().chain("group", [dispatch("peers"), jump(chain), drop_all()]).map("peers", &[(peer, "leaf")]);
        let transaction = way.next(&desired, &mirror, Limits::default()).expect("there is always more to do");
        let generation = kernel.commit(&transaction).expect("the kernel takes it");
        mirror.committed(transaction, generation);
        let table = mirror.table.as_ref().expect("there is a table");
        let peers = table.maps[&SetName::from_kernel("peers")].elements.keys().map(ToString::to_string);
        rules.push((table.chains[&ChainName::from_kernel("group")].rules.len(), peers.collect::<Vec<_>>().join(" ")));
    }
    let rules: Vec<(usize, &str)> = rules.iter().map(|(rules, peers)| (*rules, peers.as_str())).collect();
    let (first, second) = ([(3, "10.0.0.5"), (3, "10.0.0.10")], [(4, "10.0.0.12"), (4, "10.0.0.13"), (3, "10.0.0.13")]);
    assert_eq!(rules, [&first[..], &[(3, "10.0.0.12")], &second[..]].concat());
}

#[test]
fn whom_the_gate_shuts_out_does_not_get_past_it_by_a_chain_that_is_empty() {
    let gated = start().set("pod-ranges-v4", &[3]);
    let to = gated.clone().chain("d", [drop_all()]).map("m", &[(1, "c"), (2, "c"), (3, "d")]);
    let ahead = ["add chain d", "add 1 rules to chain d"];
    assert_eq!(way(&gated, &to, Limits::default()), [&ahead[..], &["add 1 elements to map m"]]);
}

#[test]
fn the_gate_opens_after_the_rules_have_come_and_shuts_with_their_going() {
    let shut = start().set("pod-ranges-v4", &[3]).set("known-pods-v4", &[1]);
    let open = shut.clone().map("m", &[(1, "c"), (2, "c"), (3, "c")]).set("known-pods-v4", &[1, 3]);
    let rules = ["add 1 elements to map m"];
    let known = ["add 1 keys to set known-pods-v4"];
    assert_eq!(way(&shut, &open, Limits::default()), [rules, known]);
    let both = ["delete 1 elements of map m", "delete 1 keys of set known-pods-v4"];
    assert_eq!(only(&open, &shut), both);
    // Nothing else comes with it, and nothing of before is in the way.
    assert_eq!(only(&shut, &shut.clone().set("known-pods-v4", &[1, 3])), known);
    let moved = shut.clone().map("m", &[(2, "c"), (3, "c")]).set("known-pods-v4", &[3]);
    assert_eq!(way(&shut, &moved, Limits::default())[1..], [known]);
}

#[test]
fn the_gate_opens_whatever_else_is_wanted_meanwhile() {
    let gated = start().set("pod-ranges-v4", &[3]).set("known-pods-v4", &[1]);
    let (mut kernel, mut mirror) = kernel_with(&gated, Release::AtOnce);
    let mut way = Way::default();
    let mut known = Vec::new();
    for n in 10..16 {
        let desired = gated.clone().map("m", &[(1, "c"), (n, "c")]).set("known-pods-v4", &[1, n]);
        let transaction = way.next(&desired, &mirror, Limits::default()).expect("there is always more to do");
        let generation = kernel.commit(&transaction).expect("the kernel takes it");
        mirror.committed(transaction, generation);
        let table = mirror.table.as_ref().expect("there is a table");
        let keys = table.sets[&SetName::from_kernel("known-pods-v4")].keys.iter().map(ToString::to_string);
        known.push(keys.collect::<Vec<_>>().join(" "));
    }
    let shut = "10.0.0.1";
    assert_eq!(known, [shut, "10.0.0.1 10.0.0.10", shut, "10.0.0.1 10.0.0.12", shut, "10.0.0.1 10.0.0.14"]);
}
