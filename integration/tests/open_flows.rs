//! Flows that are open when policies change: those that are not allowed any more are cut, and no others.

#![allow(clippy::unwrap_used, reason = "a test that cannot set up its world has failed")]

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use compiler::nft::Family;
use integration::agent::nft;
use integration::live::{Echo, Live, Protection};
use integration::scene::{pod, policy};
use lab::{Attachment, Endpoint, Flow, Outcome, Probe, Protocol, isolated};

/// For what must come: a loaded machine may be slow.
const PATIENCE: Duration = Duration::from_secs(20);
/// Those that have flows to keep.
const PROTOCOLS: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
/// For what must not.
const SILENCE: Duration = Duration::from_millis(600);
const BOTH: [Attachment; 2] = [Attachment::Routed, Attachment::Bridged];

/// A web server, a client on its node and one on another.
fn cluster() -> String {
    pod("shop/web", "node-1", "app: web", "")
        + &pod("shop/near", "node-1", "app: client", "")
        + &pod("shop/far", "node-2", "app: client", "")
}

/// Ingress to the web server on these ports.
fn only(ports: &[u16]) -> String {
    let by_all = |port: &u16| PROTOCOLS.map(|protocol| format!("{{port: {port}, protocol: {}}}", protocol.as_str()));
    let ports = ports.iter().flat_map(by_all).collect::<Vec<_>>().join(", ");
    policy("shop/web", &format!("{{podSelector: {{matchLabels: {{app: web}}}}, ingress: [{{ports: [{ports}]}}]}}"))
}

/// One flow by each protocol and family, from a client to a port of the web server.
async fn open(live: &Live, client: &str, port: u16) -> Vec<Flow> {
    let mut flows = Vec::new();
    for family in Family::ALL {
        for protocol in PROTOCOLS {
            let (from, to) = (live.endpoint(client, family).unwrap(), live.endpoint("shop/web", family).unwrap());
            let opened = Flow::open(&Probe::new(from, to, protocol, port), PATIENCE).await;
            flows.push(opened.unwrap_or_else(|outcome| panic!("{client} {family} {protocol:?}: {outcome}")));
        }
    }
    flows
}

async fn all_are(flows: &mut [Flow], expected: Outcome) {
    let window = if expected == Outcome::Allowed { PATIENCE } else { SILENCE };
    for (index, flow) in flows.iter_mut().enumerate() {
        assert_eq!(flow.exchange(64, window).await, expected, "flow {index}");
    }
}

/// The table of a node, as an operator sees it.
fn listing(live: &Live, node: usize) -> String {
    live.netns(node).run(|| nft(&["list", "table", "inet", "postern"])).unwrap().unwrap()
}

/// Waits until the table of the first node shows, or does not show, some words.
async fn shows(live: &Live, words: &str, expected: bool) {
    let begun = std::time::Instant::now();
    while listing(live, 0).contains(words) != expected {
        assert!(begun.elapsed() < PATIENCE, "{words}: not {expected} in\n{}", listing(live, 0));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[test]
fn what_a_policy_forbids_is_cut_and_what_it_allows_goes_on() {
    isolated(async {
        for attachment in BOTH {
            let mut live = Live::start(&cluster(), attachment, Protection::Owned).await.unwrap();
            let mut forbidden = open(&live, "shop/near", 80).await;
            forbidden.extend(open(&live, "shop/far", 81).await);
            let mut allowed = open(&live, "shop/near", 82).await;
            allowed.extend(open(&live, "shop/far", 83).await);

            live.apply(&only(&[82, 83])).unwrap();
            live.until(&["shop/near -> shop/web 84/TCP: refused"]).await.unwrap();
            all_are(&mut forbidden, Outcome::Refused).await;
            all_are(&mut allowed, Outcome::Allowed).await;

            // Reviewed: the pod's packets take the short cut again, and the flows are still cut.
            shows(&live, "set cut-v4", true).await;
            shows(&live, "set rejudged-", false).await;
            all_are(&mut forbidden, Outcome::Refused).await;
            all_are(&mut allowed, Outcome::Allowed).await;

            // And so they are without an agent, and with its successor.
            live.stop_agent(0).await.unwrap();
            all_are(&mut forbidden[..2], Outcome::Refused).await;
            live.start_agent(0).await.unwrap();
            shows(&live, "set rejudged-", false).await;
            all_are(&mut forbidden[..2], Outcome::Refused).await;
            all_are(&mut allowed, Outcome::Allowed).await;

            // What is allowed again is not cut any more.
            live.apply(&only(&[80, 81, 82, 83, 84])).unwrap();
            shows(&live, "set cut-v4", false).await;
            all_are(&mut forbidden[..6], Outcome::Allowed).await;
        }
    });
}

/// A client that numbers its datagrams and waits for each answer, and sends none twice.
struct Stream {
    stop: Arc<AtomicBool>,
    client: JoinHandle<u64>,
}

impl Stream {
    fn start(from: &Endpoint, to: SocketAddr) -> Stream {
        let address = from.address;
        let socket = from.netns.run(move || UdpSocket::bind((address, 0))).unwrap().unwrap();
        socket.connect(to).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let client = thread::spawn(move || {
            let mut number = 0u64;
            while !stopped.load(Ordering::Relaxed) {
                number += 1;
                socket.send(&number.to_be_bytes()).unwrap();
                let mut answer = [0; 8];
                assert!(socket.recv(&mut answer).is_ok_and(|_| answer == number.to_be_bytes()), "{number} is lost");
            }
            number
        });
        Stream { stop, client }
    }

    /// How many datagrams were sent, all of which were answered.
    fn finish(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.client.join().unwrap()
    }
}

/// The same by SCTP: each heartbeat is numbered, waited for, and sent once.
fn heartbeats(mut flow: Flow) -> (Arc<AtomicBool>, tokio::task::JoinHandle<u64>) {
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    let client = tokio::spawn(async move {
        let mut number = 0u64;
        while !stopped.load(Ordering::Relaxed) {
            number += 1;
            assert_eq!(flow.exchange_once(64, PATIENCE).await, Outcome::Allowed, "heartbeat {number} is lost");
            tokio::task::yield_now().await;
        }
        number
    });
    (stop, client)
}

#[test]
fn rightful_flows_lose_nothing_while_they_are_judged_again() {
    isolated(async {
        for attachment in BOTH {
            let mut live = Live::start(&cluster(), attachment, Protection::Owned).await.unwrap();
            live.apply(&only(&[82])).unwrap();
            live.settled().await.unwrap();
            let (mut streams, mut echoes, mut associations) = (Vec::new(), Vec::new(), Vec::new());
            for family in Family::ALL {
                let web = live.endpoint("shop/web", family).unwrap();
                echoes.push(Echo::start(&web, 82).unwrap());
                for client in ["shop/near", "shop/far"] {
                    let client = live.endpoint(client, family).unwrap();
                    streams.push(Stream::start(&client, SocketAddr::new(web.address, 82)));
                    let probe = Probe::new(client, web.clone(), Protocol::Sctp, 82);
                    associations.push(heartbeats(Flow::open(&probe, PATIENCE).await.unwrap()));
                }
            }
            // Each takes a port away and gives another one.
            for port in 100..160 {
                live.apply(&only(&[82, port])).unwrap();
                live.settled().await.unwrap();
            }
            for stream in streams {
                assert!(stream.finish() > 60);
            }
            for (stop, client) in associations {
                stop.store(true, Ordering::Relaxed);
                assert!(client.await.unwrap() > 60);
            }
        }
    });
}

#[test]
fn a_flow_is_cut_at_its_clients_node_too() {
    isolated(async {
        let mut live = Live::start(&cluster(), Attachment::Routed, Protection::Owned).await.unwrap();
        let mut flows = open(&live, "shop/far", 80).await;
        let egress = "{podSelector: {matchLabels: {app: client}}, policyTypes: [Egress]}";
        live.apply(&policy("shop/clients", egress)).unwrap();
        live.until(&["shop/far -> shop/web 84/TCP: refused"]).await.unwrap();
        all_are(&mut flows, Outcome::Refused).await;
        live.delete_policy("shop/clients");
        live.until(&["shop/far -> shop/web 84/TCP: allowed"]).await.unwrap();
        all_are(&mut flows, Outcome::Allowed).await;
    });
}

#[test]
fn an_isolated_pod_inherits_no_flow_with_its_address() {
    isolated(async {
        let mut live = Live::start(&cluster(), Attachment::Routed, Protection::Owned).await.unwrap();
        let (near, web) =
            (live.endpoint("shop/near", Family::V4).unwrap(), live.endpoint("shop/web", Family::V4).unwrap());
        let address = web.address;
        let mut flow = Flow::open(&Probe::new(near, web, Protocol::Udp, 80), PATIENCE).await.unwrap();
        live.apply(&policy("shop/closed", "{podSelector: {matchLabels: {app: closed}}, policyTypes: [Ingress]}"))
            .unwrap();
        live.delete_pod("shop/web");
        live.settled().await.unwrap();
        assert_eq!(flow.exchange(64, PATIENCE).await, Outcome::Allowed);
        // The namespace and its sockets stay: what matters is whose the address is.
        let status = format!("status: {{phase: Running, podIPs: [{{ip: {address}}}]}}\n");
        live.apply(&(pod("shop/heir", "node-1", "app: closed", "") + &status)).unwrap();
        shows(&live, "set cut-v4", true).await;
        assert_eq!(flow.exchange(64, SILENCE).await, Outcome::Refused);
    });
}
