//! What the kernel tracks, over loopback.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use netlink::conntrack::{Change, Entry, Events, Flow, Heard, Tuple, entries, flows};

use super::support::{give_up_capabilities, ip, nft_load};

const TCP: u8 = 6;
const UDP: u8 = 17;
/// `TCP_CONNTRACK_ESTABLISHED`
const ESTABLISHED: u8 = 3;

/// A rule that looks at connections is what makes the kernel track them.
const TRACK: &str = "
    table inet track {
        chain output { type filter hook output priority 0; ct state new accept; }
    }";

fn set_up(rules: &str) {
    ip(&["link", "set", "lo", "up"]);
    nft_load(rules);
}

fn all_flows() -> Vec<Flow> {
    let mut found = Vec::new();
    assert!(flows(|flow| found.push(flow)).unwrap(), "nobody disturbs the dump");
    found
}

/// A flow that begins at `from`, goes to `to`, and is answered by `by`.
fn flow(protocol: u8, from: SocketAddr, to: SocketAddr, by: SocketAddr) -> Flow {
    let tuple = |from: SocketAddr, to: SocketAddr| Tuple {
        source: from.ip(),
        destination: to.ip(),
        ports: Some((from.port(), to.port())),
    };
    let tcp_state = (protocol == TCP).then_some(ESTABLISHED);
    Flow { protocol, original: tuple(from, to), reply: tuple(by, from), zone: 0, tcp_state }
}

fn bound(address: &str) -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind(address).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

pub(crate) fn flows_are_told_as_the_kernel_tracks_them() {
    set_up(TRACK);
    assert_eq!(all_flows(), []);
    for loopback in ["127.0.0.1:0", "[::1]:0"] {
        let (server, to) = bound(loopback);
        let (client, from) = bound(loopback);
        client.send_to(b"?", to).unwrap();
        let listener = TcpListener::bind(loopback).unwrap();
        let connection = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (tcp_from, tcp_to) = (connection.local_addr().unwrap(), connection.peer_addr().unwrap());
        let found = all_flows();
        for expected in [flow(UDP, from, to, to), flow(TCP, tcp_from, tcp_to, tcp_to)] {
            assert_eq!(found.iter().filter(|flow| **flow == expected).count(), 1, "{expected:?}\n{found:?}");
        }
        drop(server);
    }
    assert_eq!(all_flows().len(), 4, "nothing is made up");
}

pub(crate) fn translated_flows_differ_by_direction() {
    let (by, to) = ("127.0.0.2:5353".parse().unwrap(), "127.0.0.1:53".parse().unwrap());
    set_up(
        "table ip nat {
            chain output { type nat hook output priority -100; ip daddr 127.0.0.1 udp dport 53 dnat to 127.0.0.2:5353; }
        }",
    );
    let (server, _) = bound("127.0.0.2:5353");
    let (client, from) = bound("127.0.0.1:0");
    client.send_to(b"?", to).unwrap();
    server.recv_from(&mut [0; 8]).unwrap();
    assert_eq!(all_flows(), [flow(UDP, from, to, by)]);
}

pub(crate) fn zones_are_told() {
    set_up(
        "table inet track {
            chain output {
                type filter hook output priority -300;
                udp dport 1001 ct zone set 7
                udp dport 1002 ct original zone set 8
                udp dport 1003 ct reply zone set 9
            }
        }",
    );
    let (client, _) = bound("127.0.0.1:0");
    for (port, zone) in [(1001, 7), (1002, 8), (1003, 9), (1004, 0)] {
        let (_server, to) = bound(&format!("127.0.0.1:{port}"));
        client.send_to(b"?", to).unwrap();
        let found = all_flows();
        let of_port = found.iter().filter(|flow| flow.original.ports.is_some_and(|(_, to)| to == port));
        assert_eq!(of_port.map(|flow| flow.zone).collect::<Vec<_>>(), [zone], "port {port}: {found:?}");
    }
}

/// More than one datagram of the kernel's holds.
pub(crate) fn each_of_thousands_is_shown_once() {
    set_up(TRACK);
    let (server, to) = bound("0.0.0.0:0");
    let (client, _) = bound("127.0.0.1:0");
    let addresses: Vec<Ipv4Addr> = (1..=3000).map(|last| Ipv4Addr::from_bits(0x7f01_0000 + last)).collect();
    let mut bytes = [0; 8];
    for address in &addresses {
        client.send_to(b"?", (*address, to.port())).unwrap();
        server.recv_from(&mut bytes).unwrap();
    }
    let found = all_flows();
    let destinations: BTreeSet<IpAddr> = found.iter().map(|flow| flow.original.destination).collect();
    assert_eq!(destinations, addresses.into_iter().map(IpAddr::from).collect());
    assert_eq!(found.len(), destinations.len(), "none comes twice where nothing changes");
}

fn set_sysctl(name: &str, value: &str) {
    fs::write(format!("/proc/sys/net/netfilter/{name}"), value).unwrap();
}

/// The only entry.
fn the_entry() -> Entry {
    let mut found = Vec::new();
    assert!(entries(|entry| found.push(entry)).unwrap(), "nobody disturbs the dump");
    let [entry] = found[..] else { panic!("{found:?}") };
    entry
}

pub(crate) fn entries_tell_what_the_kernel_counts() {
    set_up(TRACK);
    set_sysctl("nf_conntrack_acct", "0");
    set_sysctl("nf_conntrack_timestamp", "0");
    let (server, to) = bound("127.0.0.1:0");
    let (client, from) = bound("127.0.0.1:0");
    client.send_to(b"?", to).unwrap();
    let entry = the_entry();
    assert_eq!((entry.flow, entry.state, entry.counts, entry.began), (flow(UDP, from, to, to), None, None, None));
    assert!(!entry.is_replied && !entry.is_assured && entry.timeout.is_some_and(|seconds| seconds > 0), "{entry:?}");
    server.send_to(b"!", from).unwrap();
    assert!(the_entry().is_replied);

    nft_load("flush ruleset");
    set_up(TRACK);
    set_sysctl("nf_conntrack_acct", "1");
    set_sysctl("nf_conntrack_timestamp", "1");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut connection = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    connection.write_all(&[0; 1000]).unwrap();
    let mut found = Vec::new();
    entries(|entry| found.push(entry)).unwrap();
    let entry = found.into_iter().find(|entry| entry.flow.protocol == TCP).unwrap();
    assert_eq!((entry.state, entry.is_replied, entry.is_assured), (Some("ESTABLISHED"), true, true));
    let [sent, answered] = entry.counts.unwrap();
    assert!(sent.packets >= 3 && sent.bytes > 1000 && answered.packets >= 1 && answered.bytes >= 40, "{entry:?}");
    let year = 365 * 24 * 3600 * 1_000_000_000;
    assert!(entry.began.unwrap() > 50 * year, "nanoseconds since 1970: {entry:?}");
}

pub(crate) fn flows_are_told_as_they_begin_and_end() {
    set_up(TRACK);
    let mut events = Events::open(Duration::from_secs(10)).unwrap();
    // The entry ends as soon as somebody looks.
    set_sysctl("nf_conntrack_udp_timeout", "0");
    let (_server, to) = bound("127.0.0.1:0");
    let (client, from) = bound("127.0.0.1:0");
    client.send_to(b"?", to).unwrap();
    let mut told = Vec::new();
    while told.len() < 2 {
        assert_eq!(all_flows(), []);
        let heard = events.next(|change, entry| told.push((change, entry.flow))).unwrap();
        assert_eq!(heard, Heard::Changes);
    }
    let expected = flow(UDP, from, to, to);
    assert_eq!(told, [(Change::Begun, expected), (Change::Ended, expected)]);
    let mut events = Events::open(Duration::from_millis(10)).unwrap();
    assert_eq!(events.next(|_, entry| panic!("{entry:?}")).unwrap(), Heard::Silence);
}

pub(crate) fn lost_events_are_noticed() {
    set_up(TRACK);
    let mut events = Events::open(Duration::from_millis(100)).unwrap();
    let (_server, to) = bound("0.0.0.0:0");
    let (client, _) = bound("127.0.0.1:0");
    // Each takes some 800 bytes of a buffer of some megabytes.
    for last in 0..60_000 {
        client.send_to(b"?", (Ipv4Addr::from_bits(0x7f01_0000 + last), to.port())).unwrap();
    }
    let (mut shown, mut lost) = (0, 0);
    loop {
        match events.next(|_, _| shown += 1).unwrap() {
            Heard::Changes => {}
            Heard::Lost => lost += 1,
            Heard::Silence => break,
        }
    }
    assert!(lost > 0 && shown < 60_000, "{lost} {shown}");
    // What comes later is told again.
    client.send_to(b"?", (Ipv4Addr::new(127, 2, 0, 1), to.port())).unwrap();
    let mut told = Vec::new();
    for _ in 0..100 {
        if events.next(|_, entry| told.push(entry.flow.original.destination)).unwrap() == Heard::Changes {
            break;
        }
    }
    assert_eq!(told, [IpAddr::from([127, 2, 0, 1])]);
}

pub(crate) fn without_the_capability_nothing_is_told() {
    give_up_capabilities();
    let error = Events::open(Duration::from_secs(1)).unwrap_err();
    assert!(error.is_permission(), "{error:?}");
    let error = flows(|flow| panic!("{flow:?}")).unwrap_err();
    assert!(error.is_permission(), "{error:?}");
}
