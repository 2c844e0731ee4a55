//! The short form of `cargo run -p integration --bin starts`: pods that start by a real CNI library and real plugins.

#![allow(clippy::unwrap_used, reason = "a test that cannot set up its world has failed")]

use std::sync::{Mutex, PoisonError};

use integration::starts::{Network, Plan, run};
use lab::isolated;

/// Each takes a processor, and what is late on a loaded machine is no news.
static TURN: Mutex<()> = Mutex::new(());

fn start(network: Network) {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    isolated(start_pods(network));
}

async fn start_pods(network: Network) {
    let record = run(Plan { network, starts: 20, at_once: 10 }).await.unwrap();
    assert!(record.forbidden > 5_000 && record.allowed == 80, "{record}");
    record.is_right().unwrap();
}

#[test]
fn routed_pods_are_judged_from_their_first_packet_to_their_last() {
    start(Network::Routed);
}

#[test]
fn bridged_pods_are_judged_from_their_first_packet_to_their_last() {
    start(Network::Bridged);
}
