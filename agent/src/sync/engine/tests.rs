//! The engine against a kernel in memory, which is atomic and counts generations as the real one does.

mod commits;
mod failures;
mod moving;
mod policies;
mod quarantine;
mod reviews;
mod start;
mod wakes;

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard};

use compiler::api::{Item, NodeName, Object};
use compiler::cluster::{Budget, PodSource};
use compiler::diff::{Generation, Mirror, Op, Transaction};
use compiler::nft::{Deny, LogGroup};
use compiler::policy::OwnAddresses;
use netlink::{At, Claim, Committed, Errno, Refusal};
use tokio::sync::watch;

use super::*;
use crate::metrics::Metrics;
use crate::sync::{Origin, Subscriptions};

const SECOND: Duration = Duration::from_secs(1);

/// Everything about the kernel that outlives a connection.
#[derive(Default)]
struct World {
    table: Option<Table>,
    generation: u32,
    /// The table is protected, as on kernels that can.
    protects: bool,
    /// Somebody else made the table that is there now.
    is_foreign: bool,
    /// Answers to the next commits.
    refusals: VecDeque<Error>,
    /// The kernel takes no table with such a chain.
    refused_chain: Option<&'static str>,
    /// It takes no rules of such chains: of all, with this answer where it does not name the operation.
    refused_rules: Vec<&'static str>,
    refuses_as_a_whole: bool,
    /// How long a commit takes, on the clock of the engine.
    commit_takes: Duration,
    clock: Option<Arc<Mutex<Instant>>>,
    /// Answers to the next attempts to connect.
    refused_connections: VecDeque<Error>,
    dumps: usize,
    /// Operations of each commit that landed.
    commits: Vec<usize>,
    attempts: usize,
}

struct MemoryKernel(Arc<Mutex<World>>);

impl MemoryKernel {
    fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap()
    }
}

impl Kernel for MemoryKernel {
    fn adopt(&mut self) -> Result<Claim, Error> {
        let world = self.world();
        Ok(match (&world.table, world.protects) {
            (None, _) => Claim::Absent,
            (Some(_), _) if world.is_foreign => Claim::Foreign,
            (Some(_), true) => Claim::Owned,
            (Some(_), false) => Claim::Plain,
        })
    }

    fn generation(&mut self) -> Result<Generation, Error> {
        Ok(Generation(self.world().generation))
    }

    fn dump(&mut self) -> Result<Mirror, Error> {
        let mut world = self.world();
        world.dumps += 1;
        let foreign = if world.is_foreign { vec!["postern".to_owned()] } else { Vec::new() };
        Ok(Mirror { table: world.table.clone(), generation: Generation(world.generation), foreign })
    }

    fn commit(&mut self, transaction: &Transaction, generation: Option<Generation>) -> Result<Committed, Error> {
        let mut world = self.world();
        world.attempts += 1;
        if let Some(clock) = &world.clock {
            *clock.lock().unwrap() += world.commit_takes;
        }
        if let Some(Generation(generation)) = generation.filter(|generation| generation.0 != world.generation) {
            return Err(Error::Restart { generation });
        }
        if let Some(error) = world.refusals.pop_front() {
            return Err(error);
        }
        let is_refused = |name: &str| world.refused_chain.is_some_and(|refused| name.contains(refused));
        if transaction.result().is_some_and(|table| table.chains.keys().any(|name| is_refused(name.as_str()))) {
            return Err(refused());
        }
        let has_refused_rules = |op: &Op| {
            let Op::AddRules(chain, _) = op else { return false };
            world.refused_rules.iter().any(|name| chain.as_str().ends_with(name))
        };
        if let Some(op) = transaction.ops().iter().position(has_refused_rules) {
            if world.refuses_as_a_whole {
                return Err(Error::BatchRefused(Errno::NOMEM));
            }
            let what = transaction.ops()[op].to_string();
            return Err(Error::Refused(vec![Refusal {
                op,
                what,
                at: At::Whole,
                expression: None,
                errno: Errno::INVAL,
            }]));
        }
        world.is_foreign &= !transaction.ops().contains(&Op::DestroyTables);
        world.table = transaction.result().cloned();
        world.generation += 1;
        world.commits.push(transaction.ops().len());
        let messages = transaction.ops().len();
        Ok(Committed { generation: Generation(world.generation), bytes: 0, messages })
    }
}

/// An engine, its kernel, and a clock that is moved by hand.
struct Bench {
    engine: Engine<MemoryKernel>,
    world: Arc<Mutex<World>>,
    readiness: Readiness,
    metrics: Metrics,
    subscriptions: watch::Receiver<Subscriptions>,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    clock: Arc<Mutex<Instant>>,
    /// When the objects were changed that are reported.
    changed: Option<Instant>,
}

impl Bench {
    fn new(origin: Origin) -> Bench {
        Bench::on(origin, Arc::new(Mutex::new(World::default())))
    }

    fn on(origin: Origin, world: Arc<Mutex<World>>) -> Bench {
        Bench::with_limits(origin, world, Limits::default())
    }

    fn with_limits(origin: Origin, world: Arc<Mutex<World>>, limits: Limits) -> Bench {
        Bench::build(origin, world, limits, None)
    }

    fn build(origin: Origin, world: Arc<Mutex<World>>, limits: Limits, review: Option<Begin>) -> Bench {
        let (readiness, metrics) = (Readiness::new(), Metrics::new());
        let clock = Arc::new(Mutex::new(Instant::now()));
        let (running, subscriptions) = watch::channel(Subscriptions::new());
        let settings = Settings {
            node: NodeName("node-1".into()),
            deny: Deny::Drop,
            log: Some(LogGroup::default()),
            origin,
            limits,
            budget: Budget::default(),
            own_addresses: OwnAddresses::Off,
            verify_interval: 60 * SECOND,
        };
        let connect = {
            let world = world.clone();
            move || match world.lock().unwrap().refused_connections.pop_front() {
                Some(error) => Err(error),
                None => Ok(MemoryKernel(world.clone())),
            }
        };
        let now = {
            let clock = clock.clone();
            move || *clock.lock().unwrap()
        };
        world.lock().unwrap().clock = Some(clock.clone());
        let (engine, snapshots) = Engine::new(
            settings,
            Sources::new(origin, running),
            Box::new(connect),
            review,
            Box::new(now),
            readiness.clone(),
            metrics.sync.clone(),
        );
        Bench { engine, world, readiness, metrics, subscriptions, snapshots, clock, changed: None }
    }

    fn now(&self) -> Instant {
        *self.clock.lock().unwrap()
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    /// Reports an event, pods under the subscription that runs now.
    fn report(&mut self, event: Event) {
        let id = match &event {
            Event::Pods(source, _) => self.subscriptions.borrow().get(source).copied(),
            Event::Namespaces(_) | Event::Policies(_) | Event::Links(_) | Event::Sandboxes(_) | Event::PodRanges(_) => {
                None
            }
        };
        let arrival = Arrival { received: self.now(), changed: self.changed };
        self.engine.admit(event, id, arrival);
    }

    /// Reports what a manifest says, as single objects.
    fn apply(&mut self, source: &PodSource, yaml: &str) {
        for object in objects(yaml) {
            let event = match object {
                Object::Pod(pod) => Event::Pods(source.clone(), Change::Applied(pod)),
                Object::Namespace(namespace) => Event::Namespaces(Change::Applied(namespace)),
                Object::NetworkPolicy(policy) => Event::Policies(Change::Applied(policy)),
                Object::Service(_) | Object::EndpointSlice(_) | Object::Node(_) => continue,
            };
            self.report(event);
        }
    }

    /// Reports a manifest as lists, as files are.
    fn reset(&mut self, source: &PodSource, yaml: &str) {
        let (mut pods, mut namespaces, mut policies) = (Vec::new(), Vec::new(), Vec::new());
        for object in objects(yaml) {
            match object {
                Object::Pod(pod) => pods.push(pod),
                Object::Namespace(namespace) => namespaces.push(namespace),
                Object::NetworkPolicy(policy) => policies.push(policy),
                Object::Service(_) | Object::EndpointSlice(_) | Object::Node(_) => {}
            }
        }
        self.report(Event::Namespaces(Change::Reset(namespaces)));
        self.report(Event::Policies(Change::Reset(policies)));
        self.report(Event::Pods(source.clone(), Change::Reset(pods)));
    }

    fn delete_policy(&mut self, name: &str) {
        let key = compiler::api::PolicyKey { namespace: "shop".into(), name: name.into() };
        self.report(Event::Policies(Change::Deleted(key)));
    }

    fn list_pods(&mut self, source: &PodSource) {
        self.report(Event::Pods(source.clone(), Change::Reset(Vec::new())));
    }

    /// One turn. Says after how long the next one is due.
    fn turn(&mut self) -> Duration {
        let wake = self.engine.step().unwrap();
        wake.saturating_duration_since(self.now())
    }

    /// As many turns as are due at once.
    fn step(&mut self) {
        for _ in 0..10 {
            if self.turn() > Duration::ZERO {
                return;
            }
        }
        panic!("it does not come to rest");
    }

    fn wait(&mut self, time: Duration) {
        *self.clock.lock().unwrap() += time;
        self.step();
    }

    /// Lets time pass as the sync thread does, and says how often it woke up.
    fn live(&mut self, time: Duration) -> usize {
        let end = self.now() + time;
        let mut wakes = 0;
        loop {
            let wake = self.turn();
            wakes += 1;
            if self.now() + wake > end || wakes > 100_000 {
                *self.clock.lock().unwrap() = end;
                return wakes;
            }
            *self.clock.lock().unwrap() += wake;
        }
    }

    /// Whether a line of `/metrics` is there.
    fn measures(&self, line: &str) -> bool {
        let text = self.metrics.encode(&self.snapshot(), &Default::default());
        text.lines().any(|have| have == line)
    }

    fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshots.borrow().clone()
    }

    /// Dumps, commits that were tried, and commits that landed.
    fn counts(&self) -> [usize; 3] {
        let world = self.world();
        [world.dumps, world.attempts, world.commits.len()]
    }

    fn subscribed(&self) -> Vec<PodSource> {
        self.subscriptions.borrow().keys().cloned().collect()
    }

    /// In force: a local pod that a policy isolates.
    fn in_force() -> Bench {
        Bench::in_force_on(Arc::new(Mutex::new(World::default())))
    }

    fn in_force_on(world: Arc<Mutex<World>>) -> Bench {
        let mut bench = Bench::on(Origin::Files, world);
        bench.reset(&PodSource::Cluster, CLUSTER);
        bench.step();
        assert!(bench.readiness.status().is_ready());
        bench
    }
}

fn objects(yaml: &str) -> Vec<Object> {
    let values: Vec<compiler::api::Json> = serde_saphyr::from_multiple(yaml).unwrap();
    let items = values.iter().flat_map(|value| compiler::api::parse(value, "test"));
    items
        .map(|item| match item {
            Item::Object { parsed, .. } => parsed.value,
            other @ (Item::Workload(_) | Item::Skipped(_) | Item::Invalid(_)) => panic!("not an object: {other:?}"),
        })
        .collect()
}

fn refused() -> Error {
    let what = "add chain web".to_owned();
    Error::Refused(vec![Refusal { op: 0, what, at: At::Whole, expression: None, errno: Errno::EXIST }])
}

const CLUSTER: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}}
spec: {nodeName: node-1}
status: {phase: Running, podIPs: [{ip: 10.0.0.1}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web, namespace: shop}
spec: {podSelector: {matchLabels: {app: web}}}
";

const SECOND_POD: &str = "
apiVersion: v1
kind: Pod
metadata: {name: web-2, namespace: shop, labels: {app: web}}
spec: {nodeName: node-1}
status: {phase: Running, podIPs: [{ip: 10.0.0.2}]}
";

/// The namespace of which policies speak.
const CLIENTS: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: clients, labels: {name: clients}}
";

/// Lets in the pods of namespace `clients`.
fn from_clients(name: &str) -> String {
    policy(name, "[{from: [{namespaceSelector: {matchLabels: {name: clients}}}]}]")
}

/// The pods of namespace `clients`.
fn clients() -> PodSource {
    PodSource::Namespace("clients".into())
}

/// In the API, in force: a local pod that a policy isolates, and a namespace whose pods nobody has asked for.
fn in_force_of_api() -> Bench {
    let mut bench = Bench::new(Origin::Api);
    bench.reset(&PodSource::Node, &format!("{CLUSTER}---{CLIENTS}"));
    bench.step();
    assert_eq!(bench.world().commits.len(), 1);
    bench
}

/// A policy for the pods of app `web`, with these rules for ingress.
fn policy(name: &str, ingress: &str) -> String {
    format!(
        "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: {name}, namespace: shop}}
spec: {{podSelector: {{matchLabels: {{app: web}}}}, ingress: {ingress}}}
"
    )
}
