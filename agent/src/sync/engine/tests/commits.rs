//! What is committed, and how often the kernel is asked.

use super::*;

#[test]
fn events_that_come_together_are_one_commit() {
    let mut bench = Bench::in_force();
    bench.apply(&PodSource::Cluster, SECOND_POD);
    bench.apply(&PodSource::Cluster, &SECOND_POD.replace("web-2", "web-3").replace("10.0.0.2", "10.0.0.3"));
    bench.step();
    assert_eq!(bench.world().commits.len(), 2);
    bench.apply(&PodSource::Cluster, SECOND_POD);
    bench.step();
    assert_eq!(bench.world().commits.len(), 2, "an object that is reported again changes nothing");
}

#[test]
fn a_table_that_is_right_is_not_written() {
    let world = Bench::in_force().world.clone();
    let bench = Bench::in_force_on(world);
    assert_eq!(bench.world().attempts, 1, "the second life of the agent has nothing to commit");
}

#[test]
fn a_table_that_others_may_edit_is_read_when_somebody_commits() {
    let mut bench = Bench::in_force();
    bench.world().generation += 1;
    bench.wait(2 * SECOND);
    assert_eq!(bench.counts()[..2], [2, 1], "it was another table");
    bench.wait(2 * SECOND);
    assert_eq!(bench.world().dumps, 2, "nobody has committed since");

    let wanted = bench.world().table.clone();
    bench.world().table = None;
    bench.world().generation += 1;
    bench.wait(2 * SECOND);
    assert_eq!(bench.world().table, wanted, "the drift is repaired");
    assert_eq!(bench.snapshot().table().map(|table| &**table), wanted.as_ref());
}

#[test]
fn drift_in_part_is_repaired_in_part() {
    let mut bench = Bench::in_force();
    let wanted = bench.world().table.clone();
    let chain = wanted.as_ref().unwrap().chains.keys().find(|name| name.as_str() == "deny-ingress").unwrap().clone();
    let emptied = |table: &mut Table| Arc::make_mut(table.chains.get_mut(&chain).unwrap()).rules.clear();
    emptied(bench.world().table.as_mut().unwrap());
    bench.world().generation += 1;
    bench.wait(2 * SECOND);
    assert_eq!(bench.world().table, wanted);
    assert_eq!(bench.world().commits[1], 1, "one chain gets its rules back");
}

#[test]
fn a_protected_table_is_not_read_for_what_others_do() {
    let mut bench = Bench::in_force_on(Arc::new(Mutex::new(World { protects: true, ..World::default() })));
    bench.world().generation += 1;
    bench.wait(2 * SECOND);
    bench.apply(&PodSource::Cluster, SECOND_POD);
    bench.step();
    assert_eq!(bench.counts(), [1, 2, 2]);
    bench.wait(60 * SECOND);
    assert_eq!(bench.world().dumps, 2, "it is read once in a while all the same");
}

#[test]
fn a_writer_in_between_costs_one_dump() {
    let mut bench = Bench::in_force();
    bench.world().generation += 1;
    bench.apply(&PodSource::Cluster, SECOND_POD);
    bench.step();
    assert_eq!(bench.counts(), [2, 3, 2]);
}

#[test]
fn events_are_admitted_between_two_transactions() {
    let limits = Limits { defer_chain_delete: true, ..Limits::default() };
    let mut bench = Bench::with_limits(Origin::Files, Arc::default(), limits);
    bench.reset(&PodSource::Cluster, CLUSTER);
    bench.step();
    // Its chains are emptied first, and deleted in a second transaction.
    bench.delete_policy("web");
    assert_eq!(bench.turn(), Duration::ZERO, "there is more to do");
    assert_eq!(bench.world().commits.len(), 2);
    bench.apply(&PodSource::Cluster, &(policy("other", "[]") + "---" + SECOND_POD));
    bench.turn();
    let text = bench.world().table.as_ref().unwrap().to_string();
    assert!(text.contains("10.0.0.2") && text.contains("shop/other"), "the next transaction has it: {text}");
    bench.step();
    assert_eq!(bench.world().table.as_ref(), bench.snapshot().table().map(|table| &**table));
}

#[test]
fn the_time_from_event_to_commit_has_the_commit_in_it() {
    let mut bench = Bench::in_force();
    let count = |n: usize| format!("postern_event_to_commit_seconds_count {n}");
    assert!(bench.measures(&count(3)), "three lists");
    bench.world().commit_takes = 2 * SECOND;
    bench.apply(&PodSource::Cluster, SECOND_POD);
    *bench.clock.lock().unwrap() += SECOND;
    bench.apply(&PodSource::Cluster, &SECOND_POD.replace("web-2", "web-3").replace("10.0.0.2", "10.0.0.3"));
    bench.step();
    assert!(bench.measures(&count(5)), "two that came together are two");
    assert!(bench.measures("postern_event_to_commit_seconds_sum 5.0"), "three seconds and two");
    assert!(bench.measures("postern_commit_duration_seconds_sum 2.0"));
}

#[test]
fn a_change_counts_from_when_it_was_made_to_the_commit_that_has_it() {
    let mut bench = Bench::in_force();
    let count = |n: usize| format!("postern_programming_duration_seconds_count {n}");
    assert!(bench.measures(&count(0)), "of lists it is not known when their objects were changed");
    bench.changed = Some(bench.now());
    *bench.clock.lock().unwrap() += 3 * SECOND;
    bench.world().commit_takes = 2 * SECOND;
    bench.apply(&PodSource::Cluster, SECOND_POD);
    assert!(bench.measures(&count(0)), "it is not enforced yet");
    bench.step();
    assert!(bench.measures(&count(1)));
    assert!(bench.measures("postern_programming_duration_seconds_sum 5.0"), "three seconds and two");
    bench.apply(&PodSource::Cluster, SECOND_POD);
    bench.apply(&PodSource::Cluster, &policy("nobody", "[]").replace("app: web", "app: nobody"));
    bench.step();
    bench.changed = None;
    bench.delete_policy("web");
    bench.step();
    assert!(bench.measures(&count(1)), "what changes nothing here does not count, nor what goes");
    assert!(bench.measures("postern_event_to_commit_seconds_count 5"));
}

#[test]
fn a_snapshot_shows_what_was_committed() {
    let mut bench = Bench::new(Origin::Files);
    assert!(bench.snapshot().enforced.is_none());
    bench.reset(&PodSource::Cluster, CLUSTER);
    bench.step();
    let before = bench.snapshot();
    assert_eq!(before.objects, [("Namespace", 1), ("NetworkPolicy", 1), ("Pod", 1), ("LocalPod", 1)]);
    let enforced = before.enforced.as_ref().unwrap();
    assert_eq!(enforced.generation.0, bench.world().generation);
    assert_eq!(enforced.ir.pods.len(), 1);
    assert_eq!(bench.world().table.as_ref(), Some(&*enforced.table));
    bench.wait(SECOND);
    assert!(Arc::ptr_eq(&before, &bench.snapshot()), "nothing has changed");
    bench.apply(&PodSource::Cluster, SECOND_POD);
    bench.step();
    assert_eq!((before.pods.len(), bench.snapshot().pods.len()), (1, 2));
}
