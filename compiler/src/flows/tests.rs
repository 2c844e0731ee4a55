//! Which flows are rejudged and cut as policies change.

use super::*;
use crate::Compiler;
use crate::api::{NodeName, Protocol};
use crate::cluster::{Change, Event, PodSource};
use crate::nft::Deny;
use crate::policy::Judgement;
use crate::testing::{NODE, block, ip, pod, pod_key, pods_of, policy, policy_key, rule};

/// A compiler, and what review finds of the flows that are open on its node.
struct Node {
    compiler: Compiler,
    open: Vec<Flow>,
    own: BTreeSet<IpAddr>,
}

impl Node {
    fn new(events: impl IntoIterator<Item = Event>) -> Node {
        let compiler = Compiler::new(NodeName(NODE.into()), Deny::Drop).cutting_flows();
        let mut node = Node { compiler, open: Vec::new(), own: BTreeSet::from([ip("10.0.0.254")]) };
        events.into_iter().for_each(|event| node.apply(event));
        node.review();
        node
    }

    fn apply(&mut self, event: impl Into<Event>) {
        self.compiler.apply(event.into());
        self.compiler.table();
    }

    fn open(&mut self, client: &str, server: &str, protocol: u8, ports: Option<(u16, u16)>) {
        self.open.push(Flow { client: ip(client), server: ip(server), protocol, ports });
    }

    fn flows(&mut self) -> &mut OpenFlows {
        self.compiler.flows_mut().unwrap()
    }

    fn rejudged(&mut self) -> Vec<String> {
        self.flows().rejudged().map(|address| address.to_string()).collect()
    }

    fn cut(&mut self) -> Vec<String> {
        self.flows().cut().iter().map(ToString::to_string).collect()
    }

    fn found(&mut self) -> Reviewed {
        let review = self.flows().review().unwrap();
        let own = self.own.clone();
        let mut inspection = review.begin(&own);
        self.open.iter().for_each(|flow| inspection.flow(flow));
        inspection.end(true)
    }

    fn review(&mut self) {
        let found = self.found();
        self.flows().reviewed(found);
        self.compiler.table();
    }
}

const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP: u8 = 1;

/// A server that whoever is `app=friend` may reach on 80, and a friend.
fn friends() -> [Event; 3] {
    let friends = rule().peers([pods_of("a", "app=friend")]).ports(&["80/TCP"]);
    [
        policy("a/friends").selects("app=web").ingress([friends]).into(),
        pod("a/web").labels("app=web").ip("10.0.0.1").into(),
        pod("a/friend").labels("app=friend").ip("10.0.0.2").elsewhere().into(),
    ]
}

#[test]
fn a_flow_that_is_not_allowed_any_more_is_cut_until_it_is_again() {
    let mut node = Node::new(friends());
    node.open("10.0.0.2", "10.0.0.1", TCP, Some((999, 80)));
    node.open("10.0.0.3", "10.0.0.2", TCP, Some((999, 80)));
    assert_eq!((node.rejudged(), node.cut(), node.flows().need()), (vec![], vec![], Need::Nothing));

    node.apply(policy("a/friends").selects("app=web").ingress([]));
    assert_eq!((node.rejudged(), node.flows().need()), (vec!["10.0.0.1".to_owned()], Need::News));
    node.review();
    assert_eq!(node.cut(), ["10.0.0.2 . 10.0.0.1 . tcp . 999 . 80"]);
    assert_eq!((node.rejudged(), node.flows().need()), (vec![], Need::Again));

    let [again, ..] = friends();
    node.apply(again);
    assert!(node.cut().is_empty());
}

#[test]
fn another_pod_that_claims_the_address_narrows_it() {
    let mut node = Node::new(friends());
    node.open("10.0.0.2", "10.0.0.1", TCP, Some((999, 80)));
    let claimed = |app: &str| pod("b/other").labels(app).ip("10.0.0.1");
    node.apply(claimed("app=free"));
    node.review();
    assert!(node.cut().is_empty(), "what isolates the one is what it was");
    node.apply(policy("b/deny").selects("app=shut").ingress([]));
    node.apply(claimed("app=shut"));
    assert_eq!(node.rejudged(), ["10.0.0.1"]);
    node.review();
    assert_eq!(node.cut(), ["10.0.0.2 . 10.0.0.1 . tcp . 999 . 80"]);
    node.apply(Event::Pods(PodSource::Cluster, Change::Deleted(pod_key("b/other"))));
    assert!(node.cut().is_empty(), "the pod has it alone again");
}

#[test]
fn a_cut_flow_is_forgotten_when_it_is_gone() {
    let mut node = Node::new(friends());
    node.open("10.0.0.2", "10.0.0.1", UDP, Some((999, 80)));
    node.apply(policy("a/other").selects("app=web").ingress([]));
    node.review();
    assert_eq!(node.cut().len(), 1);
    node.review();
    assert_eq!(node.cut().len(), 1, "it is still there");
    node.open.clear();
    let review = node.flows().review().unwrap();
    let own = BTreeSet::new();
    let torn = review.begin(&own).end(false);
    node.flows().reviewed(torn);
    assert_eq!(node.cut().len(), 1, "what was not looked at may be there");
    node.review();
    assert!(node.cut().is_empty());
}

#[test]
fn whatever_may_narrow_a_pod_lets_it_be_rejudged() {
    let peer = |labels: &str| pod("a/friend").labels(labels).ip("10.0.0.2").elsewhere();
    let narrowings: [(&str, Event); 8] = [
        ("a policy", policy("a/more").selects("app=web").egress([]).into()),
        (
            "its rules",
            policy("a/friends").selects("app=web").ingress([rule().peers([block("10.1.0.0/16", &[])])]).into(),
        ),
        ("the peer's labels", peer("app=foe").into()),
        ("the peer's end", Event::Pods(PodSource::Cluster, Change::Deleted(pod_key("a/friend")))),
        ("the peer's address", pod("a/friend").labels("app=friend").ip("10.0.0.9").elsewhere().into()),
        ("the pod's labels", pod("a/web").labels("app=web,tier=db").ip("10.0.0.1").into()),
        ("the pod's address", pod("a/web").labels("app=web").ip("10.0.0.1").ip("10.0.0.7").into()),
        ("a policy's end", Event::Policies(Change::Deleted(policy_key("a/friends")))),
    ];
    for (what, event) in narrowings {
        let with_another = policy("a/tier").selects("tier=db").ingress([]);
        let more = policy("a/also").selects("app=web").ingress([]);
        let mut node = Node::new(friends().into_iter().chain([with_another.into(), more.into()]));
        node.apply(event);
        assert!(node.rejudged().contains(&"10.0.0.1".to_owned()), "{what}");
    }
}

#[test]
fn what_only_opens_or_concerns_others_lets_nobody_be_rejudged() {
    let others: [(&str, Event); 4] = [
        ("one more friend", pod("a/another").labels("app=friend").ip("10.0.0.3").elsewhere().into()),
        ("a stranger", pod("a/stranger").ip("10.0.0.3").elsewhere().into()),
        ("a free pod of the node", pod("b/free").ip("10.0.0.4").into()),
        ("the end of all policies", Event::Policies(Change::Deleted(policy_key("a/friends")))),
    ];
    for (what, event) in others {
        let mut node = Node::new(friends());
        node.apply(event);
        assert!(node.rejudged().is_empty(), "{what}");
    }
}

#[test]
fn named_ports_that_go_narrow_too() {
    let named = policy("a/named").selects("app=web").ingress([rule().ports(&["http/TCP"])]);
    let web = |port| pod("a/web").labels("app=web").ip("10.0.0.1").port("http", port);
    let mut node = Node::new([named.into(), web("80/TCP").into()]);
    node.open("10.0.0.2", "10.0.0.1", TCP, Some((999, 80)));
    node.apply(web("81/TCP"));
    node.review();
    assert_eq!(node.cut(), ["10.0.0.2 . 10.0.0.1 . tcp . 999 . 80"]);
}

#[test]
fn what_cannot_be_cut_stays_rejudged() {
    let mut node = Node::new(friends());
    node.open("10.0.0.2", "10.0.0.1", ICMP, None);
    node.apply(policy("a/friends").selects("app=web").ingress([]));
    node.review();
    assert_eq!((node.rejudged(), node.cut(), node.flows().need()), (vec!["10.0.0.1".to_owned()], vec![], Need::Again));
    node.open.clear();
    node.review();
    assert_eq!((node.rejudged(), node.flows().need()), (vec![], Need::Nothing));
}

#[test]
fn more_flows_than_can_be_cut_stay_rejudged() {
    let mut node = Node::new(friends());
    for port in 0..=u16::try_from(MOST_CUT).unwrap() {
        node.open("10.0.0.2", "10.0.0.1", TCP, Some((port, 80)));
    }
    node.apply(policy("a/friends").selects("app=web").ingress([]));
    node.review();
    assert_eq!((node.rejudged().len(), node.cut().len()), (1, MOST_CUT));
}

#[test]
fn the_node_may_always_speak_to_its_pods() {
    let mut node = Node::new(friends());
    node.open("10.0.0.254", "10.0.0.1", TCP, Some((999, 80)));
    node.apply(policy("a/friends").selects("app=web").ingress([]));
    node.review();
    assert_eq!((node.rejudged(), node.cut()), (vec![], vec![]));
}

#[test]
fn a_pod_that_is_isolated_from_its_birth_inherits_nothing() {
    let mut node = Node::new([policy("a/deny").selects("app=web").ingress([]).into()]);
    node.open("10.0.0.2", "10.0.0.1", UDP, Some((999, 80)));
    node.apply(pod("a/web").labels("app=web").ip("10.0.0.1"));
    assert_eq!(node.rejudged(), ["10.0.0.1"]);
    node.review();
    assert_eq!(node.cut(), ["10.0.0.2 . 10.0.0.1 . udp . 999 . 80"]);
}

#[test]
fn what_changed_while_it_was_reviewed_is_reviewed_again() {
    let mut node = Node::new(friends());
    node.open("10.0.0.2", "10.0.0.1", TCP, Some((999, 80)));
    node.apply(policy("a/friends").selects("app=web").ingress([]));
    let found = node.found();
    assert_eq!(found.refused(), 1);
    let [again, ..] = friends();
    node.apply(again);
    node.flows().reviewed(found);
    assert!(node.cut().is_empty(), "it is allowed by now");
    assert_eq!((node.rejudged(), node.flows().need()), (vec!["10.0.0.1".to_owned()], Need::News));
}

#[test]
fn what_was_opened_while_it_was_reviewed_is_not_cut() {
    let [policy, web, friend] = friends();
    let mut node = Node::new([policy, web]);
    node.open("10.0.0.2", "10.0.0.1", TCP, Some((999, 80)));
    node.apply(pod("a/web").labels("app=web,more=x").ip("10.0.0.1").ip("10.0.0.7"));
    let found = node.found();
    assert_eq!(found.refused(), 1);
    // One more friend narrows nobody.
    node.apply(friend);
    node.flows().reviewed(found);
    assert!(node.cut().is_empty());
}

#[test]
fn what_a_former_life_has_cut_stays_cut_if_it_is_refused_and_there() {
    let mut before = Node::new(friends());
    before.open("10.0.0.2", "10.0.0.1", TCP, Some((999, 80)));
    before.apply(policy("a/friends").selects("app=web").ingress([]));
    before.review();
    let table = before.compiler.table();
    let compiler = Compiler::new(NodeName(NODE.into()), Deny::Drop).cutting_flows();
    let mut after = Node { compiler, open: before.open.clone(), own: BTreeSet::new() };
    after.flows().adopt(&table);
    let [_, web, friend] = friends();
    for event in [policy("a/friends").selects("app=web").ingress([]).into(), web, friend] {
        after.compiler.apply(event);
    }
    let first = after.compiler.table();
    assert_eq!(first, table, "from the first commit on, and nothing is to be judged again");
    after.review();
    assert_eq!(after.cut(), ["10.0.0.2 . 10.0.0.1 . tcp . 999 . 80"]);
    after.open.clear();
    after.review();
    assert!(after.cut().is_empty());
}

#[test]
fn what_changed_between_two_lives_is_judged_again() {
    let mut before = Node::new(friends());
    let table = before.compiler.table();
    let compiler = Compiler::new(NodeName(NODE.into()), Deny::Drop).cutting_flows();
    let mut after = Node { compiler, open: Vec::new(), own: BTreeSet::new() };
    after.flows().adopt(&table);
    let [_, web, friend] = friends();
    for event in [policy("a/friends").selects("app=web").ingress([]).into(), web, friend] {
        after.compiler.apply(event);
    }
    after.compiler.table();
    assert_eq!(after.rejudged(), ["10.0.0.1"]);
    assert_eq!(after.flows().need(), Need::News);
}

#[test]
fn what_a_former_life_had_not_reviewed_is_judged_again() {
    let mut before = Node::new(friends());
    before.apply(policy("a/other").selects("app=web").ingress([]));
    let table = before.compiler.table();
    let compiler = Compiler::new(NodeName(NODE.into()), Deny::Drop).cutting_flows();
    let mut after = Node { compiler, open: Vec::new(), own: BTreeSet::new() };
    after.flows().adopt(&table);
    for event in friends().into_iter().chain([policy("a/other").selects("app=web").ingress([]).into()]) {
        after.compiler.apply(event);
    }
    assert_eq!(after.compiler.table(), table);
    assert_eq!(after.rejudged(), ["10.0.0.1"]);
}

#[test]
fn a_judge_refuses_what_a_review_cuts_and_says_why() {
    let mut node = Node::new(friends());
    let ends = ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.254"];
    let kinds =
        [(TCP, Some((999, 80))), (TCP, Some((999, 81))), (UDP, Some((999, 80))), (ICMP, None), (47, Some((1, 2)))];
    for (client, server) in ends.iter().flat_map(|client| ends.map(|server| (*client, server))) {
        kinds.iter().for_each(|(protocol, ports)| node.open(client, server, *protocol, *ports));
    }
    // All of the web server's flows are looked at again.
    node.apply(policy("a/more").selects("app=web").egress([rule().peers([block("10.0.0.2/32", &[])])]));
    let (found, ir) = (node.found(), node.compiler.ir());
    let judge = Judge::new(&ir);
    let refused = |flow: &&Flow| judge.judge(flow, &node.own).iter().any(|side| !side.allowed);
    let refused: Vec<&Flow> = node.open.iter().filter(refused).collect();
    let with_ports = refused.iter().filter_map(|flow| {
        Key::flow(flow.client, flow.server, by_number(flow.protocol)?, flow.ports?.0, flow.ports?.1)
    });
    assert_eq!(with_ports.collect::<BTreeSet<Key>>(), found.refused);
    assert_eq!((refused.len(), found.refused.len()), (19, 11));

    let flow = Flow { client: ip("10.0.0.2"), server: ip("10.0.0.1"), protocol: TCP, ports: Some((999, 80)) };
    let [egress, ingress] = judge.judge(&flow, &node.own);
    assert_eq!(egress, Judgement::free());
    assert_eq!(
        (ingress.isolated_by, ingress.rule),
        (vec![policy_key("a/friends")], Some((policy_key("a/friends"), 0)))
    );
    let of_node = Flow { client: ip("10.0.0.254"), ports: Some((999, 81)), ..flow };
    let [_, ingress] = judge.judge(&of_node, &node.own);
    assert_eq!((ingress.allowed, ingress.rule), (true, None), "a node always reaches its pods");
}

fn by_number(number: u8) -> Option<Protocol> {
    Protocol::ALL.into_iter().find(|protocol| protocol.number() == number)
}
