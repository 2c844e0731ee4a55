//! Table `bridge postern`: what the rules of the node do not get to see, or cannot tell whose it is.
//!
//! Two pods on one bridge send each other frames. `br_netfilter` shows those that hold a packet to the rules of the node, as
//! if they were routed from the bridge to the bridge. So these judge by address whatever is for one pod, and know no
//! port: what is for many (broadcast, multicast) is for none of the addresses that they look up, and what has a tag they
//! do not see. Both are decided here, by the port.
//!
//! ```text
//! prerouting: from-port -> refuse tags by the ports of isolated pods
//!                       -> own-ports by port -> refuse what has the source of another
//!                       -> link-local: what comes from a link-local address by the port of an isolated pod
//! forward:    to-port   -> closed-ports by port -> closed: what is for a pod's address goes on to the rules of the node
//! ```
//!
//! Where the gate stands, a port that is new is taken for that of a pod that is isolated in both directions, until it is known
//! who is behind it: whatever port is not among `known-ports`.
//!
//! Frames from the node to its pods meet neither: they do not pass from port to port.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use super::super::denials::{add_log, add_shares, refuse};
use super::super::skeleton::{DHCP_SERVER, DHCPV6_SERVER, LISTENERS, neighbour_discovery, rule};
use super::super::{
    BaseChain, Chain, ChainName, ChainPolicy, Comment, CounterName, EtherType, Family, Field, Hook, Key, KeyType,
    LogGroup, MapElement, Match, Refusal, Rule, Set, SetName, Stmt, Table, TableFamily, Verdict, VerdictMap,
};
use super::sets;
use crate::api::{LinkName, PortRange, Protocol};
use crate::cluster::MOST_PORT_RULES;
use crate::policy::{LocalPod, OpenPorts, OpenToAll, PodLinks};

/// The ports of clients of DHCP (RFC 2131, section 4.1, and RFC 8415, section 7.2).
const DHCP_CLIENT: u16 = 68;
const DHCPV6_CLIENT: u16 = 546;
/// `NF_BR_PRI_NAT_DST_BRIDGED` and `NF_BR_PRI_FILTER_BRIDGED` of `linux/netfilter_bridge.h`: both before `br_netfilter`.
const BEFORE_ROUTING: i32 = -300;
const FILTER: i32 = -200;

/// The counter of frames with a tag by or to the port of a pod that could escape its rules by it.
pub fn refused_tag_counter() -> CounterName {
    CounterName::in_table(TableFamily::Bridge, "refused-tag")
}

/// The counter of packets to the port of an isolated pod that are for no pod's address.
pub fn refused_destination_counter() -> CounterName {
    CounterName::in_table(TableFamily::Bridge, "refused-destination")
}

/// The counter of packets whose source is not of the pod of their port.
pub fn refused_port_source_counter() -> CounterName {
    CounterName::in_table(TableFamily::Bridge, "refused-source")
}

/// The counter of packets from a link-local address by the port of a pod that is isolated for egress.
pub fn refused_link_local_counter() -> CounterName {
    CounterName::in_table(TableFamily::Bridge, "refused-link-local")
}

/// Adds what the ports of bridges need, if there are any that do.
pub(super) fn add_to(table: &mut Table, pods: &[LocalPod], links: &PodLinks, log: Option<LogGroup>) {
    if !links.has_ports() {
        return;
    }
    let PodLinks { tagless, sources, jailed, closed, settled, gates_ports, .. } = links;
    let mut add_ports = |name: &str, ports: &BTreeSet<LinkName>, text| {
        let keys = Arc::new(ports.iter().copied().map(Key::Link).collect());
        let of_ports = Set { key_type: KeyType::Link, comment: comment(text), keys, filled: None };
        table.sets.insert(set(name), Arc::new(of_ports));
    };
    add_ports(TAGLESS_PORTS, tagless, "ports by which no tagged frame may come");
    add_ports(JAILED_PORTS, jailed, "ports by which nothing may come from link-local addresses");
    if *gates_ports {
        add_ports(KNOWN_PORTS, settled, "ports of which it is known which pod is behind them, or that none is");
    }
    add_sources(table, sources, log);
    table.counters.extend([refused_tag_counter(), refused_link_local_counter()]);
    table.chains.insert(chain("from-port"), Arc::new(from_port(!sources.is_empty(), *gates_ports, log)));
    table.chains.insert(chain(LINK_LOCAL), Arc::new(link_local(log)));
    add_shares(table, TableFamily::Bridge, log);
    add_log(table, Refusal::Tag, log);
    add_log(table, Refusal::LinkLocal, log);
    if closed.is_empty() && !gates_ports {
        return;
    }
    table.counters.insert(refused_destination_counter());
    add_log(table, Refusal::Destination, log);
    let addresses = addresses(pods);
    table.chains.insert(chain(CLOSED), Arc::new(closed_chain(addresses.keys().copied(), log)));
    for (family, keys) in addresses {
        let comment = comment("local pods: what is for them is judged in table inet");
        let of_pods = Set { key_type: KeyType::Address(family), comment, keys: Arc::new(keys), filled: None };
        table.sets.insert(pods_set(family), Arc::new(of_pods));
    }
    let mut elements = BTreeMap::new();
    for (port, open) in closed {
        let target = open_chain(table, open).unwrap_or_else(|| chain(CLOSED));
        elements.insert(Key::Link(*port), MapElement { verdict: Verdict::Goto(target), comment: None });
    }
    let comment = comment("ports of pods that are isolated for ingress, and those that could be");
    let map = VerdictMap { key_type: KeyType::Link, comment, elements: Arc::new(elements) };
    table.maps.insert(set(CLOSED_PORTS), Arc::new(map));
    table.chains.insert(chain("to-port"), Arc::new(to_port(*gates_ports)));
}

/// The chain of what is for no pod's address.
const CLOSED: &str = "closed";
const CLOSED_PORTS: &str = "closed-ports";
const TAGLESS_PORTS: &str = "tagless-ports";
const JAILED_PORTS: &str = "jailed-ports";
const OWN_PORTS: &str = "own-ports";
const KNOWN_PORTS: &str = "known-ports";
/// The chain of what comes from a link-local address.
const LINK_LOCAL: &str = "link-local";

fn chain(name: &str) -> ChainName {
    ChainName::in_table(TableFamily::Bridge, name)
}

/// The ports of which it is known who is behind them.
pub(in crate::nft) fn known_ports() -> SetName {
    set(KNOWN_PORTS)
}

fn set(name: &str) -> SetName {
    SetName::in_table(TableFamily::Bridge, name)
}

fn pods_set(family: Family) -> SetName {
    set(&format!("pods-{family}"))
}

fn comment(text: &str) -> Option<Comment> {
    Some(Comment::new(text))
}

/// The addresses of all local pods, by family.
fn addresses(pods: &[LocalPod]) -> BTreeMap<Family, Vec<Key>> {
    let mut by_family: BTreeMap<Family, Vec<Key>> = BTreeMap::new();
    for address in pods.iter().flat_map(|pod| &pod.addresses) {
        by_family.entry(Family::of(*address)).or_default().push(Key::address(*address));
    }
    for keys in by_family.values_mut() {
        keys.sort_unstable();
        keys.dedup();
    }
    by_family
}

fn from_port(has_sources: bool, is_gated: bool, log: Option<LogGroup>) -> Chain {
    let base = Some(BaseChain { hook: Hook::Prerouting, priority: BEFORE_ROUTING, policy: ChainPolicy::Accept });
    let from = |ports| Match::In(Field::InputLink, set(ports));
    let is_unknown = || Match::NotIn(Field::InputLink, known_ports());
    let mut rules = tags().map(|tag| refused([tag, from(TAGLESS_PORTS)], Refusal::Tag, log)).to_vec();
    if is_gated {
        rules.extend(tags().map(|tag| refused([tag, is_unknown()], Refusal::Tag, log)));
    }
    if has_sources {
        rules.push(rule([Stmt::VerdictMap(Field::InputLink, set(OWN_PORTS))], None));
    }
    let mut by = |port| {
        let link_local = [of(Family::V6), Match::LinkLocalSource, port].map(Stmt::Match);
        rules.push(rule(link_local.into_iter().chain([Stmt::Verdict(Verdict::Goto(chain(LINK_LOCAL)))]), None));
    };
    by(from(JAILED_PORTS));
    if is_gated {
        by(is_unknown());
    }
    Chain { base, comment: comment("what ports may send"), rules }
}

fn to_port(is_gated: bool) -> Chain {
    let base = Some(BaseChain { hook: Hook::Forward, priority: FILTER, policy: ChainPolicy::Accept });
    let mut rules = vec![rule([Stmt::VerdictMap(Field::OutputLink, set(CLOSED_PORTS))], None)];
    if is_gated {
        let is_unknown = Stmt::Match(Match::NotIn(Field::OutputLink, known_ports()));
        rules.push(rule([is_unknown, Stmt::Verdict(Verdict::Goto(chain(CLOSED)))], None));
    }
    Chain { base, comment: comment("what may reach ports"), rules }
}

fn tags() -> [Match; 2] {
    [EtherType::CustomerTag, EtherType::ServiceTag].map(Match::EtherType)
}

fn refused(conditions: impl IntoIterator<Item = Match>, refusal: Refusal, log: Option<LogGroup>) -> Rule {
    let conditions = conditions.into_iter().map(Stmt::Match);
    rule(conditions.chain(refuse(refusal, log)), None)
}

fn accept(conditions: impl IntoIterator<Item = Match>, why: Option<&str>) -> Rule {
    let conditions = conditions.into_iter().map(Stmt::Match);
    rule(conditions.chain([Stmt::Verdict(Verdict::Accept)]), why)
}

/// The map from ports to the chains that know whose they are, with these, if there are any.
fn add_sources(table: &mut Table, sources: &BTreeMap<LinkName, BTreeSet<IpAddr>>, log: Option<LogGroup>) {
    if sources.is_empty() {
        return;
    }
    table.counters.insert(refused_port_source_counter());
    add_log(table, Refusal::PortSource, log);
    let mut elements = BTreeMap::new();
    for (port, addresses) in sources {
        let name = chain(ChainName::hashed("port", &port.to_string(), &port.to_string()).as_str());
        elements.insert(Key::Link(*port), MapElement { verdict: Verdict::Jump(name.clone()), comment: None });
        table.chains.insert(name, Arc::new(own_sources(addresses, log)));
    }
    let comment = comment("ports of pods whose sources are checked");
    let map = VerdictMap { key_type: KeyType::Link, comment, elements: Arc::new(elements) };
    table.maps.insert(set(OWN_PORTS), Arc::new(map));
}

/// What has a source of these goes on. Whoever has no address yet has none to show; link-local sources are looked at next.
fn own_sources(addresses: &BTreeSet<IpAddr>, log: Option<LogGroup>) -> Chain {
    let back = |conditions: &[Match], why| {
        let conditions = conditions.iter().cloned().map(Stmt::Match);
        rule(conditions.chain([Stmt::Verdict(Verdict::Return)]), why)
    };
    let source = |address: IpAddr| [of(Family::of(address)), Match::SourceIs(address)];
    let mut rules: Vec<Rule> = addresses.iter().map(|address| back(&source(*address), None)).collect();
    let [v6, nobody] = source(Ipv6Addr::UNSPECIFIED.into());
    let [v4, nobody_v4] = source(Ipv4Addr::UNSPECIFIED.into());
    let [hops, types] = neighbour_discovery();
    let server = Match::Port(Protocol::Udp, PortRange::single(DHCP_SERVER));
    rules.extend([
        back(&[v6.clone(), Match::LinkLocalSource], None),
        back(&[v6.clone(), nobody.clone(), hops, types], Some("neighbour discovery")),
        back(&[v6.clone(), nobody, Match::HopLimit(1)], Some("multicast listeners")),
        back(&[v4.clone(), nobody_v4, server], Some("DHCP")),
        refused([v4], Refusal::PortSource, log),
        refused([v6], Refusal::PortSource, log),
    ]);
    Chain { base: None, comment: comment("what a pod sends has a source of its own"), rules }
}

/// The rest is judged by its address in table inet.
fn link_local(log: Option<LogGroup>) -> Chain {
    let mut rules =
        vec![accept([of(Family::V6)].into_iter().chain(neighbour_discovery()), Some("neighbour discovery"))];
    rules.extend(listeners());
    rules.push(accept(lease(Family::V6, DHCPV6_SERVER), Some("DHCPv6")));
    rules.push(refused([], Refusal::LinkLocal, log));
    Chain { base: None, comment: comment("a link-local address is nobody's in particular"), rules }
}

fn listeners() -> [Rule; 2] {
    LISTENERS.map(|(first, last)| {
        let conditions = [of(Family::V6), Match::HopLimit(1), Match::Icmpv6Type(first, last)];
        accept(conditions, Some("multicast listeners"))
    })
}

fn lease(family: Family, port: u16) -> [Match; 2] {
    [of(family), Match::Port(Protocol::Udp, PortRange::single(port))]
}

fn of(family: Family) -> Match {
    Match::EtherType(EtherType::of(family))
}

/// What is for the address of a pod is accepted here and judged there. What is for nobody in particular is refused, but for
/// what makes a link work.
fn closed_chain(families: impl Iterator<Item = Family>, log: Option<LogGroup>) -> Chain {
    let to_pods = |family| accept([of(family), Match::In(Field::Destination(family), pods_set(family))], None);
    let mut rules: Vec<Rule> = families.map(to_pods).collect();
    rules.push(accept([of(Family::V6)].into_iter().chain(neighbour_discovery()), Some("neighbour discovery")));
    rules.extend(listeners());
    rules.extend([
        accept(lease(Family::V4, DHCP_CLIENT), Some("DHCP")),
        accept(lease(Family::V6, DHCPV6_CLIENT), Some("DHCPv6")),
    ]);
    rules.extend(Family::ALL.map(|family| refused([of(family)], Refusal::Destination, log)));
    rules.extend(tags().map(|tag| refused([tag], Refusal::Tag, log)));
    Chain { base: None, comment: comment("for no pod's address, and no rule is for everybody"), rules }
}

/// The chain of a port to which everybody may send something, which is added to the table; `None` where nobody may.
fn open_chain(table: &mut Table, OpenToAll { v4, v6 }: &OpenToAll) -> Option<ChainName> {
    let mut rules = Vec::new();
    let mut texts = Vec::new();
    for (family, ports) in [(Family::V4, v4), (Family::V6, v6)] {
        let of_family = || of(family);
        let numbers = match ports {
            OpenPorts::Any => {
                rules.push(accept([of_family()], None));
                texts.push(format!("{family}"));
                continue;
            }
            OpenPorts::These(numbers) => numbers,
        };
        for (protocol, ranges) in numbers {
            let list = ranges.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
            texts.push(format!("{family} {list}/{protocol}"));
            if *ranges == [PortRange::ALL] {
                rules.push(accept([of_family(), Match::Protocol(*protocol)], None));
            } else if ranges.len() <= MOST_PORT_RULES {
                let ports = ranges.iter().map(|range| Match::Port(*protocol, *range));
                rules.extend(ports.map(|port| accept([of_family(), port], None)));
            } else {
                let (name, ports) = sets::port_set(ranges);
                let name = set(name.as_str());
                table.sets.insert(name.clone(), ports);
                rules.push(accept([of_family(), Match::PortIn(*protocol, name)], None));
            }
        }
    }
    if rules.is_empty() {
        return None;
    }
    let text = texts.join("; ");
    let name = chain(ChainName::hashed("open", &text, "").as_str());
    rules.push(rule([Stmt::Verdict(Verdict::Goto(chain(CLOSED)))], None));
    let opened = Chain { base: None, comment: comment(&format!("open to everybody: {text}")), rules };
    table.chains.insert(name.clone(), Arc::new(opened));
    Some(name)
}

#[cfg(test)]
mod tests;
