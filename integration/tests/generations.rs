//! While the kernel switches from one generation of the rules to the next, no packet finds a gap between the two.
//!
//! The gap would be some hundred nanoseconds wide, so it takes many packets and many changes to hit it.

#![allow(clippy::unwrap_used, reason = "a test that cannot set up its world has failed")]

use std::net::SocketAddr;
use std::time::Duration;

use compiler::nft::Family;
use integration::live::{Echo, Hammer, Live, Protection};
use integration::scene::{pod, policy};
use lab::{Attachment, isolated};

/// How often the policies of the pod change. With the gap, some dozens of packets arrive.
const CHANGES: usize = 1_500;
/// How many clients ask as fast as they can.
const CLIENTS: usize = 2;

#[test]
fn a_pod_is_never_open_while_its_policies_change() {
    isolated(async {
        let cluster = pod("shop/web", "node-1", "app: web", "") + &pod("shop/visitor", "node-1", "app: visitor", "");
        let deny = policy("shop/deny", "{podSelector: {matchLabels: {app: web}}, policyTypes: [Ingress]}");
        let mut live = Live::start(&(cluster + &deny), Attachment::Routed, Protection::Owned).await.unwrap();
        live.settled().await.unwrap();
        let [web, visitor] = ["shop/web", "shop/visitor"].map(|name| live.endpoint(name, Family::V4).unwrap());
        let echo = Echo::start(&web, 9).unwrap();
        let to = SocketAddr::new(web.address, 9);
        let clients: Vec<Hammer> =
            (0..CLIENTS).map(|_| Hammer::steady(&visitor, to, false, Duration::ZERO).unwrap()).collect();
        // Each change leads the pod to the chain of another set of policies, which was not there.
        let more = policy("shop/more", "{podSelector: {}, ingress: [{ports: [{port: 80}]}]}");
        for change in 0..CHANGES {
            match change % 2 {
                0 => live.apply(&more).unwrap(),
                _ => live.delete_policy("shop/more"),
            }
            live.settled().await.unwrap();
        }
        let sent: u64 = clients.into_iter().map(|client| client.stop().0).sum();
        assert!(sent > 1_000);
        assert_eq!(echo.received_from(visitor.address), 0, "of {sent} packets that are forbidden some arrived");
    });
}
