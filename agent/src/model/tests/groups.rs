//! Questions between workloads and namespaces.

use super::*;
use crate::explanation::{Explained, explain};
use crate::files::load;

/// Two Deployments, a StatefulSet of which a policy opens one pod, and a Job that is done.
const SHOP: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec: {replicas: 2, selector: {matchLabels: {app: web}}, template: {metadata: {labels: {app: web}}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: idle, namespace: shop}
spec: {replicas: 0, selector: {matchLabels: {app: idle}}, template: {metadata: {labels: {app: idle}}}}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db, namespace: shop}
spec: {replicas: 3, selector: {matchLabels: {app: db}}, template: {metadata: {labels: {app: db}}, spec: {containers: [{name: m,
  ports: [{name: sql, containerPort: 5432}]}]}}}
---
apiVersion: v1
kind: Service
metadata: {name: db, namespace: shop}
spec: {selector: {app: db}, ports: [{port: 5432, targetPort: sql}]}
---
apiVersion: v1
kind: Pod
metadata: {name: batch-x, namespace: jobs, ownerReferences: [{apiVersion: batch/v1, kind: Job, name: batch, controller: true}]}
status: {phase: Succeeded, podIP: 10.9.9.9}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: db, namespace: shop}
spec: {podSelector: {matchLabels: {app: db}}, ingress: []}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: first, namespace: shop}
spec: {podSelector: {matchLabels: {statefulset.kubernetes.io/pod-name: db-0}}, ingress: [{ports: [{port: sql}]}]}
";

fn shop() -> Model {
    loaded(SHOP)
}

fn loaded(yaml: &str) -> Model {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("shop.yaml");
    std::fs::write(&file, yaml).unwrap();
    let loaded = load(&[file]);
    assert_eq!((loaded.errors.len(), &loaded.findings[..]), (0, &[][..]));
    let reserved = BTreeSet::new();
    let openings = Openings { without_address: &loaded.without_address, reserved: &reserved, unready: &loaded.unready };
    Model::with(&loaded.objects, &openings, loaded.workloads, Deny::default())
}

fn explained(model: &Model, from: &str, to: &str, port: &str) -> Result<Explained, String> {
    explain(model, &Probe::from_words(from, to, port).unwrap()).map_err(|error| error.to_string())
}

#[test]
fn pods_of_workloads_are_asked_one_by_one() {
    let shop = shop();
    let summary = |from: &str, to: &str| explained(&shop, from, to, "5432").unwrap().answer.summary();
    assert_eq!(summary("shop/web-0", "sts/shop/db"), "3 pods: 1 allowed, 2 refused");
    assert_eq!(summary("deploy/shop/web", "pod/shop/db-0"), "2 pods: 2 allowed");
    assert_eq!(summary("deployment/shop/web", "statefulsets/shop/db"), "6 flows: 2 allowed, 4 refused");
    assert_eq!(summary("deploy/shop/web", "svc/shop/db"), "6 flows: 2 allowed, 4 refused");
    assert_eq!(summary("deploy/shop/web", "deploy/shop/web"), "2 flows: 2 allowed", "no pod to itself");
    assert_eq!(summary("ns/shop", "namespace/shop"), "20 flows: 12 allowed, 8 refused");
    assert_eq!(summary("sts/shop/db", "203.0.113.9"), "3 pods: 3 allowed");
    let one = explained(&shop, "shop/web-0", "sts/shop/db", "5432").unwrap().answer;
    let ends: Vec<_> = one.endpoints.iter().map(|end| (end.client.as_deref(), &*end.endpoint, end.allowed)).collect();
    assert_eq!(ends, [(None, "shop/db-0", true), (None, "shop/db-1", false), (None, "shop/db-2", false)]);
    let both = explained(&shop, "deploy/shop/web", "pod/shop/db-1", "5432").unwrap().answer;
    let clients: Vec<_> = both.endpoints.iter().map(|end| end.client.as_deref()).collect();
    assert_eq!(clients, [Some("shop/web-0"), Some("shop/web-1")]);
}

#[test]
fn a_pod_that_has_no_way_is_told() {
    let nodes = "---\n{apiVersion: v1, kind: Node, metadata: {name: n1}}\n---\n{apiVersion: v1, kind: Node, metadata: {name: n2}}\n";
    let near = "---\napiVersion: v1\nkind: Service\nmetadata: {name: near, namespace: shop}\nspec: {selector: \
                {apps.kubernetes.io/pod-index: '0'}, internalTrafficPolicy: Local, ports: [{port: 80}]}\n";
    let shop = loaded(&format!("{SHOP}{nodes}{near}"));
    let answer = explained(&shop, "deploy/shop/web", "svc/shop/near", "80").unwrap().answer;
    assert_eq!(answer.summary(), "1 pod: 1 refused");
    let told = "1 of 2 are not answered, and may not pass: Service shop/near has no endpoint for this: none of its 1 endpoints is on node \
                n2, and internalTrafficPolicy is Local; its traffic goes nowhere";
    assert_eq!(answer.notes, [told]);
}

#[test]
fn workloads_without_pods_and_others_are_told() {
    let shop = shop();
    let why = |to: &str| explained(&shop, "shop/web-0", to, "5432").unwrap_err();
    assert_eq!(why("deploy/shop/idle"), "Deployment shop/idle has no pods: its replicas is 0");
    assert_eq!(why("job/jobs/batch"), "Job jobs/batch has no pods: all have ended, or have no address");
    assert_eq!(why("deploy/shop/wob"), "there is no Deployment shop/wob; did you mean shop/web?");
    assert_eq!(why("deploy/web"), "there is no Deployment default/web; did you mean shop/web?");
    assert_eq!(why("ds/shop/web"), "there is no DaemonSet shop/web");
    assert_eq!(why("ns/shops"), "there is no namespace shops; did you mean shop?");
    assert_eq!(
        why("ns/jobs"),
        "namespace jobs has no pods: all have ended, are on the host network, or have no address"
    );
}
