//! `postern doctor` on nodes that are well, and on such as are not.

#![allow(clippy::unwrap_used, reason = "a test that cannot set up its world has failed")]

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use integration::agent::{self, Agent, install, loopback_up, nft};
use integration::control_plane::ControlPlane;
use integration::scene::{pod, policy};
use k8s_openapi::api::rbac::v1::ClusterRole;
use kube::Api;
use kube::api::{Patch, PatchParams};
use lab::isolated;
use serde_json::{Value, json};
use tempfile::TempDir;

/// For what must come: a loaded machine may be slow.
const PATIENCE: Duration = Duration::from_secs(20);

/// What `postern doctor` says: exit status, and the checks.
fn doctor(agent: &Agent, more: &[&str]) -> (i32, Vec<Value>) {
    let socket = agent.socket();
    let standard = ["doctor", "-o", "json", "--socket", socket.to_str().unwrap()];
    let Output { status, stdout, stderr } = Command::new(agent::binary().unwrap())
        .args(standard)
        .args(more)
        .env("HOME", "/nonexistent")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8(stdout).unwrap();
    assert!(stderr.is_empty(), "{}", String::from_utf8_lossy(&stderr));
    (status.code().unwrap(), text.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
}

/// The state and the finding of a check; of several the first.
#[track_caller]
fn found<'a>(checks: &'a [Value], name: &str) -> (&'a str, &'a str) {
    let check = checks.iter().find(|check| check["check"] == name);
    let check = check.unwrap_or_else(|| panic!("no {name} among {checks:#?}"));
    let state = check["state"].as_str().unwrap();
    assert_eq!(state != "ok", check["why"].is_string() && check["do"].is_string(), "{check}");
    (state, check["found"].as_str().unwrap())
}

fn wrong(checks: &[Value]) -> Vec<&str> {
    checks.iter().filter(|check| check["state"] == "wrong").map(|check| check["check"].as_str().unwrap()).collect()
}

fn ip(arguments: &str) {
    assert!(Command::new("ip").args(arguments.split(' ')).status().unwrap().success(), "ip {arguments}");
}

/// An agent that follows two pods and a policy.
async fn following(arguments: &[&str]) -> (Agent, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let objects = pod("shop/db", "node-1", "app: db", "")
        + "status: {phase: Running, podIP: 10.1.0.10}\n"
        + &policy("shop/db", "{podSelector: {}, ingress: [{from: [{podSelector: {}}], ports: [{port: 80}]}]}");
    fs::write(folder.path().join("cluster.yaml"), objects).unwrap();
    let path = folder.path().to_str().unwrap();
    let mut agent = Agent::start(&[&["-f", path, "--cni-results", "off"], arguments].concat()).unwrap();
    agent.ready().await.unwrap();
    (agent, folder)
}

#[test]
fn a_node_that_is_well_and_what_may_befall_it() {
    isolated(async {
        loopback_up().unwrap();
        let (mut agent, folder) = following(&[]).await;
        let (status, checks) = doctor(&agent, &[]);
        assert_eq!((status, wrong(&checks)), (0, vec![]), "{checks:#?}");
        assert_eq!(found(&checks, "table"), ("ok", "the kernel holds what the agent enforces"));
        assert_eq!(found(&checks, "ready").0, "ok");
        assert_eq!(found(&checks, "watches"), ("ok", "none: the objects are in files"));
        assert_eq!(found(&checks, "socket").0, "ok");
        assert_eq!(found(&checks, "gate"), ("note", "open: the ranges of this node's pods are not known"));
        assert_eq!(found(&checks, "CNI results").0, "note");
        assert!(found(&checks, "agent").1.contains("on node node-1, 1 pods here, 1 policies known"), "{checks:#?}");
        assert!(checks.iter().all(|check| check["check"] != "rights"), "files need none: {checks:#?}");

        // Others in the way.
        nft(&[
            "add table ip filter; add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }",
        ])
        .unwrap();
        nft(&["add table ip raw; add chain ip raw PRE { type filter hook prerouting priority -300; }; add rule ip raw PRE udp dport 53 notrack"])
            .unwrap();
        let (status, checks) = doctor(&agent, &[]);
        assert_eq!(status, 0, "they are notes");
        assert_eq!(found(&checks, "drop at forward"), ("note", "ip filter FORWARD (priority 0, before ours)"));
        assert_eq!(found(&checks, "notrack"), ("note", "ip raw PRE"));

        // A bridge whose packets meet no rule. The agent sees to that within a second, so that it may take some attempts.
        ip("link add cni0 type bridge");
        ip("link add v0 type veth peer name v1");
        ip("link set v0 master cni0");
        ip("link set cni0 up");
        ip("addr add 10.9.0.1/24 dev cni0");
        let begun = Instant::now();
        loop {
            let _ = fs::write("/proc/sys/net/bridge/bridge-nf-call-ip6tables", "0");
            let (status, checks) = doctor(&agent, &[]);
            if found(&checks, "bridges").0 == "wrong" {
                assert_eq!(status, 1);
                break;
            }
            assert!(begun.elapsed() < PATIENCE, "{checks:#?}");
        }
        ip("link del v0");

        // Objects that cannot be read any more.
        fs::write(folder.path().join("cluster.yaml"), "{kind: Pod").unwrap();
        agent.until_readyz(|code, _| code == 503).await.unwrap();
        let (status, checks) = doctor(&agent, &[]);
        let (state, why) = found(&checks, "ready");
        assert!(status == 1 && state == "wrong" && why.contains("cluster.yaml"), "{checks:#?}");

        agent.kill().unwrap();
        let (status, checks) = doctor(&agent, &[]);
        assert_eq!((status, found(&checks, "agent").0, found(&checks, "kernel").0), (1, "wrong", "ok"), "{checks:#?}");
    });
}

#[test]
fn a_policy_in_quarantine_and_a_table_that_is_another_are_wrong() {
    isolated(async {
        loopback_up().unwrap();
        let budget = "sets=0,rules=2000,elements=500000,ranges=50000,jumps=10000";
        let (agent, _folder) = following(&["--policy-budget", budget]).await;
        let (status, checks) = doctor(&agent, &[]);
        assert_eq!((status, wrong(&checks)), (1, vec!["quarantine"]), "{checks:#?}");
        assert!(found(&checks, "quarantine").1.starts_with("NetworkPolicy shop/db: it costs 1 sets"), "{checks:#?}");

        // An agent that says it enforces something else than the kernel holds.
        let (_, status_json) = agent.get("/debug/status").await.unwrap();
        let (_, table) = agent.get("/debug/table").await.unwrap();
        let another = table.replacen("chain egress {", "chain egress {\n        ip saddr 10.9.9.9 drop", 1);
        assert_ne!(another, table);
        let address = serve(status_json, another);
        let (status, checks) = doctor(&agent, &["--admin-address", &address]);
        let due = ("wrong", "in chain egress: not in the kernel: ip saddr 10.9.9.9 drop");
        assert_eq!((status, found(&checks, "table")), (1, due), "{checks:#?}");
    });
}

/// Answers as an agent does that has this status and table, as long as the process lives.
fn serve(status: String, table: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = [0; 4096];
            let length = stream.read(&mut request).unwrap();
            let is_status = String::from_utf8_lossy(&request[..length]).starts_with("GET /debug/status");
            let body = if is_status { &status } else { &table };
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
            stream.write_all((head + body).as_bytes()).unwrap();
        }
    });
    address
}

#[test]
fn rights_that_are_missing_are_named() {
    isolated(async {
        loopback_up().unwrap();
        let cluster = ControlPlane::start().await.unwrap();
        let kubeconfig = install(&cluster).await.unwrap();
        let mut agent = Agent::on_api(&kubeconfig).unwrap();
        agent.ready().await.unwrap();
        let of_agent = |path: &Path| doctor(&agent, &["--kubeconfig", path.to_str().unwrap()]);
        let (status, checks) = of_agent(&kubeconfig);
        assert_eq!((status, found(&checks, "rights").0), (0, "ok"), "{checks:#?}");
        assert!(found(&checks, "API server").1.starts_with("answers in "), "{checks:#?}");
        assert!(found(&checks, "watches").1.starts_with("the oldest word of the API server is "), "{checks:#?}");
        let roles: Api<ClusterRole> = Api::all(cluster.client());
        let rules = json!({"rules": [{"apiGroups": [""], "resources": ["namespaces", "pods"], "verbs": ["list"]}]});
        roles.patch("postern", &PatchParams::default(), &Patch::Merge(&rules)).await.unwrap();
        let begun = Instant::now();
        let missing = loop {
            assert!(begun.elapsed() < PATIENCE, "the rights are there still");
            let (status, checks) = of_agent(&kubeconfig);
            let (state, missing) = found(&checks, "rights");
            // The API server takes a moment to see it.
            if state == "wrong" {
                assert_eq!(status, 1);
                break missing.to_owned();
            }
        };
        let due = "missing: watch namespaces, watch pods, list networkpolicies.networking.k8s.io, \
                   watch networkpolicies.networking.k8s.io, list nodes, create events.events.k8s.io";
        assert_eq!(missing, due);
    });
}
