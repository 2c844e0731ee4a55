//! Questions to a cluster of manifests.

mod groups;

use std::collections::BTreeSet;

use compiler::api::{Item, Object, parse};
use compiler::nft::Deny;
use serde_json::{Value, json};

use super::*;
use crate::probes::Probe;

/// A pod on a node, which listens at the port named `sql`.
fn pod(name: &str, node: &str, app: &str, sql: u16) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "shop", "labels": {"app": app}},
        "spec": {"nodeName": node, "containers": [{"name": "m", "ports": [{"name": "sql", "containerPort": sql}]}]}})
}

/// The same with its condition.
fn pod_that_is(ready: bool, name: &str, node: &str, app: &str) -> Value {
    let mut pod = pod(name, node, app, 5432);
    let number = name.bytes().last().unwrap_or_default();
    pod["status"] = json!({"phase": "Running", "podIP": format!("10.9.9.{number}"),
        "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]});
    pod
}

fn service(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "shop"}, "spec": spec})
}

/// A slice of one port and the given entries.
fn slice(of: &str, name: &str, endpoints: Value) -> Value {
    json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": name, "namespace": "shop", "labels": {"kubernetes.io/service-name": of}},
        "ports": [{"port": 6443, "protocol": "TCP"}], "endpoints": endpoints})
}

fn model(items: Vec<Value>) -> Model {
    let (mut objects, mut unready): (Vec<Object>, _) = (Vec::new(), BTreeSet::new());
    for item in items.iter().flat_map(|item| parse(&item.into(), "nameless")) {
        let Item::Object { parsed, is_unready, .. } = item else { panic!("{item:?}") };
        assert_eq!(parsed.findings, []);
        if let (Object::Pod(pod), true) = (&parsed.value, is_unready) {
            unready.insert(pod.key.clone());
        }
        objects.push(parsed.value);
    }
    let (without_address, reserved) = (BTreeSet::new(), BTreeSet::new());
    let openings = Openings { without_address: &without_address, reserved: &reserved, unready: &unready };
    Model::with(&objects, &openings, Workloads::default(), Deny::default())
}

/// Where a question leads, in one line: `shop/db-0:5432 shop/db-1:5433 (note)`, or why not.
fn said(model: &Model, from: &str, to: &str, port: &str) -> String {
    let question = match Probe::from_words(from, to, port).unwrap().question(model) {
        Ok(question) => question,
        Err(error) => return error.to_string(),
    };
    let end = |route: &Route| match model.end(route.packet.destination) {
        End::Pod(key) => key.to_string(),
        End::Node(name) => format!("node {name}"),
        End::Service(_) | End::Outside => route.packet.destination.to_string(),
    };
    let ends = question.routes.iter().map(|route| {
        let port = route.packet.protocol.port().map_or(String::new(), |port| format!(":{port}"));
        format!("{}{port}", end(route))
    });
    let notes = question.notes.iter().map(|note| format!("({note})"));
    ends.chain(notes).collect::<Vec<_>>().join(" ")
}

/// A client, and pods behind several Services.
fn shop() -> Model {
    let selected = |more: Value| {
        let mut spec = json!({"selector": {"app": "db"}, "ports": [{"port": 15432, "targetPort": "sql"}]});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        spec
    };
    model(vec![
        pod("web", "n1", "web", 80),
        pod("db-0", "n1", "db", 5432),
        pod("db-1", "n2", "db", 5433),
        pod_that_is(false, "db-2", "n2", "db"),
        pod_that_is(true, "db-3", "n2", "db"),
        pod_that_is(false, "cold-1", "n2", "cold"),
        pod("both", "n1", "both", 80),
        service("db", selected(json!({"externalIPs": ["198.51.100.7"], "clusterIPs": ["10.96.0.7"]}))),
        service("all", selected(json!({"publishNotReadyAddresses": true}))),
        service("names", selected(json!({"clusterIP": "None"}))),
        service("here", selected(json!({"internalTrafficPolicy": "Local"}))),
        service("cold", json!({"selector": {"app": "cold"}, "ports": [{"port": 1}]})),
        service("nobody", json!({"selector": {"app": "nobody"}, "ports": [{"port": 1}]})),
        service("by-hand", json!({"ports": [{"port": 1}]})),
        service("alias", json!({"type": "ExternalName", "externalName": "db.example.com"})),
        service("both", json!({"selector": {"app": "both"}, "ports": [{"port": 80}]})),
    ])
}

#[test]
fn a_service_leads_to_every_ready_pod_behind_it() {
    let shop = shop();
    let said = |to: &str, port: &str| said(&shop, "shop/web", to, port);
    let three = "shop/db-0:5432 shop/db-1:5433 shop/db-3:5432 (1 endpoint is not ready and gets no traffic)";
    for name in ["svc/shop/db", "service/shop/db", "shop/db", "10.96.0.7", "198.51.100.7"] {
        assert_eq!(said(name, "15432"), three, "{name}");
    }
    assert_eq!(said("shop/all", "15432"), "shop/db-0:5432 shop/db-1:5433 shop/db-2:5432 shop/db-3:5432");
    assert_eq!(
        said("shop/names", "5433"),
        "shop/db-0:5433 shop/db-1:5433 shop/db-3:5433 (it is headless: its name leads to the pods themselves, on the port \
         that is asked) (1 endpoint is not ready and gets no traffic)"
    );
    assert_eq!(said("shop/here", "15432"), "shop/db-0:5432 (1 endpoint is not ready and gets no traffic)");
}

#[test]
fn what_a_service_does_not_do_is_said() {
    let shop = shop();
    let said = |to: &str, port: &str| said(&shop, "shop/web", to, port);
    assert_eq!(said("shop/db", "5432"), "Service shop/db has no port 5432/TCP; it has 15432/TCP");
    assert_eq!(said("shop/db", "15432/UDP"), "Service shop/db has no port 15432/UDP; it has 15432/TCP");
    assert_eq!(said("shop/db", "ICMP"), "Service shop/db passes on no ICMP; ask about a port, or the pods behind it");
    let nowhere = |why: &str| format!("has no endpoint for this: {why}; its traffic goes nowhere");
    assert_eq!(said("shop/cold", "1"), format!("Service shop/cold {}", nowhere("its only endpoint is not ready")));
    let none = nowhere("no pod with an address of IPv4 stands behind it");
    assert_eq!(said("shop/nobody", "1"), format!("Service shop/nobody {none}"));
    let none = nowhere("it has no selector, and no EndpointSlice of IPv4 with this port");
    assert_eq!(said("shop/by-hand", "1"), format!("Service shop/by-hand {none}"));
    assert_eq!(
        said("shop/alias", "1"),
        "Service shop/alias is of type ExternalName, a name for db.example.com; ask about an address which that has"
    );
}

#[test]
fn slices_say_who_is_behind_a_service() {
    let web = || pod("web", "n1", "web", 80);
    let own = json!({"selector": {"app": "web"}, "ports": [{"port": 443, "targetPort": 6443}]});
    let target = json!({"kind": "Pod", "name": "web", "namespace": "shop"});
    let with = |endpoints: Value| model(vec![web(), service("api", own.clone()), slice("api", "api-1", endpoints)]);
    let three = json!([
        {"addresses": ["192.0.2.1"], "conditions": {"ready": true}, "targetRef": target},
        {"addresses": ["192.0.2.2"]},
        {"addresses": ["192.0.2.3"], "conditions": {"ready": false}},
    ]);
    let two = "192.0.2.2:6443 192.0.2.1:6443 (1 endpoint is not ready and gets no traffic)";
    assert_eq!(said(&with(three), "shop/web", "svc/shop/api", "443"), two);
    let ending = json!([
        {"addresses": ["192.0.2.1"], "conditions": {"ready": false, "serving": true, "terminating": true}},
        {"addresses": ["192.0.2.2"], "conditions": {"ready": false, "serving": false, "terminating": true}},
    ]);
    let one = "192.0.2.1:6443 (1 endpoint is not ready and gets no traffic)";
    assert_eq!(said(&with(ending), "shop/web", "svc/shop/api", "443"), one, "those that end but answer, if no others");
    // As default/kubernetes has them: no selector, and an address of a node.
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n2"},
        "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.9"}]}});
    let by_hand = service("api", json!({"ports": [{"port": 443, "targetPort": 6443}]}));
    let slices = slice("api", "api", json!([{"addresses": ["192.0.2.9"]}]));
    assert_eq!(said(&model(vec![web(), node, by_hand, slices]), "shop/web", "svc/shop/api", "443"), "node n2:6443");
}

#[test]
fn ends_that_are_not_there_or_two_are_told() {
    let shop = shop();
    let said = |from: &str, to: &str| said(&shop, from, to, "80");
    assert_eq!(
        said("shop/web", "shop/both"),
        "shop/both:80 (shop/both is a pod and a Service; this is the pod, svc/shop/both the Service)"
    );
    assert_eq!(said("shop/web", "svc/shop/both"), "shop/both:80");
    assert_eq!(said("shop/web", "node/n1"), "node n1:80");
    assert_eq!(said("node/n1", "pod/shop/web"), "shop/web:80");
    assert_eq!(said("shop/wib", "shop/web"), "there is no pod shop/wib; did you mean shop/web?");
    assert_eq!(said("shop/web", "svc/shop/dbb"), "there is no Service shop/dbb; did you mean shop/db?");
    assert_eq!(said("shop/web", "svc/db"), "there is no Service default/db; did you mean shop/db?");
    assert_eq!(said("shop/web", "node/n3"), "there is no node n3; did you mean n1 or n2?");
    assert_eq!(said("svc/shop/db", "shop/web"), "Service shop/db is no client; the pods behind it are");
}

#[test]
fn a_namespace_may_have_the_name_of_a_kind() {
    let odd = |namespace: &str| {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "namespace": namespace},
            "spec": {"nodeName": "n1"}})
    };
    let alone = model(vec![odd("svc"), odd("shop")]);
    assert_eq!(said(&alone, "shop/web", "svc/web", "80"), "svc/web:80");
    let mut other = service("web", json!({"ports": [{"port": 80}]}));
    other["metadata"]["namespace"] = json!("default");
    let both = model(vec![odd("svc"), odd("shop"), other]);
    assert_eq!(
        said(&both, "shop/web", "svc/web", "80"),
        "svc/web is ambiguous: Service default/web, or the pod that pod/svc/web names"
    );
}

#[test]
fn from_outside_the_translation_of_the_source_is_told() {
    let shop = shop();
    let said = said(&shop, "203.0.113.9", "198.51.100.7", "15432");
    assert!(said.contains("may put its own address in place of the client's"), "{said}");
    let said = self::said(&shop, "203.0.113.9", "10.96.0.7", "15432");
    assert!(said.contains("a client outside of the cluster reaches no ClusterIP"), "{said}");
}

#[test]
fn services_without_an_address_get_one() {
    let shop = shop();
    let addresses = |name: &str| {
        let service = shop.services().iter().find(|service| &*service.name == name).unwrap();
        service.cluster_ips.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(addresses("db"), ["10.96.0.7"]);
    assert_eq!(addresses("all"), ["10.96.0.2", "fd00:10:96::2"]);
    assert!(addresses("names").is_empty() && addresses("alias").is_empty());
    let endpoints = shop.endpoints();
    let of = |address: &str| {
        let of = endpoints.iter().filter(|endpoint| endpoint.service.to_string() == address);
        of.map(|endpoint| (endpoint.index, endpoint.target)).collect::<Vec<_>>()
    };
    assert_eq!(of("198.51.100.7"), [(0, 5432), (1, 5433), (2, 5432)]);
}

#[test]
fn what_a_mesh_hides_is_said() {
    let namespace = |name: &str, mode: &str| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": {"istio.io/dataplane-mode": mode}}});
    let mut out_of_it = pod("old", "n1", "old", 5432);
    out_of_it["metadata"]["labels"]["istio.io/dataplane-mode"] = json!("none");
    let pods = [pod("web", "n1", "web", 80), pod("db", "n1", "db", 5432), out_of_it];
    let hint = |mode: &str, from: &str, to: &str, port: &str| {
        let model = model([&[namespace("shop", mode)][..], &pods].concat());
        let question = Probe::from_words(from, to, port).unwrap().question(&model).unwrap();
        model.mesh_hint(&question.routes[0].packet).unwrap_or_default()
    };
    let hidden = hint("ambient", "shop/web", "shop/db", "5432/TCP");
    assert!(hidden.contains("to port 15008 of shop/db") && hidden.ends_with("ask about 15008/TCP"), "{hidden}");
    assert_eq!(hint("none", "shop/web", "shop/db", "5432/TCP"), "");
    assert_eq!(hint("ambient", "shop/web", "shop/db", "53/UDP"), "");
    assert_eq!(hint("ambient", "shop/web", "shop/db", "ICMP"), "");
    assert_eq!(hint("ambient", "203.0.113.9", "shop/db", "5432/TCP"), "");
    assert_eq!(hint("ambient", "shop/old", "shop/db", "5432/TCP"), "");
    assert!(hint("none", "shop/old", "shop/db", "15008/TCP").contains("a mesh's tunnel"));
}
