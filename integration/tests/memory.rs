//! What the README says of the agent's memory holds.

#![allow(clippy::unwrap_used, reason = "a test that cannot set up its world has failed")]

use std::net::{IpAddr, Ipv4Addr};

use futures::future::try_join_all;
use integration::agent::{Agent, install, loopback_up};
use integration::control_plane::{ControlPlane, pod};
use integration::scene::policy;
use integration::usage::Usage;
use lab::isolated;

/// The README's statement, in KiB: for the agent itself, and for each pod that policies speak of.
const ITSELF: u64 = 64 * 1024;
const A_POD: u64 = 4;
const PODS: u32 = 2_000;
/// How many requests are under way while the cluster is filled.
const REQUESTS: u32 = 32;

#[test]
fn memory_is_bounded_by_what_policies_speak_of() {
    isolated(async {
        loopback_up().unwrap();
        let cluster = ControlPlane::start().await.unwrap();
        cluster.create_namespace("shop", &[]).await.unwrap();
        let address = |n: u32| IpAddr::V4(Ipv4Addr::from(0x0a_80_00_00 + n));
        cluster.run_pod(&pod("shop", "web", "node-1", &[("app", "web")]), &[address(PODS)]).await.unwrap();
        let spec = "{podSelector: {matchLabels: {app: web}}, ingress: [{from: [{podSelector: {matchLabels: {app: client}}}]}]}";
        cluster.apply(&policy("shop/web", spec)).await.unwrap();
        for first in (0..PODS).step_by(REQUESTS as usize) {
            let runs = (first..PODS.min(first + REQUESTS)).map(async |n| {
                let labels = [("app", "client"), ("app.kubernetes.io/name", "peer"), ("tier", "backend")];
                cluster.run_pod(&pod("shop", &format!("client-{n}"), "node-2", &labels), &[address(n)]).await
            });
            try_join_all(runs).await.unwrap();
        }

        let mut agent = Agent::on_api(&install(&cluster).await.unwrap()).unwrap();
        agent.ready().await.unwrap();
        agent.until_table(|table| table.contains(&address(PODS - 1).to_string())).await.unwrap();
        assert_eq!(agent.metric("postern_objects{kind=\"Pod\"}").await.unwrap(), f64::from(PODS + 1));
        let Usage { peak, .. } = Usage::of(agent.id()).unwrap();
        assert!(peak <= ITSELF + A_POD * u64::from(PODS), "{peak} KiB for {PODS} pods");
    });
}
