//! When the next turn is due, in each state.

use super::*;

const MS: Duration = Duration::from_millis(1);

#[test]
fn waiting_for_lists() {
    let mut bench = Bench::new(Origin::Api);
    assert_eq!(bench.turn(), SECOND, "once a second, to be seen alive");
    let wakes = bench.live(600 * SECOND);
    assert!(wakes <= 601, "{wakes} in ten minutes");
}

#[test]
fn waiting_for_peers() {
    let mut bench = Bench::new(Origin::Api);
    bench.reset(&PodSource::Node, &format!("{CLUSTER}---{CLIENTS}---{}", from_clients("clients")));
    assert_eq!(bench.turn(), SECOND);
    *bench.clock.lock().unwrap() += 400 * MS;
    assert_eq!(bench.turn(), 600 * MS, "when it waits no longer");
}

#[test]
fn behind() {
    let limits = Limits { defer_chain_delete: true, ..Limits::default() };
    let mut bench = Bench::with_limits(Origin::Files, Arc::default(), limits);
    bench.reset(&PodSource::Cluster, CLUSTER);
    assert_eq!(bench.turn(), SECOND, "one transaction was enough");
    bench.delete_policy("web");
    assert_eq!(bench.turn(), Duration::ZERO, "the second transaction is due at once");
    assert_eq!(bench.turn(), SECOND);
}

#[test]
fn in_force() {
    for protects in [false, true] {
        let mut bench = Bench::in_force_on(Arc::new(Mutex::new(World { protects, ..World::default() })));
        assert_eq!(bench.turn(), SECOND);
        *bench.clock.lock().unwrap() += 300 * MS;
        assert_eq!(bench.turn(), 700 * MS);
        let wakes = bench.live(600 * SECOND);
        assert!(wakes <= 620, "{wakes} in ten minutes");
    }
}

#[test]
fn in_force_with_a_version_that_waits() {
    let mut bench = in_force_of_api();
    *bench.clock.lock().unwrap() += 900 * MS;
    bench.apply(&PodSource::Node, &from_clients("web"));
    assert_eq!(bench.turn(), 100 * MS, "the poll");
    *bench.clock.lock().unwrap() += 100 * MS;
    assert_eq!(bench.turn(), 900 * MS, "the end of its patience");
}

#[test]
fn failing() {
    let mut bench = Bench::in_force();
    bench.world().refused_chain = Some("shop/bad");
    bench.apply(&PodSource::Cluster, &policy("bad", "[{}]"));
    let mut waits = Vec::new();
    for _ in 0..8 {
        let wait = bench.turn();
        waits.push(wait);
        *bench.clock.lock().unwrap() += wait;
    }
    assert_eq!(
        waits,
        [Duration::ZERO, Duration::ZERO, 100 * MS, 200 * MS, 400 * MS, 800 * MS, SECOND, 600 * MS],
        "the policy is left out, and the chain of its pods goes ahead, at once; the waits double, seen once a second"
    );

    // The last attempt was 1.6 s ago.
    let attempts = bench.world().attempts;
    assert_eq!(bench.turn(), SECOND);
    assert_eq!(bench.world().attempts, attempts + 1);
    bench.apply(&PodSource::Cluster, SECOND_POD);
    assert_eq!(bench.turn(), 100 * MS, "news is tried after the shortest wait");
    *bench.clock.lock().unwrap() += 100 * MS;
    assert_eq!(bench.turn(), SECOND, "once");
    assert_eq!(bench.world().attempts, attempts + 2);
    let wakes = bench.live(600 * SECOND);
    assert!(wakes <= 640, "{wakes} in ten minutes");
}
