//! What rules, sets and maps the IR becomes.

mod by_peer;

use std::collections::BTreeSet;
use std::sync::Arc;

use super::*;
use crate::cluster::{Change, Event};
use crate::nft::{Key, MapElement};
use crate::policy::Resolver;
use crate::testing::{
    PodBuilder, RuleBuilder, block, denying_namespace, ir, namespace, pod, pods_of, pods_where, policy, policy_key,
    rule, state,
};

/// Names without their hashes: `pods-3K9QD2AB7W0F5M1Z-v4` as `pods-v4`.
fn readable(text: &str) -> String {
    let is_hash = |part: &str| part.len() == 16 && part.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit());
    let parts = text.split('-').enumerate().filter_map(|(i, part)| {
        let (word, rest) = part.split_at(part.find(' ').unwrap_or(part.len()));
        match (i, is_hash(word)) {
            (0, _) | (_, false) => Some(format!("{}{part}", if i == 0 { "" } else { "-" })),
            (_, true) => (!rest.is_empty()).then(|| rest.to_owned()),
        }
    });
    parts.collect()
}

fn table(events: impl IntoIterator<Item = Event>) -> Table {
    Lowerer::new(Deny::Drop).logging(None).lower(&ir(events))
}

/// The rules of every chain of this readable name.
fn chains(table: &Table, name: &str) -> Vec<Vec<String>> {
    let named = table.chains.iter().filter(|(known, _)| readable(known.as_str()) == name);
    named.map(|(_, chain)| chain.rules.iter().map(|rule| readable(&rule.to_string())).collect()).collect()
}

/// The rules of the only chain of this readable name.
#[track_caller]
fn chain(table: &Table, name: &str) -> Vec<String> {
    let mut found = chains(table, name);
    assert_eq!(found.len(), 1, "chains {name}");
    found.remove(0)
}

/// The sets that policies make: `pods-v4 (ns=a pods{app=db}): 10.0.0.1 10.0.0.2`.
fn sets(table: &Table) -> Vec<String> {
    let own = table.sets.iter().filter(|(name, _)| !name.as_str().starts_with("self-"));
    let mut lines: Vec<String> = own
        .map(|(name, set)| {
            let keys: String = set.keys.iter().map(|key| format!(" {key}")).collect();
            let comment = set.comment.as_ref().map(ToString::to_string).unwrap_or_default();
            format!("{} ({comment}):{keys}", readable(name.as_str()))
        })
        .collect();
    lines.sort_unstable();
    lines
}

fn web() -> PodBuilder {
    pod("a/web").labels("app=web").ip("10.0.0.1").port("http", "80/TCP")
}

fn db() -> PodBuilder {
    pod("b/db").labels("app=db").ip("10.0.0.2").ip("fd00::2").elsewhere().port("sql", "5432/TCP")
}

/// The rules of one ingress or egress policy of a pod with an IPv4 address, or with both.
#[track_caller]
fn rules_of(direction: Direction, dual_stack: bool, rule: RuleBuilder) -> Vec<String> {
    let pod = if dual_stack { web().ip("fd00::1") } else { web() };
    let policy = match direction {
        Direction::Ingress => policy("a/p").ingress([rule]),
        Direction::Egress => policy("a/p").egress([rule]),
    };
    let table = table([pod.into(), db().into(), policy.into()]);
    let comment = format!(" counter accept comment \"{}[0]\"", direction.as_str());
    let plain = |rule: String| rule.strip_suffix(&comment).map(|rule| rule.trim().to_owned());
    let rules = chain(&table, &format!("{}-np-a/p", direction.as_str()));
    rules.into_iter().map(|rule| plain(format!(" {rule}")).expect("every rule counts, accepts and is named")).collect()
}

#[test]
fn a_rule_grows_with_neither_its_peers_nor_its_ports() {
    use Direction::{Egress, Ingress};
    // Of names and numbers, so many that no product of them could be meant.
    let ports: Vec<String> = (0..200).flat_map(|i| [format!("p{i}/TCP"), format!("{}/TCP", 2 * i + 1)]).collect();
    let ports: Vec<&str> = ports.iter().map(String::as_str).collect();
    let peers = (0..200).map(|i| pods_of("b", &format!("app={i}")));
    let blocks =
        (0..200).flat_map(|i| [format!("10.{i}.0.0/24"), format!("fd00:{i}::/32")]).map(|cidr| block(&cidr, &[]));
    let of_rule = || rule().peers(peers.clone().chain(blocks.clone())).ports(&ports);
    for direction in [Ingress, Egress] {
        let rules = rules_of(direction, true, of_rule());
        assert_eq!(rules.len(), 8, "two families, pods and blocks, numbers and names: {rules:?}");
    }
    let table = table([web().into(), policy("a/p").ingress([of_rule()]).egress([of_rule()]).into()]);
    // Pods, blocks and numbers of either direction are the same; names are looked up here, in the pods, and anywhere.
    assert_eq!(sets(&table).len(), 6);
}

#[test]
fn a_rule_is_peers_and_ports() {
    use Direction::{Egress, Ingress};
    let named = || rule().peers([pods_of("b", "app=db")]).ports(&["sql/TCP"]);
    let cases: Vec<(&str, Direction, bool, RuleBuilder, &[&str])> = vec![
        ("everything", Ingress, true, rule(), &[""]),
        ("nobody", Ingress, true, rule().peers([]), &[]),
        ("no ports", Ingress, true, rule().ports(&[]), &[]),
        ("a selector", Ingress, false, rule().peers([pods_of("b", "")]), &["ip saddr @pods-v4"]),
        (
            "both families",
            Ingress,
            true,
            rule().peers([pods_of("b", "")]),
            &["ip saddr @pods-v4", "ip6 saddr @pods-v6"],
        ),
        ("from a pod", Egress, false, rule().peers([pods_of("b", "")]), &["ip daddr @pods-v4"]),
        ("a block", Egress, true, rule().peers([block("10.0.0.0/8", &[])]), &["ip daddr @cidr-v4"]),
        ("a block of a family that no pod has", Ingress, false, rule().peers([block("fd00::/64", &[])]), &[]),
        ("a block without addresses", Ingress, false, rule().peers([block("10.0.0.0/8", &["10.0.0.0/8"])]), &[]),
        (
            "blocks are one set",
            Ingress,
            false,
            rule().peers([block("10.0.0.0/8", &[]), pods_of("b", ""), block("192.168.0.0/16", &[])]),
            &["ip saddr @pods-v4", "ip saddr @cidr-v4"],
        ),
        ("a protocol", Ingress, false, rule().ports(&["*/UDP"]), &["meta l4proto udp"]),
        (
            "ports",
            Ingress,
            false,
            rule().ports(&["53/UDP", "80/TCP", "443/TCP"]),
            &["tcp dport 80", "tcp dport 443", "udp dport 53"],
        ),
        (
            "as many ranges as have a rule each",
            Ingress,
            false,
            rule().ports(&["1/TCP", "3-4/TCP", "6/TCP", "8/TCP"]),
            &["tcp dport 1", "tcp dport 3-4", "tcp dport 6", "tcp dport 8"],
        ),
        (
            "more are a set",
            Ingress,
            false,
            rule().ports(&["1/TCP", "3-4/TCP", "6/TCP", "8/TCP", "10/TCP", "1/UDP"]),
            &["tcp dport @ports", "udp dport 1"],
        ),
        (
            "peers with ports",
            Ingress,
            false,
            rule().peers([pods_of("b", ""), block("10.0.0.0/8", &[])]).ports(&["80/TCP", "*/SCTP"]),
            &[
                "ip saddr @pods-v4 tcp dport 80",
                "ip saddr @pods-v4 meta l4proto sctp",
                "ip saddr @cidr-v4 tcp dport 80",
                "ip saddr @cidr-v4 meta l4proto sctp",
            ],
        ),
        (
            "a name towards the pod",
            Ingress,
            false,
            named(),
            &["ip saddr @pods-v4 ip daddr . meta l4proto . th dport @port-sql-v4"],
        ),
        (
            "a name in the peer: one look-up",
            Egress,
            false,
            named(),
            &["ip daddr . meta l4proto . th dport @port-sql-v4"],
        ),
        (
            "several selectors and names are one set each",
            Ingress,
            false,
            rule().peers([pods_of("b", ""), pods_of("c", "")]).ports(&["sql/TCP", "dns/UDP"]),
            &["ip saddr @pods-v4 ip daddr . meta l4proto . th dport @port-sql.dns-v4"],
        ),
        (
            "a name of anybody, in both families",
            Egress,
            true,
            rule().ports(&["sql/TCP"]),
            &["ip daddr . meta l4proto . th dport @port-sql-v4", "ip6 daddr . meta l4proto . th dport @port-sql-v6"],
        ),
        (
            "a name in a block",
            Egress,
            true,
            rule().peers([block("10.0.0.0/8", &[])]).ports(&["sql/TCP"]),
            &["ip daddr @cidr-v4 ip daddr . meta l4proto . th dport @port-sql-v4"],
        ),
    ];
    for (name, direction, dual_stack, rule, expected) in cases {
        assert_eq!(rules_of(direction, dual_stack, rule), expected, "{name}");
    }
}

#[test]
fn sets_hold_what_is_meant_in_the_families_that_pods_have() {
    let long = ["1/TCP", "3-4/TCP", "6/TCP", "8/TCP", "10/TCP"];
    let peers = [pods_of("b", "app=db"), pods_where("team=x", ""), block("10.0.0.0/8", &["10.0.0.0/9"])];
    let cluster = |web: PodBuilder| {
        table([
            web.into(),
            db().into(),
            namespace("b", "team=x").into(),
            policy("a/p").ingress([rule().peers(peers.clone()).ports(&long)]).into(),
            policy("a/q").egress([rule().peers([pods_of("b", "app=db")]).ports(&["sql/TCP"])]).into(),
            policy("a/r").ingress([rule().ports(&["http/TCP"])]).into(),
        ])
    };
    let four = [
        "cidr-v4 (10.0.0.0/8 except 10.0.0.0/9): 10.128.0.0-10.255.255.255",
        "pods-v4 (ns=b pods{app=db}): 10.0.0.2",
        "pods-v4 (ns=b pods{app=db}; ns{team=x} pods{}): 10.0.0.2",
        "port-http-v4 (port http/TCP of local pods): 10.0.0.1 . tcp . 80",
        "port-sql-v4 (port sql/TCP of ns=b pods{app=db}): 10.0.0.2 . tcp . 5432",
        "ports (1, 3-4, 6, 8, 10): 1 3-4 6 8 10",
    ];
    assert_eq!(sets(&cluster(web())), four);
    let six = [
        "pods-v6 (ns=b pods{app=db}): fd00::2",
        "pods-v6 (ns=b pods{app=db}; ns{team=x} pods{}): fd00::2",
        "port-http-v6 (port http/TCP of local pods): fd00::1 . tcp . 80",
        "port-sql-v6 (port sql/TCP of ns=b pods{app=db}): fd00::2 . tcp . 5432",
    ];
    let mut both: Vec<&str> = four.into_iter().chain(six).collect();
    both.sort_unstable();
    assert_eq!(sets(&cluster(web().ip("fd00::1"))), both);
    assert_eq!(sets(&table([db().into()])), Vec::<String>::new(), "no local pod, no set");
}

#[test]
fn sets_are_shared_by_content() {
    let naming = |key: &str| policy(key).ingress([rule().peers([pods_of("a", "app=web"), block("10.0.0.0/8", &[])])]);
    let table = table([
        web().into(),
        naming("a/p").into(),
        naming("a/q").egress([rule().peers([pods_of("a", "app=web")])]).into(),
    ]);
    assert_eq!(sets(&table).len(), 2);
    assert_eq!(chain(&table, "ingress-np-a/p"), chain(&table, "ingress-np-a/q"));
}

#[test]
fn pods_with_the_same_policies_share_a_chain() {
    let table = table([
        web().ip("fd00::1").into(),
        pod("a/other").ip("10.0.0.3").into(),
        pod("a/more").labels("tier=1").ip("10.0.0.4").into(),
        pod("b/free").ip("10.0.0.5").into(),
        policy("a/p").ingress([]).into(),
        policy("a/q").selects("tier").ingress([]).egress([]).into(),
    ]);
    assert_eq!(
        chains(&table, "ingress-pods").iter().map(|rules| rules.join("; ")).collect::<BTreeSet<_>>(),
        ["jump ingress-np-a/p; goto deny-ingress", "jump ingress-np-a/p; jump ingress-np-a/q; goto deny-ingress"]
            .map(str::to_owned)
            .into()
    );
    assert_eq!(chain(&table, "egress-pods"), ["jump egress-np-a/q", "goto deny-egress"]);
    let elements = |name: &str| {
        let map = table.maps.iter().find(|(known, _)| known.as_str() == name).expect("every map is always there").1;
        let line = |(key, element): (&Key, &MapElement)| {
            let comment = element.comment.as_ref().map(ToString::to_string).unwrap_or_default();
            format!("{key} {comment} {}", readable(&element.verdict.to_string()))
        };
        map.elements.iter().map(line).collect::<Vec<_>>()
    };
    assert_eq!(
        elements("ingress-pods-v4"),
        ["10.0.0.1 a/web goto ingress-pods", "10.0.0.3 a/other goto ingress-pods", "10.0.0.4 a/more goto ingress-pods",]
    );
    assert_eq!(elements("ingress-pods-v6"), ["fd00::1 a/web goto ingress-pods"]);
    assert_eq!(elements("egress-pods-v4"), ["10.0.0.4 a/more goto egress-pods"]);
    assert_eq!(elements("egress-pods-v6"), Vec::<String>::new());
    let pairs = |name: &str| {
        let set = table.sets.iter().find(|(known, _)| known.as_str() == name).expect("both are always there").1;
        set.keys.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(pairs("self-v4"), ["10.0.0.1 . 10.0.0.1", "10.0.0.3 . 10.0.0.3", "10.0.0.4 . 10.0.0.4"]);
    assert_eq!(pairs("self-v6"), ["fd00::1 . fd00::1"]);
}

#[test]
fn chains_say_whom_they_are_for() {
    let old = policy("a/old").ingress([]).first_generation();
    let table = table([web().into(), denying_namespace("a").into(), old.into(), policy("a/p").ingress([]).into()]);
    let comments: Vec<String> = table
        .chains
        .iter()
        .filter(|(name, _)| name.as_str().starts_with("ingress-"))
        .map(|(name, chain)| format!("{}: {}", readable(name.as_str()), chain.comment.as_ref().expect("all have one")))
        .collect();
    let mut sorted = comments.clone();
    sorted.sort_unstable();
    assert_eq!(
        sorted,
        [
            "ingress-np-a/old: NetworkPolicy a/old",
            "ingress-np-a/p: NetworkPolicy a/p",
            "ingress-pods: isolated by annotation of Namespace a, a/old, a/p",
        ]
    );
}

#[test]
fn a_lowerer_with_a_past_gives_the_same_and_keeps_what_has_not_changed() {
    let naming = |key: &str| policy(key).ingress([rule().peers([pods_of("b", "app=db"), block("10.0.0.0/8", &[])])]);
    let mut state = state([web().into(), db().into(), naming("a/p").into(), naming("a/q").into()]);
    let (mut resolver, mut lowerer) = (Resolver::default(), Lowerer::new(Deny::Reject));
    let mut before = lowerer.lower(&resolver.resolve(&state));
    let has_six = |table: &Table| table.sets.keys().any(|set| readable(set.as_str()) == "pods-v6");
    let steps: Vec<(&str, Event)> = vec![
        ("a peer comes", pod("b/new").labels("app=db").ip("10.0.0.7").elsewhere().into()),
        ("a local pod comes", pod("a/new").ip("10.0.0.8").into()),
        ("a policy changes", policy("a/q").ingress([rule().peers([pods_of("b", "app=db")])]).into()),
        ("another is added", policy("a/z").selects("app=web").egress([rule().ports(&["http/TCP"])]).into()),
        ("and goes", Event::Policies(Change::Deleted(policy_key("a/z")))),
        ("the second family", web().ip("fd00::1").into()),
        ("and away", web().into()),
    ];
    for (name, event) in steps {
        state.apply(event);
        let ir = resolver.resolve(&state);
        let now = lowerer.lower(&ir);
        assert_eq!(now, lower(&ir, Deny::Reject), "{name}");
        // With another family all is made anew.
        if has_six(&now) == has_six(&before) {
            for (set, object) in &now.sets {
                let Some(known) = before.sets.get(set).filter(|known| *known == object) else { continue };
                assert!(Arc::ptr_eq(known, object) || set.as_str().starts_with("self-"), "{name}: {set}");
            }
            for (chain, object) in &now.chains {
                let Some(known) = before.chains.get(chain).filter(|known| *known == object) else { continue };
                let rewritten = name == "a policy changes" && chain.as_str().contains("a/q");
                assert!(Arc::ptr_eq(known, object) || rewritten, "{name}: {chain}");
            }
        }
        before = now;
    }
}
