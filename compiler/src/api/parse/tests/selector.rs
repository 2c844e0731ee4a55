//! Label selectors.

use serde_json::json;

use super::check;

const KEY: &str = "is not a label key (up to 63 letters, digits, '-', '_' and '.', perhaps after a DNS name and '/')";
const VALUE: &str = "is not a label value (up to 63 letters, digits, '-', '_' and '.')";

#[test]
fn whole_ones() {
    check(&[
        (
            "all operators beside labels",
            json!({"podSelector": {
                "matchLabels": {"app": "a", "empty": "", "none": null},
                "matchExpressions": [
                    {"key": "k1", "operator": "In", "values": ["b", "a", "a"]},
                    {"key": "k2", "operator": "NotIn", "values": ["c"]},
                    {"key": "example.com/K_3", "operator": "Exists"},
                    {"key": "k4", "operator": "DoesNotExist", "values": []},
                    {"key": "k5", "operator": "Exists", "values": null},
                ],
            }}),
            &["app=a,empty=,example.com/K_3,k1 in (a,b),k2!=c,!k4,k5,none=", "ingress:"],
            &[],
        ),
        ("nulls", json!({"podSelector": {"matchLabels": null, "matchExpressions": null}}), &["*", "ingress:"], &[]),
    ]);
}

#[test]
fn broken_ones() {
    let expression = |expression| json!({"matchExpressions": [expression]});
    let cases = [
        (json!([]), ": a list where an object is due".to_owned()),
        (
            json!({"matchLabel": {"app": "a"}}),
            ".matchLabel: is not a field of a selector (matchLabels, matchExpressions)".to_owned(),
        ),
        (json!({"matchLabels": "app=a"}), ".matchLabels: a string where an object is due".to_owned()),
        (json!({"matchLabels": {"v": 1}}), ".matchLabels.v: a number where a string is due; quote it".to_owned()),
        (json!({"matchLabels": {"on": true}}), ".matchLabels.on: a boolean where a string is due; quote it".to_owned()),
        (json!({"matchLabels": {"a": ["b"]}}), ".matchLabels.a: a list where a string is due".to_owned()),
        (json!({"matchLabels": {"-a": "b"}}), format!(".matchLabels.-a: \"-a\" {KEY}")),
        (json!({"matchLabels": {"a": "b c"}}), format!(".matchLabels.a: \"b c\" {VALUE}")),
        (json!({"matchLabels": {"": "b"}}), format!(".matchLabels.: \"\" {KEY}")),
        (json!({"matchExpressions": {}}), ".matchExpressions: an object where a list is due".to_owned()),
        (expression(json!("app")), ".matchExpressions[0]: a string where an object is due".to_owned()),
        (expression(json!({"operator": "Exists"})), ".matchExpressions[0].key: is missing".to_owned()),
        (expression(json!({"key": "a"})), ".matchExpressions[0].operator: is missing".to_owned()),
        (
            expression(json!({"key": 1, "operator": "Exists"})),
            ".matchExpressions[0].key: a number where a string is due; quote it".to_owned(),
        ),
        (
            expression(json!({"key": "a/b/c", "operator": "Exists"})),
            format!(".matchExpressions[0].key: \"a/b/c\" {KEY}"),
        ),
        (
            expression(json!({"key": "a", "operator": "in", "values": ["b"]})),
            ".matchExpressions[0].operator: \"in\" is not an operator (In, NotIn, Exists, DoesNotExist)".to_owned(),
        ),
        (
            expression(json!({"key": "a", "operator": "In"})),
            ".matchExpressions[0].values: In needs at least one value".to_owned(),
        ),
        (
            expression(json!({"key": "a", "operator": "NotIn", "values": []})),
            ".matchExpressions[0].values: NotIn needs at least one value".to_owned(),
        ),
        (
            expression(json!({"key": "a", "operator": "Exists", "values": ["b"]})),
            ".matchExpressions[0].values: Exists takes no values".to_owned(),
        ),
        (
            expression(json!({"key": "a", "operator": "DoesNotExist", "values": ["b"]})),
            ".matchExpressions[0].values: DoesNotExist takes no values".to_owned(),
        ),
        (
            expression(json!({"key": "a", "operator": "In", "values": "b"})),
            ".matchExpressions[0].values: a string where a list is due".to_owned(),
        ),
        (
            expression(json!({"key": "a", "operator": "In", "values": ["b", 2]})),
            ".matchExpressions[0].values[1]: a number where a string is due; quote it".to_owned(),
        ),
        (
            expression(json!({"key": "a", "operator": "In", "values": ["b/c"]})),
            format!(".matchExpressions[0].values[0]: \"b/c\" {VALUE}"),
        ),
        (
            expression(json!({"key": "a", "operator": "In", "values": ["b"], "value": "c"})),
            ".matchExpressions[0].value: is not a field of an expression (key, operator, values)".to_owned(),
        ),
    ];
    for (selector, told) in cases {
        for field in ["podSelector", "namespaceSelector"] {
            check(&[(
                "in a peer nothing matches",
                json!({"ingress": [{"from": [{field: selector}]}]}),
                &["*", "ingress: 0 peers nobody ports any"],
                &[
                    &format!("spec.ingress[0].from[0].{field}{told}"),
                    &format!("spec.ingress[0].from[0].{field}: cannot be understood; the peer matches nothing"),
                ],
            )]);
        }
        check(&[(
            "of the policy, what is whole selects",
            json!({"podSelector": selector, "policyTypes": ["Egress"], "egress": [{}]}),
            &["*", "egress: 0 peers nobody ports none"],
            &[
                &format!("spec.podSelector{told}"),
                "spec.podSelector: cannot be understood; the policy allows nothing to the pods that the rest of it \
                 selects",
            ],
        )]);
    }
}
