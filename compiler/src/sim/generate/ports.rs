//! Ports of containers and of rules.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

use super::object;

/// Few enough that pods disagree about them.
const NAMES: [&str; 3] = ["http", "dns", "m"];
/// Both ends of what there is, neighbours, and what people use.
const NUMBERS: [u16; 10] = [1, 2, 53, 79, 80, 81, 443, 8080, u16::MAX - 1, u16::MAX];

/// `ports` of a container: each name once, as the API demands within a container.
pub(super) fn of_container() -> impl Strategy<Value = Option<Value>> {
    let entry = (option::weighted(0.8, select(&NAMES[..])), select(&NUMBERS[..]), protocol());
    option::weighted(
        0.8,
        vec(entry, 0..=3).prop_map(|entries| {
            let mut by_name = BTreeMap::new();
            for (index, (name, number, protocol)) in entries.into_iter().enumerate() {
                // Ports without a name are told apart by their place.
                let key = name.map_or_else(|| index.to_string(), str::to_string);
                let fields = [
                    ("name", name.map(Value::from)),
                    ("containerPort", Some(json!(number))),
                    ("protocol", protocol.map(Value::from)),
                ];
                by_name.insert(key, object(fields));
            }
            by_name.into_values().collect()
        }),
    )
}

/// An entry of `ports` of a rule.
pub(super) fn of_rule() -> impl Strategy<Value = Value> {
    let number = || prop_oneof![4 => select(&NUMBERS[..]), 1 => 1..=u16::MAX];
    let range = (number(), number()).prop_map(|(a, b)| (Some(json!(a.min(b))), Some(json!(a.max(b)))));
    let port = prop_oneof![
        1 => Just((None, None)),
        4 => number().prop_map(|number| (Some(json!(number)), None)),
        2 => range,
        3 => select(&NAMES[..]).prop_map(|name| (Some(json!(name)), None)),
    ];
    (protocol(), port).prop_map(|(protocol, (port, end_port))| {
        object([("protocol", protocol.map(Value::from)), ("port", port), ("endPort", end_port)])
    })
}

/// `ports` of a rule, of one protocol and too many to have an nft rule each: numbers, and every third a range.
pub(super) fn many_of_rule() -> impl Strategy<Value = Value> {
    (protocol(), vec(1..=u16::MAX, 6..=12)).prop_map(|(protocol, numbers)| {
        let entry = |(index, first): (usize, u16)| {
            let end_port = index.is_multiple_of(3).then(|| json!(first.saturating_add(9)));
            object([("protocol", protocol.map(Value::from)), ("port", Some(json!(first))), ("endPort", end_port)])
        };
        numbers.into_iter().enumerate().map(entry).collect()
    })
}

/// An entry of `ports` of a rule as Kubernetes 1.3 had it: no ranges, no SCTP, and protocols in any case.
pub(super) fn of_first_generation() -> impl Strategy<Value = Value> {
    let protocol = option::of(select(&["TCP", "UDP", "tcp", "Udp"][..]));
    let port = prop_oneof![
        Just(None),
        select(&NUMBERS[..]).prop_map(|number| Some(json!(number))),
        select(&NAMES[..]).prop_map(|name| Some(json!(name))),
    ];
    (protocol, port).prop_map(|(protocol, port)| object([("protocol", protocol.map(Value::from)), ("port", port)]))
}

fn protocol() -> impl Strategy<Value = Option<&'static str>> {
    prop_oneof![2 => Just(None), 2 => Just(Some("TCP")), 2 => Just(Some("UDP")), 1 => Just(Some("SCTP"))]
}
