//! An event costs what it changes: how many selectors are tried, whatever there is.

use crate::cluster::{Change, Event, PodSource, State};
use crate::testing::{PodBuilder, namespace, pod, pods_of, pods_where, policy, rule, state};
use crate::work::{self, Work};

const POLICIES: usize = 1_500;
const PODS: usize = 15_000;

fn peer(number: usize) -> PodBuilder {
    let label = format!("app=client-{}", number % POLICIES);
    pod(&format!("b/peer-{number}")).labels(&label).ip(&format!("10.1.{}.{}", number / 250, number % 250)).elsewhere()
}

fn list() -> Event {
    Event::Pods(PodSource::Cluster, Change::Reset((0..PODS).map(|number| peer(number).build()).collect()))
}

/// Each of many policies names its own label, one in the namespace of the peers and one in others, and the pods of a
/// namespace of its own.
fn many() -> State {
    let policies = (0..POLICIES).map(|number| {
        let app = format!("app=client-{number}");
        let peers = [pods_of("b", &app), pods_where("team=x", &app), pods_of(&format!("n{number}"), "")];
        let rules = peers.map(|peer| rule().peers([peer]));
        Event::from(policy(&format!("a/p{number}")).ingress(rules))
    });
    // The pods come last, each to all the selectors that there are.
    let first = [namespace("a", "").into(), namespace("b", "team=x").into()];
    let web = Event::Pods(PodSource::Node, Change::Reset(vec![pod("a/web").ip("10.0.0.1").build()]));
    state(first.into_iter().chain([web]).chain(policies).chain([list()]))
}

#[test]
fn few_selectors_are_tried_however_many_there_are() {
    let mut state = many();
    assert_eq!(state.memberships().members().len(), 3 * POLICIES);
    // What happens, and how many selectors may be tried: the two of its label, before and after.
    let cases: Vec<(&str, Event, usize)> = vec![
        ("its status alone", peer(7).version(9).into(), 0),
        ("another label", peer(7).labels("app=client-8").into(), 4),
        ("a label of nobody", peer(7).labels("app=stranger").into(), 2),
        ("back", peer(7).into(), 2),
        ("another address", peer(7).ip("10.9.0.1").into(), 4),
        ("a new pod", pod("b/new").labels("app=client-1").ip("10.9.0.2").elsewhere().into(), 2),
        ("a pod of a namespace that is named", pod("n5/new").ip("10.9.0.3").elsewhere().into(), 1),
        ("a pod that nobody means", pod("c/new").ip("10.9.0.4").elsewhere().into(), 0),
        ("the same pods listed", list(), 6),
        ("listed again", list(), 0),
        ("the annotation of a namespace", namespace("b", "team=x").into(), 0),
        ("a namespace without pods", namespace("d", "team=x").into(), 0),
        ("the label of a namespace: two for each of its pods", namespace("b", "team=y").into(), 2 * PODS),
    ];
    work::take();
    for (name, event, most) in cases {
        state.apply(event);
        let tried = work::take().of(Work::SelectorTried);
        assert!(tried <= most, "{name}: {tried} selectors were tried");
    }
}
