//! `postern matrix` and `postern diff` as people and pipelines run them: of files, and of a running cluster.

#![allow(clippy::unwrap_used, reason = "a test that cannot set up its world has failed")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use integration::agent::{self, loopback_up};
use integration::control_plane::{ControlPlane, pod};
use integration::scene::policy;
use lab::isolated;
use serde_json::{Value, json};

/// A Deployment of namespace `shop`, labelled by its name.
fn deployment(name: &str) -> String {
    format!(
        "---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: {name}, namespace: shop}}\nspec: {{replicas: 2, selector: \
         {{matchLabels: {{app: {name}}}}}, template: {{metadata: {{labels: {{app: {name}}}}}, spec: {{containers: [{{name: m, \
         image: example.test/m}}]}}}}}}\n"
    )
}

fn only_web() -> String {
    policy(
        "shop/db",
        "{podSelector: {matchLabels: {app: db}}, ingress: [{from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: \
         5432}]}]}",
    )
}

/// Exit status, standard output, standard error.
fn run(arguments: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } =
        Command::new(agent::binary().unwrap()).args(arguments).stdin(Stdio::null()).output().unwrap();
    (status.code().unwrap(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn write(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn files_are_shown_and_compared() {
    let folder = tempfile::tempdir().unwrap();
    let workloads = deployment("web") + &deployment("db") + &deployment("cron");
    let old = write(folder.path(), "old.yaml", &workloads);
    let new = write(folder.path(), "new.yaml", &(workloads + &only_web()));

    let (status, text, told) = run(&["matrix", "-f", &new]);
    assert_eq!(status, 0, "{told}");
    assert!(
        text.lines().any(|line| line.split_whitespace().eq(["deploy/shop/web", "all", "5432/TCP", "all", "all"])),
        "{text}"
    );
    let (_, text, _) = run(&["matrix", "-f", &new, "-o", "json", "deploy/shop/cron"]);
    let cell = |from: &str, to: &str| lines(&text).into_iter().find(|line| line["from"] == from && line["to"] == to);
    let nothing = json!({"from": "deploy/shop/cron", "to": "deploy/shop/db", "ports": []});
    assert_eq!(cell("deploy/shop/cron", "deploy/shop/db"), Some(nothing));
    assert_eq!(cell("outside", "deploy/shop/cron").unwrap()["ports"], json!(["TCP", "UDP", "SCTP", "ICMP"]));
    assert_eq!(cell("deploy/shop/web", "deploy/shop/db"), None);
    let (status, _, told) = run(&["matrix", "-f", &new, "deploy/shop/crom"]);
    assert!(status == 2 && told.contains("did you mean shop/cron?"), "{told}");

    let (status, text, told) = run(&["diff", "-f", &new, "--against", &old]);
    assert_eq!(status, 1, "{told}");
    assert!(text.starts_with("closes\n  to deploy/shop/db\n"), "{text}");
    assert!(text.contains("all but 5432/TCP  from deploy/shop/web"), "{text}");
    let (status, text, _) = run(&["diff", "-f", &old, "--against", &new, "-o", "json", "deploy/shop/web"]);
    let [change] = &lines(&text)[..] else { panic!("{text}") };
    assert_eq!(status, 1);
    assert_eq!(change["opens"], json!(["1-5431/TCP", "5433-65535/TCP", "UDP", "SCTP", "ICMP"]));
    assert_eq!((&change["from"], &change["closes"]), (&json!("deploy/shop/web"), &json!([])));
    let (_, text, _) = run(&["diff", "-f", &new, "--against", &old, "-o", "markdown"]);
    assert!(text.contains("| `deploy/shop/db` | all but 5432/TCP | deploy/shop/web |"), "{text}");
    assert_eq!(run(&["diff", "-f", &new, "--against", &new]).0, 0);

    let policies = write(folder.path(), "policies.yaml", &only_web());
    let (status, _, told) = run(&["diff", "-f", &policies, "--against", &policies]);
    assert!(status == 2 && told.contains("nobody between whom anything could open or close"), "{told}");
}

#[test]
fn many_workloads_are_answered_in_seconds() {
    let folder = tempfile::tempdir().unwrap();
    let mut yaml = String::new();
    for number in 0..300 {
        let name = format!("app-{number}");
        let peer = format!("app-{}", (number + 1) % 300);
        yaml += &deployment(&name).replace("namespace: shop", &format!("namespace: team-{}", number % 20));
        yaml += &policy(
            &format!("team-{}/{name}", number % 20),
            &format!(
                "{{podSelector: {{matchLabels: {{app: {name}}}}}, policyTypes: [Ingress, Egress], ingress: [{{from: \
                 [{{namespaceSelector: {{}}, podSelector: {{matchLabels: {{app: {peer}}}}}}}], ports: [{{port: 80}}, {{port: \
                 443}}]}}], egress: [{{to: [{{namespaceSelector: {{}}}}]}}]}}"
            ),
        );
    }
    let file = write(folder.path(), "cluster.yaml", &yaml);
    let begin = Instant::now();
    let (status, text, told) = run(&["matrix", "-f", &file]);
    let took = begin.elapsed();
    assert_eq!(status, 0, "{told}");
    assert!(
        text.contains("  to deploy/team-0/app-0 (2 pods)\n    80/TCP, 443/TCP  from deploy/team-1/app-1\n"),
        "{text}"
    );
    assert!(text.lines().count() < 1_200, "readable: {} lines", text.lines().count());
    // It takes some seconds without optimization on a machine with nothing else to do.
    assert!(took < Duration::from_secs(120), "{took:?}");
    eprintln!("300 workloads: {took:?}");
}

#[test]
fn a_running_cluster_is_shown_and_compared() {
    isolated(async {
        loopback_up().unwrap();
        let cluster = ControlPlane::start().await.unwrap();
        cluster.create_namespace("shop", &[]).await.unwrap();
        for (name, app, address) in
            [("web-5d4f-a", "web", "10.0.0.1"), ("web-5d4f-b", "web", "10.0.0.2"), ("db-0", "db", "10.0.1.1")]
        {
            let mut pod = pod("shop", name, "node-1", &[("app", app), ("pod-template-hash", "5d4f")]);
            let (kind, owner) = if app == "web" { ("ReplicaSet", "web-5d4f") } else { ("StatefulSet", "db") };
            let owner = json!({"apiVersion": "apps/v1", "kind": kind, "name": owner, "controller": true,
                "uid": "f81d4fae-7dec-11d0-a765-00a0c91e6bf6"});
            pod.metadata.owner_references = Some(vec![serde_json::from_value(owner).unwrap()]);
            cluster.run_pod(&pod, &[address.parse().unwrap()]).await.unwrap();
        }
        let kubeconfig = cluster.kubeconfig();
        let with = ["--kubeconfig", kubeconfig.to_str().unwrap(), "-o", "json"];
        let (status, text, told) = run(&[&["matrix"][..], &with].concat());
        assert_eq!(status, 0, "{told}");
        let line =
            lines(&text).into_iter().find(|line| line["from"] == "deploy/shop/web" && line["to"] == "sts/shop/db");
        assert_eq!(line.unwrap()["ports"], json!(["TCP", "UDP", "SCTP", "ICMP"]), "{text}");

        // What the policy would close, before it is applied; and afterwards nothing.
        let folder = tempfile::tempdir().unwrap();
        let file = write(folder.path(), "policy.yaml", &only_web());
        let diff = || run(&[&["diff", "-f", &file][..], &with].concat());
        let (status, text, told) = diff();
        assert_eq!(status, 1, "{told}");
        let closes: Vec<(String, String)> =
            lines(&text).iter().map(|line| (line["from"].to_string(), line["to"].to_string())).collect();
        assert_eq!(
            closes,
            [
                ("\"deploy/shop/web\"".into(), "\"sts/shop/db\"".into()),
                ("\"outside\"".into(), "\"sts/shop/db\"".into())
            ],
            "{text}"
        );
        cluster.apply(&only_web()).await.unwrap();
        assert_eq!(diff(), (0, String::new(), diff().2));

        // A Deployment of the files takes the place of its pods, and its new labels count.
        let chart = write(folder.path(), "chart.yaml", &deployment("web").replace("app: web", "app: front"));
        let (status, text, told) = run(&[&["diff", "-f", &chart][..], &with].concat());
        assert_eq!((status, lines(&text)[0]["closes"].clone()), (1, json!(["5432/TCP"])), "{text}{told}");
    });
}
