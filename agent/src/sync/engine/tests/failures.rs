//! A kernel that refuses, or cannot be reached.

use super::*;

#[test]
fn a_refusal_leads_to_a_dump_and_a_second_try() {
    let mut bench = Bench::in_force();
    bench.world().refusals.push_back(refused());
    bench.apply(&PodSource::Cluster, SECOND_POD);
    bench.step();
    assert_eq!(bench.counts(), [2, 3, 2]);
    assert!(bench.readiness.status().is_ready());
}

#[test]
fn a_module_that_is_missing_is_named() {
    let mut bench = Bench::new(Origin::Files);
    let refused = || {
        let (what, expression) = ("add 3 rules to chain ingress".to_owned(), Some("ct".to_owned()));
        Error::Refused(vec![Refusal { op: 0, what, at: At::Rule(0), expression, errno: Errno::NOENT }])
    };
    bench.world().refusals.extend([refused(), refused()]);
    bench.reset(&PodSource::Cluster, CLUSTER);
    bench.step();
    let waiting_for = bench.readiness.status().waiting_for.concat();
    assert!(waiting_for.contains("at rule 0, expression ct: "), "{waiting_for}");
    assert!(
        waiting_for.contains("the kernel lacks the expression ct, which the module nft_ct brings"),
        "{waiting_for}"
    );
    bench.wait(SECOND);
    assert!(bench.readiness.status().is_ready(), "it is tried again, and may have been loaded by then");
}

#[test]
fn a_second_refusal_is_told_and_tried_again_later() {
    let mut bench = Bench::in_force();
    let before = bench.world().table.clone();
    bench.world().refusals.extend([refused(), refused(), refused()]);
    bench.apply(&PodSource::Cluster, SECOND_POD);
    bench.step();
    let waiting_for = bench.readiness.status().waiting_for;
    assert_eq!(waiting_for.len(), 1);
    assert!(
        waiting_for[0].starts_with("a commit that the kernel takes (the kernel refused to add chain web"),
        "{waiting_for:?}"
    );
    assert!(waiting_for[0].ends_with("; for 0 s)"), "{waiting_for:?}");
    assert!(bench.measures("postern_commit_failing 1"));
    assert_eq!(bench.world().table, before, "the old rules stay");

    bench.wait(SECOND / 20);
    assert_eq!(bench.world().attempts, 3, "the first wait is not over");
    bench.wait(SECOND);
    assert_eq!(bench.counts(), [3, 4, 1], "it is read again, and tried once");
    let waiting_for = bench.readiness.status().waiting_for;
    assert!(waiting_for[0].ends_with("; for 1 s)"), "{waiting_for:?}");
    bench.wait(SECOND);
    assert_eq!(bench.world().commits.len(), 2);
    assert!(bench.readiness.status().is_ready());
    assert!(bench.measures("postern_commit_failing 0"));
}

#[test]
fn the_pause_begins_when_the_attempt_has_ended() {
    let mut bench = Bench::in_force();
    bench.world().commit_takes = 5 * SECOND;
    bench.world().refusals.extend([refused(), refused(), refused()]);
    bench.apply(&PodSource::Cluster, SECOND_POD);
    bench.step();
    assert_eq!(bench.world().attempts, 3, "the one of the start, and two that took ten seconds");
    bench.wait(FIRST_RETRY / 2);
    assert_eq!(bench.world().attempts, 3, "the pause is not over");
    bench.wait(FIRST_RETRY);
    assert_eq!(bench.world().attempts, 4, "and now it is");
}

/// The kernel takes no policy of this name.
fn with_bad_policy() -> Bench {
    let mut bench = Bench::in_force();
    bench.world().refused_chain = Some("shop/bad");
    bench.apply(&PodSource::Cluster, &policy("bad", "[{}]"));
    bench.step();
    assert!(!bench.readiness.status().is_ready());
    // It is refused twice and left out. The chain of its pods goes ahead; what is left of it is refused twice too.
    assert_eq!(bench.counts(), [3, 6, 2]);
    bench
}

#[test]
fn events_do_not_hurry_a_kernel_that_refuses() {
    let mut bench = with_bad_policy();
    // Each is another table.
    for n in 0..6_000 {
        bench.apply(&PodSource::Cluster, &SECOND_POD.replace("10.0.0.2", &format!("10.1.{}.{}", n / 250, n % 250)));
        bench.step();
        *bench.clock.lock().unwrap() += SECOND / 100;
    }
    let [dumps, attempts, _] = bench.counts();
    assert!((300..=610).contains(&attempts), "{attempts} in a minute: as often as the shortest wait allows");
    assert!(dumps < 20, "{dumps} dumps: what the kernel holds is known");

    bench.world().refused_chain = None;
    bench.wait(SECOND / 10);
    assert!(bench.readiness.status().is_ready(), "news is a reason to try");
    // The three lists of the first commit, the policy, and the pods.
    assert!(bench.measures("postern_event_to_commit_seconds_count 6004"), "each event once");
}

#[test]
fn news_that_changes_nothing_desired_is_no_reason_to_try() {
    let mut bench = with_bad_policy();
    for n in 0..6_000 {
        let nobody = policy(&format!("nobody-{n}"), "[]").replace("app: web", "app: nobody");
        bench.apply(&PodSource::Cluster, &nobody);
        bench.step();
        *bench.clock.lock().unwrap() += SECOND / 100;
    }
    let attempts = bench.world().attempts;
    assert!((9..=15).contains(&attempts), "{attempts} in a minute: the waits have doubled up to 30 s");
}

#[test]
fn news_that_takes_away_what_is_refused_ends_the_failure() {
    let mut bench = with_bad_policy();
    bench.wait(10 * SECOND);
    bench.delete_policy("bad");
    bench.wait(SECOND / 10);
    assert!(bench.readiness.status().is_ready());
    assert_eq!(bench.world().commits.len(), 3, "only the chain that went ahead is taken away");
    assert!(bench.measures("postern_commit_failing 0"));
}

#[test]
fn only_a_commit_ends_a_failure() {
    let mut bench = in_force_of_api();
    bench.world().refused_chain = Some("shop/bad");
    bench.apply(&PodSource::Node, &policy("bad", "[{}]"));
    bench.step();
    // A new version that waits for pods which are not known.
    bench.apply(&PodSource::Node, &from_clients("web"));
    for _ in 0..300 {
        bench.wait(SECOND / 100);
        assert!(!bench.readiness.status().is_ready(), "nothing was committed");
        assert!(bench.measures("postern_commit_failing 1"));
    }
    bench.world().refused_chain = None;
    bench.wait(30 * SECOND);
    assert!(bench.readiness.status().is_ready());
}

#[test]
fn a_connection_that_comes_back_before_the_lists_is_no_commit() {
    let mut bench = Bench::new(Origin::Files);
    let broken = || Error::Socket { what: "send", source: std::io::Error::other("broken") };
    bench.world().refused_connections.push_back(broken());
    bench.step();
    assert_eq!(bench.readiness.status().waiting_for.len(), 2);
    bench.wait(SECOND);
    assert_eq!(bench.readiness.status().waiting_for, ["the first commit"]);
    assert!(bench.measures("postern_commit_failing 0"));
}

#[test]
fn what_is_in_force_can_be_read_while_the_kernel_refuses() {
    let mut bench = Bench::in_force();
    let before = bench.snapshot();
    bench.world().refused_chain = Some("shop/bad");
    bench.apply(&PodSource::Cluster, &(policy("bad", "[{}]") + "---" + SECOND_POD));
    bench.step();
    let snapshot = bench.snapshot();
    assert!(snapshot.epoch > before.epoch);
    assert!(snapshot.objects.contains(&("Pod", 2)), "what is known is news");
    let [before, now] = [&before, &snapshot].map(|snapshot| snapshot.enforced.as_ref().unwrap());
    assert!(Arc::ptr_eq(before, now), "what is enforced is not");
    let kernel = bench.world().table.clone().unwrap();
    assert_eq!((&kernel.maps, &kernel.sets), (&now.table.maps, &now.table.sets));
    let is_there = |(name, chain)| kernel.chains.get(name) == Some(chain);
    assert!(now.table.chains.iter().all(is_there), "only chains to which nothing leads are there besides");
    let probe = crate::probes::Probe::from_words("10.0.0.9", "shop/web", "80").unwrap();
    let asked = crate::explanation::Asked { probe, strangers: Vec::new() };
    let explanation = crate::explanation::explain_snapshot(&snapshot, &asked).unwrap();
    assert!(!explanation.answer.allowed && !explanation.disagrees);
}

#[test]
fn a_lost_connection_is_opened_again() {
    let mut bench = Bench::in_force();
    let broken = || Error::Socket { what: "send", source: std::io::Error::other("broken") };
    bench.world().refusals.push_back(broken());
    bench.world().refused_connections.push_back(broken());
    bench.apply(&PodSource::Cluster, SECOND_POD);
    bench.step();
    assert!(!bench.readiness.status().is_ready());
    bench.wait(SECOND);
    assert!(!bench.readiness.status().is_ready(), "the first attempt is refused");
    bench.wait(SECOND);
    assert_eq!(bench.world().commits.len(), 2);
    assert!(bench.readiness.status().is_ready());
}

#[test]
fn a_table_that_somebody_else_owns_is_no_policys_fault() {
    let mut bench = Bench::in_force();
    let refused = || {
        let what = "add chain shop/web".to_owned();
        Error::Refused(vec![Refusal { op: 0, what, at: At::Whole, expression: None, errno: Errno::PERM }])
    };
    bench.world().refusals.extend([refused(), refused()]);
    bench.world().refused_connections.push_back(Error::OwnedByOther { port: 7 });
    bench.apply(&PodSource::Cluster, &(policy("other", "[{}]") + "---" + SECOND_POD));
    bench.step();
    let attempts = bench.world().attempts;
    bench.wait(SECOND / 10);
    assert_eq!(bench.world().attempts, attempts, "it is the connection that is tried");
    let waiting_for = bench.readiness.status().waiting_for.concat();
    assert!(waiting_for.contains("another agent runs on this node"), "{waiting_for}");
    bench.wait(SECOND);
    bench.wait(SECOND);
    assert!(bench.readiness.status().is_ready());
    assert!(bench.measures("postern_quarantined_policies 0"));
    assert!(bench.engine.compiler.state().quarantined().is_empty());
}

#[test]
fn without_permission_there_is_no_second_try() {
    let mut bench = Bench::new(Origin::Files);
    bench.world().refused_connections.push_back(Error::Query { what: "the generation", source: Errno::PERM });
    let error = bench.engine.step().unwrap_err();
    assert!(error.is_permission());
}
