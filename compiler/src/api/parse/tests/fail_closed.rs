//! What is broken in a policy isolates no fewer pods and allows no more than the whole policy does.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::api::{NetworkPolicy, Parsed, Peers, Ports, Rule, parse_network_policy};

/// A policy with every field that there is.
fn whole() -> Value {
    let selector = json!({
        "matchLabels": {"app": "a"},
        "matchExpressions": [
            {"key": "b", "operator": "In", "values": ["c", "d"]}, {"key": "e", "operator": "NotIn", "values": ["f"]},
            {"key": "g", "operator": "Exists"}, {"key": "h", "operator": "DoesNotExist"},
        ],
    });
    let ports = json!([
        {"protocol": "TCP", "port": 80}, {"protocol": "UDP", "port": 1000, "endPort": 2000}, {"port": "http"},
        {"protocol": "SCTP"},
    ]);
    let peers = json!([
        {"podSelector": selector}, {"namespaceSelector": selector},
        {"podSelector": selector, "namespaceSelector": selector},
        {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16", "10.2.0.0/16"]}},
    ]);
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "x"},
        "spec": {
            "podSelector": selector, "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"from": peers, "ports": ports}, {"from": peers}], "egress": [{"to": peers, "ports": ports}],
        },
    })
}

/// The pointers to all values within a value.
fn pointers(value: &Value, here: &str, all: &mut Vec<String>) {
    if let Some(map) = value.as_object() {
        for (key, inner) in map {
            all.push(format!("{here}/{key}"));
            pointers(inner, &format!("{here}/{key}"), all);
        }
    }
    for (i, inner) in value.as_array().into_iter().flatten().enumerate() {
        all.push(format!("{here}/{i}"));
        pointers(inner, &format!("{here}/{i}"), all);
    }
}

fn policy() -> (Value, NetworkPolicy, Vec<String>) {
    let object = whole();
    let Parsed { value, findings } = parse_network_policy(&(&object).into());
    assert_eq!(findings, [], "the policy is whole before something is broken");
    let mut all = Vec::new();
    pointers(&object["spec"], "/spec", &mut all);
    assert!(all.len() > 150, "there are {} values to break", all.len());
    (object, value, all)
}

/// Checks a policy in which one thing has been broken against the whole one.
#[track_caller]
fn check_broken(object: &Value, whole: &NetworkPolicy, what: &str) {
    let Parsed { value: broken, findings } = parse_network_policy(&object.into());
    assert!(!findings.is_empty(), "{what}: nothing is told");
    let requirements = |policy: &NetworkPolicy| policy.pod_selector.requirements().cloned().collect::<BTreeSet<_>>();
    assert!(requirements(&broken).is_subset(&requirements(whole)), "{what}: fewer pods are selected");
    for (broken, whole) in [(&broken.ingress, &whole.ingress), (&broken.egress, &whole.egress)] {
        let broken = broken.as_ref().unwrap_or_else(|| panic!("{what}: a direction is not isolated any more"));
        let whole = whole.as_ref().expect("the whole policy is about both directions");
        for rule in broken {
            assert!(allows_no_more(rule, &whole[rule.index]), "{what}: {rule:?} allows more");
        }
    }
}

fn allows_no_more(broken: &Rule, whole: &Rule) -> bool {
    let peers = match (&broken.peers, &whole.peers) {
        (_, Peers::Any) => true,
        (Peers::Any, Peers::These(_)) => false,
        (Peers::These(broken), Peers::These(whole)) => broken.iter().all(|peer| whole.contains(peer)),
    };
    let ports = match (&broken.ports, &whole.ports) {
        (_, Ports::Any) => true,
        (Ports::Any, Ports::These(_)) => false,
        (Ports::These(broken), Ports::These(whole)) => broken.iter().all(|port| whole.contains(port)),
    };
    peers && ports
}

#[test]
fn values_that_mean_nothing() {
    let (object, whole, all) = policy();
    for pointer in &all {
        for value in [json!(-1), json!(1.5), json!(true), json!("-"), json!("A b"), json!([[]]), json!({"x": {}})] {
            let mut broken = object.clone();
            *broken.pointer_mut(pointer).expect("the value is there") = value.clone();
            check_broken(&broken, &whole, &format!("{pointer} is {value}"));
        }
    }
}

#[test]
fn fields_that_are_misspelt() {
    let (object, whole, all) = policy();
    let mut misspelt = 0;
    for pointer in &all {
        let (parent, field) = pointer.rsplit_once('/').expect("a pointer has a slash");
        let mut broken = object.clone();
        let Some(fields) = broken.pointer_mut(parent).and_then(Value::as_object_mut) else { continue };
        // The keys of matchLabels are the author's own.
        if parent.ends_with("matchLabels") {
            continue;
        }
        let value = fields.remove(field).expect("the field is there");
        fields.insert(format!("{field}x"), value);
        check_broken(&broken, &whole, &format!("{pointer} is misspelt"));
        misspelt += 1;
    }
    assert!(misspelt > 90, "{misspelt} fields have been misspelt");
}
