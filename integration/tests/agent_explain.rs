//! Questions to a running agent about what it does not watch: Services and their endpoints, nodes, pods elsewhere. They
//! are read from the API with the rights of who asks.

#![allow(clippy::unwrap_used, reason = "a test that cannot set up its world has failed")]

use std::net::IpAddr;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use integration::agent::{self, Agent, install, loopback_up};
use integration::control_plane::{ControlPlane, pod};
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::Api;
use kube::api::{Patch, PatchParams};
use lab::isolated;
use serde_json::{Value, json};

/// Who may reach the pods: `web`, on one of the two ports.
const POLICY: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: db, namespace: shop}
spec:
  podSelector: {matchLabels: {app: db}}
  ingress: [{from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: 5432}]}]
";

const SERVICES: &str = "
apiVersion: v1
kind: Service
metadata: {name: db, namespace: shop}
spec: {type: LoadBalancer, selector: {app: db}, externalIPs: [198.51.100.7], ports: [{name: sql, port: 15432, targetPort: sql}]}
---
apiVersion: v1
kind: Service
metadata: {name: alias, namespace: shop}
spec: {type: ExternalName, externalName: db.example.com}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: db-a, namespace: shop, labels: {kubernetes.io/service-name: db}}
addressType: IPv4
ports: [{name: sql, port: 5432}]
endpoints:
  - {addresses: [10.0.0.1], nodeName: node-1, conditions: {ready: true}, targetRef: {kind: Pod, namespace: shop, name: db-0}}
  - {addresses: [10.0.0.3], nodeName: node-1, conditions: {ready: false}, targetRef: {kind: Pod, namespace: shop, name: db-2}}
  - {addresses: [10.0.1.1], nodeName: node-2, conditions: {ready: true}, targetRef: {kind: Pod, namespace: shop, name: db-3}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: db-b, namespace: shop, labels: {kubernetes.io/service-name: db}}
addressType: IPv4
ports: [{name: sql, port: 5433}]
endpoints: [{addresses: [10.0.0.2], nodeName: node-1, targetRef: {kind: Pod, namespace: shop, name: db-1}}]
";

const API_SERVER: &str = "
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: kubernetes, namespace: default, labels: {kubernetes.io/service-name: kubernetes}}
addressType: IPv4
ports: [{name: https, port: 6443}]
endpoints: [{addresses: [192.0.2.2], conditions: {ready: true}}]
";

fn ips(addresses: &[&str]) -> Vec<IpAddr> {
    addresses.iter().map(|address| address.parse().unwrap()).collect()
}

/// A cluster whose node `node-1` has a client and three of four pods behind a Service.
async fn cluster() -> ControlPlane {
    loopback_up().unwrap();
    let cluster = ControlPlane::start().await.unwrap();
    cluster.create_namespace("shop", &[]).await.unwrap();
    for (name, node, app, address) in [
        ("web", "node-1", "web", "10.0.0.9"),
        ("stranger", "node-1", "stranger", "10.0.0.8"),
        ("db-0", "node-1", "db", "10.0.0.1"),
        ("db-1", "node-1", "db", "10.0.0.2"),
        ("db-2", "node-1", "db", "10.0.0.3"),
        ("db-3", "node-2", "db", "10.0.1.1"),
        ("far", "node-2", "web", "10.0.1.2"),
        ("farther", "node-2", "none", "10.0.1.3"),
    ] {
        cluster.run_pod(&pod("shop", name, node, &[("app", app)]), &ips(&[address])).await.unwrap();
    }
    cluster.apply(POLICY).await.unwrap();
    cluster.apply(SERVICES).await.unwrap();
    let status = json!({"status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.5"}]}}});
    let services: Api<Service> = Api::namespaced(cluster.client(), "shop");
    services.patch_status("db", &PatchParams::default(), &Patch::Merge(&status)).await.unwrap();
    cluster.apply("{apiVersion: v1, kind: Node, metadata: {name: node-2}}").await.unwrap();
    let nodes: Api<Node> = Api::all(cluster.client());
    let status = json!({"status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.2"}]}});
    nodes.patch_status("node-2", &PatchParams::default(), &Patch::Merge(&status)).await.unwrap();
    cluster
}

/// What `postern explain` says: exit status, standard output, standard error.
fn explain(kubeconfig: &Path, arguments: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } = Command::new(agent::binary().unwrap())
        .args(["explain", "--kubeconfig", kubeconfig.to_str().unwrap()])
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    (status.code().unwrap(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

fn answer(kubeconfig: &Path, source: &str, destination: &str, port: &str) -> Value {
    let (_, answer, told) = explain(kubeconfig, &[source, destination, port, "-o", "json"]);
    serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{error}: {answer}{told}"))
}

/// The endpoints of an answer: `shop/db-0:5432 allowed`.
fn endpoints(answer: &Value) -> Vec<String> {
    let endpoints = answer["endpoints"].as_array().unwrap_or_else(|| panic!("no endpoints: {answer}"));
    let word = |endpoint: &Value| if endpoint["allowed"] == true { "allowed" } else { "refused" };
    let line = |e: &Value| format!("{}:{} {}", e["endpoint"].as_str().unwrap(), e["port"], word(e));
    endpoints.iter().map(line).collect()
}

#[test]
fn a_service_is_answered_by_endpoint() {
    isolated(async {
        let cluster = cluster().await;
        let mut agent = Agent::on_api(&install(&cluster).await.unwrap()).unwrap();
        agent.ready().await.unwrap();
        let kubeconfig = cluster.kubeconfig();
        let services: Api<Service> = Api::namespaced(cluster.client(), "shop");
        let cluster_ip = services.get("db").await.unwrap().spec.unwrap().cluster_ip.unwrap();

        for name in ["svc/shop/db", "shop/db", &cluster_ip, "198.51.100.7", "203.0.113.5"] {
            let answer = answer(&kubeconfig, "shop/web", name, "15432/TCP");
            let expected = ["shop/db-0:5432 allowed", "shop/db-1:5433 refused", "shop/db-3:5432 allowed"];
            assert_eq!(endpoints(&answer), expected, "{name}");
            assert_eq!((&answer["allowed"], &answer["service"]), (&false.into(), &"shop/db".into()), "{name}");
            assert_eq!(answer["endpoints"][2]["ingress"]["elsewhere"], "node-2", "{name}");
            assert_eq!(answer["doubt"], "unless the agent of node node-2 refuses it", "{name}");
        }
        let (status, text, told) = explain(&kubeconfig, &["shop/web", "svc/shop/db", "15432/TCP"]);
        assert_eq!(status, 0, "{told}");
        let summary = "shop/web -> svc/shop/db TCP 15432: 3 endpoints: 2 allowed, 1 refused, unless the agent of node \
                       node-2 refuses it";
        assert_eq!(text.lines().next(), Some(summary), "{text}");
        assert!(text.contains("decided on node node-2, whose agent was not asked"), "{text}");
        assert!(text.contains("1 endpoint is not ready and gets no traffic"), "{text}");
        assert!(told.is_empty(), "the kernel's table is compared, and agrees: {told}");
        assert!(
            endpoints(&answer(&kubeconfig, "shop/stranger", "shop/db", "15432"))
                .iter()
                .take(2)
                .all(|e| e.ends_with("refused"))
        );

        // What nobody can be asked about is said in words.
        for (destination, port, expected) in [
            ("svc/shop/db", "80", "Service shop/db has no port 80/TCP; it has 15432/TCP"),
            ("svc/shop/db", "ICMP", "Service shop/db passes on no ICMP"),
            ("svc/shop/alias", "80", "is of type ExternalName, a name for db.example.com"),
            ("svc/shop/dbs", "80", "there is no Service shop/dbs; did you mean shop/db?"),
            ("shop/dc", "80", "there is no pod shop/dc; did you mean svc/shop/db?"),
            ("node/node-3", "80", "there is no node node-3; did you mean node-2?"),
            ("svc/shop/db/x", "80", "is neither an address nor namespace/pod"),
        ] {
            let (status, _, told) = explain(&kubeconfig, &["shop/web", destination, port]);
            assert!(status == 2 && told.contains(expected), "{destination}: {status} {told}");
        }

        // The API server itself, whose Service has no selector. What this one would write of itself is a loopback address.
        cluster.apply(API_SERVER).await.unwrap();
        let answer = self::answer(&kubeconfig, "shop/web", "svc/default/kubernetes", "443");
        assert_eq!(endpoints(&answer), ["192.0.2.2:6443 allowed"], "{answer}");
    });
}

#[test]
fn ends_elsewhere_are_looked_up() {
    isolated(async {
        let cluster = cluster().await;
        let mut agent = Agent::on_api(&install(&cluster).await.unwrap()).unwrap();
        agent.ready().await.unwrap();
        let kubeconfig = cluster.kubeconfig();
        // A peer of the policy, which the agent knows, and one of no policy, which it does not.
        let known = answer(&kubeconfig, "shop/far", "shop/db-0", "5432");
        assert_eq!((&known["allowed"], &known["egress"]["elsewhere"]), (&true.into(), &"node-2".into()), "{known}");
        let unknown = answer(&kubeconfig, "shop/farther", "shop/db-0", "5432");
        assert_eq!((&unknown["allowed"], &unknown["src"]), (&false.into(), &"shop/farther".into()), "{unknown}");
        assert_eq!(unknown["egress"]["elsewhere"], "node-2", "{unknown}");
        // What a rule lacks to mean it depends on labels that the agent does not know.
        let nearest = &unknown["ingress"]["nearest"];
        assert_eq!(nearest["rule"], "shop/db ingress[0]", "{unknown}");
        let missed = json!([{"part": "podSelector", "why": "app=web is wanted, and it has app=none"}]);
        assert_eq!(nearest["misses"], missed, "{unknown}");
        let (_, text, _) = explain(&kubeconfig, &["shop/web", "shop/farther", "80"]);
        assert!(
            text.starts_with("shop/web -> shop/farther TCP 80: allowed, unless the agent of node node-2 refuses it"),
            "{text}"
        );
        assert!(text.contains("ingress of shop/farther (10.0.1.3): decided on node node-2"), "{text}");
        let (_, text, _) = explain(&kubeconfig, &["shop/web", "node/node-2", "10250"]);
        assert!(text.contains("ingress of node node-2 (192.0.2.2): not isolated"), "{text}");
        assert_eq!(answer(&kubeconfig, "node/node-2", "shop/db-0", "5432")["allowed"], false);
    });
}

/// Makes a change that `explain` proposes, as kubectl does.
async fn make(cluster: &ControlPlane, change: &Value) {
    let command = change["command"].as_str().unwrap();
    let words: Vec<&str> = command.split(' ').collect();
    let (method, path, kind) = match words[..] {
        ["kubectl", "-n", namespace, "patch", "networkpolicy", name, "--type=json", "--patch-file=FILE"] => {
            ("PATCH", format!("{namespace}/networkpolicies/{name}"), "application/json-patch+json")
        }
        ["kubectl", "create", "-f", "FILE"] => {
            let namespace = change["manifest"]["metadata"]["namespace"].as_str().unwrap();
            ("POST", format!("{namespace}/networkpolicies"), "application/json")
        }
        _ => panic!("{command}"),
    };
    let request = http::Request::builder()
        .method(method)
        .uri(format!("/apis/networking.k8s.io/v1/namespaces/{path}?fieldValidation=Strict"))
        .header("content-type", kind)
        .body(serde_json::to_vec(&change["manifest"]).unwrap())
        .unwrap();
    cluster.client().request::<Value>(request).await.unwrap();
}

#[test]
fn what_is_proposed_is_taken_by_the_api_and_allows_the_flow() {
    isolated(async {
        let cluster = cluster().await;
        let mut agent = Agent::on_api(&install(&cluster).await.unwrap()).unwrap();
        agent.ready().await.unwrap();
        let kubeconfig = cluster.kubeconfig();
        for (source, port, rule, parts) in [
            ("shop/web", "5433", "shop/db ingress[0]", &["ports"][..]),
            ("shop/stranger", "5432", "shop/db ingress[0]", &["podSelector"]),
            ("192.0.2.77", "9999", "shop/db ingress[0]", &["podSelector", "ports"]),
            ("shop/farther", "9999", "shop/db ingress[0]", &["podSelector", "ports"]),
        ] {
            let refused = answer(&kubeconfig, source, "shop/db-0", port);
            let nearest = &refused["ingress"]["nearest"];
            let found: Vec<&str> =
                nearest["misses"].as_array().unwrap().iter().map(|miss| miss["part"].as_str().unwrap()).collect();
            assert_eq!((&nearest["rule"], &found[..]), (&rule.into(), parts), "{refused}");
            make(&cluster, &nearest["change"]).await;
            let begun = Instant::now();
            while answer(&kubeconfig, source, "shop/db-0", port)["allowed"] == false {
                assert!(begun.elapsed() < Duration::from_secs(20), "{source} is refused still: {refused}");
            }
            // One policy has the name, and another is made for the next.
            let policies: Api<NetworkPolicy> = Api::namespaced(cluster.client(), "shop");
            if policies.get_opt("allow-to-db-0").await.unwrap().is_some() {
                policies.delete("allow-to-db-0", &Default::default()).await.unwrap();
            }
        }
        let (_, text, _) = explain(&kubeconfig, &["shop/web", "shop/db-0", "9999"]);
        let due = "nearest: shop/db ingress[0], but for ports: it has 5432/TCP, 5433/TCP";
        assert!(text.lines().any(|line| line.trim() == due), "{text}");
        let command = "to allow it: kubectl -n shop patch networkpolicy db --type=json --patch-file=FILE";
        assert!(text.lines().any(|line| line.trim() == command), "{text}");
    });
}

const WORKLOADS: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: front, namespace: shop}
spec: {replicas: 2, selector: {matchLabels: {app: front}}, template: {metadata: {labels: {app: front}}, spec: {containers: [{name: m, image: example.test/m}]}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: idle, namespace: shop}
spec: {replicas: 0, selector: {matchLabels: {app: idle}}, template: {metadata: {labels: {app: idle}}, spec: {containers: [{name: m, image: example.test/m}]}}}
";

#[test]
fn workloads_and_namespaces_are_answered_by_pod() {
    isolated(async {
        let cluster = cluster().await;
        cluster.apply(WORKLOADS).await.unwrap();
        for (name, app, address) in [("front-5d4f-a", "web", "10.0.0.20"), ("front-5d4f-b", "other", "10.0.0.21")] {
            let mut pod = pod("shop", name, "node-1", &[("app", app), ("pod-template-hash", "5d4f")]);
            let owner = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "front-5d4f",
                "uid": "f81d4fae-7dec-11d0-a765-00a0c91e6bf6", "controller": true});
            pod.metadata.owner_references = Some(vec![serde_json::from_value(owner).unwrap()]);
            cluster.run_pod(&pod, &ips(&[address])).await.unwrap();
        }
        let of_agent = install(&cluster).await.unwrap();
        let mut agent = Agent::on_api(&of_agent).unwrap();
        agent.ready().await.unwrap();
        let kubeconfig = cluster.kubeconfig();

        let (status, text, told) = explain(&kubeconfig, &["deploy/shop/front", "shop/db-0", "5432"]);
        assert_eq!(status, 0, "{told}");
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "deploy/shop/front -> shop/db-0 TCP 5432: 2 pods: 1 allowed, 1 refused", "{text}");
        assert_eq!(lines[1], "  1 refused: shop/front-5d4f-b -> shop/db-0 port 5432", "{text}");
        assert!(text.contains("  1 allowed: shop/front-5d4f-a -> shop/db-0 port 5432"), "{text}");
        let through = answer(&kubeconfig, "deploy/shop/front", "svc/shop/db", "15432");
        assert_eq!((through["endpoints"].as_array().unwrap().len(), &through["service"]), (6, &"shop/db".into()));
        // The eight pods of the namespace and the two of the Deployment, but not the one that asks.
        let all = answer(&kubeconfig, "shop/web", "ns/shop", "5432");
        assert_eq!(all["endpoints"].as_array().unwrap().len(), 9, "{all}");
        let from_all = answer(&kubeconfig, "ns/shop", "shop/db-0", "5432");
        let allowed: Vec<&str> = from_all["endpoints"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|flow| flow["allowed"] == true)
            .map(|flow| flow["client"].as_str().unwrap())
            .collect();
        assert_eq!(allowed, ["shop/far", "shop/front-5d4f-a", "shop/web"], "{from_all}");

        for (name, expected) in [
            ("deploy/shop/idle", "Deployment shop/idle has no pods: its replicas is 0"),
            ("deploy/shop/frond", "there is no Deployment shop/frond; did you mean shop/front?"),
            ("ns/nowhere", "namespace nowhere has no pod with a network of its own"),
        ] {
            let (status, _, told) = explain(&kubeconfig, &[name, "shop/db-0", "5432"]);
            assert!(status == 2 && told.contains(expected), "{name}: {status} {told}");
        }
        // The service account of the agent may list pods, which is all that it takes where there are some.
        assert_eq!(explain(&of_agent, &["deploy/shop/front", "shop/db-0", "5432"]).0, 0);
        let (_, _, told) = explain(&of_agent, &["deploy/shop/idle", "shop/db-0", "5432"]);
        assert!(told.contains("it takes the right to list deployments.apps in namespace shop"), "{told}");
    });
}

#[test]
fn without_the_rights_no_address_is_taken_for_outside() {
    isolated(async {
        let cluster = cluster().await;
        let of_agent = install(&cluster).await.unwrap();
        let mut agent = Agent::on_api(&of_agent).unwrap();
        agent.ready().await.unwrap();
        let services: Api<Service> = Api::namespaced(cluster.client(), "shop");
        let cluster_ip = services.get("db").await.unwrap().spec.unwrap().cluster_ip.unwrap();

        // The service account of the agent may read no Services.
        let (status, text, _) = explain(&of_agent, &["shop/web", &cluster_ip, "15432"]);
        assert_eq!(status, 0);
        let first = format!("shop/web -> {cluster_ip} TCP 15432: allowed, unless {cluster_ip} is a Service's");
        assert_eq!(text.lines().next(), Some(&*first), "{text}");
        assert!(text.contains("it takes the right to list services in all namespaces"), "{text}");
        let (status, _, told) = explain(&of_agent, &["shop/web", "svc/shop/db", "15432"]);
        let missing = "Service shop/db cannot be looked up: it takes the right to list services in namespace shop";
        assert!(status == 2 && told.contains(missing), "{told}");
        // What needs none of it is answered all the same.
        assert_eq!(answer(&of_agent, "shop/web", "shop/db-1", "5433")["allowed"], false);

        // Whoever may read Services, and no EndpointSlices, is told by the pods; who may not read these either, what is missing.
        for (resources, expected) in [(json!(["services", "pods"]), true), (json!(["services"]), false)] {
            cluster.apply(&role(&resources)).await.unwrap();
            let reader = cluster.kubeconfig_for_service_account("shop", "reader").await.unwrap();
            let (status, text, told) = explain(&reader, &["shop/web", "svc/shop/db", "15432"]);
            let right = "list endpointslices.discovery.k8s.io in namespace shop";
            if expected {
                // No pod declares a port named sql, so nobody is behind it by the selector.
                assert!(
                    status == 2 && told.contains("no pod with an address of IPv4 stands behind it"),
                    "{text}{told}"
                );
            } else {
                assert!(status == 2 && told.contains(right) && told.contains("list pods in namespace shop"), "{told}");
            }
        }
    });
}

/// A service account of namespace `shop` that may list these resources.
fn role(resources: &Value) -> String {
    format!(
        "
apiVersion: v1
kind: ServiceAccount
metadata: {{name: reader, namespace: shop}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {{name: reader, namespace: shop}}
rules: [{{apiGroups: [''], resources: {resources}, verbs: [list]}}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {{name: reader, namespace: shop}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: Role, name: reader}}
subjects: [{{kind: ServiceAccount, name: reader, namespace: shop}}]
"
    )
}
