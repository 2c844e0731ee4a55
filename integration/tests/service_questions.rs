//! Questions to Services of manifests: `explain` answers by endpoint, `try` sends packets to each, and both say the same.

#![allow(clippy::unwrap_used, reason = "a test that cannot set up its world has failed")]

use std::fs;
use std::process::{Command, Output, Stdio};

use integration::agent;
use integration::answers::without_nearest;
use integration::scene::{pod, policy};
use serde_json::Value;
use tempfile::TempDir;

/// A folder with manifests, and one with probes.
struct Asked {
    folder: TempDir,
}

impl Asked {
    fn new(yaml: &str) -> Asked {
        let folder = TempDir::with_prefix("postern-services-").unwrap();
        fs::write(folder.path().join("cluster.yaml"), yaml).unwrap();
        Asked { folder }
    }

    /// What a command answers: exit status, standard output, standard error.
    fn run(&self, command: &str, more: &[&str]) -> (i32, String, String) {
        let file = self.folder.path().join("cluster.yaml");
        let Output { status, stdout, stderr } = Command::new(agent::binary().unwrap())
            .args([command, "-f", file.to_str().unwrap()])
            .args(more)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        (status.code().unwrap(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
    }

    /// The answers of both commands to probes, which must be the same, and their exit status.
    fn both(&self, probes: &[Value]) -> (i32, Vec<Value>) {
        let lines: Vec<String> = probes.iter().map(Value::to_string).collect();
        let file = self.folder.path().join("probes.jsonl");
        fs::write(&file, lines.join("\n")).unwrap();
        let asked = ["--probes", file.to_str().unwrap(), "-o", "json"];
        let (explained, said, told) = self.run("explain", &asked);
        let (tried, sent, of_try) = self.run("try", &[&asked[..], &["--timeout", "300"]].concat());
        let said: Vec<Value> = said.lines().map(|line| without_nearest(line).unwrap()).collect();
        let sent: Vec<Value> = sent.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(said, sent, "{told}\n{of_try}");
        assert_eq!(explained, tried, "{told}\n{of_try}");
        (tried, said)
    }
}

/// A client and three pods behind a Service, one of which listens where no rule allows it; one more is not ready.
fn shop() -> String {
    let db = |name: &str, node: &str, port: u16| {
        pod(name, node, "app: db", &format!("{{name: sql, containerPort: {port}}}"))
    };
    let cold = db("shop/db-3", "node-2", 5432)
        + "status: {phase: Running, podIP: 10.9.9.9, conditions: [{type: Ready, status: 'False'}]}\n";
    pod("shop/web", "node-1", "app: web", "")
        + &pod("shop/stranger", "node-1", "app: stranger", "")
        + &db("shop/db-0", "node-1", 5432)
        + &db("shop/db-1", "node-2", 5433)
        + &db("shop/db-2", "node-2", 5432)
        + &cold
        + "---\napiVersion: v1\nkind: Service\nmetadata: {name: db, namespace: shop}\n\
           spec: {selector: {app: db}, externalIPs: [198.51.100.7], ports: [{port: 15432, targetPort: sql}]}\n"
        + &policy(
            "shop/db",
            "{podSelector: {matchLabels: {app: db}}, \
              ingress: [{from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: 5432}]}]}",
        )
}

#[test]
fn every_endpoint_of_a_service_is_asked_and_tried() {
    let asked = Asked::new(&shop());
    let probe = |src: &str, dst: &str, allowed: Option<bool>| {
        let mut probe = serde_json::json!({"src": src, "dst": dst, "protocol": "TCP", "port": 15432});
        if let Some(allowed) = allowed {
            probe["allowed"] = allowed.into();
        }
        probe
    };
    let names = ["svc/shop/db", "shop/db", "198.51.100.7"];
    let probes: Vec<Value> = names.iter().map(|name| probe("shop/web", name, None)).collect();
    let (status, answers) = asked.both(&probes);
    assert_eq!(status, 0);
    for answer in &answers {
        assert_eq!((&answer["allowed"], &answer["service"]), (&false.into(), &"shop/db".into()), "{answer}");
        let of =
            |field: &str| answer["endpoints"].as_array().unwrap().iter().map(|e| e[field].clone()).collect::<Value>();
        assert_eq!(of("endpoint"), serde_json::json!(["shop/db-0", "shop/db-1", "shop/db-2"]));
        assert_eq!(of("port"), serde_json::json!([5432, 5433, 5432]));
        assert_eq!(of("allowed"), serde_json::json!([true, false, true]));
        assert_eq!(answer["notes"], serde_json::json!(["1 endpoint is not ready and gets no traffic"]));
    }
    // One refusal is enough where all are to be allowed, and one that passes where all are to be refused.
    assert_eq!(asked.both(&[probe("shop/web", "shop/db", Some(true))]).0, 1);
    assert_eq!(asked.both(&[probe("shop/web", "shop/db", Some(false))]).0, 1);
    assert_eq!(asked.both(&[probe("shop/stranger", "shop/db", Some(false))]).0, 0);
    assert_eq!(asked.both(&[probe("shop/stranger", "svc/shop/dbs", None)]).0, 2);
}

#[test]
fn the_summary_comes_first_and_both_ports_are_shown() {
    let asked = Asked::new(&shop());
    let (status, text, _) = asked.run("explain", &["shop/web", "svc/shop/db", "15432/TCP"]);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!((status, lines[0]), (0, "shop/web -> svc/shop/db TCP 15432: 3 endpoints: 2 allowed, 1 refused"));
    let refused = lines.iter().position(|line| line.contains("shop/db-1")).unwrap();
    assert!(lines[refused].starts_with("  Service shop/db port 15432 -> shop/db-1 ("), "{text}");
    assert!(lines[refused].ends_with(" port 5433: refused"), "{text}");
    assert!(lines[refused + 2].ends_with("isolated by shop/db; no rule allows it"), "{text}");
    let nearest = "nearest: shop/db ingress[0], but for ports: it has 5432/TCP";
    assert_eq!(lines[refused + 3].trim(), nearest, "{text}");
    let change: Vec<&str> = lines[refused + 4..].iter().map(|line| line.trim()).collect();
    let patch = ["- op: add", "path: \"/spec/ingress/0/ports/-\"", "value: {port: 5433, protocol: TCP}"];
    assert_eq!(
        change[0], "to allow it: kubectl -n shop patch networkpolicy db --type=json --patch-file=FILE",
        "{text}"
    );
    assert_eq!(change[1..4], patch, "{text}");

    let (status, matrix, told) = asked.run("try", &["--timeout", "300"]);
    assert_eq!(status, 0, "{told}");
    let row = matrix.lines().find(|line| line.trim_start().starts_with("shop/web")).unwrap();
    assert!(row.contains("2 ok, 1 ingress"), "{matrix}");
}

#[test]
fn more_endpoints_than_can_be_told_apart_at_once_are_tried() {
    let mut yaml = pod("shop/web", "node-1", "app: web", "");
    for number in 0..70 {
        let labels = format!("app: db, even: '{}'", number % 2 == 0);
        yaml += &pod(&format!("shop/db-{number:02}"), "node-1", &labels, "");
    }
    yaml += "---\napiVersion: v1\nkind: Service\nmetadata: {name: db, namespace: shop}\n\
             spec: {selector: {app: db}, ports: [{port: 80, protocol: UDP}]}\n";
    yaml += &policy("shop/odd", "{podSelector: {matchLabels: {even: 'false'}}, policyTypes: [Ingress]}");
    let asked = Asked::new(&yaml);
    let probe = serde_json::json!({"src": "shop/web", "dst": "shop/db", "protocol": "UDP", "port": 80});
    let (status, answers) = asked.both(&[probe]);
    let allowed = answers[0]["endpoints"].as_array().unwrap().iter().filter(|e| e["allowed"] == true).count();
    assert_eq!((status, answers[0]["endpoints"].as_array().unwrap().len(), allowed), (0, 70, 35));
}
