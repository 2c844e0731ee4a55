//! What was committed, as `nft` lists it and as we read it back.

use std::sync::Arc;

use compiler::api::PortRange;
use compiler::diff::{Op, Transaction};
use compiler::nft::{CounterName, Family, Key, KeyType, Stmt, Table, Verdict};
use netlink::{Count, Decoded, Decoder};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use serde_json::Value;

use super::support::{commit_new, create, enter_network_namespace, nft, nft_load, open};
use super::tables::{base, chain_name, element, everything, rule, set, set_name, shaped, v4};

const LIST: [&str; 4] = ["list", "table", "inet", "postern"];

/// `nft -j list ruleset`, without the handles, and with the objects in order of their kinds and names.
pub(crate) fn json() -> Value {
    fn strip(value: &mut Value) {
        if let Value::Object(object) = value {
            object.remove("handle");
            object.values_mut().for_each(strip);
        } else if let Value::Array(array) = value {
            array.iter_mut().for_each(strip);
        }
    }
    let mut value: Value = serde_json::from_str(&nft(&["-j", "list", "ruleset"])).unwrap();
    strip(&mut value);
    let Some(Value::Array(objects)) = value.get_mut("nftables") else { panic!("no list in {value}") };
    objects.sort_by_key(|object| {
        // Rules keep their order within a chain, because the sort is stable.
        let (kind, object) = object.as_object().unwrap().iter().next().unwrap();
        let name = object.get("chain").or(object.get("name")).map(ToString::to_string);
        (kind.clone(), name)
    });
    value
}

/// The lines of a listing, in order of the objects' names: `nft` lists chains by handle, and those depend on who
/// made them in which order.
#[track_caller]
pub(crate) fn same_listing(ours: &str, theirs: &str) {
    let blocks = |text: &str| {
        let mut blocks: Vec<String> = text.split("\n\n").map(|block| block.trim_matches(['\n', '}']).into()).collect();
        blocks.sort_unstable();
        blocks
    };
    let (ours, theirs) = (blocks(ours), blocks(theirs));
    for (ours, theirs) in ours.iter().zip(&theirs) {
        assert_eq!(ours, theirs, "ours:\n{ours}\nnft's:\n{theirs}");
    }
    assert_eq!(ours.len(), theirs.len());
}

pub(crate) fn nft_lists_ours_as_its_own() {
    let table = everything();
    nft_load(&table.to_string());
    let (theirs, their_json) = (nft(&LIST), json());
    enter_network_namespace();
    commit_new(&mut open(), &table);
    same_listing(&nft(&LIST), &theirs);
    assert_eq!(json(), their_json);
}

pub(crate) fn what_nft_loads_is_read_as_ours() {
    let table = everything();
    nft_load(&table.to_string());
    let mirror = open().dump().unwrap();
    assert_eq!(mirror.foreign, Vec::<String>::new());
    assert_same(&mirror.table.unwrap(), &table);
}

/// Compares part by part, so that a failure shows the part.
#[track_caller]
pub(crate) fn assert_same(found: &Table, expected: &Table) {
    assert_eq!(found.counters, expected.counters);
    for (name, set) in &expected.sets {
        assert_eq!(found.sets.get(name), Some(set), "set {name}");
    }
    for (name, map) in &expected.maps {
        assert_eq!(found.maps.get(name), Some(map), "map {name}");
    }
    for (name, chain) in &expected.chains {
        assert_eq!(found.chains.get(name), Some(chain), "chain {name}");
    }
    assert_eq!(found, expected);
}

pub(crate) fn what_is_committed_is_read_back() {
    for table in [Table::default(), everything()] {
        enter_network_namespace();
        let mut connection = open();
        let generation = commit_new(&mut connection, &table);
        let mirror = connection.dump().unwrap();
        assert_eq!((mirror.generation, mirror.foreign), (generation, vec![]));
        assert_same(&mirror.table.unwrap(), &table);
    }
    enter_network_namespace();
    assert_eq!(open().dump().unwrap().table, None, "no table at all");
}

pub(crate) fn random_tables_are_read_back() {
    let shapes = (0u8..6, 0u16..700, 0u8..8, prop::collection::vec(any::<u16>(), 0..40));
    let mut runner = TestRunner::new(ProptestConfig { cases: 48, failure_persistence: None, ..Default::default() });
    runner
        .run(&shapes, |(sets, keys, chains, picks)| {
            enter_network_namespace();
            let table = shaped(sets, keys, chains, &picks);
            let mut connection = open();
            commit_new(&mut connection, &table);
            let mirror = connection.dump().unwrap();
            prop_assert_eq!(mirror.foreign, Vec::<String>::new());
            assert_same(&mirror.table.unwrap(), &table);
            Ok(())
        })
        .unwrap();
}

/// Takes a table through every kind of operation, and looks after each commit.
pub(crate) fn every_operation_leaves_its_result() {
    let mut connection = open();
    let mut table = everything();
    let mut generation = commit_new(&mut connection, &table);
    let mut step = |table: &Table, ops: Vec<Op>| {
        let transaction = Transaction::new(ops, Some(table.clone()));
        generation = connection.commit(&transaction, generation).unwrap().generation;
        let mirror = connection.dump().unwrap();
        assert_eq!((mirror.generation, mirror.foreign), (generation, vec![]));
        assert_same(&mirror.table.unwrap(), table);
    };

    // Ranges that touch what stays, on both sides and at the top.
    let range = |first, last| Key::Ports(PortRange { first, last });
    let ports = set_name("ports");
    let keys = vec![range(0, 0), range(443, 443), range(500, 64999), range(65001, 65535)];
    table.sets.insert(ports.clone(), Arc::new(set(KeyType::PortRange, keys)));
    step(
        &table,
        vec![
            Op::DeleteKeys(ports.clone(), vec![range(80, 90), range(65000, 65535)]),
            Op::AddKeys(ports, vec![range(500, 64999), range(65001, 65535)]),
        ],
    );

    let keys = vec![v4(2), v4(3)];
    let changed = set(KeyType::Address(Family::V4), keys);
    let changed = compiler::nft::Set { comment: table.sets[&set_name("v4")].comment.clone(), ..changed };
    table.sets.insert(set_name("v4"), Arc::new(changed));
    step(&table, vec![Op::DeleteKeys(set_name("v4"), vec![v4(1), v4(77)]), Op::AddKeys(set_name("v4"), vec![v4(3)])]);

    // The same key with another verdict and comment.
    let mut map = (*table.maps[&set_name("pods-v4")]).clone();
    let other = element(Verdict::Drop, Some("gone"));
    Arc::make_mut(&mut map.elements).insert(v4(1), other.clone());
    table.maps.insert(set_name("pods-v4"), Arc::new(map));
    step(
        &table,
        vec![
            Op::DeleteMapElements(set_name("pods-v4"), vec![v4(1)]),
            Op::AddMapElements(set_name("pods-v4"), vec![(v4(1), other)]),
        ],
    );

    // Ranges of a map that are cut and joined between others that touch them and stay.
    let v4_range = |first: &str, last: &str| Key::V4Range(first.parse().unwrap(), last.parse().unwrap());
    let mut map = (*table.maps[&set_name("blocks-v4")]).clone();
    let gone = [v4_range("10.0.0.0", "10.0.0.6"), v4_range("10.0.0.9", "10.0.0.9")];
    let come = [("10.0.0.0", "10.0.0.3"), ("10.0.0.4", "10.0.0.6"), ("10.0.0.8", "239.255.255.255")];
    let leaf = || element(Verdict::Jump(chain_name("a-leaf")), None);
    let come: Vec<(Key, _)> = come.iter().map(|(first, last)| (v4_range(first, last), leaf())).collect();
    let elements = Arc::make_mut(&mut map.elements);
    gone.iter().for_each(|key| drop(elements.remove(key).unwrap()));
    elements.extend(come.clone());
    table.maps.insert(set_name("blocks-v4"), Arc::new(map));
    step(
        &table,
        vec![
            Op::DeleteMapElements(set_name("blocks-v4"), gone.to_vec()),
            Op::AddMapElements(set_name("blocks-v4"), come),
        ],
    );

    // Rules replaced; what they referred to goes in the same batch.
    let mut main = base(-5);
    main.rules = vec![rule(vec![Stmt::Verdict(Verdict::Accept)])];
    let main = Arc::new(main);
    table.chains.insert(chain_name("b-main"), Arc::clone(&main));
    table.chains.remove(&chain_name("c-input"));
    table.sets.remove(&set_name("v6-all"));
    table.maps.remove(&set_name("pairs"));
    table.counters.clear();
    step(
        &table,
        vec![
            Op::FlushChain(chain_name("b-main")),
            Op::AddRules(chain_name("b-main"), main),
            Op::DeleteChain(chain_name("c-input")),
            Op::DeleteSet(set_name("v6-all")),
            Op::DeleteMap(set_name("pairs")),
            Op::DeleteCounter(CounterName::from_kernel("denied-ingress")),
        ],
    );

    // Replaced as a whole, and then removed, twice.
    let mut ops = vec![Op::DestroyTables];
    table = everything();
    ops.extend(create(&table).ops().iter().cloned());
    step(&table, ops);
    for _ in 0..2 {
        generation = connection.commit(&Transaction::cleanup(), generation).unwrap().generation;
        assert_eq!(generation, connection.generation().unwrap());
        assert_eq!(connection.dump().unwrap().table, None);
    }
}

/// Everything that somebody else could put into our table is noticed.
pub(crate) fn foreign_things_are_named() {
    let foreign = [
        ("add rule inet postern b-main ip daddr 10.0.0.1 accept", "b-main"),
        ("add rule inet postern b-main meta nfproto ipv4 accept", "b-main"),
        ("add rule inet postern b-main tcp dport != @ports accept", "b-main"),
        ("add rule inet postern b-main ct state new accept", "b-main"),
        ("add rule inet postern b-main tcp sport 80 accept", "b-main"),
        ("add rule inet postern b-main log group 5", "b-main"),
        ("add rule inet postern b-main log prefix \"postern: me\" group 5 snaplen 128", "b-main"),
        ("add rule inet postern b-main log prefix \"postern: source\" group 5 snaplen 64", "b-main"),
        ("add rule inet postern b-main log prefix \"postern: source\" group 5 snaplen 128 queue-threshold 5", "b-main"),
        ("add rule inet postern b-main update @filled-links { iifname timeout 5s limit rate 1/minute }", "b-main"),
        ("add rule inet postern b-main update @filled-links { iifname limit rate 1/second }", "b-main"),
        ("add rule inet postern b-main add @filled-links { iifname limit rate 1/minute }", "b-main"),
        ("add rule inet postern b-main update @filled-links { iifname counter }", "b-main"),
        ("add rule inet postern b-main limit rate 1/second accept", "b-main"),
        ("add rule inet postern b-main reject with icmpx port-unreachable", "b-main"),
        ("add rule inet postern b-main tcp dport { 80, 90 } accept", "__set0"),
        ("add chain inet postern other { type filter hook output priority 0; }", "other"),
        ("add chain inet postern nat { type nat hook prerouting priority 0; }", "nat"),
        ("add set inet postern marks { type mark; }", "marks"),
        ("add set inet postern slow { type ipv4_addr; timeout 5s; }", "slow"),
        ("add set inet postern timely { type ipv4_addr; size 5; flags timeout; timeout 5s; }", "timely"),
        ("add set inet postern odd { type ipv4_addr; size 5; flags dynamic,timeout; timeout 5500ms; }", "odd"),
        ("add set inet postern small { type ipv4_addr; size 5; }", "small"),
        ("add set inet postern both { type ipv4_addr . inet_service; flags interval; }", "both"),
        ("add map inet postern numbers { type ipv4_addr : inet_service; }", "numbers"),
        ("add element inet postern v4 { 10.9.9.9 comment \"who\" }", "v4"),
        ("add element inet postern named-v4 { 10.9.9.9 . icmp . 0 }", "named-v4"),
        ("add quota inet postern much { over 1 mbytes; }", "much"),
        ("add table inet postern { flags dormant; }", "postern"),
    ];
    for (command, name) in foreign {
        enter_network_namespace();
        let mut connection = open();
        commit_new(&mut connection, &everything());
        nft_load(command);
        let mirror = connection.dump().unwrap();
        assert!(mirror.foreign.iter().any(|found| found == name), "{command}: {:?}", mirror.foreign);
    }
    enter_network_namespace();
    let mut connection = open();
    let generation = commit_new(&mut connection, &everything());
    nft_load("table ip postern {\nset v4 {\ntype mark\n}\n}\ntable inet other {\nset v4 {\ntype mark\n}\n}\n");
    let mirror = connection.dump().unwrap();
    assert_eq!((mirror.foreign, mirror.table), (vec![], Some(everything())), "other tables are not ours");
    assert_ne!(mirror.generation, generation);
}

pub(crate) fn counters_are_read() {
    let mut connection = open();
    assert!(connection.counters().unwrap().is_empty(), "no table");
    commit_new(&mut connection, &everything());
    nft_load("add counter inet postern seen { packets 5 bytes 700; }");
    let counters = connection.counters().unwrap();
    let count = |name| counters.get(&CounterName::from_kernel(name)).copied();
    assert_eq!(count("seen"), Some(Count { packets: 5, bytes: 700 }));
    assert_eq!(count("denied-ingress"), Some(Count::default()));
    assert_eq!(counters.len(), 2);
}

/// Cuts a real dump at many lengths, and turns over bits all through it.
pub(crate) fn damaged_dumps_never_panic() {
    let mut table = everything();
    table.sets = table.sets.into_iter().filter(|(name, _)| !name.as_str().ends_with("-all")).collect();
    let mut connection = open();
    commit_new(&mut connection, &table);
    let mut recorded = connection.dump_bytes().unwrap();
    let decode = |bytes: &[u8]| {
        let mut decoder = Decoder::default();
        decoder.datagram(bytes);
        decoder.finish()
    };
    assert_eq!(decode(&recorded), Decoded { table: Some(table), foreign: vec![], is_torn: false });
    for len in (0..recorded.len()).step_by(11) {
        decode(&recorded[..len]);
    }
    let mut found_difference = false;
    let whole = decode(&recorded);
    for bit in (0..recorded.len() * 8).step_by(61) {
        recorded[bit / 8] ^= 1 << (bit % 8);
        found_difference |= decode(&recorded) != whole;
        recorded[bit / 8] ^= 1 << (bit % 8);
    }
    assert!(found_difference);
}
