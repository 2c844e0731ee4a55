//! What selectors and named ports mean, and how long it is kept.

use super::{answers, endpoints, members, namespace_gone, pod_gone, policy_gone};
use crate::api::Phase;
use crate::cluster::{Event, State};
use crate::testing::{PodBuilder, block, namespace, pod, pods_of, pods_where, policy, rule, state};

fn web() -> PodBuilder {
    pod("a/web").labels("app=web").ip("10.0.0.1")
}

/// A policy of a local pod that names the pods `app=db`: one rule of its own namespace, one of namespaces `team=x`.
fn start() -> State {
    let rules = [pods_of("a", "app=db"), pods_where("team=x", "app=db")].map(|peer| rule().peers([peer]));
    state([web().into(), policy("a/p").ingress(rules).into()])
}

fn db(key: &str, address: &str) -> PodBuilder {
    pod(key).labels("app=db").ip(address).elsewhere()
}

#[test]
fn members_follow_pods_and_namespaces() {
    let mut state = start();
    // What happens, who is meant in the own namespace, and who in those of the team.
    let steps: Vec<(&str, Event, &str, &str)> = vec![
        ("a pod of an unknown namespace", db("b/db", "10.0.1.1").into(), "", ""),
        ("its namespace", namespace("b", "team=x").into(), "", " 10.0.1.1"),
        ("a pod before it in the order", db("b/first", "10.0.0.9").into(), "", " 10.0.0.9 10.0.1.1"),
        ("another of the own namespace", db("a/db", "10.0.2.1").into(), " 10.0.2.1", " 10.0.0.9 10.0.1.1"),
        ("the own namespace", namespace("a", "team=x").into(), " 10.0.2.1", " 10.0.0.9 10.0.1.1 10.0.2.1"),
        ("a pod relabelled out", db("b/first", "10.0.0.9").labels("app=x").into(), " 10.0.2.1", " 10.0.1.1 10.0.2.1"),
        ("a pod that has finished", db("a/db", "10.0.2.1").phase(Phase::Succeeded).into(), "", " 10.0.1.1"),
        ("a pod with another address", db("b/db", "10.0.1.2").into(), "", " 10.0.1.2"),
        ("a pod of two families", db("b/db", "10.0.1.2").ip("fd00::1").into(), "", " 10.0.1.2 fd00::1"),
        ("a namespace relabelled out", namespace("b", "team=y").into(), "", ""),
        ("and in", namespace("b", "team=x").into(), "", " 10.0.1.2 fd00::1"),
        ("a namespace that goes before its pods", namespace_gone("b"), "", ""),
        ("and comes", namespace("b", "team=x,more=1").into(), "", " 10.0.1.2 fd00::1"),
        ("a pod that goes", pod_gone("b/db"), "", ""),
    ];
    for (name, event, own, of_team) in steps {
        state.apply(event);
        assert_eq!(members(&state), [format!("(team=x){{app=db}}:{of_team}"), format!("a{{app=db}}:{own}")], "{name}");
    }
}

#[test]
fn the_pods_of_a_rule_are_one_membership() {
    let both = [pods_of("a", "app=db"), pods_where("team=x", "app=db")];
    let policy = policy("a/p").ingress([rule().peers(both.clone()), rule().peers(both).ports(&["80/TCP"])]);
    let mut state = state([web().into(), namespace("b", "team=x").into(), policy.into()]);
    for (name, event, expected) in [
        ("of the one", Event::from(db("a/db", "10.0.0.2")), " 10.0.0.2"),
        ("of the other", db("b/db", "10.0.1.2").into(), " 10.0.0.2 10.0.1.2"),
        ("of none", db("c/db", "10.0.2.2").into(), " 10.0.0.2 10.0.1.2"),
        ("of both", namespace("a", "team=x").into(), " 10.0.0.2 10.0.1.2"),
        ("of the one again", namespace("a", "").into(), " 10.0.0.2 10.0.1.2"),
        ("gone", pod_gone("a/db"), " 10.0.1.2"),
    ] {
        state.apply(event);
        assert_eq!(members(&state), [format!("a{{app=db}} (team=x){{app=db}}:{expected}")], "{name}");
    }
}

#[test]
fn an_unknown_namespace_is_not_even_everything() {
    let everywhere = policy("a/p").ingress([rule().peers([pods_where("", "")])]);
    let mut state = state([web().into(), db("b/db", "10.0.0.2").into(), everywhere.into()]);
    assert_eq!(members(&state), ["(){}:"]);
    state.apply(namespace("b", "").into());
    assert_eq!(members(&state), ["(){}: 10.0.0.2"]);
}

#[test]
fn of_two_pods_with_one_address_only_the_owner_counts() {
    let mut state = start();
    state.apply(db("a/old", "10.0.0.7").created(1).into());
    assert_eq!(members(&state)[1], "a{app=db}: 10.0.0.7");
    state.apply(pod("a/new").labels("app=x").ip("10.0.0.7").created(2).into());
    assert_eq!(members(&state)[1], "a{app=db}:");
    state.apply(pod_gone("a/new"));
    assert_eq!(members(&state)[1], "a{app=db}: 10.0.0.7");
}

#[test]
fn a_policy_that_comes_late_finds_the_pods_that_are_there() {
    let events = || {
        [
            Event::from(web().port("http", "80/TCP").port("http", "81/TCP").port("http", "53/UDP")),
            db("b/db", "10.0.0.2").port("sql", "5432/TCP").into(),
            namespace("a", "").into(),
            namespace("b", "team=x").into(),
            policy("a/in").ingress([rule().ports(&["http/TCP"])]).into(),
            policy("a/out").egress([rule().peers([pods_where("team=x", "")]).ports(&["sql/TCP"])]).into(),
        ]
    };
    let (early, late) = (state(events()), state(events().into_iter().rev()));
    assert_eq!(answers(&early), answers(&late));
    assert_eq!(members(&early), ["(team=x){}: 10.0.0.2"]);
    assert_eq!(
        endpoints(&early),
        ["http/TCP of local pods: 10.0.0.1:80/TCP 10.0.0.1:81/TCP", "sql/TCP of (team=x){}: 10.0.0.2:5432/TCP"]
    );
}

#[test]
fn named_ports_follow_the_pods_that_declare_them() {
    let to_all = policy("a/p").ingress([rule().ports(&["http/TCP"])]).egress([rule().ports(&["http/TCP"])]);
    // A pod without ports keeps the policy in use when the other has finished.
    let stays = pod("a/stays").ip("10.0.0.100");
    let mut state = state([stays.into(), web().into(), namespace("a", "").into(), to_all.into()]);
    let steps: Vec<(&str, PodBuilder, &str, &str)> = vec![
        ("no port", web(), "", ""),
        ("another name", web().port("sql", "80/TCP"), "", ""),
        ("another protocol", web().port("http", "80/UDP"), "", ""),
        ("here", web().port("http", "80/TCP"), " 10.0.0.1:80/TCP", " 10.0.0.1:80/TCP"),
        ("twice", web().port("http", "80/TCP").port("http", "80/TCP"), " 10.0.0.1:80/TCP", " 10.0.0.1:80/TCP"),
        (
            "elsewhere",
            db("a/db", "10.0.0.2").port("http", "9/TCP").port("http", "7/TCP"),
            " 10.0.0.1:80/TCP",
            " 10.0.0.1:80/TCP 10.0.0.2:7/TCP 10.0.0.2:9/TCP",
        ),
        (
            "another number",
            web().port("http", "8080/TCP"),
            " 10.0.0.1:8080/TCP",
            " 10.0.0.1:8080/TCP 10.0.0.2:7/TCP 10.0.0.2:9/TCP",
        ),
        ("finished", web().port("http", "8080/TCP").phase(Phase::Failed), "", " 10.0.0.2:7/TCP 10.0.0.2:9/TCP"),
    ];
    for (name, pod, local, everywhere) in steps {
        state.apply(pod.into());
        let expected = [format!("http/TCP of local pods:{local}"), format!("http/TCP of all pods:{everywhere}")];
        assert_eq!(endpoints(&state), expected, "{name}");
    }
}

#[test]
fn what_named_ports_are_looked_up_in() {
    let cases = [
        (
            "towards a pod: its own",
            policy("a/p").ingress([rule().peers([pods_of("b", "")]).ports(&["x/TCP"])]),
            vec!["local pods"],
        ),
        ("to anybody: all pods", policy("a/p").egress([rule().ports(&["x/TCP"])]), vec!["all pods"]),
        (
            "to peers: their own, a block all pods",
            policy("a/p").egress([rule()
                .peers([pods_of("b", "app=db"), block("10.0.0.0/8", &[]), pods_where("team=x", "")])
                .ports(&["x/TCP"])]),
            vec!["b{app=db} (team=x){}", "all pods"],
        ),
        ("to nobody: nowhere", policy("a/p").egress([rule().peers([]).ports(&["x/TCP"])]), vec![]),
        ("numbers: nowhere", policy("a/p").egress([rule().ports(&["80/TCP", "*/UDP"])]), vec![]),
    ];
    for (name, policy, scopes) in cases {
        let state = state([web().into(), policy.into()]);
        let expected: Vec<String> = scopes.iter().map(|scope| format!("x/TCP of {scope}:")).collect();
        assert_eq!(endpoints(&state), expected, "{name}");
    }
}

#[test]
fn kept_until_the_last_policy_that_names_it() {
    let naming = |key: &str| policy(key).egress([rule().peers([pods_of("a", "app=web")]).ports(&["http/TCP"])]);
    let kept = |state: &State| (members(state).len(), endpoints(state).len());
    let mut state = state([web().into()]);
    // What happens, and how many selectors and named ports are kept then.
    let steps: Vec<(&str, Event, (usize, usize))> = vec![
        ("the first", naming("a/p").into(), (1, 1)),
        ("another", naming("a/q").into(), (1, 1)),
        ("one that selects nobody here", naming("b/p").into(), (1, 1)),
        ("the first changes and needs the same", naming("a/p").ingress([]).into(), (1, 1)),
        ("the first goes", policy_gone("a/p"), (1, 1)),
        ("the other selects nobody", naming("a/q").selects("app=x").into(), (0, 0)),
        ("and somebody again", naming("a/q").into(), (1, 1)),
        ("its only pod goes elsewhere", web().elsewhere().into(), (0, 0)),
        ("and comes back", web().into(), (1, 1)),
        ("the other needs less", policy("a/q").egress([rule().ports(&["http/TCP"])]).into(), (0, 1)),
        ("its only pod finishes", web().phase(Phase::Succeeded).into(), (0, 0)),
        ("and is another of that name", web().into(), (0, 1)),
        ("the last policy goes", policy_gone("a/q"), (0, 0)),
    ];
    for (name, event, expected) in steps {
        state.apply(event);
        assert_eq!(kept(&state), expected, "{name}");
    }
}
