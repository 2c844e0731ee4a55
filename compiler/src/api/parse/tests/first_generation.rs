//! `extensions/v1beta1` with the meaning of Kubernetes 1.3.

use serde_json::{Value, json};

use super::{Case, check_as};
use crate::api::{ApiGeneration, parse_network_policy};

#[track_caller]
fn check(cases: &[Case<'_>]) {
    check_as("extensions/v1beta1", cases);
}

#[test]
fn generation() {
    for (api_version, expected) in [
        (json!("extensions/v1beta1"), ApiGeneration::First),
        (json!("networking.k8s.io/v1"), ApiGeneration::V1),
        (Value::Null, ApiGeneration::V1),
    ] {
        let policy =
            parse_network_policy(&json!({"apiVersion": api_version, "metadata": {"name": "x"}, "spec": {}}).into());
        assert_eq!(policy.value.api, expected, "{api_version}");
    }
}

#[test]
fn only_ingress() {
    check(&[
        (
            "the example of its time",
            json!({
                "podSelector": {"matchLabels": {"role": "db"}},
                "ingress": [{
                    "from": [
                        {"namespaceSelector": {"matchLabels": {"project": "myproject"}}},
                        {"podSelector": {"matchLabels": {"role": "frontend"}}},
                    ],
                    "ports": [{"protocol": "tcp", "port": 6379}],
                }],
            }),
            &["role=db", "ingress: 0 peers {project=myproject}/* | default/role=frontend ports TCP 6379"],
            &[],
        ),
        ("no spec", json!(null), &["*", "ingress:"], &[]),
        ("nulls where later fields would stand", json!({"policyTypes": null, "egress": null}), &["*", "ingress:"], &[]),
    ]);
}

#[test]
fn a_later_field_is_of_the_time_when_the_group_meant_v1() {
    check(&[
        (
            "policyTypes",
            json!({"policyTypes": ["Ingress"], "ingress": [{"from": [], "ports": [{"protocol": "SCTP"}]}]}),
            &["*", "ingress: 0 peers any ports SCTP *"],
            &["spec.policyTypes: was not yet in extensions/v1beta1 of Kubernetes 1.3; read as networking.k8s.io/v1"],
        ),
        (
            "egress",
            json!({"egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}]}),
            &["*", "ingress:", "egress: 0 peers 10.0.0.0/8 ports any"],
            &["spec.egress: was not yet in extensions/v1beta1 of Kubernetes 1.3; read as networking.k8s.io/v1"],
        ),
    ]);
    let policy = parse_network_policy(
        &json!({
            "apiVersion": "extensions/v1beta1", "metadata": {"name": "x"}, "spec": {"policyTypes": ["Egress"]},
        })
        .into(),
    );
    assert_eq!(policy.value.api, ApiGeneration::V1, "it isolates");
}

#[test]
fn a_version_that_there_never_was_is_read_as_v1() {
    let policy =
        parse_network_policy(&json!({"apiVersion": "networking.k8s.io/v1beta1", "metadata": {"name": "x"}}).into());
    assert_eq!(policy.value.api, ApiGeneration::V1);
    let told: Vec<String> = policy.findings.iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        ["NetworkPolicy default/x: apiVersion: \"networking.k8s.io/v1beta1\" has no NetworkPolicy; read as \
          networking.k8s.io/v1"]
    );
}

#[test]
fn absent_lists_match_all_and_empty_ones_nothing() {
    check(&[
        ("absent", json!({"ingress": [{}]}), &["*", "ingress: 0 peers any ports any"], &[]),
        ("null", json!({"ingress": [{"from": null, "ports": null}]}), &["*", "ingress: 0 peers any ports any"], &[]),
        ("no peers", json!({"ingress": [{"from": []}]}), &["*", "ingress: 0 peers nobody ports any"], &[]),
        ("no ports", json!({"ingress": [{"ports": []}]}), &["*", "ingress: 0 peers any ports none"], &[]),
    ]);
}

#[test]
fn ports() {
    check(&[(
        "protocols in any case, and neither SCTP nor ranges",
        json!({"ingress": [{"ports": [
            {"protocol": "tcp", "port": 1}, {"protocol": "Udp", "port": "dns"}, {"protocol": "UDP"}, {},
            {"protocol": "sctp"}, {"protocol": "SCTP"}, {"port": 1, "endPort": 2},
        ]}]}),
        &["*", "ingress: 0 peers any ports TCP 1 | UDP dns | UDP * | TCP *"],
        &[
            "spec.ingress[0].ports[4].protocol: \"sctp\" is not a protocol (TCP, UDP); the entry matches nothing",
            "spec.ingress[0].ports[5].protocol: \"SCTP\" is not a protocol (TCP, UDP); the entry matches nothing",
            "spec.ingress[0].ports[6].endPort: is not a field of a port; the entry matches nothing",
        ],
    )]);
}

#[test]
fn peers_have_one_selector() {
    check(&[(
        "both, or an ipBlock",
        json!({"ingress": [{"from": [
            {"podSelector": {}, "namespaceSelector": {}}, {"ipBlock": {"cidr": "10.0.0.0/8"}}, {},
        ]}]}),
        &["*", "ingress: 0 peers nobody ports any"],
        &[
            "spec.ingress[0].from[0].namespaceSelector: cannot stand beside podSelector in extensions/v1beta1; the \
             peer matches nothing",
            "spec.ingress[0].from[1].ipBlock: was not yet in extensions/v1beta1 of Kubernetes 1.3; the peer matches \
             nothing",
            "spec.ingress[0].from[2]: needs a podSelector, a namespaceSelector or an ipBlock; the peer matches nothing",
        ],
    )]);
}
