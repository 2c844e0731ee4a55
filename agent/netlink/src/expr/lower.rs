//! Statements to expressions, as `nft` writes them.
//!
//! In a table of family `inet` a field of IPv4 means nothing for a packet of IPv6, so `nft` puts a check of the
//! protocol in front of a field and leaves it out where an earlier statement of the rule has checked it already. The
//! same is done here, so that `nft` prints our rules as it prints its own.

use std::net::IpAddr;

use compiler::api::PortRange;
use compiler::nft::{CtState, Family, Field, Match, Reject, SNAPLEN, Stmt};

use super::wire::protocol_family;
use super::{Base, CmpOp, CtKey, Data, Expr, MetaKey, Register, RejectWith};

/// The lengths of addresses, in bytes.
const V4_LEN: u32 = 4;
const V6_LEN: u32 = 16;
/// IANA protocol numbers.
pub(super) const ICMPV6: u8 = 58;
/// `NF_CT_STATE_BIT(IP_CT_ESTABLISHED)` and `NF_CT_STATE_BIT(IP_CT_RELATED)` of
/// `linux/netfilter/nf_conntrack_common.h`.
const ESTABLISHED: u32 = 1 << 1;
const RELATED: u32 = 1 << 2;
/// `IP_CT_DIR_ORIGINAL` of `linux/netfilter/nf_conntrack_tuple_common.h`.
const ORIGINAL: u8 = 0;
/// The prefix of link-local addresses and its mask (RFC 4291, section 2.5.6).
const LINK_LOCAL: u128 = 0xfe80 << 112;
const LINK_LOCAL_MASK: u128 = 0xffc0 << 112;
/// Where the hop limit stands in the header of IPv6 (RFC 8200, section 3).
pub(super) const HOP_LIMIT: u32 = 7;
/// Where the type stands in the header of Ethernet, behind two addresses (IEEE 802.3).
const ETHER_TYPE: u32 = 12;
/// `NFT_REJECT_ICMPX_ADMIN_PROHIBITED`
pub(super) const ADMIN_PROHIBITED: u8 = 3;

/// Appends the expressions of a rule's statements.
///
/// Two rules never give the same expressions, as far as `CtState` is in order: where the check of a protocol could
/// be taken for [`Match::Protocol`] right in front of a port, it is written once more.
pub(crate) fn lower(stmts: &[Stmt], out: &mut Vec<Expr>) {
    let mut rule = Lowering { out, family: None, protocol: None };
    let mut previous = None;
    for stmt in stmts {
        rule.stmt(stmt, previous);
        previous = Some(stmt);
    }
}

/// A rule that is being written, with what its packets are known to be.
struct Lowering<'a> {
    out: &'a mut Vec<Expr>,
    family: Option<Family>,
    protocol: Option<u8>,
}

impl Lowering<'_> {
    fn stmt(&mut self, stmt: &Stmt, previous: Option<&Stmt>) {
        match stmt {
            Stmt::Match(condition) => {
                let is_port = matches!(condition, Match::Port(..) | Match::PortIn(..));
                if is_port && matches!(previous, Some(Stmt::Match(Match::Protocol(_)))) {
                    self.protocol = None;
                }
                self.condition(condition);
            }
            Stmt::Counter => self.out.push(Expr::Counter),
            Stmt::CounterName(name) => self.out.push(Expr::CounterRef(name.clone())),
            Stmt::Log(refusal, group) => {
                self.out.push(Expr::Log { prefix: *refusal, group: *group, snaplen: SNAPLEN });
            }
            Stmt::Reject(Reject::TcpReset) => self.out.push(Expr::Reject(RejectWith::TcpReset)),
            Stmt::Reject(Reject::AdminProhibited) => {
                self.out.push(Expr::Reject(RejectWith::Icmpx(ADMIN_PROHIBITED)));
            }
            Stmt::Verdict(verdict) => self.out.push(Expr::Verdict(verdict.clone())),
            Stmt::VerdictMap(field, map) => {
                self.field(*field);
                self.out.push(Expr::Lookup {
                    set: map.clone(),
                    sreg: Register::R1,
                    dreg: Some(Register::VERDICT),
                    negated: false,
                });
            }
        }
    }

    fn condition(&mut self, condition: &Match) {
        match condition {
            Match::CtState(states) => {
                let mask = states.iter().fold(0, |mask, state| mask | state_bit(*state));
                self.out.extend([
                    Expr::Ct { key: CtKey::State, dreg: Register::R1 },
                    Expr::Bitwise {
                        sreg: Register::R1,
                        dreg: Register::R1,
                        mask: Data::of(mask.to_ne_bytes()),
                        xor: Data::of([0; 4]),
                    },
                    Expr::Cmp { sreg: Register::R1, op: CmpOp::Neq, data: Data::of([0; 4]) },
                ]);
            }
            Match::In(field, set) => {
                self.field(*field);
                self.lookup(set, false);
            }
            Match::NotIn(field, set) => {
                self.field(*field);
                self.lookup(set, true);
            }
            Match::Limit(field, set, limit) => {
                self.field(*field);
                self.out.push(Expr::Limit { set: set.clone(), sreg: Register::R1, limit: *limit });
            }
            Match::Protocol(protocol) => {
                self.check(MetaKey::L4Proto, protocol.number());
                self.protocol = Some(protocol.number());
            }
            Match::Port(protocol, ports) => {
                self.need_protocol(protocol.number());
                self.destination_port();
                let PortRange { first, last } = *ports;
                self.between(Data::of(first.to_be_bytes()), Data::of(last.to_be_bytes()));
            }
            Match::PortIn(protocol, set) => {
                self.need_protocol(protocol.number());
                self.destination_port();
                self.lookup(set, false);
            }
            Match::Icmpv6Type(first, last) => {
                self.need_family(Family::V6);
                self.need_protocol(ICMPV6);
                self.transport(0, 1);
                self.between(Data::of([*first]), Data::of([*last]));
            }
            Match::HopLimit(hops) => {
                self.need_family(Family::V6);
                self.out.push(Expr::Payload { base: Base::Network, offset: HOP_LIMIT, len: 1, dreg: Register::R1 });
                self.equal(Data::of([*hops]));
            }
            Match::LinkLocalSource => {
                self.need_family(Family::V6);
                self.source(Family::V6, Register::R1);
                self.out.push(Expr::Bitwise {
                    sreg: Register::R1,
                    dreg: Register::R1,
                    mask: Data::of(LINK_LOCAL_MASK.to_be_bytes()),
                    xor: Data::of([0; 16]),
                });
                self.equal(Data::of(LINK_LOCAL.to_be_bytes()));
            }
            Match::SourceIs(address) => {
                let family = Family::of(*address);
                self.need_family(family);
                self.source(family, Register::R1);
                match address {
                    IpAddr::V4(address) => self.equal(Data::of(address.octets())),
                    IpAddr::V6(address) => self.equal(Data::of(address.octets())),
                }
            }
            Match::SourceAstray => {
                self.out.push(Expr::SourceRoute { dreg: Register::R1 });
                self.equal(Data::of([0; 4]));
            }
            Match::EtherType(kind) => {
                self.out.push(Expr::Payload { base: Base::Link, offset: ETHER_TYPE, len: 2, dreg: Register::R1 });
                self.equal(Data::of((*kind as u16).to_be_bytes()));
                self.family = kind.family().or(self.family);
            }
            Match::Original => {
                self.out.push(Expr::Ct { key: CtKey::Direction, dreg: Register::R1 });
                self.equal(Data::of([ORIGINAL]));
            }
        }
    }

    /// Loads a field into the registers from the first on, each part at a multiple of four bytes.
    fn field(&mut self, field: Field) {
        match field {
            Field::Source(family) => {
                self.need_family(family);
                self.source(family, Register::R1);
            }
            Field::Destination(family) => {
                self.need_family(family);
                self.destination(family, Register::R1);
            }
            Field::Endpoint(family) => {
                self.need_family(family);
                self.destination(family, Register::R1);
                let address = address_len(family);
                self.out.extend([
                    Expr::Meta { key: MetaKey::L4Proto, dreg: Register::at(address) },
                    Expr::Payload { base: Base::Transport, offset: 2, len: 2, dreg: Register::at(address + 4) },
                ]);
            }
            Field::Pair(family) => {
                self.need_family(family);
                self.source(family, Register::R1);
                self.destination(family, Register::at(address_len(family)));
            }
            Field::InputLink => self.out.push(Expr::Meta { key: MetaKey::IifName, dreg: Register::R1 }),
            Field::OutputLink => self.out.push(Expr::Meta { key: MetaKey::OifName, dreg: Register::R1 }),
            Field::Flow(family) => {
                self.need_family(family);
                let address = address_len(family);
                self.source(family, Register::R1);
                self.destination(family, Register::at(address));
                let port = |offset, at| Expr::Payload { base: Base::Transport, offset, len: 2, dreg: Register::at(at) };
                self.out.extend([
                    Expr::Meta { key: MetaKey::L4Proto, dreg: Register::at(2 * address) },
                    port(0, 2 * address + 4),
                    port(2, 2 * address + 8),
                ]);
            }
        }
    }

    /// The source address stands at byte 12 of IPv4's header (RFC 791) and at byte 8 of IPv6's (RFC 8200).
    fn source(&mut self, family: Family, dreg: Register) {
        let offset = match family {
            Family::V4 => 12,
            Family::V6 => 8,
        };
        self.out.push(Expr::Payload { base: Base::Network, offset, len: address_len(family), dreg });
    }

    /// The destination address follows the source address.
    fn destination(&mut self, family: Family, dreg: Register) {
        let offset = match family {
            Family::V4 => 16,
            Family::V6 => 24,
        };
        self.out.push(Expr::Payload { base: Base::Network, offset, len: address_len(family), dreg });
    }

    /// The destination port stands at byte 2 in TCP, UDP and SCTP alike.
    fn destination_port(&mut self) {
        self.transport(2, 2);
    }

    fn transport(&mut self, offset: u32, len: u32) {
        self.out.push(Expr::Payload { base: Base::Transport, offset, len, dreg: Register::R1 });
    }

    fn need_family(&mut self, family: Family) {
        if self.family != Some(family) {
            self.check(MetaKey::NfProto, protocol_family(family));
            self.family = Some(family);
        }
    }

    fn need_protocol(&mut self, protocol: u8) {
        if self.protocol != Some(protocol) {
            self.check(MetaKey::L4Proto, protocol);
            self.protocol = Some(protocol);
        }
    }

    fn check(&mut self, key: MetaKey, value: u8) {
        self.out.push(Expr::Meta { key, dreg: Register::R1 });
        self.equal(Data::of([value]));
    }

    fn equal(&mut self, data: Data) {
        self.out.push(Expr::Cmp { sreg: Register::R1, op: CmpOp::Eq, data });
    }

    fn between(&mut self, first: Data, last: Data) {
        if first == last {
            return self.equal(first);
        }
        self.out.extend([
            Expr::Cmp { sreg: Register::R1, op: CmpOp::Gte, data: first },
            Expr::Cmp { sreg: Register::R1, op: CmpOp::Lte, data: last },
        ]);
    }

    fn lookup(&mut self, set: &compiler::nft::SetName, negated: bool) {
        self.out.push(Expr::Lookup { set: set.clone(), sreg: Register::R1, dreg: None, negated });
    }
}

pub(super) fn address_len(family: Family) -> u32 {
    match family {
        Family::V4 => V4_LEN,
        Family::V6 => V6_LEN,
    }
}

pub(super) fn state_bit(state: CtState) -> u32 {
    match state {
        CtState::Established => ESTABLISHED,
        CtState::Related => RELATED,
    }
}
