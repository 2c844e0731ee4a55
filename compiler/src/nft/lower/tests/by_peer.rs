//! What leads from peers to policies.

use super::super::groups::MOST_JUMPS;
use super::super::naming::MOST_MENTIONS;
use super::*;
use crate::cluster::State;
use crate::nft::Verdict;

/// A compiler's way from a state to tables.
struct Lowering {
    state: State,
    resolver: Resolver,
    lowerer: Lowerer,
    most_jumps: usize,
}

impl Lowering {
    fn of(most_jumps: usize, events: impl IntoIterator<Item = Event>) -> Lowering {
        let lowerer = Lowerer::new(Deny::Drop).with_most_jumps(most_jumps);
        Lowering { state: state(events), resolver: Resolver::default(), lowerer, most_jumps }
    }

    /// The table after an event, which must be that of a lowerer without a past.
    #[track_caller]
    fn after(&mut self, event: impl Into<Event>) -> Table {
        self.state.apply(event.into());
        self.table()
    }

    #[track_caller]
    fn table(&mut self) -> Table {
        let ir = self.resolver.resolve(&self.state);
        let table = self.lowerer.lower(&ir);
        assert_eq!(table, Lowerer::new(Deny::Drop).with_most_jumps(self.most_jumps).lower(&ir));
        table
    }
}

/// `ingress-peers-v4: 10.0.0.1 -> ingress-np-a/p; 10.0.0.2 -> [ingress-np-a/p ingress-np-a/q]`, a line for each map by
/// peer.
fn leads(table: &Table) -> Vec<String> {
    let target = |element: &MapElement| {
        let Verdict::Jump(name) = &element.verdict else { panic!("{:?} cannot come back", element.verdict) };
        if name.is_of_policy() {
            return readable(name.as_str());
        }
        let rules = table.chains[name].rules.iter().map(|rule| readable(&rule.to_string()).replace("jump ", ""));
        format!("[{}]", rules.collect::<Vec<_>>().join(" "))
    };
    let is_by_peer = |name: &str| name.contains("-peers-") || name.contains("-blocks-");
    let by_peer = table.maps.iter().filter(|(name, _)| is_by_peer(name.as_str()));
    let mut lines: Vec<String> = by_peer
        .map(|(name, map)| {
            let elements: Vec<String> =
                map.elements.iter().map(|(key, element)| format!("{key} -> {}", target(element))).collect();
            format!("{}: {}", readable(name.as_str()), elements.join("; "))
        })
        .collect();
    lines.sort_unstable();
    lines
}

fn peer(name: &str, address: &str) -> PodBuilder {
    pod(&format!("b/{name}")).labels(&format!("app={name}")).ip(address).elsewhere()
}

fn naming(key: &str, peers: impl IntoIterator<Item = crate::api::Peer>) -> Event {
    policy(key).ingress([rule().peers(peers)]).into()
}

/// A pod with three policies that name each their own, and one that both.
fn story() -> Vec<Event> {
    vec![
        web().into(),
        peer("one", "10.0.0.11").into(),
        peer("two", "10.0.0.12").into(),
        peer("three", "10.0.0.13").into(),
        naming("a/p", [pods_of("b", "app=one"), pods_of("b", "app=two")]),
        naming("a/q", [pods_of("b", "app=two"), block("192.168.0.0/16", &[])]),
        naming("a/r", [block("192.168.1.0/24", &[])]),
        policy("a/open").ingress([rule().ports(&["80/TCP"])]).into(),
        policy("a/deny").ingress([]).into(),
    ]
}

#[test]
fn a_peer_leads_to_the_policies_that_name_it() {
    let table = Lowering::of(0, story()).table();
    assert_eq!(
        chain(&table, "ingress-pods"),
        [
            "ip saddr vmap @ingress-peers-v4",
            "ip saddr vmap @ingress-blocks-v4",
            "jump ingress-np-a/open",
            "goto deny-ingress"
        ]
    );
    assert_eq!(
        leads(&table),
        [
            "ingress-blocks-v4: 192.168.0.0-192.168.0.255 -> ingress-np-a/q; \
             192.168.1.0-192.168.1.255 -> [ingress-np-a/q ingress-np-a/r]; \
             192.168.2.0-192.168.255.255 -> ingress-np-a/q",
            "ingress-peers-v4: 10.0.0.11 -> ingress-np-a/p; 10.0.0.12 -> [ingress-np-a/p ingress-np-a/q]",
        ]
    );
    let lists = table.chains.iter().filter(|(name, _)| name.is_of_list());
    let comments: Vec<_> = lists.filter_map(|(_, chain)| chain.comment.as_ref()).map(ToString::to_string).collect();
    assert_eq!(comments, ["NetworkPolicies a/p, a/q", "NetworkPolicies a/q, a/r"]);
}

#[test]
fn both_families_and_egress() {
    let table = Lowering::of(
        0,
        [
            web().ip("fd00::1").into(),
            db().into(),
            policy("a/p").egress([rule().peers([pods_of("b", ""), block("fd00:1::/64", &[])])]).into(),
        ],
    )
    .table();
    let expected = [
        "ip daddr vmap @egress-peers-v4",
        "ip6 daddr vmap @egress-peers-v6",
        "ip6 daddr vmap @egress-blocks-v6",
        "goto deny-egress",
    ];
    assert_eq!(chain(&table, "egress-pods"), expected);
    let to = |what: &str| format!("{what} -> egress-np-a/p");
    assert_eq!(
        leads(&table),
        [
            format!("egress-blocks-v6: {}", to("fd00:1::-fd00:1::ffff:ffff:ffff:ffff")),
            format!("egress-peers-v4: {}", to("10.0.0.2")),
            format!("egress-peers-v6: {}", to("fd00::2")),
        ]
    );
}

#[test]
fn a_handful_of_policies_is_asked_in_turn() {
    let policies = |n: usize| (0..n).map(|i| naming(&format!("a/p{i}"), [pods_of("b", &format!("app={i}"))]));
    let few = table([Event::from(web())].into_iter().chain(policies(MOST_JUMPS)));
    assert_eq!(leads(&few), Vec::<String>::new());
    assert_eq!(chain(&few, "ingress-pods").len(), MOST_JUMPS + 1);
    let many = table([Event::from(web())].into_iter().chain(policies(MOST_JUMPS + 1)));
    assert_eq!(chain(&many, "ingress-pods"), ["ip saddr vmap @ingress-peers-v4", "goto deny-ingress"]);
}

#[test]
fn a_pod_that_comes_or_goes_is_one_element_and_no_rule() {
    let mut lowering = Lowering::of(0, story());
    let before = lowering.table();
    let changed = |before: &Table, now: &Table| {
        let chains = now.chains.iter().filter(|(name, new)| before.chains.get(*name) != Some(*new));
        let maps =
            now.maps.iter().filter(|(name, new)| !before.maps.get(*name).is_some_and(|old| Arc::ptr_eq(old, new)));
        let gone = before.chains.keys().filter(|name| !now.chains.contains_key(*name)).count();
        let chains: Vec<String> = chains.map(|(name, _)| readable(name.as_str())).collect();
        let maps: Vec<String> = maps.map(|(name, _)| readable(name.as_str())).collect();
        (chains.join(" "), maps.join(" "), gone)
    };
    let come = lowering.after(peer("two", "10.0.0.22").ip("fd00::22"));
    assert_eq!(changed(&before, &come), (String::new(), "ingress-peers-v4".to_owned(), 0));
    assert!(leads(&come)[1].contains("10.0.0.22 -> [ingress-np-a/p ingress-np-a/q]"), "{:?}", leads(&come));
    let gone = lowering.after(peer("two", "10.0.0.22").labels("app=nobody"));
    assert_eq!(changed(&come, &gone), ("".to_owned(), "ingress-peers-v4".to_owned(), 1), "with the last of its list");
    assert_eq!(leads(&gone)[1], "ingress-peers-v4: 10.0.0.11 -> ingress-np-a/p");
    let back = lowering.after(peer("two", "10.0.0.12"));
    assert_eq!(changed(&gone, &back), ("ingress-list".to_owned(), "ingress-peers-v4".to_owned(), 0));
    assert_eq!(leads(&back), leads(&before));
    let unnamed = lowering.after(peer("four", "10.0.0.14"));
    assert_eq!(changed(&back, &unnamed), Default::default());
}

#[test]
fn addresses_of_a_family_that_no_pod_has_hold_no_list() {
    let both = |name: &str, last: u8| peer(name, &format!("10.0.0.{last}")).ip(&format!("fd00::{last}"));
    let mut lowering = Lowering::of(0, story().into_iter().chain([both("two", 12).into()]));
    let lists = |table: &Table| table.chains.keys().filter(|name| name.is_of_list()).count();
    assert_eq!(lists(&lowering.table()), 2);
    let gone = Event::Pods(crate::cluster::PodSource::Cluster, Change::Deleted(both("two", 12).build().key));
    assert_eq!(lists(&lowering.after(gone)), 1, "that of the blocks");
}

#[test]
fn groups_share_the_chains_of_their_lists() {
    let mut lowering = Lowering::of(0, story());
    let lists = |table: &Table| table.chains.keys().filter(|name| name.is_of_list()).count();
    assert_eq!(lists(&lowering.table()), 2);
    let tiers = policy("a/tier").selects("tier=1").ingress([rule().peers([pods_of("b", "app=three")])]);
    lowering.after(tiers);
    let shared = lowering.after(pod("a/more").labels("tier=1").ip("10.0.0.4"));
    assert_eq!((lists(&shared), leads(&shared).len()), (2, 4), "each group has its maps");
    let one = lowering.after(Event::Pods(crate::cluster::PodSource::Cluster, Change::Deleted(web().build().key)));
    assert_eq!((lists(&one), leads(&one).len()), (2, 2), "the lists stay with the other");
    let none = lowering.after(pod("a/more").labels("tier=1").phase(crate::api::Phase::Succeeded));
    assert_eq!((lists(&none), leads(&none).len()), (0, 0));
}

#[test]
fn policies_that_come_change_and_go_regroup() {
    let mut lowering = Lowering::of(1, story());
    lowering.after(naming("a/s", [pods_of("b", "app=three")]));
    let ports = rule().peers([pods_of("b", "app=three")]).ports(&["1/TCP"]);
    let before = lowering.table();
    let other_ports = lowering.after(policy("a/s").ingress([ports]));
    assert_eq!(leads(&before), leads(&other_ports));
    for (name, map) in &before.maps {
        assert!(Arc::ptr_eq(map, &other_ports.maps[name]), "{name}");
    }
    let other_peers = lowering.after(naming("a/s", [pods_of("b", "app=one"), block("192.168.1.0/25", &[])]));
    assert_ne!(leads(&other_peers), leads(&other_ports));
    for name in ["a/s", "a/r", "a/q", "a/open"] {
        lowering.after(Event::Policies(Change::Deleted(policy_key(name))));
    }
    let few = lowering.after(Event::Policies(Change::Deleted(policy_key("a/deny"))));
    assert_eq!(chain(&few, "ingress-pods"), ["jump ingress-np-a/p", "goto deny-ingress"]);
    assert_eq!(leads(&few), Vec::<String>::new());
}

#[test]
fn whoever_names_very_many_is_asked_about_everybody() {
    let crowd = |n: usize| (0..n).map(|i| peer("crowd", &format!("10.1.{}.{}", i / 256, i % 256)));
    let key = |i: usize| format!("b/crowd-{i}");
    let members = MOST_MENTIONS - 3;
    let crowd = crowd(members).enumerate().map(|(i, pod)| {
        let mut pod = pod.build();
        pod.key = crate::testing::pod_key(&key(i));
        Event::Pods(crate::cluster::PodSource::Cluster, Change::Applied(pod))
    });
    let policies = [naming("a/crowd", [pods_of("b", "app=crowd")])];
    let mut lowering = Lowering::of(0, story().into_iter().chain(policies).chain(crowd));
    let broad = lowering.table();
    let jumps = ["jump ingress-np-a/crowd", "jump ingress-np-a/open"];
    assert_eq!(chain(&broad, "ingress-pods")[2..4], jumps, "6 mentions of pods and segments are too many beside it");
    assert_eq!(leads(&broad), leads(&Lowering::of(0, story()).table()));
    for gone in 0..4 {
        let key = crate::testing::pod_key(&key(gone));
        lowering.after(Event::Pods(crate::cluster::PodSource::Cluster, Change::Deleted(key)));
    }
    let fits = lowering.table();
    assert_eq!(chain(&fits, "ingress-pods")[2..], ["jump ingress-np-a/open", "goto deny-ingress"]);
    assert!(leads(&fits).iter().any(|line| line.contains("10.1.0.9 -> ingress-np-a/crowd")));
    let again = lowering.after(peer("crowd", "10.2.0.1"));
    assert_eq!(chain(&again, "ingress-pods")[2..4], jumps);
}

#[test]
fn what_passes_the_bound_and_comes_back_in_one_turn_is_led_to() {
    let member = |i: usize| {
        let mut pod = peer("crowd", &format!("10.1.{}.{}", i / 256, i % 256)).build();
        pod.key = crate::testing::pod_key(&format!("b/crowd-{i}"));
        Event::Pods(crate::cluster::PodSource::Cluster, Change::Applied(pod))
    };
    // The other policies have seven mentions.
    let members = MOST_MENTIONS - 8;
    let policies = [naming("a/crowd", [pods_of("b", "app=crowd")])];
    let mut lowering = Lowering::of(0, story().into_iter().chain(policies).chain((0..members).map(member)));
    let before = lowering.table();
    assert_eq!(chain(&before, "ingress-pods")[2..], ["jump ingress-np-a/open", "goto deny-ingress"], "nobody is broad");
    // The crowd alone would be too many, and is not with those that go.
    (members..members + 3).for_each(|i| _ = lowering.state.apply(member(i)));
    let now = lowering.after(peer("two", "10.0.0.12").labels("app=nobody"));
    assert_eq!(chain(&now, "ingress-pods"), chain(&before, "ingress-pods"));
    let last = format!("10.1.{}.{} -> ingress-np-a/crowd", (members + 2) / 256, (members + 2) % 256);
    assert!(leads(&now).iter().any(|line| line.contains(&last)));
}
