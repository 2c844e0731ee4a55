//! Rules and their statements: the closed list of what postern ever writes.
//!
//! A new variant must break the printer, the encoder, the decoder and the tracer at compile time, so none of
//! them has a wildcard arm.

use std::net::IpAddr;

use super::{ChainName, Comment, CounterName, Family, KeyType, LogGroup, Refusal, SetName};
use crate::api::{PortRange, Protocol};

/// One rule: statements from left to right; the first match that fails ends it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rule {
    /// Matches first, then counters, then what ends the rule.
    pub stmts: Vec<Stmt>,
    /// Shown by `nft list` behind the rule.
    pub comment: Option<Comment>,
}

/// One statement of a rule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stmt {
    /// Goes on only if the packet matches.
    Match(Match),
    /// `counter`: counts packets and bytes that come this far.
    Counter,
    /// `counter name "x"`: the same in a named counter.
    CounterName(CounterName),
    /// `log prefix "..." group 9471 snaplen 128`: a copy of the packet's beginning for who listens to the group.
    Log(Refusal, LogGroup),
    /// Drops the packet and tells its sender.
    Reject(Reject),
    /// Ends the rule.
    Verdict(Verdict),
    /// `<field> vmap @map`: ends the rule with the verdict of the element, or goes on if there is none.
    VerdictMap(Field, SetName),
}

/// A condition on a packet.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Match {
    /// `ct state established,related`, or whichever of them are listed. Never empty, in the order of the enum.
    CtState(Vec<CtState>),
    /// `ip saddr @set`, `ip daddr . meta l4proto . th dport @set` and the like.
    In(Field, SetName),
    /// `ip saddr . ip daddr != @set`: the packet has the field, and the set does not hold it.
    NotIn(Field, SetName),
    /// `update @set { ip saddr . ip daddr limit rate 20/minute burst 10 packets }`: remembers in a set that packets fill, and
    /// goes on by a limit that each key has for itself. Where the set is full, it does not go on.
    Limit(Field, SetName, Limit),
    /// `meta l4proto tcp`: any port.
    Protocol(Protocol),
    /// `tcp dport 80`, `tcp dport 80-90`.
    Port(Protocol, PortRange),
    /// `tcp dport @set`, where the set holds port ranges.
    PortIn(Protocol, SetName),
    /// `icmpv6 type 133`, `icmpv6 type 133-137`: first and last type, inclusive (RFC 4443, RFC 4861).
    Icmpv6Type(u8, u8),
    /// `ip6 hoplimit 255` (RFC 8200).
    HopLimit(u8),
    /// `ct direction original`: the packet goes the way of the first packet of its flow. One that belongs to no flow does
    /// not.
    Original,
    /// `ip6 saddr fe80::/10` (RFC 4291, section 2.5.6).
    LinkLocalSource,
    /// `ip saddr 10.0.0.2`, `ip6 saddr ::`
    SourceIs(IpAddr),
    /// `fib saddr . iif oif missing`: the node does not route the source to the link from which the packet came.
    SourceAstray,
    /// `ether type ip`. In table `bridge` it stands in front of every look at addresses.
    EtherType(EtherType),
}

/// How many packets there may be, by a bucket of tokens that starts full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Limit {
    /// Whether those go on that are too many, and not those that are not.
    pub over: bool,
    /// How many tokens come in a minute; at least one.
    pub a_minute: u32,
    /// How many tokens there are at most.
    pub burst: u32,
}

/// What a frame carries, as the kernel shows it before any tag is taken off. The numbers are IEEE 802's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum EtherType {
    /// IPv4, untagged.
    V4 = 0x0800,
    /// IPv6, untagged.
    V6 = 0x86dd,
    /// A tag of IEEE 802.1Q.
    CustomerTag = 0x8100,
    /// A tag of IEEE 802.1ad.
    ServiceTag = 0x88a8,
}

/// A state of connection tracking.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CtState {
    /// The flow has seen packets of both directions.
    Established,
    /// Belongs to a flow that another one announced, or is an error about a known flow.
    Related,
}

/// The part of a packet that is looked up in a set or map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Field {
    /// `ip saddr`, `ip6 saddr`
    Source(Family),
    /// `ip daddr`, `ip6 daddr`
    Destination(Family),
    /// `ip daddr . meta l4proto . th dport`, and the same with `ip6`: an address with protocol and port.
    Endpoint(Family),
    /// `ip saddr . ip daddr`, and the same with `ip6`.
    Pair(Family),
    /// `ip saddr . ip daddr . meta l4proto . th sport . th dport`, and the same with `ip6`.
    Flow(Family),
    /// `iifname`: the link from which the packet came; in table `bridge` the port.
    InputLink,
    /// `oifname`: the link by which it leaves; in table `bridge` the port.
    OutputLink,
}

impl EtherType {
    /// All of them.
    pub const ALL: [EtherType; 4] = [EtherType::V4, EtherType::V6, EtherType::CustomerTag, EtherType::ServiceTag];

    /// Untagged frames of a family.
    pub fn of(family: Family) -> EtherType {
        match family {
            Family::V4 => EtherType::V4,
            Family::V6 => EtherType::V6,
        }
    }

    /// The family whose packets it is; `None` for a tag.
    pub fn family(self) -> Option<Family> {
        Family::ALL.into_iter().find(|family| EtherType::of(*family) == self)
    }
}

impl Field {
    /// The type of the keys of a set in which this field is looked up.
    pub fn key_type(self) -> KeyType {
        match self {
            Field::Source(family) | Field::Destination(family) => KeyType::Address(family),
            Field::Endpoint(family) => KeyType::Endpoint(family),
            Field::Pair(family) => KeyType::Pair(family),
            Field::Flow(family) => KeyType::Flow(family),
            Field::InputLink | Field::OutputLink => KeyType::Link,
        }
    }
}

/// How a refused packet is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reject {
    /// `reject with tcp reset`
    TcpReset,
    /// `reject with icmpx admin-prohibited`: ICMP or ICMPv6, whichever fits.
    AdminProhibited,
}

/// What becomes of the packet, or where its evaluation goes on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Ends this base chain; later base chains still see the packet.
    Accept,
    /// Ends everything.
    Drop,
    /// Goes on after the jump that led here.
    Return,
    /// Goes to a chain and comes back.
    Jump(ChainName),
    /// Goes to a chain and does not come back.
    Goto(ChainName),
}
