//! Whether anything changed, and that a list is what its objects are.

use super::{answers, applied, namespace_gone, pod_gone, policy_gone};
use crate::api::Phase;
use crate::cluster::{Change, Event, PodQuery, PodSource, State};
use crate::testing::{
    NODE, denying_namespace, namespace, pod, pod_key, pods_of, pods_where, policy, rule, selector, state,
};

#[test]
fn says_whether_anything_changed() {
    let web = || pod("a/web").ip("10.0.0.1");
    let deny = || policy("a/deny").ingress([]);
    let cases: Vec<(&str, Event, bool)> = vec![
        ("a pod that is as it was", web().into(), false),
        ("a pod with a label more", web().labels("app=web").into(), true),
        ("a pod that has finished", web().phase(Phase::Succeeded).into(), true),
        ("another pod", pod("a/db").into(), true),
        ("a pod that goes", pod_gone("a/web"), true),
        ("a pod that nobody knew", pod_gone("a/db"), false),
        ("the same pods listed", Event::Pods(PodSource::Cluster, Change::Reset(vec![web().build()])), false),
        (
            "a pod listed otherwise",
            Event::Pods(PodSource::Cluster, Change::Reset(vec![web().created(5).build()])),
            true,
        ),
        ("no pods listed", Event::Pods(PodSource::Cluster, Change::Reset(vec![])), true),
        ("no pods listed by a watch that had none", Event::Pods(PodSource::Node, Change::Reset(vec![])), false),
        ("a namespace that is as it was", namespace("a", "team=x").into(), false),
        ("a namespace with other labels", namespace("a", "team=y").into(), true),
        ("a namespace with the annotation", denying_namespace("a").into(), true),
        ("another namespace", namespace("b", "").into(), true),
        ("a namespace that goes", namespace_gone("a"), true),
        ("a namespace that nobody knew", namespace_gone("b"), false),
        ("the same namespaces", Event::Namespaces(Change::Reset(vec![namespace("a", "team=x")])), false),
        ("a namespace listed otherwise", Event::Namespaces(Change::Reset(vec![namespace("a", "team=y")])), true),
        ("no namespaces", Event::Namespaces(Change::Reset(vec![])), true),
        ("a policy that is as it was", deny().into(), false),
        ("a policy for another direction", policy("a/deny").egress([]).into(), true),
        ("a policy with other rules", policy("a/deny").ingress([rule()]).into(), true),
        ("another policy", policy("a/other").into(), true),
        ("a policy that goes", policy_gone("a/deny"), true),
        ("a policy that nobody knew", policy_gone("a/other"), false),
        ("the same policies", Event::Policies(Change::Reset(vec![deny().build()])), false),
        ("a policy listed otherwise", Event::Policies(Change::Reset(vec![deny().egress([]).build()])), true),
        ("no policies", Event::Policies(Change::Reset(vec![])), true),
    ];
    for (name, event, expected) in cases {
        let mut state = state([namespace("a", "team=x").into(), deny().into(), web().into()]);
        let before = answers(&state);
        assert_eq!(state.apply(event), expected, "{name}");
        assert_eq!(answers(&state) != before, expected, "{name}: the state itself");
    }
}

#[test]
fn a_list_forgets_and_then_applies_each() {
    let peers = || [pods_where("team=x", "app=db"), pods_of("a", "app=web")];
    let first = [
        Event::from(namespace("a", "team=x")),
        namespace("b", "team=x").into(),
        pod("a/web").labels("app=web").ip("10.0.0.1").port("http", "80/TCP").into(),
        pod("b/db").labels("app=db").ip("10.0.0.2").elsewhere().into(),
        policy("a/p").ingress([rule().peers(peers()).ports(&["http/TCP"])]).into(),
        policy("a/gone").egress([rule().peers(peers())]).into(),
    ];
    let pods = vec![
        pod("a/web").labels("app=db").ip("10.0.0.1").port("http", "81/TCP").build(),
        pod("a/new").labels("app=web").ip("10.0.0.2").build(),
    ];
    let namespaces = vec![namespace("b", "team=y"), denying_namespace("c")];
    let policies = vec![policy("a/p").selects("app=db").ingress([rule().peers(peers()).ports(&["http/TCP"])]).build()];

    let lists = [
        Event::Pods(PodSource::Cluster, Change::Reset(pods.clone())),
        Event::Namespaces(Change::Reset(namespaces.clone())),
        Event::Policies(Change::Reset(policies.clone())),
    ];
    let after_lists = state(first.into_iter().chain(lists));
    let each = pods.into_iter().map(applied).chain(namespaces.into_iter().map(Event::from));
    let fresh = state(each.chain(policies.into_iter().map(|policy| Event::Policies(Change::Applied(policy)))));
    assert_eq!(answers(&after_lists), answers(&fresh));
    assert_eq!(fresh.pods().iter().count(), 2, "and there is something to compare");
}

#[test]
fn each_watch_speaks_for_itself() {
    let web = |label: &str| pod("a/web").labels(label).ip("10.0.0.1");
    let own = PodSource::Node;
    let of_namespace = PodSource::Namespace("a".into());
    let label = |state: &State| {
        let pod = state.pods().get(&pod_key("a/web"))?;
        pod.labels.get("seen").map(ToString::to_string)
    };
    let gone = |source: &PodSource| Event::Pods(source.clone(), Change::Deleted(pod_key("a/web")));

    let mut state = state([web("seen=namespace").seen_by(of_namespace.clone())]);
    assert!(state.apply(web("seen=node").seen_by(own.clone())), "what the node's watch says is believed first");
    assert_eq!(label(&state).as_deref(), Some("node"));
    assert!(!state.apply(web("seen=late").seen_by(of_namespace.clone())), "the other watch changes nothing then");
    assert!(state.apply(gone(&own)), "until the first one ends");
    assert_eq!(label(&state).as_deref(), Some("late"));
    assert!(state.apply(web("seen=node").seen_by(own.clone())));
    assert!(!state.apply(Event::Pods(of_namespace.clone(), Change::Reset(vec![]))), "the end of the other watch");
    assert_eq!(label(&state).as_deref(), Some("node"));
    assert!(state.apply(Event::Pods(own, Change::Reset(vec![]))), "the end of the last watch");
    assert_eq!(label(&state), None);
    assert_eq!((state.pods().iter().count(), state.pods().addresses().count()), (0, 0));
    assert_eq!(&*state.node().0, NODE);
}

#[test]
fn the_newest_version_is_believed_and_ends_with_its_watch() {
    let labelled = |text: &str| PodSource::from(PodQuery { namespace: None, labels: selector(text) });
    let watches = [labelled("app=web"), labelled("app=db")];
    let app = |state: &State| Some(state.pods().get(&pod_key("a/x"))?.labels.get("app")?.to_string());
    // Which watch says what, as of which version, whether that changes anything, and what is believed then.
    let steps = [
        ("one watch has it", 0, Some(("web", 3)), true, Some("web")),
        ("it is relabelled, and another has it first", 1, Some(("db", 4)), true, Some("db")),
        ("the first is late", 0, Some(("web", 3)), false, Some("db")),
        ("and then sees it leave", 0, None, false, Some("db")),
        ("it is relabelled back", 0, Some(("web", 5)), true, Some("web")),
        ("the other is late with a change of before", 1, Some(("db", 4)), false, Some("web")),
        ("its status changes", 0, Some(("web", 6)), false, Some("web")),
        ("the other sees it leave", 1, None, false, Some("web")),
        ("it is gone", 0, None, true, None),
    ];
    // The same where the first in the order of watches is the other.
    for order in [[0, 1], [1, 0]] {
        let mut state = state([]);
        for (name, watch, said, changes, expected) in steps {
            let source = watches[order[watch]].clone();
            let event = match said {
                Some((app, version)) => {
                    let pod = pod("a/x").labels(&format!("app={app}")).ip("10.0.0.1").version(version);
                    pod.elsewhere().seen_by(source)
                }
                None => Event::Pods(source, Change::Deleted(pod_key("a/x"))),
            };
            assert_eq!(state.apply(event), changes, "{name}");
            assert_eq!(app(&state).as_deref(), expected, "{name}");
        }
        assert_eq!(state.pods().len(), 0);
    }
}

#[test]
fn kinds_are_named_as_in_manifests() {
    let events = [Event::from(pod("a/web")), namespace("a", "").into(), policy("a/p").into()];
    assert_eq!(events.each_ref().map(Event::kind), ["Pod", "Namespace", "NetworkPolicy"]);
}
