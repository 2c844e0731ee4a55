//! A real kernel that refuses, or is busy with others: writers of other tables at full speed, answers that find no
//! room, a table that somebody else owns.

#![allow(clippy::unwrap_used, reason = "a test that cannot set up its world has failed")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use compiler::Compiler;
use compiler::api::{NodeName, Object, Pod};
use compiler::cluster::{Budget, Change, Event, PodSource};
use compiler::diff::{Op, Transaction};
use compiler::nft::{Deny, Family, LogGroup, TableFamily};
use compiler::policy::OwnAddresses;
use integration::live::{Echo, Hammer, Live, Protection};
use integration::scene::{self, pod, policy};
use lab::{Attachment, Netns, isolated};
use netlink::{Connection, Error, Ownership, RawBatch};
use nix::sys::socket::{setsockopt, sockopt};
use postern::kernel;
use postern::metrics::Metrics;
use postern::readiness::Readiness;
use postern::sync::{self, Handle, Origin, Settings};

/// For what must come: a loaded machine may be slow.
const PATIENCE: Duration = Duration::from_secs(20);

const NAMESPACE: &str = "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n";

/// Threads that make and remove tables of their own until this is dropped.
struct Writers {
    stop: Arc<AtomicBool>,
    commits: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Writers {
    /// So many, each with a pause after each commit.
    fn start(netns: Option<&Netns>, count: usize, pause: Duration) -> Writers {
        let (stop, commits) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let write = |n: usize| {
            let open = || Connection::open(Ownership::Plain);
            let mut connection = netns.map_or_else(open, |netns| netns.run(open).unwrap()).unwrap();
            let (stop, commits, name) = (stop.clone(), commits.clone(), format!("other-{n}"));
            thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    connection.commit_raw(&RawBatch::new(&name).add_table()).unwrap();
                    thread::sleep(pause);
                    connection.commit_raw(&RawBatch::new(&name).delete_table()).unwrap();
                    thread::sleep(pause);
                    commits.fetch_add(2, Ordering::Relaxed);
                }
            })
        };
        let threads = (0..count).map(write).collect();
        Writers { stop, commits, threads }
    }

    fn commits(&self) -> u64 {
        self.commits.load(Ordering::Relaxed)
    }
}

impl Drop for Writers {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.drain(..).for_each(|thread| thread.join().expect("a writer of other tables is never refused"));
    }
}

/// A value of `/metrics`; 0 where there is none.
fn value(metrics: &str, name: &str) -> f64 {
    let value = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.map_or(0.0, |value| value.parse().unwrap())
}

fn commits(metrics: &str, result: &str) -> f64 {
    value(metrics, &format!("postern_commits_total{{result=\"{result}\"}}"))
}

/// The web server is open to everybody of an address block that changes, and so to nobody here.
fn web(n: usize) -> String {
    let block = format!("{{ipBlock: {{cidr: 172.16.{n}.0/24}}}}");
    policy("shop/web", &format!("{{podSelector: {{matchLabels: {{app: web}}}}, ingress: [{{from: [{block}]}}]}}"))
}

/// Changes a policy again and again beside such writers, while somebody who must never pass tries to. Gives what
/// `/metrics` says in the end.
async fn change_beside_writers(protection: Protection, changes: usize, pause: Duration) -> String {
    let yaml = NAMESPACE.to_owned()
        + &pod("shop/web", "node-1", "app: web", "")
        + &pod("shop/visitor", "node-1", "app: visitor", "")
        + &web(0);
    let mut live = Live::start(&yaml, Attachment::Routed, protection).await.unwrap();
    let [server, visitor] = ["shop/web", "shop/visitor"].map(|name| live.endpoint(name, Family::V4).unwrap());
    let echo = Echo::start(&server, 81).unwrap();
    let hammer = Hammer::refused(&visitor, SocketAddr::new(server.address, 81)).unwrap();
    let writers = Writers::start(Some(&live.netns(0)), 2, pause);
    for n in 1..=changes {
        live.apply(&web(n)).unwrap();
        live.settled().await.unwrap();
    }
    assert!(writers.commits() > 0);
    drop(writers);
    let (sent, _) = hammer.stop();
    assert!(sent > 0);
    assert_eq!(echo.received_from(visitor.address), 0, "of {sent}");
    live.metrics(0).unwrap()
}

#[test]
fn no_writer_is_too_fast_for_the_owner_of_a_table() {
    isolated(async {
        if kernel::is_before((6, 9)) {
            return;
        }
        let metrics = change_beside_writers(Protection::Owned, 100, Duration::ZERO).await;
        let commits_ok = commits(&metrics, "ok");
        assert!((101.0..=102.0).contains(&commits_ok), "{commits_ok}: the first, its review, and one a change");
        assert_eq!(commits(&metrics, "restart") + commits(&metrics, "error"), 0.0, "{metrics}");
        assert_eq!(value(&metrics, "postern_commit_failing"), 0.0);
    });
}

#[test]
fn a_table_without_an_owner_keeps_up_with_writers() {
    isolated(async {
        let changes: u8 = 30;
        let metrics = change_beside_writers(Protection::Plain, changes.into(), Duration::from_millis(5)).await;
        let attempts: f64 = ["ok", "restart", "error"].map(|result| commits(&metrics, result)).iter().sum();
        assert!(attempts <= 11.0 * f64::from(changes + 1), "{attempts} attempts for {changes} changes");
    });
}

/// A sync thread in this network namespace, and what is known of it.
struct Engine {
    handle: Handle,
    metrics: Metrics,
    readiness: Readiness,
    /// How often it has opened a connection.
    connected: Arc<AtomicU32>,
    /// Knows the table that there should be.
    compiler: Compiler,
}

impl Engine {
    fn start(mut connect: impl FnMut() -> Result<Connection, Error> + Send + 'static) -> Engine {
        let node = NodeName("node-1".into());
        let settings = Settings {
            node: node.clone(),
            deny: Deny::Drop,
            log: Some(LogGroup::default()),
            origin: Origin::Files,
            limits: kernel::limits(),
            budget: Budget::default(),
            own_addresses: OwnAddresses::Off,
            verify_interval: Duration::from_secs(60),
        };
        let (readiness, metrics, connected) = (Readiness::new(), Metrics::new(), Arc::new(AtomicU32::new(0)));
        let count = connected.clone();
        let connect = move || {
            count.fetch_add(1, Ordering::Relaxed);
            connect()
        };
        let (handle, _) = sync::spawn(settings, connect, None, &readiness, metrics.sync.clone()).unwrap();
        Engine { handle, metrics, readiness, connected, compiler: Compiler::new(node, Deny::Drop) }
    }

    fn tell(&mut self, event: Event) {
        self.compiler.apply(event.clone());
        self.handle.event(event);
    }

    /// Tells all there is, as lists.
    fn list(&mut self, yaml: &str) {
        let (mut pods, mut namespaces, mut policies) = (Vec::new(), Vec::new(), Vec::new());
        for object in scene::objects(yaml).unwrap() {
            match object {
                Object::Pod(pod) => pods.push(pod),
                Object::Namespace(namespace) => namespaces.push(namespace),
                Object::NetworkPolicy(policy) => policies.push(policy),
                Object::Node(_) | Object::Service(_) | Object::EndpointSlice(_) => {}
            }
        }
        self.tell(Event::Namespaces(Change::Reset(namespaces)));
        self.tell(Event::Policies(Change::Reset(policies)));
        self.tell(Event::Pods(PodSource::Cluster, Change::Reset(pods)));
    }

    fn metrics(&self) -> String {
        self.metrics.encode(&self.handle.snapshot(), &BTreeMap::new())
    }

    /// How often it has opened a connection, or tried a commit.
    fn attempts(&self) -> f64 {
        let metrics = self.metrics();
        let commits: f64 = ["ok", "restart", "error"].map(|result| commits(&metrics, result)).iter().sum();
        f64::from(self.connected.load(Ordering::Relaxed)) + commits
    }

    fn status(&self) -> String {
        self.readiness.status().to_string()
    }

    async fn until(&self, is_so: impl Fn() -> bool) {
        let begun = Instant::now();
        while !is_so() {
            assert!(begun.elapsed() < PATIENCE, "it does not come to pass:\n{}\n{}", self.status(), self.metrics());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until the kernel has what it should.
    async fn in_force(&mut self) {
        let desired = self.compiler.table();
        let is_right = || {
            let dump = Connection::open(Ownership::Plain).unwrap().dump();
            dump.is_ok_and(|mirror| mirror.table.as_ref() == Some(&desired) && mirror.foreign.is_empty())
        };
        self.until(|| self.readiness.status().is_ready() && is_right()).await;
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.handle.stop();
    }
}

/// The pod gets another address.
fn change_pod(engine: &mut Engine, pod: &Pod, n: usize) {
    let [high, low] = [n / 200, 1 + n % 200].map(|part| u8::try_from(part).unwrap());
    let pod = Pod { ips: vec![[10, 1, high, low].into()], ..pod.clone() };
    engine.tell(Event::Pods(PodSource::Cluster, Change::Applied(pod)));
}

/// A pod, as text and as it is known then.
fn first_pod() -> (String, Pod) {
    let text = pod("shop/web", "node-1", "app: web", "") + "status: {phase: Running, podIPs: [{ip: 10.1.0.1}]}\n";
    let is_pod = |object| if let Object::Pod(pod) = object { Some(pod) } else { None };
    let pod = scene::objects(&text).unwrap().into_iter().find_map(is_pod).unwrap();
    (text, pod)
}

fn plain() -> Result<Connection, Error> {
    Connection::open(Ownership::Plain)
}

#[test]
fn writers_at_full_speed_are_waited_out_where_they_could_edit_the_table() {
    isolated(async {
        let mut engine = Engine::start(plain);
        let (text, pod) = first_pod();
        engine.list(&(NAMESPACE.to_owned() + &text + &web(0)));
        engine.in_force().await;
        let writers = Writers::start(None, 2, Duration::ZERO);
        let before = engine.attempts();
        let window = Duration::from_secs(3);
        let begun = Instant::now();
        let mut n: u8 = 0;
        while begun.elapsed() < window {
            n = n.checked_add(1).unwrap();
            change_pod(&mut engine, &pod, n.into());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let attempts = engine.attempts() - before;
        // A turn tries it eleven times, and there are no more than ten turns a second beside those that succeed.
        assert!(attempts <= 11.0 * (f64::from(n) + 30.0), "{attempts} attempts in {window:?} for {n} changes");
        drop(writers);
        engine.in_force().await;
    });
}

#[test]
fn small_buffers_are_enough() {
    isolated(async {
        let connect = || {
            let connection = kernel::connect()?;
            // The kernel makes it the least that it allows: a few answers.
            setsockopt(&connection, sockopt::RcvBuf, &1).unwrap();
            Ok(connection)
        };
        let blocks: Vec<String> = (0..5000)
            .map(|n| format!("{{ipBlock: {{cidr: 172.{}.{}.{}/32}}}}", n / 2500, n / 100, 2 * (n % 100)))
            .collect();
        let spec = format!("{{podSelector: {{}}, ingress: [{{from: [{}]}}]}}", blocks.join(", "));
        let (text, pod) = first_pod();
        let yaml = NAMESPACE.to_owned() + &text + &policy("shop/long", &spec);
        let mut engine = Engine::start(connect);
        engine.list(&yaml);
        engine.in_force().await;
        for n in 1..50 {
            change_pod(&mut engine, &pod, n);
        }
        engine.in_force().await;
        assert_eq!(engine.connected.load(Ordering::Relaxed), 1, "it was never lost");
        change_pod(&mut engine, &pod, 0);
        engine.in_force().await;
        assert_eq!(commits(&engine.metrics(), "error"), 0.0);
        drop(engine);

        // What stands there is read back, in many parts, and needs no change.
        let mut engine = Engine::start(connect);
        engine.list(&yaml);
        engine.in_force().await;
        assert_eq!(commits(&engine.metrics(), "ok"), 0.0, "{}", engine.metrics());
    });
}

/// Somebody else who owns table `inet postern`.
fn owner() -> Connection {
    let mut owner = Connection::open(Ownership::OwnerPersist).unwrap();
    owner.commit(&Transaction::new(vec![Op::DestroyTables, Op::AddTable(TableFamily::Inet)], None), None).unwrap();
    owner
}

#[test]
fn a_table_that_somebody_else_owns_is_told_and_waited_for_in_bounded_memory() {
    isolated(async {
        if kernel::is_before((6, 9)) {
            return;
        }
        let owner = owner();
        let mut engine = Engine::start(kernel::connect);
        let (text, pod) = first_pod();
        engine.list(&(NAMESPACE.to_owned() + &text + &web(0)));
        engine.until(|| engine.status().contains("another agent runs on this node")).await;
        assert_eq!(value(&engine.metrics(), "postern_commit_failing"), 1.0);

        let (before, begun) = (engine.attempts(), Instant::now());
        let resident = value(&engine.metrics(), "process_resident_memory_bytes");
        for n in 0..10_000 {
            change_pod(&mut engine, &pod, n);
        }
        let events = "postern_events_total{kind=\"Pod\"}";
        engine.until(|| value(&engine.metrics(), events) == 10_001.0).await;
        let growth = value(&engine.metrics(), "process_resident_memory_bytes") - resident;
        assert!(growth < 16.0 * 1024.0 * 1024.0, "{growth} bytes more for events that cannot take effect");
        let attempts = engine.attempts() - before;
        // The waits double from 0.1 s.
        let most = 5.0 + begun.elapsed().as_secs_f64();
        assert!(attempts <= most, "{attempts} attempts in {:?}", begun.elapsed());

        drop(owner);
        engine.in_force().await;
        assert_eq!(value(&engine.metrics(), "postern_commit_failing"), 0.0);
        assert!(owner_is_other(), "it is the agent's now");
    });
}

fn owner_is_other() -> bool {
    Connection::open(Ownership::OwnerPersist).unwrap().adopt().is_err_and(|error| error.is_owned_by_other())
}

#[test]
fn a_table_that_somebody_else_takes_is_no_policys_fault() {
    isolated(async {
        if kernel::is_before((6, 9)) {
            return;
        }
        let mut engine = Engine::start(plain);
        let (text, _) = first_pod();
        engine.list(&(NAMESPACE.to_owned() + &text + &web(0)));
        engine.in_force().await;
        let owner = owner();
        engine.until(|| engine.status().contains("another agent runs on this node")).await;
        drop(owner);
        // With a policy in quarantine it would be another table.
        engine.in_force().await;
    });
}
