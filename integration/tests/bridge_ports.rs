//! What one port of a bridge may send another, where neither an address nor the rules of the node say whose it is.

#![allow(clippy::unwrap_used, reason = "a test that cannot set up its world has failed")]

use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::process::{self, Command};
use std::time::{Duration, Instant};

use integration::agent::{Agent, loopback_up, nft};
use integration::denials;
use lab::{Netns, isolated};
use smoltcp::phy::{Device, Medium, RawSocket, TxToken};

/// For what must come: a loaded machine may be slow.
const PATIENCE: Duration = Duration::from_secs(20);
/// For what must not.
const SILENCE: Duration = Duration::from_millis(400);
const PORT: u16 = 5353;
/// Those of mDNS (RFC 6762).
const GROUP_V4: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 251);
const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfb);

/// Runs `ip` in the network namespace of the calling thread.
fn ip(arguments: &str) -> String {
    let output = Command::new("ip").args(arguments.split(' ')).output().unwrap();
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A pod on `cni0`, with `10.2.0.<number>` and `fd02::<number>`.
struct Pod {
    name: &'static str,
    netns: Netns,
    number: u8,
    /// Its hardware address.
    station: [u8; 6],
}

impl Pod {
    fn new(name: &'static str, number: u8) -> Pod {
        let netns = Netns::new().unwrap();
        let node = process::id();
        let set_up = || {
            ip("link set lo up");
            ip(&format!("link add eth0 type veth peer name v-{name} netns {node}"));
            let station = format!("02:00:00:00:00:{number:02x}");
            ip(&format!("link set eth0 address {station} up"));
            ip(&format!("addr add 10.2.0.{number}/24 brd + dev eth0"));
            ip(&format!("addr add fd02::{number}/64 dev eth0 nodad"));
            ip("route add default via 10.2.0.1");
        };
        netns.run(set_up).unwrap();
        ip(&format!("link set v-{name} master cni0 up"));
        Pod { name, netns, number, station: [2, 0, 0, 0, 0, number] }
    }

    fn v4(&self) -> SocketAddr {
        (Ipv4Addr::new(10, 2, 0, self.number), PORT).into()
    }

    /// A socket that hears the groups, too.
    fn listen(&self) -> [UdpSocket; 2] {
        let bind = || {
            let v4 = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT)).unwrap();
            v4.join_multicast_v4(&GROUP_V4, &Ipv4Addr::UNSPECIFIED).unwrap();
            let v6 = socket2::Socket::new(socket2::Domain::IPV6, socket2::Type::DGRAM, None).unwrap();
            v6.set_only_v6(true).unwrap();
            v6.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, PORT)).into()).unwrap();
            v6.join_multicast_v6(&GROUP_V6, eth0()).unwrap();
            [v4, v6.into()]
        };
        let sockets = self.netns.run(bind).unwrap();
        sockets.iter().for_each(|socket| socket.set_read_timeout(Some(SILENCE)).unwrap());
        sockets
    }

    /// Sends a text to an address, from the pod's own.
    fn send(&self, to: SocketAddr, text: &str) {
        let send = || {
            let own = if to.is_ipv4() { "0.0.0.0:0".to_owned() } else { format!("[fd02::{}]:0", self.number) };
            let socket = UdpSocket::bind(own).unwrap();
            socket.set_broadcast(true).unwrap();
            socket.send_to(text.as_bytes(), to).unwrap();
        };
        self.netns.run(send).unwrap();
    }
}

impl Pod {
    /// Sends another pod a datagram in a frame with these tags, as whoever has CAP_NET_RAW can.
    fn send_frame(&self, to: &Pod, tags: &[u8], text: &[u8]) {
        let udp_len = u16::try_from(8 + text.len()).unwrap();
        // Without checksums of UDP, which may be left out.
        let udp = [&PORT.to_be_bytes()[..], &PORT.to_be_bytes(), &udp_len.to_be_bytes(), &[0, 0], text].concat();
        let mut ip = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 10, 2, 0, self.number, 10, 2, 0, to.number];
        ip[2..4].copy_from_slice(&(20 + udp_len).to_be_bytes());
        let words = ip.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
        let sum = words.sum::<u32>();
        ip[10..12].copy_from_slice(&(!u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap()).to_be_bytes());
        let frame = [&to.station[..], &self.station, tags, &[8, 0], &ip, &udp].concat();
        let send = || {
            let mut socket = RawSocket::new("eth0", Medium::Ethernet).unwrap();
            let token = socket.transmit(smoltcp::time::Instant::ZERO).unwrap();
            token.consume(frame.len(), |buffer| buffer.copy_from_slice(&frame));
        };
        self.netns.run(send).unwrap();
    }

    fn yaml(&self) -> String {
        let (name, number) = (self.name, self.number);
        format!(
            "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: {name}}}}}\n\
             spec: {{nodeName: node-1, containers: [{{name: main, image: example.test/main}}]}}\n\
             status: {{phase: Running, podIPs: [{{ip: 10.2.0.{number}}}, {{ip: 'fd02::{number}'}}]}}\n"
        )
    }
}

/// The index of the pod's link in the calling thread's network namespace.
fn eth0() -> u32 {
    ip("-o link show dev eth0").split(':').next().unwrap().parse().unwrap()
}

/// Whether one of the sockets gets a text, before any other.
fn hears(sockets: &[UdpSocket], text: &str) -> bool {
    let mut buffer = [0; 64];
    sockets.iter().any(|socket| socket.recv(&mut buffer).is_ok_and(|len| &buffer[..len] == text.as_bytes()))
}

/// Addresses at which everybody on the bridge is meant.
fn many(pod: &Pod) -> [SocketAddr; 4] {
    let scope = pod.netns.run(eth0).unwrap();
    [
        (Ipv4Addr::new(10, 2, 0, 255), PORT).into(),
        (Ipv4Addr::BROADCAST, PORT).into(),
        (GROUP_V4, PORT).into(),
        std::net::SocketAddrV6::new(GROUP_V6, PORT, 0, scope).into(),
    ]
}

/// Ingress to the pod of a name.
fn ingress(name: &str, rules: &str) -> String {
    format!(
        "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: {name}}}\n\
         spec: {{podSelector: {{matchLabels: {{app: {name}}}}}, policyTypes: [Ingress], ingress: {rules}}}\n"
    )
}

/// A bridge with a free pod, another, one that may receive nothing and one that may send nothing, and their agent.
async fn start(folder: &Path) -> (Agent, [Pod; 4]) {
    start_with(folder, &[]).await
}

async fn start_with(folder: &Path, arguments: &[&str]) -> (Agent, [Pod; 4]) {
    loopback_up().unwrap();
    ip("link add cni0 type bridge");
    ip("addr add 10.2.0.1/24 dev cni0");
    ip("link set cni0 up");
    let names = ["free", "other", "shut", "jail"];
    let pods = [2, 3, 4, 5].map(|number| Pod::new(names[usize::from(number) - 2], number));
    let mut yaml = pods.iter().map(Pod::yaml).collect::<String>();
    yaml += &ingress("shut", "[]");
    yaml += "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: jail}\n\
             spec: {podSelector: {matchLabels: {app: jail}}, policyTypes: [Egress]}\n";
    fs::write(folder.join("cluster.yaml"), yaml).unwrap();
    let mut agent = Agent::start(&[&["-f", folder.to_str().unwrap()], arguments].concat()).unwrap();
    agent.ready().await.unwrap();
    (agent, pods)
}

/// The packets that a counter of the table of bridges has counted.
fn counted(name: &str) -> u64 {
    let listing = nft(&["list", "counter", "bridge", "postern", name]).unwrap();
    let mut words = listing.split_whitespace().skip_while(|word| *word != "packets");
    words.nth(1).unwrap().parse().unwrap()
}

/// Makes the node learn who is behind a port: it has to, to send something itself.
fn speak_to(pod: &Pod) {
    UdpSocket::bind("0.0.0.0:0").unwrap().send_to(b"hello", pod.v4()).unwrap();
}

#[test]
fn what_is_for_many_reaches_only_who_may_be_reached() {
    isolated(async {
        let folder = tempfile::tempdir().unwrap();
        let (agent, [free, other, shut, jail]) = start(folder.path()).await;
        let (at_other, at_shut) = (other.listen(), shut.listen());
        [&free, &other, &shut, &jail].into_iter().for_each(speak_to);
        // A free pod's port is open once it is known to be a free pod's.
        let begun = Instant::now();
        for to in many(&free) {
            while !hears(&at_other, "for all") {
                assert!(begun.elapsed() < PATIENCE, "to {to}: {}", nft(&["list", "ruleset"]).unwrap());
                free.send(to, "for all");
            }
        }
        for to in many(&free) {
            free.send(to, "for shut");
            assert!(!hears(&at_shut, "for shut"), "to {to}");
        }
        assert!(counted("refused-destination") >= 8);
        let told = denials::until(&agent, "ingress destination default/free -> ").await.unwrap();
        assert_eq!(told["link"], "v-free", "{told}");
        // Who may send nothing sends nothing to many either. That is for the rules of the node to see.
        for to in many(&jail) {
            jail.send(to, "from jail");
            assert!(!hears(&at_other, "from jail"), "to {to}");
        }
        // What is for one pod is judged as ever, and a rule that is for everybody is for many.
        free.send(other.v4(), "for one");
        assert!(hears(&at_other, "for one"));
        let everybody =
            ingress("shut", "[{from: [{ipBlock: {cidr: 0.0.0.0/0}}], ports: [{port: 5353, protocol: UDP}]}]");
        fs::write(folder.path().join("open.yaml"), everybody.replace("name: shut}\n", "name: open}\n")).unwrap();
        let begun = Instant::now();
        while !hears(&at_shut, "opened") {
            assert!(begun.elapsed() < PATIENCE, "{}", nft(&["list", "ruleset"]).unwrap());
            free.send((GROUP_V4, PORT).into(), "opened");
        }
        // The rules hold without an agent, and are the same with its successor.
        agent.terminate().unwrap();
        fs::remove_file(folder.path().join("open.yaml")).unwrap();
        let mut agent = Agent::start(&["-f", folder.path().to_str().unwrap()]).unwrap();
        agent.ready().await.unwrap();
        for to in many(&free) {
            free.send(to, "shut again");
            assert!(!hears(&at_shut, "shut again"), "to {to}");
        }
    });
}

#[test]
fn tagged_frames_go_around_no_rule() {
    isolated(async {
        let folder = tempfile::tempdir().unwrap();
        let (agent, [free, _, shut, jail]) = start(folder.path()).await;
        let (at_free, at_shut) = (free.listen(), shut.listen());
        let (customer, service) = (&[0x81, 0, 0, 0][..], &[0x88, 0xa8, 0, 0][..]);
        let mut refused = 0;
        for (name, tags) in [("802.1Q", customer.to_vec()), ("802.1ad", service.to_vec()), ("two", customer.repeat(2))]
        {
            for (to, at) in [(&free, &at_free), (&shut, &at_shut)] {
                jail.send_frame(to, &tags, b"tagged");
                assert!(!hears(at, "tagged"), "{name}, to {}", to.v4());
                refused += 1;
                assert_eq!(counted("refused-tag"), refused, "{name}, to {}", to.v4());
            }
        }
        assert_eq!(agent.metric("postern_refused_tag_packets_total").await.unwrap(), 6.0);
        // Whose an address in such a frame is nobody says.
        for to in [&free, &shut] {
            let due = format!("egress tag {} -> default/{} {PORT}/UDP", jail.v4().ip(), to.name);
            let told = denials::until(&agent, &due).await.unwrap();
            assert!(told["count"] == 3 && told["link"] == "v-jail", "{told}");
        }
        // Who was let in by none of them is not known to connection tracking either.
        jail.send_frame(&shut, &[], b"plain");
        assert!(!hears(&at_shut, "plain"));
        // The same frames, where nobody is isolated.
        fs::write(folder.path().join("cluster.yaml"), [&free, &shut, &jail].map(Pod::yaml).concat()).unwrap();
        agent.until_table(|table| !table.contains("jail")).await.unwrap();
        jail.send_frame(&free, customer, b"free");
        assert!(hears(&at_free, "free"), "such frames would arrive");
    });
}

/// What libcni writes when a pod's network stands.
fn write_result(folder: &Path, pod: &Pod) {
    let (name, number) = (pod.name, pod.number);
    let content = format!(
        r#"{{"kind": "cniCacheV1", "containerId": "{name}", "networkName": "net", "ifName": "eth0",
            "cniArgs": [["K8S_POD_NAMESPACE", "default"], ["K8S_POD_NAME", "{name}"]],
            "result": {{"cniVersion": "1.0.0",
                "interfaces": [{{"name": "cni0"}}, {{"name": "v-{name}"}}, {{"name": "eth0", "sandbox": "/any"}}],
                "ips": [{{"interface": 2, "address": "10.2.0.{number}/24"}}, {{"interface": 2, "address": "fd02::{number}/64"}}]}}}}"#
    );
    fs::write(folder.join(format!("net-{name}-eth0")), content).unwrap();
}

#[test]
fn by_its_port_a_pod_sends_with_its_own_addresses_or_not_at_all() {
    isolated(async {
        let (folder, results) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (agent, pods) = start_with(folder.path(), &["--cni-results", results.path().to_str().unwrap()]).await;
        let [free, other, shut, jail] = &pods;
        pods.iter().for_each(|pod| write_result(results.path(), pod));
        let begun = Instant::now();
        while !nft(&["list", "ruleset"]).unwrap().contains("own-ports") {
            assert!(begun.elapsed() < PATIENCE, "{}", agent.log().unwrap());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let (at_other, at_shut) = (other.listen(), shut.listen());
        free.send_frame(other, &[], b"its own");
        assert!(hears(&at_other, "its own"));
        // A socket's own packets pass, and neighbours are still found, in both families.
        free.send(other.v4(), "by its socket");
        assert!(hears(&at_other, "by its socket"));
        let v6 = SocketAddr::new(Ipv6Addr::new(0xfd02, 0, 0, 0, 0, 0, 0, u16::from(other.number)).into(), PORT);
        free.send(v6, "by the other family");
        assert!(hears(&at_other, "by the other family"));
        for (who, from, as_whom, to, at) in [
            ("a jailed pod as a free one", jail, free, other, &at_other),
            ("a free pod as another", free, jail, other, &at_other),
            ("a free pod as its victim", free, shut, shut, &at_shut),
        ] {
            let forged =
                Pod { name: from.name, netns: from.netns.clone(), number: as_whom.number, station: from.station };
            forged.send_frame(to, &[], b"forged");
            assert!(!hears(at, "forged"), "{who}");
        }
        assert_eq!(counted("refused-source"), 3);
        assert_eq!(agent.metric("postern_refused_source_packets_total").await.unwrap(), 3.0);
        denials::until(&agent, "egress source default/jail -> default/other").await.unwrap();
        denials::until(&agent, "egress source default/free -> default/shut").await.unwrap();
    });
}
