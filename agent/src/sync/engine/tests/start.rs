//! The first commit, and what it waits for.

use super::*;

/// A cluster in which a policy speaks of pods that are not known.
fn reset_with_peers(bench: &mut Bench) {
    bench.reset(&PodSource::Node, &format!("{CLUSTER}---{CLIENTS}---{}", from_clients("clients")));
    bench.step();
    assert_eq!(bench.subscribed(), [PodSource::Node, clients()], "the policy speaks of pods elsewhere");
    assert_eq!(bench.world().attempts, 0);
}

#[test]
fn nothing_is_written_before_it_is_known_who_is_isolated() {
    let mut bench = Bench::new(Origin::Api);
    bench.apply(&PodSource::Node, CLUSTER);
    bench.step();
    bench.report(Event::Policies(Change::Reset(Vec::new())));
    bench.list_pods(&PodSource::Node);
    bench.wait(100 * SECOND);
    assert_eq!(bench.counts(), [1, 0, 0]);
    assert_eq!(bench.subscribed(), [PodSource::Node]);
    assert_eq!(bench.readiness.status().waiting_for, ["the first commit"]);
    bench.report(Event::Namespaces(Change::Reset(Vec::new())));
    bench.step();
    assert_eq!(bench.world().commits.len(), 1);
}

#[test]
fn the_first_commit_waits_for_peers_for_a_moment() {
    let mut bench = Bench::new(Origin::Api);
    reset_with_peers(&mut bench);
    bench.wait(SECOND / 2);
    assert_eq!(bench.world().attempts, 0);
    bench.list_pods(&clients());
    bench.step();
    assert_eq!(bench.world().commits.len(), 1);
    assert!(bench.readiness.status().is_ready());
}

#[test]
fn what_isolates_does_not_wait_for_peers_that_do_not_come() {
    let mut bench = Bench::new(Origin::Api);
    let list = bench.readiness.guard_start("the list of Pods of namespace clients");
    reset_with_peers(&mut bench);
    bench.wait(SECOND);
    assert_eq!(bench.world().commits.len(), 1);
    let status = bench.readiness.status().to_string();
    assert_eq!(status, "ready\nnote: the list of Pods of namespace clients\n");
    drop(list);
}

#[test]
fn the_rules_of_an_earlier_life_stand_until_the_peers_are_there() {
    let mut earlier = Bench::in_force();
    earlier.apply(&PodSource::Cluster, &policy("other", "[]"));
    earlier.step();
    let world = earlier.world.clone();
    let mut bench = Bench::on(Origin::Api, world.clone());
    let before = bench.world().commits.len();
    bench.reset(&PodSource::Node, &format!("{CLUSTER}---{CLIENTS}---{}", from_clients("clients")));
    bench.step();
    bench.wait(9 * SECOND);
    assert_eq!(bench.world().commits.len(), before, "the old rules hold");
    bench.list_pods(&clients());
    bench.step();
    assert_eq!(bench.world().commits.len(), before + 2, "the chain, and what leads there");

    earlier.world().table = None;
    earlier.world().generation += 1;
    earlier.wait(2 * SECOND);
    let mut bench = Bench::on(Origin::Api, world);
    let before = bench.world().commits.len();
    bench.reset(&PodSource::Node, &format!("{CLUSTER}---{CLIENTS}---{}", from_clients("clients")));
    bench.step();
    bench.wait(9 * SECOND);
    assert_eq!(bench.world().commits.len(), before);
    bench.wait(SECOND);
    assert_eq!(bench.world().commits.len(), before + 2, "but not for ever");
}

#[test]
fn a_first_commit_that_was_refused_is_not_held_back_again() {
    let mut bench = Bench::new(Origin::Api);
    bench.world().refusals.extend([refused(), refused()]);
    bench.reset(&PodSource::Node, CLUSTER);
    bench.step();
    assert_eq!(bench.world().attempts, 2);
    bench.apply(&PodSource::Node, &format!("{CLIENTS}---{}", from_clients("clients")));
    bench.step();
    assert_eq!(bench.readiness.status().waiting_for.len(), 2, "it has not become better");
    bench.wait(SECOND / 10);
    assert_eq!(bench.world().commits.len(), 1);
}

/// A kernel in which somebody else has made a table, of the content that the agent would write.
fn with_a_table_of_somebody_else() -> Arc<Mutex<World>> {
    let world = Bench::in_force().world;
    {
        let mut world = world.lock().unwrap();
        (world.protects, world.is_foreign) = (true, true);
        world.commits.clear();
    }
    world
}

#[test]
fn a_table_of_somebody_else_is_replaced_though_it_reads_as_ours() {
    let world = with_a_table_of_somebody_else();
    let bench = Bench::in_force_on(world.clone());
    let world = world.lock().unwrap();
    assert_eq!(world.commits.len(), 1, "by one transaction");
    assert!(!world.is_foreign);
    drop(world);
    assert!(bench.engine.bond.as_ref().unwrap().is_protected());
}

#[test]
fn nothing_waits_for_the_sake_of_a_table_of_somebody_else() {
    let mut bench = Bench::on(Origin::Api, with_a_table_of_somebody_else());
    bench.reset(&PodSource::Node, &format!("{CLUSTER}---{CLIENTS}---{}", from_clients("clients")));
    bench.step();
    assert_eq!(bench.world().commits.len(), 0);
    bench.wait(SECOND);
    assert_eq!(bench.world().commits.len(), 1);
}

#[test]
fn a_table_that_somebody_makes_before_the_first_commit_is_replaced() {
    let mut bench = Bench::on(Origin::Files, Arc::new(Mutex::new(World { protects: true, ..World::default() })));
    bench.step();
    let table = Bench::in_force().world().table.clone();
    {
        let mut world = bench.world();
        (world.table, world.is_foreign) = (table, true);
        world.generation += 1;
    }
    bench.reset(&PodSource::Cluster, CLUSTER);
    bench.step();
    assert!(bench.readiness.status().is_ready());
    assert!(!bench.world().is_foreign);
}
