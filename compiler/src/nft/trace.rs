//! A packet's way through the table, step by step.
//!
//! The tracer walks the same typed rules that the codec sends to the kernel, and says which of them decided. It
//! knows every statement that postern writes, by exhaustive match.

use std::net::IpAddr;

use super::{
    Chain, ChainName, ChainPolicy, CtState, EtherType, Family, Field, Key, Match, Rule, SetName, Stmt, Table, Verdict,
};
use crate::api::{LinkName, PortRange, Protocol};

/// A packet as a hook sees it: after DNAT, before SNAT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TracedPacket {
    /// The address of the sender.
    pub source: IpAddr,
    /// The address of the receiver, of the same family.
    pub destination: IpAddr,
    /// What is inside.
    pub payload: Payload,
    /// How many more routers it may pass: the hop limit of IPv6, or the time to live of IPv4.
    pub hop_limit: u8,
    /// What connection tracking says of its flow; `None` for the first packet of one.
    pub state: Option<CtState>,
    /// Whether it goes the other way than the first packet of its flow.
    pub is_reply: bool,
    /// The port of the sender in host order, where the protocol has ports and it is known.
    pub source_port: Option<u16>,
    /// The link from which it came, if that is known.
    pub link: Option<LinkName>,
    /// Whether the node routes its source to another link than that.
    pub is_astray: bool,
    /// The link by which it leaves, if that is known.
    pub exit: Option<LinkName>,
    /// What its frame begins with, if that is a tag.
    pub tag: Option<EtherType>,
}

/// What is inside a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Payload {
    /// A segment or datagram, with the port of the receiver in host order.
    Port(Protocol, u16),
    /// ICMP with type and code (RFC 792).
    Icmp(u8, u8),
    /// ICMPv6 with type and code (RFC 4443).
    Icmpv6(u8, u8),
}

/// What became of a packet in one base chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    /// Whether the base chain lets it pass.
    pub accepted: bool,
    /// The rules that matched, in order: the last one decided. Where none did, the policy of the base chain decided.
    pub steps: Vec<Step>,
}

/// A rule that matched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The chain.
    pub chain: ChainName,
    /// The rule's place in it, from 0.
    pub rule: usize,
}

/// Walks a packet through one base chain of table `inet`. `None` where the table has no such base chain.
pub fn trace(table: &Table, base_chain: &str, packet: &TracedPacket) -> Option<Trace> {
    trace_in(table, &ChainName::from_kernel(base_chain), packet)
}

/// Walks a packet through one base chain of either table. `None` where there is no such base chain.
pub fn trace_in(table: &Table, name: &ChainName, packet: &TracedPacket) -> Option<Trace> {
    let chain = table.chains.get(name)?;
    let policy = chain.base?.policy;
    let mut walk = Walk { table, packet, steps: Vec::new() };
    let accepted = match walk.chain(name, chain, 0) {
        Outcome::Accept => true,
        Outcome::Drop => false,
        Outcome::Continue => policy == ChainPolicy::Accept,
    };
    Some(Trace { accepted, steps: walk.steps })
}

/// The kernel refuses deeper jumps (`NFT_JUMP_STACK_SIZE`), so no table that it took goes further.
const DEEPEST: usize = 16;

struct Walk<'a> {
    table: &'a Table,
    packet: &'a TracedPacket,
    steps: Vec<Step>,
}

/// What came out of a chain or a rule.
enum Outcome {
    Accept,
    Drop,
    /// Undecided: the next rule, or, at the end of a chain, whoever jumped there.
    Continue,
}

/// What a rule that matched does.
enum Effect<'a> {
    NoMatch,
    /// Matched, and decides nothing.
    Counted,
    Reject,
    Verdict(&'a Verdict),
}

impl<'a> Walk<'a> {
    fn chain(&mut self, name: &ChainName, chain: &'a Chain, depth: usize) -> Outcome {
        if depth > DEEPEST {
            return Outcome::Drop;
        }
        for (index, rule) in chain.rules.iter().enumerate() {
            let effect = self.rule(rule);
            if !matches!(effect, Effect::NoMatch) {
                self.steps.push(Step { chain: name.clone(), rule: index });
            }
            let verdict = match effect {
                Effect::NoMatch | Effect::Counted => continue,
                Effect::Reject => return Outcome::Drop,
                Effect::Verdict(verdict) => verdict,
            };
            let (target, comes_back) = match verdict {
                Verdict::Accept => return Outcome::Accept,
                Verdict::Drop => return Outcome::Drop,
                Verdict::Return => return Outcome::Continue,
                Verdict::Jump(target) => (target, true),
                Verdict::Goto(target) => (target, false),
            };
            let outcome = match self.table.chains.get(target) {
                Some(chain) => self.chain(target, chain, depth + 1),
                // The kernel never holds such a reference.
                None => Outcome::Drop,
            };
            match outcome {
                Outcome::Continue if comes_back => {}
                Outcome::Continue | Outcome::Accept | Outcome::Drop => return outcome,
            }
        }
        Outcome::Continue
    }

    fn rule(&self, rule: &'a Rule) -> Effect<'a> {
        for stmt in &rule.stmts {
            match stmt {
                Stmt::Match(condition) if self.matches(condition) => {}
                Stmt::Match(_) => return Effect::NoMatch,
                Stmt::Counter | Stmt::CounterName(_) | Stmt::Log(..) => {}
                Stmt::Reject(_) => return Effect::Reject,
                Stmt::Verdict(verdict) => return Effect::Verdict(verdict),
                Stmt::VerdictMap(field, map) => {
                    let element = self.key(*field).and_then(|key| self.table.maps.get(map)?.find(&key));
                    return element.map_or(Effect::NoMatch, |element| Effect::Verdict(&element.verdict));
                }
            }
        }
        Effect::Counted
    }

    fn matches(&self, condition: &Match) -> bool {
        match condition {
            Match::CtState(states) => self.packet.state.is_some_and(|state| states.contains(&state)),
            Match::In(field, set) => self.key(*field).is_some_and(|key| self.set_contains(set, key)),
            Match::NotIn(field, set) => self.key(*field).is_some_and(|key| !self.set_contains(set, key)),
            // A packet is the first of its kind: no limit has been reached.
            Match::Limit(field, _, limit) => self.key(*field).is_some() && !limit.over,
            Match::Protocol(protocol) => self.port_of(*protocol).is_some(),
            Match::Port(protocol, range) => self.port_of(*protocol).is_some_and(|port| range.contains(port)),
            Match::PortIn(protocol, set) => {
                self.port_of(*protocol).is_some_and(|port| self.set_contains(set, Key::Ports(PortRange::single(port))))
            }
            Match::Icmpv6Type(first, last) => match self.packet.payload {
                Payload::Icmpv6(kind, _) => (*first..=*last).contains(&kind),
                Payload::Port(..) | Payload::Icmp(..) => false,
            },
            Match::HopLimit(hops) => self.packet.source.is_ipv6() && self.packet.hop_limit == *hops,
            Match::Original => !self.packet.is_reply,
            Match::LinkLocalSource => match self.packet.source {
                IpAddr::V6(source) => source.is_unicast_link_local(),
                IpAddr::V4(_) => false,
            },
            Match::SourceIs(address) => self.packet.source == *address,
            Match::SourceAstray => self.packet.is_astray,
            Match::EtherType(kind) => {
                *kind == self.packet.tag.unwrap_or_else(|| EtherType::of(Family::of(self.packet.source)))
            }
        }
    }

    fn port_of(&self, protocol: Protocol) -> Option<u16> {
        match self.packet.payload {
            Payload::Port(of_packet, port) if of_packet == protocol => Some(port),
            Payload::Port(..) | Payload::Icmp(..) | Payload::Icmpv6(..) => None,
        }
    }

    /// The key under which a packet is looked up, if it has the field.
    fn key(&self, field: Field) -> Option<Key> {
        let packet = self.packet;
        let key = match field {
            Field::Source(_) => Key::address(packet.source),
            Field::Destination(_) => Key::address(packet.destination),
            Field::Endpoint(_) => match packet.payload {
                Payload::Port(protocol, port) => Key::endpoint(packet.destination, protocol, port),
                Payload::Icmp(..) | Payload::Icmpv6(..) => return None,
            },
            Field::Pair(_) => match (packet.source, packet.destination) {
                (IpAddr::V4(source), IpAddr::V4(destination)) => Key::V4Pair(source, destination),
                (IpAddr::V6(source), IpAddr::V6(destination)) => Key::V6Pair(source, destination),
                (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return None,
            },
            Field::Flow(_) => match packet.payload {
                Payload::Port(protocol, port) => {
                    Key::flow(packet.source, packet.destination, protocol, packet.source_port?, port)?
                }
                Payload::Icmp(..) | Payload::Icmpv6(..) => return None,
            },
            Field::InputLink => Key::Link(packet.link?),
            Field::OutputLink => Key::Link(packet.exit?),
        };
        (key.key_type() == field.key_type()).then_some(key)
    }

    /// Whether a set holds a key, or a range that holds it.
    fn set_contains(&self, set: &SetName, key: Key) -> bool {
        let Some(set) = self.table.sets.get(set) else { return false };
        // Keys are sorted and do not overlap: the only candidate is the last that starts at or below the key.
        let after = set.keys.partition_point(|candidate| candidate.bounds().0 <= key);
        after.checked_sub(1).is_some_and(|at| key <= set.keys[at].bounds().1)
    }
}

#[cfg(test)]
mod tests;
