//! Expressions to statements: the inverse of lowering.
//!
//! The parser takes the longest statement that could stand at each place, without looking too closely; then what it
//! found is lowered again and must give the same expressions. So nothing passes as ours that is not ours to the
//! last register, and the rules of [`lower`] are written once.

use std::net::IpAddr;

use compiler::api::{PortRange, Protocol};
use compiler::nft::{CtState, EtherType, Family, Field, Match, Reject, Stmt};

use super::lower::{ADMIN_PROHIBITED, HOP_LIMIT, ICMPV6, lower, state_bit};
use super::{Base, CtKey, Data, Expr, MetaKey, RejectWith};

/// The statements of a rule; `None` is a rule that postern never writes.
pub(crate) fn raise(exprs: &[Expr]) -> Option<Vec<Stmt>> {
    let mut parser = Parser { rest: exprs, family: None, protocol: None };
    let mut stmts = Vec::new();
    while !parser.rest.is_empty() {
        stmts.extend(parser.next()?);
    }
    let mut again = Vec::with_capacity(exprs.len());
    lower(&stmts, &mut again);
    (again == exprs).then_some(stmts)
}

struct Parser<'a> {
    rest: &'a [Expr],
    /// What the last check of `meta nfproto` asked for.
    family: Option<Family>,
    /// What the last check of `meta l4proto` asked for.
    protocol: Option<u8>,
}

impl<'a> Parser<'a> {
    /// The next statement; an inner `None` is a check that belongs to a statement behind it.
    fn next(&mut self) -> Option<Option<Stmt>> {
        match self.next_expr()? {
            Expr::Meta { key: MetaKey::NfProto, .. } => {
                let number = self.byte()?;
                self.family = Some(Family::ALL.into_iter().find(|f| super::wire::protocol_family(*f) == number)?);
                Some(None)
            }
            Expr::Meta { key: MetaKey::L4Proto, .. } => {
                let number = self.byte()?;
                self.protocol = Some(number);
                if let Some(Expr::Payload { base: Base::Transport, .. }) = self.rest.first() {
                    return Some(None);
                }
                Some(Some(Stmt::Match(Match::Protocol(protocol(number)?))))
            }
            Expr::Payload { base: Base::Transport, offset, len, .. } => {
                self.transport(*offset, *len).map(|found| Some(Stmt::Match(found)))
            }
            Expr::Payload { base: Base::Link, .. } => {
                let Expr::Cmp { data, .. } = self.next_expr()? else { return None };
                let number = u16::from_be_bytes(data.as_slice().try_into().ok()?);
                let kind = EtherType::ALL.into_iter().find(|kind| *kind as u16 == number)?;
                self.family = kind.family().or(self.family);
                Some(Some(Stmt::Match(Match::EtherType(kind))))
            }
            Expr::Payload { base: Base::Network, offset: HOP_LIMIT, .. } => {
                Some(Some(Stmt::Match(Match::HopLimit(self.byte()?))))
            }
            Expr::Payload { base: Base::Network, .. } if matches!(self.rest.first(), Some(Expr::Bitwise { .. })) => {
                self.next_expr()?;
                self.next_expr()?;
                Some(Some(Stmt::Match(Match::LinkLocalSource)))
            }
            Expr::Payload { base: Base::Network, .. } if matches!(self.rest.first(), Some(Expr::Cmp { .. })) => {
                let Expr::Cmp { data, .. } = self.next_expr()? else { return None };
                let bytes = data.as_slice();
                let address: Option<IpAddr> = match self.family? {
                    Family::V4 => <[u8; 4]>::try_from(bytes).ok().map(Into::into),
                    Family::V6 => <[u8; 16]>::try_from(bytes).ok().map(Into::into),
                };
                Some(Some(Stmt::Match(Match::SourceIs(address?))))
            }
            Expr::Payload { base: Base::Network, offset, .. } => self.field(*offset).map(Some),
            Expr::Meta { key: MetaKey::IifName, .. } => self.looked_up(Field::InputLink).map(Some),
            Expr::Meta { key: MetaKey::OifName, .. } => self.looked_up(Field::OutputLink).map(Some),
            Expr::SourceRoute { .. } => {
                self.next_expr()?;
                Some(Some(Stmt::Match(Match::SourceAstray)))
            }
            Expr::Ct { key: CtKey::State, .. } => {
                let Expr::Bitwise { mask, .. } = self.next_expr()? else { return None };
                let Expr::Cmp { .. } = self.next_expr()? else { return None };
                let bits = u32::from_ne_bytes(mask.as_slice().try_into().ok()?);
                let states = [CtState::Established, CtState::Related];
                let states = states.into_iter().filter(|state| bits & state_bit(*state) != 0).collect();
                Some(Some(Stmt::Match(Match::CtState(states))))
            }
            Expr::Ct { key: CtKey::Direction, .. } => {
                self.byte()?;
                Some(Some(Stmt::Match(Match::Original)))
            }
            Expr::Counter => Some(Some(Stmt::Counter)),
            Expr::CounterRef(name) => Some(Some(Stmt::CounterName(name.clone()))),
            Expr::Log { prefix, group, .. } => Some(Some(Stmt::Log(*prefix, *group))),
            Expr::Reject(RejectWith::TcpReset) => Some(Some(Stmt::Reject(Reject::TcpReset))),
            Expr::Reject(RejectWith::Icmpx(ADMIN_PROHIBITED)) => Some(Some(Stmt::Reject(Reject::AdminProhibited))),
            Expr::Verdict(verdict) => Some(Some(Stmt::Verdict(verdict.clone()))),
            Expr::Ct { key: CtKey::Status, .. }
            | Expr::Reject(RejectWith::Icmpx(_))
            | Expr::Cmp { .. }
            | Expr::Bitwise { .. }
            | Expr::Range { .. }
            | Expr::Lookup { .. }
            | Expr::Limit { .. }
            | Expr::Immediate { .. }
            | Expr::Nat { .. }
            | Expr::Redirect { .. }
            | Expr::Masquerade
            | Expr::Numgen { .. } => None,
        }
    }

    fn transport(&mut self, offset: u32, len: u32) -> Option<Match> {
        let number = self.protocol?;
        if offset == 2 {
            let protocol = protocol(number)?;
            if let Some(Expr::Lookup { set, .. }) = self.rest.first() {
                let set = set.clone();
                self.next_expr();
                return Some(Match::PortIn(protocol, set));
            }
            let (first, last) = self.between()?;
            let port = |data: Data| Some(u16::from_be_bytes(data.as_slice().try_into().ok()?));
            return Some(Match::Port(protocol, PortRange { first: port(first)?, last: port(last)? }));
        }
        let (first, last) = self.between()?;
        match (len, first.as_slice(), last.as_slice()) {
            (1, [first], [last]) if number == ICMPV6 => Some(Match::Icmpv6Type(*first, *last)),
            _ => None,
        }
    }

    fn field(&mut self, offset: u32) -> Option<Stmt> {
        let family = self.family?;
        let field = if let Some(Expr::Payload { .. }) = self.rest.first() {
            self.next_expr()?;
            if let Some(Expr::Meta { .. }) = self.rest.first() {
                for _ in 0..3 {
                    self.next_expr()?;
                }
                Field::Flow(family)
            } else {
                Field::Pair(family)
            }
        } else if let Some(Expr::Meta { .. }) = self.rest.first() {
            self.next_expr()?;
            self.next_expr()?;
            Field::Endpoint(family)
        } else if matches!((family, offset), (Family::V4, 12) | (Family::V6, 8)) {
            Field::Source(family)
        } else {
            Field::Destination(family)
        };
        self.looked_up(field)
    }

    /// What is done with a field that has been loaded.
    fn looked_up(&mut self, field: Field) -> Option<Stmt> {
        if let Some(Expr::Limit { set, limit, .. }) = self.rest.first() {
            self.next_expr();
            return Some(Stmt::Match(Match::Limit(field, set.clone(), *limit)));
        }
        let Expr::Lookup { set, dreg, negated, .. } = self.next_expr()? else { return None };
        Some(match (dreg, negated) {
            (None, false) => Stmt::Match(Match::In(field, set.clone())),
            (None, true) => Stmt::Match(Match::NotIn(field, set.clone())),
            (Some(_), _) => Stmt::VerdictMap(field, set.clone()),
        })
    }

    fn next_expr(&mut self) -> Option<&'a Expr> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(first)
    }

    fn byte(&mut self) -> Option<u8> {
        let Expr::Cmp { data, .. } = self.next_expr()? else { return None };
        let [byte] = data.as_slice() else { return None };
        Some(*byte)
    }

    /// One comparison for equality, or two for the ends of a range.
    fn between(&mut self) -> Option<(Data, Data)> {
        let Expr::Cmp { op, data, .. } = self.next_expr()? else { return None };
        let (op, first) = (*op, *data);
        if op == super::CmpOp::Eq {
            return Some((first, first));
        }
        let Expr::Cmp { data: last, .. } = self.next_expr()? else { return None };
        Some((first, *last))
    }
}

fn protocol(number: u8) -> Option<Protocol> {
    Protocol::ALL.into_iter().find(|protocol| protocol.number() == number)
}
