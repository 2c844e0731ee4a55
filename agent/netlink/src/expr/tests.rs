//! Statements and expressions, there and back.

use compiler::api::{PortRange, Protocol};
use compiler::nft::{
    ChainName, CounterName, CtState, EtherType, Family, Field, Match, Reject, SetName, Stmt, TableFamily, Verdict,
};
use proptest::prelude::*;

use super::{
    Base, CmpOp, CtKey, Data, Expr, MetaKey, NatKind, NumgenKind, Register, RejectWith, decode, encode, lower, raise,
};
use crate::attr::{AttrReader, AttrWriter};

fn lowered(stmts: &[Stmt]) -> Vec<Expr> {
    let mut exprs = Vec::new();
    lower(stmts, &mut exprs);
    exprs
}

fn matching(condition: Match) -> Stmt {
    Stmt::Match(condition)
}

fn any_stmt() -> impl Strategy<Value = Stmt> {
    let family = prop::sample::select(Family::ALL.to_vec());
    let protocol = prop::sample::select(Protocol::ALL.to_vec());
    let set = prop::sample::select(vec!["a", "pods-1"]).prop_map(SetName::from_kernel);
    let chain = Just(ChainName::from_kernel("leaf"));
    let field = (family, 0..7).prop_map(|(family, kind)| match kind {
        0 => Field::Source(family),
        1 => Field::Destination(family),
        2 => Field::Endpoint(family),
        3 => Field::Pair(family),
        4 => Field::Flow(family),
        5 => Field::InputLink,
        _ => Field::OutputLink,
    });
    let states = prop::sample::select(vec![
        vec![CtState::Established],
        vec![CtState::Related],
        vec![CtState::Established, CtState::Related],
    ]);
    let ports = (any::<u16>(), any::<u16>()).prop_map(|(a, b)| PortRange { first: a.min(b), last: a.max(b) });
    prop_oneof![
        states.prop_map(|states| matching(Match::CtState(states))),
        (field.clone(), set.clone()).prop_map(|(field, set)| matching(Match::In(field, set))),
        protocol.clone().prop_map(|protocol| matching(Match::Protocol(protocol))),
        (protocol.clone(), ports).prop_map(|(protocol, ports)| matching(Match::Port(protocol, ports))),
        (protocol, set.clone()).prop_map(|(protocol, set)| matching(Match::PortIn(protocol, set))),
        (any::<u8>(), any::<u8>()).prop_map(|(a, b)| matching(Match::Icmpv6Type(a.min(b), a.max(b)))),
        any::<u8>().prop_map(|hops| matching(Match::HopLimit(hops))),
        Just(matching(Match::Original)),
        Just(matching(Match::LinkLocalSource)),
        any::<std::net::IpAddr>().prop_map(|address| matching(Match::SourceIs(address))),
        Just(matching(Match::SourceAstray)),
        prop::sample::select(EtherType::ALL.to_vec()).prop_map(|kind| matching(Match::EtherType(kind))),
        Just(Stmt::Counter),
        Just(Stmt::CounterName(CounterName::from_kernel("denied"))),
        Just(Stmt::Reject(Reject::TcpReset)),
        Just(Stmt::Reject(Reject::AdminProhibited)),
        prop::sample::select(vec![Verdict::Accept, Verdict::Drop, Verdict::Return]).prop_map(Stmt::Verdict),
        chain.clone().prop_map(|chain| Stmt::Verdict(Verdict::Jump(chain))),
        chain.prop_map(|chain| Stmt::Verdict(Verdict::Goto(chain))),
        (field, set).prop_map(|(field, map)| Stmt::VerdictMap(field, map)),
    ]
}

proptest! {
    /// Whatever statements stand in a row, they are read back: no two rules share their expressions.
    #[test]
    fn statements_come_back(stmts in prop::collection::vec(any_stmt(), 0..8)) {
        prop_assert_eq!(raise(&lowered(&stmts)), Some(stmts));
    }

    /// A rule that lacks or repeats one expression is ours only if it is again exactly what we would write.
    #[test]
    fn damaged_rules_are_never_mistaken(stmts in prop::collection::vec(any_stmt(), 1..6), at in any::<prop::sample::Index>(), again in any::<bool>()) {
        let mut exprs = lowered(&stmts);
        let index = at.index(exprs.len());
        if again {
            exprs.insert(index, exprs[index].clone());
        } else {
            exprs.remove(index);
        }
        if let Some(found) = raise(&exprs) {
            prop_assert_eq!(lowered(&found), exprs);
        }
    }
}

/// As `nft --debug=netlink` shows `ip6 daddr . meta l4proto . th dport @named goto leaf`.
#[test]
fn a_concatenation_lies_in_a_row_of_registers() {
    let stmts = [
        matching(Match::In(Field::Endpoint(Family::V6), SetName::from_kernel("named"))),
        Stmt::Verdict(Verdict::Goto(ChainName::from_kernel("leaf"))),
    ];
    let expected = [
        Expr::Meta { key: MetaKey::NfProto, dreg: Register::R1 },
        Expr::Cmp { sreg: Register::R1, op: CmpOp::Eq, data: Data::of([10]) },
        Expr::Payload { base: Base::Network, offset: 24, len: 16, dreg: Register::R1 },
        Expr::Meta { key: MetaKey::L4Proto, dreg: Register::R2 },
        Expr::Payload { base: Base::Transport, offset: 2, len: 2, dreg: Register(13) },
        Expr::Lookup { set: SetName::from_kernel("named"), sreg: Register::R1, dreg: None, negated: false },
        Expr::Verdict(Verdict::Goto(ChainName::from_kernel("leaf"))),
    ];
    assert_eq!(lowered(&stmts), expected);
}

/// As `nft --debug=netlink` shows `ip saddr @a tcp dport 80 ip daddr @b`: each protocol is checked once.
#[test]
fn what_is_known_is_not_checked_again() {
    let [a, b] = ["a", "b"].map(SetName::from_kernel);
    let checks = |stmts: &[Stmt]| {
        let is_check = |expr: &Expr| matches!(expr, Expr::Meta { .. });
        lowered(stmts).iter().filter(|expr| is_check(expr)).count()
    };
    let tcp = matching(Match::Port(Protocol::Tcp, PortRange::single(80)));
    let source = |family, set: &SetName| matching(Match::In(Field::Source(family), set.clone()));
    assert_eq!(checks(&[source(Family::V4, &a), tcp.clone(), source(Family::V4, &b), tcp.clone()]), 2);
    assert_eq!(checks(&[source(Family::V4, &a), source(Family::V6, &b)]), 2);
    let udp = matching(Match::Port(Protocol::Udp, PortRange::single(80)));
    assert_eq!(checks(&[tcp, udp]), 2);
}

#[test]
fn every_expression_comes_back() {
    let (sreg, dreg) = (Register::R1, Register::R3);
    let set = SetName::from_kernel("set");
    let long = Data::of([7; 16]);
    let nat = |kind, address, port| Expr::Nat { kind, family: Family::V6, address, port };
    let all = [
        Expr::Meta { key: MetaKey::IifName, dreg },
        Expr::Meta { key: MetaKey::OifName, dreg },
        Expr::Payload { base: Base::Link, offset: 12, len: 2, dreg },
        Expr::Payload { base: Base::Network, offset: 8, len: 16, dreg },
        Expr::Cmp { sreg, op: CmpOp::Lt, data: long },
        Expr::Cmp { sreg, op: CmpOp::Gt, data: Data::of([]) },
        Expr::Bitwise { sreg, dreg, mask: Data::of([1, 2]), xor: Data::of([3, 4]) },
        Expr::Range { sreg, negated: true, first: Data::of([0, 1]), last: Data::of([0, 9]) },
        Expr::Range { sreg, negated: false, first: Data::of([0, 1]), last: Data::of([0, 9]) },
        Expr::Ct { key: CtKey::State, dreg },
        Expr::Ct { key: CtKey::Direction, dreg },
        Expr::Ct { key: CtKey::Status, dreg },
        Expr::SourceRoute { dreg },
        Expr::Lookup { set: set.clone(), sreg, dreg: None, negated: true },
        Expr::Lookup { set, sreg, dreg: Some(dreg), negated: false },
        Expr::Immediate { dreg, data: long },
        Expr::Verdict(Verdict::Return),
        Expr::Verdict(Verdict::Jump(ChainName::from_kernel("chain"))),
        Expr::Counter,
        Expr::CounterRef(CounterName::from_kernel("counter")),
        Expr::Reject(RejectWith::TcpReset),
        Expr::Reject(RejectWith::Icmpx(1)),
        nat(NatKind::Source, Some(sreg), None),
        nat(NatKind::Destination, Some(sreg), Some(dreg)),
        nat(NatKind::Destination, None, Some(dreg)),
        Expr::Redirect { port: None },
        Expr::Redirect { port: Some(sreg) },
        Expr::Masquerade,
        Expr::Numgen { dreg, kind: NumgenKind::Incremental, modulus: 3, offset: 1 },
        Expr::Numgen { dreg, kind: NumgenKind::Random, modulus: u32::MAX, offset: 0 },
    ];
    for expr in all {
        let mut bytes = Vec::new();
        encode(&mut AttrWriter::new(&mut bytes), &expr);
        let (_, element) = AttrReader::new(&bytes).next().unwrap();
        assert_eq!(decode(TableFamily::Inet, AttrReader::new(element)), Some(expr.clone()));
        // Cut anywhere, it is something else or nothing, but no panic.
        for len in 0..element.len() {
            let _ = decode(TableFamily::Bridge, AttrReader::new(&element[..len]));
        }
    }
    assert_eq!(Data::new(&[0; 17]), None);
}
