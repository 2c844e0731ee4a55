//! Namespaces, Services and Nodes.

use serde_json::{Value, json};

use super::{parse_one, texts};
use crate::api::{Item, Namespace, NamespaceWire, Node, Object, Service, ServiceKind, TargetPort};

#[track_caller]
fn namespace(metadata: &Value) -> (Namespace, Vec<String>) {
    let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata});
    let parsed = parse_one(&object);
    let Object::Namespace(namespace) = parsed.value else { panic!("{:?} is not a Namespace", parsed.value) };
    let decoded = serde_json::from_slice::<NamespaceWire>(object.to_string().as_bytes()).unwrap().parse();
    assert_eq!((&decoded.value, &decoded.findings), (&namespace, &parsed.findings), "bytes and values mean the same");
    (namespace, texts(&parsed.findings, "Namespace prod: "))
}

#[track_caller]
fn service(spec: &Value) -> (Service, Vec<String>) {
    let parsed = parse_one(&json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": spec}));
    let Object::Service(service) = parsed.value else { panic!("{:?} is not a Service", parsed.value) };
    (service, texts(&parsed.findings, "Service default/s: "))
}

#[track_caller]
fn node(status: &Value) -> (Node, Vec<String>) {
    let parsed = parse_one(&json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}, "status": status}));
    let Object::Node(node) = parsed.value else { panic!("{:?} is not a Node", parsed.value) };
    (node, texts(&parsed.findings, "Node n: "))
}

#[test]
fn ranges_of_the_pods_of_a_node() {
    let ranges = |spec: Value| {
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}, "spec": spec});
        let parsed = parse_one(&node);
        let Object::Node(node) = parsed.value else { panic!("{:?} is not a Node", parsed.value) };
        let read: Vec<String> = node.pod_ranges.iter().map(ToString::to_string).collect();
        (read, texts(&parsed.findings, "Node n: "))
    };
    let none = Vec::<String>::new;
    let both = json!({"podCIDR": "10.9.0.0/24", "podCIDRs": ["10.1.0.0/24", "fd00::/64", "10.1.0.0/24"]});
    assert_eq!(ranges(both), (vec!["10.1.0.0/24".into(), "fd00::/64".into()], none()));
    assert_eq!(ranges(json!({"podCIDR": "10.1.0.7/24"})), (vec!["10.1.0.0/24".into()], none()));
    assert_eq!(ranges(json!({"podCIDR": "", "podCIDRs": null})), (none(), none()));
    let (read, told) = ranges(json!({"podCIDRs": ["10.1.0.0/33", 7, "fd00::/64"]}));
    assert_eq!(read, ["fd00::/64"]);
    assert_eq!(
        told,
        [
            "spec.podCIDRs[0]: \"10.1.0.0/33\" is not a CIDR",
            "spec.podCIDRs[1]: a number where a string is due; quote it"
        ]
    );
}

#[test]
fn namespaces() {
    let (read, told) = namespace(&json!({"name": "prod", "labels": {"team": "a"}}));
    assert_eq!((read.name.as_ref(), read.default_deny_ingress), ("prod", false));
    assert_eq!(read.labels.get("team").map(|value| &**value), Some("a"));
    let version =
        |json: &str| serde_json::from_str::<NamespaceWire>(json).unwrap().resource_version().map(str::to_owned);
    assert_eq!(version(r#"{"metadata":{"resourceVersion":"7"}}"#).as_deref(), Some("7"));
    assert_eq!(version(r#"{"metadata":{}}"#), None);
    assert_eq!(told, Vec::<String>::new());
}

#[test]
fn isolation_by_annotation() {
    let key = "net.beta.kubernetes.io/network-policy";
    let told = |reason: &str| {
        format!(
            "metadata.annotations[{key}]: {reason}, such as {{\"ingress\":{{\"isolation\":\"DefaultDeny\"}}}}; the \
             namespace is isolated for ingress"
        )
    };
    for (annotation, isolates, reason) in [
        (r#"{"ingress":{"isolation":"DefaultDeny"}}"#, true, None),
        ("{\n  \"ingress\": {\n    \"isolation\": \"DefaultDeny\"\n  }\n}\n", true, None),
        ("{}", false, None),
        (r#"{"ingress":null}"#, false, None),
        (r#"{"ingress":{}}"#, false, None),
        (r#"{"Ingress":{"isolation":"DefaultDeny"}}"#, true, Some("has fields that are not known")),
        (r#"{"ingress":"DefaultDeny"}"#, true, Some("has an ingress that is not an object")),
        (r#"{"ingress":{"isolation":"defaultdeny"}}"#, true, Some("has an isolation that is not known")),
        (r#"{"ingress":{"isolated":"DefaultDeny"}}"#, true, Some("has an isolation that is not known")),
        (r#"{"ingress":{"isolation":null}}"#, true, Some("has an isolation that is not known")),
        ("DefaultDeny", true, Some("is not a JSON object")),
        ("", true, Some("is not a JSON object")),
        (&"[".repeat(100_000), true, Some("is not a JSON object")),
    ] {
        let (namespace, findings) = namespace(&json!({"name": "prod", "annotations": {key: annotation}}));
        assert_eq!(namespace.default_deny_ingress, isolates, "{annotation}");
        assert_eq!(findings, reason.map(told).into_iter().collect::<Vec<_>>());
    }
    // An object instead of its text, as it is easily written in YAML.
    let (namespace, findings) =
        namespace(&json!({"name": "prod", "annotations": {key: {"ingress": {"isolation": "DefaultDeny"}}}}));
    assert!(namespace.default_deny_ingress);
    assert_eq!(findings, [format!("metadata.annotations[{key}]: an object where a string is due")]);
}

#[test]
fn services() {
    let (read, told) = service(&json!({
        "type": "NodePort", "clusterIP": "10.96.0.10", "clusterIPs": ["10.96.0.10", "fd00:96::a"],
        "selector": {"k8s-app": "kube-dns"},
        "ports": [
            {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": "dns"},
            {"port": 80}, {"port": 81, "targetPort": 8080}, {"port": 82, "targetPort": 0},
        ],
    }));
    assert_eq!(told, Vec::<String>::new());
    assert_eq!(read.kind, ServiceKind::NodePort);
    assert_eq!(read.cluster_ips.iter().map(ToString::to_string).collect::<Vec<_>>(), ["10.96.0.10", "fd00:96::a"]);
    assert!(read.selector.is_some_and(|selector| selector.get("k8s-app").is_some()));
    let ports: Vec<_> = read
        .ports
        .iter()
        .map(|port| match &port.target {
            TargetPort::Number(target) => format!("{} {} -> {target}", port.protocol, port.port),
            TargetPort::Named(target) => format!("{} {} -> {target}", port.protocol, port.port),
        })
        .collect();
    assert_eq!(ports, ["UDP 53 -> dns", "TCP 80 -> 80", "TCP 81 -> 8080", "TCP 82 -> 82"]);
}

#[test]
fn services_with_little() {
    for spec in [json!(null), json!({}), json!({"clusterIP": "None", "selector": {}}), json!({"clusterIPs": ["None"]})]
    {
        let (read, told) = service(&spec);
        assert_eq!(told, Vec::<String>::new(), "{spec}");
        assert_eq!(read.kind, ServiceKind::ClusterIp);
        assert!(read.cluster_ips.is_empty() && read.selector.is_none() && read.ports.is_empty(), "{spec}");
    }
    for (text, kind) in [
        ("ClusterIP", ServiceKind::ClusterIp),
        ("NodePort", ServiceKind::NodePort),
        ("LoadBalancer", ServiceKind::LoadBalancer),
        ("ExternalName", ServiceKind::ExternalName),
    ] {
        assert_eq!(service(&json!({"type": text})).0.kind, kind, "{text}");
    }
    let (read, _) = service(&json!({"clusterIP": "10.96.0.1", "clusterIPs": []}));
    assert_eq!(read.cluster_ips.iter().map(ToString::to_string).collect::<Vec<_>>(), ["10.96.0.1"]);
}

#[test]
fn broken_parts_of_services_are_left_out() {
    let (read, told) = service(&json!({
        "type": "clusterip", "clusterIPs": ["10.96.0", 1], "selector": "a=b",
        "ports": [{"port": 0}, {"port": 1, "protocol": "x"}, {"port": 1, "targetPort": 65536}, {"port": 1, "targetPort": "X"},
            {"port": 1, "targetPort": []}, {}, 5],
    }));
    assert!(read.cluster_ips.is_empty() && read.ports.is_empty());
    let name = "up to 15 lower-case letters, digits and single dashes, at least one letter";
    assert_eq!(
        told,
        [
            "spec.type: \"clusterip\" is not a type of Service; it is taken for ClusterIP".to_owned(),
            "spec.clusterIPs[1]: a number where a string is due; quote it".into(),
            "spec.clusterIPs[0]: \"10.96.0\" is not an IP address; it is left out".into(),
            "spec.selector: a string where an object is due".into(),
            "spec.ports[0].port: 0 is not a port (1 to 65535); the entry is left out".into(),
            "spec.ports[1].protocol: \"x\" is not a protocol (TCP, UDP, SCTP); the entry is left out".into(),
            "spec.ports[2].targetPort: 65536 is not a port (1 to 65535); the entry is left out".into(),
            format!("spec.ports[3].targetPort: \"X\" is not the name of a port ({name}); the entry is left out"),
            "spec.ports[4].targetPort: a list where a number or a string is due".into(),
            "spec.ports[5].port: is missing; the entry is left out".into(),
            "spec.ports[6]: a number where an object is due".into(),
        ]
    );
}

#[test]
fn nodes() {
    let (read, told) = node(&json!({"addresses": [
        {"type": "Hostname", "address": "n"}, {"type": "InternalIP", "address": "192.168.0.1"},
        {"type": "ExternalIP", "address": "1.2.3.4"}, {"type": "InternalIP", "address": "fd01::1"},
        {"type": "InternalIP", "address": "192.168.0.1"}, {"type": "InternalIP", "address": "n"}, {"type": "InternalIP"}, 1,
    ]}));
    assert_eq!(read.name.to_string(), "n");
    assert_eq!(read.addresses.iter().map(ToString::to_string).collect::<Vec<_>>(), ["192.168.0.1", "fd01::1"]);
    assert_eq!(
        told,
        [
            "status.addresses[5].address: \"n\" is not an IP address; it is left out",
            "status.addresses[7]: a number where an object is due",
        ]
    );
    let (read, told) = node(&json!(null));
    assert!(read.addresses.is_empty() && told.is_empty());
}

#[test]
fn services_say_how_they_are_reached() {
    let object = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a", "namespace": "b"},
        "spec": {"clusterIP": "None", "ipFamilies": ["IPv6", "IPv4"], "externalIPs": ["198.51.100.7", "x"],
            "externalTrafficPolicy": "Local", "internalTrafficPolicy": "Cluster", "publishNotReadyAddresses": true,
            "externalName": "", "ports": [{"name": "dns", "port": 53, "nodePort": 30053}]},
        "status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.5"}, {"hostname": "lb.example.com"}]}}});
    let [Item::Object { parsed, .. }] = &super::super::parse(&object.into(), "x")[..] else { panic!("no object") };
    let Object::Service(read) = &parsed.value else { panic!("{parsed:?}") };
    assert!(read.headless && read.external_local && !read.internal_local && read.publish_not_ready);
    assert_eq!(read.families_are_v4, [false, true]);
    assert_eq!(read.external_name, None);
    assert_eq!(
        read.addresses().map(|address| address.to_string()).collect::<Vec<_>>(),
        ["198.51.100.7", "203.0.113.5"]
    );
    assert_eq!((&*read.ports[0].name, read.ports[0].node_port), ("dns", Some(30053)));
    let told: Vec<_> = parsed.findings.iter().map(|finding| finding.field.as_str()).collect();
    assert_eq!(told, ["spec.externalIPs[1]"]);
}

#[test]
fn endpoint_slices() {
    let object = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
    "metadata": {"name": "web-x1", "namespace": "b", "labels": {"kubernetes.io/service-name": "web"}},
    "ports": [{"name": "", "port": 80}, {"name": "any", "protocol": "UDP"}, {"port": 1, "protocol": "x"}],
    "endpoints": [
        {"addresses": ["10.0.0.1"], "nodeName": "n1", "targetRef": {"kind": "Pod", "name": "web-0", "namespace": "b"}},
        {"addresses": ["10.0.0.2", "10.0.0.3"], "conditions": {"ready": false, "terminating": true, "serving": true}},
        {"addresses": ["10.0.0"], "conditions": {"ready": true}},
        {"addresses": []}, 7,
    ]});
    let [Item::Object { parsed, .. }] = &super::super::parse(&object.into(), "x")[..] else { panic!("no object") };
    let Object::EndpointSlice(read) = &parsed.value else { panic!("{parsed:?}") };
    assert_eq!(parsed.value.reference().to_string(), "EndpointSlice b/web-x1");
    assert_eq!(read.service.as_deref(), Some("web"));
    assert_eq!(
        read.ports.iter().map(|port| (&*port.name, port.port)).collect::<Vec<_>>(),
        [("", Some(80)), ("any", None)]
    );
    let endpoints: Vec<_> =
        read.endpoints.iter().map(|e| (e.address.to_string(), e.ready, e.serving, e.terminating)).collect();
    assert_eq!(endpoints, [("10.0.0.1".to_owned(), true, true, false), ("10.0.0.2".to_owned(), false, true, true)]);
    assert_eq!(read.endpoints[0].pod.as_ref().map(ToString::to_string).as_deref(), Some("b/web-0"));
    let told: Vec<_> = parsed.findings.iter().map(|finding| finding.field.as_str()).collect();
    assert_eq!(told, ["endpoints[2].addresses[0]", "endpoints[4]", "ports[2].protocol"]);
    // Names are nobody's addresses, and no fault.
    let names = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "FQDN",
        "metadata": {"name": "x"}, "endpoints": [{"addresses": ["a.example.com"]}]});
    let [Item::Object { parsed, .. }] = &super::super::parse(&names.into(), "x")[..] else { panic!("no object") };
    assert_eq!(parsed.findings, []);
}

#[test]
fn pods_that_are_not_ready() {
    for (status, expected) in [
        (json!(null), false),
        (json!({"phase": "Running"}), false),
        (json!({"conditions": []}), false),
        (json!({"conditions": [{"type": "Ready", "status": "True"}]}), false),
        (json!({"conditions": [{"type": "Ready", "status": "False"}]}), true),
        (json!({"conditions": [{"type": "Ready", "status": "Unknown"}]}), true),
        (json!({"conditions": [{"type": "PodScheduled", "status": "True"}]}), true),
    ] {
        let object = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "status": status});
        let [Item::Object { is_unready, .. }] = &super::super::parse(&object.into(), "x")[..] else {
            panic!("no object")
        };
        assert_eq!(*is_unready, expected, "{status}");
    }
}
