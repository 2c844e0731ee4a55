//! NetworkPolicies.

use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

use super::{Place, labels, list, object, place, ports};

/// A policy before it has its name and namespace.
#[derive(Debug, Clone)]
pub(super) struct PolicyDraft {
    namespace: Place,
    api_version: &'static str,
    spec: Value,
}

pub(super) fn policy() -> impl Strategy<Value = PolicyDraft> {
    let spec = prop_oneof![
        16 => spec().prop_map(|spec| ("networking.k8s.io/v1", spec)),
        2 => spec_of_first_generation().prop_map(|spec| ("extensions/v1beta1", spec)),
        1 => spec_of_later_beta().prop_map(|spec| ("extensions/v1beta1", spec)),
        1 => Just(("networking.k8s.io/v1", Value::Null)),
    ];
    (place(), spec).prop_map(|(namespace, (api_version, spec))| PolicyDraft { namespace, api_version, spec })
}

impl PolicyDraft {
    pub(super) fn finish(self, index: usize, namespaces: &[String]) -> Value {
        json!({
            "apiVersion": self.api_version,
            "kind": "NetworkPolicy",
            "metadata": {"name": format!("policy-{index}"), "namespace": self.namespace.of(namespaces)},
            "spec": self.spec,
        })
    }
}

fn spec() -> impl Strategy<Value = Value> {
    let types = prop_oneof![
        4 => Just(None),
        1 => Just(Some(json!([]))),
        2 => Just(Some(json!(["Ingress"]))),
        2 => Just(Some(json!(["Egress"]))),
        2 => Just(Some(json!(["Ingress", "Egress"]))),
    ];
    let rules = |peers| list(rule(peers), 3);
    (option::weighted(0.9, labels::selector()), types, rules("from"), rules("to")).prop_map(
        |(selector, types, ingress, egress)| {
            object([("podSelector", selector), ("policyTypes", types), ("ingress", ingress), ("egress", egress)])
        },
    )
}

/// What `extensions/v1beta1` could say, and meant, when `networking.k8s.io/v1` was there too.
fn spec_of_later_beta() -> impl Strategy<Value = Value> {
    (spec(), select(&["Ingress", "Egress"][..])).prop_map(|(mut spec, policy_type)| {
        spec["policyTypes"] = json!([policy_type]);
        spec
    })
}

fn spec_of_first_generation() -> impl Strategy<Value = Value> {
    let peer = prop_oneof![
        labels::selector().prop_map(|selector| json!({"podSelector": selector})),
        labels::namespace_selector().prop_map(|selector| json!({"namespaceSelector": selector})),
    ];
    let rule = (list(peer, 2), list(ports::of_first_generation(), 2))
        .prop_map(|(peers, ports)| object([("from", peers), ("ports", ports)]));
    (labels::selector(), list(rule, 2))
        .prop_map(|(selector, rules)| object([("podSelector", Some(selector)), ("ingress", rules)]))
}

/// A rule; with neither peers nor ports it allows everything, and so does a null, which is one without fields.
fn rule(peers: &'static str) -> impl Strategy<Value = Value> {
    let ports = prop_oneof![
        9 => list(ports::of_rule(), 3),
        1 => ports::many_of_rule().prop_map(Some),
    ];
    let filled = (list(peer(), 4), ports).prop_map(move |(list, ports)| object([(peers, list), ("ports", ports)]));
    prop_oneof![
        40 => filled,
        1 => Just(Value::Null),
    ]
}

fn peer() -> impl Strategy<Value = Value> {
    let both = (labels::namespace_selector(), labels::selector());
    prop_oneof![
        2 => labels::selector().prop_map(|pods| json!({"podSelector": pods})),
        2 => labels::namespace_selector().prop_map(|namespaces| json!({"namespaceSelector": namespaces})),
        2 => both.prop_map(|(namespaces, pods)| json!({"namespaceSelector": namespaces, "podSelector": pods})),
        4 => ip_block().prop_map(|block| json!({"ipBlock": block})),
    ]
}

/// A block of any size, around the addresses of the pods or elsewhere, with up to three exceptions, which may overlap.
fn ip_block() -> impl Strategy<Value = Value> {
    prop_oneof![3 => block_v4(), 2 => block_v6()]
}

fn block_v4() -> impl Strategy<Value = Value> {
    let base = select(&[0x0a00_00fe_u32, 0x0a00_0103, 0x0a00_0101, 0xc000_0207, 0xffff_ffff][..]);
    let length = select(&[0u8, 1, 8, 16, 23, 24, 28, 29, 30, 31, 32][..]);
    let exceptions = vec((any::<u32>(), 1u8..=32), 0..=3);
    let host_bits = prop::bool::weighted(0.1);
    (base, length, option::weighted(0.7, exceptions), host_bits).prop_map(|(base, length, exceptions, host_bits)| {
        let mask = u32::MAX.checked_shr(length.into()).unwrap_or(0);
        let network = base & !mask;
        let written = if host_bits { base } else { network };
        let cut = |(bits, longer): (u32, u8)| {
            // An exception is a true part of its block: its prefix is longer.
            let longer = length.saturating_add(longer).min(32);
            let inner = u32::MAX.checked_shr(longer.into()).unwrap_or(0);
            (longer > length)
                .then(|| format!("{}/{longer}", Ipv4Addr::from_bits((near(base, bits) & mask | network) & !inner)))
        };
        block(
            format!("{}/{length}", Ipv4Addr::from_bits(written)),
            exceptions.map(|list| list.into_iter().filter_map(cut).collect()),
        )
    })
}

/// Most exceptions lie near the base, where the pods are.
fn near(base: u32, bits: u32) -> u32 {
    if bits.is_multiple_of(4) { bits } else { base ^ (bits >> 8 & 0x107) }
}

fn block_v6() -> impl Strategy<Value = Value> {
    let base =
        select(&[(0xfd00_u128 << 112) + 0xfe, (0xfd00 << 112) + 0x1_0003, (0x2001_0db8 << 96) + 7, u128::MAX][..]);
    let length = select(&[0u8, 7, 64, 111, 112, 124, 125, 127, 128][..]);
    let exceptions = vec((any::<u32>(), 1u8..=128), 0..=3);
    (base, length, option::weighted(0.7, exceptions)).prop_map(|(base, length, exceptions)| {
        let mask = u128::MAX.checked_shr(length.into()).unwrap_or(0);
        let network = base & !mask;
        let cut = |(bits, longer): (u32, u8)| {
            let longer = length.saturating_add(longer).min(128);
            let inner = u128::MAX.checked_shr(longer.into()).unwrap_or(0);
            let near = base ^ u128::from(bits >> 8 & 0x1_0007);
            (longer > length).then(|| format!("{}/{longer}", Ipv6Addr::from_bits((near & mask | network) & !inner)))
        };
        block(
            format!("{}/{length}", Ipv6Addr::from_bits(network)),
            exceptions.map(|list| list.into_iter().filter_map(cut).collect()),
        )
    })
}

fn block(cidr: String, except: Option<Vec<String>>) -> Value {
    object([("cidr", Some(json!(cidr))), ("except", except.map(|list| json!(list)))])
}
