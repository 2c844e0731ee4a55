//! Charts: `explain` and `try` of manifests with Deployments and the like, and no Pods.

#![allow(clippy::unwrap_used, reason = "a test that cannot set up its world has failed")]

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use integration::agent;
use integration::answers::without_nearest;
use integration::scene::{node, policy};
use serde_json::{Value, json};
use tempfile::TempDir;

/// What `helm template` might print of a small shop: no Pod, no node, no address.
fn chart() -> String {
    let workload = |kind: &str, name: &str, more: &str, port: u16| {
        format!(
            "---\napiVersion: apps/v1\nkind: {kind}\nmetadata: {{name: {name}, namespace: shop}}\nspec:\n  {more}\n  selector: \
             {{matchLabels: {{app: {name}}}}}\n  template:\n    metadata: {{labels: {{app: {name}}}}}\n    spec: {{containers: \
             [{{name: main, image: example.test/main, ports: [{{name: main, containerPort: {port}}}]}}]}}\n"
        )
    };
    workload("Deployment", "web", "replicas: 2", 8080)
        + &workload("StatefulSet", "db", "replicas: 2", 5432)
        + &workload("DaemonSet", "log", "updateStrategy: {type: OnDelete}", 9000)
        + &workload("Deployment", "idle", "replicas: 0", 80)
        + "---\napiVersion: batch/v1\nkind: CronJob\nmetadata: {name: nightly, namespace: shop}\nspec:\n  schedule: '@daily'\n  \
           jobTemplate: {spec: {template: {metadata: {labels: {app: nightly}}, spec: {containers: [{name: main}]}}}}\n"
        + "---\napiVersion: v1\nkind: Service\nmetadata: {name: db, namespace: shop}\nspec: {selector: {app: db}, ports: \
           [{port: 5432, targetPort: main}]}\n"
        + &policy(
            "shop/db",
            "{podSelector: {matchLabels: {app: db}}, ingress: [{from: [{podSelector: {matchLabels: {app: web}}}], ports: \
             [{port: main}]}]}",
        )
        // One pod of the set takes backups as well.
        + &policy(
            "shop/backup",
            "{podSelector: {matchLabels: {apps.kubernetes.io/pod-index: '0'}}, ingress: [{from: [{podSelector: {matchLabels: \
             {app: nightly}}}]}]}",
        )
}

struct Asked {
    folder: TempDir,
}

impl Asked {
    fn new(yaml: &str) -> Asked {
        let folder = TempDir::with_prefix("postern-workloads-").unwrap();
        fs::write(folder.path().join("chart.yaml"), yaml).unwrap();
        Asked { folder }
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("chart.yaml")
    }

    /// Exit status, standard output, standard error.
    fn run(&self, command: &str, more: &[&str]) -> (i32, String, String) {
        let Output { status, stdout, stderr } = Command::new(agent::binary().unwrap())
            .args([command, "-f", self.file().to_str().unwrap()])
            .args(more)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        (status.code().unwrap(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
    }
}

#[test]
fn packets_agree_with_what_is_explained() {
    let asked = Asked::new(&(chart() + &node("n1", &[]) + &node("n2", &[])));
    let probe = |src: &str, dst: &str, port: u16| json!({"src": src, "dst": dst, "protocol": "TCP", "port": port});
    let probes: Vec<String> = [
        probe("deploy/shop/web", "sts/shop/db", 5432),
        probe("cronjob/shop/nightly", "sts/shop/db", 5432),
        probe("ds/shop/log", "svc/shop/db", 5432),
        probe("ns/shop", "deploy/shop/web", 8080),
    ]
    .iter()
    .map(Value::to_string)
    .collect();
    let file = asked.folder.path().join("probes.jsonl");
    fs::write(&file, probes.join("\n")).unwrap();
    let of_file = ["--probes", file.to_str().unwrap(), "-o", "json"];
    let (explained, said, told) = asked.run("explain", &of_file);
    let (tried, sent, of_try) = asked.run("try", &[&of_file[..], &["--timeout", "300"]].concat());
    assert_eq!((explained, tried), (0, 0), "{told}\n{of_try}");
    let answers: Vec<Value> = said.lines().map(|line| without_nearest(line).unwrap()).collect();
    let sent: Vec<Value> = sent.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(answers, sent);
    let of = |answer: &Value| {
        let flows = answer["endpoints"].as_array().unwrap();
        (flows.len(), flows.iter().filter(|flow| flow["allowed"] == true).count())
    };
    assert_eq!(answers.iter().map(of).collect::<Vec<_>>(), [(4, 4), (2, 1), (4, 0), (12, 12)]);
    assert_eq!(answers[1]["endpoints"][0]["client"], "shop/nightly-0");
    assert_eq!(answers[1]["endpoints"][0]["endpoint"], "shop/db-0");
}

#[test]
fn a_chart_is_tried_by_workload() {
    let asked = Asked::new(&(chart() + &node("n1", &[]) + &node("n2", &[])));
    let (status, text, told) = asked.run("try", &["--timeout", "300"]);
    assert_eq!(status, 0, "{text}{told}");
    let row = |name: &str| {
        let line = text.lines().find(|line| line.trim_start().starts_with(name));
        line.unwrap_or_else(|| panic!("no row {name}: {text}")).split_whitespace().skip(1).collect::<Vec<_>>().join(" ")
    };
    // To web, log, both pods of the set, which a policy tells apart, the Service, and the pod of the CronJob.
    assert_eq!(row("deploy/shop/web"), "ok ok ok ok ok ok", "{text}");
    assert_eq!(row("ds/shop/log"), "ok ok ingress ingress ingress ok", "{text}");
    assert_eq!(row("cronjob/shop/nightly"), "ok ok ok ingress 1 ok, 1 ingress .", "{text}");
    let (status, lines, _) = asked.run("try", &["--timeout", "300", "-o", "json"]);
    assert!(status == 0 && lines.lines().all(|line| line.starts_with('{')), "{lines}");
}

#[test]
fn flows_that_come_out_alike_stand_together() {
    let asked = Asked::new(&chart());
    let (status, text, told) = asked.run("explain", &["cronjob/shop/nightly", "sts/shop/db", "5432"]);
    assert_eq!(status, 0, "{told}");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "cronjob/shop/nightly -> sts/shop/db TCP 5432: 2 flows: 1 allowed, 1 refused");
    assert_eq!(lines[1], "  1 refused: shop/nightly-0 -> shop/db-1 port 5432");
    assert!(lines[3].ends_with("isolated by shop/db; no rule allows it"), "{text}");
    assert!(lines[4].trim_start().starts_with("nearest: shop/db ingress[0]"), "{text}");
    assert!(lines[5..].contains(&"  1 allowed: shop/nightly-0 -> shop/db-0 port 5432"), "{text}");
    assert!(told.contains("Deployment shop/idle makes no pods: its replicas is 0"), "{told}");
    let (status, _, told) = asked.run("explain", &["shop/web-0", "deploy/shop/idle", "80"]);
    assert!(status == 2 && told.contains("Deployment shop/idle has no pods: its replicas is 0"), "{told}");
}
