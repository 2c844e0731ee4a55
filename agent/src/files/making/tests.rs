//! What a cluster would make of the workloads of manifests.

use std::path::PathBuf;

use compiler::api::{Object, Pod};

use crate::files::memory::Memory;
use crate::files::{Loaded, Reach, load};

fn loaded(yaml: &str) -> Loaded {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("chart.yaml");
    std::fs::write(&file, yaml).unwrap();
    let loaded = load(&[file]);
    assert!(loaded.errors.is_empty() && loaded.findings.is_empty(), "{:?} {:?}", loaded.errors, loaded.findings);
    loaded
}

/// A workload in namespace `shop`; `more` are fields of its `spec`.
fn workload(kind: &str, name: &str, more: &str) -> String {
    let api = if kind == "Job" { "batch/v1" } else { "apps/v1" };
    let selector = if kind == "Job" { String::new() } else { format!("selector: {{matchLabels: {{app: {name}}}}},") };
    format!(
        "---\napiVersion: {api}\nkind: {kind}\nmetadata: {{name: {name}, namespace: shop}}\nspec: {{{more} {selector} \
         template: {{metadata: {{labels: {{app: {name}}}}}, spec: {{containers: [{{name: m, ports: [{{containerPort: 80}}]}}]}}}}}}\n"
    )
}

/// `name@node` of each Pod.
fn pods(loaded: &Loaded) -> Vec<String> {
    let pod = |object: &Object| if let Object::Pod(pod) = object { Some(shown(pod)) } else { None };
    loaded.objects.iter().filter_map(pod).collect()
}

fn shown(pod: &Pod) -> String {
    format!("{}@{}", pod.key.name, pod.node.as_ref().map_or("-", |node| &node.0))
}

fn notes(loaded: &Loaded) -> Vec<String> {
    loaded.notes.iter().map(ToString::to_string).collect()
}

const NODES: &str = "---\n{apiVersion: v1, kind: Node, metadata: {name: n1}}\n---\n{apiVersion: v1, kind: Node, metadata: {name: n2}}\n";

#[test]
fn pods_are_spread_over_the_nodes() {
    let chart = workload("Deployment", "web", "replicas: 3,") + &workload("DaemonSet", "log", "") + NODES;
    let loaded = loaded(&chart);
    assert_eq!(pods(&loaded), ["log-0@n1", "log-1@n2", "web-0@n1", "web-1@n2", "web-2@n1"]);
    assert_eq!(loaded.declared_ports.len(), 5);
    assert!(loaded.objects.iter().any(|object| object.reference().to_string() == "Namespace shop"));
    let without_nodes = self::loaded(&workload("DaemonSet", "log", ""));
    assert_eq!(pods(&without_nodes), ["log-0@-"]);
}

#[test]
fn what_makes_no_pods_is_told() {
    let web = loaded(&(workload("Deployment", "web", "replicas: 0,") + &workload("Job", "load", "suspend: true,")));
    assert_eq!(pods(&web), [""; 0]);
    let told = [
        "Deployment shop/web makes no pods: its replicas is 0",
        "Job shop/load makes no pods: it is suspended (spec.suspend)",
    ];
    assert_eq!(notes(&web), told);
    let many = loaded(&workload("Deployment", "web", "replicas: 5000000000,"));
    assert_eq!(pods(&many).len(), 100);
    assert_eq!(notes(&many), ["Deployment shop/web: of its 4294967295 pods, which are alike, 100 are made"]);
}

#[test]
fn pods_that_are_there_are_not_made_again() {
    let pod = |name: &str, labels: &str, owner: &str| {
        format!(
            "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: shop, labels: {{{labels}}}, ownerReferences: [{owner}]}}\n"
        )
    };
    let owned = "{apiVersion: apps/v1, kind: ReplicaSet, name: web-5d4f, controller: true}";
    // As `kubectl get deployments,replicasets,pods -o yaml` shows them.
    let set = workload("ReplicaSet", "web-5d4f", "replicas: 2,").replace(
        "{name: web-5d4f, namespace: shop}",
        "{name: web-5d4f, namespace: shop, ownerReferences: [{apiVersion: apps/v1, kind: Deployment, name: web, controller: true}]}",
    );
    let dump = workload("Deployment", "web", "replicas: 2,") + &set;
    let loaded = self::loaded(&(dump.clone() + &pod("web-5d4f-x", "app: web", owned)));
    assert_eq!(pods(&loaded), ["web-5d4f-x@-"]);
    // Without them the Deployment makes its own, and the set none beside.
    assert_eq!(pods(&self::loaded(&dump)), ["web-0@-", "web-1@-"]);
    // Pods that people write beside a Deployment are those that it would take over.
    let adopted = self::loaded(&(workload("Deployment", "web", "replicas: 2,") + &pod("mine", "app: web", "")));
    assert_eq!(pods(&adopted), ["mine@-"]);
    let other = self::loaded(&(workload("Deployment", "web", "") + &pod("web-0", "app: other", "")));
    assert_eq!(pods(&other), ["web-0@-", "web-deployment-0@-"], "a name that is taken is not taken again");
}

#[test]
fn an_agent_makes_none() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("chart.yaml"), workload("Deployment", "web", "")).unwrap();
    let paths: [PathBuf; 1] = [folder.path().to_owned()];
    let in_force = Memory::default().read(&paths, Reach { recursive: true, pipes: false });
    assert_eq!((pods(&in_force.loaded), in_force.faults), (Vec::<String>::new(), Vec::<String>::new()));
    let told = notes(&in_force.loaded);
    assert!(
        told[0].ends_with("Deployment shop/web: its Pods are not made from it, and policies are about Pods; skipped"),
        "{told:?}"
    );
}
