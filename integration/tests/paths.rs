//! Paths through a node on which others translate packets, or keep them from connection tracking.

#![allow(clippy::unwrap_used, reason = "a test that cannot set up its world has failed")]

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use compiler::nft::{Deny, Family};
use integration::agent::nft;
use integration::scene::{Scene, Shape, pod, policy};
use lab::{Endpoint, Outcome, Probe, ProbeOptions, Protocol, Responder, isolated};

/// Three tries of half a second, which are longer than a kernel waits for a neighbour.
const OPTIONS: ProbeOptions = ProbeOptions { window: Duration::from_millis(500), tries: 3, concurrency: 64 };

/// A web server, a client on its node and one on another, and these policies.
async fn start(policies: &str) -> Scene {
    let yaml = pod("shop/web", "node-1", "app: web", "")
        + &pod("shop/near", "node-1", "app: near", "")
        + &pod("shop/far", "node-2", "app: far", "")
        + policies;
    Scene::start(&yaml, &[], Shape::ALL[1], Deny::Drop).await.unwrap()
}

#[test]
fn a_host_port_is_judged_by_the_pod_and_the_client() {
    isolated(async {
        let from = "{podSelector: {matchLabels: {app: web}}, \
                    ingress: [{from: [{podSelector: {matchLabels: {app: far}}}], ports: [{port: 80}]}]}";
        let scene = start(&policy("shop/web", from)).await;
        let [v4, v6] = Family::ALL.map(|family| scene.address("shop/web", family).unwrap());
        // As the plugin `portmap` has it: port 8080 of the node leads to port 80 of the pod, also for pods of the node.
        let rules = format!(
            "table inet portmap {{ chain translate {{ type nat hook prerouting priority dstnat; \
             meta nfproto ipv4 fib daddr type local tcp dport 8080 dnat ip to {v4}:80; \
             meta nfproto ipv6 fib daddr type local tcp dport 8080 dnat ip6 to [{v6}]:80; }}; }}"
        );
        scene.netns("node/node-1").unwrap().run(|| nft(&[&rules])).unwrap().unwrap();
        let (mut probes, mut due) = (Vec::new(), Vec::new());
        for family in Family::ALL {
            for (client, outcome) in [("shop/near", Outcome::Refused), ("shop/far", Outcome::Allowed)] {
                let responders = vec![Responder { at: scene.endpoint("shop/web", family).unwrap(), port: 80 }];
                let to = SocketAddr::new(scene.address("node/node-1", family).unwrap(), 8080);
                probes.push(Probe::to_service(scene.endpoint(client, family).unwrap(), to, Protocol::Tcp, responders));
                due.push(outcome);
            }
        }
        assert_eq!(lab::probe(&probes, &OPTIONS).await, due);
    });
}

/// What becomes of the questions of a client to its node's DNS server, which is as NodeLocal DNSCache has it: at an address of
/// its own, and nothing of its port is tracked.
async fn ask_dns(policies: &str) -> Vec<Outcome> {
    let scene = start(policies).await;
    let netns = scene.netns("node/node-1").unwrap();
    let rules = "table inet raw { chain in { type filter hook prerouting priority raw; udp dport 53 notrack; }; \
                 chain out { type filter hook output priority raw; udp sport 53 notrack; }; }";
    netns.run(|| nft(&[rules])).unwrap().unwrap();
    let mut probes = Vec::new();
    for (family, address) in [(Family::V4, "169.254.20.10/32"), (Family::V6, "fd00:20::10/128")] {
        let add = || Command::new("ip").args(["address", "add", address, "dev", "lo"]).status();
        assert!(netns.run(add).unwrap().unwrap().success());
        let (address, _) = address.split_once('/').unwrap();
        let server = Endpoint { netns: netns.clone(), address: address.parse().unwrap() };
        probes.push(Probe::new(scene.endpoint("shop/near", family).unwrap(), server, Protocol::Udp, 53));
    }
    lab::probe(&probes, &OPTIONS).await
}

#[test]
fn what_is_not_tracked_on_its_way_to_the_node_is_judged_packet_by_packet() {
    isolated(async {
        let egress = |rules: &str| {
            let spec = format!("{{podSelector: {{matchLabels: {{app: near}}}}, policyTypes: [Egress], {rules}}}");
            policy("shop/near", &spec)
        };
        assert_eq!(ask_dns("").await, [Outcome::Allowed, Outcome::Allowed]);
        assert_eq!(ask_dns(&egress("egress: []")).await, [Outcome::Refused, Outcome::Refused]);
        let to_dns = egress("egress: [{ports: [{port: 53, protocol: UDP}]}]");
        assert_eq!(ask_dns(&to_dns).await, [Outcome::Allowed, Outcome::Allowed]);
    });
}
