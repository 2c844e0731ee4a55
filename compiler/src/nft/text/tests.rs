//! Every statement and declaration in nft's words.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::*;
use crate::api::{LinkName, PortRange};
use crate::nft::{BaseChain, Comment, CounterName, MapElement};

fn set_name(name: &str) -> SetName {
    SetName::from_kernel(name)
}

#[test]
fn statements() {
    let range = |first, last| PortRange { first, last };
    let chain = || ChainName::from_kernel("c");
    let known = |states: &[CtState]| Stmt::Match(Match::CtState(states.to_vec()));
    let in_set = |field| Stmt::Match(Match::In(field, set_name("s")));
    let cases = [
        (known(&[CtState::Established, CtState::Related]), "ct state established,related"),
        (known(&[CtState::Related]), "ct state related"),
        (in_set(Field::Source(Family::V4)), "ip saddr @s"),
        (in_set(Field::Source(Family::V6)), "ip6 saddr @s"),
        (in_set(Field::Destination(Family::V4)), "ip daddr @s"),
        (in_set(Field::Destination(Family::V6)), "ip6 daddr @s"),
        (in_set(Field::Endpoint(Family::V4)), "ip daddr . meta l4proto . th dport @s"),
        (in_set(Field::Endpoint(Family::V6)), "ip6 daddr . meta l4proto . th dport @s"),
        (in_set(Field::Pair(Family::V4)), "ip saddr . ip daddr @s"),
        (in_set(Field::Pair(Family::V6)), "ip6 saddr . ip6 daddr @s"),
        (in_set(Field::Flow(Family::V4)), "ip saddr . ip daddr . meta l4proto . th sport . th dport @s"),
        (in_set(Field::Flow(Family::V6)), "ip6 saddr . ip6 daddr . meta l4proto . th sport . th dport @s"),
        (Stmt::Match(Match::Original), "ct direction original"),
        (in_set(Field::InputLink), "iifname @s"),
        (Stmt::Match(Match::LinkLocalSource), "ip6 saddr fe80::/10"),
        (Stmt::Match(Match::SourceIs([10, 0, 0, 2].into())), "ip saddr 10.0.0.2"),
        (Stmt::Match(Match::SourceIs([0u16; 8].into())), "ip6 saddr ::"),
        (Stmt::Match(Match::SourceAstray), "fib saddr . iif oif missing"),
        (Stmt::Match(Match::EtherType(EtherType::V6)), "ether type ip6"),
        (Stmt::Match(Match::EtherType(EtherType::ServiceTag)), "ether type 8021ad"),
        (in_set(Field::OutputLink), "oifname @s"),
        (Stmt::Match(Match::Protocol(Protocol::Sctp)), "meta l4proto sctp"),
        (Stmt::Match(Match::Port(Protocol::Tcp, range(80, 80))), "tcp dport 80"),
        (Stmt::Match(Match::Port(Protocol::Udp, range(80, 90))), "udp dport 80-90"),
        (Stmt::Match(Match::PortIn(Protocol::Sctp, set_name("s"))), "sctp dport @s"),
        (Stmt::Match(Match::Icmpv6Type(2, 2)), "icmpv6 type 2"),
        (Stmt::Match(Match::Icmpv6Type(133, 137)), "icmpv6 type 133-137"),
        (Stmt::Match(Match::HopLimit(255)), "ip6 hoplimit 255"),
        (Stmt::Counter, "counter"),
        (Stmt::CounterName(CounterName::from_kernel("n")), "counter name \"n\""),
        (Stmt::Reject(Reject::TcpReset), "reject with tcp reset"),
        (Stmt::Reject(Reject::AdminProhibited), "reject with icmpx admin-prohibited"),
        (Stmt::Verdict(Verdict::Accept), "accept"),
        (Stmt::Verdict(Verdict::Drop), "drop"),
        (Stmt::Verdict(Verdict::Return), "return"),
        (Stmt::Verdict(Verdict::Jump(chain())), "jump c"),
        (Stmt::Verdict(Verdict::Goto(chain())), "goto c"),
        (Stmt::VerdictMap(Field::Source(Family::V4), set_name("m")), "ip saddr vmap @m"),
    ];
    for (stmt, text) in cases {
        assert_eq!(stmt.to_string(), text);
    }
    let stmts = vec![Stmt::Match(Match::Protocol(Protocol::Tcp)), Stmt::Counter, Stmt::Verdict(Verdict::Accept)];
    let rule = |comment| Rule { stmts: stmts.clone(), comment };
    assert_eq!(rule(None).to_string(), "meta l4proto tcp counter accept");
    assert_eq!(rule(Some(Comment::new("why"))).to_string(), "meta l4proto tcp counter accept comment \"why\"");
}

#[test]
fn keys_and_their_types() {
    let v4 = |text: &str| text.parse().expect("an IPv4 address");
    let v6 = |text: &str| text.parse().expect("an IPv6 address");
    let (a, b) = (v4("10.0.0.1"), v4("10.0.0.9"));
    let (c, d) = (v6("fd00::1"), v6("fd00::9"));
    let cases = [
        (Key::V4(a), "10.0.0.1", "ipv4_addr"),
        (Key::V6(c), "fd00::1", "ipv6_addr"),
        (Key::V4Range(a, b), "10.0.0.1-10.0.0.9", "ipv4_addr"),
        (Key::V4Range(a, a), "10.0.0.1", "ipv4_addr"),
        (Key::V6Range(c, d), "fd00::1-fd00::9", "ipv6_addr"),
        (Key::V6Range(c, c), "fd00::1", "ipv6_addr"),
        (Key::Ports(PortRange { first: 80, last: 90 }), "80-90", "inet_service"),
        (Key::V4Endpoint(a, Protocol::Udp, 53), "10.0.0.1 . udp . 53", "ipv4_addr . inet_proto . inet_service"),
        (Key::V6Endpoint(c, Protocol::Tcp, 80), "fd00::1 . tcp . 80", "ipv6_addr . inet_proto . inet_service"),
        (Key::V4Pair(a, b), "10.0.0.1 . 10.0.0.9", "ipv4_addr . ipv4_addr"),
        (Key::V6Pair(c, d), "fd00::1 . fd00::9", "ipv6_addr . ipv6_addr"),
        (
            Key::V4Flow(a, b, Protocol::Udp, 1, 53),
            "10.0.0.1 . 10.0.0.9 . udp . 1 . 53",
            "ipv4_addr . ipv4_addr . inet_proto . inet_service . inet_service",
        ),
        (
            Key::V6Flow(c, d, Protocol::Tcp, 1, 80),
            "fd00::1 . fd00::9 . tcp . 1 . 80",
            "ipv6_addr . ipv6_addr . inet_proto . inet_service . inet_service",
        ),
        (Key::Link(LinkName::new("veth0").expect("a name")), "\"veth0\"", "ifname"),
    ];
    for (key, text, key_type) in cases {
        assert_eq!(key.to_string(), text);
        assert_eq!(key.key_type().to_string(), key_type);
        let is_range = matches!(key, Key::V4Range(..) | Key::V6Range(..) | Key::Ports(_));
        assert_eq!(key.key_type().is_interval(), is_range, "{text}");
    }
}

#[test]
fn a_whole_table() {
    let mut table = Table::default();
    table.counters.insert(CounterName::from_kernel("n"));
    let address = |last| Key::V4([10, 0, 0, last].into());
    let set = |key_type, comment: Option<&str>, keys| {
        Arc::new(Set { key_type, comment: comment.map(Comment::new), keys: Arc::new(keys), filled: None })
    };
    let keys = vec![address(1), address(2)];
    table.sets.insert(set_name("addresses"), set(KeyType::Address(Family::V4), Some("some pods"), keys));
    let ranges = vec![Key::Ports(PortRange { first: 1, last: 2 })];
    table.sets.insert(set_name("ports"), set(KeyType::PortRange, None, ranges));
    table.sets.insert(set_name("empty"), set(KeyType::AddressRange(Family::V6), None, vec![]));
    let element = |verdict, comment: Option<&str>| MapElement { verdict, comment: comment.map(Comment::new) };
    let elements = BTreeMap::from([
        (address(1), element(Verdict::Goto(ChainName::from_kernel("regular")), Some("a/web"))),
        (address(2), element(Verdict::Drop, None)),
    ]);
    let key_type = KeyType::Address(Family::V4);
    let map = |comment: Option<&str>, elements| {
        Arc::new(VerdictMap { key_type, comment: comment.map(Comment::new), elements: Arc::new(elements) })
    };
    table.maps.insert(set_name("full"), map(Some("isolated"), elements));
    table.maps.insert(set_name("void"), map(None, BTreeMap::new()));
    let segments =
        BTreeMap::from([(Key::V4Range([10, 0, 0, 0].into(), [10, 0, 0, 7].into()), element(Verdict::Drop, None))]);
    let key_type = KeyType::AddressRange(Family::V4);
    let segments = VerdictMap { key_type, comment: None, elements: Arc::new(segments) };
    table.maps.insert(set_name("segments"), Arc::new(segments));
    let rules = vec![Rule { stmts: vec![Stmt::Verdict(Verdict::Accept)], comment: None }];
    let base = |hook, priority, policy| Some(BaseChain { hook, priority, policy });
    let chain =
        |base, comment: Option<&str>, rules| Arc::new(Chain { base, comment: comment.map(Comment::new), rules });
    table.chains.insert(
        ChainName::from_kernel("a-base"),
        chain(base(Hook::Forward, 1, ChainPolicy::Accept), Some("what may pass"), rules.clone()),
    );
    table
        .chains
        .insert(ChainName::from_kernel("b-base"), chain(base(Hook::Input, -5, ChainPolicy::Drop), None, vec![]));
    table.chains.insert(ChainName::from_kernel("regular"), chain(None, None, rules));
    let expected = r#"table inet postern {
    counter n { }

    set addresses {
        type ipv4_addr
        comment "some pods"
        elements = {
            10.0.0.1,
            10.0.0.2
        }
    }

    set empty {
        type ipv6_addr
        flags interval
    }

    set ports {
        type inet_service
        flags interval
        elements = {
            1-2
        }
    }

    map full {
        type ipv4_addr : verdict
        comment "isolated"
        elements = {
            10.0.0.1 comment "a/web" : goto regular,
            10.0.0.2 : drop
        }
    }

    map segments {
        type ipv4_addr : verdict
        flags interval
        elements = {
            10.0.0.0-10.0.0.7 : drop
        }
    }

    map void {
        type ipv4_addr : verdict
    }

    chain a-base {
        comment "what may pass"
        type filter hook forward priority 1; policy accept;
        accept
    }

    chain b-base {
        type filter hook input priority -5; policy drop;
    }

    chain regular {
        accept
    }
}
"#;
    assert_eq!(table.to_string(), expected);
}
