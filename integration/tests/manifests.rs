//! The manifests install on a real API server, and give the agent the rights that it needs and no others.

#![allow(clippy::unwrap_used, reason = "a test that cannot set up its world has failed")]

use std::collections::BTreeSet;
use std::env;
use std::fmt::Debug;
use std::fs;
use std::path::PathBuf;

use integration::control_plane::{ControlPlane, pod};
use integration::repository::{self, render};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node, Pod, Secret, Service};
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchParams};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use serde_json::json;

fn manifests() -> PathBuf {
    repository::root().join("manifests")
}

/// The base, and every overlay that there is.
fn installs() -> Vec<PathBuf> {
    let overlays = fs::read_dir(manifests().join("overlays")).expect("the manifests have overlays");
    let overlays = overlays.map(|entry| entry.expect("the folder of overlays can be read").path());
    let mut installs: Vec<PathBuf> = overlays.chain([manifests().join("base")]).collect();
    installs.sort();
    installs
}

#[test]
fn rendered_install_is_that_of_the_base() {
    let path = manifests().join("install.yaml");
    let rendered = render(&manifests().join("base")).unwrap();
    if env::var_os("UPDATE_EXPECT").is_some() {
        fs::write(&path, &rendered).unwrap();
    }
    let stored = fs::read_to_string(&path).unwrap();
    assert!(stored == rendered, "manifests/install.yaml is not what manifests/base makes; run `make manifests`");
}

#[test]
fn the_image_is_of_this_version() {
    let image = format!("image: postern:{}\n", env!("CARGO_PKG_VERSION"));
    for install in installs() {
        let rendered = render(&install).unwrap();
        assert!(rendered.contains(&image), "{} does not name the {image}", install.display());
    }
}

#[tokio::test]
async fn every_install_is_accepted_strictly() {
    let control_plane = ControlPlane::start().await.unwrap();
    let agents: Api<DaemonSet> = Api::namespaced(control_plane.client(), "kube-system");
    for install in installs() {
        control_plane.apply(&render(&install).unwrap()).await.unwrap();
        // The server has validated the template as a Pod; these are what it does not know to be wanted.
        let spec = agents.get("postern").await.unwrap().spec.unwrap().template.spec.unwrap();
        let container = &spec.containers[0];
        let security = container.security_context.clone().unwrap();
        let capabilities = security.capabilities.unwrap();
        assert_eq!((spec.host_network, spec.containers.len()), (Some(true), 1), "{}", install.display());
        assert_eq!(spec.init_containers.iter().flatten().count(), 0);
        // What is mounted of the host is one folder, and nothing in it can be changed.
        // Besides there is a folder of the pod's own.
        let of_host = |name: &str| spec.volumes.iter().flatten().find(|of| of.name == name).unwrap().host_path.as_ref();
        let mounts = container.volume_mounts.iter().flatten();
        let mounts: Vec<_> =
            mounts.map(|of| (of_host(&of.name).map(|host| host.path.as_str()), of.read_only)).collect();
        assert_eq!(mounts, [(Some("/var/lib/cni"), Some(true)), (None, None)]);
        assert_eq!(spec.volumes.iter().flatten().count(), 2);
        assert_eq!(
            (capabilities.drop.unwrap(), capabilities.add.unwrap()),
            (vec!["ALL".into()], vec!["NET_ADMIN".into()])
        );
        assert_eq!((security.privileged, security.allow_privilege_escalation), (Some(false), Some(false)));
        assert_eq!(security.read_only_root_filesystem, Some(true));
        let probes = [container.liveness_probe.clone().unwrap(), container.readiness_probe.clone().unwrap()];
        assert_eq!(probes.map(|probe| probe.http_get.unwrap().path.unwrap()), ["/livez", "/readyz"]);
        agents.delete("postern", &DeleteParams::default()).await.unwrap();
    }
}

/// The call goes through.
#[track_caller]
fn granted<T: Debug>(what: &str, answer: kube::Result<T>) {
    assert!(answer.is_ok(), "{what}: {answer:?}");
}

/// RBAC refuses the call.
#[track_caller]
fn refused<T: Debug>(what: &str, answer: kube::Result<T>) {
    let forbidden = matches!(&answer, Err(kube::Error::Api(status)) if status.code == 403);
    assert!(forbidden, "{what}: {answer:?}");
}

async fn can_list_and_watch<K>(client: &Client)
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let api: Api<K> = Api::all(client.clone());
    let kind = K::kind(&());
    granted(&format!("list {kind}"), api.list(&ListParams::default()).await);
    granted(&format!("watch {kind}"), api.watch(&WatchParams::default(), "0").await.map(drop));
}

async fn cannot_list<K>(client: &Client)
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    refused(&format!("list {}", K::kind(&())), Api::<K>::all(client.clone()).list(&ListParams::default()).await);
}

async fn cannot_delete_or_change<K>(client: &Client, name: &str)
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
{
    let api: Api<K> = Api::namespaced(client.clone(), "default");
    let patch = Patch::Merge(json!({"metadata": {"labels": {"app": "other"}}}));
    refused(&format!("patch {name}"), api.patch(name, &PatchParams::default(), &patch).await);
    refused(&format!("delete {name}"), api.delete(name, &DeleteParams::default()).await.map(drop));
}

#[tokio::test]
async fn the_agent_lists_and_watches_and_only_creates_events() {
    let control_plane = ControlPlane::start().await.unwrap();
    control_plane.apply_path(&manifests().join("install.yaml")).await.unwrap();
    control_plane.create_pod(&pod("default", "web", "node-1", &[])).await.unwrap();
    let client = control_plane.client_for_service_account("kube-system", "postern").await.unwrap();

    can_list_and_watch::<Pod>(&client).await;
    can_list_and_watch::<Namespace>(&client).await;
    can_list_and_watch::<NetworkPolicy>(&client).await;
    granted("list Nodes", Api::<Node>::all(client.clone()).list(&ListParams::default()).await);
    refused("get a namespace", Api::<Namespace>::all(client.clone()).get("default").await);
    cannot_list::<Secret>(&client).await;
    cannot_list::<ConfigMap>(&client).await;
    cannot_list::<Service>(&client).await;
    cannot_delete_or_change::<Pod>(&client, "web").await;
    cannot_delete_or_change::<NetworkPolicy>(&client, "any").await;
    let event: Event = serde_json::from_value(json!({"metadata": {"generateName": "postern-"}, "type": "Warning",
        "eventTime": "2026-01-01T00:00:00.000000Z", "reportingController": "postern", "reportingInstance": "node-1",
        "action": "Enforce", "reason": "Quarantined"}))
    .unwrap();
    let events: Api<Event> = Api::namespaced(client.clone(), "default");
    granted("create an Event", events.create(&PostParams::default(), &event).await.map(drop));
    cannot_list::<Event>(&client).await;
    let pods: Api<Pod> = Api::namespaced(client, "default");
    refused("create a pod", pods.create(&PostParams::default(), &pod("default", "new", "node-1", &[])).await);
}

#[tokio::test]
async fn the_role_reads_four_resources_and_writes_events() {
    let control_plane = ControlPlane::start().await.unwrap();
    control_plane.apply_path(&manifests().join("install.yaml")).await.unwrap();
    let roles: Api<ClusterRole> = Api::all(control_plane.client());
    let rules: Vec<PolicyRule> = roles.get("postern").await.unwrap().rules.unwrap();
    let lines: BTreeSet<String> = rules
        .iter()
        .flat_map(|rule| {
            let groups = rule.api_groups.iter().flatten();
            let resources =
                groups.flat_map(|group| rule.resources.iter().flatten().map(move |r| format!("{r}.{group}")));
            resources.map(|resource| format!("{resource}: {}", rule.verbs.join(" ")))
        })
        .collect();
    assert_eq!(
        lines.into_iter().collect::<Vec<_>>(),
        [
            "events.events.k8s.io: create",
            "namespaces.: list watch",
            "networkpolicies.networking.k8s.io: list watch",
            "nodes.: list",
            "pods.: list watch",
        ]
    );
}
