//! Expressions: what the kernel makes a rule of, one to one.
//!
//! A statement of nft is one or more expressions that hand values on in registers. `lower` writes statements the
//! way `nft` does, and `raise` recognises exactly what `lower` writes. Expressions that no statement of the
//! `postern` table needs (address translation, random numbers) are here for tables that a
//! [`RawBatch`](crate::RawBatch) makes.

mod lower;
mod raise;
mod wire;

pub(crate) use lower::lower;
pub(crate) use raise::raise;
pub(crate) use wire::{decode, decode_verdict, encode, encode_verdict};

use compiler::nft::{CounterName, Family, Limit, LogGroup, Refusal, SetName, Verdict};

/// One expression of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expr {
    /// `meta`: loads something about the packet that is not in it.
    Meta {
        /// What is loaded.
        key: MetaKey,
        /// Where it goes.
        dreg: Register,
    },
    /// `payload`: loads a part of the packet.
    Payload {
        /// The header from which `offset` counts.
        base: Base,
        /// In bytes.
        offset: u32,
        /// In bytes.
        len: u32,
        /// Where it goes.
        dreg: Register,
    },
    /// `cmp`: goes on only if the comparison holds.
    Cmp {
        /// The left side.
        sreg: Register,
        /// The comparison.
        op: CmpOp,
        /// The right side.
        data: Data,
    },
    /// `bitwise`: `dreg = (sreg & mask) ^ xor`.
    Bitwise {
        /// The operand.
        sreg: Register,
        /// The result.
        dreg: Register,
        /// As long as `xor`.
        mask: Data,
        /// As long as `mask`.
        xor: Data,
    },
    /// `range`: goes on only if the register lies in the range, or with `negated` outside it.
    Range {
        /// What is compared.
        sreg: Register,
        /// Whether the range is excluded.
        negated: bool,
        /// The lowest value.
        first: Data,
        /// The highest value.
        last: Data,
    },
    /// `ct`: loads something about the packet's flow.
    Ct {
        /// What is loaded.
        key: CtKey,
        /// Where it goes.
        dreg: Register,
    },
    /// `fib saddr . iif oif` with the question whether there is one: loads 1 if the node routes the source of the packet
    /// to the link from which it came, and 0 if not.
    SourceRoute {
        /// Where it goes, four bytes in host order.
        dreg: Register,
    },
    /// `lookup`: goes on only if the set holds the register's value, or with `negated` only if not.
    Lookup {
        /// The set or map.
        set: SetName,
        /// The key.
        sreg: Register,
        /// Where the data of a map goes; [`Register::VERDICT`] for a verdict map.
        dreg: Option<Register>,
        /// Whether the set must not hold the key.
        negated: bool,
    },
    /// `dynset` to update with a limit: puts the register's value into a set, or lets it stay there longer, and goes on as the
    /// limit of that element says.
    Limit {
        /// The set.
        set: SetName,
        /// The key.
        sreg: Register,
        /// The limit of an element that is new.
        limit: Limit,
    },
    /// `log` to a group of NFLOG.
    Log {
        /// What stands in front of the packet.
        prefix: Refusal,
        /// The group.
        group: LogGroup,
        /// How many bytes of the packet are copied.
        snaplen: u32,
    },
    /// `immediate` of data: loads a constant.
    Immediate {
        /// Where it goes.
        dreg: Register,
        /// The constant.
        data: Data,
    },
    /// `immediate` of a verdict.
    Verdict(Verdict),
    /// `counter`, which starts at zero.
    Counter,
    /// `objref` of a counter.
    CounterRef(CounterName),
    /// `reject`
    Reject(RejectWith),
    /// `nat`: translates the source or destination to what is in the registers.
    Nat {
        /// Which end.
        kind: NatKind,
        /// The family of the address.
        family: Family,
        /// Holds the new address; `None` leaves it.
        address: Option<Register>,
        /// Holds the new port, big endian; `None` leaves it.
        port: Option<Register>,
    },
    /// `redir`: translates the destination to this host.
    Redirect {
        /// Holds the new port, big endian; `None` leaves it.
        port: Option<Register>,
    },
    /// `masq`: translates the source to the address of the outgoing link.
    Masquerade,
    /// `numgen`: loads a number from `offset` up to, but not including, `offset + modulus`.
    Numgen {
        /// Where it goes, in host order.
        dreg: Register,
        /// How numbers follow each other.
        kind: NumgenKind,
        /// How many different numbers there are.
        modulus: u32,
        /// The lowest number.
        offset: u32,
    },
}

/// A register, by the kernel's number. 1 to 4 hold 16 bytes each; 8 to 23 are the same storage as words of 4.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Register(pub(crate) u32);

/// `enum nft_meta_keys`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetaKey {
    /// The name of the link by which the packet came: 16 bytes, padded with NUL.
    IifName = 6,
    /// The name of the link by which it leaves.
    OifName = 7,
    /// `NFPROTO_IPV4` (2) or `NFPROTO_IPV6` (10), one byte.
    NfProto = 15,
    /// The number of the transport protocol, one byte.
    L4Proto = 16,
}

/// `enum nft_payload_bases`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Base {
    /// The header of Ethernet.
    Link = 0,
    /// The header of IPv4 or IPv6.
    Network = 1,
    /// The header of TCP, UDP, SCTP or ICMP.
    Transport = 2,
}

/// `enum nft_cmp_ops`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CmpOp {
    /// Equal.
    Eq = 0,
    /// Not equal.
    Neq = 1,
    /// Less, bytes compared from the left.
    Lt = 2,
    /// Less or equal.
    Lte = 3,
    /// Greater.
    Gt = 4,
    /// Greater or equal.
    Gte = 5,
}

/// `enum nft_ct_keys`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CtKey {
    /// One bit for each state, four bytes in host order.
    State = 0,
    /// `IP_CT_DIR_ORIGINAL` (0) or `IP_CT_DIR_REPLY` (1), one byte.
    Direction = 1,
    /// `IPS_*` of `linux/netfilter/nf_conntrack_common.h`, four bytes in host order.
    Status = 2,
}

/// What the sender of a refused packet is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RejectWith {
    /// `NFT_REJECT_TCP_RST`
    TcpReset,
    /// `NFT_REJECT_ICMPX_UNREACH` with a code of `enum nft_reject_inet_code`.
    Icmpx(u8),
}

/// `enum nft_nat_types`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NatKind {
    /// `snat`
    Source = 0,
    /// `dnat`
    Destination = 1,
}

/// `enum nft_ng_types`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NumgenKind {
    /// In turn.
    Incremental = 0,
    /// At random.
    Random = 1,
}

/// The value of a constant: at most 16 bytes, as many as a register holds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Data {
    bytes: [u8; Data::MAX],
    len: u8,
}

// === impl Register ===

impl Register {
    /// `NFT_REG_VERDICT`: what is loaded here decides about the packet.
    pub const VERDICT: Register = Register(0);
    /// `NFT_REG_1`
    pub const R1: Register = Register(1);
    /// `NFT_REG_2`
    pub const R2: Register = Register(2);
    /// `NFT_REG_3`
    pub const R3: Register = Register(3);
    /// `NFT_REG_4`
    pub const R4: Register = Register(4);

    /// The word at `offset` bytes (a multiple of 4 below 64) from the start of [`Register::R1`], under the number
    /// that `nft` and the kernel's dumps give it: where a register of 16 bytes begins, that register's.
    pub(crate) const fn at(offset: u32) -> Register {
        if offset.is_multiple_of(16) { Register(1 + offset / 16) } else { Register(8 + offset / 4) }
    }
}

// === impl Data ===

impl Data {
    /// The most that a constant holds, in bytes.
    pub const MAX: usize = 16;

    /// A constant of these bytes; `None` where they are more than [`Data::MAX`].
    pub fn new(value: &[u8]) -> Option<Data> {
        let mut bytes = [0; Data::MAX];
        bytes.get_mut(..value.len())?.copy_from_slice(value);
        Some(Data { bytes, len: u8::try_from(value.len()).ok()? })
    }

    /// A constant of an array, whose length the compiler checks.
    pub fn of<const N: usize>(value: [u8; N]) -> Data {
        const { assert!(N <= Data::MAX, "a constant holds at most 16 bytes") };
        Data::new(&value).expect("the length is checked above")
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl std::fmt::Debug for Data {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:02x?}", self.as_slice())
    }
}

#[cfg(test)]
mod tests;
