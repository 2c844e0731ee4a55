//! What the kernel tracks, over loopback.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};

use netlink::conntrack::{Flow, Tuple, flows};

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

pub(crate) fn without_the_capability_nothing_is_told() {
    give_up_capabilities();
    let error = flows(|flow| panic!("{flow:?}")).unwrap_err();
    assert!(error.is_permission(), "{error:?}");
}
