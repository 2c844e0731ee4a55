//! The engine against a kernel in memory, which is atomic and counts generations as the real one does.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use compiler::api::{Item, NodeName, Object};
use compiler::nft::{CounterName, Deny};
use netlink::{At, Committed, Count, Errno, Refusal};

use super::super::Origin;
use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// Everything about the kernel that outlives a connection.
#[derive(Default)]
struct World {
    table: Option<Table>,
    generation: u32,
    /// The table is protected, as on kernels that can.
    protects: bool,
    /// Answers to the next commits.
    refusals: VecDeque<Error>,
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
        Ok(Mirror { table: world.table.clone(), generation: Generation(world.generation), foreign: Vec::new() })
    }

    fn commit(&mut self, transaction: &Transaction, generation: Generation) -> Result<Committed, Error> {
        let mut world = self.world();
        world.attempts += 1;
        if generation.0 != world.generation {
            return Err(Error::Restart { generation: generation.0 });
        }
        if let Some(error) = world.refusals.pop_front() {
            return Err(error);
        }
        world.table = transaction.result().cloned();
        world.generation += 1;
        world.commits.push(transaction.ops().len());
        let messages = transaction.ops().len();
        Ok(Committed { generation: Generation(world.generation), bytes: 0, messages })
    }

    fn counters(&mut self) -> Result<BTreeMap<CounterName, Count>, Error> {
        Ok(BTreeMap::new())
    }
}

/// An engine, its kernel, and a clock that is moved by hand.
struct Bench {
    engine: Engine<MemoryKernel>,
    world: Arc<Mutex<World>>,
    readiness: Readiness,
    followed: watch::Receiver<BTreeSet<PodSource>>,
    now: Instant,
}

impl Bench {
    fn new(origin: Origin) -> Bench {
        Bench::on(origin, Arc::new(Mutex::new(World::default())))
    }

    fn on(origin: Origin, world: Arc<Mutex<World>>) -> Bench {
        let readiness = Readiness::new();
        let (follow, followed) = watch::channel(BTreeSet::new());
        let settings = Settings {
            node: NodeName("node-1".into()),
            deny: Deny::Drop,
            origin,
            limits: Limits::default(),
            verify_interval: 60 * SECOND,
        };
        let connect = {
            let world = world.clone();
            move || match world.lock().unwrap().refused_connections.pop_front() {
                Some(error) => Err(error),
                None => Ok(MemoryKernel(world.clone())),
            }
        };
        let first_commit = readiness.guard("the first commit");
        let metrics = crate::metrics::Metrics::new().sync;
        let engine = Engine::new(settings, Box::new(connect), follow, readiness.clone(), first_commit, metrics);
        Bench { engine, world, readiness, followed, now: Instant::now() }
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    /// Reports what a manifest says, as single objects.
    fn apply(&mut self, source: &PodSource, yaml: &str) {
        for object in objects(yaml) {
            let event = match object {
                Object::Pod(pod) => Event::Pods(source.clone(), Change::Applied(pod)),
                Object::Namespace(namespace) => Event::Namespaces(Change::Applied(namespace)),
                Object::NetworkPolicy(policy) => Event::Policies(Change::Applied(policy)),
                Object::Service(_) | Object::Node(_) => continue,
            };
            self.engine.take(event, self.now);
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
                Object::Service(_) | Object::Node(_) => {}
            }
        }
        self.engine.take(Event::Namespaces(Change::Reset(namespaces)), self.now);
        self.engine.take(Event::Policies(Change::Reset(policies)), self.now);
        self.engine.take(Event::Pods(source.clone(), Change::Reset(pods)), self.now);
    }

    fn list_pods(&mut self, source: &PodSource) {
        self.engine.take(Event::Pods(source.clone(), Change::Reset(Vec::new())), self.now);
    }

    fn step(&mut self) {
        self.engine.step(self.now).unwrap();
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
        self.step();
    }

    /// Dumps, commits that were tried, and commits that landed.
    fn counts(&self) -> [usize; 3] {
        let world = self.world();
        [world.dumps, world.attempts, world.commits.len()]
    }

    fn followed(&self) -> Vec<PodSource> {
        self.followed.borrow().iter().cloned().collect()
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
    let values: Vec<serde_json::Value> = serde_saphyr::from_multiple(yaml).unwrap();
    let items = values.iter().flat_map(|value| compiler::api::parse(value, "test"));
    items
        .map(|item| match item {
            Item::Object { parsed, .. } => parsed.value,
            other @ (Item::Skipped(_) | Item::Invalid(_)) => panic!("not an object: {other:?}"),
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

/// Lets in what `kind: client` has in namespace `clients`.
const FROM_CLIENTS: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: clients, namespace: shop}
spec:
  podSelector: {matchLabels: {app: web}}
  ingress:
    - from: [{namespaceSelector: {matchLabels: {name: clients}}, podSelector: {}}]
---
apiVersion: v1
kind: Namespace
metadata: {name: clients, labels: {name: clients}}
";

#[test]
fn nothing_is_written_before_every_list_is_there() {
    let mut bench = Bench::new(Origin::Api);
    let clients = PodSource::Namespace("clients".into());
    assert_eq!(bench.followed(), [PodSource::Node]);
    bench.reset(&PodSource::Node, &format!("{CLUSTER}---{FROM_CLIENTS}"));
    bench.step();
    assert_eq!(bench.followed(), [PodSource::Node, clients.clone()], "the policy speaks of pods elsewhere");
    bench.wait(10 * SECOND);
    assert_eq!(bench.world().attempts, 0);
    assert_eq!(bench.readiness.status().waiting_for, ["the first commit"]);

    bench.list_pods(&clients);
    bench.step();
    assert_eq!(bench.world().commits.len(), 1);
    assert!(bench.readiness.status().is_ready());
}

#[test]
fn what_a_watch_reports_before_its_list_commits_nothing() {
    let mut bench = Bench::new(Origin::Api);
    bench.apply(&PodSource::Node, CLUSTER);
    bench.step();
    assert_eq!(bench.counts(), [1, 0, 0]);
}

#[test]
fn events_that_come_together_are_one_commit() {
    let mut bench = Bench::in_force();
    bench.apply(&PodSource::Cluster, SECOND_POD);
    bench.apply(&PodSource::Cluster, &SECOND_POD.replace("web-2", "web-3").replace("10.0.0.2", "10.0.0.3"));
    bench.step();
    assert_eq!(bench.world().commits.len(), 2);
    bench.apply(&PodSource::Cluster, SECOND_POD);
    bench.step();
    assert_eq!(bench.world().commits.len(), 2, "an object that is reported again changes nothing");
}

#[test]
fn a_table_that_is_right_is_not_written() {
    let world = Bench::in_force().world.clone();
    let bench = Bench::in_force_on(world);
    assert_eq!(bench.world().attempts, 1, "the second life of the agent has nothing to commit");
}

#[test]
fn a_refusal_leads_to_a_dump_and_a_second_try() {
    let mut bench = Bench::in_force();
    bench.world().refusals.push_back(refused());
    bench.apply(&PodSource::Cluster, SECOND_POD);
    bench.step();
    assert_eq!(bench.counts(), [2, 3, 2]);
    assert!(bench.readiness.status().is_ready());
}

#[test]
fn a_module_that_is_missing_is_named() {
    let mut bench = Bench::new(Origin::Files);
    let refused = || {
        let (what, expression) = ("add 3 rules to chain ingress".to_owned(), Some("ct".to_owned()));
        Error::Refused(vec![Refusal { op: 0, what, at: At::Rule(0), expression, errno: Errno::NOENT }])
    };
    bench.world().refusals.extend([refused(), refused()]);
    bench.reset(&PodSource::Cluster, CLUSTER);
    bench.step();
    let waiting_for = bench.readiness.status().waiting_for.concat();
    assert!(waiting_for.contains("at rule 0, expression ct: "), "{waiting_for}");
    assert!(
        waiting_for.contains("the kernel lacks the expression ct, which the module nft_ct brings"),
        "{waiting_for}"
    );
    bench.wait(SECOND);
    assert!(bench.readiness.status().is_ready(), "it is tried again, and may have been loaded by then");
}

#[test]
fn a_second_refusal_is_told_and_tried_again_later() {
    let mut bench = Bench::in_force();
    let before = bench.world().table.clone();
    bench.world().refusals.extend([refused(), refused(), refused(), refused()]);
    bench.apply(&PodSource::Cluster, SECOND_POD);
    bench.step();
    let waiting_for = bench.readiness.status().waiting_for;
    assert_eq!(waiting_for.len(), 1);
    assert!(
        waiting_for[0].starts_with("a commit that the kernel takes (the kernel refused to add chain web"),
        "{waiting_for:?}"
    );
    assert_eq!(bench.world().table, before, "the old rules stay");

    bench.wait(SECOND / 20);
    assert_eq!(bench.world().attempts, 3, "the first wait is not over");
    bench.apply(&PodSource::Cluster, SECOND_POD);
    bench.step();
    assert_eq!(bench.world().attempts, 5, "each event is a reason to try");
    bench.wait(SECOND);
    assert_eq!(bench.world().commits.len(), 2);
    assert!(bench.readiness.status().is_ready());
}

#[test]
fn a_table_that_others_may_edit_is_read_when_somebody_commits() {
    let mut bench = Bench::in_force();
    bench.world().generation += 1;
    bench.wait(2 * SECOND);
    assert_eq!(bench.counts()[..2], [2, 1], "it was another table");
    bench.wait(2 * SECOND);
    assert_eq!(bench.world().dumps, 2, "nobody has committed since");

    let wanted = bench.world().table.clone();
    bench.world().table = None;
    bench.world().generation += 1;
    bench.wait(2 * SECOND);
    assert_eq!(bench.world().table, wanted, "the drift is repaired");
    assert_eq!(bench.engine.report().table, wanted);
}

#[test]
fn drift_in_part_is_repaired_in_part() {
    let mut bench = Bench::in_force();
    let wanted = bench.world().table.clone();
    let chain = wanted.as_ref().unwrap().chains.keys().find(|name| name.as_str() == "deny-ingress").unwrap().clone();
    let emptied = |table: &mut Table| Arc::make_mut(table.chains.get_mut(&chain).unwrap()).rules.clear();
    emptied(bench.world().table.as_mut().unwrap());
    bench.world().generation += 1;
    bench.wait(2 * SECOND);
    assert_eq!(bench.world().table, wanted);
    assert_eq!(bench.world().commits[1], 1, "one chain gets its rules back");
}

#[test]
fn a_protected_table_is_not_read_for_what_others_do() {
    let mut bench = Bench::in_force_on(Arc::new(Mutex::new(World { protects: true, ..World::default() })));
    bench.world().generation += 1;
    bench.wait(2 * SECOND);
    bench.apply(&PodSource::Cluster, SECOND_POD);
    bench.step();
    assert_eq!(bench.counts(), [1, 2, 2]);
    bench.wait(60 * SECOND);
    assert_eq!(bench.world().dumps, 2, "it is read once in a while all the same");
}

#[test]
fn a_writer_in_between_costs_one_dump() {
    let mut bench = Bench::in_force();
    bench.world().generation += 1;
    bench.apply(&PodSource::Cluster, SECOND_POD);
    bench.step();
    assert_eq!(bench.counts(), [2, 3, 2]);
}

#[test]
fn a_lost_connection_is_opened_again() {
    let mut bench = Bench::in_force();
    let broken = || Error::Socket { what: "send", source: std::io::Error::other("broken") };
    bench.world().refusals.push_back(broken());
    bench.world().refused_connections.push_back(broken());
    bench.apply(&PodSource::Cluster, SECOND_POD);
    bench.step();
    assert!(!bench.readiness.status().is_ready());
    bench.wait(SECOND);
    assert!(!bench.readiness.status().is_ready(), "the first attempt is refused");
    bench.wait(SECOND);
    assert_eq!(bench.world().commits.len(), 2);
    assert!(bench.readiness.status().is_ready());
}

#[test]
fn without_permission_there_is_no_second_try() {
    let mut bench = Bench::new(Origin::Files);
    bench.world().refused_connections.push_back(Error::Query { what: "the generation", source: Errno::PERM });
    let error = bench.engine.step(bench.now).unwrap_err();
    assert!(error.is_permission());
}

#[test]
fn a_new_policy_waits_for_its_peers_but_not_for_ever() {
    let mut bench = Bench::new(Origin::Api);
    let clients = PodSource::Namespace("clients".into());
    bench.reset(&PodSource::Node, CLUSTER);
    bench.step();
    assert_eq!(bench.world().commits.len(), 1);

    bench.apply(&PodSource::Node, FROM_CLIENTS);
    bench.step();
    assert_eq!(bench.followed(), [PodSource::Node, clients.clone()]);
    assert_eq!(bench.world().commits.len(), 1, "its peers are not known yet");
    bench.wait(2 * SECOND);
    assert_eq!(bench.world().commits.len(), 2, "it takes effect without them");
    bench.list_pods(&clients);
    bench.step();
    assert!(bench.readiness.status().is_ready());
}

#[test]
fn old_watches_end_when_the_new_ones_are_in_sync() {
    let mut bench = Bench::new(Origin::Api);
    let clients = PodSource::Namespace("clients".into());
    let peer = |name: &str| {
        "{apiVersion: v1, kind: Pod, metadata: {name: NAME, namespace: clients}, spec: {nodeName: node-2},
         status: {phase: Running, podIPs: [{ip: 10.0.1.1}]}}"
            .replace("NAME", name)
    };
    bench.reset(&PodSource::Node, &format!("{CLUSTER}---{FROM_CLIENTS}"));
    bench.step();
    bench.list_pods(&clients);
    bench.apply(&clients, &peer("a"));
    bench.step();
    let known = |bench: &mut Bench| bench.engine.report().objects;
    assert!(known(&mut bench).contains(&("Pod", 2)));

    let everywhere = FROM_CLIENTS.replace("{matchLabels: {name: clients}}", "{}");
    bench.apply(&PodSource::Node, &everywhere);
    bench.step();
    assert_eq!(bench.followed(), [PodSource::Node, clients.clone(), PodSource::Cluster], "both, for now");
    assert!(known(&mut bench).contains(&("Pod", 2)));
    bench.list_pods(&PodSource::Cluster);
    bench.step();
    assert_eq!(bench.followed(), [PodSource::Node, PodSource::Cluster]);
    assert!(known(&mut bench).contains(&("Pod", 1)), "what only the old watch saw is forgotten");
    bench.apply(&clients, &peer("late"));
    assert!(known(&mut bench).contains(&("Pod", 1)), "what the old watch had sent does not count");
}
