//! What an agent answers about flows.

use std::sync::Arc;

use compiler::Compiler;
use compiler::api::{NodeName, PodWire, parse_network_policy};
use compiler::cluster::{Change, Event, PodSource};
use compiler::diff::Generation;
use compiler::nft::Deny;
use serde_json::{Value, json};

use super::*;
use crate::flows::AskedFlow;

fn pod(name: &str, namespace: &str, node: &str, ips: &[&str], more: &Value) -> Event {
    let ips: Vec<Value> = ips.iter().map(|ip| json!({"ip": ip})).collect();
    let mut pod = json!({"metadata": {"name": name, "namespace": namespace, "labels": {"app": name}},
        "spec": {"nodeName": node}, "status": {"phase": "Running", "podIPs": ips}});
    if *more == json!("hostNetwork") {
        pod["spec"]["hostNetwork"] = json!(true);
    }
    let pod = serde_json::from_value::<PodWire>(pod).unwrap().parse().value;
    Event::Pods(PodSource::Cluster, Change::Applied(pod))
}

fn policy(name: &str, spec: &Value) -> Event {
    let policy = json!({"metadata": {"name": name, "namespace": "shop"}, "spec": spec});
    Event::Policies(Change::Applied(parse_network_policy(&policy.into()).value))
}

/// A node with two pods, a peer elsewhere, and a policy for each direction.
fn snapshot() -> Snapshot {
    let mut compiler = Compiler::new(NodeName("n1".into()), Deny::Drop);
    let none = json!(null);
    let from_far = json!({"podSelector": {"matchLabels": {"app": "db"}}, "ingress": [
        {"from": [{"podSelector": {"matchLabels": {"app": "far"}}}], "ports": [{"port": 5432}]}]});
    let to_nobody = json!({"podSelector": {"matchLabels": {"app": "db"}}, "policyTypes": ["Egress"]});
    for event in [
        pod("web", "shop", "n1", &["10.0.0.1", "fd00::1"], &none),
        pod("db", "shop", "n1", &["10.0.0.2"], &none),
        pod("far", "shop", "n2", &["10.0.1.1"], &none),
        pod("new", "shop", "n1", &[], &none),
        pod("proxy", "system", "n1", &["192.0.2.1"], &json!("hostNetwork")),
        policy("from-far", &from_far),
        policy("to-nobody", &to_nobody),
    ] {
        compiler.apply(event);
    }
    let enforced = Enforced {
        generation: Generation(1),
        since: Default::default(),
        ir: compiler.ir(),
        table: Arc::new(compiler.table()),
    };
    let pods = compiler.state().pods().clone();
    Snapshot {
        epoch: 1,
        objects: Vec::new(),
        pods,
        policies: Default::default(),
        namespaces: Default::default(),
        links: Default::default(),
        enforced: Some(Arc::new(enforced)),
    }
}

fn wanted(pod: Option<&str>, namespace: Option<&str>, policy: Option<&str>) -> Result<Scope, String> {
    let own = |text: Option<&str>| text.map(str::to_owned);
    scope(&snapshot(), &Wanted { pod: own(pod), namespace: own(namespace), policy: own(policy) })
}

fn ips(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

#[test]
fn a_scope_has_the_nodes_pods_and_a_list_for_each_thing_that_is_wanted() {
    let all = wanted(None, None, None).unwrap();
    assert_eq!((all.local, all.ends), (ips(&["10.0.0.2", "10.0.0.1", "fd00::1"]), vec![]));
    let some = wanted(Some("shop/far"), Some("shop"), Some("shop/to-nobody")).unwrap();
    let namespace = ips(&["10.0.0.2", "10.0.1.1", "10.0.0.1", "fd00::1"]);
    assert_eq!(some.ends, [ips(&["10.0.1.1"]), namespace, ips(&["10.0.0.2"])]);
}

#[test]
fn what_is_not_there_is_said_with_the_nearest_names() {
    let unknown = wanted(Some("shop/fax"), None, None).unwrap();
    assert_eq!((unknown.ends, unknown.unknown_pod.as_deref()), (vec![], Some("; did you mean shop/far?")));
    let error = |pod, namespace, policy| wanted(pod, namespace, policy).unwrap_err();
    assert!(error(Some("system/proxy"), None, None).contains("is on its node's network"));
    assert_eq!(error(Some("shop/new"), None, None), "pod shop/new has no address");
    assert!(error(None, Some("system"), None).contains("no pod with an address in namespace system"));
    assert!(error(None, None, Some("shop/to-nobodi")).ends_with("; did you mean shop/to-nobody?"));
    for name in ["db", "/db", "shop/", "a/b/c"] {
        assert!(error(None, None, Some(name)).ends_with("is not the namespace/name of a policy"), "{name}");
    }
    let nothing = Snapshot { enforced: None, ..snapshot() };
    assert_eq!(scope(&nothing, &Wanted::default()).unwrap_err(), "the kernel holds no table yet");
}

fn flow(client: &str, server: &str, port: u16) -> AskedFlow {
    AskedFlow {
        client: client.parse().unwrap(),
        server: server.parse().unwrap(),
        protocol: 6,
        ports: Some((4000, port)),
    }
}

fn judged(flows: &[AskedFlow], policy: Option<&str>, refused: bool) -> Vec<Judged> {
    let own = BTreeSet::from(["192.0.2.1".parse().unwrap()]);
    let asked = Asked { flows: flows.to_vec(), policy: policy.map(str::to_owned), refused };
    judge(&snapshot(), &own, &asked).unwrap()
}

#[test]
fn flows_are_judged_with_names_and_reasons() {
    let flows = [
        flow("10.0.1.1", "10.0.0.2", 5432),
        flow("10.0.0.1", "10.0.0.2", 5432),
        flow("192.0.2.1", "10.0.0.2", 5432),
        flow("10.0.0.2", "203.0.113.1", 443),
        flow("10.0.0.1", "203.0.113.1", 443),
    ];
    let judged = self::judged(&flows, None, false);
    assert_eq!(judged.iter().map(Judged::allowed).collect::<Vec<_>>(), [true, false, true, false, true]);
    let pod = |name: &str| Some(Owner::Pod(name.to_owned()));
    assert_eq!((&judged[0].client, &judged[0].server), (&pod("shop/far"), &pod("shop/db")));
    assert_eq!(judged[0].egress.elsewhere.as_deref(), Some("n2"));
    assert_eq!(judged[0].ingress.rule.as_deref(), Some("shop/from-far ingress[0]"));
    assert_eq!(
        (judged[1].ingress.isolated_by.join(""), judged[1].ingress.rule.as_ref()),
        ("shop/from-far".into(), None)
    );
    assert_eq!(judged[2].client, Some(Owner::Node("n1".to_owned())));
    assert_eq!(judged[2].ingress.reason(), "isolated by shop/from-far; no policy may block this flow");
    assert_eq!((judged[4].egress.reason(), &judged[4].server), ("not isolated".to_owned(), &None));
}

#[test]
fn filters_leave_what_they_say_at_its_place() {
    let flows =
        [flow("10.0.1.1", "10.0.0.2", 5432), flow("10.0.0.1", "10.0.0.2", 80), flow("10.0.0.2", "10.0.0.1", 80)];
    let left = |policy, refused| judged(&flows, policy, refused).iter().map(|flow| flow.index).collect::<Vec<_>>();
    assert_eq!(left(None, true), [1, 2]);
    assert_eq!(left(Some("shop/from-far"), false), [0, 1]);
    assert_eq!(left(Some("shop/to-nobody"), false), [2], "egress of the server is not the flow's direction");
    assert_eq!(left(Some("shop/from-far"), true), [1]);
}

#[test]
fn too_many_at_once_are_refused() {
    let asked = Asked { flows: vec![flow("10.0.0.1", "10.0.0.2", 1); MOST_ASKED + 1], ..Asked::default() };
    assert!(judge(&snapshot(), &BTreeSet::new(), &asked).unwrap_err().contains("501 flows at once are too many"));
}
