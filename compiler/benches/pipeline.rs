//! From the bytes of the API to a transaction: a whole cluster at start, and one event afterwards.
//!
//! A cluster of 1,000 pods, 91 of them on this node, in 10 namespaces, and 100 policies whose peers are pods, blocks
//! and named ports. `cargo bench -p compiler`

use std::hint::black_box;

use compiler::Compiler;
use compiler::api::{self, NamespaceWire, NodeName, PodWire};
use compiler::cluster::{Change, Event, PodSource};
use compiler::diff::{self, Generation, Limits, Mirror, Transaction};
use compiler::nft::Deny;
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use serde_json::json;

const NAMESPACES: usize = 10;
const PODS: usize = 1_000;
const POLICIES: usize = 100;

fn namespace_json(index: usize) -> String {
    json!({"metadata": {"name": format!("ns-{index}"), "labels": {"team": format!("team-{}", index % 3)}}}).to_string()
}

fn pod_json(index: usize, app: usize) -> String {
    let node = if index.is_multiple_of(11) { "node-0".to_string() } else { format!("node-{}", 1 + index % 20) };
    json!({
        "metadata": {
            "name": format!("pod-{index}"), "namespace": format!("ns-{}", index % NAMESPACES),
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {"app": format!("app-{app}"), "pod-template-hash": "5d4f8c7b9"},
        },
        "spec": {"nodeName": node, "containers": [{"name": "main", "ports": [{"name": "http", "containerPort": 8080}]}]},
        "status": {"phase": "Running", "podIPs": [
            {"ip": format!("10.{}.{}.{}", index >> 16, (index >> 8) & 255, index & 255)},
            {"ip": format!("fd00::{index:x}")},
        ]},
    })
    .to_string()
}

fn policy_json(index: usize) -> String {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": format!("policy-{index}"), "namespace": format!("ns-{}", index % NAMESPACES)},
        "spec": {
            "podSelector": {"matchLabels": {"app": format!("app-{}", index % 7)}},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{
                "from": [
                    {"podSelector": {"matchLabels": {"app": format!("app-{}", (index + 1) % 7)}}},
                    {"namespaceSelector": {"matchLabels": {"team": format!("team-{}", index % 3)}}},
                    {"ipBlock": {"cidr": "172.16.0.0/12", "except": [format!("172.16.{index}.0/24")]}},
                ],
                "ports": [{"port": "http"}, {"port": 9000 + index}],
            }],
            "egress": [{"to": [{"podSelector": {}}]}, {"ports": [{"protocol": "UDP", "port": 53}]}],
        },
    })
    .to_string()
}

fn pod(json: &str) -> api::Pod {
    serde_json::from_str::<PodWire>(json).expect("the bench writes JSON").parse().value
}

/// The objects as the API sends them.
struct Objects {
    namespaces: Vec<String>,
    pods: Vec<String>,
    policies: Vec<String>,
}

impl Objects {
    fn new() -> Objects {
        Objects {
            namespaces: (0..NAMESPACES).map(namespace_json).collect(),
            pods: (0..PODS).map(|index| pod_json(index, index % 7)).collect(),
            policies: (0..POLICIES).map(policy_json).collect(),
        }
    }

    fn compiler(&self) -> Compiler {
        let mut compiler = Compiler::new(NodeName("node-0".into()), Deny::Drop);
        let namespace =
            |json: &String| serde_json::from_str::<NamespaceWire>(json).expect("the bench writes JSON").parse().value;
        let policy = |json: &String| {
            let value = serde_json::from_str(json).expect("the bench writes JSON");
            api::parse_network_policy(&value).value
        };
        compiler.apply(Event::Namespaces(Change::Reset(self.namespaces.iter().map(namespace).collect())));
        compiler.apply(Event::Policies(Change::Reset(self.policies.iter().map(policy).collect())));
        compiler
            .apply(Event::Pods(PodSource::Cluster, Change::Reset(self.pods.iter().map(|json| pod(json)).collect())));
        compiler
    }
}

fn empty_kernel() -> Mirror {
    Mirror { table: None, generation: Generation(0), foreign: Vec::new() }
}

fn transaction(compiler: &mut Compiler, mirror: &Mirror) -> Transaction {
    diff::next(&compiler.table(), mirror, Limits { weight: usize::MAX, defer_chain_delete: false })
        .expect("there is something to do")
}

fn full(c: &mut Criterion) {
    let objects = Objects::new();
    c.bench_function("full: 1,000 pods and 100 policies, from JSON to a transaction", |b| {
        b.iter(|| {
            let mut compiler = objects.compiler();
            black_box(transaction(&mut compiler, &empty_kernel()))
        });
    });
}

/// One event in turn with its reverse, each taken through to the kernel's mirror.
fn one_event(c: &mut Criterion) {
    let objects = Objects::new();
    let events = [
        ("a pod elsewhere changes its labels", [pod_json(1, 1), pod_json(1, 2)]),
        ("a local pod changes its labels", [pod_json(11, 4), pod_json(11, 3)]),
    ];
    for (name, [json, other]) in events {
        let mut compiler = objects.compiler();
        let mut mirror = empty_kernel();
        let first = transaction(&mut compiler, &mirror);
        mirror.committed(first, Generation(1));
        let mut texts = [other, json].into_iter().cycle();
        c.bench_function(&format!("one event: {name}"), |b| {
            b.iter_batched(
                || texts.next().expect("a cycle does not end"),
                |text| {
                    compiler.apply(Event::Pods(PodSource::Cluster, Change::Applied(pod(&text))));
                    let transaction = transaction(&mut compiler, &mirror);
                    mirror.committed(black_box(transaction), Generation(2));
                },
                BatchSize::SmallInput,
            );
        });
    }
}

fn policy_event(c: &mut Criterion) {
    let objects = Objects::new();
    let mut compiler = objects.compiler();
    let mut mirror = empty_kernel();
    let first = transaction(&mut compiler, &mirror);
    mirror.committed(first, Generation(1));
    let changed = policy_json(0).replace("\"port\":9000", "\"port\":9999");
    let mut texts = [changed, policy_json(0)].into_iter().cycle();
    c.bench_function("one event: a policy changes a port", |b| {
        b.iter_batched(
            || texts.next().expect("a cycle does not end"),
            |text| {
                let value = serde_json::from_str(&text).expect("the bench writes JSON");
                compiler.apply(Event::Policies(Change::Applied(api::parse_network_policy(&value).value)));
                let transaction = transaction(&mut compiler, &mirror);
                mirror.committed(black_box(transaction), Generation(2));
            },
            BatchSize::SmallInput,
        );
    });
}

criterion_group!(benches, full, one_event, policy_event);
criterion_main!(benches);
