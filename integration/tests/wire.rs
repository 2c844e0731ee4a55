//! Fragments, and the ICMP errors that come back for packets: what the path says, and what a refusal says.

#![allow(clippy::unwrap_used, reason = "a test that cannot set up its world has failed")]

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use compiler::nft::{Deny, Family};
use integration::scene::{Scene, Shape, pod, policy};
use lab::{Endpoint, Flow, Netns, Outcome, Probe, Protocol, isolated};
use socket2::{Domain, Protocol as IpProtocol, Socket, Type};

/// For what must come: a loaded machine may be slow.
const PATIENCE: Duration = Duration::from_secs(10);

fn ip(netns: &Netns, arguments: &str) -> String {
    let run = || std::process::Command::new("ip").args(arguments.split(' ')).output().unwrap();
    let output = netns.run(run).unwrap();
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Two isolated pods that may talk by UDP on port 7, and by nothing else.
fn udp_only() -> String {
    let peer = "[{podSelector: {}}]";
    let ports = "[{protocol: UDP, port: 7}]";
    let spec = format!(
        "{{podSelector: {{}}, policyTypes: [Ingress, Egress], ingress: [{{from: {peer}, ports: {ports}}}], \
         egress: [{{to: {peer}, ports: {ports}}}]}}"
    );
    pod("shop/near", "node-1", "", "") + &pod("shop/far", "node-2", "", "") + &policy("shop/udp-only", &spec)
}

#[test]
fn fragments_of_a_large_datagram_pass_and_are_refused_together() {
    isolated(async {
        for shape in Shape::ALL {
            let scene = Scene::start(&udp_only(), &[], shape, Deny::Drop).await.unwrap();
            for family in Family::ALL {
                let (near, far) =
                    (scene.endpoint("shop/near", family).unwrap(), scene.endpoint("shop/far", family).unwrap());
                let mut flow =
                    Flow::open(&Probe::new(near.clone(), far.clone(), Protocol::Udp, 7), PATIENCE).await.unwrap();
                let sent = flow.exchange(8_000, PATIENCE).await;
                assert_eq!(sent, Outcome::Allowed, "{shape:?} {family}");

                // Not a part of it arrives where the port is closed: the first fragment alone shows the port.
                let before = datagrams_received(&far.netns, family);
                let socket = socket_of(&near);
                for _ in 0..3 {
                    socket.send_to(&[0; 8_000], SocketAddr::new(far.address, 8)).unwrap();
                }
                let again = flow.exchange(8, PATIENCE).await;
                assert_eq!(again, Outcome::Allowed, "{shape:?} {family}");
                let after = datagrams_received(&far.netns, family);
                assert_eq!(after - before, 1, "{shape:?} {family}: packets that reached the pod");
            }
        }
    });
}

/// A socket of an end, bound to its address.
fn socket_of(end: &Endpoint) -> UdpSocket {
    end.netns.run(|| UdpSocket::bind((end.address, 0))).unwrap().unwrap()
}

/// The UDP datagrams and fragments of any that a namespace has received, whether or not anybody listened.
fn datagrams_received(netns: &Netns, family: Family) -> u64 {
    let read = |file: &str| netns.run(|| std::fs::read_to_string(file)).unwrap().unwrap();
    match family {
        Family::V4 => {
            let text = read("/proc/thread-self/net/snmp");
            let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split(' ').collect()).collect();
            let value = |protocol: &str, name: &str| {
                let mut rows = rows.iter().filter(|row| row[0] == protocol);
                let (names, values) = (rows.next().unwrap(), rows.next().unwrap());
                values[names.iter().position(|found| *found == name).unwrap()].parse::<u64>().unwrap()
            };
            value("Udp:", "InDatagrams") + value("Udp:", "NoPorts") + value("Ip:", "ReasmReqds")
        }
        Family::V6 => {
            let text = read("/proc/thread-self/net/snmp6");
            let value = |name: &str| {
                let mut pairs = text.lines().filter_map(|line| line.split_once(char::is_whitespace));
                pairs.find(|(found, _)| *found == name).unwrap().1.trim().parse::<u64>().unwrap()
            };
            value("Udp6InDatagrams") + value("Udp6NoPorts") + value("Ip6ReasmReqds")
        }
    }
}

#[test]
fn packet_too_big_reaches_an_isolated_pod() {
    isolated(async {
        let scene = Scene::start(&udp_only(), &[], Shape::ALL[1], Deny::Drop).await.unwrap();
        let node_1 = scene.netns("node/node-1").unwrap();
        // The last link, from its node to the pod, takes no more than 1280 bytes; the far pod is not told.
        let near = scene.address("shop/near", Family::V4).unwrap();
        let route = ip(&node_1, &format!("-o route get {near}"));
        let mut words = route.split_whitespace().skip_while(|word| *word != "dev");
        let link = words.nth(1).unwrap_or_else(|| panic!("no link in {route}"));
        ip(&node_1, &format!("link set {link} mtu 1280"));
        ip(&scene.netns("shop/near").unwrap(), "link set eth0 mtu 1280");
        for family in Family::ALL {
            let (far, near) =
                (scene.endpoint("shop/far", family).unwrap(), scene.endpoint("shop/near", family).unwrap());
            let opened = Flow::open(&Probe::new(far.clone(), near.clone(), Protocol::Udp, 7), PATIENCE).await;
            let mut flow = opened.unwrap_or_else(|outcome| panic!("{family}: {outcome}"));
            // The kernel forbids fragments on the way until it is told that the packet is too big. Then it tells the
            // program, or sends fragments.
            let first = flow.exchange(1_400, PATIENCE).await;
            assert_ne!(first, Outcome::Refused, "{family}");
            let second = flow.exchange(1_400, PATIENCE).await;
            assert_eq!(second, Outcome::Allowed, "{family}");
            let learnt = ip(&far.netns, &format!("route get {}", near.address));
            assert!(learnt.contains("mtu 1280"), "{family}: {learnt}");
        }
    });
}

#[test]
fn icmp_of_no_flow_does_not_pass_for_upkeep_of_the_network() {
    isolated(async {
        for shape in Shape::ALL {
            let scene = Scene::start(&udp_only(), &[], shape, Deny::Drop).await.unwrap();
            for (family, kinds) in [(Family::V4, &[3][..]), (Family::V6, &[2, 133, 137])] {
                let (near, far) =
                    (scene.endpoint("shop/near", family).unwrap(), scene.endpoint("shop/far", family).unwrap());
                let opened = Flow::open(&Probe::new(near.clone(), far.clone(), Protocol::Udp, 7), PATIENCE).await;
                let mut flow = opened.unwrap_or_else(|outcome| panic!("{shape:?} {family}: {outcome}"));
                for &kind in kinds {
                    let before = icmp_received(&far.netns, family, kind);
                    (0..3).for_each(|_| send_icmp(&near, &far, kind));
                    assert_eq!(flow.exchange(8, PATIENCE).await, Outcome::Allowed, "{shape:?} {family}");
                    let received = icmp_received(&far.netns, family, kind) - before;
                    assert_eq!(received, 0, "{shape:?} {family}: messages of type {kind} that reached the pod");
                }
            }
        }
    });
}

/// Sends data in an ICMP message of a type that says that it is about the network.
fn send_icmp(from: &Endpoint, to: &Endpoint, kind: u8) {
    let to = SocketAddr::new(to.address, 0);
    let (domain, protocol) =
        (Domain::for_address(to), if to.is_ipv4() { IpProtocol::ICMPV4 } else { IpProtocol::ICMPV6 });
    let socket = from.netns.run(|| Socket::new(domain, Type::RAW, Some(protocol))).unwrap().unwrap();
    let mut message = [0; 64];
    message[0] = kind;
    if to.is_ipv4() {
        // Fragmentation needed, for an MTU of 1280, with the checksum of that. The kernel adds that of ICMPv6.
        message[1..8].copy_from_slice(&[4, 0xf7, 0xfb, 0, 0, 5, 0]);
    } else {
        // Neighbour discovery with 255 passes where no router is between.
        socket.set_unicast_hops_v6(254).unwrap();
    }
    socket.send_to(&message, &to.into()).unwrap();
}

/// How many ICMP messages of a type a namespace has received.
fn icmp_received(netns: &Netns, family: Family, kind: u8) -> u64 {
    let read = |file: &str| netns.run(|| std::fs::read_to_string(file)).unwrap().unwrap();
    // The kernel lists the types of which there were any.
    match family {
        Family::V4 => {
            let text = read("/proc/thread-self/net/snmp");
            let mut rows = text.lines().filter_map(|line| line.strip_prefix("IcmpMsg: "));
            let (Some(names), Some(values)) = (rows.next(), rows.next()) else { return 0 };
            let name = format!("InType{kind}");
            let mut pairs = names.split(' ').zip(values.split(' '));
            pairs.find(|(found, _)| *found == name).map_or(0, |(_, value)| value.parse().unwrap())
        }
        Family::V6 => {
            let text = read("/proc/thread-self/net/snmp6");
            let name = format!("Icmp6InType{kind}");
            let mut pairs = text.lines().filter_map(|line| line.split_once(char::is_whitespace));
            pairs.find(|(found, _)| *found == name).map_or(0, |(_, value)| value.trim().parse().unwrap())
        }
    }
}

#[test]
fn refused_by_reject_is_told_and_refused_by_drop_is_not() {
    isolated(async {
        let yaml = pod("shop/web", "node-1", "app: web", "")
            + &pod("shop/quiet", "node-1", "app: quiet", "")
            + &pod("open/client", "node-2", "", "")
            + &policy("shop/deny-all", "{podSelector: {}, policyTypes: [Ingress, Egress]}");
        for shape in Shape::ALL {
            let lines = |answer: &str| {
                let pairs = ["open/client -> shop/web", "shop/quiet -> open/client", "shop/quiet -> node/node-1"];
                let protocols = ["80/TCP", "80/UDP", "80/SCTP", "ICMP"];
                let line = |pair: &&str| protocols.map(|protocol| format!("{pair} {protocol}: {answer}"));
                pairs.iter().flat_map(line).collect::<Vec<String>>()
            };
            for (deny, answer) in [(Deny::Drop, "refused"), (Deny::Reject, "rejected")] {
                let scene = Scene::start(&yaml, &[], shape, deny).await.unwrap();
                let lines = lines(answer);
                let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
                scene.check(&lines).await.unwrap_or_else(|wrong| panic!("{shape:?}:\n{wrong:?}"));
                if deny == Deny::Reject {
                    rejections(&scene);
                }
            }
        }
    });
}

/// What a program learns that is rejected: a reset of its connection, and a prohibition for its datagram.
fn rejections(scene: &Scene) {
    for family in Family::ALL {
        let (client, web) =
            (scene.endpoint("open/client", family).unwrap(), scene.endpoint("shop/web", family).unwrap());
        let to = SocketAddr::new(web.address, 80);
        let connected = client.netns.run(|| TcpStream::connect_timeout(&to, PATIENCE)).unwrap();
        assert_eq!(connected.unwrap_err().kind(), ErrorKind::ConnectionRefused, "{family}");
        let socket = socket_of(&client);
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.connect(to).unwrap();
        socket.send(b"hello").unwrap();
        let prohibited = match family {
            Family::V4 => ErrorKind::HostUnreachable,
            Family::V6 => ErrorKind::PermissionDenied,
        };
        assert_eq!(socket.recv(&mut [0; 8]).unwrap_err().kind(), prohibited, "{family}");
    }
}
