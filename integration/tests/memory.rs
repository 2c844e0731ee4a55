//! What docs/operating.md says of the agent's memory holds.

#![allow(clippy::unwrap_used, reason = "a test that cannot set up its world has failed")]
#![allow(clippy::print_stdout, reason = "what was measured, for whoever runs the test by itself")]

use std::net::Ipv4Addr;

use integration::agent::{Agent, loopback_up};
use integration::fake_api::FakeApi;
use integration::usage::Usage;
use lab::isolated;
use serde_json::{Value, json};

/// Its statement, in KiB: for the agent itself, for each pod that policies speak of, for each element that they
/// write out.
const ITSELF: u64 = 48 * 1024;
const A_POD: u64 = 2;
const AN_ELEMENT: u64 = 2;
const PODS: u32 = 20_000;
const ELEMENTS: u32 = 40_000;

const POD: &str = "{apiVersion: v1, kind: Pod, metadata: {name: web, namespace: shop, labels: {app: web}}, \
    spec: {nodeName: node-1}, status: {phase: Running, podIPs: [{ip: 10.0.0.1}]}}";

fn client(n: u32) -> Value {
    let labels = json!({"app": "client", "app.kubernetes.io/name": "peer", "tier": "backend"});
    json!({
        "apiVersion": "v1", "kind": "Pod", "spec": {"nodeName": "node-2"},
        "metadata": {"name": format!("client-{n}"), "namespace": "shop", "labels": labels},
        "status": {"phase": "Running", "podIPs": [{"ip": Ipv4Addr::from(0x0a_80_00_00 + n)}]},
    })
}

/// A policy for the web server that lets these peers in.
fn policy(from: &Value) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"podSelector": {"matchLabels": {"app": "web"}}, "ingress": [{"from": from}]},
    })
}

/// The most memory of an agent that enforces this, up to the last address of a peer, in KiB.
async fn peak(policy: Value, pods: u32, last: Ipv4Addr) -> u64 {
    let api = FakeApi::start().await.unwrap();
    api.apply("{apiVersion: v1, kind: Namespace, metadata: {name: shop}}").unwrap();
    api.apply(POD).unwrap();
    api.put(policy).unwrap();
    (0..pods).for_each(|n| api.put(client(n)).unwrap());
    let mut agent = Agent::start(&["--kubeconfig", api.kubeconfig().to_str().unwrap(), "--log-level", "info"]).unwrap();
    agent.ready().await.unwrap();
    agent.until_table(|table| table.contains(&last.to_string())).await.unwrap();
    Usage::of(agent.id()).unwrap().peak
}

#[test]
fn memory_is_bounded_by_what_policies_speak_of() {
    isolated(async {
        loopback_up().unwrap();
        let by_label = policy(&json!([{"podSelector": {"matchLabels": {"app": "client"}}}]));
        let address = |n: u32| Ipv4Addr::from(0xac_10_00_00 + 2 * n);
        let block = |n| json!({"ipBlock": {"cidr": format!("{}/32", address(n))}});
        let by_address = policy(&(0..ELEMENTS).map(block).collect());

        let alone = peak(by_label.clone(), 1, Ipv4Addr::new(10, 128, 0, 0)).await;
        let with_pods = peak(by_label, PODS, Ipv4Addr::from(0x0a_80_00_00 + PODS - 1)).await;
        let with_elements = peak(by_address, 0, address(ELEMENTS - 1)).await;
        let told = format!("{alone} KiB alone, {with_pods} with {PODS} pods, {with_elements} with {ELEMENTS} elements");
        println!("{told}");
        assert!(alone <= ITSELF, "{told}");
        assert!(with_pods.saturating_sub(alone) <= A_POD * u64::from(PODS), "{told}");
        assert!(with_elements.saturating_sub(alone) <= AN_ELEMENT * u64::from(ELEMENTS), "{told}");
    });
}
