//! A pod is what is behind its link, whatever source its packets claim to have.

#![allow(clippy::unwrap_used, reason = "a test that cannot set up its world has failed")]

use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6, TcpListener, UdpSocket};
use std::time::Duration;

use compiler::nft::{Deny, Family};
use integration::agent::nft;
use integration::scene::{Scene, Shape, pod, policy};
use lab::{Attachment, Endpoint, Netns, isolated};
use socket2::{Domain, Protocol, Socket, Type};

const ROUTED: Shape = Shape { attachment: Attachment::Routed, one_node: true };
const BRIDGED: Shape = Shape { attachment: Attachment::Bridged, one_node: true };
/// For what must come: a loaded machine may be slow.
const PATIENCE: Duration = Duration::from_secs(10);
/// For what must not.
const SILENCE: Duration = Duration::from_millis(400);
const PORT: u16 = 7;

/// A pod that may send nothing, one that may receive nothing but from a friend, the friend, and a free one.
fn cluster() -> String {
    let friends = "[{from: [{podSelector: {matchLabels: {app: friend}}}]}]";
    pod("shop/jail", "node-1", "app: jail", "")
        + &pod("shop/safe", "node-1", "app: safe", "")
        + &pod("shop/friend", "node-1", "app: friend", "")
        + &pod("open/free", "node-1", "", "")
        + &policy("shop/jail", "{podSelector: {matchLabels: {app: jail}}, policyTypes: [Egress]}")
        + &policy("shop/safe", &format!("{{podSelector: {{matchLabels: {{app: safe}}}}, ingress: {friends}}}"))
}

/// A UDP socket of an end, on all its addresses.
fn listen(end: &Endpoint) -> UdpSocket {
    let any: IpAddr = if end.address.is_ipv4() { [0; 4].into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = end.netns.run(|| UdpSocket::bind((any, PORT))).unwrap().unwrap();
    socket.set_read_timeout(Some(SILENCE)).unwrap();
    socket
}

/// Sends a datagram with any source, as whoever has CAP_NET_RAW can.
fn forge(netns: &Netns, source: IpAddr, destination: IpAddr, text: &[u8]) {
    let udp_len = u16::try_from(8 + text.len()).unwrap();
    let mut udp = [PORT.to_be_bytes(), PORT.to_be_bytes(), udp_len.to_be_bytes(), [0, 0]].concat();
    udp.extend_from_slice(text);
    let mut packet = match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            // The kernel fills in the length and the checksum; that of UDP may be left out.
            let mut header = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0];
            header.extend_from_slice(&source.octets());
            header.extend_from_slice(&destination.octets());
            header
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let pseudo = [&source.octets()[..], &destination.octets(), &[0, 0], &udp_len.to_be_bytes(), &[0, 0, 0, 17]];
            let checksum = checksum(&[&pseudo.concat(), &udp[..]].concat());
            udp[6..8].copy_from_slice(&checksum.to_be_bytes());
            let mut header = vec![0x60, 0, 0, 0];
            header.extend_from_slice(&udp_len.to_be_bytes());
            header.extend_from_slice(&[17, 64]);
            header.extend_from_slice(&source.octets());
            header.extend_from_slice(&destination.octets());
            header
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => panic!("{source} > {destination}"),
    };
    packet.extend(udp);
    let domain = Domain::for_address(SocketAddr::new(destination, 0));
    // IPPROTO_RAW: the header is ours.
    let socket = netns.run(|| Socket::new(domain, Type::RAW, Some(Protocol::from(255)))).unwrap().unwrap();
    socket.send_to(&packet, &SocketAddr::new(destination, 0).into()).unwrap();
}

/// The checksum of RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u32::from(*low)));
    let sum = words.sum::<u32>();
    let sum = (sum & 0xffff) + (sum >> 16);
    !u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap()
}

/// Whether a socket gets a text, before any other.
fn gets(socket: &UdpSocket, text: &[u8]) -> bool {
    let mut buffer = [0; 64];
    socket.recv(&mut buffer).is_ok_and(|len| &buffer[..len] == text)
}

#[test]
fn a_pod_sends_with_its_own_addresses_or_not_at_all() {
    isolated(async {
        let scene = Scene::start(&cluster(), &[], ROUTED, Deny::Drop).await.unwrap();
        for family in Family::ALL {
            let end = |name| scene.endpoint(name, family).unwrap();
            let (jail, safe, friend, free) = (end("shop/jail"), end("shop/safe"), end("shop/friend"), end("open/free"));
            let nobody: IpAddr = match family {
                Family::V4 => [203, 0, 113, 9].into(),
                Family::V6 => "2001:db8::9".parse().unwrap(),
            };
            let (at_safe, at_free) = (listen(&safe), listen(&free));
            forge(&friend.netns, friend.address, safe.address, b"its own");
            assert!(gets(&at_safe, b"its own"), "{family}: what is right passes");
            for (who, from, source, to, at) in [
                ("a jailed pod as a free one", &jail, friend.address, &free, &at_free),
                ("a jailed pod as nobody", &jail, nobody, &free, &at_free),
                ("a jailed pod as its victim", &jail, safe.address, &safe, &at_safe),
                ("a jailed pod as a friend", &jail, friend.address, &safe, &at_safe),
                ("a free pod as a friend", &free, friend.address, &safe, &at_safe),
            ] {
                forge(&from.netns, source, to.address, b"forged");
                assert!(!gets(at, b"forged"), "{family}: {who}");
            }
        }
        let node = scene.netns("node/node-1").unwrap();
        let counter = node.run(|| nft(&["list", "counter", "inet", "postern", "refused-source"])).unwrap().unwrap();
        assert!(counter.contains("packets 10 "), "five of each family: {counter}");
    });
}

/// Runs `ip` in a namespace.
fn ip(netns: &Netns, arguments: &str) -> String {
    let run = || std::process::Command::new("ip").args(arguments.split(' ')).output().unwrap();
    let output = netns.run(run).unwrap();
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Gives a link an address that is good on that link only.
fn add_link_local(netns: &Netns, link: &str, address: &str) {
    ip(netns, &format!("addr add {address}/64 dev {link} nodad"));
}

/// Whether a pod gets a connection to an address of its link.
fn connects(from: &Netns, to: &str, window: Duration) -> bool {
    let scope: u32 = ip(from, "-o link show dev eth0").split(':').next().unwrap().parse().unwrap();
    let to = SocketAddrV6::new(to.parse().unwrap(), PORT, 0, scope);
    from.run(|| std::net::TcpStream::connect_timeout(&to.into(), window)).unwrap().is_ok()
}

/// The link by which a node reaches a pod.
fn link_to(node: &Netns, pod: IpAddr) -> String {
    let route = ip(node, &format!("-o route get {pod}"));
    let mut words = route.split_whitespace().skip_while(|word| *word != "dev");
    words.nth(1).unwrap_or_else(|| panic!("no link in {route}")).to_owned()
}

#[test]
fn isolated_means_isolated_on_the_link_too() {
    isolated(async {
        let scene = Scene::start(&cluster(), &[], ROUTED, Deny::Drop).await.unwrap();
        let node = scene.netns("node/node-1").unwrap();
        let _listener = node.run(|| TcpListener::bind(("::", PORT))).unwrap().unwrap();
        for (pod, may, host) in [("open/free", true, "fe80::a1"), ("shop/jail", false, "fe80::a2")] {
            let end = scene.endpoint(pod, Family::V4).unwrap();
            add_link_local(&node, &link_to(&node, end.address), host);
            add_link_local(&end.netns, "eth0", "fe80::b");
            let window = if may { PATIENCE } else { SILENCE };
            assert_eq!(connects(&end.netns, host, window), may, "{pod} to its node");
        }
    });
}

#[test]
fn on_a_bridge_link_local_addresses_are_nobodys() {
    isolated(async {
        let scene = Scene::start(&cluster(), &[], BRIDGED, Deny::Drop).await.unwrap();
        let node = scene.netns("node/node-1").unwrap();
        let end = |name| scene.endpoint(name, Family::V4).unwrap();
        let (jail, safe) = (end("shop/jail"), end("shop/safe"));
        add_link_local(&node, &link_to(&node, jail.address), "fe80::a1");
        add_link_local(&jail.netns, "eth0", "fe80::b1");
        add_link_local(&safe.netns, "eth0", "fe80::b2");
        let _listeners =
            [&node, &safe.netns].map(|netns| netns.run(|| TcpListener::bind(("::", PORT))).unwrap().unwrap());
        assert!(!connects(&jail.netns, "fe80::a1", SILENCE), "a jailed pod to its node");
        assert!(!connects(&jail.netns, "fe80::b2", SILENCE), "a jailed pod to one that may receive nothing");
        drop(scene);
        let open = pod("open/free", "node-1", "", "") + &pod("open/other", "node-1", "", "");
        let scene = Scene::start(&open, &[], BRIDGED, Deny::Drop).await.unwrap();
        let end = |name| scene.endpoint(name, Family::V4).unwrap();
        let (free, other) = (end("open/free"), end("open/other"));
        add_link_local(&free.netns, "eth0", "fe80::b1");
        add_link_local(&other.netns, "eth0", "fe80::b2");
        let _listener = other.netns.run(|| TcpListener::bind(("::", PORT))).unwrap().unwrap();
        assert!(connects(&free.netns, "fe80::b2", PATIENCE), "where nobody is isolated they may");
    });
}
