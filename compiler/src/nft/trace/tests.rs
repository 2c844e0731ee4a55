//! Every statement as a packet meets it.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::*;
use crate::nft::{BaseChain, CounterName, Family, Hook, KeyType, MapElement, Reject, Set, VerdictMap};
use crate::testing::ip;

const ACCEPT: Stmt = Stmt::Verdict(Verdict::Accept);
const DROP: Stmt = Stmt::Verdict(Verdict::Drop);

fn chain_name(name: &str) -> ChainName {
    ChainName::from_kernel(name)
}

fn chain(rules: Vec<Vec<Stmt>>) -> Arc<Chain> {
    let rules = rules.into_iter().map(|stmts| Rule { stmts, comment: None }).collect();
    Arc::new(Chain { rules, ..Chain::default() })
}

/// A base chain of these rules, in front of the other chains.
fn table(policy: ChainPolicy, rules: Vec<Vec<Stmt>>, others: &[(&str, Arc<Chain>)]) -> Table {
    let base = Some(BaseChain { hook: Hook::Forward, priority: 0, policy });
    let mut table = Table::default();
    table.chains.insert(chain_name("base"), Arc::new(Chain { base, ..Chain::clone(&chain(rules)) }));
    table.chains.extend(others.iter().map(|(name, chain)| (chain_name(name), chain.clone())));
    table
}

fn packet(source: &str, destination: &str, payload: Payload) -> TracedPacket {
    let (source, destination) = (ip(source), ip(destination));
    TracedPacket {
        source,
        destination,
        payload,
        hop_limit: 64,
        state: None,
        is_reply: false,
        source_port: Some(4321),
        link: None,
        is_astray: false,
        exit: None,
        tag: None,
    }
}

fn tcp(port: u16) -> TracedPacket {
    packet("10.0.0.1", "10.0.0.2", Payload::Port(Protocol::Tcp, port))
}

/// The verdict, and the rules that matched: `base.0 c.1`.
#[track_caller]
fn walk(table: &Table, packet: &TracedPacket) -> (bool, String) {
    let trace = trace(table, "base", packet).expect("the base chain is there");
    let steps: Vec<String> = trace.steps.iter().map(|step| format!("{}.{}", step.chain, step.rule)).collect();
    (trace.accepted, steps.join(" "))
}

/// Whether a packet matches a condition, in a table that has these sets.
#[track_caller]
fn matches(sets: &[(&str, KeyType, Vec<Key>)], condition: Match, packet: &TracedPacket) -> bool {
    let mut table = table(ChainPolicy::Drop, vec![vec![Stmt::Match(condition), ACCEPT]], &[]);
    for (name, key_type, keys) in sets {
        let set = Set { key_type: *key_type, comment: None, keys: Arc::new(keys.clone()), filled: None };
        table.sets.insert(SetName::from_kernel(name), Arc::new(set));
    }
    walk(&table, packet).0
}

#[test]
fn verdicts() {
    let jump = |name: &str| Stmt::Verdict(Verdict::Jump(chain_name(name)));
    let goto = |name: &str| Stmt::Verdict(Verdict::Goto(chain_name(name)));
    let never = || Stmt::Match(Match::Protocol(Protocol::Sctp));
    let back = Stmt::Verdict(Verdict::Return);
    let count = Stmt::CounterName(CounterName::from_kernel("n"));
    let others = [
        ("accepts", chain(vec![vec![ACCEPT]])),
        ("drops", chain(vec![vec![never(), ACCEPT], vec![DROP]])),
        ("returns", chain(vec![vec![back.clone()], vec![DROP]])),
        ("nothing", chain(vec![])),
        ("jumps", chain(vec![vec![jump("nothing")], vec![goto("nothing")], vec![ACCEPT]])),
    ];
    // The rules, and the verdict where the base chain lets pass and where it drops what no rule decides.
    let cases = vec![
        ("no rule", vec![], [true, false], ""),
        ("accept", vec![vec![ACCEPT], vec![DROP]], [true, true], "base.0"),
        ("drop", vec![vec![DROP], vec![ACCEPT]], [false, false], "base.0"),
        ("counters decide nothing", vec![vec![Stmt::Counter], vec![count, ACCEPT]], [true, true], "base.0 base.1"),
        ("reject", vec![vec![Stmt::Reject(Reject::TcpReset)], vec![ACCEPT]], [false, false], "base.0"),
        ("what does not match", vec![vec![never(), DROP]], [true, false], ""),
        ("jump to a verdict", vec![vec![jump("accepts")], vec![DROP]], [true, true], "base.0 accepts.0"),
        ("jump to a drop", vec![vec![jump("drops")], vec![ACCEPT]], [false, false], "base.0 drops.1"),
        ("jump and back", vec![vec![jump("returns")], vec![ACCEPT]], [true, true], "base.0 returns.0 base.1"),
        ("jump to nothing and back", vec![vec![jump("nothing")], vec![DROP]], [false, false], "base.0 base.1"),
        ("goto does not come back", vec![vec![goto("nothing")], vec![DROP]], [true, false], "base.0"),
        ("return after goto ends too", vec![vec![goto("returns")], vec![ACCEPT]], [true, false], "base.0 returns.0"),
        ("return in the base chain", vec![vec![back], vec![DROP]], [true, false], "base.0"),
        (
            "goto comes back to whoever jumped",
            vec![vec![jump("jumps")], vec![DROP]],
            [false, false],
            "base.0 jumps.0 jumps.1 base.1",
        ),
        ("a chain that is not there", vec![vec![jump("missing")], vec![ACCEPT]], [false, false], "base.0"),
    ];
    for (name, rules, [open, closed], steps) in cases {
        for (policy, accepted) in [(ChainPolicy::Accept, open), (ChainPolicy::Drop, closed)] {
            let table = table(policy, rules.clone(), &others);
            assert_eq!(walk(&table, &tcp(80)), (accepted, steps.to_owned()), "{name}, {policy:?}");
        }
    }
}

#[test]
fn only_base_chains_are_walked_and_none_for_ever() {
    let circle = [("c", chain(vec![vec![Stmt::Verdict(Verdict::Jump(chain_name("c")))]]))];
    let jump = vec![vec![Stmt::Verdict(Verdict::Jump(chain_name("c")))]];
    let circling = table(ChainPolicy::Accept, jump, &circle);
    assert!(!walk(&circling, &tcp(80)).0, "what goes deeper than the kernel allows is refused");
    assert_eq!(trace(&circling, "c", &tcp(80)), None);
    assert_eq!(trace(&circling, "missing", &tcp(80)), None);

    let row = |jumps: usize| {
        let names: Vec<String> = (0..=jumps).map(|i| format!("c{i}")).collect();
        let mut others: Vec<_> = names
            .windows(2)
            .map(|pair| {
                let next = Stmt::Verdict(Verdict::Jump(chain_name(&pair[1])));
                (pair[0].as_str(), chain(vec![vec![next]]))
            })
            .collect();
        others.push((&names[jumps], chain(vec![vec![ACCEPT]])));
        let start = vec![vec![Stmt::Verdict(Verdict::Jump(chain_name("c0")))]];
        walk(&table(ChainPolicy::Drop, start, &others), &tcp(80)).0
    };
    assert!(row(DEEPEST - 1));
    assert!(!row(DEEPEST));
}

#[test]
fn states_protocols_ports_and_icmp() {
    let state = |state| TracedPacket { state, ..tcp(80) };
    let known = || Match::CtState(vec![CtState::Established, CtState::Related]);
    let port = |first, last| Match::Port(Protocol::Tcp, PortRange { first, last });
    let udp = packet("10.0.0.1", "10.0.0.2", Payload::Port(Protocol::Udp, 80));
    let icmp = |kind, code| packet("10.0.0.1", "10.0.0.2", Payload::Icmp(kind, code));
    let icmpv6 = |kind| packet("fd00::1", "fd00::2", Payload::Icmpv6(kind, 0));
    let cases = [
        (known(), state(None), false),
        (known(), state(Some(CtState::Established)), true),
        (known(), state(Some(CtState::Related)), true),
        (Match::CtState(vec![CtState::Related]), state(Some(CtState::Established)), false),
        (Match::Protocol(Protocol::Tcp), tcp(80), true),
        (Match::Protocol(Protocol::Tcp), udp, false),
        (Match::Protocol(Protocol::Tcp), icmp(8, 0), false),
        (Match::Protocol(Protocol::Tcp), icmpv6(128), false),
        (port(80, 80), tcp(80), true),
        (port(80, 80), udp, false),
        (port(80, 90), tcp(79), false),
        (port(80, 90), tcp(90), true),
        (port(80, 90), tcp(91), false),
        (Match::Icmpv6Type(133, 137), icmpv6(132), false),
        (Match::Icmpv6Type(133, 137), icmpv6(133), true),
        (Match::Icmpv6Type(133, 137), icmpv6(137), true),
        (Match::Icmpv6Type(133, 137), icmpv6(138), false),
        (Match::Icmpv6Type(3, 3), icmp(3, 3), false),
        (Match::Icmpv6Type(0, 255), tcp(80), false),
        (Match::HopLimit(64), icmpv6(135), true),
        (Match::HopLimit(255), icmpv6(135), false),
        (Match::HopLimit(64), icmp(8, 0), false),
        (Match::Original, tcp(80), true),
        (Match::LinkLocalSource, packet("fe80::1", "fd00::2", Payload::Icmpv6(128, 0)), true),
        (Match::LinkLocalSource, packet("febf::1", "fd00::2", Payload::Icmpv6(128, 0)), true),
        (Match::LinkLocalSource, packet("fec0::1", "fd00::2", Payload::Icmpv6(128, 0)), false),
        (Match::LinkLocalSource, packet("169.254.0.1", "10.0.0.2", Payload::Icmp(8, 0)), false),
        (Match::SourceIs(ip("0.0.0.0")), packet("0.0.0.0", "10.0.0.2", Payload::Icmp(8, 0)), true),
        (Match::SourceIs(ip("::")), packet("0.0.0.0", "10.0.0.2", Payload::Icmp(8, 0)), false),
        (Match::SourceIs(ip("::")), packet("::", "fd00::2", Payload::Icmpv6(128, 0)), true),
        (Match::SourceIs(ip("10.0.0.1")), tcp(80), true),
        (Match::SourceIs(ip("0.0.0.0")), tcp(80), false),
        (Match::EtherType(EtherType::V4), tcp(80), true),
        (Match::EtherType(EtherType::V6), tcp(80), false),
        (Match::EtherType(EtherType::V6), packet("::", "fd00::2", Payload::Icmpv6(128, 0)), true),
        (Match::EtherType(EtherType::V4), TracedPacket { tag: Some(EtherType::CustomerTag), ..tcp(80) }, false),
        (Match::EtherType(EtherType::CustomerTag), TracedPacket { tag: Some(EtherType::CustomerTag), ..tcp(80) }, true),
        (Match::SourceAstray, tcp(80), false),
        (Match::SourceAstray, TracedPacket { is_astray: true, ..tcp(80) }, true),
        (Match::Original, TracedPacket { is_reply: true, ..tcp(80) }, false),
    ];
    for (condition, packet, expected) in cases {
        assert_eq!(matches(&[], condition.clone(), &packet), expected, "{condition} of {packet:?}");
    }
}

#[test]
fn fields_are_looked_up_with_their_own_family() {
    let v4 = |last| Key::V4([10, 0, 0, last].into());
    let v6 = |last| Key::V6([0xfd00, 0, 0, 0, 0, 0, 0, last].into());
    let endpoint = |last: u8| Key::endpoint([10, 0, 0, last].into(), Protocol::Tcp, 80);
    let sets = |key_type, keys: Vec<Key>| [("s", key_type, keys)];
    let six = packet("fd00::1", "fd00::2", Payload::Port(Protocol::Tcp, 80));
    let ping = packet("10.0.0.1", "10.0.0.2", Payload::Icmp(8, 0));
    let mixed = packet("10.0.0.1", "fd00::1", Payload::Icmpv6(128, 0));
    let address = |family| KeyType::Address(family);
    let pair = Key::V4Pair([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
    let pair6 = Key::V6Pair([0xfd00, 0, 0, 0, 0, 0, 0, 1].into(), [0xfd00, 0, 0, 0, 0, 0, 0, 2].into());
    let flow = |from, to| Key::V4Flow([10, 0, 0, 1].into(), [10, 0, 0, 2].into(), Protocol::Tcp, from, to);
    let name = LinkName::new;
    let link = |text| Key::Link(LinkName::new(text).expect("a name"));
    let (four, ours6) = (Family::V4, Family::V6);
    let cases = [
        (Field::Source(four), sets(address(four), vec![v4(1)]), tcp(80), true),
        (Field::Source(four), sets(address(four), vec![v4(2)]), tcp(80), false),
        (Field::Source(four), sets(address(four), vec![]), tcp(80), false),
        (Field::Destination(four), sets(address(four), vec![v4(2)]), tcp(80), true),
        (Field::Destination(four), sets(address(four), vec![v4(1), v4(3)]), tcp(80), false),
        (Field::Source(ours6), sets(address(ours6), vec![v6(1)]), six, true),
        (Field::Source(four), sets(address(ours6), vec![v6(1)]), six, false),
        (Field::Source(ours6), sets(address(four), vec![v4(1)]), tcp(80), false),
        (Field::Endpoint(four), sets(KeyType::Endpoint(four), vec![endpoint(2)]), tcp(80), true),
        (Field::Endpoint(four), sets(KeyType::Endpoint(four), vec![endpoint(2)]), tcp(81), false),
        (Field::Endpoint(four), sets(KeyType::Endpoint(four), vec![endpoint(1)]), tcp(80), false),
        (Field::Endpoint(four), sets(KeyType::Endpoint(four), vec![endpoint(2)]), ping, false),
        (Field::Pair(four), sets(KeyType::Pair(four), vec![pair]), tcp(80), true),
        (Field::Pair(four), sets(KeyType::Pair(four), vec![Key::pair(ip("10.0.0.1"))]), tcp(80), false),
        (Field::Pair(ours6), sets(KeyType::Pair(ours6), vec![pair6]), six, true),
        (Field::Pair(ours6), sets(KeyType::Pair(ours6), vec![pair6]), mixed, false),
        (Field::Flow(four), sets(KeyType::Flow(four), vec![flow(4321, 80)]), tcp(80), true),
        (Field::Flow(four), sets(KeyType::Flow(four), vec![flow(80, 4321)]), tcp(80), false),
        (Field::Flow(four), sets(KeyType::Flow(four), vec![flow(4321, 80)]), ping, false),
        (Field::InputLink, sets(KeyType::Link, vec![link("veth0")]), TracedPacket { link: name("veth0"), ..six }, true),
        (
            Field::InputLink,
            sets(KeyType::Link, vec![link("veth0")]),
            TracedPacket { link: name("veth1"), ..six },
            false,
        ),
        (Field::InputLink, sets(KeyType::Link, vec![link("veth0")]), six, false),
        (
            Field::OutputLink,
            sets(KeyType::Link, vec![link("veth0")]),
            TracedPacket { exit: name("veth0"), ..six },
            true,
        ),
        (
            Field::OutputLink,
            sets(KeyType::Link, vec![link("veth0")]),
            TracedPacket { link: name("veth0"), ..six },
            false,
        ),
    ];
    for (field, sets, packet, expected) in cases {
        let condition = Match::In(field, SetName::from_kernel("s"));
        assert_eq!(matches(&sets, condition, &packet), expected, "{field} in {sets:?} of {packet:?}");
    }
    assert!(!matches(&[], Match::In(Field::Source(four), SetName::from_kernel("s")), &tcp(80)), "no such set");
}

#[test]
fn ranges_hold_their_ends_and_nothing_beside_them() {
    let range = |first: u8, last: u8| Key::V4Range([10, 0, 0, first].into(), [10, 0, 0, last].into());
    let ranges = [("s", KeyType::AddressRange(Family::V4), vec![range(10, 19), range(30, 30), range(40, 49)])];
    for (last, expected) in
        [(9, false), (10, true), (19, true), (20, false), (29, false), (30, true), (31, false), (45, true), (50, false)]
    {
        let packet = packet(&format!("10.0.0.{last}"), "10.0.0.1", Payload::Icmp(8, 0));
        let condition = Match::In(Field::Source(Family::V4), SetName::from_kernel("s"));
        assert_eq!(matches(&ranges, condition, &packet), expected, "10.0.0.{last}");
    }
    let six =
        |first: u16, last: u16| Key::V6Range([0, 0, 0, 0, 0, 0, 0, first].into(), [0, 0, 0, 0, 0, 0, 0, last].into());
    let ranges = [("s", KeyType::AddressRange(Family::V6), vec![six(16, 31)])];
    for (last, expected) in [("f", false), ("10", true), ("1f", true), ("20", false)] {
        let packet = packet(&format!("::{last}"), "::1", Payload::Icmpv6(128, 0));
        let condition = Match::In(Field::Source(Family::V6), SetName::from_kernel("s"));
        assert_eq!(matches(&ranges, condition, &packet), expected, "::{last}");
    }
    let ports = |first, last| Key::Ports(PortRange { first, last });
    let ranges = [("s", KeyType::PortRange, vec![ports(0, 0), ports(80, 90), ports(65535, 65535)])];
    for (port, expected) in [(0, true), (1, false), (79, false), (80, true), (90, true), (91, false), (65535, true)] {
        let condition = |protocol| Match::PortIn(protocol, SetName::from_kernel("s"));
        assert_eq!(matches(&ranges, condition(Protocol::Tcp), &tcp(port)), expected, "port {port}");
        assert!(!matches(&ranges, condition(Protocol::Udp), &tcp(port)), "port {port} of another protocol");
    }
}

#[test]
fn maps_lead_on_or_are_passed() {
    let look_up = |field| Stmt::VerdictMap(field, SetName::from_kernel("m"));
    let rules = vec![vec![look_up(Field::Destination(Family::V4))], vec![Stmt::Counter]];
    let mut table = table(ChainPolicy::Accept, rules, &[("c", chain(vec![vec![DROP]]))]);
    assert_eq!(walk(&table, &tcp(80)), (true, "base.1".to_owned()), "no such map");
    let element = |verdict| MapElement { verdict, comment: None };
    let elements = BTreeMap::from([
        (Key::address(ip("10.0.0.2")), element(Verdict::Goto(chain_name("c")))),
        (Key::address(ip("10.0.0.3")), element(Verdict::Accept)),
    ]);
    let map = VerdictMap { key_type: KeyType::Address(Family::V4), comment: None, elements: Arc::new(elements) };
    table.maps.insert(SetName::from_kernel("m"), Arc::new(map));
    let to = |destination| packet("10.0.0.2", destination, Payload::Port(Protocol::Tcp, 80));
    assert_eq!(walk(&table, &to("10.0.0.2")), (false, "base.0 c.0".to_owned()));
    assert_eq!(walk(&table, &to("10.0.0.3")), (true, "base.0".to_owned()));
    assert_eq!(walk(&table, &to("10.0.0.4")), (true, "base.1".to_owned()), "the source is not what is looked up");
}

#[test]
fn maps_by_range_lead_where_the_range_does() {
    let look_up = vec![Stmt::VerdictMap(Field::Source(Family::V4), SetName::from_kernel("m"))];
    let mut table = table(ChainPolicy::Accept, vec![look_up, vec![DROP]], &[("c", chain(vec![vec![Stmt::Counter]]))]);
    let range = |first: u8, last: u8| Key::V4Range([10, 0, 0, first].into(), [10, 0, 0, last].into());
    let element = |verdict| MapElement { verdict, comment: None };
    let elements = BTreeMap::from([
        (range(10, 19), element(Verdict::Accept)),
        (range(20, 20), element(Verdict::Jump(chain_name("c")))),
        (range(30, 39), element(Verdict::Accept)),
    ]);
    let map = VerdictMap { key_type: KeyType::AddressRange(Family::V4), comment: None, elements: Arc::new(elements) };
    table.maps.insert(SetName::from_kernel("m"), Arc::new(map));
    let none = (false, "base.1".to_owned());
    let accepted = (true, "base.0".to_owned());
    let jumped = (false, "base.0 c.0 base.1".to_owned());
    for (last, expected) in
        [(9, &none), (10, &accepted), (19, &accepted), (20, &jumped), (21, &none), (30, &accepted), (40, &none)]
    {
        let packet = packet(&format!("10.0.0.{last}"), "10.0.0.1", Payload::Icmp(8, 0));
        assert_eq!(&walk(&table, &packet), expected, "10.0.0.{last}");
    }
    let six = packet("::1", "::2", Payload::Icmpv6(128, 0));
    assert_eq!(walk(&table, &six), none, "another family");
}
