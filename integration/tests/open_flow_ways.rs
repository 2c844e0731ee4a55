//! The ways by which open flows come to be forbidden, and what becomes of those that are not as others are: through a
//! Service, half-closed, answered late.

#![allow(clippy::unwrap_used, reason = "a test that cannot set up its world has failed")]

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use compiler::nft::Family;
use integration::agent::nft;
use integration::live::{Live, Protection};
use integration::scene::{pod, policy};
use lab::{Attachment, Endpoint, Flow, Outcome, Probe, Protocol, Responder, isolated};

/// For what must come: a loaded machine may be slow.
const PATIENCE: Duration = Duration::from_secs(20);
/// Those that have flows to keep.
const PROTOCOLS: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
/// For what must not.
const SILENCE: Duration = Duration::from_millis(600);

/// A web server, a client on its node and one on another.
fn cluster() -> String {
    pod("shop/web", "node-1", "app: web", "")
        + &pod("shop/near", "node-1", "app: client", "")
        + &pod("shop/far", "node-2", "app: client", "")
}

/// A policy of the web server with these entries of `ingress`.
fn ingress(rule: &str) -> String {
    policy("shop/web", &format!("{{podSelector: {{matchLabels: {{app: web}}}}, ingress: [{rule}]}}"))
}

/// Ingress to the web server on one port.
fn only(port: u16) -> String {
    let ports = PROTOCOLS.map(|protocol| format!("{{port: {port}, protocol: {}}}", protocol.as_str()));
    ingress(&format!("{{ports: [{}]}}", ports.join(", ")))
}

async fn start(attachment: Attachment) -> Live {
    Live::start(&cluster(), attachment, Protection::Owned).await.unwrap()
}

/// Waits until what the agents know is in force, and they have looked through the open flows of the first node.
async fn is_reviewed(live: &mut Live) {
    live.settled().await.unwrap();
    let (begun, node) = (Instant::now(), live.netns(0));
    let table = || node.run(|| nft(&["list", "table", "inet", "postern"])).unwrap().unwrap();
    while table().contains("set rejudged-") {
        assert!(begun.elapsed() < PATIENCE, "{}", table());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn all_are(what: &str, flows: &mut [Flow], expected: Outcome) {
    let window = if expected == Outcome::Allowed { PATIENCE } else { SILENCE };
    for (index, flow) in flows.iter_mut().enumerate() {
        assert_eq!(flow.exchange(64, window).await, expected, "{what}: flow {index}");
    }
}

/// One flow by each protocol and family, from a client to a port of the web server.
async fn open(live: &Live, client: &str, port: u16) -> Vec<Flow> {
    let mut flows = Vec::new();
    for family in Family::ALL {
        for protocol in PROTOCOLS {
            let (from, to) = (live.endpoint(client, family).unwrap(), live.endpoint("shop/web", family).unwrap());
            flows.push(Flow::open(&Probe::new(from, to, protocol, port), PATIENCE).await.unwrap());
        }
    }
    flows
}

#[test]
fn a_peer_that_is_none_any_more_is_cut_and_its_like_go_on() {
    isolated(async {
        let clients = "{from: [{podSelector: {matchLabels: {app: client}}}]}";
        let everybody = "{from: [{ipBlock: {cidr: 0.0.0.0/0}}, {ipBlock: {cidr: '::/0'}}]}";
        type Narrow = fn(&mut Live);
        let ways: [(&str, &str, Narrow); 3] = [
            ("its labels", clients, |live| live.apply(&pod("shop/near", "node-1", "app: other", "")).unwrap()),
            ("its deletion", clients, |live| live.delete_pod("shop/near")),
            ("an exception of the block", everybody, |live| {
                let [v4, v6] = Family::ALL.map(|family| live.endpoint("shop/near", family).unwrap().address);
                let rule = format!(
                    "{{from: [{{ipBlock: {{cidr: 0.0.0.0/0, except: ['{v4}/32']}}}}, \
                     {{ipBlock: {{cidr: '::/0', except: ['{v6}/128']}}}}]}}"
                );
                live.apply(&ingress(&rule)).unwrap();
            }),
        ];
        for (way, rule, narrow) in ways {
            let mut live = start(Attachment::Routed).await;
            live.apply(&ingress(rule)).unwrap();
            live.settled().await.unwrap();
            let (mut near, mut far) = (open(&live, "shop/near", 80).await, open(&live, "shop/far", 81).await);
            narrow(&mut live);
            live.settled().await.unwrap();
            all_are(way, &mut near, Outcome::Refused).await;
            all_are(way, &mut far, Outcome::Allowed).await;
            is_reviewed(&mut live).await;
            all_are(way, &mut near, Outcome::Refused).await;
            all_are(way, &mut far, Outcome::Allowed).await;
        }
    });
}

#[test]
fn a_flow_through_a_service_is_judged_by_its_endpoint() {
    isolated(async {
        for attachment in [Attachment::Routed, Attachment::Bridged] {
            let mut live = start(attachment).await;
            let (mut forbidden, mut allowed) = (Vec::new(), Vec::new());
            let [v4, v6] = Family::ALL.map(|family| live.endpoint("shop/web", family).unwrap().address);
            // As kube-proxy has it: ports 80 and 82 lead to 8080 and 8082.
            let translate = |from: &str, to: &str| {
                let to_port = |(port, target)| {
                    format!("{from} meta l4proto {{ tcp, udp, sctp }} th dport {port} dnat {to}:{target};")
                };
                [(80, 8080), (82, 8082)].map(to_port).concat()
            };
            let rules = format!(
                "table inet services {{ chain translate {{ type nat hook prerouting priority dstnat; {} {} }}; }}",
                translate("ip daddr 10.96.0.10", &format!("ip to {v4}")),
                translate("ip6 daddr fd00:96::10", &format!("ip6 to [{v6}]")),
            );
            live.netns(0).run(|| nft(&[&rules])).unwrap().unwrap();
            for (family, service) in [(Family::V4, "10.96.0.10"), (Family::V6, "fd00:96::10")] {
                let service: IpAddr = service.parse().unwrap();
                for protocol in PROTOCOLS {
                    for (port, target, flows) in [(80, 8080, &mut forbidden), (82, 8082, &mut allowed)] {
                        let from = live.endpoint("shop/near", family).unwrap();
                        let at = live.endpoint("shop/web", family).unwrap();
                        let responders = vec![Responder { at, port: target }];
                        let probe = Probe::to_service(from, SocketAddr::new(service, port), protocol, responders);
                        flows.push(Flow::open(&probe, PATIENCE).await.unwrap());
                    }
                }
            }
            live.apply(&only(8082)).unwrap();
            live.settled().await.unwrap();
            all_are("at once", &mut forbidden, Outcome::Refused).await;
            all_are("at once", &mut allowed, Outcome::Allowed).await;
            is_reviewed(&mut live).await;
            all_are("reviewed", &mut forbidden, Outcome::Refused).await;
            all_are("reviewed", &mut allowed, Outcome::Allowed).await;
        }
    });
}

/// Both ends of a connection from a client to a port of the web server.
fn connect(client: &Endpoint, web: &Endpoint, port: u16) -> (TcpStream, TcpStream) {
    let to = SocketAddr::new(web.address, port);
    let listener = web.netns.run(|| TcpListener::bind(to)).unwrap().unwrap();
    let at_client = client.netns.run(|| TcpStream::connect_timeout(&to, PATIENCE)).unwrap().unwrap();
    (at_client, listener.accept().unwrap().0)
}

/// Whether what the server sends arrives.
fn arrives(at_client: &mut TcpStream, at_server: &mut TcpStream, patience: Duration) -> bool {
    at_server.write_all(b"late").unwrap();
    at_client.set_read_timeout(Some(patience)).unwrap();
    let mut buffer = [0; 4];
    match at_client.read_exact(&mut buffer) {
        Ok(()) => buffer == *b"late",
        Err(error) => {
            assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{error}");
            false
        }
    }
}

/// In a flow that is cut, a server has nothing more to say to whoever asked before.
#[test]
fn who_asked_in_time_gets_no_late_answer_in_a_flow_that_is_cut() {
    isolated(async {
        for attachment in [Attachment::Routed, Attachment::Bridged] {
            let mut live = start(attachment).await;
            let mut streams = Vec::new();
            let mut datagrams = Vec::new();
            for family in Family::ALL {
                let web = live.endpoint("shop/web", family).unwrap();
                for (client, more) in [("shop/near", 100), ("shop/far", 200)] {
                    let client = live.endpoint(client, family).unwrap();
                    for (port, is_allowed) in [(80, false), (82, true)] {
                        let (mut at_client, mut at_server) = connect(&client, &web, port);
                        at_client.write_all(b"well?").unwrap();
                        at_server.read_exact(&mut [0; 5]).unwrap();
                        streams.push((format!("{client:?} {port}"), is_allowed, at_client, at_server));

                        let (mut at_client, mut at_server) = connect(&client, &web, port);
                        at_client.shutdown(Shutdown::Write).unwrap();
                        assert_eq!(at_server.read(&mut [0; 1]).unwrap(), 0, "the server sees the end");
                        assert!(arrives(&mut at_client, &mut at_server, PATIENCE), "half-closed");
                        streams.push((format!("{client:?} {port}, half-closed"), is_allowed, at_client, at_server));

                        let bind = |end: &Endpoint, port| {
                            let address = end.address;
                            end.netns.run(|| UdpSocket::bind((address, port))).unwrap().unwrap()
                        };
                        // A server for each client.
                        let port = port + more;
                        let (asks, answers) = (bind(&client, 0), bind(&web, port));
                        asks.send_to(b"well?", (web.address, port)).unwrap();
                        answers.set_read_timeout(Some(PATIENCE)).unwrap();
                        let (_, from) = answers.recv_from(&mut [0; 8]).unwrap();
                        datagrams.push((is_allowed, asks, answers, from));
                    }
                }
            }
            let ports = [82, 182, 282].map(|port| format!("{{port: {port}}}, {{port: {port}, protocol: UDP}}"));
            live.apply(&ingress(&format!("{{ports: [{}]}}", ports.join(", ")))).unwrap();
            is_reviewed(&mut live).await;
            for (what, is_allowed, at_client, at_server) in &mut streams {
                let patience = if *is_allowed { PATIENCE } else { SILENCE };
                assert_eq!(arrives(at_client, at_server, patience), *is_allowed, "{attachment:?} {what}");
            }
            for (is_allowed, asks, answers, from) in datagrams {
                answers.send_to(b"late", from).unwrap();
                asks.set_read_timeout(Some(if is_allowed { PATIENCE } else { SILENCE })).unwrap();
                assert_eq!(asks.recv(&mut [0; 8]).is_ok(), is_allowed, "{attachment:?} by UDP to {from}");
            }
        }
    });
}
