//! `networking.k8s.io/v1`

use serde_json::json;

use super::{check, show, texts};
use crate::api::parse_network_policy;

const NOTHING: &[&str] = &[];

#[test]
fn policy_types_have_defaults() {
    let rule = json!([{}]);
    check(&[
        ("nothing said", json!({}), &["*", "ingress:"], NOTHING),
        ("null and empty", json!({"podSelector": null, "policyTypes": []}), &["*", "ingress:"], NOTHING),
        ("empty egress", json!({"egress": []}), &["*", "ingress:"], NOTHING),
        (
            "egress rules also isolate for ingress",
            json!({"egress": rule}),
            &["*", "ingress:", "egress: 0 peers any ports any"],
            NOTHING,
        ),
        ("egress only", json!({"policyTypes": ["Egress"]}), &["*", "egress:"], NOTHING),
        (
            "rules of a direction that is left out have no effect",
            json!({"policyTypes": ["Egress"], "ingress": rule}),
            &["*", "egress:"],
            NOTHING,
        ),
        (
            "both",
            json!({"policyTypes": ["Egress", "Ingress"], "ingress": rule, "egress": []}),
            &["*", "ingress: 0 peers any ports any", "egress:"],
            NOTHING,
        ),
        (
            "an unknown type",
            json!({"policyTypes": ["ingress"]}),
            &["*", "ingress:", "egress:"],
            &["spec.policyTypes[0]: \"ingress\" is not a policy type (Ingress, Egress); the policy isolates in both \
               directions, and allows nothing in one that is not listed"],
        ),
        (
            "rules of a direction that may not have been meant",
            json!({"policyTypes": ["Ingress", "egres"], "ingress": rule, "egress": rule}),
            &["*", "ingress: 0 peers any ports any", "egress: 0 peers nobody ports none"],
            &["spec.policyTypes[1]: \"egres\" is not a policy type (Ingress, Egress); the policy isolates in both \
               directions, and allows nothing in one that is not listed"],
        ),
        (
            "what is broken in rules without effect is told",
            json!({"policyTypes": ["Egress"], "ingress": [{"ports": [{"port": 70000}]}]}),
            &["*", "egress:"],
            &["spec.ingress[0].ports[0].port: 70000 is not a port (1 to 65535); the entry matches nothing"],
        ),
        (
            "a type that is no string",
            json!({"policyTypes": [1]}),
            &["*", "ingress:", "egress:"],
            &[
                "spec.policyTypes[0]: a number where a string is due; quote it",
                "spec.policyTypes[0]: the policy isolates in both directions, and allows nothing in one that is not listed",
            ],
        ),
        (
            "no list",
            json!({"policyTypes": "Ingress"}),
            &["*", "ingress:", "egress:"],
            &[
                "spec.policyTypes: a string where a list is due",
                "spec.policyTypes: the policy isolates in both directions, and allows nothing in one that is not listed",
            ],
        ),
        (
            "more types than there are",
            json!({"policyTypes": ["Ingress", "Ingress", "Ingress"]}),
            &["*", "ingress:"],
            &["spec.policyTypes: 3 entries, and there are two types (Ingress, Egress)"],
        ),
    ]);
}

#[test]
fn rules_that_list_nothing_match_everything() {
    let any: &[&str] = &["*", "ingress: 0 peers any ports any"];
    check(&[
        ("empty rule", json!({"ingress": [{}]}), any, NOTHING),
        ("nulls", json!({"ingress": [{"from": null, "ports": null}]}), any, NOTHING),
        ("empty lists", json!({"ingress": [{"from": [], "ports": []}]}), any, NOTHING),
        (
            "an empty port entry is every TCP port",
            json!({"ingress": [{"ports": [{}]}]}),
            &["*", "ingress: 0 peers any ports TCP *"],
            NOTHING,
        ),
        (
            "a protocol only",
            json!({"egress": [{"ports": [{"protocol": "UDP"}, {"protocol": "SCTP", "port": null}]}]}),
            &["*", "ingress:", "egress: 0 peers any ports UDP * | SCTP *"],
            NOTHING,
        ),
    ]);
}

#[test]
fn ports() {
    check(&[(
        "whole ones",
        json!({"ingress": [{"ports": [
            {"port": 1}, {"protocol": "UDP", "port": 65535}, {"port": "http"}, {"port": 80, "endPort": 80},
            {"protocol": "SCTP", "port": 1000, "endPort": 2000},
        ]}]}),
        &["*", "ingress: 0 peers any ports TCP 1 | UDP 65535 | TCP http | TCP 80 | SCTP 1000-2000"],
        NOTHING,
    )]);
    let broken = [
        (json!({"port": 0}), "port: 0 is not a port (1 to 65535); the entry matches nothing"),
        (json!({"port": 70000}), "port: 70000 is not a port (1 to 65535); the entry matches nothing"),
        (json!({"port": -1}), "port: -1 is not a port (1 to 65535); the entry matches nothing"),
        (json!({"port": 80.5}), "port: 80.5 is not a port (1 to 65535); the entry matches nothing"),
        (json!({"port": 1e30}), "port: 1e+30 is not a port (1 to 65535); the entry matches nothing"),
        (json!({"port": true}), "port: a boolean where a number or a name is due"),
        (
            json!({"port": "80"}),
            "port: \"80\" is not the name of a port (up to 15 lower-case letters, digits and single dashes, at least \
             one letter); the entry matches nothing",
        ),
        (json!({"port": 80, "endPort": 79}), "endPort: 79 is less than port 80; the entry matches nothing"),
        (json!({"port": 80, "endPort": 65536}), "endPort: 65536 is not a port (1 to 65535); the entry matches nothing"),
        (json!({"port": 80, "endPort": "http"}), "endPort: a string where a number is due"),
        (
            json!({"port": "http", "endPort": 90}),
            "endPort: cannot stand beside a name in port; the entry matches nothing",
        ),
        (json!({"endPort": 90}), "endPort: needs a number in port; the entry matches nothing"),
        (
            json!({"protocol": "tcp", "port": 80}),
            "protocol: \"tcp\" is not a protocol (TCP, UDP, SCTP); the entry matches nothing",
        ),
        (
            json!({"protocol": "ICMP"}),
            "protocol: \"ICMP\" is not a protocol (TCP, UDP, SCTP); the entry matches nothing",
        ),
        (json!({"protocol": 6}), "protocol: a number where a string is due; quote it"),
        (json!({"port": 80, "endport": 90}), "endport: is not a field of a port; the entry matches nothing"),
    ];
    for (entry, told) in broken {
        check(&[(
            told,
            json!({"ingress": [{"ports": [{"port": 22}, entry]}]}),
            &["*", "ingress: 0 peers any ports TCP 22"],
            &[&format!("spec.ingress[0].ports[1].{told}")],
        )]);
        check(&[(
            "alone, it leaves no port",
            json!({"ingress": [{"ports": [entry]}]}),
            &["*", "ingress: 0 peers any ports none"],
            &[&format!("spec.ingress[0].ports[0].{told}")],
        )]);
    }
    check(&[(
        "every broken field of an entry is told",
        json!({"ingress": [{"ports": [{"protocol": "tcp", "port": 0}]}]}),
        &["*", "ingress: 0 peers any ports none"],
        &[
            "spec.ingress[0].ports[0].protocol: \"tcp\" is not a protocol (TCP, UDP, SCTP); the entry matches nothing",
            "spec.ingress[0].ports[0].port: 0 is not a port (1 to 65535); the entry matches nothing",
        ],
    )]);
}

#[test]
fn peers() {
    let a = json!({"matchLabels": {"app": "a"}});
    let team = json!({"matchLabels": {"team": "t"}});
    check(&[
        (
            "either selector alone, and both together",
            json!({"ingress": [{"from": [
                {"podSelector": a}, {"namespaceSelector": team}, {"namespaceSelector": team, "podSelector": a},
                {"podSelector": {}}, {"namespaceSelector": {}}, {"namespaceSelector": {}, "podSelector": null},
            ]}]}),
            &[
                "*",
                "ingress: 0 peers default/app=a | {team=t}/* | {team=t}/app=a | default/* | {*}/* | {*}/* ports any",
            ],
            NOTHING,
        ),
        (
            "of egress they stand in to",
            json!({"policyTypes": ["Egress"], "egress": [{"to": [{"podSelector": a}]}]}),
            &["*", "egress: 0 peers default/app=a ports any"],
            NOTHING,
        ),
    ]);
    let broken = [
        (json!({}), ": needs a podSelector, a namespaceSelector or an ipBlock; the peer matches nothing"),
        (
            json!({"podSelector": null}),
            ": needs a podSelector, a namespaceSelector or an ipBlock; the peer matches nothing",
        ),
        (json!(null), ": needs a podSelector, a namespaceSelector or an ipBlock; the peer matches nothing"),
        (json!("web"), ": a string where an object is due"),
        (
            json!({"podSelector": {}, "ipBlock": {"cidr": "10.0.0.0/8"}}),
            ".ipBlock: cannot stand beside a selector; the peer matches nothing",
        ),
        (
            json!({"podSelecter": {}}),
            ".podSelecter: is not a field of a peer (podSelector, namespaceSelector, ipBlock); the peer matches nothing",
        ),
        (
            json!({"podSelector": {}, "namespaceselector": {}}),
            ".namespaceselector: is not a field of a peer (podSelector, namespaceSelector, ipBlock); the peer matches \
             nothing",
        ),
    ];
    for (entry, told) in broken {
        check(&[(
            told,
            json!({"ingress": [{"from": [{"podSelector": a}, entry]}]}),
            &["*", "ingress: 0 peers default/app=a ports any"],
            &[&format!("spec.ingress[0].from[1]{told}")],
        )]);
        check(&[(
            "alone, it leaves nobody",
            json!({"ingress": [{"from": [entry]}]}),
            &["*", "ingress: 0 peers nobody ports any"],
            &[&format!("spec.ingress[0].from[0]{told}")],
        )]);
    }
}

#[test]
fn ip_blocks() {
    check(&[
        (
            "whole ones",
            json!({"ingress": [{"from": [
                {"ipBlock": {"cidr": "172.17.0.0/16", "except": ["172.17.1.0/24", "172.17.2.0/32"]}},
                {"ipBlock": {"cidr": "0.0.0.0/0", "except": null}},
                {"ipBlock": {"cidr": "::/0", "except": []}},
                {"ipBlock": {"cidr": "FD00:0::/64", "except": ["fd00::1/128"]}},
            ]}]}),
            &[
                "*",
                "ingress: 0 peers 172.17.0.0/16 except 172.17.1.0/24,172.17.2.0/32 | 0.0.0.0/0 | ::/0 | fd00::/64 \
               except fd00::1/128 ports any",
            ],
            NOTHING,
        ),
        (
            "host bits are cut off",
            json!({"ingress": [{"from": [{"ipBlock": {"cidr": "10.244.1.7/16", "except": ["10.244.9.9/24"]}}]}]}),
            &["*", "ingress: 0 peers 10.244.0.0/16 except 10.244.9.0/24 ports any"],
            &[
                "spec.ingress[0].from[0].ipBlock.cidr: 10.244.1.7/16 has host bits; it is taken for 10.244.0.0/16",
                "spec.ingress[0].from[0].ipBlock.except[0]: 10.244.9.9/24 has host bits; it is taken for 10.244.9.0/24",
            ],
        ),
    ]);
    let not_a_cidr = |text: &str| format!("\"{text}\" is not a CIDR (such as 10.0.0.0/8 or fd00::/64)");
    let mut broken = vec![
        (json!({}), ".cidr: is missing".to_owned()),
        (json!({"cidr": 10}), ".cidr: a number where a string is due; quote it".to_owned()),
        (json!({"cidr": "10.0.0.0/8", "except": "10.1.0.0/16"}), ".except: a string where a list is due".to_owned()),
        (
            json!({"cidr": "::ffff:10.0.0.0/104"}),
            ".cidr: ::ffff:10.0.0.0/104 is an IPv4 network in IPv6 form; write it as IPv4".to_owned(),
        ),
        (
            json!({"cidr": "10.0.0.0/8", "excep": ["10.1.0.0/16"]}),
            ".excep: is not a field of an ipBlock (cidr, except)".to_owned(),
        ),
        (
            json!({"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16", "10.2"]}),
            format!(".except[1]: {}", not_a_cidr("10.2")),
        ),
    ];
    for text in [
        "",
        "10.0.0.1",
        "10.0.0.0/",
        "10.0.0.0/33",
        "10.0.0.0/-1",
        "10.0.0.0/+8",
        "10.0.0.0/08",
        "010.0.0.0/8",
        "10.0.0/8",
        "10.0.0.0/8/8",
        " 10.0.0.0/8",
        "fd00::/129",
        "fe80::1%eth0/64",
        "example.com/8",
    ] {
        broken.push((json!({"cidr": text}), format!(".cidr: {}", not_a_cidr(text))));
    }
    for (cidr, except) in [
        ("10.0.0.0/8", "11.0.0.0/8"),
        ("10.0.0.0/8", "10.0.0.0/8"),
        ("10.0.0.0/8", "0.0.0.0/0"),
        ("10.0.0.0/8", "fd00::/64"),
        ("fd00::/64", "10.0.0.0/8"),
        ("fd00::/64", "fd00::/63"),
    ] {
        let told = format!(".except[0]: {except} is not within {cidr}, as a part of it");
        broken.push((json!({"cidr": cidr, "except": [except]}), told));
    }
    for (block, told) in broken {
        check(&[(
            &told,
            json!({"ingress": [{"from": [{"podSelector": {}}, {"ipBlock": block}]}]}),
            &["*", "ingress: 0 peers default/* ports any"],
            &[
                &format!("spec.ingress[0].from[1].ipBlock{told}"),
                "spec.ingress[0].from[1].ipBlock: cannot be understood; the peer matches nothing",
            ],
        )]);
    }
}

#[test]
fn broken_rules_allow_nothing_and_the_others_stay() {
    let nothing = "peers nobody ports none";
    check(&[
        (
            "a misspelt field",
            json!({"ingress": [{"form": [{"podSelector": {}}]}, {"from": [{"podSelector": {}}]}]}),
            &["*", &format!("ingress: 0 {nothing}; 1 peers default/* ports any")],
            &["spec.ingress[0].form: is not a field of a rule (from, ports); the rule allows nothing"],
        ),
        (
            "the field of the other direction",
            json!({"policyTypes": ["Egress"], "egress": [{"from": []}]}),
            &["*", &format!("egress: 0 {nothing}")],
            &["spec.egress[0].from: is not a field of a rule (to, ports); the rule allows nothing"],
        ),
        (
            "not an object",
            json!({"ingress": ["{}", 1]}),
            &["*", &format!("ingress: 0 {nothing}; 1 {nothing}")],
            &["spec.ingress[0]: a string where an object is due", "spec.ingress[1]: a number where an object is due"],
        ),
        (
            "lists of another type",
            json!({"ingress": [{"from": {}, "ports": 80}]}),
            &["*", &format!("ingress: 0 {nothing}")],
            &[
                "spec.ingress[0].from: an object where a list is due",
                "spec.ingress[0].from: nothing matches it",
                "spec.ingress[0].ports: a number where a list is due",
                "spec.ingress[0].ports: nothing matches it",
            ],
        ),
        (
            "all rules",
            json!({"ingress": {}, "egress": "all"}),
            &["*", "ingress:", "egress:"],
            &[
                "spec.ingress: an object where a list is due",
                "spec.ingress: nothing is allowed by it",
                "spec.egress: a string where a list is due",
                "spec.egress: nothing is allowed by it",
            ],
        ),
    ]);
}

#[test]
fn a_broken_pod_selector_selects_more_and_allows_nothing() {
    let ingress = json!([{}]);
    check(&[
        (
            "a broken requirement is left out",
            json!({"podSelector": {"matchLabels": {"app": "a", "b c": "d"}}, "ingress": ingress}),
            &["app=a", "ingress: 0 peers nobody ports none"],
            &[
                "spec.podSelector.matchLabels.b c: \"b c\" is not a label key (up to 63 letters, digits, '-', '_' and \
                 '.', perhaps after a DNS name and '/')",
                "spec.podSelector: cannot be understood; the policy allows nothing to the pods that the rest of it \
                 selects",
            ],
        ),
        (
            "not an object",
            json!({"podSelector": "app=a", "ingress": ingress}),
            &["*", "ingress: 0 peers nobody ports none"],
            &[
                "spec.podSelector: a string where an object is due",
                "spec.podSelector: cannot be understood; the policy allows nothing to the pods that the rest of it \
                 selects",
            ],
        ),
        (
            "misspelt",
            json!({"podSelectors": {"matchLabels": {"app": "a"}}, "ingress": ingress}),
            &["*", "ingress: 0 peers nobody ports none"],
            &[
                "spec.podSelectors: is not a field of a NetworkPolicy's spec; it has no effect",
                "spec.podSelector: is missing beside a field that is not known; the policy selects all pods of its \
                 namespace and allows nothing",
            ],
        ),
        (
            "another field is misspelt",
            json!({"podSelector": {}, "policytypes": ["Egress"], "ingress": ingress}),
            &["*", "ingress: 0 peers any ports any"],
            &["spec.policytypes: is not a field of a NetworkPolicy's spec; it has no effect"],
        ),
    ]);
}

#[test]
fn a_spec_that_is_absent_is_one_without_fields() {
    for mut object in [json!({}), json!({"spec": null}), json!({"spec": {}})] {
        object["metadata"] = json!({"name": "x"});
        let parsed = parse_network_policy(&(&object).into());
        assert_eq!(show(&parsed.value), ["*", "ingress:"], "{object}");
        assert_eq!(parsed.findings, [], "{object}");
    }
}

#[test]
fn a_null_in_a_list_is_one_without_fields() {
    check(&[
        (
            "a rule, a port and a value",
            json!({"ingress": [null, {
                "from": [{"podSelector": {"matchExpressions": [{"key": "a", "operator": "In", "values": [null]}]}}],
                "ports": [null],
            }]}),
            &["*", "ingress: 0 peers any ports any; 1 peers default/a= ports TCP *"],
            NOTHING,
        ),
        (
            "a policy type, a peer, an expression and an exception that there cannot be",
            json!({"policyTypes": [null], "ingress": [{"from": [
                null, {"podSelector": {"matchExpressions": [null]}}, {"ipBlock": {"cidr": "10.0.0.0/8", "except": [null]}},
            ]}]}),
            &["*", "ingress: 0 peers nobody ports none", "egress:"],
            &[
                "spec.policyTypes[0]: \"\" is not a policy type (Ingress, Egress); the policy isolates in both directions, \
                 and allows nothing in one that is not listed",
                "spec.ingress[0].from[0]: needs a podSelector, a namespaceSelector or an ipBlock; the peer matches nothing",
                "spec.ingress[0].from[1].podSelector.matchExpressions[0].key: is missing",
                "spec.ingress[0].from[1].podSelector.matchExpressions[0].operator: is missing",
                "spec.ingress[0].from[1].podSelector: cannot be understood; the peer matches nothing",
                "spec.ingress[0].from[2].ipBlock.except[0]: \"\" is not a CIDR (such as 10.0.0.0/8 or fd00::/64)",
                "spec.ingress[0].from[2].ipBlock: cannot be understood; the peer matches nothing",
            ],
        ),
    ]);
}

#[test]
fn with_a_broken_spec_all_pods_are_isolated() {
    let isolated = "spec: all pods of the namespace are isolated in both directions, and nothing is allowed";
    for (object, told) in [
        (json!({"spec": []}), "spec: a list where an object is due"),
        (json!({"spec": "x"}), "spec: a string where an object is due"),
    ] {
        let mut object = object;
        object["metadata"] = json!({"name": "x", "namespace": "prod"});
        let parsed = parse_network_policy(&(&object).into());
        assert_eq!(show(&parsed.value), ["*", "ingress:", "egress:"], "{told}");
        assert_eq!(texts(&parsed.findings, "NetworkPolicy prod/x: "), [told, isolated]);
    }
    let parsed = parse_network_policy(&json!(7).into());
    assert_eq!(show(&parsed.value), ["*", "ingress:", "egress:"]);
    assert_eq!(
        texts(&parsed.findings, "NetworkPolicy default/unnamed: "),
        ["metadata: is missing", "a number where an object is due", isolated]
    );
}

#[test]
fn a_misspelt_spec_isolates_all_pods() {
    let parsed = parse_network_policy(&json!({"metadata": {"name": "x"}, "Spec": {"podSelector": {}}}).into());
    assert_eq!(show(&parsed.value), ["*", "ingress:", "egress:"]);
    assert_eq!(
        texts(&parsed.findings, "NetworkPolicy default/x: "),
        [
            "Spec: is not a field of a NetworkPolicy; it has no effect",
            "spec: is missing beside a field that is not known",
            "spec: all pods of the namespace are isolated in both directions, and nothing is allowed",
        ]
    );
}

#[test]
fn fields_beside_the_spec_do_not_matter() {
    let object = json!({
        "metadata": {"name": "x", "labels": {"a": "b"}, "managedFields": [{}], "finalizers": ["f"]},
        "spec": {"podSelector": {}}, "status": {}, "Spec": {},
    });
    let parsed = parse_network_policy(&object.into());
    assert_eq!(show(&parsed.value), ["*", "ingress:"]);
    assert_eq!(
        texts(&parsed.findings, "NetworkPolicy default/x: "),
        ["Spec: is not a field of a NetworkPolicy; it has no effect"]
    );
}
