//! Which policies speak about which local pod.

use super::{pod_gone, policy_gone, speaking};
use crate::api::Direction;
use crate::cluster::{Event, State};
use crate::testing::{PodBuilder, pod, pod_key, policy, policy_key, state};

fn web() -> PodBuilder {
    pod("a/web").labels("app=web").ip("10.0.0.1")
}

#[test]
fn selection_follows_pods_and_policies() {
    let mut state = state([web().into()]);
    // What happens, and who speaks about the pod: for ingress, for egress.
    let steps: Vec<(&str, Event, &str, &str)> = vec![
        ("a policy of another namespace", policy("b/p").ingress([]).into(), "", ""),
        ("a policy of other pods", policy("a/p").selects("app=db").ingress([]).into(), "", ""),
        ("it selects the pod", policy("a/p").selects("app=web").ingress([]).into(), "a/p", ""),
        ("another, for both directions", policy("a/b").ingress([]).egress([]).into(), "a/b a/p", "a/b"),
        ("the first for the other direction", policy("a/p").egress([]).into(), "a/b", "a/b a/p"),
        ("for no direction", policy("a/p").into(), "a/b", "a/b"),
        ("and again", policy("a/p").selects("app").ingress([]).into(), "a/b a/p", "a/b"),
        ("the pod relabelled out", web().labels("").into(), "a/b", "a/b"),
        ("and in", web().into(), "a/b a/p", "a/b"),
        ("the pod goes elsewhere", web().elsewhere().into(), "", ""),
        ("and comes back", web().into(), "a/b a/p", "a/b"),
        ("a policy goes", policy_gone("a/b"), "a/p", ""),
        ("the pod goes", pod_gone("a/web"), "", ""),
    ];
    for (name, event, ingress, egress) in steps {
        state.apply(event);
        assert_eq!(speaking(&state, "a/web", Direction::Ingress), ingress, "{name}: ingress");
        assert_eq!(speaking(&state, "a/web", Direction::Egress), egress, "{name}: egress");
    }
}

#[test]
fn a_policy_is_used_while_it_selects_a_local_pod() {
    let used = |state: &State| state.selection().used().map(ToString::to_string).collect::<Vec<_>>();
    let other = || pod("a/other").labels("app=web").ip("10.0.0.2");
    let mut state = state([policy("a/p").selects("app=web").ingress([]).into(), policy("b/p").ingress([]).into()]);
    let steps: Vec<(&str, Event, bool)> = vec![
        ("no pod", pod("a/x").ip("10.0.0.9").into(), false),
        ("a pod elsewhere", other().elsewhere().into(), false),
        ("two pods", web().into(), true),
        ("two pods here", other().into(), true),
        ("one is relabelled", other().labels("").into(), true),
        ("the last goes", pod_gone("a/web"), false),
    ];
    for (name, event, expected) in steps {
        state.apply(event);
        assert_eq!(used(&state), if expected { vec!["a/p"] } else { vec![] }, "{name}");
        assert_eq!(state.selection().is_used(&policy_key("a/p")), expected, "{name}");
    }
}

#[test]
fn pods_with_the_same_policies_share_one_list() {
    let p = || policy("a/p").ingress([]).egress([]);
    let q = || policy("a/q").selects("tier").ingress([]);
    let mut state = state([
        p().into(),
        q().into(),
        pod("a/x").ip("10.0.0.1").into(),
        pod("a/y").ip("10.0.0.2").into(),
        pod("a/z").labels("tier=1").ip("10.0.0.3").into(),
    ]);
    let list = |state: &State, pod, direction| state.selection().policies(&pod_key(pod), direction);
    let [x, y, z] = ["a/x", "a/y", "a/z"].map(|pod| list(&state, pod, Direction::Ingress));
    assert!(x.id() == y.id() && x.id() != z.id());
    assert_eq!(x.id(), list(&state, "a/z", Direction::Egress).id(), "also across directions");

    state.apply(q().selects("").into());
    let [x, y, z] = ["a/x", "a/y", "a/z"].map(|pod| list(&state, pod, Direction::Ingress));
    assert!(x.id() == y.id() && x.id() == z.id() && x.len() == 2);
}

#[test]
fn a_list_is_forgotten_with_its_last_pod() {
    let other = || pod("a/other").ip("10.0.0.2");
    let mut state = state([policy("a/p").ingress([]).into(), web().into(), other().into()]);
    let list = |state: &State, pod| state.selection().policies(&pod_key(pod), Direction::Ingress).id();
    let first = list(&state, "a/web");
    state.apply(pod_gone("a/web"));
    assert_eq!(list(&state, "a/other"), first, "the other pod has it");
    state.apply(pod_gone("a/other"));
    state.apply(web().into());
    assert_ne!(list(&state, "a/web"), first, "it is made anew");
}
