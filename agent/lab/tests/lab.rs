//! The lab against the real kernel: networks in which everything passes, and rules that the probes must notice.
#![allow(clippy::unwrap_used, reason = "helpers of tests; clippy only exempts the test functions themselves")]

use std::{
    net::IpAddr,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use lab::{
    Attachment, Endpoint, Flow, Lab, Netns, Node, Outcome, Pod, Probe, ProbeOptions, Protocol, Responder, Topology,
    isolated, probe,
};

const PROTOCOLS: [Protocol; 4] = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp, Protocol::Icmp];

/// Short, for tests in which many probes are refused; the tries make up for it. Together they are longer than the second
/// after which a kernel asks again for a neighbour, since the first question may be lost where a thousand packets come at
/// once.
const QUICK: ProbeOptions = ProbeOptions { window: Duration::from_millis(300), tries: 5, concurrency: 1_024 };

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn pod(id: &str, node: usize, number: u8) -> Pod {
    let addresses = vec![ip(&format!("10.244.{node}.{number}")), ip(&format!("fd00:244:{node}::{number:x}"))];
    Pod { id: id.into(), node, addresses }
}

/// Two nodes of both families with two pods each, `a` and `b` on the first, `c` and `d` on the second; two outside addresses.
fn two_nodes(attachment: Attachment) -> Topology {
    let node = |number: u8| Node {
        name: format!("node-{number}"),
        addresses: vec![ip(&format!("192.168.7.{number}")), ip(&format!("fd00:7::{number}"))],
    };
    Topology {
        attachment,
        nodes: vec![node(1), node(2)],
        pods: vec![pod("a", 0, 10), pod("b", 0, 11), pod("c", 1, 10), pod("d", 1, 11)],
        outside: vec![ip("203.0.113.5"), ip("2001:db8::5")],
    }
}

fn end(lab: &Lab, address: &str) -> Endpoint {
    lab.endpoint(ip(address)).unwrap_or_else(|| panic!("nobody has {address}"))
}

fn nft(netns: &Netns, arguments: &str) -> String {
    let output = netns.run(|| Command::new("nft").arg(arguments).stderr(Stdio::inherit()).output()).unwrap().unwrap();
    assert!(output.status.success(), "nft {arguments}");
    String::from_utf8(output.stdout).unwrap()
}

/// The links of the namespace in which this process runs.
fn links_here() -> String {
    std::fs::read_to_string("/proc/thread-self/net/dev").unwrap()
}

/// Every ordered pair of ends of one family, by every protocol.
fn all_pairs(ends: &[Endpoint], port: u16) -> Vec<Probe> {
    let pairs = ends.iter().flat_map(|from| ends.iter().map(move |to| (from, to)));
    let same_family = pairs.filter(|(from, to)| from.address.is_ipv4() == to.address.is_ipv4());
    same_family
        .flat_map(|(from, to)| PROTOCOLS.map(|protocol| Probe::new(from.clone(), to.clone(), protocol, port)))
        .collect()
}

#[track_caller]
fn assert_outcomes(probes: &[Probe], outcomes: &[Outcome], expected: impl Fn(&Probe) -> Outcome) {
    let wrong: Vec<_> = probes
        .iter()
        .zip(outcomes)
        .filter(|(probe, outcome)| **outcome != expected(probe))
        .map(|(probe, outcome)| {
            format!("{} -> {} {}/{}: {outcome}", probe.from.address, probe.to, probe.port, probe.protocol.as_str())
        })
        .collect();
    assert_eq!(probes.len(), outcomes.len());
    assert!(wrong.is_empty(), "{} of {} went wrong:\n{}", wrong.len(), probes.len(), wrong.join("\n"));
}

const EVERYBODY: [&str; 14] = [
    "10.244.0.10",
    "10.244.0.11",
    "10.244.1.10",
    "10.244.1.11",
    "fd00:244:0::a",
    "fd00:244:0::b",
    "fd00:244:1::a",
    "fd00:244:1::b",
    "192.168.7.1",
    "192.168.7.2",
    "fd00:7::1",
    "fd00:7::2",
    "203.0.113.5",
    "2001:db8::5",
];

async fn everything_passes(attachment: Attachment) {
    let lab = Lab::build(two_nodes(attachment)).await.unwrap();
    let ends = EVERYBODY.map(|address| end(&lab, address));
    let probes = all_pairs(&ends, 80);
    let outcomes = probe(&probes, &ProbeOptions { tries: 1, ..ProbeOptions::default() }).await;
    assert_outcomes(&probes, &outcomes, |_| Outcome::Allowed);
}

#[test]
fn everybody_reaches_everybody_when_routed() {
    isolated(everything_passes(Attachment::Routed));
}

#[test]
fn everybody_reaches_everybody_when_bridged() {
    isolated(everything_passes(Attachment::Bridged));
}

#[test]
fn one_family_and_one_node_are_enough() {
    isolated(async {
        for (one, two, node) in [("10.0.0.1", "10.0.0.2", "192.168.0.1"), ("fd00::1", "fd00::2", "fd00:7::1")] {
            let pod = |id: &str, address| Pod { id: id.into(), node: 0, addresses: vec![ip(address)] };
            let nodes = vec![Node { name: "only".into(), addresses: vec![ip(node)] }];
            let topology = Topology {
                attachment: Attachment::Routed,
                nodes,
                pods: vec![pod("a", one), pod("b", two)],
                outside: vec![],
            };
            let lab = Lab::build(topology).await.unwrap();
            let probes = all_pairs(&[one, two, node].map(|address| end(&lab, address)), 80);
            assert_outcomes(&probes, &probe(&probes, &ProbeOptions::default()).await, |_| Outcome::Allowed);
        }
    });
}

/// What `rule` in the forward hook of pod b's node does to traffic towards b; the way back and all others stay open.
async fn towards_b(attachment: Attachment, rule: &str, expected: Outcome) {
    let lab = Lab::build(two_nodes(attachment)).await.unwrap();
    let rules = format!(
        "table inet test {{ chain forward {{ type filter hook forward priority 0; policy accept;
             ct state established,related accept
             ct state invalid drop
             ip daddr 10.244.0.11 {rule}; ip6 daddr fd00:244:0::b {rule}; }}; }}"
    );
    nft(lab.node(0).unwrap(), &rules);
    let pods = EVERYBODY[..8].iter().chain(&EVERYBODY[12..]).map(|address| end(&lab, address)).collect::<Vec<_>>();
    let probes = all_pairs(&pods, 80);
    let is_b = |address: IpAddr| [ip("10.244.0.11"), ip("fd00:244:0::b")].contains(&address);
    assert_outcomes(&probes, &probe(&probes, &QUICK).await, |probe| {
        if is_b(probe.to) && !is_b(probe.from.address) { expected.clone() } else { Outcome::Allowed }
    });
}

#[test]
fn dropped_packets_are_refusals() {
    isolated(towards_b(Attachment::Routed, "drop", Outcome::Refused));
}

#[test]
fn dropped_packets_on_one_bridge_are_refusals() {
    isolated(async {
        let lab = Lab::build(two_nodes(Attachment::Bridged)).await.unwrap();
        assert!(lab.has_bridge_netfilter().unwrap(), "this kernel has no br_netfilter, so nothing can be tried");
        towards_b(Attachment::Bridged, "drop", Outcome::Refused).await;
    });
}

#[test]
fn icmp_errors_are_rejections() {
    isolated(towards_b(Attachment::Routed, "reject with icmpx type admin-prohibited", Outcome::Rejected));
}

#[test]
fn tcp_resets_are_rejections() {
    isolated(async {
        let lab = Lab::build(two_nodes(Attachment::Routed)).await.unwrap();
        let rule = "meta l4proto tcp reject with tcp reset";
        let chain = format!("chain forward {{ type filter hook forward priority 0; {rule}; }}");
        nft(lab.node(0).unwrap(), &format!("table inet test {{ {chain}; }}"));
        for (from, to) in [("10.244.0.10", "10.244.0.11"), ("fd00:244:0::a", "fd00:244:0::b")] {
            let asked = Probe::new(end(&lab, from), end(&lab, to), Protocol::Tcp, 80);
            assert_eq!(probe(&[asked], &QUICK).await, [Outcome::Rejected]);
        }
    });
}

#[test]
fn a_rejected_port_does_not_colour_its_neighbours() {
    isolated(async {
        let lab = Lab::build(two_nodes(Attachment::Routed)).await.unwrap();
        let chain = "chain forward { type filter hook forward priority 0;
             th dport 1000-1019 reject with icmpx type admin-prohibited; th dport 1020-1039 drop; }";
        nft(lab.node(0).unwrap(), &format!("table inet test {{ {chain}; }}"));
        let (a, b) = (end(&lab, "10.244.0.10"), end(&lab, "10.244.0.11"));
        let (a6, b6) = (end(&lab, "fd00:244:0::a"), end(&lab, "fd00:244:0::b"));
        let mut probes = Vec::new();
        for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
            for port in 1_000..1_060 {
                probes.push(Probe::new(a.clone(), b.clone(), protocol, port));
                probes.push(Probe::new(a6.clone(), b6.clone(), protocol, port));
            }
        }
        assert_outcomes(&probes, &probe(&probes, &QUICK).await, |probe| match probe.port {
            ..1_020 => Outcome::Rejected,
            1_020..1_040 => Outcome::Refused,
            1_040.. => Outcome::Allowed,
        });
    });
}

#[test]
fn conntrack_follows_an_sctp_handshake() {
    isolated(async {
        let lab = Lab::build(two_nodes(Attachment::Routed)).await.unwrap();
        let node = lab.node(0).unwrap();
        let chain = "chain forward { type filter hook forward priority 0;
             ct state invalid counter name invalid drop
             ct direction reply ct state established counter name replies accept; }";
        nft(node, &format!("table inet test {{ counter invalid {{ }}; counter replies {{ }}; {chain}; }}"));
        for (from, to) in [("10.244.0.10", "10.244.0.11"), ("fd00:244:0::a", "fd00:244:0::b")] {
            let asked = Probe::new(end(&lab, from), end(&lab, to), Protocol::Sctp, 80);
            assert_eq!(probe(&[asked], &QUICK).await, [Outcome::Allowed]);
        }
        let counters = nft(node, "list counters");
        assert!(counters.contains("packets 0 "), "invalid messages:\n{counters}");
        assert!(counters.contains("packets 4 "), "an INIT ACK and a COOKIE ACK in each family:\n{counters}");
    });
}

#[test]
fn a_service_is_asked_by_its_address() {
    isolated(async {
        let lab = Lab::build(two_nodes(Attachment::Routed)).await.unwrap();
        let chain = "chain services { type nat hook prerouting priority dstnat;
             meta l4proto { tcp, udp, sctp } ip daddr 10.96.0.10 th dport 53 dnat ip to 10.244.1.10:5353
             meta l4proto { tcp, udp, sctp } ip6 daddr fd00:96::10 th dport 53 dnat ip6 to [fd00:244:1::a]:5353; }";
        nft(lab.node(0).unwrap(), &format!("table inet test {{ {chain}; }}"));
        let cases =
            [("10.244.0.10", "10.96.0.10:53", "10.244.1.10"), ("fd00:244:0::a", "[fd00:96::10]:53", "fd00:244:1::a")];
        let probes: Vec<_> = cases
            .into_iter()
            .flat_map(|(from, service, backend)| {
                let responder = Responder { at: end(&lab, backend), port: 5_353 };
                let from = end(&lab, from);
                PROTOCOLS[..3].iter().map(move |protocol| {
                    Probe::to_service(from.clone(), service.parse().unwrap(), *protocol, vec![responder.clone()])
                })
            })
            .collect();
        assert_outcomes(&probes, &probe(&probes, &QUICK).await, |_| Outcome::Allowed);
    });
}

#[test]
fn the_cluster_changes_while_it_runs() {
    isolated(async {
        for attachment in [Attachment::Routed, Attachment::Bridged] {
            let mut lab = Lab::build(two_nodes(attachment)).await.unwrap();
            lab.add_pod(pod("e", 0, 12)).await.unwrap();
            lab.add_outside(ip("198.51.100.9")).await.unwrap();
            let ends = ["10.244.0.12", "10.244.1.10", "192.168.7.1", "198.51.100.9"].map(|address| end(&lab, address));
            let probes = all_pairs(&ends, 80);
            assert_outcomes(&probes, &probe(&probes, &ProbeOptions::default()).await, |_| Outcome::Allowed);

            assert!(lab.add_pod(pod("e", 1, 13)).await.is_err(), "the name is taken");
            assert!(lab.add_pod(pod("f", 0, 12)).await.is_err(), "the address is taken");
            let old = end(&lab, "10.244.0.12");
            lab.remove_pod("e").await.unwrap();
            assert_eq!(lab.endpoint(old.address), None);
            lab.add_pod(pod("f", 0, 12)).await.unwrap();
            let new = end(&lab, "10.244.0.12");
            assert_ne!(old.netns, new.netns);
            let again = [Probe::new(end(&lab, "203.0.113.5"), new, Protocol::Tcp, 80)];
            assert_eq!(
                probe(&again, &ProbeOptions::default()).await,
                [Outcome::Allowed],
                "the address has a new owner"
            );
        }
    });
}

#[test]
fn an_established_flow_is_watched() {
    isolated(async {
        let lab = Lab::build(two_nodes(Attachment::Routed)).await.unwrap();
        let window = Duration::from_secs(3);
        for (from, to) in [("10.244.0.10", "10.244.1.10"), ("fd00:244:0::a", "fd00:244:1::a")] {
            for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
                let opened = Flow::open(&Probe::new(end(&lab, from), end(&lab, to), protocol, 7), window).await;
                let mut flow = opened.unwrap_or_else(|outcome| panic!("{from} {protocol:?}: {outcome}"));
                // UDP: fragments, which the node has to put together to see their ports.
                let size = if protocol == Protocol::Sctp { 400 } else { 8_000 };
                assert_eq!(flow.exchange(size, window).await, Outcome::Allowed, "{from} {protocol:?}");
                nft(
                    lab.node(1).unwrap(),
                    "table inet test { chain forward { type filter hook forward priority 0; drop; }; }",
                );
                assert_eq!(flow.exchange(8, Duration::from_millis(300)).await, Outcome::Refused, "{from} {protocol:?}");
                nft(lab.node(1).unwrap(), "delete table inet test");
                assert_eq!(flow.exchange(8, window).await, Outcome::Allowed, "{from} {protocol:?}: open again");
            }
        }
    });
}

#[test]
fn more_ports_than_files_are_asked_in_waves() {
    isolated(async {
        let lab = Lab::build(two_nodes(Attachment::Routed)).await.unwrap();
        let (a, b) = (end(&lab, "10.244.0.10"), end(&lab, "10.244.0.11"));
        let probes: Vec<_> = (1..=10_000).map(|port| Probe::new(a.clone(), b.clone(), Protocol::Tcp, port)).collect();
        let started = Instant::now();
        assert_outcomes(&probes, &probe(&probes, &ProbeOptions::default()).await, |_| Outcome::Allowed);
        println!("10,000 ports of one pod: {:?}", started.elapsed());
    });
}

#[test]
fn a_port_is_free_again_when_its_probes_are_done() {
    isolated(async {
        let lab = Lab::build(two_nodes(Attachment::Routed)).await.unwrap();
        let (a, b) = (end(&lab, "10.244.0.10"), end(&lab, "10.244.0.11"));
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let probes = [Probe::new(a.clone(), b.clone(), protocol, 80)];
            for _ in 0..50 {
                assert_eq!(probe(&probes, &ProbeOptions::default()).await, [Outcome::Allowed]);
            }
        }
    });
}

#[test]
fn a_thousand_refusals_take_seconds() {
    isolated(async {
        let pods = (0..30).map(|n| pod(&format!("p{n}"), usize::from(n) % 2, n + 10)).collect();
        let started = Instant::now();
        let lab = Lab::build(Topology { pods, ..two_nodes(Attachment::Routed) }).await.unwrap();
        let built = started.elapsed();
        for node in 0..2 {
            nft(
                lab.node(node).unwrap(),
                "table inet test { chain forward { type filter hook forward priority 0; drop; }; }",
            );
        }
        let ends: Vec<_> = (0..30).map(|n: u8| end(&lab, &format!("10.244.{}.{}", n % 2, n + 10))).collect();
        let mut probes = all_pairs(&ends, 80);
        probes.retain(|probe| probe.protocol == Protocol::Tcp && probe.from.address != probe.to);
        let started = Instant::now();
        assert_outcomes(&probes, &probe(&probes, &ProbeOptions::default()).await, |_| Outcome::Refused);
        println!("30 pods built in {built:?}; {} refusals known after {:?}", probes.len(), started.elapsed());
        assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    });
}

#[test]
fn labs_beside_each_other_do_not_meet() {
    isolated(async {
        let before = links_here();
        let (one, two) =
            tokio::join!(Lab::build(two_nodes(Attachment::Routed)), Lab::build(two_nodes(Attachment::Bridged)));
        let (one, two) = (one.unwrap(), two.unwrap());
        nft(one.node(0).unwrap(), "table inet test { chain forward { type filter hook forward priority 0; drop; }; }");
        let probes =
            [&one, &two].map(|lab| Probe::new(end(lab, "10.244.0.10"), end(lab, "10.244.0.11"), Protocol::Tcp, 80));
        assert_eq!(probe(&probes, &QUICK).await, [Outcome::Refused, Outcome::Allowed]);
        assert_eq!(links_here(), before, "a lab's links are in its own namespaces");
    });
}
