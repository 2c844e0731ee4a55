//! Policies that are small to write and cost much: what they become is bounded, and others do not wait for them.

#![allow(clippy::unwrap_used, reason = "a test that cannot set up its world has failed")]

use compiler::Compiler;
use compiler::api::{NodeName, PodWire, PolicyKey, parse_network_policy};
use compiler::cluster::{Budget, Change, Cost, Event, PodSource};
use compiler::diff::{Limits, Op, next};
use compiler::nft::{Deny, Table};
use compiler::sim::{Kernel, Release};
use serde_json::{Value, json};

const PODS: usize = 2_000;

fn pod(namespace: &str, name: &str, address: String, node: &str) -> Event {
    let pod = json!({"metadata": {"name": name, "namespace": namespace, "labels": {"app": name}},
        "spec": {"nodeName": node, "containers": [{"ports": [{"name": "p7", "containerPort": 7}]}]},
        "status": {"phase": "Running", "podIPs": [{"ip": address}]}});
    let pod = serde_json::from_value::<PodWire>(pod).unwrap().parse().value;
    Event::Pods(PodSource::Cluster, Change::Applied(pod))
}

fn policy(namespace: &str, name: &str, spec: &Value) -> Event {
    let policy = json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": namespace}, "spec": spec});
    Event::Policies(Change::Applied(parse_network_policy(&policy.into()).value))
}

/// A node with a pod of a victim and one of a tenant, and many pods of the tenant elsewhere.
fn cluster() -> Compiler {
    cluster_with(Budget::default())
}

fn cluster_with(budget: Budget) -> Compiler {
    let mut compiler = Compiler::with_budget(NodeName("n1".into()), Deny::Drop, budget);
    let namespace = json!({"metadata": {"name": "evil"}});
    let namespace = serde_json::from_value::<compiler::api::NamespaceWire>(namespace).unwrap().parse().value;
    compiler.apply(Event::Namespaces(Change::Applied(namespace)));
    compiler.apply(pod("victim", "v", "10.1.0.1".to_owned(), "n1"));
    compiler.apply(pod("evil", "m", "10.1.0.2".to_owned(), "n1"));
    for i in 0..PODS {
        compiler.apply(pod("evil", &format!("r{i}"), format!("10.2.{}.{}", i >> 8, i & 255), "n2"));
    }
    compiler
}

fn labelled(i: usize) -> Value {
    json!({"podSelector": {"matchLabels": {"a": i.to_string()}}})
}

/// Matches all pods.
fn unlabelled(i: usize) -> Value {
    json!({"podSelector": {"matchExpressions": [{"key": format!("k{i}"), "operator": "DoesNotExist"}]}})
}

fn list(n: usize, item: impl Fn(usize) -> Value) -> Value {
    (0..n).map(item).collect()
}

/// Sets, rules, elements.
fn size(table: &Table) -> (usize, usize, usize) {
    let rules = table.chains.values().map(|chain| chain.rules.len()).sum();
    (table.sets.len(), rules, table.sets.values().map(|set| set.keys.len()).sum())
}

#[test]
fn what_a_policy_becomes_is_a_sum() {
    let named = |n| list(n, |i| json!({"port": format!("p{i}")}));
    let cases: Vec<(&str, Value, (usize, usize, usize))> = vec![
        // A look-up of the peer, and one of the endpoint; the port of the two local pods.
        (
            "selectors x named ports",
            json!({"ingress": [{"from": list(800, labelled), "ports": named(800)}]}),
            (2, 1, 2),
        ),
        ("the same, egress", json!({"egress": [{"to": list(800, labelled), "ports": named(800)}]}), (2, 1, 0)),
        ("selectors of all pods", json!({"ingress": [{"from": list(800, unlabelled)}]}), (1, 1, PODS + 1)),
        (
            "blocks x ports",
            json!({"ingress": [{
                "from": list(800, |i| json!({"ipBlock": {"cidr": format!("20.{}.{}.0/25", i >> 8, i & 255)}})),
                "ports": list(800, |i| json!({"port": 2 * i + 1})),
            }]}),
            (2, 1, 1_600),
        ),
        (
            "an exception each",
            json!({"ingress": [{"from": [{"ipBlock": {"cidr": "0.0.0.0/0",
                "except": list(5_000, |i| json!(format!("20.{}.{}.7/32", i >> 8, i & 255)))}}]}]}),
            (1, 1, 5_001),
        ),
        (
            "many rules of the same peers",
            json!({"ingress": list(300, |i| json!({"from": list(30, labelled), "ports": [{"port": i + 1}]}))}),
            (1, 300, 0),
        ),
    ];
    for (name, spec, expected) in cases {
        let mut compiler = cluster();
        compiler.apply(policy("evil", "none", &json!({"policyTypes": ["Ingress", "Egress"]})));
        let without = size(&compiler.table());
        compiler.apply(policy("evil", "none", &{
            let mut spec = spec.clone();
            spec["policyTypes"] = json!(["Ingress", "Egress"]);
            spec
        }));
        let with = size(&compiler.table());
        assert_eq!((with.0 - without.0, with.1 - without.1, with.2 - without.2), expected, "{name}");
        assert!(compiler.state().quarantined().is_empty(), "{name}: it is small enough to be enforced");
    }
}

/// Each selects all pods but one, so that no two pods have the same policies.
#[test]
fn policies_times_pods_are_bounded() {
    const MANY: usize = 200;
    let namespace = Cost { jumps: 10_000, ..Budget::default().namespace };
    // As if none could be led to by peer.
    let mut compiler = cluster_with(Budget { namespace, ..Budget::default() }).with_most_jumps(MANY);
    for i in 0..MANY {
        compiler.apply(pod("evil", &format!("n{i}"), format!("10.3.0.{i}"), "n1"));
    }
    let but_one = |i: usize| {
        let selector = json!({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": [format!("n{i}")]}]});
        json!({"podSelector": selector, "ingress": [{"from": [labelled(i)]}]})
    };
    for i in 0..MANY {
        compiler.apply(policy("evil", &format!("p{i}"), &but_one(i)));
    }
    let jumps = |table: &Table| -> usize {
        let groups = table.chains.iter().filter(|(name, _)| name.as_str().starts_with("ingress-pods"));
        groups.map(|(_, chain)| chain.rules.len()).sum()
    };
    let table = compiler.table();
    let left_out = compiler.state().quarantined().len();
    assert!((MANY / 2..MANY).contains(&left_out), "{left_out} of {MANY} are left out");
    assert!((9_000..=10_000 + MANY + 1).contains(&jumps(&table)), "{} rules lead to policies", jumps(&table));
    let isolated: usize = table.maps.values().map(|map| map.elements.len()).sum();
    assert_eq!(isolated, MANY + 1, "each pod is isolated");
    // Where they are few again, all count.
    for i in 40..MANY {
        let key = PolicyKey { namespace: "evil".into(), name: format!("p{i}").into() };
        compiler.apply(Event::Policies(Change::Deleted(key)));
    }
    compiler.table();
    assert!(compiler.state().quarantined().is_empty());
}

/// As many groups as pods, and in each more policies and peers than can be led to by peer.
#[test]
fn peers_times_groups_are_bounded() {
    const GROUPS: usize = 20;
    const POLICIES: usize = 60;
    /// The mentions that there may be in all groups together.
    const MOST: usize = 2_048;
    let mut compiler = cluster();
    for i in 0..GROUPS {
        compiler.apply(pod("evil", &format!("n{i}"), format!("10.3.0.{i}"), "n1"));
    }
    let all_but = |i: usize, peers: Value| {
        let selector = json!({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": [format!("n{i}")]}]});
        json!({"podSelector": selector, "ingress": [{"from": peers}]})
    };
    let some_of = |i: usize, n: usize| {
        let apps: Vec<String> = (0..n).map(|peer| format!("r{}", (i * 7 + peer) % PODS)).collect();
        json!({"podSelector": {"matchExpressions": [{"key": "app", "operator": "In", "values": apps}]}})
    };
    let net = |length: usize| json!({"ipBlock": {"cidr": format!("10.128.0.0/{length}")}});
    for i in 0..POLICIES {
        // Each names as many peers as its number says, and blocks that lie in those of others.
        let peers = json!([some_of(i, 2 * i), net(9 + i % 20)]);
        compiler.apply(policy("evil", &format!("p{i}"), &all_but(i, peers)));
    }
    let table = compiler.table();
    let by_peer = |name: &str| name.contains("-peers-") || name.contains("-blocks-");
    let maps: Vec<_> = table.maps.iter().filter(|(name, _)| by_peer(name.as_str())).collect();
    let elements: usize = maps.iter().map(|(_, map)| map.elements.len()).sum();
    let lists = table.chains.iter().filter(|(name, _)| name.as_str().starts_with("ingress-list-"));
    let jumps: usize = lists.map(|(_, chain)| chain.rules.len()).sum();
    assert!(elements <= MOST && jumps <= MOST, "{elements} elements, {jumps} jumps");
    assert!(elements > 300 && maps.len() < GROUPS, "some are led by peer, and not all: {elements}, {}", maps.len());
    assert!(compiler.state().quarantined().is_empty(), "what does not fit is asked in turn");
}

#[test]
fn what_is_too_much_is_left_out_and_isolates() {
    let rules = |n, peer: fn(usize) -> Value| json!({"ingress": list(n, |i| json!({"from": [peer(i)]}))});
    for (name, spec) in [
        ("a set each", rules(1_001, labelled)),
        ("more elements than may be kept", rules(300, unlabelled)),
        ("a rule each", json!({"ingress": list(2_001, |i| json!({"ports": [{"port": i + 1}]}))})),
        (
            "a long list",
            json!({"ingress": [{"from": [{"ipBlock": {"cidr": "0.0.0.0/0",
                "except": list(50_000, |i| json!(format!("20.{}.{}.7/32", i >> 8, i & 255)))}}]}]}),
        ),
    ] {
        let mut compiler = cluster();
        compiler.apply(policy("evil", "bomb", &spec));
        compiler.apply(policy("evil", "other", &json!({"ingress": [{"from": [labelled(0)]}]})));
        let ir = compiler.ir();
        assert_eq!(compiler.state().quarantined().len(), 1, "{name}");
        let bomb = ir.policies.values().find(|policy| &*policy.key.name == "bomb").unwrap();
        assert!(bomb.isolates && bomb.ingress.as_deref() == Some(&[]), "{name}: {bomb:?}");
        assert_eq!(ir.members.len(), 1, "{name}: nothing is kept for it");
        let (sets, rules, elements) = size(&compiler.table());
        assert!(sets < 10 && rules < 50 && elements < 10, "{name}: {sets} sets, {rules} rules, {elements} elements");
    }
}

#[test]
fn others_come_before_a_large_policy_and_between_its_parts() {
    let mut compiler = cluster();
    let mut kernel = Kernel::new(Release::AtOnce);
    let mut mirror = kernel.dump();
    let mut step = |compiler: &mut Compiler| -> Option<Vec<String>> {
        let transaction = next(&compiler.table(), &mirror, Limits::default())?;
        let keys = |op: &Op| if let Op::AddKeys(_, keys) = op { keys.len() } else { 0 };
        let loaded: usize = transaction.ops().iter().map(keys).sum();
        assert!(loaded <= Limits::default().weight, "one transaction loads {loaded} keys");
        let ops = transaction.ops().iter().map(ToString::to_string).collect();
        let generation = kernel.commit(&transaction).unwrap();
        mirror.committed(transaction, generation);
        Some(ops)
    };
    while step(&mut compiler).is_some() {}
    let blocks =
        list(30_000, |i| json!({"ipBlock": {"cidr": format!("{}.{}.{}.0/25", 20 + (i >> 16), i >> 8 & 255, i & 255)}}));
    compiler.apply(policy("evil", "large", &json!({"ingress": [{"from": blocks}]})));
    let isolated = step(&mut compiler).unwrap().join("; ");
    assert!(isolated.contains("elements to map ingress-pods-v4") && !isolated.contains("cidr"), "{isolated}");
    let mut parts = 0;
    loop {
        // Each time another change of somebody else, which is done alone and at once.
        let port = json!({"ingress": [{"ports": [{"port": 1 + parts}]}]});
        compiler.apply(policy("victim", "small", &port));
        let small = step(&mut compiler).unwrap().join("; ");
        assert!(small.contains("victim/small") && !small.contains("cidr"), "{small}");
        let Some(part) = step(&mut compiler) else { break };
        assert!(part.iter().all(|op| op.contains("cidr")), "content alone: {part:?}");
        parts += 1;
    }
    assert!(parts >= 3, "30,000 keys in {parts} parts");
    assert_eq!(kernel.dump().table, Some(compiler.table()), "the rule comes when the content is there");
}
