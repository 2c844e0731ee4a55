//! `kubectl postern` on a cluster of two nodes: through the real API server, into the agents' pods.

#![allow(clippy::unwrap_used, reason = "a test that cannot set up its world has failed")]

use std::fs::{self, Permissions};
use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use integration::agent::binary;
use integration::control_plane::pod;
use integration::fleet::Fleet;
use integration::scene::policy;
use lab::isolated;
use serde_json::{Value, json};
use tempfile::TempDir;

/// For what must come: a loaded machine may be slow.
const PATIENCE: Duration = Duration::from_secs(30);

const SERVICE: &str = "
apiVersion: v1
kind: Service
metadata: {name: db, namespace: shop}
spec: {selector: {app: db}, ports: [{port: 15432, targetPort: 5432}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: db-a, namespace: shop, labels: {kubernetes.io/service-name: db}}
addressType: IPv4
ports: [{port: 5432}]
endpoints:
  - {addresses: [10.244.1.1], nodeName: node-2, conditions: {ready: true}, targetRef: {kind: Pod, namespace: shop, name: db}}
  - {addresses: [10.244.0.2], nodeName: node-1, conditions: {ready: true}, targetRef: {kind: Pod, namespace: shop, name: near}}
";

/// `web` and `near` on the first node, `db` and `far` on the second. `web` may send to `db` and `near` alone, by its own
/// policy, and `db` takes nobody but `web`.
async fn populate(fleet: &mut Fleet) {
    fleet.api.create_namespace("shop", &[]).await.unwrap();
    for (name, node, address) in [
        ("web", "node-1", [10, 244, 0, 1]),
        ("near", "node-1", [10, 244, 0, 2]),
        ("db", "node-2", [10, 244, 1, 1]),
        ("far", "node-2", [10, 244, 1, 2]),
    ] {
        fleet.run_pod(&pod("shop", name, node, &[("app", name)]), address.into()).await.unwrap();
    }
    let peers = "[{podSelector: {matchExpressions: [{key: app, operator: In, values: [db, near]}]}}]";
    let web =
        format!("{{podSelector: {{matchLabels: {{app: web}}}}, policyTypes: [Egress], egress: [{{to: {peers}}}]}}");
    fleet.api.apply(&policy("shop/web", &web)).await.unwrap();
    let from = "[{podSelector: {matchLabels: {app: web}}}]";
    let db =
        format!("{{podSelector: {{matchLabels: {{app: db}}}}, ingress: [{{from: {from}, ports: [{{port: 5432}}]}}]}}");
    fleet.api.apply(&policy("shop/db", &db)).await.unwrap();
    fleet.api.apply(SERVICE).await.unwrap();
    fleet.until(&["shop/web -> shop/db 5432/TCP: allowed", "shop/far -> shop/db 5432/TCP: refused"]).await.unwrap();
}

fn explain(fleet: &Fleet, source: &str, destination: &str, port: &str) -> Value {
    let (_, answer, told) = fleet.plugin(&["explain", source, destination, port, "-o", "json"]).unwrap();
    serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{error}: {answer}{told}"))
}

#[test]
fn each_side_is_said_by_the_node_that_decides_it() {
    isolated(async {
        Fleet::run(async |mut fleet| {
            populate(&mut fleet).await;
            let allowed = explain(&fleet, "shop/web", "shop/db", "5432");
            assert_eq!(allowed["allowed"], true, "{allowed}");
            assert_eq!(allowed["egress"]["rule"], "shop/web egress[0]", "{allowed}");
            assert_eq!(allowed["ingress"]["rule"], "shop/db ingress[0]", "{allowed}");
            assert!(allowed["doubt"].is_null() && allowed["egress"]["elsewhere"].is_null(), "{allowed}");

            // One side refuses, and then the other.
            let refused = explain(&fleet, "shop/web", "shop/db", "5433");
            assert_eq!((&refused["egress"]["allowed"], &refused["ingress"]["allowed"]), (&json!(true), &json!(false)));
            assert_eq!(refused["ingress"]["nearest"]["rule"], "shop/db ingress[0]", "{refused}");
            let refused = explain(&fleet, "shop/web", "shop/far", "80");
            assert_eq!((&refused["egress"]["allowed"], &refused["ingress"]["allowed"]), (&json!(false), &json!(true)));
            let missed = &refused["egress"]["nearest"]["misses"][0];
            assert_eq!(missed["why"], "app in (db,near) is wanted, and it has app=far", "{refused}");

            // A Service with an endpoint on each node; an address; a workload's worth of pods.
            let (code, text, told) = fleet.plugin(&["explain", "shop/web", "svc/shop/db", "15432"]).unwrap();
            assert_eq!((code, &*told), (0, ""), "{text}");
            assert!(text.starts_with("shop/web -> svc/shop/db TCP 15432: 2 endpoints: 2 allowed\n"), "{text}");
            assert!(
                text.contains("egress  of shop/web (10.244.0.1): isolated by shop/web; allowed by shop/web egress[0]")
            );
            let by_address = explain(&fleet, "10.244.1.2", "10.244.1.1", "5432");
            assert_eq!(by_address["ingress"]["isolated_by"], json!(["shop/db"]), "{by_address}");
            let all = explain(&fleet, "ns/shop", "shop/db", "5432");
            assert_eq!(all["endpoints"].as_array().unwrap().len(), 3, "{all}");
            let outside = explain(&fleet, "192.0.2.7", "shop/db", "5432");
            assert_eq!(
                (&outside["allowed"], &outside["egress"]["allowed"]),
                (&json!(false), &json!(true)),
                "{outside}"
            );
            let (code, _, told) = fleet.plugin(&["explain", "shop/web", "shop/dc", "80"]).unwrap();
            assert!(code == 2 && told.contains("there is no pod shop/dc; did you mean"), "{told}");

            // What needs no agent.
            let (code, text, told) = fleet.plugin(&["matrix", "shop/db", "-o", "json"]).unwrap();
            assert!(code == 0 && text.contains("\"ports\":[\"5432/TCP\"]"), "{text}{told}");

            // As kubectl finds it.
            let folder = tempfile::tempdir().unwrap();
            symlink(binary().unwrap(), folder.path().join("kubectl-postern")).unwrap();
            let plugin = Command::new(folder.path().join("kubectl-postern"))
                .args(["explain", "shop/web", "shop/db", "5432", "--context", "test"])
                .env("KUBECONFIG", fleet.api.kubeconfig())
                .output()
                .unwrap();
            let text = String::from_utf8(plugin.stdout).unwrap();
            assert!(text.starts_with("shop/web -> shop/db TCP 5432: allowed\n"), "{text}");
        })
        .await
        .unwrap();
    });
}

#[test]
fn what_is_missing_is_named_and_the_rest_is_answered() {
    isolated(async {
        Fleet::run(async |mut fleet| {
            populate(&mut fleet).await;
            // A node that does not answer in time.
            fleet.delay(1, Duration::from_secs(60)).await.unwrap();
            let begun = Instant::now();
            let (code, text, _) = fleet.plugin(&["explain", "shop/web", "shop/db", "5432", "--timeout", "3"]).unwrap();
            assert!(begun.elapsed() < PATIENCE);
            let due = "shop/web -> shop/db TCP 5432: allowed, unless the agent of node node-2 refuses it";
            assert_eq!((code, text.lines().next()), (0, Some(due)), "{text}");
            assert!(text.contains("allowed by shop/web egress[0]"), "{text}");
            assert!(text.contains("decided on node node-2, which gave no answer: no answer within 3 s"), "{text}");

            // An agent that is away, though its pod is there; and a node that is not to be asked.
            fleet.delay(1, Duration::ZERO).await.unwrap();
            fleet.agents[1].kill().unwrap();
            let answer = explain(&fleet, "shop/web", "shop/db", "5432");
            let reason = answer["ingress"]["unanswered"].as_str().unwrap();
            assert!(reason.starts_with("cannot ask the agent at 127.0.0.1:9471"), "{answer}");
            assert_eq!(answer["egress"]["rule"], "shop/web egress[0]", "{answer}");
            let (_, text, _) = fleet.plugin(&["explain", "shop/web", "shop/db", "5432", "--node", "node-1"]).unwrap();
            assert!(text.contains("it is not among the nodes that are asked"), "{text}");
            let (code, _, told) = fleet.plugin(&["flows", "--node", "node-3"]).unwrap();
            assert!(code == 2 && told.contains("there is no node node-3; did you mean"), "{told}");

            // A node without an agent.
            fleet.withdraw(1).await.unwrap();
            let answer = explain(&fleet, "shop/web", "shop/db", "5432");
            assert_eq!(answer["ingress"]["unanswered"], "it has no agent", "{answer}");
            let (code, out, told) = fleet.plugin(&["flows", "-o", "json"]).unwrap();
            assert_eq!(code, 1, "{out}{told}");
            assert!(told.contains("missing: node node-2: it has no agent"), "{told}");
            assert!(
                out.lines().count() > 0 && out.lines().all(|line| line.starts_with("{\"node\":\"node-1\",")),
                "{out}"
            );
            fleet.withdraw(0).await.unwrap();
            let (code, _, told) = fleet.plugin(&["flows"]).unwrap();
            assert!(code == 2 && told.contains("--agent-namespace says where the agents are"), "{told}");
        })
        .await
        .unwrap();
    });
}

/// Writes a program that stands for an agent of another version.
fn program(folder: &TempDir, script: &str) -> PathBuf {
    let path = folder.path().join("postern");
    fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
    path
}

#[test]
fn agents_of_other_versions_are_told() {
    isolated(async {
        Fleet::run(async |mut fleet| {
            populate(&mut fleet).await;
            let folder = tempfile::tempdir().unwrap();
            // One that answers alike.
            let real = binary().unwrap();
            let script =
                format!("{} \"$@\" | sed -u 's/\"version\":\"[^\"]*\"/\"version\":\"0.0.9\"/'", real.display());
            fleet.replace(1, &program(&folder, &script)).await.unwrap();
            let (code, text, told) = fleet.plugin(&["explain", "shop/web", "shop/db", "5432"]).unwrap();
            assert!(code == 0 && text.starts_with("shop/web -> shop/db TCP 5432: allowed\n"), "{text}");
            assert!(told.starts_with("note: the agent of node node-2 is of version 0.0.9, and this is "), "{told}");
            let (_, text, _) = fleet.plugin(&["doctor"]).unwrap();
            assert!(text.contains("0.0.9 on node-2"), "{text}");

            // One that does not know the question.
            let script = "echo \"error: unrecognized subcommand '$1'\" >&2; exit 2";
            fleet.replace(1, &program(&folder, script)).await.unwrap();
            let answer = explain(&fleet, "shop/web", "shop/db", "5432");
            let due = "it is of another version, or no agent: error: unrecognized subcommand 'answer'";
            assert_eq!(answer["ingress"]["unanswered"], due, "{answer}");
            let (code, _, told) = fleet.plugin(&["denials"]).unwrap();
            assert!(code == 1 && told.contains("missing: node node-2: unrecognized subcommand 'denials'"), "{told}");
        })
        .await
        .unwrap();
    });
}

#[test]
fn rights_that_are_missing_are_named() {
    isolated(async {
        Fleet::run(async |mut fleet| {
            populate(&mut fleet).await;
            fleet.api.apply(READER).await.unwrap();
            let kubeconfig = fleet.api.kubeconfig_for_service_account("shop", "reader").await.unwrap();
            let ask = || {
                let output = Command::new(binary().unwrap())
                    .args(["kubectl", "explain", "shop/web", "shop/db", "5432", "--kubeconfig"])
                    .arg(&kubeconfig)
                    .output()
                    .unwrap();
                (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
            };
            // The API server takes a moment to see roles.
            let begun = Instant::now();
            let due = "it takes the right to get and create pods/exec in namespace kube-system";
            loop {
                let (_, told) = ask();
                if told.contains(due) {
                    break;
                }
                assert!(begun.elapsed() < PATIENCE, "{told}");
            }
            fleet.api.apply(EXECUTOR).await.unwrap();
            let begun = Instant::now();
            loop {
                let (text, told) = ask();
                if text.starts_with("shop/web -> shop/db TCP 5432: allowed\n") {
                    break;
                }
                assert!(begun.elapsed() < PATIENCE, "{text}{told}");
            }
        })
        .await
        .unwrap();
    });
}

/// Who may read what questions are about, and nothing else.
const READER: &str = "
apiVersion: v1
kind: ServiceAccount
metadata: {name: reader, namespace: shop}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: reader}
rules: [{apiGroups: [\"\"], resources: [pods, nodes, services], verbs: [list]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: reader}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: reader}
subjects: [{kind: ServiceAccount, name: reader, namespace: shop}]
";

/// What the message asks for.
const EXECUTOR: &str = "
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: executor, namespace: kube-system}
rules: [{apiGroups: [\"\"], resources: [pods/exec], verbs: [get, create]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: executor, namespace: kube-system}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: executor}
subjects: [{kind: ServiceAccount, name: reader, namespace: shop}]
";

#[test]
fn what_was_refused_anywhere_is_shown_and_followed() {
    isolated(async {
        Fleet::run(async |mut fleet| {
            populate(&mut fleet).await;
            fleet.until(&["shop/web -> shop/far 80/TCP: refused"]).await.unwrap();
            let begun = Instant::now();
            let lines = loop {
                let (code, out, told) = fleet.plugin(&["denials", "-o", "json"]).unwrap();
                assert_eq!((code, &*told), (0, ""), "{out}");
                let lines: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
                let nodes = ["node-1", "node-2"].map(|node| lines.iter().any(|line| line["node"] == node));
                if nodes == [true, true] {
                    break lines;
                }
                assert!(begun.elapsed() < PATIENCE, "{lines:?}");
            };
            assert!(lines.is_sorted_by_key(|line| line["last"].as_str().unwrap()), "{lines:?}");
            let on = |node: &str| lines.iter().find(|line| line["node"] == node).unwrap();
            assert_eq!((&on("node-1")["direction"], &on("node-2")["direction"]), (&json!("egress"), &json!("ingress")));
            let (_, text, _) = fleet.plugin(&["denials", "--pod", "shop/far"]).unwrap();
            assert!(text.lines().all(|line| line.contains("shop/far")) && text.contains("\n"), "{text}");

            // Followed, and the programs on the nodes end with it.
            // Since a minute ago, as the nodes' programs may begin after the packet has been refused.
            let mut following = fleet.command(&["denials", "--follow", "--since", "1m"]).unwrap();
            let mut following = following.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
            let mut lines = BufReader::new(following.stdout.take().unwrap()).lines();
            fleet.until(&["shop/far -> shop/db 81/TCP: refused"]).await.unwrap();
            let line = lines.find(|line| line.as_ref().unwrap().contains(" 81/TCP")).unwrap().unwrap();
            assert!(line.starts_with("node-2  ") && line.contains("shop/far"), "{line}");
            assert_eq!(tethered(), 2);
            following.kill().unwrap();
            following.wait().unwrap();
            let begun = Instant::now();
            while tethered() > 0 {
                assert!(begun.elapsed() < PATIENCE, "programs go on in the agents' pods");
                std::thread::sleep(Duration::from_millis(20));
            }
        })
        .await
        .unwrap();
    });
}

#[test]
fn every_node_says_how_it_stands() {
    isolated(async {
        Fleet::run(async |mut fleet| {
            populate(&mut fleet).await;
            let (code, text, told) = fleet.plugin(&["status"]).unwrap();
            let lines: Vec<&str> = text.lines().collect();
            assert!(code == 0 && lines.len() == 2, "{text}{told}");
            for (line, node) in lines.iter().zip(["node-1", "node-2"]) {
                assert!(line.starts_with(&format!("{node}  in force since ")), "{text}");
                assert!(line.contains(concat!("version ", env!("CARGO_PKG_VERSION"))), "{text}");
            }

            // A policy that is in force where it has pods, and known where it has none.
            let (code, text, told) = fleet.plugin(&["status", "shop/db", "--wait=20s"]).unwrap();
            assert_eq!((code, &*text), (0, "node-1  no pod of it\nnode-2  in force: generation 1, 1 pod\n"), "{told}");
            let spec = "{podSelector: {matchLabels: {app: db}}, ingress: [{}]}";
            fleet.api.apply(&policy("shop/db", spec)).await.unwrap();
            let (code, out, told) = fleet.plugin(&["status", "shop/db", "--wait=20s", "-o", "json"]).unwrap();
            let lines: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            let enforced = lines.iter().map(|line| line["enforced"]["generation"].as_u64());
            assert!(code == 0 && enforced.eq([None, Some(2)]), "{out}{told}");
            fleet.until(&["shop/far -> shop/db 5432/TCP: allowed"]).await.unwrap();

            // An agent that is away knows nothing of a change; what it has put in force stays, and is not enough.
            fleet.agents[1].kill().unwrap();
            fleet.api.apply(&policy("shop/db", "{podSelector: {matchLabels: {app: db}}}")).await.unwrap();
            let (code, text, _) = fleet.plugin(&["status", "shop/db", "--wait=2s"]).unwrap();
            let last = text.lines().last().unwrap();
            assert!(
                code == 1 && last.starts_with("node-2  no answer: cannot ask the agent at 127.0.0.1:9471"),
                "{text}"
            );
            let (code, _, told) = fleet.plugin(&["status", "shop/dbs"]).unwrap();
            assert!(code == 2 && told.contains("there is no NetworkPolicy shop/dbs; did you mean shop/db?"), "{told}");
        })
        .await
        .unwrap();
    });
}

#[test]
fn the_health_of_all_nodes_is_told_and_what_to_do() {
    isolated(async {
        Fleet::run(async |mut fleet| {
            populate(&mut fleet).await;
            let (code, text, told) = fleet.plugin(&["doctor"]).unwrap();
            assert!(code == 0 && told.is_empty(), "{text}{told}");
            for node in ["node-1", "node-2"] {
                let line = text.lines().find(|line| line.starts_with(node)).unwrap();
                assert!(line.ends_with(" 0 wrong"), "{text}");
            }
            assert!(text.contains("versions: all agents and this program are "), "{text}");

            fleet.withdraw(1).await.unwrap();
            let (code, out, _) = fleet.plugin(&["doctor", "-o", "json"]).unwrap();
            let checks: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            let of = |node: &str| checks.iter().filter(|check| check["node"] == node).collect::<Vec<_>>();
            let (first, second) = (of("node-1"), of("node-2"));
            assert!(code == 1 && first.len() > 5 && second.len() == 1, "{out}");
            assert_eq!((&second[0]["state"], &second[0]["found"]), (&json!("wrong"), &json!("it has no agent")));
        })
        .await
        .unwrap();
    });
}

/// How many programs of this test there are that end with who asked.
fn tethered() -> usize {
    let own = fs::read_link("/proc/self/ns/user").unwrap();
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let is_one = |path: &std::path::Path| {
        let words = fs::read(path.join("cmdline")).unwrap_or_default();
        let is_tethered = words.split(|byte| *byte == 0).any(|word| word == b"--tethered");
        is_tethered && fs::read_link(path.join("ns/user")).is_ok_and(|user| user == own)
    };
    processes.filter(|process| is_one(&process.path())).count()
}

#[test]
fn a_change_says_which_flows_it_cuts_and_what_it_heals() {
    isolated(async {
        Fleet::run(async |mut fleet| {
            populate(&mut fleet).await;
            // A connection from one node to the other, which both tell of.
            let to = SocketAddr::from(([10, 244, 1, 1], 5432));
            let [server, client] = ["shop/db", "shop/web"].map(|name| fleet.lab.pod(name).unwrap().clone());
            let listener = server.run(|| TcpListener::bind(to)).unwrap().unwrap();
            let stream = client.run(|| TcpStream::connect_timeout(&to, PATIENCE)).unwrap().unwrap();
            let folder = tempfile::tempdir().unwrap();
            let file = folder.path().join("db.yaml");
            let from = "[{podSelector: {matchLabels: {app: far}}}]";
            let spec = format!("{{podSelector: {{matchLabels: {{app: db}}}}, ingress: [{{from: {from}}}]}}");
            fs::write(&file, policy("shop/db", &spec)).unwrap();
            let diff = |more: &[&str]| {
                fleet.plugin(&[&["diff", "-f", file.to_str().unwrap(), "--traffic"][..], more].concat()).unwrap()
            };
            let begun = Instant::now();
            let text = loop {
                let (code, text, told) = diff(&[]);
                assert!(code == 1 && !told.contains("missing"), "{text}{told}");
                if text.contains("refused packets it lets pass: ") {
                    break text;
                }
                assert!(begun.elapsed() < PATIENCE, "{text}");
            };
            // The probes before have left some that are about to end.
            let cut = text.lines().find_map(|line| line.strip_prefix("open flows it cuts: ")).unwrap();
            let (number, flow) = cut.split_once(' ').unwrap();
            assert!(number.parse::<usize>().unwrap() >= 1, "{text}");
            assert_eq!(
                flow,
                "pod/shop/web -> pod/shop/db 5432/TCP, such as shop/web (10.244.0.1) -> shop/db (10.244.1.1)"
            );
            assert!(
                text.contains(" pod/shop/far -> pod/shop/db 5432/TCP, such as shop/far (10.244.1.2) -> "),
                "{text}"
            );
            let (_, out, _) = diff(&["-o", "json"]);
            let lines: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            let cut =
                lines.iter().find(|line| line["cut_flows"].as_u64() >= Some(1)).unwrap_or_else(|| panic!("{out}"));
            assert_eq!((&cut["from"], &cut["port"]), (&json!("pod/shop/web"), &json!("5432/TCP")));
            assert!(lines.iter().any(|line| line["healed_packets"].as_u64() > Some(0)), "{out}");

            // A node that does not answer is named, and what it holds is not.
            fleet.withdraw(1).await.unwrap();
            let (code, _, told) = diff(&[]);
            assert!(code == 1 && told.contains("missing: node node-2: it has no agent"), "{told}");
            drop((listener, stream));
        })
        .await
        .unwrap();
    });
}
