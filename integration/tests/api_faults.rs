//! The agent against API servers that fail: what stands stays enforced, the failure is told, nothing is asked for without
//! a pause, and what changed meanwhile is in force when the server works again.

#![allow(clippy::unwrap_used, reason = "a test that cannot set up its world has failed")]
#![allow(clippy::print_stdout, reason = "what was measured, for whoever runs a test with --nocapture")]

use std::time::{Duration, Instant};

use integration::agent::{Agent, loopback_up, nft};
use integration::fake_api::{FakeApi, Fault};
use integration::relay::Way;
use integration::usage::cpu;
use lab::isolated;

/// For how long a server fails.
const SPELL: Duration = Duration::from_secs(6);
/// How soon news must be in force after the server works again: the longest wait between two attempts, and time for one.
const RECOVERY: Duration = Duration::from_secs(30);

const CLUSTER: &str = "
{apiVersion: v1, kind: Namespace, metadata: {name: shop}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: clients, labels: {team: clients}}}
---
{apiVersion: v1, kind: Pod, metadata: {name: web, namespace: shop, labels: {app: web}}, spec: {nodeName: node-1},
 status: {phase: Running, podIPs: [{ip: 10.0.0.1}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: one, namespace: clients}, spec: {nodeName: node-2},
 status: {phase: Running, podIPs: [{ip: 10.0.1.1}]}}
";

/// Ingress to the web server from the clients, on a port.
fn policy(name: &str, port: u16) -> String {
    format!(
        "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: {name}, namespace: shop}}
spec:
  podSelector: {{matchLabels: {{app: web}}}}
  ingress: [{{from: [{{namespaceSelector: {{matchLabels: {{team: clients}}}}}}], ports: [{{port: {port}}}]}}]
"
    )
}

/// An agent that enforces what a server said.
struct Scene {
    api: FakeApi,
    agent: Agent,
}

/// What the agent did in a time in which the server failed.
#[derive(Debug)]
struct Observed {
    requests: u64,
    /// How many lines it logged that are not for debugging.
    lines: Vec<String>,
    cpu: Duration,
    /// What `/readyz` said at the end.
    readyz: (u16, String),
}

impl Scene {
    async fn start() -> Scene {
        loopback_up().unwrap();
        let api = FakeApi::start().await.unwrap();
        api.apply(CLUSTER).unwrap();
        api.apply(&policy("web", 80)).unwrap();
        let mut agent = Agent::on_api(&api.kubeconfig()).unwrap();
        agent.ready().await.unwrap();
        let scene = Scene { api, agent };
        let table = table();
        assert!(table.contains("10.0.1.1") && table.contains("10.0.0.1 comment \"shop/web\""), "{table}");
        scene
    }

    /// What the agent does in a time that begins with something, and in which its table must stay as it is.
    async fn observe(&self, begin: impl AsyncFnOnce(&FakeApi), time: Duration) -> Observed {
        self.agent.reviewed().await.unwrap();
        let before = table();
        let (requests, lines) = (self.api.requests(), self.lines().len());
        let used = cpu(self.agent.id()).unwrap();
        begin(&self.api).await;
        tokio::time::sleep(time).await;
        let readyz = self.agent.get("/readyz").await.unwrap();
        let cpu = cpu(self.agent.id()).unwrap() - used;
        assert_eq!(table(), before, "what is known stays enforced");
        let lines = self.lines().split_off(lines);
        let requests = self.api.requests() - requests;
        let note = readyz.1.lines().find(|line| line.starts_with("note: "));
        println!("{requests} requests, {} lines, {cpu:?} of CPU in {time:?}; {note:?}", lines.len());
        Observed { requests, lines, cpu, readyz }
    }

    /// The server fails in this way for a while, over new connections.
    async fn observe_fault(&self, fault: Fault, time: Duration) -> Observed {
        let begin = async |api: &FakeApi| {
            api.fail(fault);
            api.break_connections().await;
        };
        self.observe(begin, time).await
    }

    /// Something has happened that the agent must come to know, now that the server works.
    async fn recovers(&mut self) {
        self.api.apply(&policy("news", 8443)).unwrap();
        let begun = Instant::now();
        while !table().contains("8443") {
            let log = self.agent.log().unwrap();
            assert!(begun.elapsed() < RECOVERY, "no news within {RECOVERY:?}:\n{log}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        println!("recovered within {:?}", begun.elapsed());
        self.agent.ready().await.unwrap();
    }

    fn lines(&self) -> Vec<String> {
        let log = self.agent.log().unwrap();
        let levels = [" INFO ", " WARN ", "ERROR "];
        log.lines().filter(|line| levels.iter().any(|level| line.contains(level))).map(str::to_owned).collect()
    }
}

fn table() -> String {
    nft(&["-a", "list", "table", "inet", "postern"]).unwrap()
}

/// A server that fails by its answers leaves the rules, costs little, and is told with these words.
fn endures(fault: Fault, words: &str) {
    isolated(async move {
        let mut scene = Scene::start().await;
        let Observed { requests, lines, cpu, readyz } = scene.observe_fault(fault, SPELL).await;
        // Four watches, each of which fails with a pause after it that doubles from a fifth of a second: six times.
        assert!((4..=40).contains(&requests), "{requests} requests");
        assert!(lines.len() <= 16, "{} lines:\n{}", lines.len(), lines.join("\n"));
        assert!(lines.iter().any(|line| line.contains(words)), "{words:?} is not in\n{}", lines.join("\n"));
        assert!(cpu < SPELL / 6, "{cpu:?} of CPU in {SPELL:?}");
        let (code, text) = readyz;
        assert_eq!(code, 200, "enforcement stands:\n{text}");
        let notes: Vec<&str> = text.lines().filter(|line| line.starts_with("note: ")).collect();
        assert!(notes.iter().any(|note| note.contains(words)), "no note with {words:?} in\n{text}");
        scene.api.work();
        scene.recovers().await;
    });
}

#[test]
fn watches_that_are_cut() {
    endures(Fault::Cut, "ends the watch right after its begin");
}

#[test]
fn gone_as_a_status() {
    endures(Fault::Gone, "410 Expired");
}

#[test]
fn gone_as_an_event() {
    endures(Fault::GoneInWatch, "410 Expired");
}

#[test]
fn redirects() {
    endures(Fault::Redirect, "not followed");
}

#[test]
fn too_many_requests() {
    endures(Fault::Busy, "429 TooManyRequests");
}

#[test]
fn internal_errors() {
    endures(Fault::Internal, "500 InternalError");
}

#[test]
fn events_that_are_no_json() {
    endures(Fault::Garbage, "cannot be read");
}

#[test]
fn objects_of_odd_types_stop_nothing() {
    isolated(async {
        let mut scene = Scene::start().await;
        let Observed { lines, readyz, .. } = scene.observe_fault(Fault::Odd, SPELL).await;
        for words in ["event of type \\\"SURPRISE\\\"", "without a name"] {
            assert!(lines.iter().any(|line| line.contains(words)), "{words:?} is not in\n{}", lines.join("\n"));
        }
        assert_eq!(readyz.0, 200);
        // The watches live on.
        scene.recovers().await;
    });
}

/// A server that has not seen what its peer told the agent takes nothing back.
fn keeps_what_was_seen(fault: Fault) {
    isolated(async move {
        let mut scene = Scene::start().await;
        let before = scene.api.version();
        scene.api.apply(&policy("late", 8080)).unwrap();
        scene.api.delete("pods", "clients", "one").unwrap();
        scene.agent.until_table(|table| table.contains("8080") && !table.contains("10.0.1.1")).await.unwrap();
        // Its peer is asked from now on. What it is asked for cannot be watched any more, so it lists.
        let begin = async |api: &FakeApi| {
            api.fail_as_of(fault, before);
            api.compact();
            api.break_connections().await;
        };
        let Observed { requests, readyz: (code, text), .. } = scene.observe(begin, SPELL).await;
        assert_eq!(code, 200, "{text}");
        assert!(requests <= 80, "{requests} requests");
        scene.api.work();
        scene.recovers().await;
    });
}

#[test]
fn a_server_behind_its_peers_takes_nothing_back() {
    keeps_what_was_seen(Fault::Lag);
}

#[test]
fn a_server_that_is_behind_and_does_not_say_so_takes_nothing_back() {
    keeps_what_was_seen(Fault::LagUnsaid);
}

#[test]
fn what_was_missed_is_listed() {
    isolated(async {
        let mut scene = Scene::start().await;
        let begin = async |api: &FakeApi| {
            api.relay().set(Way::Broken);
            api.delete("pods", "clients", "one").unwrap();
            api.delete("networkpolicies", "shop", "web").unwrap();
            api.apply(&policy("other", 8081)).unwrap();
            api.compact();
        };
        scene.observe(begin, Duration::from_secs(2)).await;
        scene.api.relay().set(Way::Open);
        let is_new = |table: &str| {
            table.contains("NetworkPolicy shop/other")
                && !table.contains("NetworkPolicy shop/web")
                && !table.contains("10.0.1.1")
        };
        scene.agent.until_table(is_new).await.unwrap();
        scene.recovers().await;
    });
}

#[test]
fn a_server_that_stalls_is_told_and_given_up() {
    isolated(async {
        let mut scene = Scene::start().await;
        let observed = scene.observe_fault(Fault::Stall, Duration::from_secs(10)).await;
        let Observed { requests, lines, cpu, readyz: (code, text) } = observed;
        assert_eq!(code, 200, "{text}");
        assert!(text.contains("no word from the API server for "), "{text}");
        assert!(requests <= 8 && cpu < Duration::from_secs(1), "{requests} requests, {cpu:?}, {lines:?}");
        // What it took it never answers.
        scene.api.work();
        scene.recovers().await;
    });
}

#[test]
fn a_network_that_goes_silent_is_told_and_given_up() {
    isolated(async {
        let mut scene = Scene::start().await;
        let begin = async |api: &FakeApi| api.relay().set(Way::Silent);
        let observed = scene.observe(begin, Duration::from_secs(30)).await;
        let Observed { lines, cpu, readyz: (code, text), .. } = observed;
        assert_eq!(code, 200, "{text}");
        assert!(text.contains("no word from the API server for "), "{text}\n{}", lines.join("\n"));
        assert!(lines.len() <= 16 && cpu < Duration::from_secs(1), "{cpu:?}\n{}", lines.join("\n"));
        scene.api.relay().set(Way::Open);
        scene.recovers().await;
    });
}

#[test]
fn certificates_are_rotated() {
    isolated(async {
        let mut scene = Scene::start().await;
        scene.api.rotate().unwrap();
        let observed = scene.observe(async |api: &FakeApi| api.break_connections().await, SPELL).await;
        let Observed { requests, lines, cpu, readyz: (code, text) } = observed;
        assert_eq!(code, 200, "{text}");
        assert!(text.contains("certificate"), "{text}");
        assert!(requests == 0 && lines.len() <= 16 && cpu < SPELL / 6, "{requests}, {cpu:?}\n{}", lines.join("\n"));
        // The files of the new authority, and a client certificate of it, take the place of the old ones.
        scene.api.write_credentials().unwrap();
        scene.recovers().await;
        let log = scene.agent.log().unwrap();
        assert!(log.contains("the credentials for the API server have changed"), "{log}");
    });
}

/// So many more clients.
fn clients(count: u32) -> String {
    let pod = |n: u32| {
        let ip = std::net::Ipv4Addr::from(0x0a_01_00_00 + n);
        let meta = format!("{{name: client-{n}, namespace: clients, annotations: {{text: {}}}}}", "x".repeat(400));
        format!(
            "---\n{{apiVersion: v1, kind: Pod, metadata: {meta}, spec: {{nodeName: node-2}}, status: {{podIPs: [{{ip: {ip}}}]}}}}\n"
        )
    };
    (1000..1000 + count).map(pod).collect()
}

#[test]
fn a_slow_network_does_not_keep_isolation_waiting() {
    isolated(async {
        loopback_up().unwrap();
        let api = FakeApi::start().await.unwrap();
        api.apply(CLUSTER).unwrap();
        api.apply(&policy("web", 80)).unwrap();
        api.apply(&clients(600)).unwrap();
        // The list of the clients takes some ten seconds.
        api.relay().set(Way::Slow(40_000));
        let agent = Agent::on_api(&api.kubeconfig()).unwrap();
        let isolated_in = agent.until_table(|table| table.contains("10.0.0.1 comment \"shop/web\"")).await.unwrap();
        assert!(!table().contains("10.1.5."), "isolation waited for the peers");
        println!("isolated within {isolated_in:?}");
        agent.until_table(|table| table.contains("10.1.5.") && table.contains("10.0.1.1")).await.unwrap();
    });
}
