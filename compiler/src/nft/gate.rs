//! The gate: what the node's pod ranges may not do before it is known whose their addresses are.
//!
//! ```text
//! base chain -> pod-ranges -> gate -> known-pods: return
//!                                 \-> refused
//!            -> link-local, and not of known-links -> gate-link-local -> refused
//! ```
//!
//! It stands at the end of the base chains, so that isolated pods, whose addresses lead elsewhere, do not pay for it. It
//! opens right after the rules of the pods whose addresses are known have come (see [`crate::diff`]), and it stays in the
//! kernel where there is no agent.

use std::collections::BTreeMap;
use std::sync::Arc;

use ipnet::IpNet;

use super::denials::{add_log, refuse};
use super::lower::known_ports;
use super::skeleton::{DHCPV6_SERVER, LISTENERS, neighbour_discovery, rule};
use super::{
    Chain, ChainName, Comment, CounterName, Family, Field, Key, KeyType, LogGroup, Match, Refusal, Rule, Set, SetName,
    Stmt, Table, Verdict,
};
use crate::api::{Direction, IpBlock, LinkName, PortRange, Protocol};
use crate::policy::{AddressRange, Gate, LocalPod, PodLinks, subtract_and_merge};

/// The port of DHCP clients (RFC 2131, section 4.1).
const DHCP_CLIENT: u16 = 68;

/// The counter of packets that the gate has refused.
pub fn refused_gate_counter() -> CounterName {
    CounterName::fixed("refused-gate")
}

/// Adds the gate to a table that has the base chains, if there is anything to refuse.
pub(super) fn add_gate(table: &mut Table, gate: &Gate, pods: &[LocalPod], links: &PodLinks, log: Option<LogGroup>) {
    let mut ranges: BTreeMap<Family, Vec<Key>> = BTreeMap::new();
    let blocks: Vec<IpBlock> = gate.ranges().iter().map(|cidr| IpBlock { cidr: *cidr, except: Vec::new() }).collect();
    for range in subtract_and_merge(blocks.iter()) {
        let (family, key) = match range {
            AddressRange::V4(first, last) => (Family::V4, Key::V4Range(first, last)),
            AddressRange::V6(first, last) => (Family::V6, Key::V6Range(first, last)),
        };
        ranges.entry(family).or_default().push(key);
    }
    if ranges.is_empty() {
        return;
    }
    table.counters.insert(refused_gate_counter());
    for (name, direction) in
        [("egress", Direction::Egress), ("ingress", Direction::Ingress), ("to-node", Direction::Egress)]
    {
        let name = ChainName::fixed(name);
        let Some(chain) = table.chains.get(&name) else { continue };
        let mut rules = chain.rules.clone();
        rules.extend(ranges.keys().map(|family| {
            let is_of_range = Match::In(local_end(direction, *family), ranges_set(*family));
            rule([Stmt::Match(is_of_range), Stmt::Verdict(Verdict::Jump(gate_chain(direction)))], None)
        }));
        if direction == Direction::Egress && !links.settled.is_empty() {
            let is_unknown = [Match::LinkLocalSource, Match::NotIn(Field::InputLink, known_links())].map(Stmt::Match);
            rules.push(rule(is_unknown.into_iter().chain([Stmt::Verdict(Verdict::Jump(link_local_chain()))]), None));
        }
        table.chains.insert(name, Arc::new(Chain { rules, ..Chain::clone(chain) }));
    }
    for direction in Direction::ALL {
        let families: Vec<Family> = ranges.keys().copied().collect();
        table.chains.insert(gate_chain(direction), Arc::new(gate_rules(direction, &families, log)));
        add_log(table, Refusal::Gate(direction), log);
    }
    let mut known: BTreeMap<Family, Vec<Key>> = BTreeMap::new();
    for address in pods.iter().flat_map(|pod| &pod.addresses) {
        known.entry(Family::of(*address)).or_default().push(Key::address(*address));
    }
    let mut add = |name, key_type, comment, mut keys: Vec<Key>| {
        keys.sort_unstable();
        keys.dedup();
        let set = Set { key_type, comment: Some(Comment::new(comment)), keys: Arc::new(keys), filled: None };
        table.sets.insert(name, Arc::new(set));
    };
    for (family, keys) in ranges {
        add(ranges_set(family), KeyType::AddressRange(family), "addresses that this node gives to pods", keys);
        let keys = known.remove(&family).unwrap_or_default();
        add(known_set(family), KeyType::Address(family), "addresses that a pod of this node is known to have", keys);
    }
    if !links.settled.is_empty() {
        let keys = links.settled.iter().copied().map(Key::Link).collect();
        add(known_links(), KeyType::Link, "links of which it is known which pod is behind them, or that none is", keys);
        table.chains.insert(link_local_chain(), Arc::new(link_local_rules(log)));
    }
    let loopback = LinkName::new("lo").map(Key::Link).into_iter().collect();
    add(loopback_set(), KeyType::Link, "the link from the node to itself", loopback);
}

/// A packet of which it is not known whose it is goes no further, in silence: it is sent again, and may be known by then.
/// The node has addresses of the ranges itself, and uses them to speak to itself.
fn gate_rules(direction: Direction, families: &[Family], log: Option<LogGroup>) -> Chain {
    let back = |conditions: &[Match], why| {
        let conditions = conditions.iter().cloned().map(Stmt::Match);
        rule(conditions.chain([Stmt::Verdict(Verdict::Return)]), why)
    };
    let is_known = |family: &Family| Match::In(local_end(direction, *family), known_set(*family));
    let mut rules: Vec<Rule> = families.iter().map(|family| back(&[is_known(family)], None)).collect();
    rules.push(back(&neighbour_discovery(), Some("neighbour discovery")));
    rules.push(match direction {
        Direction::Egress => back(&[Match::In(Field::InputLink, loopback_set())], Some("the node to itself")),
        Direction::Ingress => back(&[Match::Port(Protocol::Udp, PortRange::single(DHCP_CLIENT))], Some("DHCP")),
    });
    rules.push(rule(refuse(Refusal::Gate(direction), log), None));
    let comment = Some(Comment::new("an address of this node's pods, and no pod is known to have it"));
    Chain { base: None, comment, rules }
}

/// What a link needs to work, as long as it is not known whose it is.
fn link_local_rules(log: Option<LogGroup>) -> Chain {
    let mut rules = vec![(neighbour_discovery().to_vec(), "neighbour discovery")];
    rules.extend(
        LISTENERS
            .map(|(first, last)| (vec![Match::HopLimit(1), Match::Icmpv6Type(first, last)], "multicast listeners")),
    );
    rules.push((vec![Match::Port(Protocol::Udp, PortRange::single(DHCPV6_SERVER))], "DHCPv6"));
    let back = |(conditions, why): (Vec<Match>, _)| {
        rule(conditions.into_iter().map(Stmt::Match).chain([Stmt::Verdict(Verdict::Return)]), Some(why))
    };
    let mut rules: Vec<Rule> = rules.into_iter().map(back).collect();
    rules.push(rule(refuse(Refusal::Gate(Direction::Egress), log), None));
    let comment = Some(Comment::new("a link-local address by a link that is new: a pod may be behind it"));
    Chain { base: None, comment, rules }
}

fn local_end(direction: Direction, family: Family) -> Field {
    match direction {
        Direction::Ingress => Field::Destination(family),
        Direction::Egress => Field::Source(family),
    }
}

/// Whether a table has a gate.
pub(crate) fn is_gated(table: &Table) -> bool {
    Family::ALL.into_iter().any(|family| table.sets.contains_key(&ranges_set(family)))
}

/// Whether what comes into a set lets somebody past the gate, in the table of the node or in that of its bridges.
pub(crate) fn opens_gate(set: &SetName) -> bool {
    *set == known_links() || *set == known_ports() || Family::ALL.into_iter().any(|family| *set == known_set(family))
}

/// The ranges of a table's gate: what an agent starts with that has not been told of any yet.
pub(crate) fn ranges_of(table: &Table) -> Vec<IpNet> {
    let sets = Family::ALL.into_iter().filter_map(|family| table.sets.get(&ranges_set(family)));
    let keys: Vec<Key> = sets.flat_map(|set| set.keys.iter().copied()).collect();
    let networks = keys.into_iter().flat_map(|key| -> Vec<IpNet> {
        if let Key::V4Range(first, last) = key {
            ipnet::Ipv4Subnets::new(first, last, 0).map(IpNet::V4).collect()
        } else if let Key::V6Range(first, last) = key {
            ipnet::Ipv6Subnets::new(first, last, 0).map(IpNet::V6).collect()
        } else {
            Vec::new()
        }
    });
    networks.collect()
}

fn gate_chain(direction: Direction) -> ChainName {
    ChainName::fixed(match direction {
        Direction::Ingress => "gate-ingress",
        Direction::Egress => "gate-egress",
    })
}

fn ranges_set(family: Family) -> SetName {
    SetName::fixed(&format!("pod-ranges-{family}"))
}

fn known_set(family: Family) -> SetName {
    SetName::fixed(&format!("known-pods-{family}"))
}

fn link_local_chain() -> ChainName {
    ChainName::fixed("gate-link-local")
}

fn known_links() -> SetName {
    SetName::fixed("known-links")
}

fn loopback_set() -> SetName {
    SetName::fixed("loopback")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{Event, Link};
    use crate::nft::trace::{Payload, TracedPacket, trace_in};
    use crate::nft::{Deny, Lowerer};
    use crate::testing::{ir, pod, policy};

    fn table(ranges: &[&str]) -> Table {
        let ranges = ranges.iter().map(|range| range.parse().unwrap()).collect();
        let ir = ir([
            Event::PodRanges(ranges),
            policy("a/deny").selects("app=shut").ingress([]).into(),
            pod("a/shut").labels("app=shut").ip("10.1.0.1").ip("fd00::1").into(),
            pod("a/free").ip("10.1.0.2").into(),
        ]);
        Lowerer::new(Deny::Reject).logging(None).lower(&ir)
    }

    fn chain(table: &Table, name: &str) -> Vec<String> {
        table.chains[&ChainName::from_kernel(name)].rules.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn addresses_of_nobody_are_refused_at_the_end_of_the_base_chains() {
        let table = table(&["10.1.0.0/25", "10.1.0.128/25", "fd00::/64"]);
        for (name, direction, end) in
            [("egress", "egress", "saddr"), ("to-node", "egress", "saddr"), ("ingress", "ingress", "daddr")]
        {
            let due = [
                format!("ip {end} @pod-ranges-v4 jump gate-{direction}"),
                format!("ip6 {end} @pod-ranges-v6 jump gate-{direction}"),
            ];
            let rules = chain(&table, name);
            assert_eq!(rules[rules.len() - 2..], due, "{name}");
        }
        let nd = "ip6 hoplimit 255 icmpv6 type 133-137 return comment \"neighbour discovery\"";
        let refused = "counter name \"refused-gate\" drop";
        assert_eq!(
            chain(&table, "gate-egress"),
            [
                "ip saddr @known-pods-v4 return",
                "ip6 saddr @known-pods-v6 return",
                nd,
                "iifname @loopback return comment \"the node to itself\"",
                refused,
            ]
        );
        assert_eq!(
            chain(&table, "gate-ingress"),
            [
                "ip daddr @known-pods-v4 return",
                "ip6 daddr @known-pods-v6 return",
                nd,
                "udp dport 68 return comment \"DHCP\"",
                refused,
            ]
        );
        let keys = |name: &str| table.sets[&SetName::from_kernel(name)].keys.to_vec();
        assert_eq!(keys("pod-ranges-v4").len(), 1, "what touches is one range");
        assert_eq!(keys("known-pods-v4").len(), 2, "isolated or not");
        assert_eq!(keys("known-pods-v6").len(), 1);
        assert!(table.counters.contains(&refused_gate_counter()));
        assert_eq!(ranges_of(&table), ["10.1.0.0/24", "fd00::/64"].map(|range| range.parse::<IpNet>().unwrap()));
    }

    #[test]
    fn a_link_of_which_nothing_is_known_is_a_new_pods() {
        let link = |name: &str, prefixes: &[&str]| Link {
            name: LinkName::new(name).unwrap(),
            is_bridge: false,
            prefixes: prefixes.iter().map(|prefix| prefix.parse().unwrap()).collect(),
            ports: vec![],
            is_cable: true,
        };
        let ir = ir([
            Event::PodRanges(vec!["10.1.0.0/24".parse().unwrap()]),
            pod("a/free").ip("10.1.0.2").into(),
            Event::Links(vec![link("veth-free", &["10.1.0.2/32"]), link("veth-new", &[])]),
        ]);
        let table = Lowerer::new(Deny::Drop).logging(None).lower(&ir);
        let asks = "ip6 saddr fe80::/10 iifname != @known-links jump gate-link-local";
        for name in ["egress", "to-node"] {
            assert_eq!(chain(&table, name).last().unwrap(), asks, "{name}");
        }
        assert!(!chain(&table, "ingress").iter().any(|rule| rule == asks));
        let passes = |name: &str, payload, hop_limit| {
            let packet = TracedPacket {
                source: "fe80::9".parse().unwrap(),
                destination: "fe80::1".parse().unwrap(),
                payload,
                hop_limit,
                state: None,
                is_reply: false,
                source_port: None,
                link: LinkName::new(name),
                is_astray: false,
                exit: None,
                tag: None,
            };
            trace_in(&table, &ChainName::fixed("to-node"), &packet).unwrap().accepted
        };
        let kubelet = Payload::Port(Protocol::Tcp, 10250);
        assert!(passes("veth-free", kubelet, 64));
        for name in ["veth-new", "veth-newer"] {
            assert!(!passes(name, kubelet, 64), "{name}");
            assert!(!passes(name, Payload::Icmpv6(128, 0), 255), "{name}");
            assert!(!passes(name, Payload::Icmpv6(135, 0), 64), "{name}: forged");
            assert!(passes(name, Payload::Icmpv6(135, 0), 255) && passes(name, Payload::Icmpv6(143, 0), 1), "{name}");
            assert!(passes(name, Payload::Port(Protocol::Udp, 547), 64), "{name}");
        }
    }

    #[test]
    fn a_family_without_ranges_costs_nothing() {
        let (only_v4, none) = (table(&["10.1.0.0/24"]), table(&[]));
        assert_eq!(chain(&only_v4, "gate-egress").len(), 4);
        assert!(!only_v4.sets.contains_key(&known_set(Family::V6)));
        assert!(!none.chains.contains_key(&gate_chain(Direction::Egress)) && none.counters.len() == 3);
        assert!(ranges_of(&none).is_empty());
    }

    #[test]
    fn it_comes_and_goes() {
        let mut lowerer = Lowerer::new(Deny::Drop);
        let events = |ranges: &str| {
            let ranges = (!ranges.is_empty()).then(|| ranges.parse().unwrap());
            ir([Event::PodRanges(ranges.into_iter().collect()), pod("a/web").ip("10.1.0.1").into()])
        };
        for ranges in ["10.1.0.0/24", "", "10.1.0.0/16", "10.9.0.0/16"] {
            let ir = events(ranges);
            assert_eq!(lowerer.lower(&ir), Lowerer::new(Deny::Drop).lower(&ir), "{ranges}");
        }
    }
}
