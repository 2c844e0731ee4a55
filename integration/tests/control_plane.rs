//! The API server of the tests behaves as a cluster's does, in what the other tests rely on.

#![allow(clippy::unwrap_used, reason = "a test that cannot set up its world has failed")]

use std::net::IpAddr;
use std::time::Duration;

use futures::StreamExt;
use integration::control_plane::{ControlPlane, Options, pod};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{ListParams, VersionMatch, WatchEvent, WatchParams};
use kube::{Api, Client, ResourceExt};

const POLICY: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web, namespace: default}
spec:
  podSelector: {}
  ingress: [{ports: [{port: 80}]}]
";

/// The status code with which the server refused.
fn refusal<T: std::fmt::Debug>(answer: kube::Result<T>) -> u16 {
    let Err(kube::Error::Api(status)) = answer else { panic!("not a refusal by the server: {answer:?}") };
    status.code
}

async fn policy(client: Client) -> NetworkPolicy {
    Api::namespaced(client, "default").get("web").await.expect("the policy can be read")
}

#[tokio::test]
async fn the_server_fills_in_the_defaults() {
    let control_plane = ControlPlane::start().await.unwrap();
    control_plane.apply(POLICY).await.unwrap();
    control_plane.create_namespace("shop", &[("team", "a")]).await.unwrap();

    let spec = policy(control_plane.client()).await.spec.unwrap();
    assert_eq!(spec.policy_types.unwrap(), ["Ingress"]);
    assert_eq!(spec.ingress.unwrap()[0].ports.as_ref().unwrap()[0].protocol.as_deref(), Some("TCP"));
    let namespace: Namespace = Api::all(control_plane.client()).get("shop").await.unwrap();
    assert_eq!(namespace.labels()["kubernetes.io/metadata.name"], "shop");
    assert_eq!(namespace.labels()["team"], "a");
    let version = control_plane.client().apiserver_version().await.unwrap();
    assert_eq!((version.major.as_str(), version.minor.as_str()), ("1", "36"));
}

#[tokio::test]
async fn a_restart_keeps_objects_and_tokens() {
    let mut control_plane = ControlPlane::start().await.unwrap();
    control_plane.apply(POLICY).await.unwrap();
    control_plane.apply(READER).await.unwrap();
    let reader = control_plane.client_for_service_account("default", "reader").await.unwrap();
    let before = policy(control_plane.client()).await;

    control_plane.stop();
    let silence = Api::<Pod>::default_namespaced(reader.clone()).list(&ListParams::default()).await;
    assert!(!matches!(silence, Ok(_) | Err(kube::Error::Api(_))), "a stopped server answered: {silence:?}");

    control_plane.restart().await.unwrap();
    assert_eq!(policy(control_plane.client()).await, before);
    assert_eq!(policy(reader).await, before);
}

const READER: &str = "
apiVersion: v1
kind: ServiceAccount
metadata: {name: reader, namespace: default}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: reader, namespace: default}
rules: [{apiGroups: [networking.k8s.io], resources: [networkpolicies], verbs: [get]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: reader, namespace: default}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: reader}
subjects: [{kind: ServiceAccount, name: reader, namespace: default}]
";

#[tokio::test]
async fn a_service_account_has_the_rights_of_its_role_only() {
    let control_plane = ControlPlane::start().await.unwrap();
    control_plane.apply(POLICY).await.unwrap();
    control_plane.apply(READER).await.unwrap();
    let reader = control_plane.client_for_service_account("default", "reader").await.unwrap();

    policy(reader.clone()).await;
    let policies: Api<NetworkPolicy> = Api::default_namespaced(reader.clone());
    assert_eq!(refusal(policies.list(&ListParams::default()).await), 403);
    let pods: Api<Pod> = Api::all(reader);
    assert_eq!(refusal(pods.list(&ListParams::default()).await), 403);
}

#[tokio::test]
async fn strict_validation_refuses_what_the_api_does_not_know() {
    let control_plane = ControlPlane::start().await.unwrap();
    let misspelt = POLICY.replace("podSelector", "podselector");
    let error = format!("{:#}", control_plane.apply(&misspelt).await.unwrap_err());
    assert!(error.contains("NetworkPolicy web") && error.contains("podselector"), "{error}");
    let unknown = POLICY.replace("NetworkPolicy", "NetworkPolitics");
    let error = format!("{:#}", control_plane.apply(&unknown).await.unwrap_err());
    assert!(error.contains("NetworkPolitics web"), "{error}");
}

#[tokio::test]
async fn a_test_plays_kubelet() {
    let control_plane = ControlPlane::start().await.unwrap();
    let pods: Api<Pod> = Api::namespaced(control_plane.client(), "shop");
    let addresses: [IpAddr; 2] = ["10.0.0.7".parse().unwrap(), "fd00::7".parse().unwrap()];
    let status = |pod: &Pod| pod.status.clone().unwrap();
    let ips = |pod: &Pod| -> Vec<String> { status(pod).pod_ips.iter().flatten().map(|ip| ip.ip.clone()).collect() };
    control_plane.create_namespace("shop", &[]).await.unwrap();

    control_plane.run_pod(&pod("shop", "web", "node-1", &[("app", "web")]), &addresses).await.unwrap();
    let web = pods.get("web").await.unwrap();
    assert_eq!(web.spec.as_ref().unwrap().node_name.as_deref(), Some("node-1"));
    assert_eq!(
        (status(&web).phase.as_deref(), ips(&web)),
        (Some("Running"), vec!["10.0.0.7".into(), "fd00::7".into()])
    );

    control_plane.set_host_addresses("shop", "web", &["192.0.2.1".parse().unwrap()]).await.unwrap();
    control_plane.set_pod_status("shop", "web", "Running", &["10.0.0.8".parse().unwrap()]).await.unwrap();
    control_plane.label_pod("shop", "web", &[("app", None), ("tier", Some("front"))]).await.unwrap();
    let web = pods.get("web").await.unwrap();
    assert_eq!((status(&web).host_ip.as_deref(), ips(&web)), (Some("192.0.2.1"), vec!["10.0.0.8".into()]));
    assert_eq!(web.labels().iter().collect::<Vec<_>>(), [(&"tier".to_owned(), &"front".to_owned())]);

    control_plane.terminate_pod("shop", "web").await.unwrap();
    assert!(pods.get("web").await.unwrap().metadata.deletion_timestamp.is_some());
    control_plane.finish_pod("shop", "web").await.unwrap();
    let web = pods.get("web").await.unwrap();
    assert_eq!((status(&web).phase.as_deref(), ips(&web)), (Some("Succeeded"), vec!["10.0.0.8".into()]));
    control_plane.delete_pod("shop", "web").await.unwrap();
    assert_eq!(pods.get_opt("web").await.unwrap(), None);
}

#[tokio::test]
async fn a_namespace_goes_with_what_is_in_it() {
    let control_plane = ControlPlane::start().await.unwrap();
    control_plane.create_namespace("shop", &[]).await.unwrap();
    control_plane.label_namespace("shop", &[("team", Some("b"))]).await.unwrap();
    control_plane.apply(&POLICY.replace("default", "shop")).await.unwrap();
    control_plane.create_pod(&pod("shop", "web", "node-1", &[])).await.unwrap();

    control_plane.delete_namespace("shop").await.unwrap();
    let client = control_plane.client();
    assert_eq!(Api::<Namespace>::all(client.clone()).get_opt("shop").await.unwrap(), None);
    assert_eq!(Api::<Pod>::all(client.clone()).list(&ListParams::default()).await.unwrap().items, []);
    assert_eq!(Api::<NetworkPolicy>::all(client).list(&ListParams::default()).await.unwrap().items, []);
}

#[tokio::test]
async fn old_revisions_expire() {
    let options = Options { compaction: Duration::from_millis(500), ..Options::default() };
    let control_plane = ControlPlane::start_with(options).await.unwrap();
    let namespaces: Api<Namespace> = Api::all(control_plane.client());
    let old = namespaces.list(&ListParams::default()).await.unwrap().metadata.resource_version.unwrap();
    let exact = ListParams::default().at(&old).matching(VersionMatch::Exact);
    let mut tick = 0;
    // Each interval forgets what was current at its start, so something must change meanwhile.
    while namespaces.list(&exact).await.is_ok() {
        assert!(tick < 120, "revision {old} is still there after 30 s");
        control_plane.create_namespace(&format!("tick-{tick}"), &[]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(250)).await;
        tick += 1;
    }
    assert_eq!(refusal(namespaces.list(&exact).await), 410);
}

#[tokio::test]
async fn a_watch_from_before_a_restart_is_told_to_list_again() {
    let mut control_plane = ControlPlane::start().await.unwrap();
    let namespaces: Api<Namespace> = Api::all(control_plane.client());
    let old = namespaces.list(&ListParams::default()).await.unwrap().metadata.resource_version.unwrap();
    control_plane.create_namespace("shop", &[]).await.unwrap();
    control_plane.restart().await.unwrap();

    let mut events = namespaces.watch(&WatchParams::default(), &old).await.unwrap().boxed();
    let event = events.next().await.unwrap().unwrap();
    let WatchEvent::Error(status) = event else { panic!("not an error: {event:?}") };
    assert_eq!(status.code, 410);
}
