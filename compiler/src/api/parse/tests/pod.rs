//! Pods.

use serde_json::{Value, json};

use super::{parse_one, texts};
use crate::api::{Item, Object, Phase, Pod, PodUid, PodWire, Protocol, parse};

/// Reads a Pod `default/p` with these parts, and the findings as text.
#[track_caller]
fn pod(parts: &Value) -> (Pod, Vec<String>) {
    let mut object = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}});
    for (name, part) in parts.as_object().expect("parts are an object") {
        object[name] = part.clone();
    }
    let parsed = parse_one(&object);
    let from_bytes: PodWire = serde_json::from_slice(object.to_string().as_bytes()).unwrap();
    let Object::Pod(pod) = parsed.value else { panic!("{:?} is not a Pod", parsed.value) };
    let decoded = from_bytes.parse();
    assert_eq!((&decoded.value, &decoded.findings), (&pod, &parsed.findings), "bytes and values mean the same");
    let texts = texts(&parsed.findings, "Pod default/p: ");
    (pod, texts)
}

#[test]
fn a_whole_pod() {
    let (pod, told) = pod(&json!({
        "metadata": {
            "name": "p", "namespace": "default", "labels": {"app": "web", "empty": "", "none": null},
            "annotations": {"other": "x"}, "managedFields": [{"fieldsV1": {"f:metadata": {}}}],
            "creationTimestamp": "2026-11-23T09:08:31Z", "deletionTimestamp": "2026-11-23T10:00:00Z",
        },
        "spec": {
            "nodeName": "n1", "hostNetwork": true,
            "containers": [{"name": "c", "env": [{"name": "A", "value": "b"}], "ports": [
                {"name": "http", "containerPort": 80}, {"name": "dns", "containerPort": 53, "protocol": "UDP"},
                {"containerPort": 9000}, {"name": "", "containerPort": 9001},
            ]}],
            "initContainers": [
                {"ports": [{"name": "once", "containerPort": 1}]},
                {"restartPolicy": "Always", "ports": [{"name": "side", "containerPort": 2, "protocol": "SCTP"}]},
                {"restartPolicy": "Never", "ports": [{"name": "never", "containerPort": 3}]},
            ],
        },
        "status": {
            "phase": "Running", "podIP": "10.244.0.1", "podIPs": [{"ip": "10.244.0.1"}, {"ip": "fd00:0::1"}],
            "hostIP": "192.168.0.1", "hostIPs": [{"ip": "192.168.0.1"}, {"ip": "fd01::1"}],
        },
    }));
    assert_eq!(told, Vec::<String>::new());
    assert_eq!(pod.key.to_string(), "default/p");
    assert_eq!(
        pod.labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>(),
        ["app=web", "empty=", "none="]
    );
    assert_eq!(pod.node.map(|node| node.to_string()).as_deref(), Some("n1"));
    assert!(pod.host_network);
    assert!(pod.terminating);
    assert_eq!(pod.created, 1_795_424_911);
    assert_eq!(pod.phase, Phase::Running);
    assert_eq!(pod.ips.iter().map(ToString::to_string).collect::<Vec<_>>(), ["10.244.0.1", "fd00::1"]);
    assert_eq!(pod.host_ips.iter().map(ToString::to_string).collect::<Vec<_>>(), ["192.168.0.1", "fd01::1"]);
    assert_eq!(
        pod.ports.iter().map(|p| format!("{} {} {}", p.name, p.protocol, p.number)).collect::<Vec<_>>(),
        ["http TCP 80", "dns UDP 53", "side SCTP 2"]
    );
}

#[test]
fn the_id_of_a_static_pod_is_that_of_its_kubelet() {
    let uid = |metadata| pod(&json!({"metadata": metadata})).0.uid;
    let (api, kubelet) = ("f81d4fae-7dec-11d0-a765-00a0c91e6bf6", "0123456789abcdef0123456789abcdef");
    assert_eq!(uid(json!({"name": "p", "uid": api})), PodUid::parse(api));
    let mirror = json!({"kubernetes.io/config.mirror": kubelet});
    assert_eq!(uid(json!({"name": "p", "uid": api, "annotations": mirror})), PodUid::parse(kubelet));
    assert_eq!(uid(json!({"name": "p", "uid": "no id"})), None);
}

#[test]
fn a_pod_without_anything() {
    let (pod, told) = pod(&json!({"spec": null, "status": null}));
    assert_eq!(told, Vec::<String>::new());
    assert!(!pod.host_network && !pod.terminating && pod.created == 0);
    assert!(pod.node.is_none() && pod.ips.is_empty() && pod.host_ips.is_empty() && pod.ports.is_empty());
    assert_eq!(pod.phase, Phase::Running);
}

#[test]
fn phases() {
    let unknown = |text: &str| {
        vec![format!(
            "status.phase: \"{text}\" is not a phase (Pending, Running, Succeeded, Failed, Unknown); it is taken for \
             Unknown"
        )]
    };
    for (status, phase, told) in [
        (json!({"phase": "Pending"}), Phase::Pending, vec![]),
        (json!({"phase": "Succeeded"}), Phase::Succeeded, vec![]),
        (json!({"phase": "Failed"}), Phase::Failed, vec![]),
        (json!({"phase": "Unknown"}), Phase::Unknown, vec![]),
        (json!({"phase": "running"}), Phase::Unknown, unknown("running")),
        (json!({"phase": ""}), Phase::Unknown, unknown("")),
        (
            json!({"phase": 1, "podIP": "10.0.0.1"}),
            Phase::Unknown,
            vec!["status.phase: a number where a string is due; quote it".into()],
        ),
        (json!({}), Phase::Pending, vec![]),
        (json!({"podIPs": [{"ip": "10.0.0.1"}]}), Phase::Running, vec![]),
        (json!([]), Phase::Pending, vec!["status: a list where an object is due".into()]),
    ] {
        let (pod, findings) = pod(&json!({"status": status}));
        assert_eq!((pod.phase, findings), (phase, told), "{status}");
    }
}

#[test]
fn addresses() {
    let left_out = |text: &str| format!("\"{text}\" is not an IP address; it is left out");
    for (status, ips, told) in [
        (json!({"podIP": "10.0.0.1"}), vec!["10.0.0.1"], vec![]),
        (json!({"podIP": ""}), vec![], vec![]),
        (json!({"podIP": "10.0.0.1", "podIPs": []}), vec!["10.0.0.1"], vec![]),
        (json!({"podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.2"}]}), vec!["10.0.0.2"], vec![]),
        (json!({"podIPs": [{"ip": "10.0.0.2"}, {"ip": "10.0.0.2"}]}), vec!["10.0.0.2"], vec![]),
        (
            json!({"podIPs": [{"ip": "10.0.0.300"}, {"ip": "10.0.0.2"}]}),
            vec!["10.0.0.2"],
            vec![format!("status.podIPs[0].ip: {}", left_out("10.0.0.300"))],
        ),
        (json!({"podIP": "010.0.0.1"}), vec![], vec![format!("status.podIP: {}", left_out("010.0.0.1"))]),
        (json!({"podIP": "fe80::1%eth0"}), vec![], vec![format!("status.podIP: {}", left_out("fe80::1%eth0"))]),
        (json!({"podIP": "10.0.0.1/24"}), vec![], vec![format!("status.podIP: {}", left_out("10.0.0.1/24"))]),
        (
            json!({"podIP": "::ffff:10.0.0.1"}),
            vec!["10.0.0.1"],
            vec!["status.podIP: ::ffff:10.0.0.1 is an IPv4 address in IPv6 form; it is taken for 10.0.0.1".into()],
        ),
        (
            json!({"podIPs": [{"ip": "0.0.0.0"}, {"ip": "::1"}, {"ip": "ff02::1"}]}),
            vec![],
            vec![
                "status.podIPs[0].ip: 0.0.0.0 is nobody's own address; it is left out".into(),
                "status.podIPs[1].ip: ::1 is nobody's own address; it is left out".into(),
                "status.podIPs[2].ip: ff02::1 is nobody's own address; it is left out".into(),
            ],
        ),
        (
            json!({"podIPs": ["10.0.0.1", {"ip": 10}, {}]}),
            vec![],
            vec![
                "status.podIPs[0]: a string where an object is due".into(),
                "status.podIPs[1].ip: a number where a string is due; quote it".into(),
            ],
        ),
        (json!({"podIPs": "10.0.0.1"}), vec![], vec!["status.podIPs: a string where a list is due".to_owned()]),
    ] {
        let (pod, findings) = pod(&json!({"status": status}));
        assert_eq!(pod.ips.iter().map(ToString::to_string).collect::<Vec<_>>(), ips, "{status}");
        assert_eq!(findings, told, "{status}");
    }
    let (pod, told) = pod(&json!({"status": {"hostIP": "10.0.0.1", "hostIPs": [{"ip": "fd00::1"}, {"ip": "x"}]}}));
    assert_eq!(pod.host_ips.iter().map(ToString::to_string).collect::<Vec<_>>(), ["fd00::1", "10.0.0.1"]);
    assert_eq!(told, [format!("status.hostIPs[1].ip: {}", left_out("x"))]);
}

#[test]
fn broken_parts_are_left_out() {
    for (parts, told) in [
        (json!({"spec": 1}), "spec: a number where an object is due"),
        (json!({"spec": {"nodeName": {}}}), "spec.nodeName: an object where a string is due"),
        (json!({"spec": {"hostNetwork": "true"}}), "spec.hostNetwork: a string where true or false is due"),
        (json!({"spec": {"containers": {}}}), "spec.containers: an object where a list is due"),
        (json!({"spec": {"containers": ["c"]}}), "spec.containers[0]: a string where an object is due"),
        (json!({"spec": {"containers": [{"ports": 80}]}}), "spec.containers[0].ports: a number where a list is due"),
        (
            json!({"spec": {"initContainers": [{"restartPolicy": "Always", "ports": [80]}]}}),
            "spec.initContainers[0].ports[0]: a number where an object is due",
        ),
        (
            json!({"metadata": {"name": "p", "labels": {"v": 1.20}}}),
            "metadata.labels.v: a number where a string is due; quote it",
        ),
        (json!({"metadata": {"name": "p", "labels": ["a"]}}), "metadata.labels: a list where an object is due"),
        (
            json!({"metadata": {"name": "p", "annotations": "a"}}),
            "metadata.annotations: a string where an object is due",
        ),
        (
            json!({"metadata": {"name": "p", "creationTimestamp": "yesterday"}}),
            "metadata.creationTimestamp: \"yesterday\" is not a time such as 2026-01-31T23:59:59Z; it is left out",
        ),
    ] {
        let (pod, findings) = pod(&parts);
        assert_eq!(findings, [told]);
        assert!(pod.labels.iter().next().is_none() && pod.ports.is_empty() && pod.created == 0, "{told}");
    }
    let port = |port: Value| json!({"spec": {"containers": [{"ports": [{"name": "ok", "containerPort": 1}, port]}]}});
    for (entry, told) in [
        (json!({"name": "http"}), "containerPort: is missing; the entry is left out"),
        (json!({"name": "http", "containerPort": "80"}), "containerPort: a string where a whole number is due"),
        (
            json!({"name": "http", "containerPort": 0}),
            "containerPort: 0 is not a port (1 to 65535); the entry is left out",
        ),
        (json!({"name": "http", "containerPort": u64::MAX}), "containerPort: a number where a whole number is due"),
        (
            json!({"name": "http", "containerPort": 80, "protocol": "tcp"}),
            "protocol: \"tcp\" is not a protocol (TCP, UDP, SCTP); the entry is left out",
        ),
        (
            json!({"name": "HTTP", "containerPort": 80}),
            "name: \"HTTP\" is not the name of a port (up to 15 lower-case letters, digits and single dashes, at least \
             one letter)",
        ),
    ] {
        let (pod, findings) = pod(&port(entry));
        assert_eq!(findings, [format!("spec.containers[0].ports[1].{told}")]);
        assert_eq!(pod.ports.len(), 1, "{told}");
    }
}

#[test]
fn labels_that_no_label_can_have_are_kept() {
    let (pod, told) = pod(&json!({"metadata": {"name": "p", "labels": {"a b": "c", "d": "e f"}}}));
    assert_eq!(pod.labels.get("a b").map(|value| &**value), Some("c"));
    assert_eq!(pod.labels.get("d").map(|value| &**value), Some("e f"));
    assert_eq!(
        told,
        [
            "metadata.labels.a b: \"a b\" is not a label key (up to 63 letters, digits, '-', '_' and '.', perhaps \
             after a DNS name and '/')",
            "metadata.labels.d: \"e f\" is not a label value (up to 63 letters, digits, '-', '_' and '.')",
        ]
    );
}

#[test]
fn declared_ports_are_those_with_and_without_names() {
    let document = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {
        "containers": [
            {"ports": [{"containerPort": 80}, {"containerPort": 0}, {"containerPort": 53, "protocol": "UDP"}]},
            {"ports": [{"name": "web", "containerPort": 80}, {"containerPort": 9, "protocol": "x"}, {}]},
        ],
        "initContainers": [
            {"ports": [{"containerPort": 1}]},
            {"restartPolicy": "Always", "ports": [{"containerPort": 2}]},
        ],
    }});
    let items = parse(&document.into(), "nameless");
    let [Item::Object { declared_ports, .. }] = items.as_slice() else { panic!("{items:?}") };
    assert_eq!(*declared_ports, [(Protocol::Tcp, 2), (Protocol::Tcp, 80), (Protocol::Udp, 53)]);
}

#[test]
fn the_version_of_an_object_is_at_hand() {
    let version = |json: &str| serde_json::from_str::<PodWire>(json).unwrap().resource_version().map(str::to_owned);
    assert_eq!(version(r#"{"metadata": {"resourceVersion": "42"}}"#).as_deref(), Some("42"));
    assert_eq!(version(r#"{"metadata": {}}"#), None);
    assert_eq!(version(r#"{}"#), None);
    let of_pod = |json: &str| serde_json::from_str::<PodWire>(json).unwrap().parse().value.version;
    assert_eq!(of_pod(r#"{"metadata": {"resourceVersion": "42"}}"#), 42);
    assert_eq!(of_pod(r#"{"metadata": {"resourceVersion": "none"}}"#), 0);
}
