//! What is refused is told of: by real packets, and the agent's own command.

#![allow(clippy::unwrap_used, reason = "a test that cannot set up its world has failed")]

use std::io::{BufRead as _, BufReader};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use compiler::nft::LogGroup;
use integration::agent::{self, Agent, nft};
use integration::denials::{self, all, line};
use integration::node::Node;
use integration::scene::{pod, policy};
use lab::{Netns, isolated};
use netlink::log::LogReader;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

/// For what must come: a loaded machine may be slow.
const PATIENCE: Duration = Duration::from_secs(20);

const NOISY: &str = "other/noisy";

/// `db`, which friends alone reach; `jail`, which may send nothing; and others.
const PODS: [(&str, &str, u8); 5] = [
    ("shop/db", "app: db", 10),
    ("shop/jail", "app: jail", 11),
    ("shop/web", "app: web", 12),
    ("shop/friend", "app: friend", 13),
    (NOISY, "app: noisy", 14),
];

fn addresses(number: u8) -> [IpAddr; 2] {
    [format!("10.244.0.{number}").parse().unwrap(), format!("fd00:244::{number}").parse().unwrap()]
}

/// Who reaches `db`, besides those that are named here.
fn friends(more: &str) -> String {
    let from = format!("{{podSelector: {{matchLabels: {{app: friend}}}}}}{more}");
    policy("shop/db", &format!("{{podSelector: {{matchLabels: {{app: db}}}}, ingress: [{{from: [{from}]}}]}}"))
}

async fn populate(node: &mut Node) {
    let mut objects = String::new();
    for namespace in ["shop", "other"] {
        objects += &format!("---\napiVersion: v1\nkind: Namespace\nmetadata: {{name: {namespace}}}\n");
    }
    for (name, labels, _) in PODS {
        objects += &pod(name, "node-1", labels, "");
    }
    objects += &friends("");
    objects += &policy("shop/jail", "{podSelector: {matchLabels: {app: jail}}, policyTypes: [Egress]}");
    node.api.apply(&objects).await.unwrap();
    for (name, _, number) in PODS {
        node.attach(name, &addresses(number)).await.unwrap();
        node.report(name).await.unwrap();
    }
    node.until(&["shop/friend -> shop/db 80/TCP: allowed"]).await.unwrap();
}

/// Sends a datagram with any source, as whoever has CAP_NET_RAW can.
fn forge(netns: &Netns, source: Ipv4Addr, destination: Ipv4Addr) {
    // The kernel fills in the length and the checksum; that of UDP may be left out.
    let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0];
    packet.extend_from_slice(&source.octets());
    packet.extend_from_slice(&destination.octets());
    packet.extend_from_slice(&[0, 7, 0, 7, 0, 8, 0, 0]);
    // IPPROTO_RAW: the header is ours.
    let raw = || Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(255)));
    let to = SocketAddr::new(destination.into(), 0);
    netns.run(raw).unwrap().unwrap().send_to(&packet, &to.into()).unwrap();
}

fn datagram(netns: &Netns, to: IpAddr, port: u16) {
    let any: IpAddr = if to.is_ipv4() { [0; 4].into() } else { std::net::Ipv6Addr::UNSPECIFIED.into() };
    let socket = netns.run(|| UdpSocket::bind((any, 0))).unwrap().unwrap();
    socket.send_to(b"x", (to, port)).unwrap();
}

#[test]
fn each_refusal_is_told_with_pods_and_policies() {
    isolated(async {
        Node::run(async |mut node: Node| {
            populate(&mut node).await;
            let [db, db_v6] = addresses(10);
            node.until(&[
                "other/noisy -> shop/db 80/TCP: refused",
                "shop/web -> shop/db 53/UDP: refused",
                "shop/jail -> shop/web ICMP: refused",
                &format!("shop/web -> {db_v6} 81/TCP: refused"),
            ])
            .await
            .unwrap();
            let noisy =
                denials::until(&node.agent, "ingress policy other/noisy -> shop/db 80/TCP by shop/db").await.unwrap();
            assert!(noisy["count"].as_u64().unwrap() > 1 && noisy["allowed_now"] == false, "{noisy}");
            let nearest = noisy["nearest"].as_str().unwrap_or_else(|| panic!("{noisy}"));
            assert!(nearest.starts_with("shop/db ingress[0], but for podSelector: app=friend is wanted"), "{noisy}");
            denials::until(&node.agent, "ingress policy shop/web -> shop/db 53/UDP by shop/db").await.unwrap();
            denials::until(&node.agent, "egress policy shop/jail -> shop/web ICMP by shop/jail").await.unwrap();
            denials::until(&node.agent, "egress policy shop/jail -> shop/web ICMPv6 by shop/jail").await.unwrap();
            let v6 = denials::until(&node.agent, "ingress policy shop/web -> shop/db 81/TCP by shop/db").await.unwrap();
            assert_eq!(v6["destination"]["address"], db_v6.to_string());

            // Who is behind the link has sent it, whatever it says.
            let IpAddr::V4(db) = db else { panic!("{db}") };
            forge(node.lab.pod(NOISY).unwrap(), [203, 0, 113, 9].into(), db);
            let forged = denials::until(&node.agent, "egress source other/noisy -> shop/db 7/UDP").await.unwrap();
            assert_eq!(forged["source"]["address"], "203.0.113.9", "{forged}");
            assert!(forged["link"].is_string() && forged.get("allowed_now").is_none(), "{forged}");

            // Whoever follows is shown it when it is told of.
            let follow = ["denials", "--follow", "--since", "1m", "-o", "json", "--socket"];
            let mut follower = Command::new(agent::binary().unwrap());
            let follower = follower.args(follow).arg(node.agent.socket()).stdout(Stdio::piped());
            let mut follower = follower.spawn().unwrap();
            let mut lines = BufReader::new(follower.stdout.take().unwrap()).lines();
            // They have not been told of yet.
            datagram(node.lab.pod("shop/jail").unwrap(), addresses(13)[0], 999);
            let shown = spawn_blocking(move || lines.any(|line| line.unwrap().contains("\"port\":999,")));
            assert!(timeout(PATIENCE, shown).await.expect("what is refused is shown").unwrap());
            follower.kill().unwrap();
            follower.wait().unwrap();

            // The rules that would let it pass by now.
            node.api
                .apply(&friends(", {namespaceSelector: {}, podSelector: {matchLabels: {app: noisy}}}"))
                .await
                .unwrap();
            node.until(&["other/noisy -> shop/db 80/TCP: allowed"]).await.unwrap();
            let noisy =
                denials::until(&node.agent, "ingress policy other/noisy -> shop/db 80/TCP by shop/db").await.unwrap();
            assert!(noisy["allowed_now"] == true && noisy.get("nearest").is_none(), "{noisy}");
            let (_, text, _) = denials::run(&node.agent.socket(), &["--pod", NOISY, "-n", "shop"]).unwrap();
            let is_told = |line: &str| {
                line.contains("ingress other/noisy (10.244.0.14) -> shop/db (")
                    && line.ends_with(" 80/TCP: policy, isolated by shop/db; WOULD BE ALLOWED NOW")
            };
            // The last one may have come by IPv6.
            let is_told_v6 = |line: &str| is_told(&line.replace("fd00:244::14", "10.244.0.14"));
            assert!(text.lines().any(is_told_v6), "{text}");

            assert!(all(&node.agent, &["--pod", "shop/jail"]).unwrap().iter().all(|d| line(d).contains("shop/jail")));
            assert!(all(&node.agent, &["-n", "other"]).unwrap().iter().all(|d| line(d).contains(NOISY)));
            assert!(
                node.agent.metric("postern_denials_total{direction=\"egress\",reason=\"source\"}").await.unwrap()
                    >= 1.0
            );
            assert!(
                node.agent.metric("postern_denials_total{direction=\"ingress\",reason=\"policy\"}").await.unwrap()
                    > 2.0
            );
        })
        .await
        .unwrap();
    });
}

#[test]
fn a_flood_hides_nobody_and_costs_no_memory() {
    isolated(async {
        Node::run(async |mut node: Node| {
            populate(&mut node).await;
            let [db, db_v6] = addresses(10);
            let [jail, noisy, web] = ["shop/jail", NOISY, "shop/web"].map(|name| node.lab.pod(name).unwrap().clone());
            let memory = node.agent.metric("process_resident_memory_bytes").await.unwrap();
            // To one pod by ever other ports, and to ever other addresses.
            for port in 1..=10_000 {
                datagram(&noisy, db, port);
                let [a, b] = port.to_be_bytes();
                datagram(&jail, [203, 0, a, b].into(), 9);
            }
            datagram(&web, db, 77);
            datagram(&web, db_v6, 78);
            denials::until(&node.agent, "ingress policy shop/web -> shop/db 77/UDP by shop/db").await.unwrap();
            denials::until(&node.agent, "ingress policy shop/web -> shop/db 78/UDP by shop/db").await.unwrap();
            let told = all(&node.agent, &[]).unwrap();
            let of = |pod: &str| told.iter().filter(|denial| denial["source"]["pod"] == pod).count();
            assert!(of(NOISY) < 200 && of("shop/jail") < 200, "{} and {} are told", of(NOISY), of("shop/jail"));
            let untold = node.agent.metric("postern_denials_untold_total{why=\"limit\"}").await.unwrap();
            assert!(untold > 19_000.0, "{untold}");
            let denied = node.agent.metric("postern_denied_packets_total{direction=\"egress\"}").await.unwrap();
            assert!(denied >= 10_000.0, "what is not told of is refused all the same: {denied}");
            let grown = node.agent.metric("process_resident_memory_bytes").await.unwrap() - memory;
            assert!(grown < 4e6, "{grown} bytes more");
        })
        .await
        .unwrap();
    });
}

#[test]
fn what_is_told_goes_on_after_a_restart_and_can_be_switched_off() {
    isolated(async {
        Node::run(async |mut node: Node| {
            populate(&mut node).await;
            // Meanwhile nobody listens, and packets are refused.
            let kubeconfig = node.api.kubeconfig();
            let start = |arguments: &[&str]| {
                let api = ["--kubeconfig", kubeconfig.to_str().unwrap()];
                Agent::start(&[&api[..], arguments].concat()).unwrap()
            };
            node.agent.kill().unwrap();
            node.until(&["shop/web -> shop/db 80/TCP: refused"]).await.unwrap();
            // Nor does the next one hear anything, as long as somebody else listens.
            let other = LogReader::open(LogGroup::default()).unwrap();
            node.agent = start(&["--log-denials"]);
            let busy = "note: refused packets are counted, but not told of: another program listens to group 9471";
            node.agent.until_readyz(|code, text| code == 200 && text.contains(busy)).await.unwrap();
            let (_, _, told) = denials::run(&node.agent.socket(), &[]).unwrap();
            assert!(told.contains(busy), "{told}");
            drop(other);
            node.agent.until_readyz(|code, text| code == 200 && !text.contains(busy)).await.unwrap();
            node.until(&["shop/web -> shop/db 81/TCP: refused"]).await.unwrap();
            denials::until(&node.agent, "ingress policy shop/web -> shop/db 81/TCP by shop/db").await.unwrap();
            let log = node.agent.log().unwrap();
            let line = log.lines().find(|line| line.contains("denied what=\"shop/web (") && line.contains("81/TCP"));
            let line = line.unwrap_or_else(|| panic!("{log}"));
            assert!(line.contains("nearest=\"shop/db ingress[0], but for "), "{line}");

            // Nobody else is told: not by the address that everybody reaches, and the socket is root's alone.
            assert_eq!(node.agent.get("/denials").await.unwrap().0, 404);
            let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
            let socket = node.agent.socket();
            assert_eq!((mode(&socket), mode(socket.parent().unwrap())), (0o600, 0o700));

            node.agent.kill().unwrap();
            node.agent = start(&["--denials", "off"]);
            node.agent.ready().await.unwrap();
            let table = nft(&["list", "table", "inet", "postern"]).unwrap();
            assert!(!table.contains("log ") && !table.contains("denials"), "{table}");
            node.until(&["shop/web -> shop/db 80/TCP: refused"]).await.unwrap();
            let (code, out, told) = denials::run(&node.agent.socket(), &[]).unwrap();
            assert_eq!((code, out.as_str()), (Some(0), ""));
            assert!(told.contains("--denials=off"), "{told}");
        })
        .await
        .unwrap();
    });
}

#[test]
fn bad_input_and_missing_agents_are_named() {
    let nowhere = Path::new("/nonexistent/agent.sock");
    let (code, _, told) = denials::run(nowhere, &[]).unwrap();
    assert_eq!(code, Some(2));
    assert!(told.contains("cannot ask the agent at /nonexistent/agent.sock") && told.contains("root"), "{told}");
    let (code, _, told) = denials::run(nowhere, &["--pod", "web"]).unwrap();
    assert!(code == Some(2) && told.contains("--pod \"web\" is not NAMESPACE/NAME"), "{told}");
    let (code, _, told) = denials::run(nowhere, &["--since", "soon"]).unwrap();
    assert!(code == Some(2) && told.contains("--since"), "{told}");
}
