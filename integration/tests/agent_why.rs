//! Questions to a running agent about what no policy refuses: the gate, addresses that are not a pod's own, bridges.

#![allow(clippy::unwrap_used, reason = "a test that cannot set up its world has failed")]

use std::fs;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use integration::agent::{self, Agent, loopback_up};
use integration::scene::{pod, policy};
use lab::isolated;
use serde_json::Value;
use tempfile::TempDir;

const NODE: &str = "---
apiVersion: v1
kind: Node
metadata: {name: node-1}
spec: {podCIDR: 10.1.0.0/24, podCIDRs: [10.1.0.0/24, 'fd01::/64']}
";

/// Runs `ip` in the network namespace of the calling thread.
fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split(' ')).output().unwrap();
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A pod that runs, with these addresses.
fn running(name: &str, addresses: &[&str]) -> String {
    let app = name.split_once('/').unwrap().1;
    let ips: Vec<String> = addresses.iter().map(|address| format!("{{ip: '{address}'}}")).collect();
    pod(name, "node-1", &format!("app: {app}"), "")
        + &format!("status: {{phase: Running, podIPs: [{}]}}\n", ips.join(", "))
}

/// An agent that follows these objects.
async fn following(objects: &str) -> (Agent, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("cluster.yaml"), objects).unwrap();
    let path = folder.path().to_str().unwrap();
    let mut agent = Agent::start(&["-f", path, "--cni-results", "off"]).unwrap();
    agent.ready().await.unwrap();
    (agent, folder)
}

/// What `postern explain` says: exit status, standard output, standard error.
fn explain(arguments: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(agent::binary().unwrap());
    let Output { status, stdout, stderr } =
        command.arg("explain").args(arguments).stdin(Stdio::null()).output().unwrap();
    (status.code().unwrap(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

/// The answer, in which kernel and agent agree.
#[track_caller]
fn answer(source: &str, destination: &str, port: &str) -> Value {
    let (status, answer, told) = explain(&[source, destination, port, "-o", "json"]);
    assert!(status == 0 && !told.contains("disagreement"), "{status} {answer}{told}");
    serde_json::from_str(&answer).unwrap()
}

#[test]
fn the_gate_and_the_rule_of_own_addresses_are_named() {
    isolated(async {
        loopback_up().unwrap();
        for (link, address) in [("veth1", "10.1.0.10"), ("veth2", "10.1.0.11")] {
            ip(&format!("link add {link} type veth peer name {link}-far"));
            ip(&format!("link set {link} up"));
            ip(&format!("route add {address}/32 dev {link}"));
        }
        // The other family of the second one is routed elsewhere.
        ip("-6 route add fd01::10/128 dev veth1");
        ip("-6 route add fd01::11/128 dev veth1");
        let objects = NODE.to_owned()
            + &running("shop/db", &["10.1.0.10", "fd01::10"])
            + &running("shop/web", &["10.1.0.11", "fd01::11"])
            + &running("shop/new", &[])
            + &policy("shop/db", "{podSelector: {matchLabels: {app: db}}, ingress: [{ports: [{port: 80}]}]}");
        let (agent, _folder) = following(&objects).await;
        assert_eq!(answer("shop/web", "shop/db", "80")["allowed"], true);

        // An address of the node's pods that none has: as the source, and as the destination.
        let from = answer("10.1.0.77", "shop/db", "80");
        assert_eq!((&from["allowed"], &from["egress"]["refusal"]), (&false.into(), &"gate".into()), "{from}");
        let to = answer("192.0.2.1", "10.1.0.78", "80");
        assert_eq!((&to["allowed"], &to["ingress"]["refusal"]), (&false.into(), &"gate".into()), "{to}");
        let (_, text, _) = explain(&["10.1.0.77", "shop/db", "80"]);
        let due =
            "refused by the gate: 10.1.0.77 is of the addresses of this node's pods, and no pod is known to have it";
        assert!(text.contains(due), "{text}");
        // One of the node's own is none of these.
        ip("addr add 10.1.0.1/32 dev lo");
        assert_eq!(answer("10.1.0.1", "shop/db", "5432")["allowed"], true);

        // A pod whose address is routed to the link of another.
        let astray = answer("fd01::11", "fd01::10", "80");
        assert_eq!((&astray["allowed"], &astray["egress"]["refusal"]), (&false.into(), &"source".into()), "{astray}");
        let due = "the node does not route fd01::11 to veth2, the pod's link";
        assert!(astray["egress"]["refused_by"].as_str().unwrap().contains(due), "{astray}");
        assert_eq!(answer("fd01::10", "fd01::11", "80")["allowed"], true);

        // A pod that has no address yet.
        let (status, _, told) = explain(&["shop/new", "shop/db", "80"]);
        let due =
            "pod shop/new has no address; until it has one the gate refuses what it sends from 10.1.0.0/24, fd01::/64";
        assert!(status == 2 && told.contains(due), "{told}");
        drop(agent);
    });
}

#[test]
fn what_a_bridge_keeps_from_the_rules_is_told() {
    isolated(async {
        loopback_up().unwrap();
        // Its hardware address is given: one that changes with the ports makes the node forget its neighbours.
        ip("link add cni0 address 02:00:00:00:00:01 type bridge");
        ip("link set cni0 up");
        ip("addr add 10.1.0.1/24 dev cni0");
        let stations = [("v1", "02:00:00:00:00:10", "10.1.0.10"), ("v2", "02:00:00:00:00:11", "10.1.0.11")];
        for (port, station, address) in stations {
            ip(&format!("link add {port} type veth peer name {port}-far"));
            ip(&format!("link set {port}-far up"));
            ip(&format!("link set {port} master cni0 up"));
            // What ages is forgotten when a carrier comes, of which the kernel tells late: these two stay.
            ip(&format!("neigh add {address} lladdr {station} dev cni0 nud permanent"));
            let fdb = format!("fdb add {station} dev {port} master static");
            assert!(Command::new("bridge").args(fdb.split(' ')).status().unwrap().success(), "bridge {fdb}");
        }
        let objects = NODE.to_owned()
            + &running("shop/db", &["10.1.0.10"])
            + &running("shop/web", &["10.1.0.11"])
            + &running("shop/mute", &["10.1.0.12"])
            + &policy("shop/db", "{podSelector: {}, ingress: [{ports: [{port: 80}]}]}");
        let (agent, _folder) = following(&objects).await;
        let begun = Instant::now();
        while integration::agent::nft(&["list", "table", "bridge", "postern"]).is_err() {
            assert!(begun.elapsed() < Duration::from_secs(60), "{}", agent.log().unwrap());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let notes = |answer: &Value| answer["notes"].as_array().cloned().unwrap_or_default();
        let due = "both are on bridge cni0, and net.bridge.bridge-nf-call-iptables is not 1: what they send each other meets no rule";
        let begun = Instant::now();
        loop {
            // The agent sets it within a second, where it is there, so that it may take some attempts.
            let _ = fs::write("/proc/sys/net/bridge/bridge-nf-call-iptables", "0");
            let between = answer("shop/web", "shop/db", "80");
            if notes(&between).contains(&due.into()) {
                break;
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "{between}");
        }
        // Nobody has heard of that one's port.
        let unheard = answer("shop/web", "shop/mute", "80");
        let due = "by which port of bridge cni0 shop/mute is linked is not known yet: it is told by its address alone";
        assert_eq!(notes(&unheard), [due], "{unheard}");
        // The chains of the bridge are on the way, in the kernel as in the model.
        let (status, text, told) = explain(&["shop/web", "shop/db", "80", "--trace"]);
        assert!(status == 0 && told.is_empty() && text.contains("allowed"), "{text}{told}");
    });
}
