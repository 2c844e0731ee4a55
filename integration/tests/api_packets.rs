//! From the API to the packet: what a real API server is told shows in what pods can reach, and in nothing less.
//!
//! The cases are those that the end-to-end tests of Kubernetes have for NetworkPolicy. Each has two namespaces, `x` and
//! `y`, with the pods `a`, `b` and `c`, and all run at once on one node.

#![allow(clippy::unwrap_used, reason = "a test that cannot set up its world has failed")]

use std::net::IpAddr;
use std::pin::Pin;

use anyhow::{Context, Result};
use futures::future::join_all;
use integration::node::Node;
use integration::scene::{pod, policy};
use lab::isolated;

const PODS: [&str; 6] = ["x/a", "x/b", "x/c", "y/a", "y/b", "y/c"];
const PORTS: &str = "{name: serve-80, containerPort: 80}, {name: serve-81, containerPort: 81}, \
     {name: serve-80-udp, containerPort: 80, protocol: UDP}";

type Running<'a> = Pin<Box<dyn Future<Output = Result<()>> + 'a>>;

/// A case and its name, which its namespaces begin with.
type NamedCase = (&'static str, fn(Case<'_>) -> Running<'_>);

const CASES: [NamedCase; 18] = [
    ("deny", |case| Box::pin(deny(case))),
    ("deny-both", |case| Box::pin(deny_both(case))),
    ("allow-all", |case| Box::pin(allow_all(case))),
    ("pods", |case| Box::pin(pods(case))),
    ("namespaces", |case| Box::pin(namespaces(case))),
    ("and-or", |case| Box::pin(and_or(case))),
    ("not-self", |case| Box::pin(not_self(case))),
    ("update", |case| Box::pin(update(case))),
    ("ns-label", |case| Box::pin(ns_label(case))),
    ("pod-label", |case| Box::pin(pod_label(case))),
    ("stacked", |case| Box::pin(stacked(case))),
    ("deleted", |case| Box::pin(deleted(case))),
    ("blocks", |case| Box::pin(blocks(case))),
    ("names", |case| Box::pin(names(case))),
    ("ranges", |case| Box::pin(ranges(case))),
    ("egress", |case| Box::pin(egress(case))),
    ("protocols", |case| Box::pin(protocols(case))),
    ("late", |case| Box::pin(late(case))),
];

/// A case at work.
struct Case<'a> {
    node: &'a Node,
    name: &'static str,
    /// Its place in the list, which its addresses show.
    number: usize,
}

fn addresses(case: usize, pod: usize) -> [IpAddr; 2] {
    let (v4, v6) = (format!("10.244.{case}.{}", pod + 10), format!("fd00:244:{case}::{:x}", pod + 10));
    [v4.parse().unwrap(), v6.parse().unwrap()]
}

impl Case<'_> {
    /// `x/a` is `<case>-x/a`.
    fn full(&self, text: &str) -> String {
        let words = text.split(' ').map(|word| match word.split_once('/') {
            Some(("x" | "y", _)) => format!("{}-{word}", self.name),
            _ => word.to_owned(),
        });
        words.collect::<Vec<_>>().join(" ")
    }

    /// Creates or changes a policy. In its text `$x` and `$y` are the names of the namespaces, `$v4` and `$v6` the first
    /// parts of the addresses.
    async fn policy(&self, name: &str, spec: &str) -> Result<()> {
        let namespace = |letter| format!("{}-{letter}", self.name);
        let spec = spec.replace("$x", &namespace('x')).replace("$y", &namespace('y'));
        let spec = spec.replace("$v4", &format!("10.244.{}", self.number));
        let spec = spec.replace("$v6", &format!("fd00:244:{}:", self.number));
        self.node.api.apply(&policy(&self.full(name), &spec)).await
    }

    async fn delete(&self, name: &str) -> Result<()> {
        let name = self.full(name);
        let (namespace, name) = name.split_once('/').context("a policy is called namespace/name")?;
        self.node.api.delete_policy(namespace, name).await
    }

    async fn label_pod(&self, name: &str, label: &str, value: Option<&str>) -> Result<()> {
        let name = self.full(name);
        let (namespace, name) = name.split_once('/').context("a pod is called namespace/name")?;
        self.node.api.label_pod(namespace, name, &[(label, value)]).await
    }

    async fn label_namespace(&self, letter: &str, label: &str, value: Option<&str>) -> Result<()> {
        self.node.api.label_namespace(&format!("{}-{letter}", self.name), &[(label, value)]).await
    }

    /// Waits until packets do as the lines say.
    async fn until(&self, lines: &[&str]) -> Result<()> {
        let lines: Vec<String> = lines.iter().map(|line| self.full(line)).collect();
        self.node.until(&lines.iter().map(String::as_str).collect::<Vec<_>>()).await
    }
}

const DENY_INGRESS: &str = "{podSelector: {}, policyTypes: [Ingress]}";

async fn deny(case: Case<'_>) -> Result<()> {
    case.policy("x/deny", DENY_INGRESS).await?;
    case.until(&[
        "x/b -> x/a 80/TCP: refused",
        "y/a -> x/a 80/TCP: refused",
        "y/a -> x/a ICMP: refused",
        "x/a -> y/a 80/TCP: allowed",
    ])
    .await
}

async fn deny_both(case: Case<'_>) -> Result<()> {
    case.policy("x/deny", "{podSelector: {}, policyTypes: [Ingress, Egress]}").await?;
    let lines = ["x/b -> x/a 80/TCP: refused", "x/a -> y/a 80/TCP: refused", "y/a -> x/a 80/TCP: refused"];
    case.until(&[&lines[..], &["y/a -> y/b 80/TCP: allowed", "x/a -> x/a 80/TCP: allowed"]].concat()).await?;
    // Either direction opens by itself.
    case.policy("x/egress", "{podSelector: {}, policyTypes: [Egress], egress: [{}]}").await?;
    case.until(&["x/a -> y/a 80/TCP: allowed", "y/a -> x/a 80/TCP: refused"]).await
}

async fn allow_all(case: Case<'_>) -> Result<()> {
    case.policy("x/deny", DENY_INGRESS).await?;
    case.until(&["y/a -> x/a 80/TCP: refused"]).await?;
    case.policy("x/allow", "{podSelector: {}, ingress: [{}]}").await?;
    case.until(&["y/a -> x/a 80/TCP: allowed", "y/b -> x/b ICMP: allowed", "x/c -> x/b 81/UDP: allowed"]).await
}

async fn pods(case: Case<'_>) -> Result<()> {
    let only_b = "{podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{podSelector: {matchLabels: {pod: b}}}]}]}";
    case.policy("x/only-b", only_b).await?;
    case.until(&[
        "x/b -> x/a 80/TCP: allowed",
        "x/c -> x/a 80/TCP: refused",
        // A selector of pods alone means the policy's own namespace.
        "y/b -> x/a 80/TCP: refused",
        "y/b -> x/b 80/TCP: allowed",
    ])
    .await?;
    let expression = "{podSelector: {matchExpressions: [{key: pod, operator: In, values: [a]}]}, ingress: [{from: [
         {podSelector: {matchExpressions: [{key: pod, operator: NotIn, values: [b]}]}}]}]}";
    case.policy("x/only-b", expression).await?;
    case.until(&["x/b -> x/a 80/TCP: refused", "x/c -> x/a 80/TCP: allowed", "y/c -> x/a 80/TCP: refused"]).await
}

async fn namespaces(case: Case<'_>) -> Result<()> {
    let from_y =
        "{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: $y}}}]}]}";
    case.policy("x/from-y", from_y).await?;
    case.until(&["y/a -> x/a 80/TCP: allowed", "y/c -> x/b 81/UDP: allowed", "x/b -> x/a 80/TCP: refused"]).await
}

async fn and_or(case: Case<'_>) -> Result<()> {
    let both = "{podSelector: {matchLabels: {pod: a}}, ingress: [{from: [
         {namespaceSelector: {matchLabels: {ns: $y}}, podSelector: {matchLabels: {pod: b}}}]}]}";
    case.policy("x/peers", both).await?;
    let and = ["y/b -> x/a 80/TCP: allowed", "y/a -> x/a 80/TCP: refused", "x/b -> x/a 80/TCP: refused"];
    case.until(&and).await?;
    let either = both.replace(", podSelector: {matchLabels: {pod: b}}}", "}, {podSelector: {matchLabels: {pod: b}}}");
    case.policy("x/peers", &either).await?;
    let or = ["y/b -> x/a 80/TCP: allowed", "y/a -> x/a 80/TCP: allowed", "x/b -> x/a 80/TCP: allowed"];
    case.until(&[&or[..], &["x/c -> x/a 80/TCP: refused"]].concat()).await
}

async fn not_self(case: Case<'_>) -> Result<()> {
    let others = "{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchExpressions: [
         {key: ns, operator: NotIn, values: [$x]}]}}]}]}";
    case.policy("x/not-self", others).await?;
    case.until(&["x/b -> x/a 80/TCP: refused", "y/b -> x/a 80/TCP: allowed"]).await
}

async fn update(case: Case<'_>) -> Result<()> {
    let from = |pod: &str, port: u16| {
        format!(
            "{{podSelector: {{matchLabels: {{pod: a}}}}, ingress: [{{from: [{{podSelector: {{matchLabels: {{pod: {pod}}}}}}}], ports: [{{port: {port}}}]}}]}}"
        )
    };
    case.policy("x/web", &from("b", 80)).await?;
    case.until(&["x/b -> x/a 80/TCP: allowed", "x/c -> x/a 80/TCP: refused"]).await?;
    case.policy("x/web", &from("c", 80)).await?;
    case.until(&["x/b -> x/a 80/TCP: refused", "x/c -> x/a 80/TCP: allowed"]).await?;
    case.policy("x/web", &from("c", 81)).await?;
    case.until(&["x/c -> x/a 80/TCP: refused", "x/c -> x/a 81/TCP: allowed"]).await?;
    case.policy("x/web", "{podSelector: {matchLabels: {pod: a}}, policyTypes: [Egress]}").await?;
    case.until(&["x/b -> x/a 80/TCP: allowed", "x/a -> x/b 80/TCP: refused"]).await
}

async fn ns_label(case: Case<'_>) -> Result<()> {
    let from = "{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {friend: $x}}}]}]}";
    case.policy("x/friends", from).await?;
    let me = format!("{}-x", case.name);
    case.until(&["y/a -> x/a 80/TCP: refused"]).await?;
    case.label_namespace("y", "friend", Some(&me)).await?;
    case.until(&["y/a -> x/a 80/TCP: allowed"]).await?;
    case.label_namespace("y", "friend", None).await?;
    case.until(&["y/a -> x/a 80/TCP: refused"]).await
}

async fn pod_label(case: Case<'_>) -> Result<()> {
    let spec = "{podSelector: {matchLabels: {closed: 'yes'}}, ingress: [{from: [{podSelector: {matchLabels: {friend: 'yes'}}}]}]}";
    case.policy("x/closed", spec).await?;
    case.until(&["x/b -> x/a 80/TCP: allowed"]).await?;
    // Into isolation, into the peers, out of the peers, out of isolation.
    case.label_pod("x/a", "closed", Some("yes")).await?;
    case.until(&["x/b -> x/a 80/TCP: refused"]).await?;
    case.label_pod("x/b", "friend", Some("yes")).await?;
    case.until(&["x/b -> x/a 80/TCP: allowed", "x/c -> x/a 80/TCP: refused"]).await?;
    case.label_pod("x/b", "friend", Some("no")).await?;
    case.until(&["x/b -> x/a 80/TCP: refused"]).await?;
    case.label_pod("x/a", "closed", None).await?;
    case.until(&["x/b -> x/a 80/TCP: allowed", "y/b -> x/a 80/TCP: allowed"]).await
}

async fn stacked(case: Case<'_>) -> Result<()> {
    let on =
        |port: u16| format!("{{podSelector: {{matchLabels: {{pod: a}}}}, ingress: [{{ports: [{{port: {port}}}]}}]}}");
    case.policy("x/first", &on(80)).await?;
    case.until(&["y/b -> x/a 80/TCP: allowed", "y/b -> x/a 81/TCP: refused"]).await?;
    case.policy("x/second", &on(81)).await?;
    case.until(&["y/b -> x/a 80/TCP: allowed", "y/b -> x/a 81/TCP: allowed", "y/b -> x/a 82/TCP: refused"]).await?;
    // The sender's own rules count as well.
    case.policy("y/egress", "{podSelector: {}, policyTypes: [Egress], egress: [{ports: [{port: 81}]}]}").await?;
    case.until(&["y/b -> x/a 80/TCP: refused", "y/b -> x/a 81/TCP: allowed"]).await
}

async fn deleted(case: Case<'_>) -> Result<()> {
    case.policy("x/deny", DENY_INGRESS).await?;
    case.policy("x/some", "{podSelector: {matchLabels: {pod: a}}, ingress: [{ports: [{port: 80}]}]}").await?;
    case.until(&["y/a -> x/a 80/TCP: allowed", "y/a -> x/a 81/TCP: refused"]).await?;
    case.delete("x/some").await?;
    case.until(&["y/a -> x/a 80/TCP: refused"]).await?;
    case.delete("x/deny").await?;
    case.until(&["y/a -> x/a 80/TCP: allowed", "y/a -> x/a 81/TCP: allowed"]).await
}

async fn blocks(case: Case<'_>) -> Result<()> {
    // The pods of x end in 10 to 12, those of y in 13 to 15.
    let except = "{podSelector: {matchLabels: {pod: a}}, policyTypes: [Egress], egress: [{to: [
         {ipBlock: {cidr: $v4.0/24, except: [$v4.13/32]}}, {ipBlock: {cidr: '$v6:/64', except: ['$v6:d/128']}}]}]}";
    case.policy("x/block", except).await?;
    case.until(&["x/a -> y/b 80/TCP: allowed", "x/a -> y/a 80/TCP: refused", "x/b -> y/a 80/TCP: allowed"]).await?;
    // What one policy excepts another may allow.
    let also = "{podSelector: {matchLabels: {pod: a}}, policyTypes: [Egress], egress: [{to: [
         {ipBlock: {cidr: $v4.13/32}}, {ipBlock: {cidr: '$v6:d/128'}}], ports: [{port: 80}]}]}";
    case.policy("x/also", also).await?;
    case.until(&["x/a -> y/a 80/TCP: allowed", "x/a -> y/a 81/TCP: refused"]).await?;
    let ingress = "{podSelector: {matchLabels: {pod: c}}, ingress: [{from: [
         {ipBlock: {cidr: $v4.14/31}}, {ipBlock: {cidr: '$v6:e/127'}}]}]}";
    case.policy("y/ingress", ingress).await?;
    case.until(&["y/b -> y/c 80/TCP: allowed", "y/a -> y/c 80/TCP: refused", "x/a -> y/c 80/TCP: refused"]).await
}

async fn names(case: Case<'_>) -> Result<()> {
    case.policy("x/named", "{podSelector: {matchLabels: {pod: a}}, ingress: [{ports: [{port: serve-81}]}]}").await?;
    case.until(&["y/a -> x/a 81/TCP: allowed", "y/a -> x/a 80/TCP: refused"]).await?;
    let udp = "{podSelector: {matchLabels: {pod: a}}, ingress: [{ports: [{port: serve-80-udp, protocol: UDP}]}]}";
    case.policy("x/named", udp).await?;
    case.until(&["y/a -> x/a 80/UDP: allowed", "y/a -> x/a 80/TCP: refused", "y/a -> x/a 81/TCP: refused"]).await?;
    let egress = "{podSelector: {}, policyTypes: [Egress], egress: [{ports: [{port: serve-80}]}]}";
    case.policy("y/egress", egress).await?;
    case.until(&["y/b -> x/b 80/TCP: allowed", "y/b -> x/b 81/TCP: refused", "y/b -> x/b 80/UDP: refused"]).await
}

async fn ranges(case: Case<'_>) -> Result<()> {
    let range = "{podSelector: {}, ingress: [{ports: [{port: 1000, endPort: 1010}]}]}";
    case.policy("x/range", range).await?;
    case.until(&[
        "y/a -> x/a 999/TCP: refused",
        "y/a -> x/a 1000/TCP: allowed",
        "y/a -> x/a 1010/TCP: allowed",
        "y/a -> x/a 1011/TCP: refused",
    ])
    .await
}

async fn egress(case: Case<'_>) -> Result<()> {
    let to_y = "{podSelector: {matchLabels: {pod: a}}, policyTypes: [Egress],
         egress: [{to: [{namespaceSelector: {matchLabels: {ns: $y}}}], ports: [{port: 80}]}]}";
    case.policy("x/to-y", to_y).await?;
    case.until(&[
        "x/a -> y/a 80/TCP: allowed",
        "x/a -> y/a 81/TCP: refused",
        "x/a -> x/b 80/TCP: refused",
        "x/b -> x/a 80/TCP: allowed",
    ])
    .await?;
    // Both ends have to allow it.
    case.policy("y/deny", DENY_INGRESS).await?;
    case.until(&["x/a -> y/a 80/TCP: refused"]).await?;
    let from_x =
        "{podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{namespaceSelector: {matchLabels: {ns: $x}}}]}]}";
    case.policy("y/from-x", from_x).await?;
    case.until(&["x/a -> y/a 80/TCP: allowed", "x/a -> y/b 80/TCP: refused"]).await
}

async fn protocols(case: Case<'_>) -> Result<()> {
    let only =
        |protocol: &str| format!("{{podSelector: {{}}, ingress: [{{ports: [{{protocol: {protocol}, port: 80}}]}}]}}");
    for (protocol, others) in [("SCTP", ["TCP", "UDP"]), ("UDP", ["TCP", "SCTP"]), ("TCP", ["UDP", "SCTP"])] {
        case.policy("x/only", &only(protocol)).await?;
        let mut lines =
            vec![format!("y/a -> x/a 80/{protocol}: allowed"), format!("y/a -> x/a 81/{protocol}: refused")];
        lines.extend(others.map(|other| format!("y/a -> x/a 80/{other}: refused")));
        case.until(&lines.iter().map(String::as_str).collect::<Vec<_>>()).await?;
    }
    Ok(())
}

async fn late(case: Case<'_>) -> Result<()> {
    let spec = "{podSelector: {matchLabels: {role: server}}, ingress: [{from: [{namespaceSelector: {}, podSelector: {matchLabels: {role: client}}}]}]}";
    case.policy("x/server", spec).await?;
    // Pods of the names a and b end; others with their addresses come when the policy is there already.
    for (name, role) in [("x/a", "server"), ("y/a", "client")] {
        let full = case.full(name);
        let (namespace, name) = full.split_once('/').context("a pod is called namespace/name")?;
        case.node.api.delete_pod(namespace, name).await?;
        case.node.api.apply(&pod(&full, "node-1", &format!("role: {role}"), "")).await?;
        case.node.report(&full).await?;
    }
    case.until(&["y/a -> x/a 80/TCP: allowed", "y/b -> x/a 80/TCP: refused", "x/b -> x/a 80/TCP: refused"]).await?;
    // A finished client is nobody's peer any more.
    let client = case.full("y/a");
    let (namespace, name) = client.split_once('/').context("a pod is called namespace/name")?;
    case.node.api.finish_pod(namespace, name).await?;
    case.until(&["y/a -> x/a 80/TCP: refused"]).await
}

/// Makes the namespaces and pods of all cases.
async fn populate(node: &mut Node) -> Result<()> {
    let mut objects = String::new();
    for (case, _) in CASES {
        for letter in ["x", "y"] {
            let name = format!("{case}-{letter}");
            objects +=
                &format!("---\napiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}, labels: {{ns: {name}}}}}\n");
        }
        for pod_name in PODS {
            let (_, label) = pod_name.split_once('/').context("a pod is called namespace/name")?;
            objects += &pod(&format!("{case}-{pod_name}"), "node-1", &format!("pod: {label}"), PORTS);
        }
    }
    node.api.apply(&objects).await?;
    for (number, (case, _)) in CASES.iter().enumerate() {
        for (index, pod_name) in PODS.iter().enumerate() {
            node.attach(&format!("{case}-{pod_name}"), &addresses(number, index)).await?;
        }
    }
    let names = CASES.iter().flat_map(|(case, _)| PODS.map(|pod_name| format!("{case}-{pod_name}")));
    let node = &*node;
    join_all(names.map(|name| async move { node.report(&name).await })).await.into_iter().collect()
}

#[test]
fn what_the_api_is_told_shows_in_packets() {
    isolated(async {
        let test = async |mut node: Node| {
            populate(&mut node).await.unwrap();
            let cases = CASES.iter().enumerate().map(|(number, (name, run))| run(Case { node: &node, name, number }));
            let results = join_all(cases).await;
            let wrong = CASES.iter().zip(results).filter_map(|((name, _), result)| Some((name, result.err()?)));
            let wrong: Vec<String> = wrong.map(|(name, error)| format!("{name}: {error:?}")).collect();
            assert!(wrong.is_empty(), "{}\n{}", wrong.join("\n"), node.agent.log().unwrap());
        };
        Node::run(test).await.unwrap();
    });
}
