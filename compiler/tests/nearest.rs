//! What is said to be the smallest change is made, and the API's words are asked whether it is one.

use std::collections::BTreeMap;
use std::net::IpAddr;

use compiler::Compiler;
use compiler::api::{Direction, NodeName};
use compiler::cluster::Event;
use compiler::nft::Deny;
use compiler::policy::oracle::{self, Content};
use compiler::policy::{Change, Effort, Ir, Known, Packet, PacketProtocol, nearest};
use compiler::sim::{Cluster, Dice, Edges, generate, to_yaml};
use serde_json::{Map, Value};

const CLUSTERS: usize = 1_000;
const PACKETS: usize = 40;
const SEED: u64 = 10;

/// A node with what its agent knows.
struct Node {
    compiler: Compiler,
    ir: Ir,
}

fn nodes(cluster: &Cluster) -> BTreeMap<String, Node> {
    let read = cluster.parse();
    let node = |name: &str| {
        let of_node = NodeName(name.into());
        let mut compiler = Compiler::new(of_node.clone(), Deny::Drop);
        let local = [Event::Sandboxes(read.sandboxes_of(&of_node)), Event::PodRanges(read.pod_ranges_of(&of_node))];
        for event in read.events().into_iter().chain(local) {
            compiler.apply(event);
        }
        let ir = compiler.ir();
        (name.to_owned(), Node { compiler, ir })
    };
    cluster.node_names().map(node).collect()
}

/// The packet as the IR knows it; `None` where it opens no flow.
fn first(packet: &oracle::Packet) -> Option<Packet> {
    let oracle::Packet { source, destination, content, hop_limit: _, of_known_flow } = *packet;
    let protocol = match (content, source) {
        (Content::Port(protocol, port), _) => PacketProtocol::Port(protocol, port),
        (Content::Icmp(8, 0), IpAddr::V4(_)) | (Content::Icmp(128, 0), IpAddr::V6(_)) => PacketProtocol::Echo,
        (Content::Icmp(..), _) => return None,
    };
    (!of_known_flow).then_some(Packet { source, destination, protocol })
}

/// Makes a change as kubectl would. The one operation that there is adds to the end of a list that is there.
fn apply(cluster: &mut Cluster, change: &Change) {
    match change {
        Change::Create(object) => {
            let name = |object: &Value| {
                [&object["kind"], &object["metadata"]["namespace"], &object["metadata"]["name"]].map(Value::to_string)
            };
            let is_new = cluster.objects.iter().all(|known| name(known) != name(object));
            assert!(is_new, "the API server refuses a second {:?}", name(object));
            cluster.objects.push(object.clone());
        }
        Change::Patch { policy, operations } => {
            let is_meant = |object: &&mut Value| {
                object["kind"] == "NetworkPolicy"
                    && object["metadata"]["name"] == *policy.name
                    && object["metadata"]["namespace"] == *policy.namespace
            };
            let object = cluster.objects.iter_mut().find(is_meant).expect("the policy is there");
            for operation in operations.as_array().expect("a list of operations") {
                assert_eq!(operation["op"], "add");
                let list = operation["path"].as_str().and_then(|path| path.strip_suffix("/-")).expect("a list");
                let list = object.pointer_mut(list).and_then(Value::as_array_mut).expect("the list is there");
                list.push(operation["value"].clone());
            }
        }
    }
}

#[derive(Default, Debug)]
struct Counts {
    refused: usize,
    patched: usize,
    created: usize,
    without_change: usize,
    both_directions: usize,
}

#[test]
fn the_change_allows_the_packet_and_closes_nothing() {
    let mut dice = Dice::new(SEED);
    let mut counts = Counts::default();
    for cluster in generate::clusters_with_sandboxes(SEED).take(CLUSTERS) {
        let nodes = nodes(&cluster);
        let edges = Edges::of(&cluster);
        for _ in 0..PACKETS {
            let packet = edges.packet(&mut dice);
            check(&cluster, &nodes, &edges, &packet, &mut dice, &mut counts);
        }
    }
    println!("{counts:?}");
    let Counts { refused, patched, created, without_change, both_directions } = counts;
    assert!(refused > 5_000 && patched > 2_000 && created > 1_000 && both_directions > 50, "{counts:?}");
    // The few have no labels either, but their addresses by the word of a container runtime.
    assert!(without_change * 30 < refused, "{counts:?}");
}

/// Whether an address is that of a pod that has no labels, or whose namespace has none.
fn is_bare(cluster: &Cluster, address: IpAddr) -> bool {
    let is_empty = |labels: &Value| labels.as_object().is_none_or(Map::is_empty);
    let has_address = |pod: &&Value| {
        let ips = pod["status"]["podIPs"].as_array().into_iter().flatten().map(|ip| &ip["ip"]);
        ips.chain([&pod["status"]["podIP"]]).filter_map(Value::as_str).any(|ip| ip.parse() == Ok(address))
    };
    let pods = cluster.objects.iter().filter(|object| object["kind"] == "Pod").filter(has_address);
    let namespace = |name: &Value| {
        cluster.objects.iter().find(|object| object["kind"] == "Namespace" && object["metadata"]["name"] == *name)
    };
    pods.into_iter().any(|pod| {
        let labels_of_namespace =
            namespace(&pod["metadata"]["namespace"]).map(|namespace| &namespace["metadata"]["labels"]);
        is_empty(&pod["metadata"]["labels"]) || labels_of_namespace.is_none_or(is_empty)
    })
}

fn check(
    cluster: &Cluster,
    nodes: &BTreeMap<String, Node>,
    edges: &Edges,
    packet: &oracle::Packet,
    dice: &mut Dice,
    counts: &mut Counts,
) {
    let Some(first) = first(packet) else { return };
    let before = oracle::verdict(&cluster.objects, packet);
    let mut changed = cluster.clone();
    for (direction, side) in [(Direction::Egress, before.egress), (Direction::Ingress, before.ingress)] {
        let (own, other) = match direction {
            Direction::Egress => (packet.source, packet.destination),
            Direction::Ingress => (packet.destination, packet.source),
        };
        // Of an address that several pods have it is not known whose rule would have to be another.
        let is_shared = oracle::pods_with(&cluster.objects, own) > 1;
        let is_refused = !side.allowed && side.isolated;
        let found = oracle::node_of(&cluster.objects, own, other).and_then(|(name, is_own_node)| {
            let Node { compiler, ir } = nodes.get(name)?;
            let state = compiler.state();
            let known = Known { pods: state.pods(), namespaces: state.namespaces(), strangers: &[] };
            let found = nearest(ir, &known, direction, &first, &mut Effort::default());
            // What comes from the pod's own node is let through by nobody's rule.
            found.filter(|_| direction == Direction::Egress || !is_own_node)
        });
        let is_due = is_refused && !is_shared;
        assert_eq!(found.is_some(), is_due, "{packet:?} {direction:?}\n{}", to_yaml(&cluster.objects));
        if is_refused && is_shared {
            return;
        }
        let Some(found) = found else { continue };
        assert_eq!(found.rule.is_none(), found.misses.is_empty());
        counts.refused += 1;
        match &found.change {
            Some(Change::Patch { .. }) => counts.patched += 1,
            Some(Change::Create(_)) => counts.created += 1,
            None => {
                // What would open to all pods of a namespace is not proposed.
                counts.without_change += usize::from([own, other].iter().all(|end| !is_bare(cluster, *end)));
                return;
            }
        }
        found.change.iter().for_each(|change| apply(&mut changed, change));
    }
    if changed == *cluster {
        return;
    }
    let after = oracle::verdict(&changed.objects, packet);
    let context = || format!("{packet:?}\n{}\nbecomes\n{}", to_yaml(&cluster.objects), to_yaml(&changed.objects));
    for (before, after) in [(before.egress, after.egress), (before.ingress, after.ingress)] {
        // The gate is no policy's.
        assert!(after.allowed || !before.allowed && !before.isolated, "not allowed yet: {}", context());
        assert_eq!(before.isolated, after.isolated, "{}", context());
    }
    counts.both_directions += usize::from(!before.egress.allowed && !before.ingress.allowed);
    // Read as an agent reads it, it is without a finding that was not there.
    let findings = |cluster: &Cluster| cluster.parse().findings;
    assert_eq!(findings(cluster), findings(&changed), "{}", context());
    for _ in 0..4 {
        let another = edges.packet(dice);
        let [before, after] = [cluster, &changed].map(|cluster| oracle::verdict(&cluster.objects, &another));
        for (before, after) in [(before.egress, after.egress), (before.ingress, after.ingress)] {
            assert_eq!(before.isolated, after.isolated, "isolates another: {another:?} {}", context());
            // A policy of its own for one of several pods with an address is one that the others have not.
            let ends = [another.source, another.destination];
            let is_shared = ends.iter().any(|end| oracle::pods_with(&cluster.objects, *end) > 1);
            assert!(after.allowed || !before.allowed || is_shared, "closes: {another:?} {}", context());
        }
    }
}
