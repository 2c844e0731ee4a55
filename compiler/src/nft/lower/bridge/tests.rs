//! What the ports of a bridge let pass, by packets on their way through table `bridge`.

use std::net::IpAddr;

use super::*;
use crate::api::LinkName;
use crate::cluster::{Change, Event, Link, Port, Sandbox};
use crate::nft::trace::{Payload, TracedPacket, trace_in};
use crate::nft::{Deny, lower};
use crate::policy::{OwnAddresses, Resolver};
use crate::testing::{block, pod, policy, rule, state};

fn name(text: &str) -> LinkName {
    LinkName::new(text).expect("a name")
}

/// `cni0` with a port to a pod that is isolated for ingress, one that everybody may send UDP 5353 to, one that is isolated
/// for egress, a free one, and to somebody of whom nothing was heard.
fn events() -> Vec<Event> {
    let known = |port: &str, address: &str| Port { name: name(port), addresses: vec![address.parse().unwrap()] };
    let ports = vec![
        known("to-free", "10.1.0.4"),
        known("to-jail", "10.1.0.3"),
        known("to-mdns", "10.1.0.5"),
        known("to-shut", "10.1.0.2"),
        Port { name: name("to-whom"), addresses: vec![] },
    ];
    let link = Link {
        name: name("cni0"),
        is_bridge: true,
        prefixes: vec!["10.1.0.0/24".parse().unwrap()],
        ports,
        is_cable: false,
    };
    vec![
        pod("a/shut").labels("app=shut").ip("10.1.0.2").ip("fd01::2").into(),
        pod("a/jail").labels("app=jail").ip("10.1.0.3").into(),
        pod("a/free").ip("10.1.0.4").into(),
        pod("a/mdns").labels("app=mdns").ip("10.1.0.5").into(),
        policy("a/shut").selects("app=shut").ingress([]).into(),
        policy("a/jail").selects("app=jail").egress([]).into(),
        policy("a/mdns")
            .selects("app=mdns")
            .ingress([
                rule().peers([block("0.0.0.0/0", &[])]).ports(&["5353/UDP"]),
                rule().peers([block("0.0.0.0/0", &["10.0.0.0/8"])]),
            ])
            .into(),
        Event::Links(vec![link]),
    ]
}

fn table(events: Vec<Event>, own_addresses: OwnAddresses) -> Table {
    lower(&Resolver::checking(own_addresses).resolve(&state(events)), Deny::Drop)
}

fn packet(source: &str, destination: &str, payload: Payload) -> TracedPacket {
    TracedPacket {
        source: source.parse().unwrap(),
        destination: destination.parse().unwrap(),
        payload,
        hop_limit: 64,
        state: None,
        is_reply: false,
        source_port: None,
        link: None,
        is_astray: false,
        exit: None,
        tag: None,
    }
}

const UDP: Payload = Payload::Port(Protocol::Udp, 9000);

/// Whether a port lets a packet out.
fn reaches(table: &Table, port: &str, packet: TracedPacket) -> bool {
    let packet = TracedPacket { exit: Some(name(port)), ..packet };
    trace_in(table, &chain("to-port"), &packet).unwrap().accepted
}

/// Whether a port takes a packet in.
fn is_taken(table: &Table, port: &str, packet: TracedPacket) -> bool {
    let packet = TracedPacket { link: Some(name(port)), ..packet };
    trace_in(table, &chain("from-port"), &packet).unwrap().accepted
}

#[test]
fn what_is_for_many_reaches_the_ports_of_free_pods_alone() {
    let table = table(events(), OwnAddresses::Off);
    for many in ["10.1.0.255", "255.255.255.255", "224.0.0.251", "0.0.0.0", "10.1.0.77"] {
        for (port, expected) in
            [("to-free", true), ("to-jail", true), ("to-mdns", false), ("to-shut", false), ("to-whom", false)]
        {
            assert_eq!(reaches(&table, port, packet("10.1.0.4", many, UDP)), expected, "{many} by {port}");
        }
    }
    for many in ["ff02::fb", "fe80::1", "fd01::77"] {
        assert!(!reaches(&table, "to-shut", packet("fd01::4", many, UDP)), "{many}");
        assert!(reaches(&table, "to-free", packet("fd01::4", many, UDP)), "{many}");
    }
    for one in ["10.1.0.2", "10.1.0.4"] {
        assert!(reaches(&table, "to-shut", packet("10.1.0.4", one, UDP)), "{one} is judged in table inet");
    }
    assert!(reaches(&table, "to-shut", packet("fd01::4", "fd01::2", UDP)));
}

#[test]
fn what_a_rule_opens_to_everybody_is_open_to_what_is_for_many() {
    let table = table(events(), OwnAddresses::Off);
    let mdns = Payload::Port(Protocol::Udp, 5353);
    assert!(reaches(&table, "to-mdns", packet("10.1.0.4", "224.0.0.251", mdns)));
    assert!(!reaches(&table, "to-mdns", packet("fd01::4", "ff02::fb", mdns)), "the block is of IPv4");
    let tcp = Payload::Port(Protocol::Tcp, 5353);
    assert!(!reaches(&table, "to-mdns", packet("10.1.0.4", "224.0.0.251", tcp)));
    let open = policy("a/open").selects("app=shut").ingress([rule()]);
    let events = events().into_iter().chain([open.into()]).collect();
    let table = self::table(events, OwnAddresses::Off);
    assert!(reaches(&table, "to-shut", packet("10.1.0.4", "224.0.0.251", UDP)), "everything is open");
}

#[test]
fn what_makes_a_link_work_passes() {
    let table = table(events(), OwnAddresses::Off);
    let icmp = |kind, hop_limit| TracedPacket { hop_limit, ..packet("fe80::4", "ff02::1", Payload::Icmpv6(kind, 0)) };
    for (kind, hops, expected) in [
        (135, 255, true),
        (136, 255, true),
        (135, 64, false),
        (130, 1, true),
        (143, 1, true),
        (143, 64, false),
        (128, 255, false),
    ] {
        assert_eq!(reaches(&table, "to-shut", icmp(kind, hops)), expected, "type {kind}, hop limit {hops}");
    }
    let lease = |source, destination, port| packet(source, destination, Payload::Port(Protocol::Udp, port));
    assert!(reaches(&table, "to-whom", lease("10.1.0.1", "255.255.255.255", 68)));
    assert!(reaches(&table, "to-whom", lease("fe80::1", "fe80::77", 546)));
    assert!(!reaches(&table, "to-whom", lease("10.1.0.1", "255.255.255.255", 67)));
}

#[test]
fn a_link_local_source_is_nobodys() {
    let table = table(events(), OwnAddresses::Off);
    let say = |destination, payload| packet("fe80::3", destination, payload);
    for (port, expected) in
        [("to-jail", false), ("to-whom", false), ("to-shut", true), ("to-free", true), ("eth0", true)]
    {
        for destination in ["fe80::1", "ff02::fb", "fd01::2"] {
            assert_eq!(is_taken(&table, port, say(destination, UDP)), expected, "{destination} by {port}");
        }
        assert!(is_taken(&table, port, packet("fd01::3", "fe80::1", UDP)), "judged in table inet");
        let discovery = TracedPacket { hop_limit: 255, ..say("ff02::1", Payload::Icmpv6(135, 0)) };
        assert!(is_taken(&table, port, discovery));
        assert!(is_taken(&table, port, say("ff02::1:2", Payload::Port(Protocol::Udp, 547))));
    }
    let open = policy("a/open").selects("app=jail").egress([rule()]);
    let table = self::table(events().into_iter().chain([open.into()]).collect(), OwnAddresses::Off);
    assert!(is_taken(&table, "to-jail", say("fe80::1", UDP)), "everything is open");
}

/// The port of the jailed pod is its own by the runtime's word, too.
fn with_sandbox() -> Vec<Event> {
    let sandbox = Sandbox {
        pod: pod("a/jail").build().key,
        uid: None,
        addresses: vec!["10.1.0.3".parse().unwrap(), "fd01::3".parse().unwrap()],
        link: Some(name("to-jail")),
    };
    events().into_iter().chain([Event::Sandboxes(vec![sandbox])]).collect()
}

#[test]
fn by_the_port_of_a_pod_only_its_own_addresses_send() {
    let checked = table(with_sandbox(), OwnAddresses::All { except: [].into() });
    let lease = Payload::Port(Protocol::Udp, 67);
    for (source, destination, payload, hop_limit, expected) in [
        ("10.1.0.3", "10.1.0.4", UDP, 64, true),
        ("fd01::3", "fd01::2", UDP, 64, true),
        ("10.1.0.4", "10.1.0.2", UDP, 64, false),
        ("fd01::2", "fd01::2", UDP, 64, false),
        ("0.0.0.0", "255.255.255.255", lease, 64, true),
        ("0.0.0.0", "10.1.0.4", UDP, 64, false),
        ("::", "ff02::1:ff00:3", Payload::Icmpv6(135, 0), 255, true),
        ("::", "ff02::16", Payload::Icmpv6(143, 0), 1, true),
        ("::", "fd01::2", UDP, 64, false),
        ("fe80::3", "ff02::2", Payload::Icmpv6(133, 0), 255, true),
        ("fe80::3", "fe80::1", UDP, 64, false),
    ] {
        let packet = TracedPacket { hop_limit, ..packet(source, destination, payload) };
        assert_eq!(is_taken(&checked, "to-jail", packet), expected, "{source} to {destination}");
        if source != "fe80::3" {
            assert!(is_taken(&checked, "to-whom", packet), "{source}: of what is only heard nothing is known for sure");
        }
    }
    for own_addresses in [OwnAddresses::Off, OwnAddresses::All { except: ["a".into()].into() }] {
        let table = table(with_sandbox(), own_addresses);
        assert!(is_taken(&table, "to-jail", packet("10.1.0.4", "10.1.0.2", UDP)));
    }
}

#[test]
fn the_runtimes_word_on_a_port_counts_before_what_was_heard() {
    let mut events = with_sandbox();
    for event in &mut events {
        // The jailed pod was heard as the free one, and not as itself.
        let Event::Links(links) = event else { continue };
        links[0].ports[1].addresses = vec!["10.1.0.4".parse().unwrap()];
        links[0].ports[0].addresses = vec![];
    }
    let table = table(events, OwnAddresses::Off);
    assert!(!is_taken(&table, "to-jail", packet("fe80::3", "fe80::1", UDP)));
    let tagged = TracedPacket { tag: Some(EtherType::CustomerTag), ..packet("10.1.0.3", "10.1.0.2", UDP) };
    assert!(!is_taken(&table, "to-jail", tagged));
}

#[test]
fn tags_are_refused_from_and_to_whom_they_could_help() {
    for tag in [EtherType::CustomerTag, EtherType::ServiceTag] {
        let tagged = TracedPacket { tag: Some(tag), ..packet("10.1.0.3", "10.1.0.2", UDP) };
        let taken = |own_addresses, port: &str| is_taken(&table(events(), own_addresses), port, tagged);
        for (port, off, all) in [
            ("to-jail", false, false),
            ("to-whom", false, false),
            ("to-shut", true, false),
            ("to-free", true, false),
            ("eth0", true, true),
        ] {
            let except = || OwnAddresses::All { except: ["a".into()].into() };
            assert_eq!(taken(OwnAddresses::Off, port), off, "{port}");
            assert_eq!(
                taken(OwnAddresses::All { except: [].into() }, port),
                all,
                "{port}, where all must have their own"
            );
            assert_eq!(taken(except(), port), off, "{port}, where its namespace routes for others");
        }
        let table = table(events(), OwnAddresses::Off);
        assert!(!reaches(&table, "to-shut", tagged));
        assert!(reaches(&table, "to-free", tagged));
    }
    let untagged = packet("10.1.0.3", "10.1.0.2", UDP);
    assert!(is_taken(&table(events(), OwnAddresses::Off), "to-jail", untagged), "judged in table inet");
}

#[test]
fn without_isolated_pods_behind_a_bridge_there_is_no_table_for_bridges() {
    let is_policy = |event: &Event| matches!(event, Event::Policies(_));
    let free: Vec<Event> = events().into_iter().filter(|event| !is_policy(event)).collect();
    assert!(!table(free, OwnAddresses::All { except: [].into() }).has_bridge());
    assert!(table(events(), OwnAddresses::Off).has_bridge());
    // Who is isolated for egress alone may be sent what is for many.
    let egress: Vec<Event> = events()
        .into_iter()
        .filter(|event| !is_policy(event))
        .chain([policy("a/jail").selects("app=jail").egress([]).into()])
        .collect();
    let table = table(egress, OwnAddresses::Off);
    assert!(table.has_bridge() && !table.chains.contains_key(&chain("to-port")));
}

#[test]
fn a_port_opens_and_closes_with_its_policies_and_what_is_heard() {
    let mut resolver = Resolver::default();
    let mut lowerer = crate::nft::Lowerer::new(Deny::Drop);
    let mut state = state(events());
    let many: IpAddr = "224.0.0.251".parse().unwrap();
    let to = |table: &Table, port| reaches(table, port, packet("10.1.0.4", &many.to_string(), UDP));
    let table = lowerer.lower(&resolver.resolve(&state));
    assert!(!to(&table, "to-shut") && !to(&table, "to-mdns"));
    // The rules of the policy change, and no pod does.
    state.apply(policy("a/mdns").selects("app=mdns").ingress([rule()]).into());
    let table = lowerer.lower(&resolver.resolve(&state));
    assert!(!to(&table, "to-shut") && to(&table, "to-mdns"));
    assert_eq!(table, lower(&Resolver::default().resolve(&state), Deny::Drop));
    // What was not heard of is a free pod's.
    state.apply(pod("a/late").ip("10.1.0.6").into());
    let mut events = events();
    let Some(Event::Links(links)) = events.last_mut() else { panic!("the links are last") };
    links[0].ports[4].addresses = vec!["10.1.0.6".parse().unwrap()];
    state.apply(events.pop().unwrap());
    let table = lowerer.lower(&resolver.resolve(&state));
    assert!(to(&table, "to-whom"));
    assert_eq!(table, lower(&Resolver::default().resolve(&state), Deny::Drop));
    state.apply(Event::Policies(Change::Reset(vec![])));
    let table = lowerer.lower(&resolver.resolve(&state));
    assert!(!table.has_bridge());
    assert_eq!(table, lower(&Resolver::default().resolve(&state), Deny::Drop));
}

#[test]
fn where_the_gate_stands_a_port_that_is_new_is_shut() {
    let ports = vec![
        Port { name: name("to-free"), addresses: vec!["10.1.0.4".parse().unwrap()] },
        Port { name: name("to-whom"), addresses: vec![] },
    ];
    let port = |text: &str| Link {
        name: name(text),
        is_bridge: false,
        prefixes: vec![],
        ports: vec![],
        is_cable: text != "uplink",
    };
    let bridge = Link {
        is_bridge: true,
        prefixes: vec!["10.1.0.0/24".parse().unwrap()],
        ports,
        is_cable: false,
        ..port("cni0")
    };
    let gated = vec![
        Event::PodRanges(vec!["10.1.0.0/24".parse().unwrap()]),
        pod("a/free").ip("10.1.0.4").into(),
        Event::Links(vec![bridge, port("to-free"), port("to-whom"), port("uplink")]),
    ];
    let table = table(gated, OwnAddresses::Off);
    let tagged = || TracedPacket { tag: Some(EtherType::CustomerTag), ..packet("fe80::9", "ff02::1", UDP) };
    for (port, is_known) in [("to-free", true), ("uplink", true), ("to-whom", false), ("to-newer", false)] {
        assert_eq!(is_taken(&table, port, packet("fe80::9", "ff02::1", UDP)), is_known, "{port}");
        assert_eq!(is_taken(&table, port, tagged()), is_known, "{port}");
        assert_eq!(reaches(&table, port, packet("10.1.0.4", "224.0.0.251", UDP)), is_known, "{port}");
        assert!(is_taken(&table, port, packet("10.1.0.9", "10.1.0.4", UDP)), "{port}: judged in table inet");
        assert!(reaches(&table, port, packet("10.9.0.9", "10.1.0.4", UDP)), "{port}: judged in table inet");
        let solicits = || TracedPacket { hop_limit: 255, ..packet("fe80::9", "ff02::1", Payload::Icmpv6(135, 0)) };
        assert!(is_taken(&table, port, solicits()) && reaches(&table, port, solicits()), "{port}");
    }
}
