//! Whose an address is, and which pods count.

use std::sync::Arc;

use super::pod_gone;
use crate::api::{Phase, Pod};
use crate::cluster::{Event, Pods, Sandbox, State};
use crate::testing::{PodBuilder, ip, pod, pod_key, state};

fn at(key: &str) -> PodBuilder {
    pod(key).ip("10.0.0.1")
}

#[test]
fn an_address_has_one_owner() {
    // What is said, who claims the address, and who has it.
    let cases: Vec<(&str, Vec<PodBuilder>, Option<&str>)> = vec![
        ("nobody", vec![pod("a/x").ip("10.0.0.2")], None),
        ("its pod", vec![at("a/x")], Some("a/x")),
        ("the newer", vec![at("a/x").created(1), at("a/y").created(2)], Some("a/y")),
        (
            "one that runs before a newer that does not",
            vec![at("a/x").created(1), at("a/y").created(2).phase(Phase::Pending)],
            Some("a/x"),
        ),
        (
            "one that runs before one of a silent node",
            vec![at("a/x").phase(Phase::Unknown).created(2), at("a/y").created(1)],
            Some("a/y"),
        ),
        ("of equals one that stays", vec![at("a/x").terminating(), at("a/y")], Some("a/y")),
        (
            "one that stays before a newer that ends",
            vec![at("a/x").created(2).terminating(), at("a/y").created(1)],
            Some("a/y"),
        ),
        (
            "one that does not run yet before one that ends",
            vec![at("a/x").created(1).terminating(), at("a/y").created(2).phase(Phase::Pending)],
            Some("a/y"),
        ),
        ("of equals the first by name", vec![at("a/y"), at("a/x"), at("b/a")], Some("a/x")),
        ("a terminating pod that is alone", vec![at("a/x").terminating()], Some("a/x")),
        ("nobody after a finished pod", vec![at("a/x").phase(Phase::Succeeded)], None),
        ("nobody after a failed pod", vec![at("a/x").phase(Phase::Failed)], None),
        ("nobody for a pod of the host's network", vec![at("a/x").host_network()], None),
    ];
    for (name, claims, owner) in cases {
        let forwards = claims.iter().cloned().map(Event::from);
        let backwards = claims.iter().rev().cloned().map(Event::from);
        for state in [state(forwards), state(backwards)] {
            let found = state.pods().owner(ip("10.0.0.1")).map(|pod| pod.key.to_string());
            assert_eq!(found.as_deref(), owner, "{name}");
            let of_all = state.pods().addresses().find(|(address, _)| *address == ip("10.0.0.1"));
            assert_eq!(of_all.map(|(_, pod)| pod.key.to_string()).as_deref(), owner, "{name}");
        }
    }
}

#[test]
fn an_address_stays_with_whoever_still_claims_it() {
    let mut state = state([at("a/old").created(1).into(), at("a/new").created(2).into()]);
    let owner = |state: &State| state.pods().owner(ip("10.0.0.1")).map(|pod| pod.key.to_string());
    state.apply(pod_gone("a/new"));
    assert_eq!(owner(&state).as_deref(), Some("a/old"));
    state.apply(at("a/old").phase(Phase::Failed).into());
    assert_eq!(owner(&state), None);
    state.apply(at("a/old").into());
    state.apply(pod("a/old").ip("10.0.0.9").into());
    assert_eq!(owner(&state), None, "the pod has another address now");
    assert_eq!(state.pods().owner(ip("10.0.0.9")).map(|pod| pod.key.to_string()).as_deref(), Some("a/old"));
}

#[test]
fn a_local_pod_has_its_address_whatever_pods_elsewhere_claim() {
    let state =
        state([at("a/here").created(1).into(), at("a/there").created(2).elsewhere().into(), at("a/older").into()]);
    let key = |pod: Option<&Arc<Pod>>| pod.map(|pod| pod.key.to_string());
    assert_eq!(key(state.pods().owner(ip("10.0.0.1"))).as_deref(), Some("a/there"));
    assert_eq!(key(state.pods().local_owner(ip("10.0.0.1"))).as_deref(), Some("a/here"));
    assert_eq!(key(state.pods().local_owner(ip("10.0.0.2"))), None);
}

#[test]
fn equal_claims_to_an_address_stand_beside_each_other() {
    let owners = |state: &State| -> Vec<String> {
        state.pods().local_owners(ip("10.0.0.1")).map(|pod| pod.key.to_string()).collect()
    };
    let mut state = state([
        at("a/ends").created(9).terminating().into(),
        at("a/newer").created(2).into(),
        at("a/older").created(1).into(),
        at("a/starts").created(8).phase(Phase::Pending).into(),
        at("a/over").phase(Phase::Failed).into(),
        at("a/there").created(9).elsewhere().into(),
    ]);
    assert_eq!(owners(&state), ["a/newer", "a/older", "a/starts", "a/ends"]);
    let (pod, addresses) = (pod_key("a/starts"), vec![ip("10.0.0.1")]);
    state.apply(Event::Sandboxes(vec![Sandbox { pod, uid: None, addresses, link: None }]));
    assert_eq!(owners(&state), ["a/starts"], "its network is known");
    assert!(state.pods().local_owners(ip("10.0.0.2")).next().is_none());
}

#[test]
fn local_pods_are_those_that_this_node_polices() {
    let state = state([
        pod("a/addressless").into(),
        pod("a/elsewhere").ip("10.0.0.1").elsewhere().into(),
        pod("a/finished").ip("10.0.0.2").phase(Phase::Succeeded).into(),
        pod("a/host").ip("10.0.0.3").host_network().into(),
        pod("a/here").ip("10.0.0.4").into(),
        pod("a/starting").ip("10.0.0.5").phase(Phase::Pending).into(),
        pod("b/ending").ip("fd00::6").terminating().into(),
    ]);
    let local: Vec<String> = state.pods().local().map(|pod| pod.key.to_string()).collect();
    assert_eq!(local, ["a/here", "a/starting", "b/ending"]);
    let in_b: Vec<String> = state.pods().in_namespace("b").map(|pod| pod.key.to_string()).collect();
    assert_eq!(in_b, ["b/ending"]);
    assert_eq!(state.pods().in_namespace("a").count(), 6);
    assert!(state.pods().get(&pod_key("a/host")).is_some(), "a pod that does not count is known nevertheless");
}

#[test]
fn a_pod_that_becomes_another_leaves_the_local_ones() {
    let mut state = state([at("a/x").into()]);
    for (name, now) in [
        ("it has finished", at("a/x").phase(Phase::Failed)),
        ("it is elsewhere", at("a/x").elsewhere()),
        ("it has no address", pod("a/x")),
    ] {
        state.apply(at("a/x").into());
        assert_eq!(state.pods().local().count(), 1, "{name}: before");
        state.apply(now.into());
        assert_eq!(state.pods().local().count(), 0, "{name}");
    }
}

#[test]
fn a_pod_that_is_reported_again_stays_one_object() {
    let mut state = state([at("a/x").into()]);
    state.apply(at("a/x").into());
    let known = state.pods().get(&pod_key("a/x")).expect("it is known");
    let owner = state.pods().owner(ip("10.0.0.1")).expect("it has the address");
    assert!(Arc::ptr_eq(known, owner));
}

#[test]
fn a_clone_stays_as_it_was() {
    let mut state = state([at("a/x").into(), pod("b/y").ip("10.0.0.2").into()]);
    let before = state.pods().clone();
    state.apply(pod_gone("a/x"));
    state.apply(pod("b/y").ip("10.0.0.1").into());
    state.apply(pod("c/z").ip("10.0.0.3").into());
    let pods = |pods: &Pods| pods.addresses().map(|(at, pod)| format!("{at} {}", pod.key)).collect::<Vec<_>>();
    assert_eq!(pods(&before), ["10.0.0.1 a/x", "10.0.0.2 b/y"]);
    assert_eq!((before.len(), before.local().len()), (2, 2));
    assert_eq!(pods(state.pods()), ["10.0.0.1 b/y", "10.0.0.3 c/z"]);
}
