//! The kernel as a judge: generated clusters with an agent on every node, and real packets beside the API's words.
//!
//! The clusters are those of the compiler's own judges, and so are the packets: at the edges of what policies say. What
//! a lab cannot express is left out: packets of known flows (every probe that passes has replies, which must pass too),
//! ICMP other than echo requests, and ends that no host can have as its address. Left out is also an address that pods
//! on two nodes report: only one of them can have it.

#![allow(clippy::unwrap_used, reason = "what fails in a test is to stop it there")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use compiler::api::{Item, Object, Protocol, parse};
use compiler::nft::Deny;
use compiler::policy::oracle::{Content, Packet, verdict};
use compiler::policy::{self, PacketProtocol};
use compiler::sim::generate::clusters;
use compiler::sim::{Cluster, Dice, Edges, to_yaml};
use lab::{Attachment, Outcome, isolated};
use postern::model::{End, Flow, Model};
use postern::trial::Trial;

/// How many clusters each of the two tests runs.
const CLUSTERS: usize = 15;
/// How many probes each cluster is asked, if it has so many edges.
const PROBES: usize = 200;
/// How long a probe waits for an answer. Silence counts only when it lasts.
const WINDOW: Duration = Duration::from_millis(300);
/// How long a probe waits that should have been answered, and was not: a busy machine is no refusal.
const PATIENCE: Duration = Duration::from_secs(5);

/// How often something was seen.
#[derive(Default)]
struct Counts(BTreeMap<String, usize>);

impl Counts {
    fn add(&mut self, what: impl Into<String>) {
        *self.0.entry(what.into()).or_default() += 1;
    }

    fn of(&self, what: &str) -> usize {
        self.0.get(what).copied().unwrap_or_default()
    }
}

#[test]
fn kernel_agrees_where_it_drops() {
    isolated(judge(5, Deny::Drop, Outcome::Refused));
}

#[test]
fn kernel_agrees_where_it_rejects() {
    isolated(judge(6, Deny::Reject, Outcome::Rejected));
}

/// Runs the clusters of a seed. What the API's words do not allow must end as `refusal`.
async fn judge(seed: u64, deny: Deny, refusal: Outcome) {
    let mut counts = Counts::default();
    let mut dice = Dice::new(seed);
    for cluster in clusters(seed).take(CLUSTERS) {
        let model = Model::new(&objects(&cluster), deny);
        let packets = packets(&cluster, &model, &mut dice);
        let outside = packets.iter().flat_map(|packet| [packet.source, packet.destination]);
        let outside = outside.filter(|address| model.end(*address) == End::Outside).collect();
        let trial = Trial::start(&model, outside, Attachment::Routed, deny).await.unwrap();
        judge_cluster(&trial, &cluster, &packets, &refusal).await;
        count(&mut counts, &cluster, &model, &packets);
    }
    assert_reaches_the_corners(&counts);
}

fn objects(cluster: &Cluster) -> Vec<Object> {
    let items = cluster.objects.iter().flat_map(|object| parse(&object.into(), "unnamed"));
    let object = |item| match item {
        Item::Object { parsed, .. } => Some(parsed.value),
        Item::Workload(_) | Item::Skipped(_) | Item::Invalid(_) => None,
    };
    items.filter_map(object).collect()
}

/// Packets at the edges, each once, as far as hosts can send and take them.
fn packets(cluster: &Cluster, model: &Model, dice: &mut Dice) -> Vec<Packet> {
    let edges = Edges::of(cluster);
    let mut seen = BTreeSet::new();
    let mut packets = Vec::new();
    for _ in 0..PROBES * 10 {
        let packet = edges.packet(dice);
        let Packet { source, destination, content, of_known_flow, .. } = packet;
        let is_probe = match (content, source) {
            // Sockets take port 0 to mean any.
            (Content::Port(_, port), _) => port != 0,
            (Content::Icmp(kind, _), IpAddr::V4(_)) => kind == 8,
            (Content::Icmp(kind, _), IpAddr::V6(_)) => kind == 128,
        };
        let is_judged = [source, destination].iter().any(|address| matches!(model.end(*address), End::Pod(_)));
        let ends =
            [source, destination].iter().all(|address| can_be_a_host(*address) && is_on_one_node(model, *address));
        if is_probe && is_judged && ends && !of_known_flow && seen.insert(format!("{packet:?}")) {
            packets.push(packet);
        }
        if packets.len() == PROBES {
            break;
        }
    }
    packets
}

/// Whether Linux takes the address for one of its own.
fn can_be_a_host(address: IpAddr) -> bool {
    match address {
        // RFC 1122, section 3.2.1.3: network 0 is "this" network, and may only be a source. RFC 3927: the lab's own links.
        IpAddr::V4(v4) => {
            !(v4.octets()[0] == 0 || v4.is_loopback() || v4.is_link_local() || v4.is_multicast() || v4.is_broadcast())
        }
        IpAddr::V6(v6) => !(v6.is_unspecified() || v6.is_loopback() || v6.is_unicast_link_local() || v6.is_multicast()),
    }
}

fn is_on_one_node(model: &Model, address: IpAddr) -> bool {
    let claimants = model.pods().filter(|pod| pod.is_policed() && pod.ips.contains(&address));
    claimants.map(|pod| pod.node.as_ref()).collect::<BTreeSet<_>>().len() <= 1
}

fn flow(packet: &Packet) -> (Flow, policy::Packet) {
    let Packet { source, destination, content, .. } = *packet;
    let protocol = match content {
        Content::Port(protocol, port) => PacketProtocol::Port(protocol, port),
        Content::Icmp(..) => PacketProtocol::Echo,
    };
    (Flow { source, destination, protocol }, policy::Packet { source, destination, protocol })
}

fn allowed(cluster: &Cluster, packet: &Packet) -> bool {
    let verdict = verdict(&cluster.objects, packet);
    verdict.egress.allowed && verdict.ingress.allowed
}

async fn judge_cluster(trial: &Trial, cluster: &Cluster, packets: &[Packet], refusal: &Outcome) {
    let flows: Vec<_> = packets.iter().map(flow).collect();
    let mut outcomes = trial.probe(&flows, WINDOW).await;
    let unanswered: Vec<usize> = (0..packets.len())
        .filter(|&index| outcomes[index] == Outcome::Refused && allowed(cluster, &packets[index]))
        .collect();
    let again: Vec<_> = unanswered.iter().map(|&index| flows[index]).collect();
    for (index, outcome) in unanswered.into_iter().zip(trial.probe(&again, PATIENCE).await) {
        outcomes[index] = outcome;
    }
    let wrong: Vec<String> = packets
        .iter()
        .zip(&outcomes)
        .filter(|(packet, outcome)| *outcome != if allowed(cluster, packet) { &Outcome::Allowed } else { refusal })
        .map(|(packet, outcome)| format!("{packet:?}: {outcome}, {:?}", verdict(&cluster.objects, packet)))
        .collect();
    assert!(
        wrong.is_empty(),
        "{} of {} went another way than the API says:\n{}\n{}",
        wrong.len(),
        packets.len(),
        wrong.join("\n"),
        to_yaml(&cluster.objects),
    );
}

fn count(counts: &mut Counts, cluster: &Cluster, model: &Model, packets: &[Packet]) {
    let is_first = |policy: &&serde_json::Value| policy["apiVersion"] == "extensions/v1beta1";
    if cluster.of_kind("NetworkPolicy").any(|policy| is_first(&policy)) {
        counts.add("cluster with policies of the first generation");
    }
    if model.nodes().len() > 1 {
        counts.add("cluster with several nodes");
    }
    for packet in packets {
        let family = if packet.source.is_ipv4() { "IPv4" } else { "IPv6" };
        let protocol = match packet.content {
            Content::Port(Protocol::Tcp, _) => "TCP",
            Content::Port(Protocol::Udp, _) => "UDP",
            Content::Port(Protocol::Sctp, _) => "SCTP",
            Content::Icmp(..) => "ICMP",
        };
        let word = if allowed(cluster, packet) { "allowed" } else { "refused" };
        counts.add(format!("{family} {protocol} {word}"));
        counts.add(word);
        for (side, address) in [("from", packet.source), ("to", packet.destination)] {
            match model.end(address) {
                End::Pod(_) | End::Service(_) => {}
                End::Node(_) => counts.add(format!("{side} a node {word}")),
                End::Outside => counts.add(format!("{side} outside {word}")),
            }
        }
    }
}

/// So that the sample cannot come to be of packets that everybody lets pass.
#[track_caller]
fn assert_reaches_the_corners(counts: &Counts) {
    let mut due = vec![
        ("allowed".to_string(), 500),
        ("refused".to_string(), 400),
        ("cluster with several nodes".to_string(), 5),
        ("cluster with policies of the first generation".to_string(), 2),
    ];
    for word in ["allowed", "refused"] {
        for family in ["IPv4", "IPv6"] {
            for (protocol, least) in [("TCP", 50), ("UDP", 20), ("SCTP", 20), ("ICMP", 5)] {
                due.push((format!("{family} {protocol} {word}"), least));
            }
        }
        for end in ["from a node", "to a node", "from outside", "to outside"] {
            due.push((format!("{end} {word}"), 5));
        }
    }
    for (what, least) in due {
        assert!(counts.of(&what) >= least, "{what}: {}, {least} at least are due\n{:#?}", counts.of(&what), counts.0);
    }
}
