//! Expressions as bytes.

use compiler::nft::{ChainName, CounterName, Family, Limit, LogGroup, Refusal, SetName, TableFamily, Verdict};

use super::{Base, CmpOp, CtKey, Data, Expr, MetaKey, NatKind, NumgenKind, Register, RejectWith};
use crate::attr::{AttrReader, AttrWriter};
use crate::constants::{LIST_ELEM, counter, data, nf, nfproto, obj, rule, verdict};

/// `NFTA_META_*`
mod meta {
    pub(super) const DREG: u16 = 1;
    pub(super) const KEY: u16 = 2;
    pub(super) const SREG: u16 = 3;
}
/// `NFTA_PAYLOAD_*`
mod payload {
    pub(super) const DREG: u16 = 1;
    pub(super) const BASE: u16 = 2;
    pub(super) const OFFSET: u16 = 3;
    pub(super) const LEN: u16 = 4;
    pub(super) const SREG: u16 = 5;
}
/// `NFTA_CMP_*`
mod cmp {
    pub(super) const SREG: u16 = 1;
    pub(super) const OP: u16 = 2;
    pub(super) const DATA: u16 = 3;
}
/// `NFTA_BITWISE_*`
mod bitwise {
    pub(super) const SREG: u16 = 1;
    pub(super) const DREG: u16 = 2;
    pub(super) const LEN: u16 = 3;
    pub(super) const MASK: u16 = 4;
    pub(super) const XOR: u16 = 5;
    pub(super) const OP: u16 = 6;
    /// `NFT_BITWISE_BOOL` (also `NFT_BITWISE_MASK_XOR`), which is what an absent OP means.
    pub(super) const OP_BOOL: u32 = 0;
}
/// `NFTA_RANGE_*`
mod range {
    pub(super) const SREG: u16 = 1;
    pub(super) const OP: u16 = 2;
    pub(super) const FROM_DATA: u16 = 3;
    pub(super) const TO_DATA: u16 = 4;
}
/// `NFTA_CT_*`
mod ct {
    pub(super) const DREG: u16 = 1;
    pub(super) const KEY: u16 = 2;
    pub(super) const DIRECTION: u16 = 3;
    pub(super) const SREG: u16 = 4;
}
/// `NFTA_LOOKUP_*`
mod lookup {
    pub(super) const SET: u16 = 1;
    pub(super) const SREG: u16 = 2;
    pub(super) const DREG: u16 = 3;
    pub(super) const FLAGS: u16 = 5;
    pub(super) const F_INV: u32 = 1;
}
/// `NFTA_DYNSET_*`
mod dynset {
    pub(super) const SET_NAME: u16 = 1;
    pub(super) const OP: u16 = 3;
    pub(super) const SREG_KEY: u16 = 4;
    pub(super) const SREG_DATA: u16 = 5;
    pub(super) const TIMEOUT: u16 = 6;
    pub(super) const EXPR: u16 = 7;
    pub(super) const FLAGS: u16 = 9;
    pub(super) const EXPRESSIONS: u16 = 10;
    /// `NFT_DYNSET_OP_UPDATE`
    pub(super) const OP_UPDATE: u32 = 1;
    /// `NFT_DYNSET_F_EXPR`: the elements have expressions, which EXPR says already.
    pub(super) const F_EXPR: u32 = 2;
}
/// `NFTA_LIMIT_*`
mod limit {
    pub(super) const RATE: u16 = 1;
    pub(super) const UNIT: u16 = 2;
    pub(super) const BURST: u16 = 3;
    pub(super) const TYPE: u16 = 4;
    pub(super) const FLAGS: u16 = 5;
    /// `NFT_LIMIT_PKTS`
    pub(super) const TYPE_PACKETS: u32 = 0;
    /// A minute in seconds.
    pub(super) const MINUTE: u64 = 60;
}
/// `NFTA_LOG_*`
mod log {
    pub(super) const GROUP: u16 = 1;
    pub(super) const PREFIX: u16 = 2;
    pub(super) const SNAPLEN: u16 = 3;
    pub(super) const QTHRESHOLD: u16 = 4;
    pub(super) const LEVEL: u16 = 5;
    pub(super) const FLAGS: u16 = 6;
}
/// `NFTA_IMMEDIATE_*`
mod immediate {
    pub(super) const DREG: u16 = 1;
    pub(super) const DATA: u16 = 2;
}
/// `NFTA_OBJREF_*`
mod objref {
    pub(super) const IMM_TYPE: u16 = 1;
    pub(super) const IMM_NAME: u16 = 2;
}
/// `NFTA_REJECT_*`
mod reject {
    pub(super) const TYPE: u16 = 1;
    pub(super) const ICMP_CODE: u16 = 2;
    pub(super) const TCP_RST: u32 = 1;
    pub(super) const ICMPX_UNREACH: u32 = 2;
}
/// `NFTA_NAT_*`
mod nat {
    pub(super) const TYPE: u16 = 1;
    pub(super) const FAMILY: u16 = 2;
    pub(super) const REG_ADDR_MIN: u16 = 3;
    pub(super) const REG_ADDR_MAX: u16 = 4;
    pub(super) const REG_PROTO_MIN: u16 = 5;
    pub(super) const REG_PROTO_MAX: u16 = 6;
    pub(super) const FLAGS: u16 = 7;
    /// `NF_NAT_RANGE_MAP_IPS | NF_NAT_RANGE_PROTO_SPECIFIED` of `linux/netfilter/nf_nat.h`, which the kernel sets
    /// by itself where the registers are given.
    pub(super) const IMPLIED_FLAGS: u32 = 3;
}
/// `NFTA_REDIR_*`
mod redir {
    pub(super) const REG_PROTO_MIN: u16 = 1;
    pub(super) const REG_PROTO_MAX: u16 = 2;
    pub(super) const FLAGS: u16 = 3;
}
/// `NFTA_MASQ_*`
mod masq {
    pub(super) const FLAGS: u16 = 1;
    pub(super) const REG_PROTO_MIN: u16 = 2;
}
/// `NFTA_FIB_*`
mod fib {
    pub(super) const DREG: u16 = 1;
    pub(super) const RESULT: u16 = 2;
    pub(super) const FLAGS: u16 = 3;
    /// `NFT_FIB_RESULT_OIF`
    pub(super) const RESULT_OIF: u32 = 1;
    /// `NFTA_FIB_F_SADDR | NFTA_FIB_F_IIF | NFTA_FIB_F_PRESENT`
    pub(super) const SOURCE_ROUTE: u32 = 1 | 1 << 3 | 1 << 5;
}
/// `NFTA_NG_*`
mod numgen {
    pub(super) const DREG: u16 = 1;
    pub(super) const MODULUS: u16 = 2;
    pub(super) const TYPE: u16 = 3;
    pub(super) const OFFSET: u16 = 4;
}

/// Appends one element of a rule's list of expressions. The attributes stand in the order in which libnftnl writes
/// them.
pub(crate) fn encode(writer: &mut AttrWriter<'_>, expression: &Expr) {
    match expression {
        Expr::Meta { key, dreg } => element(writer, "meta", |w| {
            w.be32(meta::KEY, *key as u32);
            w.be32(meta::DREG, dreg.0);
        }),
        Expr::Payload { base, offset, len, dreg } => element(writer, "payload", |w| {
            w.be32(payload::DREG, dreg.0);
            w.be32(payload::BASE, *base as u32);
            w.be32(payload::OFFSET, *offset);
            w.be32(payload::LEN, *len);
        }),
        Expr::Cmp { sreg, op, data } => element(writer, "cmp", |w| {
            w.be32(cmp::SREG, sreg.0);
            w.be32(cmp::OP, *op as u32);
            value(w, cmp::DATA, data);
        }),
        Expr::Bitwise { sreg, dreg, mask, xor } => element(writer, "bitwise", |w| {
            w.be32(bitwise::SREG, sreg.0);
            w.be32(bitwise::DREG, dreg.0);
            w.be32(bitwise::OP, bitwise::OP_BOOL);
            w.be32(bitwise::LEN, u32::from(mask.len));
            value(w, bitwise::MASK, mask);
            value(w, bitwise::XOR, xor);
        }),
        Expr::Range { sreg, negated, first, last } => element(writer, "range", |w| {
            w.be32(range::SREG, sreg.0);
            w.be32(range::OP, u32::from(*negated));
            value(w, range::FROM_DATA, first);
            value(w, range::TO_DATA, last);
        }),
        Expr::Ct { key, dreg } => element(writer, "ct", |w| {
            w.be32(ct::KEY, *key as u32);
            w.be32(ct::DREG, dreg.0);
        }),
        Expr::SourceRoute { dreg } => element(writer, "fib", |w| {
            w.be32(fib::FLAGS, fib::SOURCE_ROUTE);
            w.be32(fib::RESULT, fib::RESULT_OIF);
            w.be32(fib::DREG, dreg.0);
        }),
        Expr::Lookup { set, sreg, dreg, negated } => element(writer, "lookup", |w| {
            w.be32(lookup::SREG, sreg.0);
            optional(w, lookup::DREG, *dreg);
            w.string(lookup::SET, set.as_str());
            if *negated {
                w.be32(lookup::FLAGS, lookup::F_INV);
            }
        }),
        Expr::Limit { set, sreg, limit } => element(writer, "dynset", |w| {
            w.be32(dynset::SREG_KEY, sreg.0);
            w.be32(dynset::OP, dynset::OP_UPDATE);
            w.string(dynset::SET_NAME, set.as_str());
            w.nest(dynset::EXPR, |w| encode_limit(w, *limit));
        }),
        Expr::Log { prefix, group, snaplen } => element(writer, "log", |w| {
            w.string(log::PREFIX, prefix.prefix());
            w.bytes(log::GROUP, &group.0.to_be_bytes());
            w.be32(log::SNAPLEN, *snaplen);
        }),
        Expr::Immediate { dreg, data } => element(writer, "immediate", |w| {
            w.be32(immediate::DREG, dreg.0);
            value(w, immediate::DATA, data);
        }),
        Expr::Verdict(verdict) => element(writer, "immediate", |w| {
            w.be32(immediate::DREG, Register::VERDICT.0);
            w.nest(immediate::DATA, |w| encode_verdict(w, verdict));
        }),
        Expr::Counter => element(writer, "counter", |w| {
            w.be64(counter::BYTES, 0);
            w.be64(counter::PACKETS, 0);
        }),
        Expr::CounterRef(name) => element(writer, "objref", |w| {
            w.be32(objref::IMM_TYPE, obj::TYPE_COUNTER);
            w.string(objref::IMM_NAME, name.as_str());
        }),
        Expr::Reject(with) => element(writer, "reject", |w| match with {
            RejectWith::TcpReset => {
                w.be32(reject::TYPE, reject::TCP_RST);
                w.bytes(reject::ICMP_CODE, &[0]);
            }
            RejectWith::Icmpx(code) => {
                w.be32(reject::TYPE, reject::ICMPX_UNREACH);
                w.bytes(reject::ICMP_CODE, &[*code]);
            }
        }),
        Expr::Nat { kind, family, address, port } => element(writer, "nat", |w| {
            w.be32(nat::TYPE, *kind as u32);
            w.be32(nat::FAMILY, u32::from(protocol_family(*family)));
            optional(w, nat::REG_ADDR_MIN, *address);
            optional(w, nat::REG_PROTO_MIN, *port);
        }),
        Expr::Redirect { port } => element(writer, "redir", |w| optional(w, redir::REG_PROTO_MIN, *port)),
        Expr::Masquerade => element(writer, "masq", |_| {}),
        Expr::Numgen { dreg, kind, modulus, offset } => element(writer, "numgen", |w| {
            w.be32(numgen::DREG, dreg.0);
            w.be32(numgen::MODULUS, *modulus);
            w.be32(numgen::TYPE, *kind as u32);
            w.be32(numgen::OFFSET, *offset);
        }),
    }
}

/// Reads one element of a list of expressions of a rule in the table of a family; `None` is an expression that postern
/// never writes.
pub(crate) fn decode(family: TableFamily, element: AttrReader<'_>) -> Option<Expr> {
    let a = element.nested(rule::EXPR_DATA).unwrap_or(AttrReader::new(&[]));
    let register = |kind| a.be32(kind).map(Register);
    match element.string(rule::EXPR_NAME)? {
        "meta" if !a.has(meta::SREG) => {
            Some(Expr::Meta { key: meta_key(a.be32(meta::KEY)?)?, dreg: register(meta::DREG)? })
        }
        "payload" if !a.has(payload::SREG) => Some(Expr::Payload {
            base: base(a.be32(payload::BASE)?)?,
            offset: a.be32(payload::OFFSET)?,
            len: a.be32(payload::LEN)?,
            dreg: register(payload::DREG)?,
        }),
        "cmp" => Some(Expr::Cmp {
            sreg: register(cmp::SREG)?,
            op: cmp_op(a.be32(cmp::OP)?)?,
            data: read_value(a, cmp::DATA)?,
        }),
        "bitwise" if a.be32(bitwise::OP).unwrap_or(bitwise::OP_BOOL) == bitwise::OP_BOOL => {
            let (mask, xor) = (read_value(a, bitwise::MASK)?, read_value(a, bitwise::XOR)?);
            let same = mask.len == xor.len && a.be32(bitwise::LEN)? == u32::from(mask.len);
            same.then_some(Expr::Bitwise { sreg: register(bitwise::SREG)?, dreg: register(bitwise::DREG)?, mask, xor })
        }
        "range" => Some(Expr::Range {
            sreg: register(range::SREG)?,
            negated: flag(a.be32(range::OP)?)?,
            first: read_value(a, range::FROM_DATA)?,
            last: read_value(a, range::TO_DATA)?,
        }),
        "ct" if !a.has(ct::SREG) && !a.has(ct::DIRECTION) => {
            Some(Expr::Ct { key: ct_key(a.be32(ct::KEY)?)?, dreg: register(ct::DREG)? })
        }
        "fib" if a.be32(fib::FLAGS) == Some(fib::SOURCE_ROUTE) && a.be32(fib::RESULT) == Some(fib::RESULT_OIF) => {
            Some(Expr::SourceRoute { dreg: register(fib::DREG)? })
        }
        "lookup" => Some(Expr::Lookup {
            set: SetName::in_table(family, a.string(lookup::SET)?),
            sreg: register(lookup::SREG)?,
            dreg: register(lookup::DREG),
            negated: flag(a.be32(lookup::FLAGS).unwrap_or(0))?,
        }),
        "dynset" => {
            // The kernel's dump says that there is no time-out but the set's by one of zero.
            let plain = a.be64(dynset::TIMEOUT).unwrap_or(0) == 0
                && a.be32(dynset::FLAGS).unwrap_or(0) & !dynset::F_EXPR == 0
                && !a.has(dynset::SREG_DATA)
                && !a.has(dynset::EXPRESSIONS);
            if !plain || a.be32(dynset::OP)? != dynset::OP_UPDATE {
                return None;
            }
            Some(Expr::Limit {
                set: SetName::in_table(family, a.string(dynset::SET_NAME)?),
                sreg: register(dynset::SREG_KEY)?,
                limit: decode_limit(a.nested(dynset::EXPR)?)?,
            })
        }
        "log" => {
            let plain = a.be16(log::QTHRESHOLD).unwrap_or(0) == 0 && !a.has(log::LEVEL) && !a.has(log::FLAGS);
            plain.then_some(Expr::Log {
                prefix: Refusal::of_prefix(a.string(log::PREFIX)?)?,
                group: LogGroup(a.be16(log::GROUP)?),
                snaplen: a.be32(log::SNAPLEN)?,
            })
        }
        "immediate" => {
            let dreg = register(immediate::DREG)?;
            if dreg == Register::VERDICT {
                return decode_verdict(family, a.nested(immediate::DATA)?).map(Expr::Verdict);
            }
            Some(Expr::Immediate { dreg, data: read_value(a, immediate::DATA)? })
        }
        "counter" => Some(Expr::Counter),
        "objref" if a.be32(objref::IMM_TYPE)? == obj::TYPE_COUNTER => {
            Some(Expr::CounterRef(CounterName::in_table(family, a.string(objref::IMM_NAME)?)))
        }
        "reject" => match a.be32(reject::TYPE)? {
            reject::TCP_RST => Some(Expr::Reject(RejectWith::TcpReset)),
            reject::ICMPX_UNREACH => Some(Expr::Reject(RejectWith::Icmpx(a.byte(reject::ICMP_CODE)?))),
            _ => None,
        },
        "nat" => {
            let (address, port) = (register(nat::REG_ADDR_MIN), register(nat::REG_PROTO_MIN));
            // The kernel's dump repeats the start of a range as its end where no end was given.
            let single = register(nat::REG_ADDR_MAX).is_none_or(|max| Some(max) == address)
                && register(nat::REG_PROTO_MAX).is_none_or(|max| Some(max) == port)
                && a.be32(nat::FLAGS).unwrap_or(0) & !nat::IMPLIED_FLAGS == 0;
            let kind = match a.be32(nat::TYPE)? {
                0 => NatKind::Source,
                1 => NatKind::Destination,
                _ => return None,
            };
            single.then_some(Expr::Nat { kind, family: ip_family(a.be32(nat::FAMILY)?)?, address, port })
        }
        "redir" => {
            let port = register(redir::REG_PROTO_MIN);
            let single = register(redir::REG_PROTO_MAX).is_none_or(|max| Some(max) == port)
                && a.be32(redir::FLAGS).unwrap_or(0) & !nat::IMPLIED_FLAGS == 0;
            single.then_some(Expr::Redirect { port })
        }
        "masq" => {
            let plain = a.be32(masq::FLAGS).unwrap_or(0) == 0 && !a.has(masq::REG_PROTO_MIN);
            plain.then_some(Expr::Masquerade)
        }
        "numgen" => Some(Expr::Numgen {
            dreg: register(numgen::DREG)?,
            kind: match a.be32(numgen::TYPE)? {
                0 => NumgenKind::Incremental,
                1 => NumgenKind::Random,
                _ => return None,
            },
            modulus: a.be32(numgen::MODULUS)?,
            offset: a.be32(numgen::OFFSET).unwrap_or(0),
        }),
        _ => None,
    }
}

/// Writes the value of a verdict, as it stands in a rule and in an element of a verdict map.
pub(crate) fn encode_verdict(writer: &mut AttrWriter<'_>, verdict: &Verdict) {
    let (code, chain) = match verdict {
        Verdict::Accept => (nf::ACCEPT, None),
        Verdict::Drop => (nf::DROP, None),
        Verdict::Return => (verdict::RETURN, None),
        Verdict::Jump(chain) => (verdict::JUMP, Some(chain)),
        Verdict::Goto(chain) => (verdict::GOTO, Some(chain)),
    };
    writer.nest(data::VERDICT, |w| {
        w.bytes(data::VERDICT_CODE, &code.to_be_bytes());
        if let Some(chain) = chain {
            w.string(data::VERDICT_CHAIN, chain.as_str());
        }
    });
}

/// Reads the value of a verdict in the table of a family; `None` is one that postern never writes.
pub(crate) fn decode_verdict(family: TableFamily, value: AttrReader<'_>) -> Option<Verdict> {
    let a = value.nested(data::VERDICT)?;
    let chain = || a.string(data::VERDICT_CHAIN).map(|name| ChainName::in_table(family, name));
    match a.be32(data::VERDICT_CODE)?.cast_signed() {
        nf::ACCEPT => Some(Verdict::Accept),
        nf::DROP => Some(Verdict::Drop),
        verdict::RETURN => Some(Verdict::Return),
        verdict::JUMP => Some(Verdict::Jump(chain()?)),
        verdict::GOTO => Some(Verdict::Goto(chain()?)),
        _ => None,
    }
}

/// The number of a family in `linux/netfilter.h`.
pub(super) fn protocol_family(family: Family) -> u8 {
    match family {
        Family::V4 => nfproto::IPV4,
        Family::V6 => nfproto::IPV6,
    }
}

/// Writes the limit of an element of a set: name and data, without the list that a rule has.
fn encode_limit(writer: &mut AttrWriter<'_>, Limit { over, a_minute, burst }: Limit) {
    writer.string(rule::EXPR_NAME, "limit");
    writer.nest(rule::EXPR_DATA, |w| {
        w.be64(limit::RATE, a_minute.into());
        w.be64(limit::UNIT, limit::MINUTE);
        w.be32(limit::BURST, burst);
        w.be32(limit::TYPE, limit::TYPE_PACKETS);
        w.be32(limit::FLAGS, over.into());
    });
}

fn decode_limit(a: AttrReader<'_>) -> Option<Limit> {
    if a.string(rule::EXPR_NAME)? != "limit" {
        return None;
    }
    let a = a.nested(rule::EXPR_DATA)?;
    if a.be64(limit::UNIT)? != limit::MINUTE || a.be32(limit::TYPE).unwrap_or(0) != limit::TYPE_PACKETS {
        return None;
    }
    Some(Limit {
        over: flag(a.be32(limit::FLAGS).unwrap_or(0))?,
        a_minute: u32::try_from(a.be64(limit::RATE)?).ok()?,
        burst: a.be32(limit::BURST)?,
    })
}

fn element(writer: &mut AttrWriter<'_>, name: &str, write: impl FnOnce(&mut AttrWriter<'_>)) {
    writer.nest(LIST_ELEM, |w| {
        w.string(rule::EXPR_NAME, name);
        w.nest(rule::EXPR_DATA, write);
    });
}

fn value(writer: &mut AttrWriter<'_>, kind: u16, value: &Data) {
    writer.nest(kind, |w| w.bytes(data::VALUE, value.as_slice()));
}

fn read_value(attributes: AttrReader<'_>, kind: u16) -> Option<Data> {
    Data::new(attributes.nested(kind)?.get(data::VALUE)?)
}

fn optional(writer: &mut AttrWriter<'_>, kind: u16, register: Option<Register>) {
    if let Some(register) = register {
        writer.be32(kind, register.0);
    }
}

fn flag(value: u32) -> Option<bool> {
    match value {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}

fn ip_family(number: u32) -> Option<Family> {
    Family::ALL.into_iter().find(|family| u32::from(protocol_family(*family)) == number)
}

fn meta_key(number: u32) -> Option<MetaKey> {
    use MetaKey::{IifName, L4Proto, NfProto, OifName};
    [IifName, OifName, NfProto, L4Proto].into_iter().find(|key| *key as u32 == number)
}

fn base(number: u32) -> Option<Base> {
    [Base::Link, Base::Network, Base::Transport].into_iter().find(|base| *base as u32 == number)
}

fn cmp_op(number: u32) -> Option<CmpOp> {
    use CmpOp::{Eq, Gt, Gte, Lt, Lte, Neq};
    [Eq, Neq, Lt, Lte, Gt, Gte].into_iter().find(|op| *op as u32 == number)
}

fn ct_key(number: u32) -> Option<CtKey> {
    [CtKey::State, CtKey::Direction, CtKey::Status].into_iter().find(|key| *key as u32 == number)
}
