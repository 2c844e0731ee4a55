//! Pods that go from what one watch asks for to what another does.

use compiler::api::{Operator, Pod, PodKey, Requirement};
use compiler::cluster::PodQuery;

use super::super::moving::LONGEST_MOVE;
use super::*;

/// The pods of some app, wherever they are.
fn app(value: &str) -> PodSource {
    let values = [value.into()].into_iter().collect();
    let labels = [Requirement { key: "app".into(), operator: Operator::In(values) }].into_iter().collect();
    PodSource::from(PodQuery { namespace: None, labels })
}

/// A pod of another node, as of some version.
fn peer(labels: &str, version: u64) -> String {
    format!(
        "
apiVersion: v1
kind: Pod
metadata: {{name: peer, namespace: clients, labels: {{{labels}}}, resourceVersion: '{version}'}}
spec: {{nodeName: node-2}}
status: {{phase: Running, podIPs: [{{ip: 10.0.1.1}}]}}
"
    )
}

/// In force: a pod that the pods of two apps may reach, which two watches bring, and one of these.
fn two_watches() -> Bench {
    let mut bench = in_force_of_api();
    for value in ["a", "b"] {
        let peers = format!("{{namespaceSelector: {{}}, podSelector: {{matchLabels: {{app: {value}}}}}}}");
        bench.apply(&PodSource::Node, &policy(value, &format!("[{{from: [{peers}]}}]")));
        bench.step();
        assert!(bench.subscribed().contains(&app(value)), "{:?}", bench.subscribed());
        bench.list_pods(&app(value));
        bench.step();
    }
    bench.apply(&app("a"), &peer("app: a", 1));
    bench.step();
    assert!(is_peer(&bench));
    bench
}

fn deleted(bench: &mut Bench, value: &str) {
    let key = PodKey { namespace: "clients".into(), name: "peer".into() };
    bench.report(Event::Pods(app(value), Change::Deleted(key)));
    bench.step();
}

/// Of how many sets of peers the pod is, by what the kernel holds: of none, or of one.
fn is_peer(bench: &Bench) -> bool {
    let world = bench.world();
    let sets = world.table.iter().flat_map(|table| table.sets.iter());
    let members: usize =
        sets.filter(|(name, _)| name.as_str().starts_with("pods-")).map(|(_, set)| set.keys.len()).sum();
    assert!(members <= 1);
    members == 1
}

#[test]
fn a_pod_that_is_relabelled_is_a_peer_all_along() {
    for begins_first in [false, true] {
        let mut bench = two_watches();
        let commits = bench.counts()[2];
        if begins_first {
            bench.apply(&app("b"), &peer("app: b", 2));
            bench.step();
            assert!(is_peer(&bench));
            deleted(&mut bench, "a");
        } else {
            deleted(&mut bench, "a");
            assert!(is_peer(&bench), "it may be on its way");
            bench.wait(LONGEST_MOVE / 2);
            assert!(is_peer(&bench));
            bench.apply(&app("b"), &peer("app: b", 2));
            bench.step();
        }
        assert!(is_peer(&bench));
        assert_eq!(bench.counts()[2], commits + 1, "from one set to the other in one transaction");
        bench.wait(2 * LONGEST_MOVE);
        assert!(is_peer(&bench));
        // And it is one of the second watch alone now.
        deleted(&mut bench, "b");
        bench.wait(LONGEST_MOVE);
        assert!(!is_peer(&bench));
    }
}

#[test]
fn a_pod_that_is_gone_for_all_it_is_known_is_forgotten_at_once() {
    let mut bench = two_watches();
    let marked =
        peer("app: a", 2).replace("resourceVersion", "deletionTimestamp: '2026-01-01T00:00:00Z', resourceVersion");
    bench.apply(&app("a"), &marked);
    bench.step();
    assert!(is_peer(&bench));
    deleted(&mut bench, "a");
    assert!(!is_peer(&bench), "it was marked as one that is deleted");
}

#[test]
fn where_no_other_watch_could_bring_it_nothing_is_held() {
    let mut bench = two_watches();
    bench.delete_policy("b");
    bench.step();
    bench.wait(10 * 60 * SECOND);
    assert!(!bench.subscribed().contains(&app("b")), "{:?}", bench.subscribed());
    deleted(&mut bench, "a");
    assert!(!is_peer(&bench));
}

#[test]
fn a_pod_that_does_not_arrive_is_forgotten_in_time() {
    let mut bench = two_watches();
    deleted(&mut bench, "a");
    assert_eq!(bench.turn(), LONGEST_MOVE);
    bench.wait(LONGEST_MOVE / 2);
    // To say it again does not make it longer.
    deleted(&mut bench, "a");
    assert!(is_peer(&bench));
    bench.wait(LONGEST_MOVE / 2);
    assert!(!is_peer(&bench));
}

#[test]
fn a_pod_that_comes_back_stays() {
    let mut bench = two_watches();
    deleted(&mut bench, "a");
    bench.apply(&app("a"), &peer("app: a", 3));
    bench.step();
    bench.wait(2 * LONGEST_MOVE);
    assert!(is_peer(&bench));
}

#[test]
fn an_address_that_another_pod_has_by_now_is_that_pod_s() {
    let mut bench = two_watches();
    deleted(&mut bench, "a");
    let next = peer("app: b", 2).replace("name: peer", "name: next").replace("phase: Running", "phase: Pending");
    bench.apply(&app("b"), &next);
    bench.step();
    let owner = bench.snapshot().pods.owner("10.0.1.1".parse().unwrap()).map(|pod| pod.key.to_string());
    assert_eq!(owner.as_deref(), Some("clients/next"));
}

#[test]
fn a_list_without_the_pod_is_no_other_word_for_it() {
    let mut bench = two_watches();
    bench.list_pods(&app("a"));
    bench.step();
    assert!(is_peer(&bench), "it may have been relabelled meanwhile");
    bench.apply(&app("b"), &peer("app: b", 2));
    bench.step();
    bench.wait(LONGEST_MOVE);
    assert!(is_peer(&bench));

    let mut bench = two_watches();
    bench.list_pods(&app("a"));
    bench.wait(LONGEST_MOVE / 2);
    bench.list_pods(&app("a"));
    bench.wait(LONGEST_MOVE / 2);
    assert!(!is_peer(&bench), "nobody reports it");

    let mut bench = two_watches();
    deleted(&mut bench, "a");
    bench.list_pods(&app("a"));
    bench.report(Event::Pods(app("a"), Change::Reset(pods(&peer("app: a", 4)))));
    bench.step();
    bench.wait(2 * LONGEST_MOVE);
    assert!(is_peer(&bench), "a list that has it");
}

fn pods(yaml: &str) -> Vec<Pod> {
    let pod = |object| match object {
        Object::Pod(pod) => Some(pod),
        Object::Namespace(_)
        | Object::NetworkPolicy(_)
        | Object::Service(_)
        | Object::EndpointSlice(_)
        | Object::Node(_) => None,
    };
    objects(yaml).into_iter().filter_map(pod).collect()
}
