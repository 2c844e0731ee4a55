//! What the container runtime says beside the API.

use super::*;
use crate::api::Phase;
use crate::cluster::Sandbox;
use crate::policy::Resolver;
use crate::testing::{PodBuilder, ip, pod, pods_of, policy, rule, state, uid};

fn sandbox(key: &str, digit: Option<char>, addresses: &[&str]) -> Sandbox {
    let addresses = addresses.iter().map(|address| ip(address)).collect();
    Sandbox { pod: pod_key(key), uid: digit.map(uid), addresses, link: None }
}

fn sandboxes(list: &[Sandbox]) -> Event {
    Event::Sandboxes(list.to_vec())
}

fn web() -> PodBuilder {
    pod("a/web").labels("app=web").uid('1')
}

fn deny() -> Event {
    policy("a/deny").selects("app=web").ingress([]).into()
}

/// The local pods with their addresses, and whether they are isolated, as the rules have it.
fn local(state: &State) -> Vec<String> {
    let ir = Resolver::default().resolve(state);
    let text = |pod: &crate::policy::LocalPod| {
        let addresses: Vec<String> = pod.addresses.iter().map(ToString::to_string).collect();
        format!("{} {} {}", pod.key, addresses.join(" "), if pod.is_isolated() { "isolated" } else { "free" })
    };
    ir.pods.iter().map(text).collect()
}

fn peer(state: &State, address: &str) -> Option<String> {
    state.pods().owner(ip(address)).map(|pod| pod.key.to_string())
}

#[test]
fn a_pod_is_policed_before_its_status_has_its_address() {
    let mut state = state([deny(), web().phase(Phase::Pending).into()]);
    assert_eq!(local(&state), [""; 0]);
    assert!(state.apply(sandboxes(&[sandbox("a/web", Some('1'), &["10.0.0.1", "fd00::1"])])));
    assert_eq!(local(&state), ["a/web 10.0.0.1 fd00::1 isolated"]);
    assert_eq!(peer(&state, "fd00::1").as_deref(), Some("a/web"), "it is a peer as well");
    let before = state.versions();
    assert!(!state.apply(sandboxes(&[sandbox("a/web", Some('1'), &["10.0.0.1", "fd00::1"])])), "the same again");
    assert_eq!(state.versions(), before);
    state.apply(web().ip("10.0.0.1").into());
    assert_eq!(local(&state), ["a/web 10.0.0.1 fd00::1 isolated"], "the status has only one yet");
    state.apply(sandboxes(&[]));
    assert_eq!(local(&state), ["a/web 10.0.0.1 isolated"]);
}

#[test]
fn the_sandbox_may_come_before_the_pod() {
    let state = state([deny(), sandboxes(&[sandbox("a/web", None, &["10.0.0.1"])]), web().into()]);
    assert_eq!(local(&state), ["a/web 10.0.0.1 isolated"]);
}

#[test]
fn a_sandbox_is_that_of_one_pod_on_this_node_with_a_network_of_its_own() {
    let stands = || sandboxes(&[sandbox("a/web", Some('2'), &["10.0.0.1"])]);
    for (what, pod) in [
        ("another pod of the name", web().into()),
        ("on another node", web().uid('2').elsewhere().into()),
        ("on the network of the node", web().uid('2').host_network().into()),
        ("another name", Event::from(pod("a/other").uid('2'))),
    ] {
        assert_eq!(local(&state([deny(), pod, stands()])), [""; 0], "{what}");
    }
    let of_file = || pod("a/web").labels("app=web").into();
    assert_eq!(local(&state([deny(), of_file(), stands()])), ["a/web 10.0.0.1 isolated"], "of no known id");
}

#[test]
fn whoever_has_an_address_by_its_sandbox_has_it() {
    // By all that the API says the address is the other pod's.
    let other = || pod("a/other").ip("10.0.0.1").created(9);
    let claims = [web().terminating().ip("10.0.0.1").into(), other().into()];
    let mut state = state([deny()].into_iter().chain(claims));
    assert_eq!(peer(&state, "10.0.0.1").as_deref(), Some("a/other"));
    state.apply(sandboxes(&[sandbox("a/web", Some('1'), &["10.0.0.1"])]));
    assert_eq!(peer(&state, "10.0.0.1").as_deref(), Some("a/web"));
    assert_eq!(local(&state), ["a/other  free", "a/web 10.0.0.1 isolated"]);
    state.apply(sandboxes(&[]));
    assert_eq!(local(&state), ["a/other 10.0.0.1 free", "a/web  isolated"]);
}

#[test]
fn members_follow_who_has_an_address() {
    let from_web = policy("a/p").selects("app=db").ingress([rule().peers([pods_of("a", "app=web")])]);
    let db = pod("a/db").labels("app=db").ip("10.0.0.9");
    let mut state = state([from_web.into(), db.into(), web().into()]);
    let members = |state: &State| -> Vec<String> {
        let ir = Resolver::default().resolve(state);
        ir.members.values().flat_map(|members| members.iter().map(ToString::to_string)).collect()
    };
    assert_eq!(members(&state), [""; 0]);
    state.apply(sandboxes(&[sandbox("a/web", Some('1'), &["10.0.0.1"])]));
    assert_eq!(members(&state), ["10.0.0.1"]);
    state.apply(web().phase(Phase::Failed).into());
    assert_eq!(members(&state), [""; 0], "a pod that has finished is nobody's peer");
}

#[test]
fn a_pod_lingers_while_its_sandbox_stands() {
    let stands = || sandboxes(&[sandbox("a/web", Some('1'), &["10.0.0.1"])]);
    let gone = || Event::Pods(PodSource::Cluster, Change::Deleted(pod_key("a/web")));
    let lingers = ["a/web 10.0.0.1 isolated"];
    for (what, event) in [
        ("deleted by force", gone()),
        ("failed", web().ip("10.0.0.1").phase(Phase::Failed).into()),
        ("succeeded, and its address is gone from its status", web().phase(Phase::Succeeded).into()),
    ] {
        let mut state = state([deny(), stands(), web().ip("10.0.0.1").into(), event]);
        assert_eq!(local(&state), lingers, "{what}");
        assert_eq!(peer(&state, "10.0.0.1"), None, "{what}");
        state.apply(gone());
        assert_eq!(local(&state), lingers, "{what}, and deleted");
        state.apply(sandboxes(&[]));
        assert_eq!(local(&state), [""; 0], "{what}: its network has ended");
    }
    // An agent that starts now knows the labels of what has finished, and not of what is gone.
    let finished = || web().phase(Phase::Failed).into();
    assert_eq!(local(&state([deny(), finished(), stands()])), lingers);
    assert_eq!(local(&state([deny(), stands(), finished()])), lingers);
    assert_eq!(local(&state([deny(), stands(), gone()])), [""; 0]);
}

#[test]
fn a_pod_of_the_same_name_takes_its_place() {
    let old = sandbox("a/web", Some('1'), &["10.0.0.1"]);
    let new = sandbox("a/web", Some('2'), &["10.0.0.2"]);
    let mut state = state([deny(), sandboxes(std::slice::from_ref(&old)), web().ip("10.0.0.1").into()]);
    state.apply(web().uid('2').phase(Phase::Pending).into());
    assert_eq!(local(&state), ["a/web 10.0.0.1 isolated"], "the old one runs, and the new one has no network yet");
    state.apply(sandboxes(&[old, new.clone()]));
    assert_eq!(local(&state), ["a/web 10.0.0.2 isolated"]);
    state.apply(sandboxes(&[new]));
    assert_eq!(local(&state), ["a/web 10.0.0.2 isolated"]);
}

#[test]
fn named_ports_of_a_pod_that_lingers_are_its_own() {
    let named = || policy("a/p").selects("app=web").ingress([rule().ports(&["http/TCP"])]).into();
    let finished = || web().ip("10.0.0.1").port("http", "80/TCP").phase(Phase::Failed).into();
    let stands = || sandboxes(&[sandbox("a/web", Some('1'), &["10.0.0.1"])]);
    for events in [[named(), finished(), stands()], [finished(), stands(), named()]] {
        let ir = Resolver::default().resolve(&state(events));
        assert_eq!(ir.endpoints.values().map(|endpoints| endpoints.len()).sum::<usize>(), 1);
    }
}
