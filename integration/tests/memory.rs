//! What the README says of the agent's memory holds.

#![allow(clippy::unwrap_used, reason = "a test that cannot set up its world has failed")]

use std::net::Ipv4Addr;

use integration::agent::{Agent, loopback_up};
use integration::fake_api::FakeApi;
use integration::scene::policy;
use integration::usage::Usage;
use lab::isolated;

/// The README's statement, in KiB: for the agent itself, for each pod that policies speak of, for each element that they
/// write out.
const ITSELF: u64 = 32 * 1024;
const A_POD: u64 = 4;
const AN_ELEMENT: u64 = 1;
const PODS: u32 = 20_000;
const ELEMENTS: u32 = 40_000;

const POD: &str = "{apiVersion: v1, kind: Pod, metadata: {name: web, namespace: shop, labels: {app: web}}, \
    spec: {nodeName: node-1}, status: {phase: Running, podIPs: [{ip: 10.0.0.1}]}}";

fn client(n: u32) -> String {
    let labels = "{app: client, app.kubernetes.io/name: peer, tier: backend}";
    let ip = Ipv4Addr::from(0x0a_80_00_00 + n);
    format!(
        "---\n{{apiVersion: v1, kind: Pod, metadata: {{name: client-{n}, namespace: shop, labels: {labels}}}, \
         spec: {{nodeName: node-2}}, status: {{phase: Running, podIPs: [{{ip: {ip}}}]}}}}\n"
    )
}

/// The most memory of an agent that enforces this, in KiB.
async fn peak(objects: &str, last_address: &str) -> u64 {
    let api = FakeApi::start().await.unwrap();
    api.apply("{apiVersion: v1, kind: Namespace, metadata: {name: shop}}").unwrap();
    api.apply(POD).unwrap();
    api.apply(objects).unwrap();
    let mut agent = Agent::start(&["--kubeconfig", api.kubeconfig().to_str().unwrap(), "--log-level", "info"]).unwrap();
    agent.ready().await.unwrap();
    agent.until_table(|table| table.contains(last_address)).await.unwrap();
    Usage::of(agent.id()).unwrap().peak
}

#[test]
fn memory_is_bounded_by_what_policies_speak_of() {
    isolated(async {
        loopback_up().unwrap();
        let spec = "{podSelector: {matchLabels: {app: web}}, \
            ingress: [{from: [{podSelector: {matchLabels: {app: client}}}]}]}";
        let by_label = policy("shop/web", spec);
        let blocks: String = (0..ELEMENTS)
            .map(|n| format!("{{ipBlock: {{cidr: {}/32}}}},", Ipv4Addr::from(0xac_10_00_00 + 2 * n)))
            .collect();
        let spec = format!("{{podSelector: {{matchLabels: {{app: web}}}}, ingress: [{{from: [{blocks}]}}]}}");
        let by_address = policy("shop/web", &spec);
        let clients: String = (0..PODS).map(client).collect();

        let alone = peak(&(by_label.clone() + &client(0)), "10.128.0.0").await;
        let with_pods = peak(&(by_label + &clients), &Ipv4Addr::from(0x0a_80_00_00 + PODS - 1).to_string()).await;
        let last = Ipv4Addr::from(0xac_10_00_00 + 2 * (ELEMENTS - 1)).to_string();
        let with_elements = peak(&by_address, &last).await;
        let told = format!("{alone} KiB alone, {with_pods} with {PODS} pods, {with_elements} with {ELEMENTS} elements");
        assert!(alone <= ITSELF, "{told}");
        assert!(with_pods.saturating_sub(alone) <= A_POD * u64::from(PODS), "{told}");
        assert!(with_elements.saturating_sub(alone) <= AN_ELEMENT * u64::from(ELEMENTS), "{told}");
    });
}
