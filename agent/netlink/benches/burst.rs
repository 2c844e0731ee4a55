//! What the policies of one namespace cost all others of the node while they change one after the other.
//!
//! Nobody's change is taken in during a turn, which is one compilation and one transaction, so that a change of somebody
//! else waits for two turns at most: the one that is under way, and its own. Printed are how many turns it took, and
//! the longest ones; on a busy machine the longest tells of the neighbours.
//! `cargo bench -p netlink --bench burst -- POLICIES PODS`

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "what fails in a benchmark is to stop it there")]

use std::time::{Duration, Instant};

use compiler::Compiler;
use compiler::api::{self, NodeName, PodWire};
use compiler::cluster::{Change, Event, PodSource};
use compiler::diff::{Limits, Mirror, Way};
use compiler::nft::Deny;
use netlink::{Connection, Ownership};
use nix::sched::{CloneFlags, unshare};
use serde_json::{Value, json};

/// For how long events are admitted before a turn.
const ADMISSION: Duration = Duration::from_millis(5);

/// The compiler and a kernel that follows it.
struct Node {
    compiler: Compiler,
    kernel: Connection,
    mirror: Mirror,
    way: Way,
    turns: Vec<Turn>,
}

/// How long the parts of a turn took.
#[derive(Clone, Copy)]
struct Turn {
    compile: Duration,
    commit: Duration,
}

impl Node {
    fn new(pods: usize) -> Node {
        let mut compiler = Compiler::new(NodeName("node".into()), Deny::Drop).cutting_flows();
        let pods = (0..pods).map(pod).collect();
        compiler.apply(Event::Pods(PodSource::Cluster, Change::Reset(pods)));
        let mut kernel = Connection::open(Ownership::Plain).unwrap();
        let mirror = kernel.dump().unwrap();
        Node { compiler, kernel, mirror, way: Way::default(), turns: Vec::new() }
    }

    /// Brings the kernel one transaction further, and says whether there was anything to do.
    fn turn(&mut self) -> bool {
        let began = Instant::now();
        let desired = self.compiler.table();
        let Some(transaction) = self.way.next(&desired, &self.mirror, Limits::default()) else {
            self.mirror.settled(desired);
            return false;
        };
        let compiled = Instant::now();
        let committed = self.kernel.commit(&transaction, None).unwrap();
        self.mirror.committed(transaction, committed.generation);
        self.turns.push(Turn { compile: compiled - began, commit: compiled.elapsed() });
        true
    }

    /// Takes over policies one by one, as a watch reports them, and prints what that took.
    fn burst(&mut self, what: &str, policies: impl Iterator<Item = Event>) {
        self.turns.clear();
        let began = Instant::now();
        let mut admitting = Instant::now();
        for event in policies {
            self.compiler.apply(event);
            if admitting.elapsed() > ADMISSION {
                self.turn();
                admitting = Instant::now();
            }
        }
        while self.turn() {}
        let took = began.elapsed();
        let mut whole: Vec<Duration> = self.turns.iter().map(|turn| turn.compile + turn.commit).collect();
        whole.sort_unstable();
        let part = |part: fn(&Turn) -> Duration| self.turns.iter().map(part).max().unwrap_or_default();
        let (turns, median) = (whole.len(), whole.get(whole.len() / 2).copied().unwrap_or_default());
        println!(
            "{what}: {took:.0?} in {turns} turns, median {median:.1?}, longest {:.1?} (compile {:.1?}, commit {:.1?})",
            whole.last().copied().unwrap_or_default(),
            part(|turn| turn.compile),
            part(|turn| turn.commit),
        );
    }
}

fn pod(index: usize) -> api::Pod {
    let json = json!({
        "metadata": {"name": format!("pod-{index}"), "namespace": "tenant", "labels": {"app": format!("app-{index}")}},
        "spec": {"nodeName": "node", "containers": []},
        "status": {"phase": "Running", "podIPs": [{"ip": format!("10.0.{}.{}", index >> 8, index & 255)}]},
    });
    serde_json::from_value::<PodWire>(json).unwrap().parse().value
}

/// A policy that lets one app reach the pods that it selects.
fn policy(index: usize, selector: &Value, from: usize) -> Event {
    let json = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": format!("policy-{index}"), "namespace": "tenant"},
        "spec": {"podSelector": selector, "policyTypes": ["Ingress"], "ingress": [{
            "from": [{"podSelector": {"matchLabels": {"app": format!("app-{from}")}}}], "ports": [{"port": 80}],
        }]},
    });
    Event::Policies(Change::Applied(api::parse_network_policy(&json.into()).value))
}

fn main() {
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET).unwrap();
    let numbers: Vec<usize> = std::env::args().filter_map(|argument| argument.parse().ok()).collect();
    let (policies, pods) = (numbers.first().copied().unwrap_or(1_000), numbers.get(1).copied().unwrap_or(100));
    println!("{policies} policies of one namespace, {pods} pods of it on the node, one after the other:");
    let mut node = Node::new(pods);
    let all = json!({});
    let one = |index: usize| json!({"matchLabels": {"app": format!("app-{}", index % pods)}});
    node.burst("they come, each for all pods", (0..policies).map(|index| policy(index, &all, index % 50)));
    node.burst("each names another peer", (0..policies).map(|index| policy(index, &all, index % 50 + 50)));
    node.burst("each selects one pod instead", (0..policies).map(|index| policy(index, &one(index), index % 50)));
    node.burst("each selects all pods again", (0..policies).map(|index| policy(index, &all, index % 50)));
}
