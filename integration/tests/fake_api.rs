//! What the fake API server has in common with the real one, held against it.

#![allow(clippy::unwrap_used, reason = "a test that cannot set up its world has failed")]

use std::path::Path;
use std::time::Duration;

use futures::{AsyncBufReadExt, StreamExt};
use http::Request;
use integration::control_plane::ControlPlane;
use integration::fake_api::FakeApi;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::{Value, json};

const NAMESPACE: &str = "{apiVersion: v1, kind: Namespace, metadata: {name: shop}}";
const PODS: &str = "
{apiVersion: v1, kind: Pod, metadata: {name: here, namespace: shop, labels: {app: web}},
 spec: {nodeName: node-1, containers: [{name: main, image: example.test/main}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: there, namespace: shop},
 spec: {nodeName: node-2, containers: [{name: main, image: example.test/main}]}}
";

async fn client(kubeconfig: &Path) -> Client {
    let kubeconfig = Kubeconfig::read_from(kubeconfig).unwrap();
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    // A refusal is what is asked for.
    config.default_retry = false;
    Client::try_from(config).unwrap()
}

fn request(query: &str) -> Request<Vec<u8>> {
    Request::get(format!("/api/v1/pods?{query}")).body(Vec::new()).unwrap()
}

/// A list without what differs between any two clusters.
async fn list(client: &Client, query: &str) -> Value {
    let text = client.request_text(request(query)).await.unwrap();
    let list: Value = serde_json::from_str(&text).unwrap();
    let names = list["items"].as_array().unwrap().iter().map(|pod| pod["metadata"]["name"].clone());
    let has_version =
        list["metadata"]["resourceVersion"].as_str().is_some_and(|version| version.parse::<u64>().is_ok());
    assert!(list["kind"].as_str().unwrap().ends_with("List"));
    json!({"names": names.collect::<Vec<_>>(), "has version": has_version})
}

/// The status of a refusal, with its message up to the first number.
async fn refusal(client: &Client, query: &str) -> (u16, String, String) {
    let error = client.request_text(request(query)).await.unwrap_err();
    let kube::Error::Api(status) = error else { panic!("{error}") };
    let message = status.message.split(|c: char| c.is_ascii_digit()).next().unwrap().trim().to_owned();
    (status.code, status.reason.clone(), message)
}

/// The events of a watch that ends by itself: type, name with the label `app`, and whether the list ends there.
async fn watch(client: &Client, query: &str) -> Vec<(String, String, bool)> {
    let mut lines =
        client.request_stream(request(&format!("watch=true&timeoutSeconds=5&{query}"))).await.unwrap().lines();
    let mut events = Vec::new();
    while let Some(line) = lines.next().await {
        let event: Value = serde_json::from_str(&line.unwrap()).unwrap();
        let metadata = &event["object"]["metadata"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let ends_list = metadata["annotations"]["k8s.io/initial-events-end"] == "true";
        let app = metadata["labels"]["app"].as_str().map(|app| format!(" {app}")).unwrap_or_default();
        events.push((text(&event["type"]), text(&metadata["name"]) + &app, ends_list));
    }
    // Idle bookmarks come as the server likes, and a real pod is marked before it is deleted.
    events.retain(|(kind, _, ends_list)| kind != "MODIFIED" && (kind != "BOOKMARK" || *ends_list));
    events
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_watches_and_refusals_are_those_of_the_real_one() {
    let real = ControlPlane::start().await.unwrap();
    let fake = FakeApi::start().await.unwrap();
    for text in [NAMESPACE, PODS] {
        real.apply(text).await.unwrap();
        fake.apply(text).unwrap();
    }
    let clients = [client(&real.kubeconfig()).await, client(&fake.kubeconfig()).await];
    let mut said = Vec::new();
    for client in &clients {
        let version = |list: &str| -> String {
            let list: Value = serde_json::from_str(list).unwrap();
            list["metadata"]["resourceVersion"].as_str().unwrap().to_owned()
        };
        let now = version(&client.request_text(request("")).await.unwrap());
        let streaming = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
        let since = format!("resourceVersion={now}");
        let of_label = format!("{streaming}&labelSelector=app%3Dweb");
        let is_deleted = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            if std::ptr::eq(client, &clients[0]) {
                real.delete_pod("shop", "there").await.unwrap();
            } else {
                fake.delete("pods", "shop", "there").unwrap();
            }
        };
        let is_relabelled = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            if std::ptr::eq(client, &clients[0]) {
                real.label_pod("shop", "here", &[("app", Some("db"))]).await.unwrap();
            } else {
                fake.apply(&PODS.split("---").next().unwrap().replace("app: web", "app: db")).unwrap();
            }
        };
        said.push((
            list(client, "").await,
            list(client, "fieldSelector=spec.nodeName%3Dnode-1").await,
            list(client, "labelSelector=app+in+%28db%2Cweb%29").await,
            watch(client, &of_label).await,
            watch(client, &format!("{streaming}&fieldSelector=spec.nodeName%3Dnode-1")).await,
            tokio::join!(watch(client, &since), is_deleted).0,
            refusal(client, "resourceVersion=99999999&resourceVersionMatch=NotOlderThan").await,
            tokio::join!(watch(client, &of_label), is_relabelled).0,
        ));
    }
    let (fake, real) = (said.pop().unwrap(), said.pop().unwrap());
    assert_eq!(fake, real);
    assert_eq!(real.5, [("DELETED".to_owned(), "there".to_owned(), false)]);
    assert_eq!(real.6.0, 504);
    let left = ("DELETED".to_owned(), "here web".to_owned(), false);
    assert_eq!(real.7.last(), Some(&left), "it is told as it was before it was relabelled");
}
