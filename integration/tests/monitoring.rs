//! `manifests/monitoring` by Prometheus' own programs: the alerts are checked and tried, and every query of alerts and
//! dashboard is asked of a Prometheus that scrapes a real agent.

#![allow(clippy::unwrap_used, reason = "a test that cannot set up its world has failed")]

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use integration::node::Node;
use integration::repository;
use integration::scene::{pod, policy};
use lab::isolated;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// For what must come: a loaded machine may be slow.
const PATIENCE: Duration = Duration::from_secs(60);
/// Where Prometheus listens. The test has a network namespace of its own.
const PROMETHEUS: &str = "127.0.0.1:9090";
/// What Grafana puts in for its variables.
const VARIABLES: [(&str, &str); 3] = [("$__rate_interval", "10s"), ("$job", ".*"), ("$instance", ".*")];

fn file(name: &str) -> PathBuf {
    repository::root().join("manifests/monitoring").join(name)
}

fn promtool(arguments: &[&str]) {
    let folder = repository::root().join("manifests/monitoring");
    let output = Command::new("promtool").args(arguments).current_dir(folder).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "promtool {arguments:?}: {said}");
}

#[test]
fn alerts_come_when_they_should() {
    promtool(&["check", "rules", "--lint=all", "--lint-fatal", "rules.yaml"]);
    promtool(&["test", "rules", "rules_test.yaml"]);
    // Each alert is tried: once that it comes, and once that it does not.
    let rules = fs::read_to_string(file("rules.yaml")).unwrap();
    let tests = fs::read_to_string(file("rules_test.yaml")).unwrap();
    for name in rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
        assert!(
            tests.contains(&format!("{{eval_time: 85m, alertname: {name}}}")),
            "{name} is not tried on a good node"
        );
        assert!(
            tests.contains(&format!("        alertname: {name}\n        exp_alerts:")),
            "{name} is not seen to come"
        );
    }
}

/// The queries of the dashboard.
fn queries() -> Vec<String> {
    let dashboard: Value = serde_json::from_str(&fs::read_to_string(file("dashboard.json")).unwrap()).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().unwrap());
    let with_values =
        |query: &str| VARIABLES.iter().fold(query.to_owned(), |query, (name, value)| query.replace(name, value));
    targets.map(|target| with_values(target["expr"].as_str().unwrap())).collect()
}

/// What Prometheus answers to a GET.
async fn get(path: &str) -> Option<Value> {
    let mut stream = TcpStream::connect(PROMETHEUS).await.ok()?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {PROMETHEUS}\r\n\r\n").as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()
}

/// The series that a query leaves now.
async fn series(query: &str) -> Result<Vec<Value>, String> {
    let encoded: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let answer = get(&format!("/api/v1/query?query={encoded}")).await.ok_or("no answer")?;
    let series = answer["data"]["result"].as_array().cloned();
    series.ok_or_else(|| answer["error"].as_str().unwrap_or("no result").to_owned())
}

/// Prometheus, ended on drop.
struct Prometheus {
    process: Child,
    _folder: TempDir,
}

impl Prometheus {
    fn start() -> Prometheus {
        let folder = tempfile::tempdir().unwrap();
        let config = format!(
            "{{global: {{scrape_interval: 1s, evaluation_interval: 1s}}, rule_files: [{:?}], scrape_configs: [{{job_name: postern, \
             static_configs: [{{targets: ['127.0.0.1:9471']}}]}}]}}",
            file("rules.yaml")
        );
        fs::write(folder.path().join("prometheus.yml"), config).unwrap();
        let process = Command::new("prometheus")
            .arg(format!("--config.file={}", folder.path().join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
            .arg(format!("--web.listen-address={PROMETHEUS}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Prometheus { process, _folder: folder }
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn every_query_finds_what_a_real_agent_tells() {
    isolated(async {
        Node::run(async |mut node| {
            let objects = "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n".to_owned()
                + &pod("shop/db", "node-1", "app: db", "")
                + &pod("shop/web", "node-1", "app: web", "")
                + &policy("shop/db", "{podSelector: {matchLabels: {app: db}}}");
            node.api.apply(&objects).await.unwrap();
            for (name, number) in [("shop/db", 10), ("shop/web", 11)] {
                node.attach(name, &[[10, 244, 0, number].into()]).await.unwrap();
                node.report(name).await.unwrap();
            }
            node.until(&["shop/web -> shop/db 80/TCP: refused"]).await.unwrap();
            let _prometheus = Prometheus::start();
            let mut due: BTreeSet<String> = queries().into_iter().collect();
            assert!(due.len() > 20, "{due:?}");
            let begun = Instant::now();
            let mut changes = 0;
            // Rates need two scrapes with a change between them.
            while !due.is_empty() {
                changes += 1;
                let spec = format!(
                    "{{podSelector: {{matchLabels: {{app: db}}}}, ingress: [{{ports: [{{port: {changes}}}]}}]}}"
                );
                node.api.apply(&policy("shop/db", &spec)).await.unwrap();
                let mut missing = BTreeSet::new();
                let mut last = String::new();
                for query in due {
                    let found = series(&query).await;
                    let is_number = |series: &Value| series["value"][1].as_str().is_some_and(|value| value != "NaN");
                    if !found.as_ref().is_ok_and(|found| found.iter().any(is_number)) {
                        last = format!("{found:?}");
                        missing.insert(query);
                    }
                }
                due = missing;
                assert!(begun.elapsed() < PATIENCE, "nothing comes of {due:#?}: {last}");
                tokio::time::sleep(Duration::from_millis(500)).await;
            }

            // Alerts are evaluated, none of them fires, and each metric that they name is one of the agent's.
            let rules = get("/api/v1/rules").await.unwrap();
            let rules = rules["data"]["groups"][0]["rules"].as_array().unwrap();
            let (_, metrics) = node.agent.get("/metrics").await.unwrap();
            for rule in rules {
                assert_eq!((&rule["health"], &rule["state"]), (&"ok".into(), &"inactive".into()), "{rule}");
                let query = rule["query"].as_str().unwrap();
                let words = query.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
                for name in words.filter(|word| word.starts_with("postern_")) {
                    let is_told = metrics
                        .lines()
                        .any(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{'])));
                    assert!(is_told || name == "postern_invalid_objects", "{name} is not in\n{metrics}");
                }
            }
        })
        .await
        .unwrap();
    });
}
