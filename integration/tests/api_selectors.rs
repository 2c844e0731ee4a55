//! The agent asks a real API server for the pods that selectors mean, and for no others.

#![allow(clippy::unwrap_used, reason = "a test that cannot set up its world has failed")]

use std::net::{IpAddr, Ipv4Addr};

use integration::agent::{Agent, install, loopback_up};
use integration::control_plane::{ControlPlane, pod};
use lab::isolated;

/// A policy of the local pod, with these peers in one rule for what it may send.
fn policy(name: &str, to: &str) -> String {
    format!(
        "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: {name}, namespace: shop}}\n\
         spec: {{podSelector: {{}}, policyTypes: [Egress], egress: [{{to: [{to}]}}]}}\n"
    )
}

const DNS: &str = "{namespaceSelector: {}, podSelector: {matchLabels: {k8s-app: kube-dns}}}";

fn address(number: u8) -> IpAddr {
    Ipv4Addr::new(10, 0, 9, number).into()
}

/// A cluster with a pod on `node-1`.
async fn cluster() -> ControlPlane {
    loopback_up().unwrap();
    let cluster = ControlPlane::start().await.unwrap();
    cluster.create_namespace("shop", &[]).await.unwrap();
    cluster.create_namespace("other", &[("team", "other")]).await.unwrap();
    cluster.run_pod(&pod("shop", "web", "node-1", &[("app", "web")]), &[address(1)]).await.unwrap();
    cluster
}

/// A pod on `node-2`.
async fn run(cluster: &ControlPlane, key: &str, labels: &[(&str, &str)], number: u8) {
    let (namespace, name) = key.split_once('/').unwrap();
    cluster.run_pod(&pod(namespace, name, "node-2", labels), &[address(number)]).await.unwrap();
}

fn has(table: &str, number: u8) -> bool {
    table.contains(&format!("{} ", address(number))) || table.contains(&format!("{},", address(number)))
}

#[test]
fn there_is_no_word_of_pods_that_no_selector_means() {
    isolated(async {
        let cluster = cluster().await;
        for number in 10..30 {
            run(&cluster, &format!("other/stranger-{number}"), &[("app", "stranger")], number).await;
        }
        run(&cluster, "kube-system/dns", &[("k8s-app", "kube-dns")], 2).await;
        cluster.apply(&policy("dns", DNS)).await.unwrap();
        let mut agent = Agent::on_api(&install(&cluster).await.unwrap()).unwrap();
        agent.ready().await.unwrap();
        agent.until_table(|table| has(table, 2)).await.unwrap();
        let (_, text) = agent.get("/readyz").await.unwrap();
        assert!(text.contains("watch: Pods with k8s-app=kube-dns: last word "), "{text}");
        let known = async || agent.metric("postern_objects{kind=\"Pod\"}").await.unwrap();
        let events = async || agent.metric("postern_events_total{kind=\"Pod\"}").await.unwrap();
        assert_eq!(
            (known().await, events().await),
            (2.0, 2.0),
            "two lists, of the node's pod and of the server for DNS"
        );

        // All that can happen to strangers, and then something to a pod that is meant.
        for number in 10..30 {
            let name = format!("stranger-{number}");
            cluster.set_pod_status("other", &name, "Running", &[address(number + 50)]).await.unwrap();
            cluster.label_pod("other", &name, &[("seen", Some("1"))]).await.unwrap();
            cluster.delete_pod("other", &name).await.unwrap();
            run(&cluster, &format!("other/{name}"), &[("app", "stranger")], number).await;
        }
        cluster.set_pod_status("kube-system", "dns", "Running", &[address(3)]).await.unwrap();
        agent.until_table(|table| has(table, 3)).await.unwrap();
        assert_eq!((known().await, events().await), (2.0, 3.0), "one change");

        // Into the selector and out of it, and a pod on its node's network that has the label.
        cluster.label_pod("other", "stranger-10", &[("k8s-app", Some("kube-dns"))]).await.unwrap();
        agent.until_table(|table| has(table, 10)).await.unwrap();
        assert_eq!(known().await, 3.0);
        cluster.label_pod("other", "stranger-10", &[("k8s-app", None)]).await.unwrap();
        agent.until_table(|table| !has(table, 10) && has(table, 3)).await.unwrap();
        let mut host = pod("kube-system", "host", "node-2", &[("k8s-app", "kube-dns")]);
        host.spec.as_mut().unwrap().host_network = Some(true);
        cluster.run_pod(&host, &[address(4)]).await.unwrap();
        cluster.set_pod_status("kube-system", "dns", "Running", &[address(5)]).await.unwrap();
        agent.until_table(|table| has(table, 5)).await.unwrap();
        assert_eq!(known().await, 2.0);

        // A pod that two watches have leaves one of them and stays in the other.
        cluster
            .apply(&policy("app", "{namespaceSelector: {}, podSelector: {matchLabels: {app: stranger}}}"))
            .await
            .unwrap();
        agent.until_table(|table| (10..30).all(|number| has(table, number))).await.unwrap();
        cluster.label_pod("other", "stranger-10", &[("k8s-app", Some("kube-dns"))]).await.unwrap();
        cluster.set_pod_status("kube-system", "dns", "Running", &[address(6)]).await.unwrap();
        agent.until_table(|table| has(table, 6)).await.unwrap();
        cluster.label_pod("other", "stranger-10", &[("app", Some("none"))]).await.unwrap();
        cluster.delete_policy("shop", "app").await.unwrap();
        agent.until_table(|table| has(table, 10) && !has(table, 11)).await.unwrap();
        cluster.delete_pod("other", "stranger-10").await.unwrap();
        agent.until_table(|table| !has(table, 10)).await.unwrap();
        assert_eq!(agent.metric("postern_watch_errors_total{kind=\"Pod\"}").await.ok(), None);
    });
}

#[test]
fn the_api_server_takes_every_selector() {
    isolated(async {
        let cluster = cluster().await;
        let labels = [("app", "db"), ("empty", ""), ("in", "x"), ("example.com/zone", "1")];
        let all = |extra: &str| format!("{{namespaceSelector: {{}}, podSelector: {{{extra}}}}}");
        let expression = |text: &str| all(&format!("matchExpressions: [{{{text}}}]"));
        let many: Vec<String> = (0..400).map(|i| format!("a-value-of-some-length-{i}")).collect();
        // What is asked for, and whether it means the pod with these labels.
        let cases = [
            (all("matchLabels: {app: db}"), true),
            (all("matchLabels: {app: db, empty: '', example.com/zone: '1'}"), true),
            (all("matchLabels: {in: x}"), true),
            (all("matchLabels: {notin: x}"), false),
            (expression("key: app, operator: In, values: ['', db, in, notin]"), true),
            (expression("key: app, operator: NotIn, values: ['', web]"), true),
            (expression("key: app, operator: NotIn, values: [db]"), false),
            (expression("key: none, operator: NotIn, values: ['']"), true),
            (expression("key: empty, operator: In, values: ['']"), true),
            (expression("key: empty, operator: Exists"), true),
            (expression("key: in, operator: Exists"), true),
            (expression("key: none, operator: DoesNotExist"), true),
            (expression("key: empty, operator: DoesNotExist"), false),
            (expression(&format!("key: app, operator: In, values: [{}, db]", many.join(", "))), true),
            (expression(&format!("key: app, operator: NotIn, values: [{}]", many.join(", "))), true),
            (all("matchExpressions: [{key: app, operator: Exists}, {key: app, operator: DoesNotExist}]"), false),
            (
                "{namespaceSelector: {matchLabels: {team: other}}, podSelector: {matchLabels: {app: db}}}".to_owned(),
                true,
            ),
            ("{podSelector: {matchLabels: {app: db}}}".to_owned(), false),
        ];
        run(&cluster, "other/db", &labels, 2).await;
        let mut agent = Agent::on_api(&install(&cluster).await.unwrap()).unwrap();
        agent.ready().await.unwrap();
        for (peer, is_meant) in cases {
            cluster.apply(&policy("web", &peer)).await.unwrap();
            let first_words: String = peer.chars().take(120).collect();
            agent.until_readyz(|code, text| code == 200 && !text.contains("the list of")).await.unwrap();
            agent
                .until_table(|table| has(table, 2) == is_meant)
                .await
                .unwrap_or_else(|error| panic!("{first_words}: {error}"));
            cluster.delete_policy("shop", "web").await.unwrap();
            agent.until_table(|table| !has(table, 2)).await.unwrap();
        }
        assert_eq!(
            agent.metric("postern_watch_errors_total{kind=\"Pod\"}").await.ok(),
            None,
            "{}",
            agent.log().unwrap()
        );
    });
}
