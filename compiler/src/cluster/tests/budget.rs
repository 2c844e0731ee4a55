//! What becomes of policies that cost more than the budget of their namespace.

use std::collections::BTreeMap;

use super::{members, pod_gone, policy_gone};
use crate::api::{NodeName, Peer};
use crate::cluster::{Budget, Cost, Event, Measure, Quarantine, Spender, State};
use crate::testing::{NODE, PodBuilder, PolicyBuilder, block, pod, pods_of, policy, policy_key, rule};

const BUDGET: Budget = Budget {
    policy: Cost { sets: 6, rules: 8, elements: 6, ranges: 3, jumps: 9 },
    namespace: Cost { sets: 4, rules: 9, elements: 6, ranges: 3, jumps: 9 },
};

/// A cluster with a local pod in the namespaces `a` and `b`.
fn start() -> State {
    let mut state = State::with_budget(NodeName(NODE.into()), BUDGET);
    for key in ["a/web", "b/web"] {
        state.apply(pod(key).ip(if key == "a/web" { "10.0.0.1" } else { "10.0.0.2" }).into());
    }
    state
}

/// A policy with one rule for each peer.
fn naming(key: &str, peers: impl IntoIterator<Item = Peer>) -> PolicyBuilder {
    policy(key).ingress(peers.into_iter().map(|peer| rule().peers([peer])).collect::<Vec<_>>())
}

fn apps(numbers: std::ops::Range<u8>) -> Vec<Peer> {
    numbers.map(|i| pods_of("c", &format!("app={i}"))).collect()
}

fn member(i: u8) -> PodBuilder {
    pod(&format!("c/{i}")).labels("app=0").ip(&format!("10.0.1.{i}")).elsewhere()
}

/// `a/p: Sets`, one for each policy in quarantine.
fn quarantined(state: &mut State) -> String {
    state.decide();
    let what = |quarantine: &Quarantine| match quarantine {
        Quarantine::OverBudget { by: Spender::Policy, of, .. } => format!("{of:?} of a policy"),
        Quarantine::OverBudget { by: Spender::Namespace, of, .. } => format!("{of:?}"),
        Quarantine::Refused { reason } => reason.clone(),
    };
    let lines = state.quarantined().iter().map(|(key, quarantine)| format!("{key}: {}", what(quarantine)));
    lines.collect::<Vec<_>>().join(", ")
}

#[test]
fn what_is_too_much_is_named() {
    for (name, policy, expected) in [
        ("within", naming("a/p", apps(0..4)), ""),
        ("sets", naming("a/p", apps(0..5)), "a/p: Sets"),
        ("sets of one policy", naming("a/p", apps(0..7)), "a/p: Sets of a policy"),
        (
            "rules",
            policy("a/p").ingress(std::iter::repeat_with(|| rule().ports(&["1/TCP", "3/TCP", "5/TCP"])).take(3)),
            "a/p: Rules of a policy",
        ),
        (
            "elements",
            naming("a/p", ["10.0.0.0/30", "10.0.1.0/30"].map(|cidr| block(cidr, &["10.0.0.0/32", "10.0.0.2/32"])))
                .egress([rule().ports(&["1/TCP", "3/TCP", "5/TCP", "7/TCP", "9/TCP"])]),
            "a/p: Elements of a policy",
        ),
        (
            "a long list",
            naming("a/p", [block("10.0.0.0/24", &["10.0.0.0/32", "10.0.0.2/32", "10.0.0.4/32"])]),
            "a/p: Ranges of a policy",
        ),
    ] {
        let mut state = start();
        state.apply(policy.into());
        assert_eq!(quarantined(&mut state), expected, "{name}");
    }
}

#[test]
fn only_the_costly_policy_of_its_own_namespace_is_left_out() {
    let mut state = start();
    let steps: Vec<(&str, Event, &str)> = vec![
        ("a policy", naming("a/z", apps(0..1)).into(), ""),
        ("one that is too large on its own", naming("a/bomb", apps(0..9)).into(), "a/bomb: Sets of a policy"),
        ("one that fits beside the first", naming("a/y", apps(1..4)).into(), "a/bomb: Sets of a policy"),
        ("one of another namespace", naming("b/p", apps(0..4)).into(), "a/bomb: Sets of a policy"),
        (
            "a cheaper one displaces the costlier one",
            naming("a/x", apps(4..6)).into(),
            "a/bomb: Sets of a policy, a/y: Sets",
        ),
        ("which comes back with room", policy_gone("a/x"), "a/bomb: Sets of a policy"),
        ("the large one is made small", policy("a/bomb").ingress([]).into(), ""),
    ];
    for (name, event, expected) in steps {
        state.apply(event);
        assert_eq!(quarantined(&mut state), expected, "{name}");
    }
}

#[test]
fn members_count_once_for_a_namespace_and_only_while_they_are_there() {
    let mut state = start();
    state.apply(naming("a/p", apps(0..1)).into());
    state.apply(naming("a/q", apps(0..1)).into());
    for i in 0..6 {
        state.apply(member(i).into());
    }
    assert_eq!(quarantined(&mut state), "", "six elements, shared by two policies");
    state.apply(member(6).into());
    assert_eq!(quarantined(&mut state), "a/p: Elements, a/q: Elements");
    assert_eq!(members(&state), Vec::<String>::new(), "nothing is kept for them");
    state.apply(pod_gone("c/6"));
    assert_eq!(quarantined(&mut state), "a/p: Elements, a/q: Elements", "it is not counted at every event");
    state.reconsider();
    assert_eq!((quarantined(&mut state), members(&state).len()), (String::new(), 1));
}

#[test]
fn the_order_of_events_does_not_matter() {
    let events: Vec<Event> = vec![
        naming("a/p", apps(0..2)).into(),
        naming("a/q", apps(2..4)).into(),
        naming("a/r", apps(4..5)).into(),
        naming("a/s", apps(0..1)).into(),
        member(1).into(),
    ];
    let quarantined_after = |events: Vec<Event>| -> BTreeMap<_, _> {
        let mut state = start();
        for event in events {
            state.apply(event);
        }
        state.decide();
        state.quarantined().clone().into_iter().collect()
    };
    let forwards = quarantined_after(events.clone());
    assert_eq!(
        forwards,
        [(policy_key("a/q"), Quarantine::OverBudget { by: Spender::Namespace, of: Measure::Sets, cost: 6, limit: 4 })]
            .into()
    );
    assert_eq!(forwards, quarantined_after(events.into_iter().rev().collect()));
}

#[test]
fn what_the_kernel_refuses_is_left_out_until_it_changes() {
    let mut state = start();
    state.apply(naming("a/p", apps(0..1)).into());
    let before = state.versions();
    state.refuse(&policy_key("a/p"), "EINVAL".to_owned());
    assert_eq!((quarantined(&mut state).as_str(), members(&state).len()), ("a/p: EINVAL", 0));
    assert_ne!(state.versions(), before, "the table is another one");
    state.apply(naming("a/q", apps(1..2)).into());
    assert_eq!(quarantined(&mut state), "a/p: EINVAL", "another policy changes nothing");
    state.apply(naming("a/p", apps(1..2)).into());
    assert_eq!((quarantined(&mut state).as_str(), members(&state).len()), ("", 1));
    state.refuse(&policy_key("a/p"), "EINVAL".to_owned());
    state.reconsider();
    assert_eq!(quarantined(&mut state), "", "and it gets another chance");
    for key in ["a/p", "a/q"] {
        state.refuse(&policy_key(key), "EINVAL".to_owned());
    }
    state.pardon(&[policy_key("a/q")]);
    assert_eq!(quarantined(&mut state), "a/p: EINVAL", "one of two is believed to be innocent");
}

#[test]
fn what_grows_by_a_decision_is_not_decided_upon_again() {
    let mut state = start();
    for i in 0..7 {
        state.apply(member(i).into());
    }
    // To see whether it fits, its members are worked out, and then forgotten.
    state.apply(naming("a/p", apps(0..1)).into());
    for reconsiders in [false, true] {
        if reconsiders {
            state.reconsider();
        }
        assert_eq!(quarantined(&mut state), "a/p: Elements");
        let decided = state.versions();
        state.decide();
        assert_eq!(state.versions(), decided, "nothing has come since then");
    }
}
