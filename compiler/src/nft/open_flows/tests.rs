//! What the rules about open flows do to packets.

use super::*;
use crate::api::Protocol;
use crate::nft::trace::{Payload, TracedPacket, trace};
use crate::nft::{Deny, lower};
use crate::testing::{ip, ir, pod, policy};

/// A deny-all pod of each family. [`table`] has it rejudged, and a flow of another pod that is cut.
fn plain() -> Table {
    let events = [
        policy("a/deny").selects("app=shut").ingress([]).egress([]).into(),
        pod("a/shut").labels("app=shut").ip("10.0.0.1").ip("fd00::1").into(),
        pod("a/free").ip("10.0.0.2").into(),
    ];
    lower(&ir(events), Deny::Drop)
}

fn table() -> Table {
    let mut table = plain();
    let cut = Key::flow(ip("10.0.0.2"), ip("10.9.9.9"), Protocol::Tcp, 1000, 80);
    let rejudged = [ip("10.0.0.1"), ip("fd00::1")];
    add_open_flows(&mut table, rejudged.into_iter(), &cut.into_iter().collect());
    table
}

fn established(source: &str, destination: &str, ports: (u16, u16), is_reply: bool) -> TracedPacket {
    TracedPacket {
        source: ip(source),
        destination: ip(destination),
        payload: Payload::Port(Protocol::Tcp, ports.1),
        hop_limit: 64,
        state: Some(CtState::Established),
        is_reply,
        source_port: Some(ports.0),
        link: None,
        is_astray: false,
        exit: None,
        tag: None,
    }
}

#[test]
fn the_first_sender_of_a_rejudged_pod_is_judged_again() {
    let table = table();
    for (base_chain, source, destination, is_reply, passes) in [
        ("egress", "10.0.0.1", "10.9.9.9", false, false),
        ("egress", "10.0.0.1", "10.9.9.9", true, true),
        ("to-node", "fd00::1", "fd09::9", false, false),
        ("to-node", "fd00::1", "fd09::9", true, true),
        ("ingress", "10.9.9.9", "10.0.0.1", false, false),
        ("ingress", "10.9.9.9", "10.0.0.1", true, true),
        ("egress", "10.0.0.2", "10.9.9.9", false, true),
        ("ingress", "10.9.9.9", "10.0.0.2", false, true),
    ] {
        let packet = established(source, destination, (2000, 80), is_reply);
        let accepted = trace(&table, base_chain, &packet).unwrap().accepted;
        assert_eq!(accepted, passes, "{source} > {destination} in {base_chain}, reply: {is_reply}");
    }
    let related = TracedPacket { state: Some(CtState::Related), ..established("10.0.0.1", "10.9.9.9", (1, 1), false) };
    assert!(trace(&table, "egress", &related).unwrap().accepted, "errors belong to flows, and say nothing themselves");
}

#[test]
fn a_cut_flow_is_refused_both_ways_but_for_answers_to_the_node() {
    let table = table();
    for (base_chain, source, destination, ports, is_reply, passes) in [
        ("egress", "10.0.0.2", "10.9.9.9", (1000, 80), false, false),
        ("egress", "10.9.9.9", "10.0.0.2", (80, 1000), true, false),
        ("egress", "10.0.0.2", "10.9.9.9", (1001, 80), false, true),
        ("egress", "10.9.9.9", "10.0.0.2", (1000, 80), true, true),
        ("to-node", "10.0.0.2", "10.9.9.9", (1000, 80), false, false),
        ("to-node", "10.9.9.9", "10.0.0.2", (80, 1000), true, true),
    ] {
        let packet = established(source, destination, ports, is_reply);
        let accepted = trace(&table, base_chain, &packet).unwrap().accepted;
        assert_eq!(accepted, passes, "{source} > {destination} {ports:?} in {base_chain}, reply: {is_reply}");
    }
    assert_eq!(without_open_flows(&table), plain());
    let known = table.sets.iter().filter(|(name, _)| name.is_of_cut_flows());
    let keys: Vec<String> = known.flat_map(|(_, set)| set.keys.iter().map(ToString::to_string)).collect();
    assert_eq!(keys, ["10.0.0.2 . 10.9.9.9 . tcp . 1000 . 80", "10.9.9.9 . 10.0.0.2 . tcp . 80 . 1000"]);
}

#[test]
fn what_there_is_nothing_to_say_about_costs_nothing() {
    let plain = lower(&ir([pod("a/free").ip("10.0.0.2").into()]), Deny::Drop);
    let mut same = plain.clone();
    add_open_flows(&mut same, std::iter::empty(), &BTreeSet::new());
    assert_eq!(same, plain);
}
