//! Objects that the API server would refuse: findings, never a panic, and nothing opened.

use std::collections::BTreeMap;

use compiler::nft::Deny;
use compiler::nft::trace::{TracedPacket, trace};
use compiler::policy::oracle::{self, Packet};
use compiler::sim::broken::{Breach, break_one};
use compiler::sim::generate::clusters;
use compiler::sim::{Cluster, Compiled, Dice, Edges, to_yaml, traced};
use serde_json::{Value, json};

const CLUSTERS: usize = 400;
const PACKETS: usize = 60;

/// Whether each packet passes at the node of its sender and at that of its receiver.
fn verdicts(cluster: &Cluster, nodes: &BTreeMap<String, Compiled>, packets: &[Packet]) -> Vec<[bool; 2]> {
    let passes = |node: &str, chain, packet: &TracedPacket| {
        trace(&nodes[node].table, chain, packet).expect("every table has the base chains").accepted
    };
    let verdict = |packet: &Packet| {
        let egress = oracle::node_of(&cluster.objects, packet.source, packet.destination);
        let ingress = oracle::node_of(&cluster.objects, packet.destination, packet.source);
        [
            egress.is_none_or(|(node, _)| passes(node, "egress", &traced(packet))),
            ingress.is_none_or(|(node, _)| passes(node, "ingress", &traced(packet))),
        ]
    };
    packets.iter().map(verdict).collect()
}

/// Breaks one policy of each cluster, and checks that something is said of it, and that whatever is shut while the policy
/// is whole stays shut: the broken one isolates whom the whole one isolates, and allows nothing more.
#[track_caller]
fn check_policies(breach: Breach, seed: u64) {
    let mut dice = Dice::new(seed);
    let (mut broken_policies, mut shut) = (0, 0);
    for cluster in clusters(seed).take(CLUSTERS) {
        let is_policy =
            |object: &Value| object["kind"] == "NetworkPolicy" && object["apiVersion"] == "networking.k8s.io/v1";
        let policies: Vec<usize> = (0..cluster.objects.len()).filter(|at| is_policy(&cluster.objects[*at])).collect();
        if policies.is_empty() {
            continue;
        }
        let at = *dice.pick(&policies);
        let mut broken = cluster.clone();
        let Some(place) = break_one(&mut broken.objects[at], "/spec", breach, &mut dice) else { continue };
        let what =
            || format!("{place} of\n{}", to_yaml(&broken.objects[at..=at]).chars().take(4_000).collect::<String>());
        let known = cluster.parse().findings;
        let is_told = broken.parse().findings.iter().any(|finding| !known.contains(finding));
        assert!(is_told, "nothing is said of {}", what());
        let mut without = cluster.clone();
        without.objects.remove(at);
        let edges = Edges::of(&cluster);
        let packets: Vec<Packet> = (0..PACKETS).map(|_| edges.packet(&mut dice)).collect();
        let of = |cluster: &Cluster| verdicts(cluster, &cluster.compile(Deny::Drop), &packets);
        let (whole, broken_says, without) = (of(&cluster), of(&broken), of(&without));
        for (index, packet) in packets.iter().enumerate() {
            for side in [0, 1] {
                let opened = broken_says[index][side] && !whole[index][side];
                let because = if without[index][side] { "it does not isolate any more" } else { "it allows more" };
                assert!(!opened, "{because} by {}\n{packet:?} in\n{cluster:?}", what());
                shut += usize::from(!whole[index][side]);
            }
        }
        broken_policies += 1;
    }
    assert!(broken_policies > 100, "{broken_policies} policies were broken");
    assert!(shut > 1_000, "{shut} verdicts could have been opened");
}

#[test]
fn a_wrong_type_opens_nothing() {
    check_policies(Breach::Type, 11);
}

#[test]
fn a_wrong_text_opens_nothing() {
    check_policies(Breach::Text, 12);
}

#[test]
fn a_wrong_number_opens_nothing() {
    check_policies(Breach::Number, 13);
}

/// Several parts of several objects, of all kinds, become anything at all: what is left is compiled.
#[test]
fn nothing_panics() {
    let mut dice = Dice::new(14);
    let mut findings = 0;
    for mut cluster in clusters(14).take(CLUSTERS) {
        for object in &mut cluster.objects {
            for _ in 0..dice.below(3) {
                break_one(object, "", Breach::Anything, &mut dice);
            }
        }
        findings += cluster.parse().findings.len();
        let edges = Edges::of(&cluster);
        let packets: Vec<_> = (0..5).map(|_| traced(&edges.packet(&mut dice))).collect();
        for node in cluster.compile(Deny::Reject).values() {
            for packet in &packets {
                trace(&node.table, "egress", packet).expect("every table has the base chains");
                trace(&node.table, "ingress", packet).expect("every table has the base chains");
            }
        }
    }
    println!("{findings} findings");
    assert!(findings > 1_000, "{findings} findings");
}

/// Sizes that nobody writes by hand.
#[test]
fn great_sizes_are_compiled() {
    let ports: Vec<Value> = (1..=10_000).map(|port| json!({"port": port, "protocol": "UDP"})).collect();
    let labels: BTreeMap<String, String> = (0..10_000).map(|i| (format!("k{i}"), "x".repeat(1_000))).collect();
    let megabyte = "x".repeat(1 << 20);
    let policy = |name: &str, spec: Value| {
        json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"name": name, "namespace": "a"}, "spec": spec,
        })
    };
    let pod = |name: &str, labels: Value, address: &str| {
        json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "a", "labels": labels},
            "spec": {"nodeName": "n"}, "status": {"phase": "Running", "podIP": address},
        })
    };
    let cluster = Cluster {
        objects: vec![
            json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}}),
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a"}}),
            pod("server", json!({}), "10.0.0.1"),
            pod("client", json!(labels), "10.0.0.2"),
            pod(&megabyte, json!({"app": megabyte}), &megabyte),
            policy("ports", json!({"podSelector": {}, "ingress": [{"ports": ports}]})),
            policy(
                "name",
                json!({"podSelector": {}, "ingress": [{"from": [{"podSelector": {"matchLabels": {"k": megabyte}}}]}]}),
            ),
            policy(&megabyte, json!({"podSelector": {}, "policyTypes": [megabyte]})),
        ],
    };
    assert!(cluster.parse().findings.len() >= 4, "{:?}", cluster.parse().findings.len());
    let nodes = cluster.compile(Deny::Drop);
    let packet = |port| Packet {
        source: "10.0.0.2".parse().expect("an address"),
        destination: "10.0.0.1".parse().expect("an address"),
        content: oracle::Content::Port(compiler::api::Protocol::Udp, port),
        hop_limit: 64,
        of_known_flow: false,
    };
    let ingress = |port| verdicts(&cluster, &nodes, &[packet(port)])[0][1];
    assert!(ingress(1) && ingress(10_000) && !ingress(10_001));
}
