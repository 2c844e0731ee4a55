//! Labels and selectors.

use proptest::collection::{btree_map, btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

use super::object;

/// Few enough that selectors meet labels; one has a prefix, as in the API server's own.
const KEYS: [&str; 4] = ["app", "tier", "env", "example.com/zone"];
/// The empty value is a value.
const VALUES: [&str; 4] = ["a", "b", "c", ""];

/// `labels`: absent, empty, or up to three.
pub(super) fn map() -> impl Strategy<Value = Option<Value>> {
    option::weighted(0.85, btree_map(select(&KEYS[..]), select(&VALUES[..]), 0..=3).prop_map(|labels| json!(labels)))
}

/// A selector, also one of everything.
pub(super) fn selector() -> impl Strategy<Value = Value> {
    let pairs = option::weighted(0.5, btree_map(select(&KEYS[..]), select(&VALUES[..]), 0..=2));
    let expressions = option::weighted(0.5, vec(requirement(), 0..=2));
    prop_oneof![
        1 => Just(json!({})),
        3 => (pairs, expressions).prop_map(|(pairs, expressions)| {
            object([("matchLabels", pairs.map(|p| json!(p))), ("matchExpressions", expressions.map(|e| json!(e)))])
        }),
    ]
}

/// A selector of namespaces, which also have their name as a label.
pub(super) fn namespace_selector() -> impl Strategy<Value = Value> {
    let by_name = select(&["a", "b", "c", "d"][..]);
    prop_oneof![
        3 => selector(),
        2 => by_name.prop_map(|name| json!({"matchLabels": {"kubernetes.io/metadata.name": name}})),
    ]
}

/// An entry of `matchExpressions`, with each of the four operators.
fn requirement() -> impl Strategy<Value = Value> {
    let values = || btree_set(select(&VALUES[..]), 1..=3);
    prop_oneof![
        (select(&KEYS[..]), values()).prop_map(|(key, values)| json!({"key": key, "operator": "In", "values": values})),
        (select(&KEYS[..]), values())
            .prop_map(|(key, values)| json!({"key": key, "operator": "NotIn", "values": values})),
        select(&KEYS[..]).prop_map(|key| json!({"key": key, "operator": "Exists"})),
        select(&KEYS[..]).prop_map(|key| json!({"key": key, "operator": "DoesNotExist", "values": []})),
    ]
}
