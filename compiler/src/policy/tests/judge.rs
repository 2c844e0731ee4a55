//! What the IR says of packets.

use crate::api::{Direction, Protocol};
use crate::cluster::Event;
use crate::policy::{Ir, Packet, PacketProtocol, judge};
use crate::testing::{block, denying_namespace, ip, ir, namespace, pod, pods_of, pods_where, policy, policy_key, rule};

/// `10.0.0.1 -> 10.0.0.2:80/TCP`, or `10.0.0.1 -> 10.0.0.2 echo`.
#[track_caller]
fn packet(text: &str) -> Packet {
    let (source, rest) = text.split_once(" -> ").expect("a packet is written as source -> destination");
    let (destination, protocol) = match rest.strip_suffix(" echo") {
        Some(destination) => (destination, PacketProtocol::Echo),
        None => {
            let (destination, port) = rest.rsplit_once(':').expect("the port follows a colon");
            let (port, protocol) = port.split_once('/').expect("the protocol follows a slash");
            let protocol = *Protocol::ALL.iter().find(|known| known.as_str() == protocol).expect("TCP, UDP or SCTP");
            (destination, PacketProtocol::Port(protocol, port.parse().expect("a port is a number")))
        }
    };
    Packet { source: ip(source), destination: ip(destination), protocol }
}

/// `free`; `denied by a/p`; `allowed by a/p[0]`; `itself`.
fn show(ir: &Ir, direction: Direction, text: &str) -> String {
    let judgement = judge(ir, direction, &packet(text));
    let isolating = judgement.isolated_by.iter().map(ToString::to_string);
    let by: Vec<String> = isolating.chain(judgement.isolated_by_namespace.map(|name| format!("({name})"))).collect();
    match (judgement.allowed, judgement.rule, by.is_empty()) {
        (true, None, true) => "free".to_owned(),
        (true, None, false) => "itself".to_owned(),
        (true, Some((policy, index)), _) => format!("allowed by {policy}[{index}]"),
        (false, None, _) => format!("denied by {}", by.join(" ")),
        (false, Some(_), _) => panic!("a rule allows {text}, and it is denied"),
    }
}

fn cluster() -> Vec<Event> {
    vec![
        namespace("a", "team=x").into(),
        namespace("b", "team=y").into(),
        pod("a/web")
            .labels("app=web")
            .ip("10.0.0.1")
            .ip("fd00::1")
            .port("http", "80/TCP")
            .port("http", "81/TCP")
            .into(),
        pod("a/db").labels("app=db").ip("10.0.0.2").port("http", "9/TCP").into(),
        pod("b/there").labels("app=db").ip("10.0.0.3").elsewhere().port("http", "99/TCP").into(),
    ]
}

#[test]
fn both_directions_and_their_ends() {
    let ir = ir(cluster().into_iter().chain([
        policy("a/in").selects("app=web").ingress([rule().peers([pods_of("a", "app=db")])]).into(),
        policy("a/out").selects("app=web").egress([rule().peers([block("10.0.0.0/24", &["10.0.0.3/32"])])]).into(),
    ]));
    let cases = [
        // The packet, and what egress and ingress say.
        ("10.0.0.2 -> 10.0.0.1:80/TCP", "free", "allowed by a/in[0]"),
        ("10.0.0.3 -> 10.0.0.1:80/TCP", "free", "denied by a/in"),
        ("8.8.8.8 -> 10.0.0.1 echo", "free", "denied by a/in"),
        ("10.0.0.2 -> 10.0.0.1 echo", "free", "allowed by a/in[0]"),
        ("10.0.0.1 -> 10.0.0.2:80/TCP", "allowed by a/out[0]", "free"),
        ("10.0.0.1 -> 10.0.0.3:80/TCP", "denied by a/out", "free"),
        ("10.0.0.1 -> 8.8.8.8 echo", "denied by a/out", "free"),
        ("10.0.0.1 -> 10.0.0.1:80/TCP", "allowed by a/out[0]", "itself"),
        ("fd00::1 -> fd00::1:80/TCP", "itself", "itself"),
        ("fd00::9 -> fd00::1:80/TCP", "free", "denied by a/in"),
        ("10.0.0.3 -> 10.0.0.2:80/TCP", "free", "free"),
        ("8.8.8.8 -> 9.9.9.9:80/TCP", "free", "free"),
    ];
    for (text, egress, ingress) in cases {
        assert_eq!(show(&ir, Direction::Egress, text), egress, "{text}: egress");
        assert_eq!(show(&ir, Direction::Ingress, text), ingress, "{text}: ingress");
    }
}

#[test]
fn the_first_rule_that_allows_is_named() {
    let ir = ir(cluster().into_iter().chain([
        policy("a/p").ingress([rule().ports(&["1/TCP"]), rule().ports(&["2/TCP"]), rule().ports(&["1-2/TCP"])]).into(),
        policy("a/q").ingress([rule().ports(&["3/TCP", "*/SCTP"])]).into(),
        policy("a/old").ingress([rule().ports(&["4/TCP"])]).first_generation().into(),
        policy("a/out").egress([rule()]).into(),
    ]));
    for (port, expected) in [
        ("1/TCP", "allowed by a/p[0]"),
        ("2/TCP", "allowed by a/p[1]"),
        ("3/TCP", "allowed by a/q[0]"),
        ("4/TCP", "allowed by a/old[0]"),
        ("4/SCTP", "allowed by a/q[0]"),
        ("1/UDP", "denied by a/p a/q"),
        ("5/TCP", "denied by a/p a/q"),
    ] {
        assert_eq!(show(&ir, Direction::Ingress, &format!("8.8.8.8 -> 10.0.0.1:{port}")), expected, "{port}");
    }
    assert_eq!(show(&ir, Direction::Ingress, "8.8.8.8 -> 10.0.0.1 echo"), "denied by a/p a/q");
    assert_eq!(show(&ir, Direction::Egress, "10.0.0.1 -> 8.8.8.8 echo"), "allowed by a/out[0]");
}

#[test]
fn the_annotation_isolates_and_is_named() {
    let mut events = cluster();
    events.push(denying_namespace("a").into());
    events.push(policy("a/old").ingress([rule().ports(&["4/TCP"])]).first_generation().into());
    let ir = ir(events);
    assert_eq!(show(&ir, Direction::Ingress, "8.8.8.8 -> 10.0.0.1:5/TCP"), "denied by (a)");
    assert_eq!(show(&ir, Direction::Ingress, "8.8.8.8 -> 10.0.0.1:4/TCP"), "allowed by a/old[0]");
    assert_eq!(show(&ir, Direction::Egress, "10.0.0.1 -> 8.8.8.8:5/TCP"), "free");
}

#[test]
fn named_ports_are_the_destinations_own() {
    let of_peers = [pods_where("team=y", ""), block("10.0.0.2/32", &[])];
    let ir = ir(cluster().into_iter().chain([
        policy("a/in").ingress([rule().ports(&["http/TCP"])]).into(),
        policy("a/out").egress([rule().peers(of_peers).ports(&["http/TCP"])]).into(),
    ]));
    let cases = [
        (Direction::Ingress, "8.8.8.8 -> 10.0.0.1:80/TCP", true),
        (Direction::Ingress, "8.8.8.8 -> 10.0.0.1:81/TCP", true),
        (Direction::Ingress, "8.8.8.8 -> 10.0.0.1:80/UDP", false),
        (Direction::Ingress, "8.8.8.8 -> 10.0.0.1:9/TCP", false),
        (Direction::Ingress, "8.8.8.8 -> 10.0.0.2:9/TCP", true),
        (Direction::Egress, "10.0.0.1 -> 10.0.0.3:99/TCP", true),
        (Direction::Egress, "10.0.0.1 -> 10.0.0.3:80/TCP", false),
        (Direction::Egress, "10.0.0.1 -> 10.0.0.2:9/TCP", true),
        (Direction::Egress, "10.0.0.1 -> 10.0.0.2:99/TCP", false),
        (Direction::Egress, "10.0.0.2 -> 10.0.0.1:80/TCP", false),
    ];
    for (direction, text, allowed) in cases {
        assert_eq!(judge(&ir, direction, &packet(text)).allowed, allowed, "{direction:?} {text}");
    }
}

#[test]
fn peers_by_selector_and_by_block_are_each_enough() {
    let peers = [pods_of("b", "app=db"), pods_where("team=x", "app=web"), block("192.168.0.0/16", &["192.168.1.0/24"])];
    let ir = ir(cluster().into_iter().chain([
        policy("a/in").selects("app=db").ingress([rule().peers(peers).ports(&["80/TCP"])]).into(),
        policy("a/none").selects("app=db").ingress([rule().peers([]), rule().ports(&[])]).into(),
    ]));
    for (source, allowed) in
        [("10.0.0.3", true), ("10.0.0.1", true), ("192.168.2.1", true), ("192.168.1.1", false), ("10.0.0.4", false)]
    {
        let judgement = judge(&ir, Direction::Ingress, &packet(&format!("{source} -> 10.0.0.2:80/TCP")));
        assert_eq!(judgement.allowed, allowed, "{source}");
        assert_eq!(judgement.isolated_by, [policy_key("a/in"), policy_key("a/none")]);
        let other_port = judge(&ir, Direction::Ingress, &packet(&format!("{source} -> 10.0.0.2:81/TCP")));
        assert!(!other_port.allowed, "{source} on another port");
    }
    assert_eq!(packet("10.0.0.1 -> 10.0.0.2:80/TCP").protocol.port(), Some(80));
    assert_eq!(packet("10.0.0.1 -> 10.0.0.2 echo").protocol.port(), None);
}
