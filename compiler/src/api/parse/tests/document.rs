//! Documents: kinds, lists and names.

use serde_json::{Value, json};

use super::{parse_one, texts};
use crate::api::{Item, Object, parse};

/// Each item of a document in a line.
fn lines(document: &Value) -> Vec<String> {
    let line = |item: &Item| match item {
        Item::Object { parsed, .. } => parsed.value.reference().to_string(),
        Item::Workload(workload) => format!("workload {}", workload.value.key),
        Item::Skipped(skipped) => skipped.to_string(),
        Item::Invalid(invalid) => format!("invalid: {invalid}"),
    };
    parse(&document.into(), "nameless").iter().map(line).collect()
}

#[test]
fn kinds() {
    let named = |api_version: &str, kind: &str| {
        lines(&json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": "x", "namespace": "prod"}}))
    };
    assert_eq!(named("v1", "Pod"), ["Pod prod/x"]);
    assert_eq!(named("v1", "Service"), ["Service prod/x"]);
    assert_eq!(named("v1", "Namespace"), ["Namespace x"]);
    assert_eq!(named("v1", "Node"), ["Node x"]);
    assert_eq!(named("networking.k8s.io/v1", "NetworkPolicy"), ["NetworkPolicy prod/x"]);
    assert_eq!(named("extensions/v1beta1", "NetworkPolicy"), ["NetworkPolicy prod/x"]);
    assert_eq!(named("networking.k8s.io/v1beta1", "NetworkPolicy"), ["NetworkPolicy prod/x"]);
    let skipped = "not of a kind that policies are about, skipped";
    assert_eq!(named("v1", "ConfigMap"), [format!("ConfigMap x (v1): {skipped}")]);
    for (api_version, kind) in [
        ("apps/v1", "Deployment"),
        ("extensions/v1beta1", "DaemonSet"),
        ("batch/v1", "CronJob"),
        ("v1", "ReplicationController"),
    ] {
        assert_eq!(named(api_version, kind), [format!("workload {kind} prod/x")]);
    }
    assert_eq!(
        named("batch.volcano.sh/v1alpha1", "Job"),
        [format!("Job x (batch.volcano.sh/v1alpha1): {skipped}; its Pods are not made from it")]
    );
    assert_eq!(lines(&json!({"apiVersion": "v1", "kind": "Secret"})), [format!("Secret (v1): {skipped}")]);
}

#[test]
fn what_is_no_object() {
    for (document, told) in [
        (json!("text"), "invalid: is not an object"),
        (json!([]), "invalid: is not an object"),
        (json!({}), "invalid: has no kind"),
        (json!({"kind": ""}), "invalid: has no kind"),
        (json!({"kind": 1, "apiVersion": "v1"}), "invalid: has no kind"),
        (json!({"kind": "Pod"}), "invalid: has no apiVersion"),
        (json!({"kind": "List", "apiVersion": "v1", "items": 1}), "invalid: has items that are not a list"),
    ] {
        assert_eq!(lines(&document), [told], "{document}");
    }
}

#[test]
fn lists() {
    let pod = |name: &str| json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}});
    assert_eq!(
        lines(&json!({"apiVersion": "v1", "kind": "List", "items": [
            pod("a"), {"apiVersion": "v1", "kind": "List", "items": [pod("b"), 7]}, pod("c"), {"kind": "Pod"},
        ]})),
        [
            "Pod default/a",
            "Pod default/b",
            "invalid: items[1].items[1]: is not an object",
            "Pod default/c",
            "invalid: items[3]: has no apiVersion",
        ]
    );
    assert_eq!(
        lines(&json!({"apiVersion": "v1", "kind": "PodList", "items": [{"metadata": {"name": "a"}}]})),
        ["Pod default/a"]
    );
    assert_eq!(
        lines(&json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicyList", "items": [
            {"metadata": {"name": "a"}, "spec": {}},
        ]})),
        ["NetworkPolicy default/a"]
    );
    assert_eq!(lines(&json!({"apiVersion": "v1", "kind": "List"})), Vec::<String>::new());
    let nameless =
        json!({"apiVersion": "v1", "kind": "List", "items": [pod("a"), {"apiVersion": "v1", "kind": "Pod"}]});
    assert_eq!(lines(&nameless), ["Pod default/a", "Pod default/nameless.items-1--c0b2cf00"]);
}

#[test]
fn names() {
    let long = "a".repeat(254);
    let policy = |metadata: Value| {
        let object = json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata, "spec": {},
        });
        let parsed = parse_one(&object);
        let Object::NetworkPolicy(policy) = parsed.value else { panic!("{:?} is not a policy", parsed.value) };
        (policy.key.to_string(), parsed.findings.iter().map(ToString::to_string).collect::<Vec<_>>())
    };
    let (key, told) = policy(json!({"name": "a.b", "namespace": "prod"}));
    assert_eq!((key.as_str(), told), ("prod/a.b", vec![]));
    for (metadata, expected, told) in [
        (json!(null), "default/nameless", vec!["default/nameless: metadata: is missing"]),
        (json!("x"), "default/nameless", vec!["default/nameless: metadata: is not an object"]),
        (json!({}), "default/nameless", vec!["default/nameless: metadata.name: is missing"]),
        (
            json!({"name": "", "namespace": ""}),
            "default/nameless",
            vec!["default/nameless: metadata.name: \"\" is not a name (lower-case letters, digits, '-' and '.')"],
        ),
        (
            json!({"name": 7, "namespace": 8}),
            "default/nameless",
            vec![
                "default/nameless: metadata.name: a number where a string is due; quote it",
                "default/nameless: metadata.namespace: a number where a string is due; quote it",
                "default/nameless: metadata.namespace: it is taken for default",
            ],
        ),
        (
            json!({"name": "A\"; drop", "namespace": "b.c"}),
            "b-c-b476cc5a/----drop-fb2626aa",
            vec![
                "b.c/A\"; drop: metadata.name: \"A\\\"; drop\" is not a name (lower-case letters, digits, '-' and '.')",
                "b.c/A\"; drop: metadata.namespace: \"b.c\" is not the name of a namespace (lower-case letters, digits \
                 and '-')",
            ],
        ),
    ] {
        let (key, findings) = policy(metadata);
        assert_eq!(key, expected);
        assert_eq!(findings, told.iter().map(|text| format!("NetworkPolicy {text}")).collect::<Vec<_>>());
    }
    let (key, told) = policy(json!({"name": long}));
    assert_eq!(key.len(), "default/".len() + 253);
    assert!(told[0].ends_with("... (254 bytes) is not a name (lower-case letters, digits, '-' and '.')"), "{told:?}");
}

#[test]
fn illegal_names_stay_apart() {
    let keys: std::collections::BTreeSet<String> = ["a_b", "a b", "A-b", "a-b", "a\u{1b}b"]
        .iter()
        .map(|name| {
            let items =
                lines(&json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": name}}));
            items[0].clone()
        })
        .collect();
    assert_eq!(keys.len(), 5, "{keys:?}");
    assert!(keys.contains("Pod a-b/a-b"), "{keys:?}");
}

#[test]
fn findings_of_one_object_have_an_end_and_no_control_characters() {
    let labels: serde_json::Map<String, Value> = (0..1000).map(|i| (format!("\u{1b}[2J{i:03}"), json!("x"))).collect();
    let parsed = parse_one(&json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a\nb", "labels": labels}}));
    assert_eq!(parsed.findings.len(), 21);
    assert_eq!(parsed.findings[20].to_string(), "Pod default/a\\nb: and 981 more");
    let texts = parsed.findings.iter().map(ToString::to_string).collect::<String>();
    assert!(!texts.chars().any(char::is_control), "{texts:?}");
}

#[test]
fn depth_and_length_do_no_harm() {
    let mut deep = json!({"matchLabels": {}});
    for _ in 0..120 {
        deep = json!({"podSelector": deep});
    }
    let parsed = parse_one(&json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": deep, "spec": deep, "status": {"podIPs": deep},
    }));
    assert_eq!(
        texts(&parsed.findings, "Pod default/nameless: "),
        ["metadata.name: is missing", "status.podIPs: an object where a list is due"]
    );
    let mut list = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "deep"}});
    // Far deeper than the readers go.
    for _ in 0..500 {
        let mut outer = json!({"apiVersion": "v1", "kind": "List"});
        outer["items"] = Value::Array(vec![list]);
        list = outer;
    }
    assert_eq!(lines(&list), ["Pod default/deep"]);
    let key = "k ".repeat(1 << 20);
    let parsed = parse_one(&json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "x"},
        "spec": {"podSelector": {"matchLabels": {key.clone(): key}}},
    }));
    assert!(parsed.findings.iter().all(|finding| finding.to_string().len() < 1_000), "a finding fits a line or two");
    assert_eq!(parsed.findings.len(), 3);
}
