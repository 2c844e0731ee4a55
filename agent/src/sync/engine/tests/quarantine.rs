//! Policies that the kernel refuses are left out, and nothing else is.

use super::*;

/// A policy of the namespace with rules, which isolates the pod `web`.
fn named(name: &str) -> String {
    policy(name, "[{from: [{ipBlock: {cidr: 10.0.0.0/8}}]}]")
}

/// The policies in quarantine, as the last snapshot has them.
fn quarantined(bench: &Bench) -> Vec<String> {
    bench.snapshot().quarantined().keys().map(|key| key.name.to_string()).collect()
}

fn has_rules(bench: &Bench, name: &str) -> bool {
    let world = bench.world();
    let chains = &world.table.as_ref().expect("the rules are in force").chains;
    chains.iter().any(|(chain, object)| chain.as_str().ends_with(name) && !object.rules.is_empty())
}

#[test]
fn the_refused_policy_is_left_out_and_the_rest_is_enforced() {
    let mut bench = Bench::in_force();
    bench.world().refused_rules = vec!["shop/bad"];
    for name in ["bad", "good"] {
        bench.apply(&PodSource::Cluster, &named(name));
    }
    bench.step();
    assert_eq!(quarantined(&bench), ["bad"]);
    assert!(has_rules(&bench, "shop/good") && !has_rules(&bench, "shop/bad"));
    assert!(bench.readiness.status().is_ready(), "it isolates, so nothing is open that is to be shut");
    assert_eq!(bench.turn(), SECOND, "and there is nothing more to do");
}

#[test]
fn it_is_tried_again_when_it_changes_and_after_a_while() {
    let mut bench = Bench::in_force();
    bench.world().refused_rules = vec!["shop/bad"];
    bench.apply(&PodSource::Cluster, &named("bad"));
    bench.step();
    let [_, attempts, _] = bench.counts();
    bench.apply(&PodSource::Cluster, &named("other"));
    bench.step();
    assert_eq!(bench.counts()[1], attempts + 2, "what others change is committed: a chain, and what leads there");
    bench.apply(&PodSource::Cluster, &policy("bad", "[{from: [{ipBlock: {cidr: 10.1.0.0/16}}]}]"));
    bench.step();
    assert_eq!(quarantined(&bench), ["bad"], "still refused");
    bench.world().refused_rules.clear();
    bench.live(RECONSIDER_INTERVAL);
    bench.step();
    assert_eq!(quarantined(&bench), Vec::<String>::new());
    assert!(has_rules(&bench, "shop/bad"));
}

#[test]
fn where_the_kernel_names_nothing_the_policies_are_halved() {
    for refused in [vec!["shop/p3"], vec!["shop/p0", "shop/p6"]] {
        let mut bench = Bench::in_force();
        bench.world().refused_rules = refused.clone();
        bench.world().refuses_as_a_whole = true;
        for i in 0..7 {
            bench.apply(&PodSource::Cluster, &named(&format!("p{i}")));
        }
        for _ in 0..5 {
            bench.live(SECOND);
        }
        let expected: Vec<&str> = refused.iter().map(|name| &name[5..]).collect();
        assert_eq!(quarantined(&bench), expected);
        for i in 0..7 {
            let name = format!("shop/p{i}");
            assert_eq!(has_rules(&bench, &name), !refused.contains(&&*name), "{name}");
        }
        assert!(bench.readiness.status().is_ready());
        let attempts = bench.counts()[1];
        assert!(attempts < 30, "{attempts} attempts to find {refused:?} among seven");
    }
}

#[test]
fn a_refusal_of_what_every_table_has_is_no_policys_fault() {
    let world = Arc::new(Mutex::new(World { refused_rules: vec!["deny-ingress"], ..World::default() }));
    let mut bench = Bench::on(Origin::Files, world);
    bench.reset(&PodSource::Cluster, CLUSTER);
    bench.live(SECOND);
    assert!(!bench.readiness.status().is_ready());
    bench.world().refused_rules.clear();
    bench.live(60 * SECOND);
    assert!(bench.readiness.status().is_ready());
    assert_eq!(quarantined(&bench), Vec::<String>::new());
}
