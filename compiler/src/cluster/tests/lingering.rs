//! Pods that the API has forgotten while their networks still run.

use super::*;
use crate::api::{LinkName, Phase};
use crate::cluster::Link;
use crate::testing::{PodBuilder, ip, pod, policy, state};

fn links(names: &[(&str, &str)]) -> Event {
    let link = |(name, prefix): &(&str, &str)| Link {
        name: LinkName::new(name).unwrap(),
        is_bridge: *name == "cni0",
        prefixes: vec![prefix.parse().unwrap()],
        ports: vec![],
        is_cable: *name != "cni0",
    };
    Event::Links(names.iter().map(link).collect())
}

fn web() -> PodBuilder {
    pod("a/web").labels("app=web").ip("10.0.0.1")
}

fn gone() -> Event {
    Event::Pods(PodSource::Cluster, Change::Deleted(pod_key("a/web")))
}

/// The local pods, with whether a policy isolates each.
fn local(state: &State) -> Vec<String> {
    let isolated = |key| !state.selection().policies(key, Direction::Ingress).is_empty();
    state.pods().local().map(|pod| format!("{} {}", pod.key, isolated(&pod.key))).collect()
}

#[test]
fn a_pod_keeps_its_policies_until_its_network_ends() {
    let deny = || policy("a/deny").selects("app=web").ingress([]).into();
    for (what, event) in [
        ("deleted by force", gone()),
        ("failed", web().phase(Phase::Failed).into()),
        ("succeeded", web().phase(Phase::Succeeded).into()),
        ("not in a list", Event::Pods(PodSource::Cluster, Change::Reset(Vec::new()))),
    ] {
        let mut state = state([deny(), links(&[("veth1", "10.0.0.1/32")]), web().into()]);
        state.apply(event);
        assert_eq!(local(&state), ["a/web true"], "{what}");
        assert!(state.pods().owner(ip("10.0.0.1")).is_none(), "{what}: it is nobody's peer any more");
        state.apply(links(&[("veth2", "10.0.0.2/32")]));
        assert!(local(&state).is_empty(), "{what}");
    }
}

#[test]
fn where_the_end_of_a_network_would_not_be_seen_nothing_lingers() {
    for known in [links(&[]), links(&[("cni0", "10.0.0.0/24")]), links(&[("veth2", "10.0.0.2/32")])] {
        let mut state = state([known, web().into()]);
        state.apply(gone());
        assert!(local(&state).is_empty());
    }
}

#[test]
fn a_pod_that_comes_takes_the_place_of_one_that_lingers() {
    let mut state = state([links(&[("veth1", "10.0.0.1/32")]), web().into()]);
    state.apply(gone());
    state.apply(pod("a/next").ip("10.0.0.1").into());
    let owner = |state: &State| state.pods().local_owner(ip("10.0.0.1")).map(|pod| pod.key.to_string());
    assert_eq!(owner(&state).as_deref(), Some("a/next"), "the address is the one's that stays");
    state.apply(web().into());
    state.apply(gone());
    state.apply(web().ip("10.0.0.9").created(2).into());
    assert_eq!(state.pods().get(&pod_key("a/web")).map(|pod| pod.ips.len()), Some(2), "it is as it is reported");
}
