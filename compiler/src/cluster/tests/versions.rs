//! The versions grow when what they stand for changes, and otherwise stay.

use super::{namespace_gone, pod_gone, policy_gone};
use crate::api::Phase;
use crate::cluster::Event;
use crate::testing::{block, denying_namespace, namespace, pod, pods_of, policy, rule, state};

#[test]
fn versions_grow_exactly_when_they_must() {
    let web = || pod("a/web").labels("app=web").ip("10.0.0.1");
    let there = || pod("b/there").labels("app=web").ip("10.0.0.2").elsewhere();
    let p = || policy("a/p").ingress([]);
    // What happens, and which grow: of the local pods, of the policies in use. That of the namespaces is below.
    let cases: Vec<(&str, Event, bool, bool)> = vec![
        ("nothing", web().into(), false, false),
        ("a local pod with other labels", web().labels("app=db").into(), true, false),
        ("a local pod that policies select otherwise", web().labels("tier=1").into(), true, true),
        ("a local pod with another address", web().ip("fd00::1").into(), true, false),
        ("a new local pod", pod("a/new").ip("10.0.0.3").into(), true, false),
        ("the first pod of a policy", pod("c/new").ip("10.0.0.3").into(), true, true),
        ("a local pod that goes", pod_gone("a/web"), true, true),
        ("a local pod that finishes", web().phase(Phase::Failed).into(), true, true),
        ("a pod elsewhere", there().labels("app=x").into(), false, false),
        ("a pod elsewhere that goes", pod_gone("b/there"), false, false),
        ("a pod elsewhere that comes here", pod("b/there").ip("10.0.0.2").into(), true, false),
        ("a pod that does not count", pod("a/host").ip("10.0.0.9").host_network().into(), false, false),
        ("the labels of a namespace", namespace("a", "team=y").into(), false, false),
        ("a namespace that is not there yet", namespace("x", "").into(), false, false),
        ("one with the annotation", denying_namespace("x").into(), true, false),
        ("the annotation", denying_namespace("a").into(), true, false),
        ("a namespace that goes", namespace_gone("a"), false, false),
        ("one with the annotation goes", namespace_gone("d"), true, false),
        ("the annotation goes", namespace("d", "").into(), true, false),
        ("the rules of a policy in use", p().ingress([rule().peers([block("10.0.0.0/8", &[])])]).into(), false, true),
        ("its peers", p().ingress([rule().peers([pods_of("b", "")])]).into(), false, true),
        ("its direction", policy("a/p").egress([]).into(), true, true),
        ("its selector", p().selects("app=db").into(), true, true),
        ("its selector, for the same pods", p().selects("app=web").into(), false, true),
        ("its generation", p().first_generation().into(), true, true),
        ("it goes", policy_gone("a/p"), true, true),
        ("another in use", policy("a/q").egress([]).into(), true, true),
        ("a policy that nobody here needs", policy("c/p").ingress([rule()]).into(), false, false),
        ("it goes", policy_gone("c/p"), false, false),
        ("it selects nobody here", policy("b/q").ingress([]).into(), false, false),
    ];
    for (name, event, of_pods, of_policies) in cases {
        let mut state = state([
            Event::from(namespace("a", "team=x")),
            denying_namespace("d").into(),
            web().into(),
            there().into(),
            p().into(),
            policy("a/tier").selects("tier").ingress([]).into(),
            policy("c/p").ingress([]).into(),
        ]);
        let before = state.versions();
        state.apply(event);
        let after = state.versions();
        assert_eq!(after.local_pods > before.local_pods, of_pods, "{name}: local pods");
        assert_eq!(after.used_policies > before.used_policies, of_policies, "{name}: policies in use");
    }
    for (name, event, grows) in [
        ("a pod", Event::from(web().labels("app=db")), false),
        ("the same namespace", namespace("a", "team=x").into(), false),
        ("other labels", namespace("a", "team=y").into(), true),
        ("the annotation", denying_namespace("d").into(), false),
        ("a new namespace", namespace("x", "").into(), true),
        ("one that goes", namespace_gone("a"), true),
        ("one that is not there", namespace_gone("x"), false),
    ] {
        let mut state = state([Event::from(namespace("a", "team=x")), denying_namespace("d").into(), web().into()]);
        let before = state.versions().namespaces;
        state.apply(event);
        assert_eq!(state.versions().namespaces > before, grows, "{name}: namespaces");
    }
}
