//! An event costs what it changes, through all stages: how much is worked out anew, whatever there is.

use crate::Compiler;
use crate::api::NodeName;
use crate::cluster::{Change, Event, PodSource};
use crate::diff::{Generation, Limits, Mirror, Way};
use crate::nft::Deny;
use crate::testing::{
    NODE, PodBuilder, PolicyBuilder, block, namespace, pod, pods_of, pods_where, policy, policy_key, rule,
};
use crate::work::{self, Work};

/// The pods of the node. Each is selected by as many of the policies.
const PODS: usize = 4;
/// How many pods there are of the namespace whose labels change.
const SMALL: usize = 10;

/// What the sync thread has.
struct Node {
    compiler: Compiler,
    mirror: Mirror,
    way: Way,
}

/// How much an event has cost: what was worked out anew, by kind, and how many operations came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cost {
    selectors: usize,
    policies: usize,
    chains: usize,
    sets: usize,
    groups: usize,
    objects: usize,
    ops: usize,
}

impl Node {
    /// With so many policies, each of which names a pod elsewhere, and ten times as many pods that nobody names.
    fn new(policies: usize) -> Node {
        let compiler = Compiler::new(NodeName(NODE.into()), Deny::Drop).cutting_flows();
        let mirror = Mirror { table: None, generation: Generation(0), foreign: Vec::new() };
        let mut node = Node { compiler, mirror, way: Way::default() };
        let namespaces = ["a", "b", "c", "small"].map(|name| Event::from(namespace(name, "")));
        let strangers =
            (0..10 * policies).map(|number| pod(&format!("c/{number}")).ip(&address(10, number)).elsewhere());
        let small = (0..SMALL).map(|number| pod(&format!("small/{number}")).ip(&address(11, number)).elsewhere());
        let pods = (0..PODS).map(local).chain((0..policies).map(peer)).chain(strangers).chain(small);
        let team = policy("a/team").ingress([rule().peers([pods_where("team=x", "")])]);
        let policies = (0..policies).map(naming).chain([team]);
        for event in namespaces.into_iter().chain(pods.map(Event::from)).chain(policies.map(Event::from)) {
            node.compiler.apply(event);
        }
        node.turns();
        node.review();
        node
    }

    fn event(&mut self, event: impl Into<Event>) -> Cost {
        work::take();
        self.compiler.apply(event.into());
        let ops = self.turns();
        let done = work::take();
        self.review();
        Cost {
            selectors: done.of(Work::SelectorTried),
            policies: done.of(Work::PolicyResolved),
            chains: done.of(Work::ChainLowered),
            sets: done.of(Work::SetFilled),
            groups: done.of(Work::GroupLowered),
            objects: done.of(Work::ObjectCompared),
            ops,
        }
    }

    /// All transactions, and how many operations there are in them.
    fn turns(&mut self) -> usize {
        std::iter::from_fn(|| Some(self.turn()).filter(|ops| *ops > 0)).sum()
    }

    /// One transaction, and how many operations there are in it.
    fn turn(&mut self) -> usize {
        let desired = self.compiler.table();
        let Some(transaction) = self.way.next(&desired, &self.mirror, Limits::default()) else {
            self.mirror.settled(desired);
            return 0;
        };
        let ops = transaction.ops().len();
        self.mirror.committed(transaction, Generation(1));
        ops
    }

    /// No open flow is refused.
    fn review(&mut self) {
        let flows = self.compiler.flows_mut().expect("flows are cut");
        let found = flows.review().expect("there has been an IR").begin(&Default::default()).end(true);
        flows.reviewed(found);
        self.turns();
    }
}

fn address(first: usize, number: usize) -> String {
    format!("{first}.1.{}.{}", number / 256, number % 256)
}

fn local(number: usize) -> PodBuilder {
    pod(&format!("a/web-{number}")).labels(&format!("app=web-{number}")).ip(&address(12, number))
}

fn peer(number: usize) -> PodBuilder {
    pod(&format!("b/peer-{number}")).labels(&format!("app=client-{number}")).ip(&address(13, number)).elsewhere()
}

fn naming(number: usize) -> PolicyBuilder {
    naming_at(number, number, "80/TCP")
}

fn naming_at(number: usize, client: usize, port: &str) -> PolicyBuilder {
    let peers = [pods_of("b", &format!("app=client-{client}")), block(&format!("{}/32", address(14, number)), &[])];
    let selected = format!("app=web-{}", number % PODS);
    policy(&format!("a/p{number}")).selects(&selected).ingress([rule().peers(peers).ports(&[port])])
}

/// What happens, in turn, and what it may cost at most: selectors tried, policies resolved, chains lowered, sets filled,
/// groups of pods led anew, objects that differ, operations. Where something is narrowed, the addresses of the pods that are
/// judged again, and the rules for these, are some ten of the objects.
fn story() -> Vec<(&'static str, Event, [usize; 7])> {
    let gone = |key: &str| Event::Policies(Change::Deleted(policy_key(key)));
    vec![
        ("the status of a peer alone", peer(7).version(9).into(), [0, 0, 0, 0, 0, 0, 0]),
        ("a peer gets the label of another", peer(7).labels("app=client-11").into(), [3, 0, 0, 2, 0, 14, 12]),
        ("and back", peer(7).into(), [3, 0, 0, 2, 0, 14, 12]),
        ("a pod that nobody names", pod("c/new").ip("10.9.9.9").elsewhere().into(), [1, 0, 0, 0, 0, 0, 0]),
        ("a peer goes", Event::Pods(PodSource::Cluster, Change::Deleted(peer(7).build().key)), [0, 0, 0, 1, 0, 12, 10]),
        ("and comes", peer(7).into(), [2, 0, 0, 1, 0, 4, 2]),
        ("a namespace of ten pods is meant", namespace("small", "team=x").into(), [SMALL, 0, 0, 1, 0, 10, 5]),
        ("and is not", namespace("small", "").into(), [SMALL, 0, 0, 1, 0, 18, 13]),
        ("a policy's port", naming_at(7, 7, "81/TCP").into(), [0, 1, 1, 0, 0, 10, 10]),
        ("a policy's peers", naming_at(7, 8, "81/TCP").into(), [0, 1, 1, 0, 1, 14, 13]),
        ("and back", naming(7).into(), [1, 1, 1, 1, 1, 14, 14]),
        ("a policy goes", gone("a/p7"), [0, 0, 0, 0, 1, 67, 26]),
        ("and comes", naming(7).into(), [1, 1, 1, 1, 1, 64, 28]),
    ]
}

/// One label of one pod, which the selectors of all policies of a group ask for.
#[test]
fn a_label_that_many_selectors_ask_for_costs_what_they_are() {
    let cost = |policies: usize| {
        let mut node = Node::new(0);
        for number in 0..policies {
            let named = pods_of("b", &format!("client=yes,!x{number}"));
            node.compiler.apply(policy(&format!("a/p{number:03}")).ingress([rule().peers([named])]).into());
        }
        let peer = |labels: &str| pod("b/peer").labels(labels).ip("10.9.9.9").elsewhere();
        node.compiler.apply(peer("").into());
        node.turns();
        node.review();
        work::take();
        node.compiler.apply(peer("client=yes").into());
        node.turns();
        let done = work::take();
        [Work::GroupLowered, Work::PolicyLedTo].map(|work| done.of(work))
    };
    assert_eq!([cost(20), cost(200)], [[0, 20], [0, 200]]);
}

#[test]
fn an_event_costs_the_same_among_ten_times_as_many() {
    let [mut few, mut many] = [80, 800].map(Node::new);
    let mut over = Vec::new();
    for (name, event, most) in story() {
        let cost = few.event(event.clone());
        assert_eq!(many.event(event), cost, "{name}: among many");
        let Cost { selectors, policies, chains, sets, groups, objects, ops } = cost;
        let all = [selectors, policies, chains, sets, groups, objects, ops];
        if all.iter().zip(most).any(|(cost, most)| *cost > most) {
            over.push(format!("{name}: {all:?}, and no more than {most:?}"));
        }
    }
    assert!(over.is_empty(), "{over:#?}");
}
