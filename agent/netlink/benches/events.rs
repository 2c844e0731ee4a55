//! What one event costs where there is much: from the event to the kernel's word that it is enforced.
//!
//! On the node are some pods, in ten namespaces, each selected by its share of the policies; each policy names pods
//! elsewhere by a label of its own, and a block, and one names all that the others do. Printed are the medians of the stages
//! in microseconds (taking the event in, compiling, comparing with what the kernel holds, and the kernel's own part), of all
//! of them, and what one event in a hundred takes at least. An event that narrows what pods may is followed by a
//! transaction when their open flows have been reviewed; that one is not in it.
//! `cargo bench -p netlink --bench events -- POLICIES PODS PEERS`

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "what fails in a benchmark is to stop it there")]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use compiler::Compiler;
use compiler::api::{self, NamespaceWire, NodeName, PodWire};
use compiler::cluster::{Change, Event, PodSource, Pods};
use compiler::diff::{Limits, Mirror, Way};
use compiler::nft::{Deny, Table};
use compiler::policy::Ir;
use netlink::{Connection, Ownership};
use nix::sched::{CloneFlags, unshare};
use serde_json::{Value, json};

const NAMESPACES: usize = 10;
/// How often each event happens.
const TIMES: usize = 200;
/// The namespace of which the labels change has so many pods.
const PODS_OF_NAMESPACE: usize = 100;

/// How large the cluster is.
#[derive(Clone, Copy)]
struct Size {
    policies: usize,
    pods: usize,
    peers: usize,
}

/// What the sync thread has.
struct Node {
    compiler: Compiler,
    kernel: Connection,
    mirror: Mirror,
    way: Way,
    /// What was last given away.
    snapshot: Option<(Pods, Ir, Arc<Table>)>,
}

/// How long the stages of one event took, and how many operations came of it.
#[derive(Clone, Copy, Default)]
struct Took {
    apply: Duration,
    compile: Duration,
    compare: Duration,
    commit: Duration,
    ops: usize,
    /// Whether the kernel holds all of it.
    is_done: bool,
}

/// Something that happens, at each turn.
type Happening = Box<dyn Fn(usize) -> Event>;

// === impl Node ===

impl Node {
    /// In force, after these lists. How long that took is printed.
    fn new(lists: [Event; 4]) -> Node {
        let compiler = Compiler::new(NodeName("node".into()), Deny::Drop).cutting_flows();
        let mut kernel = Connection::open(Ownership::Plain).unwrap();
        let mirror = kernel.dump().unwrap();
        let mut node = Node { compiler, kernel, mirror, way: Way::default(), snapshot: None };
        let began = Instant::now();
        lists.into_iter().for_each(|list| _ = node.compiler.apply(list));
        let applied = began.elapsed();
        let first = node.turn();
        while node.turn().ops > 0 {}
        println!("all of it at once: {:.0?} (take in {applied:.0?}, compile {:.0?})", began.elapsed(), first.compile);
        node
    }

    /// One event, until the kernel holds what follows from it.
    fn event(&mut self, event: Event) -> Took {
        let began = Instant::now();
        self.compiler.apply(event);
        let mut took = Took { apply: began.elapsed(), ..Took::default() };
        loop {
            let Took { compile, compare, commit, ops, is_done, apply: _ } = self.turn();
            took.compile += compile;
            took.compare += compare;
            took.commit += commit;
            took.ops += ops;
            if is_done {
                break;
            }
        }
        loop {
            self.review();
            if self.turn().ops == 0 {
                return took;
            }
        }
    }

    /// What the sync thread does in a turn.
    fn turn(&mut self) -> Took {
        let began = Instant::now();
        self.compiler.decide();
        let (ir, desired) = (self.compiler.ir(), Arc::new(self.compiler.table()));
        let compile = began.elapsed();
        let transaction = self.way.next(&desired, &self.mirror, Limits::default());
        let mut took = Took { compile, compare: began.elapsed() - compile, ..Took::default() };
        if let Some(transaction) = transaction {
            took.ops = transaction.ops().len();
            let began = Instant::now();
            let committed = self.kernel.commit(&transaction, None).unwrap();
            took.commit = began.elapsed();
            self.mirror.committed(transaction, committed.generation);
        } else {
            self.mirror.settled(Table::clone(&desired));
        }
        let began = Instant::now();
        took.is_done = self.mirror.table.as_ref() == Some(&*desired);
        if took.is_done {
            self.snapshot = Some((self.compiler.state().pods().clone(), ir, desired));
        }
        took.compare += began.elapsed();
        took
    }

    /// Finds no open flow that is refused.
    fn review(&mut self) {
        let own = BTreeSet::new();
        let review = self.compiler.flows().and_then(|flows| flows.review());
        let found = review.as_ref().map(|review| review.begin(&own).end(true));
        if let (Some(flows), Some(found)) = (self.compiler.flows_mut(), found) {
            flows.reviewed(found);
        }
    }
}

fn namespace(name: &str, team: &str) -> api::Namespace {
    let json = json!({"metadata": {"name": name, "labels": {"team": team}}});
    serde_json::from_value::<NamespaceWire>(json).unwrap().parse().value
}

fn pod(namespace: &str, name: &str, labels: &Value, node: &str, address: &str) -> api::Pod {
    let json = json!({
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {"nodeName": node, "containers": []},
        "status": {"phase": "Running", "podIPs": [{"ip": address}]},
    });
    serde_json::from_value::<PodWire>(json).unwrap().parse().value
}

/// A pod of the node, of some app.
fn local(index: usize, app: usize) -> api::Pod {
    let (namespace, labels) = (format!("ns-{}", index % NAMESPACES), json!({"app": format!("app-{app}")}));
    pod(&namespace, &format!("pod-{index}"), &labels, "node", &format!("10.0.{}.{}", index >> 8, index & 255))
}

/// A pod of another node, which some policies name: others after a step.
fn peer(index: usize, policies: usize, step: usize) -> api::Pod {
    let labels = json!({"app": format!("client-{}", (index + step) % policies), "pod-template-hash": "5d4f8c7b9"});
    pod(
        "clients",
        &format!("peer-{index}"),
        &labels,
        "elsewhere",
        &format!("10.{}.{}.{}", 1 + (index >> 16), (index >> 8) & 255, index & 255),
    )
}

/// A pod of the namespace whose labels change.
fn of_small(index: usize) -> api::Pod {
    pod("small", &format!("small-{index}"), &json!({"app": "small"}), "elsewhere", &format!("10.200.0.{index}"))
}

fn policy_of(json: &Value) -> api::NetworkPolicy {
    api::parse_network_policy(&json.into()).value
}

/// A policy of one local pod.
fn policy(index: usize, pods: usize, port: u16, step: usize) -> api::NetworkPolicy {
    let selected = index % pods;
    let from = json!([
        {"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": format!("client-{}", index + step)}}},
        {"ipBlock": {"cidr": format!("172.{}.{}.0/24", 16 + (index >> 8), index & 255)}},
    ]);
    policy_of(&json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": format!("policy-{index}"), "namespace": format!("ns-{}", selected % NAMESPACES)},
        "spec": {
            "podSelector": {"matchLabels": {"app": format!("app-{selected}")}}, "policyTypes": ["Ingress"],
            "ingress": [{"from": from, "ports": [{"port": port}]}],
        },
    }))
}

/// A policy that names the pods of namespaces by their label.
fn of_team(index: usize, team: &str) -> api::NetworkPolicy {
    policy_of(&json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": "team", "namespace": format!("ns-{index}")},
        "spec": {
            "podSelector": {}, "policyTypes": ["Ingress"],
            "ingress": [{"from": [{"namespaceSelector": {"matchLabels": {"team": team}}}]}],
        },
    }))
}

/// Everything there is, as watches list it.
fn lists(size: Size) -> [Event; 4] {
    let namespaces = (0..NAMESPACES).map(|index| namespace(&format!("ns-{index}"), ""));
    let namespaces = namespaces.chain([namespace("clients", "clients"), namespace("small", "")]).collect();
    let peers = (0..size.peers).map(|index| peer(index, size.policies, 0));
    let peers = peers.chain((0..PODS_OF_NAMESPACE).map(of_small)).collect();
    let policies = (0..size.policies).map(|index| policy(index, size.pods, 80, 0));
    [
        Event::Namespaces(Change::Reset(namespaces)),
        Event::Pods(PodSource::Node, Change::Reset((0..size.pods).map(|index| local(index, index)).collect())),
        Event::Pods(PodSource::Cluster, Change::Reset(peers)),
        Event::Policies(Change::Reset(policies.chain([of_team(0, "x"), of_team(1, "clients")]).collect())),
    ]
}

/// What happens, by name.
fn happenings(size: Size) -> Vec<(&'static str, Happening)> {
    let applied = |pod| Event::Pods(PodSource::Cluster, Change::Applied(pod));
    let enforced = |policy| Event::Policies(Change::Applied(policy));
    let Size { policies, pods, peers } = size;
    vec![
        (
            "the status of a peer alone",
            Box::new(move |turn| {
                applied(api::Pod { version: 1 + u64::try_from(turn).unwrap(), ..peer(7, policies, 0) })
            }),
        ),
        ("a peer gets another label", Box::new(move |turn| applied(peer(7, policies, 1 + turn % 2)))),
        (
            "a peer comes, or goes",
            Box::new(move |turn| match turn % 2 {
                0 => applied(peer(peers, policies, 0)),
                _ => Event::Pods(PodSource::Cluster, Change::Deleted(peer(peers, policies, 0).key)),
            }),
        ),
        (
            "100 pods change by their namespace's label",
            Box::new(move |turn| Event::Namespaces(Change::Applied(namespace("small", ["x", ""][turn % 2])))),
        ),
        ("a policy's port", Box::new(move |turn| enforced(policy(7, pods, [81, 80][turn % 2], 0)))),
        ("a policy's peers", Box::new(move |turn| enforced(policy(7, pods, 80, [1, 0][turn % 2])))),
        (
            "a policy goes, or comes",
            Box::new(move |turn| match turn % 2 {
                0 => Event::Policies(Change::Deleted(policy(7, pods, 80, 0).key)),
                _ => enforced(policy(7, pods, 80, 0)),
            }),
        ),
        (
            "a local pod gets another label",
            Box::new(move |turn| {
                Event::Pods(PodSource::Node, Change::Applied(local(7, [7 + NAMESPACES, 7][turn % 2])))
            }),
        ),
    ]
}

fn main() {
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET).unwrap();
    let numbers: Vec<usize> = std::env::args().filter_map(|argument| argument.parse().ok()).collect();
    let number = |at: usize, default| numbers.get(at).copied().unwrap_or(default);
    let size = Size { policies: number(0, 2_000), pods: number(1, 100), peers: number(2, 15_000) };
    println!("{} policies, {} pods on the node, {} pods elsewhere", size.policies, size.pods, size.peers);
    let mut node = Node::new(lists(size));
    let columns = ["take in", "compile", "compare", "commit", "all", "1 in 100"].map(|column| format!("{column:>9}"));
    println!("{:<42} {} {:>5}", "event, us", columns.join(" "), "ops");
    for (name, event) in happenings(size) {
        let took: Vec<Took> = (0..TIMES).map(|turn| node.event(event(turn))).collect();
        let sorted = |part: fn(&Took) -> Duration| {
            let mut parts: Vec<f64> = took.iter().map(|took| part(took).as_secs_f64() * 1e6).collect();
            parts.sort_unstable_by(f64::total_cmp);
            parts
        };
        let all = sorted(|took| took.apply + took.compile + took.compare + took.commit);
        let stages: [fn(&Took) -> Duration; 4] =
            [|took| took.apply, |took| took.compile, |took| took.compare, |took| took.commit];
        let medians = stages.map(|stage| sorted(stage)[TIMES / 2]);
        let figures = medians.into_iter().chain([all[TIMES / 2], all[TIMES - TIMES / 100]]);
        let figures: Vec<String> = figures.map(|figure| format!("{figure:>9.1}")).collect();
        println!("{name:<42} {} {:>5}", figures.join(" "), took.iter().map(|took| took.ops).max().unwrap_or_default());
    }
}
