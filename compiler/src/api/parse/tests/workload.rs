//! Deployments and the like.

use serde_json::{Value, json};

use super::super::parse;
use super::texts;
use crate::api::{Item, Phase, PodCount, Protocol, Workload};

#[track_caller]
fn workload(api_version: &str, kind: &str, spec: &Value) -> (Workload, Vec<String>) {
    let object = json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": "web", "namespace": "shop"},
        "spec": spec});
    match parse(&object.into(), "nameless").as_slice() {
        [Item::Workload(parsed)] => (parsed.value.clone(), texts(&parsed.findings, &format!("{}: ", parsed.value.key))),
        other => panic!("one workload is expected, not {other:?}"),
    }
}

fn template() -> Value {
    json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"ports": [
        {"name": "http", "containerPort": 8080}, {"containerPort": 53, "protocol": "UDP"}]}]}})
}

/// A `spec` with the template and these fields.
fn spec(more: Value) -> Value {
    let mut spec = json!({"template": template()});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    spec
}

#[test]
fn the_template_is_read_as_a_pod() {
    let (web, told) = workload("apps/v1", "Deployment", &spec(json!({"selector": {"matchLabels": {"app": "web"}}})));
    assert_eq!(told, [""; 0]);
    assert_eq!((web.key.to_string(), web.count), ("Deployment shop/web".to_owned(), PodCount::These(1)));
    assert_eq!((web.template.key.to_string(), web.template.phase), ("shop/web".to_owned(), Phase::Running));
    assert_eq!(web.template.labels.get("app").map(|value| &**value), Some("web"));
    assert_eq!((&*web.template.ports[0].name, web.template.ports[0].number), ("http", 8080));
    assert_eq!(web.declared_ports, [(Protocol::Tcp, 8080), (Protocol::Udp, 53)]);
    assert!(web.selector.unwrap().matches(&web.template.labels));
}

#[test]
fn how_many_pods_there_are() {
    let count = |api_version: &str, kind: &str, more: Value| workload(api_version, kind, &spec(more)).0.count;
    assert_eq!(count("apps/v1", "Deployment", json!({"replicas": 3})), PodCount::These(3));
    assert_eq!(count("apps/v1", "StatefulSet", json!({"replicas": 0})), PodCount::These(0));
    assert_eq!(count("v1", "ReplicationController", json!({"replicas": null})), PodCount::These(1));
    assert_eq!(count("apps/v1", "DaemonSet", json!({})), PodCount::EachNode);
    assert_eq!(count("batch/v1", "Job", json!({"parallelism": 4, "completions": 2})), PodCount::These(2));
    assert_eq!(count("batch/v1", "Job", json!({"parallelism": 4})), PodCount::These(4));
    assert_eq!(count("batch/v1", "Job", json!({"suspend": true})), PodCount::Suspended);
    let cron = |more: Value| {
        let mut spec = json!({"schedule": "@daily", "jobTemplate": {"spec": spec(json!({"parallelism": 2}))}});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        workload("batch/v1", "CronJob", &spec)
    };
    let (nightly, told) = cron(json!({}));
    assert_eq!((nightly.count, told), (PodCount::These(2), Vec::new()));
    assert_eq!(nightly.template.labels.get("app").map(|value| &**value), Some("web"));
    assert_eq!(cron(json!({"suspend": true})).0.count, PodCount::Suspended);
}

#[test]
fn what_is_wrong_is_told_with_its_field() {
    let told = |kind: &str, spec: Value| workload("apps/v1", kind, &spec).1;
    assert_eq!(told("Deployment", json!({})), ["spec.template: is missing, and says what its Pods are"]);
    assert_eq!(
        told("Deployment", spec(json!({"replicas": "3", "selector": {"matchLabels": {"app": "api"}}}))),
        [
            "spec.replicas: a string where a whole number is due",
            "spec.selector: does not select the labels of the template, which the API server refuses",
        ]
    );
    assert_eq!(
        told("StatefulSet", spec(json!({"replicas": -1}))),
        ["spec.replicas: -1 is less than 0; the default is taken"]
    );
    let broken = json!({"metadata": {"labels": {"app": 1}}, "spec": {"containers": [{"ports": [
        {"name": "HTTP", "containerPort": 80}]}]}});
    let fields: Vec<String> = told("DaemonSet", json!({"template": broken}))
        .iter()
        .map(|line| line.split(": ").next().unwrap().to_owned())
        .collect();
    assert_eq!(fields, ["spec.template.metadata.labels.app", "spec.template.spec.containers[0].ports[0].name"]);
}

#[test]
fn controllers_are_owners_and_others_are_not() {
    let owner = |reference: Value| {
        let object = json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "web-5d4f-x", "namespace": "shop", "ownerReferences": [
                {"apiVersion": "v1", "kind": "ConfigMap", "name": "other"}, reference]}});
        let items = parse(&object.into(), "nameless");
        let [Item::Object { owner, .. }] = items.as_slice() else { panic!("{items:?}") };
        owner.as_ref().map(ToString::to_string)
    };
    let set = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-5d4f", "controller": true});
    assert_eq!(owner(set.clone()).as_deref(), Some("ReplicaSet shop/web-5d4f"));
    let changed = |field: &str, value: Value| {
        let mut reference = set.clone();
        reference[field] = value;
        owner(reference)
    };
    assert_eq!(changed("controller", json!(false)), None);
    assert_eq!(changed("kind", json!("Node")), None);
    assert_eq!(changed("apiVersion", json!("example.com/v1")), None);
}

#[test]
fn controllers_name_pods_and_add_labels() {
    let (db, _) = workload("apps/v1", "StatefulSet", &spec(json!({"replicas": 2})));
    let (name, labels) = db.pod_identity(1);
    assert_eq!(&*name, "web-1");
    assert_eq!(labels.get("statefulset.kubernetes.io/pod-name").map(|value| &**value), Some("web-1"));
    assert_eq!(labels.get("apps.kubernetes.io/pod-index").map(|value| &**value), Some("1"));
    assert_eq!(labels.get("app").map(|value| &**value), Some("web"));
    let (job, _) = workload("batch/v1", "Job", &spec(json!({})));
    assert_eq!(job.pod_identity(0).1.get("job-name").map(|value| &**value), Some("web"));
}
