//! Tables to try.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use compiler::api::{LinkName, PortRange, Protocol};
use compiler::nft::{
    BaseChain, Chain, ChainName, ChainPolicy, Comment, CounterName, CtState, Family, Field, Filled, Hook, Key, KeyType,
    Limit, LogGroup, MapElement, Match, Refusal, Reject, Rule, Set, SetName, Stmt, Table, Verdict, VerdictMap,
};
use netlink::Decoder;

pub(crate) fn chain_name(name: &str) -> ChainName {
    ChainName::from_kernel(name)
}

pub(crate) fn set_name(name: &str) -> SetName {
    SetName::from_kernel(name)
}

pub(crate) fn v4(last: u32) -> Key {
    Key::V4(Ipv4Addr::from_bits(0x0a00_0000 + last))
}

pub(crate) fn set(key_type: KeyType, mut keys: Vec<Key>) -> Set {
    keys.sort_unstable();
    Set { key_type, comment: None, keys: Arc::new(keys), filled: None }
}

pub(crate) fn element(verdict: Verdict, comment: Option<&str>) -> MapElement {
    MapElement { verdict, comment: comment.map(Comment::new) }
}

/// The start of a chain that hangs on `forward`.
pub(crate) fn base(priority: i32) -> Chain {
    let base = BaseChain { hook: Hook::Forward, priority, policy: ChainPolicy::Accept };
    Chain { base: Some(base), comment: None, rules: Vec::new() }
}

pub(crate) fn rule(stmts: Vec<Stmt>) -> Rule {
    Rule { stmts, comment: None }
}

fn matching(condition: Match) -> Rule {
    rule(vec![Stmt::Match(condition), Stmt::Verdict(Verdict::Accept)])
}

fn ports(first: u16, last: u16) -> PortRange {
    PortRange { first, last }
}

/// A table with one of everything, and with the ends of every range.
/// A chain that nothing leads to.
pub(crate) const UNHOOKED: &str = "d-unhooked";

pub(crate) fn everything() -> Table {
    let mut table = Table::default();
    table.counters.insert(CounterName::from_kernel("denied-ingress"));
    for (name, set) in sets() {
        table.sets.insert(set_name(name), Arc::new(set));
    }
    let leaf = Chain { base: None, comment: Some(Comment::new("NetworkPolicy prod/a: the leaf")), rules: Vec::new() };
    table.chains.insert(chain_name("a-leaf"), Arc::new(leaf));
    table.maps.insert(set_name("pods-v4"), Arc::new(map_v4()));
    let elements = BTreeMap::from([(v6_key(1), element(Verdict::Goto(chain_name("a-leaf")), None))]);
    let map = VerdictMap { key_type: KeyType::Address(Family::V6), comment: None, elements: Arc::new(elements) };
    table.maps.insert(set_name("pods-v6"), Arc::new(map));
    for (name, map) in range_maps() {
        table.maps.insert(set_name(name), Arc::new(map));
    }
    let empty = VerdictMap { key_type: KeyType::Pair(Family::V4), comment: None, elements: Arc::default() };
    table.maps.insert(set_name("pairs"), Arc::new(empty));
    let mut main = base(-5);
    main.rules = rules();
    table.chains.insert(chain_name("b-main"), Arc::new(main));
    // On the hooks of the others `fib` needs Linux 5.19.
    let unhooked = Chain { base: None, comment: None, rules: vec![matching(Match::SourceAstray)] };
    table.chains.insert(chain_name(UNHOOKED), Arc::new(unhooked));
    let input = BaseChain { hook: Hook::Input, priority: 1, policy: ChainPolicy::Drop };
    let comment = Some(Comment::new("to the node"));
    table.chains.insert(chain_name("c-input"), Arc::new(Chain { base: Some(input), comment, rules: Vec::new() }));
    table
}

fn map_v4() -> VerdictMap {
    let elements = BTreeMap::from([
        (v4(1), element(Verdict::Goto(chain_name("a-leaf")), Some("prod/backend-0"))),
        (v4(2), element(Verdict::Jump(chain_name("a-leaf")), None)),
        (v4(3), element(Verdict::Accept, Some(&"x".repeat(127)))),
        (v4(4), element(Verdict::Drop, None)),
        (v4(5), element(Verdict::Return, None)),
    ]);
    let comment = Some(Comment::new("pods by address"));
    VerdictMap { key_type: KeyType::Address(Family::V4), comment, elements: Arc::new(elements) }
}

/// Maps by ranges that touch, with gaps, and to the ends of the space.
fn range_maps() -> [(&'static str, VerdictMap); 2] {
    let leaf = || Verdict::Jump(chain_name("a-leaf"));
    let v4 = |first: &str, last: &str| Key::V4Range(first.parse().unwrap(), last.parse().unwrap());
    let v6 = |first: &str, last: &str| Key::V6Range(first.parse().unwrap(), last.parse().unwrap());
    let elements = BTreeMap::from([
        (v4("0.0.0.0", "9.255.255.255"), element(leaf(), None)),
        (v4("10.0.0.0", "10.0.0.6"), element(Verdict::Goto(chain_name("a-leaf")), Some("a part"))),
        (v4("10.0.0.7", "10.0.0.7"), element(Verdict::Accept, None)),
        (v4("10.0.0.9", "10.0.0.9"), element(Verdict::Drop, None)),
        (v4("240.0.0.0", "255.255.255.255"), element(leaf(), None)),
    ]);
    let comment = Some(Comment::new("segments"));
    let v4 = VerdictMap { key_type: KeyType::AddressRange(Family::V4), comment, elements: Arc::new(elements) };
    let top = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
    let elements = BTreeMap::from([
        (v6("::", "fcff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"), element(Verdict::Drop, None)),
        (v6("fd00::", "fd00::ffff"), element(leaf(), None)),
        (v6(top, top), element(Verdict::Return, None)),
    ]);
    let v6 = VerdictMap { key_type: KeyType::AddressRange(Family::V6), comment: None, elements: Arc::new(elements) };
    [("blocks-v4", v4), ("blocks-v6", v6)]
}

fn v6_key(last: u128) -> Key {
    Key::V6(Ipv6Addr::from_bits((0xfd00 << 112) + last))
}

fn sets() -> Vec<(&'static str, Set)> {
    let v4_range = |first: &str, last: &str| Key::V4Range(first.parse().unwrap(), last.parse().unwrap());
    let v6_range = |first: &str, last: &str| Key::V6Range(first.parse().unwrap(), last.parse().unwrap());
    let top = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
    let comment = Some(Comment::new("ns=prod pods{tier in (a,b)}"));
    let filled = Some(Filled { size: 100, timeout: 90 });
    vec![
        ("v4", Set { comment, ..set(KeyType::Address(Family::V4), vec![v4(1), v4(2), v4(77)]) }),
        ("v4-empty", set(KeyType::Address(Family::V4), vec![])),
        ("v6", set(KeyType::Address(Family::V6), vec![v6_key(1), v6_key(2)])),
        (
            "v4-ranges",
            set(
                KeyType::AddressRange(Family::V4),
                vec![
                    v4_range("0.0.0.0", "0.255.255.255"),
                    v4_range("10.0.0.7", "10.0.0.7"),
                    v4_range("10.0.0.9", "10.0.1.3"),
                    v4_range("240.0.0.0", "255.255.255.255"),
                ],
            ),
        ),
        ("v4-all", set(KeyType::AddressRange(Family::V4), vec![v4_range("0.0.0.0", "255.255.255.255")])),
        (
            "v6-ranges",
            set(KeyType::AddressRange(Family::V6), vec![v6_range("fd00::", "fd00::ffff"), v6_range("fe80::", top)]),
        ),
        ("v6-all", set(KeyType::AddressRange(Family::V6), vec![v6_range("::", top)])),
        (
            "ports",
            set(
                KeyType::PortRange,
                [(0, 0), (80, 90), (443, 443), (65000, 65535)].map(|(a, b)| Key::Ports(ports(a, b))).to_vec(),
            ),
        ),
        ("top-port", set(KeyType::PortRange, vec![Key::Ports(ports(65535, 65535))])),
        ("next-to-top-port", set(KeyType::PortRange, vec![Key::Ports(ports(65534, 65534))])),
        ("all-ports", set(KeyType::PortRange, vec![Key::Ports(ports(0, 65535))])),
        (
            "named-v4",
            set(
                KeyType::Endpoint(Family::V4),
                Protocol::ALL.map(|p| Key::V4Endpoint(Ipv4Addr::new(10, 0, 0, 9), p, 8080)).to_vec(),
            ),
        ),
        (
            "named-v6",
            set(KeyType::Endpoint(Family::V6), vec![Key::V6Endpoint(Ipv6Addr::LOCALHOST, Protocol::Udp, 65535)]),
        ),
        (
            "pair-v4",
            set(KeyType::Pair(Family::V4), vec![Key::V4Pair(Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2))]),
        ),
        ("pair-v6", set(KeyType::Pair(Family::V6), vec![Key::V6Pair(Ipv6Addr::LOCALHOST, Ipv6Addr::UNSPECIFIED)])),
        ("filled-v6", Set { filled, ..set(KeyType::Pair(Family::V6), vec![]) }),
        ("filled-links", Set { filled, ..set(KeyType::Link, vec![]) }),
        (
            "links",
            set(
                KeyType::Link,
                ["eth0", "veth0123456789a"].map(|name| Key::Link(LinkName::new(name).unwrap())).to_vec(),
            ),
        ),
        (
            "flow-v4",
            set(
                KeyType::Flow(Family::V4),
                Protocol::ALL
                    .map(|p| Key::V4Flow(Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2), p, 65535, 80))
                    .to_vec(),
            ),
        ),
        (
            "flow-v6",
            set(
                KeyType::Flow(Family::V6),
                vec![Key::V6Flow(Ipv6Addr::LOCALHOST, Ipv6Addr::UNSPECIFIED, Protocol::Udp, 1, 65535)],
            ),
        ),
    ]
}

fn rules() -> Vec<Rule> {
    let [v4, v6] = Family::ALL;
    let is_in = |field, set: &str| Stmt::Match(Match::In(field, set_name(set)));
    let accept = || Stmt::Verdict(Verdict::Accept);
    let limit = |over| Limit { over, a_minute: 20, burst: 7 };
    let tcp = |first, last| Stmt::Match(Match::Port(Protocol::Tcp, ports(first, last)));
    let mut rules = vec![
        matching(Match::CtState(vec![CtState::Established, CtState::Related])),
        matching(Match::CtState(vec![CtState::Established])),
        matching(Match::CtState(vec![CtState::Related])),
        matching(Match::In(Field::Source(v4), set_name("v4"))),
        matching(Match::In(Field::Destination(v4), set_name("v4-ranges"))),
        matching(Match::In(Field::Source(v6), set_name("v6"))),
        matching(Match::In(Field::Destination(v6), set_name("v6-ranges"))),
        matching(Match::In(Field::Endpoint(v4), set_name("named-v4"))),
        matching(Match::In(Field::Endpoint(v6), set_name("named-v6"))),
        matching(Match::In(Field::Pair(v4), set_name("pair-v4"))),
        matching(Match::In(Field::Pair(v6), set_name("pair-v6"))),
        matching(Match::In(Field::Flow(v4), set_name("flow-v4"))),
        matching(Match::In(Field::Flow(v6), set_name("flow-v6"))),
        matching(Match::Original),
        matching(Match::LinkLocalSource),
        matching(Match::SourceIs([0; 4].into())),
        matching(Match::SourceIs([0; 16].into())),
        matching(Match::SourceIs([10, 0, 0, 2].into())),
        matching(Match::SourceIs([0xfd00, 0, 0, 0, 0, 0, 0, 2].into())),
        matching(Match::In(Field::InputLink, set_name("links"))),
        matching(Match::PortIn(Protocol::Udp, set_name("ports"))),
        matching(Match::Icmpv6Type(133, 133)),
        matching(Match::Icmpv6Type(133, 137)),
        matching(Match::HopLimit(255)),
        matching(Match::NotIn(Field::Source(v4), set_name("v4"))),
        matching(Match::NotIn(Field::Pair(v6), set_name("filled-v6"))),
        matching(Match::Limit(Field::Pair(v6), set_name("filled-v6"), limit(false))),
        matching(Match::Limit(Field::InputLink, set_name("filled-links"), limit(true))),
        rule(vec![is_in(Field::Source(v4), "v4"), Stmt::Log(Refusal::Source, LogGroup(65_535)), accept()]),
        rule(vec![Stmt::VerdictMap(Field::Destination(v4), set_name("pods-v4"))]),
        rule(vec![Stmt::VerdictMap(Field::Source(v6), set_name("pods-v6"))]),
        rule(vec![Stmt::VerdictMap(Field::Pair(v4), set_name("pairs"))]),
        rule(vec![Stmt::VerdictMap(Field::Source(v4), set_name("blocks-v4"))]),
        rule(vec![Stmt::VerdictMap(Field::Destination(v6), set_name("blocks-v6"))]),
        rule(vec![Stmt::Match(Match::Protocol(Protocol::Tcp)), Stmt::Reject(Reject::TcpReset)]),
        rule(vec![Stmt::Reject(Reject::AdminProhibited)]),
        rule(vec![Stmt::CounterName(CounterName::from_kernel("denied-ingress")), Stmt::Verdict(Verdict::Drop)]),
        rule(vec![Stmt::Verdict(Verdict::Return)]),
        rule(vec![Stmt::Verdict(Verdict::Jump(chain_name("a-leaf")))]),
        rule(vec![Stmt::Verdict(Verdict::Goto(chain_name("a-leaf")))]),
        // Checks that an earlier statement has made already, and ones that it has not.
        rule(vec![is_in(Field::Source(v4), "v4"), is_in(Field::Destination(v4), "v4-ranges"), tcp(80, 80), accept()]),
        rule(vec![is_in(Field::Source(v6), "v6"), is_in(Field::Endpoint(v6), "named-v6"), accept()]),
        rule(vec![tcp(80, 80), is_in(Field::Source(v4), "v4"), accept()]),
        rule(vec![Stmt::Match(Match::HopLimit(255)), Stmt::Match(Match::Icmpv6Type(133, 137)), accept()]),
        rule(vec![is_in(Field::Source(v6), "v6"), Stmt::Match(Match::HopLimit(1)), tcp(80, 80), accept()]),
        rule(vec![is_in(Field::Source(v6), "v6"), Stmt::Match(Match::Icmpv6Type(1, 4)), Stmt::Counter, accept()]),
        rule(vec![tcp(80, 90), Stmt::Match(Match::PortIn(Protocol::Tcp, set_name("ports"))), accept()]),
        Rule {
            stmts: vec![is_in(Field::Source(v4), "v4"), tcp(8080, 8080), Stmt::Counter, accept()],
            comment: Some(Comment::new("ingress[0] of prod/backend-policy")),
        },
    ];
    for protocol in Protocol::ALL {
        rules.push(matching(Match::Protocol(protocol)));
        for (first, last) in [(0, 0), (80, 80), (80, 90), (0, 65535), (1, 65535), (65535, 65535)] {
            rules.push(matching(Match::Port(protocol, ports(first, last))));
        }
    }
    rules
}

/// A table of any shape from a few numbers: as many sets, keys, chains and rules.
pub(crate) fn shaped(sets: u8, keys: u16, chains: u8, picks: &[u16]) -> Table {
    let all = everything();
    let mut table = Table { counters: all.counters.clone(), ..Table::default() };
    table.sets = all.sets.clone();
    for index in 0..sets {
        let start = u32::from(index) * 4096;
        let (key_type, keys) = match index % 2 {
            0 => (KeyType::Address(Family::V4), (0..u32::from(keys)).map(|key| v4(start + key)).collect()),
            _ => {
                let range = |key: u32| {
                    Key::V4Range(
                        Ipv4Addr::from_bits(key * 64 + start),
                        Ipv4Addr::from_bits(key * 64 + start + key % 60),
                    )
                };
                (KeyType::AddressRange(Family::V4), (0..u32::from(keys)).map(range).collect())
            }
        };
        table.sets.insert(set_name(&format!("shaped-{index}")), Arc::new(set(key_type, keys)));
    }
    table.chains.insert(chain_name("a-leaf"), Arc::clone(&all.chains[&chain_name("a-leaf")]));
    table.maps = all.maps.clone();
    let pool = &all.chains[&chain_name("b-main")].rules;
    for index in 0..chains {
        let mut chain = if index % 3 == 0 { base(i32::from(index)) } else { Chain::default() };
        for pick in picks.iter().skip(usize::from(index)) {
            let pick = usize::from(*pick) % pool.len();
            // Two rules in one: the first's matches, then the whole second.
            let other = &pool[(pick * 7) % pool.len()];
            let matches = pool[pick].stmts.iter().filter(|stmt| matches!(stmt, Stmt::Match(_))).cloned();
            chain.rules.push(rule(matches.chain(other.stmts.iter().cloned()).collect()));
        }
        table.chains.insert(chain_name(&format!("shaped-{index}")), Arc::new(chain));
    }
    table
}

/// What a dump says, for people: what is foreign, and the table.
pub(crate) fn read(dump: &[u8]) -> String {
    let mut decoder = Decoder::default();
    decoder.datagram(dump);
    let decoded = decoder.finish();
    let table = decoded.table.map(|table| table.to_string()).unwrap_or_default();
    format!("foreign: {}\n{table}", decoded.foreign.join(" "))
}
