//! The agent against a real API server and the real kernel: what it reads, what it writes, and what it survives.

#![allow(clippy::unwrap_used, reason = "a test that cannot set up its world has failed")]

use std::net::IpAddr;
use std::time::{Duration, Instant};

use integration::agent::{Agent, install, loopback_up, nft};
use integration::control_plane::{ControlPlane, pod};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use lab::isolated;
use serde_json::json;

const POLICY: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web, namespace: shop}
spec:
  podSelector: {matchLabels: {app: web}}
  ingress:
    - from: [{namespaceSelector: {matchLabels: {team: clients}}}]
      ports: [{port: 80}]
";

fn ips(addresses: &[&str]) -> Vec<IpAddr> {
    addresses.iter().map(|address| address.parse().unwrap()).collect()
}

/// A cluster with a pod on `node-1` that a policy isolates, and peers of it on `node-2`.
async fn cluster() -> ControlPlane {
    loopback_up().unwrap();
    let cluster = ControlPlane::start().await.unwrap();
    cluster.create_namespace("shop", &[]).await.unwrap();
    cluster.create_namespace("clients", &[("team", "clients")]).await.unwrap();
    cluster.run_pod(&pod("shop", "web", "node-1", &[("app", "web")]), &ips(&["10.0.0.1", "fd00::1"])).await.unwrap();
    cluster.run_pod(&pod("clients", "one", "node-2", &[]), &ips(&["10.0.1.1"])).await.unwrap();
    cluster.apply(POLICY).await.unwrap();
    cluster
}

/// The line of the chain's declaration with its handle, which a chain keeps for its life.
fn handle(table: &str, chain: &str) -> String {
    let line = table.lines().find(|line| line.trim_start().starts_with(&format!("chain {chain} ")));
    line.unwrap_or_else(|| panic!("no chain {chain} in\n{table}")).to_owned()
}

fn table() -> String {
    nft(&["-a", "list", "table", "inet", "postern"]).unwrap()
}

/// Everything in the table, without the lines that name its owner.
fn contents(table: &str) -> Vec<&str> {
    table.lines().filter(|line| !line.starts_with("table ") && !line.starts_with("\tflags ")).collect()
}

#[test]
fn every_change_of_the_api_reaches_the_table() {
    isolated(async {
        let cluster = cluster().await;
        let mut agent = Agent::on_api(&install(&cluster).await.unwrap()).unwrap();
        agent.ready().await.unwrap();
        let first = table();
        for expected in ["10.0.0.1 comment \"shop/web\"", "fd00::1", "10.0.1.1", "NetworkPolicy shop/web"] {
            assert!(first.contains(expected), "{expected} is not in\n{first}");
        }

        // Pods elsewhere come, change their address and end.
        cluster.run_pod(&pod("clients", "two", "node-2", &[]), &ips(&["10.0.1.2"])).await.unwrap();
        agent.until_table(|table| table.contains("10.0.1.2")).await.unwrap();
        cluster.set_pod_status("clients", "two", "Running", &ips(&["10.0.1.3"])).await.unwrap();
        agent.until_table(|table| table.contains("10.0.1.3") && !table.contains("10.0.1.2")).await.unwrap();
        cluster.finish_pod("clients", "two").await.unwrap();
        agent.until_table(|table| !table.contains("10.0.1.3")).await.unwrap();

        let programmed = agent.metric("postern_programming_duration_seconds_count").await.unwrap();
        // That it has ended comes as a deletion: such pods elsewhere are not asked for.
        assert!(programmed >= 2.0, "a pod got two addresses, and {programmed} changes were counted");
        let seconds = agent.metric("postern_programming_duration_seconds_sum").await.unwrap();
        assert!(seconds < 60.0 * programmed, "{programmed} changes in {seconds} s");

        // A namespace begins and ceases to be meant.
        cluster.create_namespace("late", &[]).await.unwrap();
        cluster.run_pod(&pod("late", "three", "node-2", &[]), &ips(&["10.0.2.1"])).await.unwrap();
        cluster.label_namespace("late", &[("team", Some("clients"))]).await.unwrap();
        agent.until_table(|table| table.contains("10.0.2.1")).await.unwrap();
        cluster.label_namespace("late", &[("team", None)]).await.unwrap();
        agent.until_table(|table| !table.contains("10.0.2.1")).await.unwrap();

        // Pods here come, leave the policy by their labels, and are deleted.
        cluster.run_pod(&pod("shop", "web-2", "node-1", &[("app", "web")]), &ips(&["10.0.0.2"])).await.unwrap();
        agent.until_table(|table| table.contains("shop/web-2")).await.unwrap();
        cluster.label_pod("shop", "web-2", &[("app", Some("other"))]).await.unwrap();
        agent.until_table(|table| !table.contains("shop/web-2")).await.unwrap();
        cluster.label_pod("shop", "web-2", &[("app", Some("web"))]).await.unwrap();
        agent.until_table(|table| table.contains("shop/web-2")).await.unwrap();
        cluster.delete_pod("shop", "web-2").await.unwrap();
        agent.until_table(|table| !table.contains("shop/web-2")).await.unwrap();

        // The policy changes and goes.
        cluster.apply(&POLICY.replace("80", "8080")).await.unwrap();
        agent.until_table(|table| table.contains("8080")).await.unwrap();
        cluster.delete_policy("shop", "web").await.unwrap();
        agent.until_table(|table| !table.contains("shop/web")).await.unwrap();

        assert_eq!(agent.metric("postern_objects{kind=\"NetworkPolicy\"}").await.unwrap(), 0.0);
        assert_eq!(agent.metric("postern_objects{kind=\"LocalPod\"}").await.unwrap(), 1.0);
        assert!(agent.metric("postern_commits_total{result=\"ok\"}").await.unwrap() >= 10.0);
        assert_eq!(agent.metric("postern_watch_errors_total{kind=\"Pod\"}").await.ok(), None);
        assert_eq!(agent.get("/livez").await.unwrap().0, 200);
        let (_, text) = agent.get("/debug/table").await.unwrap();
        assert!(text.starts_with("table inet postern {"), "{text}");
    });
}

#[test]
fn pods_elsewhere_are_read_only_while_a_policy_speaks_of_them() {
    isolated(async {
        let cluster = cluster().await;
        cluster.run_pod(&pod("default", "stranger", "node-2", &[]), &ips(&["10.0.9.9"])).await.unwrap();
        let mut agent = Agent::on_api(&install(&cluster).await.unwrap()).unwrap();
        agent.ready().await.unwrap();
        assert_eq!(agent.metric("postern_objects{kind=\"Pod\"}").await.unwrap(), 2.0, "web and one");
        cluster.apply(&POLICY.replace("matchLabels: {team: clients}", "")).await.unwrap();
        agent.until_table(|table| table.contains("10.0.9.9")).await.unwrap();
        assert_eq!(agent.metric("postern_objects{kind=\"Pod\"}").await.unwrap(), 3.0, "all");
        cluster.delete_policy("shop", "web").await.unwrap();
        agent.until_table(|table| !table.contains("10.0.9.9")).await.unwrap();
        assert_eq!(agent.metric("postern_objects{kind=\"Pod\"}").await.unwrap(), 3.0, "they linger");
    });
}

#[test]
fn a_restart_keeps_the_table() {
    isolated(async {
        let cluster = cluster().await;
        let kubeconfig = install(&cluster).await.unwrap();
        let mut agent = Agent::on_api(&kubeconfig).unwrap();
        agent.ready().await.unwrap();
        let before = table();
        let took = agent.terminate().unwrap();
        assert!(took < Duration::from_secs(1), "the end took {took:?}");
        assert_eq!(contents(&table()), contents(&before), "the rules stay");

        let mut agent = Agent::on_api(&kubeconfig).unwrap();
        agent.ready().await.unwrap();
        assert_eq!(contents(&table()), contents(&before), "no handle has changed");
        assert_eq!(agent.metric("postern_commits_total{result=\"ok\"}").await.ok(), None, "nothing was written");
        drop(agent);

        // What happens meanwhile is made up for by what differs.
        cluster.run_pod(&pod("clients", "two", "node-2", &[]), &ips(&["10.0.1.2"])).await.unwrap();
        let mut agent = Agent::on_api(&kubeconfig).unwrap();
        agent.ready().await.unwrap();
        let after = table();
        assert!(after.contains("10.0.1.2"), "{after}");
        for chain in ["ingress", "egress", "deny-ingress"] {
            assert_eq!(handle(&after, chain), handle(&before, chain));
        }
    });
}

#[test]
fn without_an_api_nothing_changes_and_afterwards_everything_does() {
    isolated(async {
        let mut cluster = cluster().await;
        let mut agent = Agent::on_api(&install(&cluster).await.unwrap()).unwrap();
        agent.ready().await.unwrap();
        let before = table();
        cluster.stop();
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(table(), before);
        assert_eq!(agent.get("/readyz").await.unwrap().0, 200, "what was read stays enforced");
        assert!(agent.metric("postern_watch_errors_total{kind=\"Pod\"}").await.unwrap() > 0.0);

        // The watches go on from the version that they had come to, or are told 410 and the lists are read anew.
        cluster.restart().await.unwrap();
        cluster.delete_pod("clients", "one").await.unwrap();
        cluster.run_pod(&pod("shop", "web-2", "node-1", &[("app", "web")]), &ips(&["10.0.0.2"])).await.unwrap();
        agent.until_table(|table| table.contains("shop/web-2") && !table.contains("10.0.1.1")).await.unwrap();
        // Said when the watches have lived for some seconds.
        let begun = Instant::now();
        while !agent.log().unwrap().contains("watched again") {
            assert!(begun.elapsed() < Duration::from_secs(20), "{}", agent.log().unwrap());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
}

#[test]
fn readyz_names_what_is_missing() {
    isolated(async {
        let mut cluster = cluster().await;
        let kubeconfig = install(&cluster).await.unwrap();
        cluster.stop();
        let mut agent = Agent::on_api(&kubeconfig).unwrap();
        let without_api = |code, text: &str| {
            let policies = text.lines().find(|line| line.starts_with("waiting for the list of NetworkPolicies ("));
            code == 503 && policies.is_some_and(|line| line.to_lowercase().contains("connection refused"))
        };
        agent.until_readyz(without_api).await.unwrap();
        assert!(nft(&["list", "table", "inet", "postern"]).is_err(), "nothing is written before all is known");
        cluster.restart().await.unwrap();
        agent.ready().await.unwrap();
        drop(agent);

        // One of three lists is forbidden.
        let roles: Api<k8s_openapi::api::rbac::v1::ClusterRole> = Api::all(cluster.client());
        let less =
            json!({"rules": [{"apiGroups": [""], "resources": ["pods", "namespaces"], "verbs": ["list", "watch"]}]});
        roles.patch("postern", &PatchParams::default(), &Patch::Merge(&less)).await.unwrap();
        let mut agent = Agent::on_api(&kubeconfig).unwrap();
        agent
            .until_readyz(|code, text| {
                code == 503
                    && text.contains("list of NetworkPolicies (forbidden: ")
                    && !text.contains("list of Namespaces")
                    && text.contains("waiting for the first commit")
            })
            .await
            .unwrap();
        let took = agent.terminate().unwrap();
        assert!(took < Duration::from_secs(1), "the end took {took:?}");
    });
}

/// Replaces an object's stored form, as an old version of the API server may have left it.
async fn annotate(client: Client, annotation: &str) {
    let namespaces: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(client);
    let patch = json!({"metadata": {"annotations": {"net.beta.kubernetes.io/network-policy": annotation}}});
    namespaces.patch("clients", &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
}

#[test]
fn the_annotation_of_kubernetes_1_3_counts_only_if_asked() {
    isolated(async {
        let cluster = cluster().await;
        cluster.run_pod(&pod("clients", "here", "node-1", &[]), &ips(&["10.0.0.9"])).await.unwrap();
        annotate(cluster.client(), r#"{"ingress":{"isolation":"DefaultDeny"}}"#).await;
        let kubeconfig = install(&cluster).await.unwrap();
        let kubeconfig = kubeconfig.to_str().unwrap();
        let mut agent = Agent::start(&["--kubeconfig", kubeconfig]).unwrap();
        agent.ready().await.unwrap();
        assert!(!table().contains("clients/here"), "{}", table());
        drop(agent);
        let mut agent = Agent::start(&["--kubeconfig", kubeconfig, "--legacy-namespace-isolation"]).unwrap();
        agent.ready().await.unwrap();
        assert!(table().contains("clients/here"), "{}", table());
        annotate(cluster.client(), "{}").await;
        agent.until_table(|table| !table.contains("clients/here")).await.unwrap();
    });
}
