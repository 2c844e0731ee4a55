//! Tables of cases: what is read of an object, and what is told about it.

mod document;
mod fail_closed;
mod first_generation;
mod network_policy;
mod pod;
mod selector;
mod small;
mod workload;

use serde_json::{Value, json};

use super::{Item, Object, parse, parse_network_policy};
use crate::api::{Finding, NamespaceScope, NetworkPolicy, Parsed, Peer, Peers, PortMatch, Ports, Rule, Selector};

/// One policy: what it is about, its `spec`, what is read of it, and what is told, without the object's name.
type Case<'a> = (&'a str, Value, &'a [&'a str], &'a [&'a str]);

/// Checks policies of `networking.k8s.io/v1`, each with the name `default/x`.
#[track_caller]
fn check(cases: &[Case<'_>]) {
    check_as("networking.k8s.io/v1", cases);
}

#[track_caller]
fn check_as(api_version: &str, cases: &[Case<'_>]) {
    for (name, spec, read, told) in cases {
        let object = json!({
            "apiVersion": api_version, "kind": "NetworkPolicy", "metadata": {"name": "x"}, "spec": spec,
        });
        let parsed = parse_network_policy(&object.into());
        assert_eq!(show(&parsed.value), *read, "{name}");
        assert_eq!(texts(&parsed.findings, "NetworkPolicy default/x: "), *told, "{name}");
    }
}

/// The findings as they are printed, without the object that all of them are about.
#[track_caller]
fn texts(findings: &[Finding], object: &str) -> Vec<String> {
    let without_object = |finding: &Finding| {
        let text = finding.to_string();
        text.strip_prefix(object).unwrap_or_else(|| panic!("{text} is about another object")).to_owned()
    };
    findings.iter().map(without_object).collect()
}

/// Reads a document that holds one object.
#[track_caller]
fn parse_one(document: &Value) -> Parsed<Object> {
    match parse(&document.into(), "nameless").as_slice() {
        [Item::Object { parsed, .. }] => parsed.clone(),
        other => panic!("one object is expected, not {other:?}"),
    }
}

/// A policy in a few words: its selector, and each direction with its rules.
fn show(policy: &NetworkPolicy) -> Vec<String> {
    let mut lines = vec![show_selector(&policy.pod_selector)];
    for (name, rules) in [("ingress", &policy.ingress), ("egress", &policy.egress)] {
        lines.extend(rules.iter().map(|rules| {
            let rules: Vec<_> = rules.iter().map(|rule| format!(" {}", show_rule(rule))).collect();
            format!("{name}:{}", rules.join(";"))
        }));
    }
    lines
}

/// `0 from default/app=web | {team=a}/* ports TCP 80`
fn show_rule(rule: &Rule) -> String {
    let peers = match &rule.peers {
        Peers::Any => "any".to_owned(),
        Peers::These(peers) if peers.is_empty() => "nobody".to_owned(),
        Peers::These(peers) => peers.iter().map(show_peer).collect::<Vec<_>>().join(" | "),
    };
    let ports = match &rule.ports {
        Ports::Any => "any".to_owned(),
        Ports::These(ports) if ports.is_empty() => "none".to_owned(),
        Ports::These(ports) => {
            let show = |port: &crate::api::Port| match &port.port {
                PortMatch::Any => format!("{} *", port.protocol),
                PortMatch::Numbers(range) => format!("{} {range}", port.protocol),
                PortMatch::Named(name) => format!("{} {name}", port.protocol),
            };
            ports.iter().map(show).collect::<Vec<_>>().join(" | ")
        }
    };
    format!("{} peers {peers} ports {ports}", rule.index)
}

fn show_peer(peer: &Peer) -> String {
    match peer {
        Peer::IpBlock(block) => block.to_string(),
        Peer::Pods(pods) => match &pods.namespaces {
            NamespaceScope::Named(namespace) => format!("{namespace}/{}", show_selector(&pods.pods)),
            NamespaceScope::Selected(namespaces) => {
                format!("{{{}}}/{}", show_selector(namespaces), show_selector(&pods.pods))
            }
        },
    }
}

fn show_selector(selector: &Selector) -> String {
    if selector.is_everything() { "*".to_owned() } else { selector.to_string() }
}
