//! The table as nft reads and prints it.
//!
//! The text is what `nft -f` takes: counters, sets, maps and chains, each by name. nft puts the declarations of a table
//! in order before it sends them, so that a map may lead to a chain that stands further down. It is not what
//! `nft list` prints to the letter, which has the kernel's order and the values of counters.

use std::fmt;

use super::{
    BaseChain, Chain, ChainName, ChainPolicy, CtState, EtherType, Family, Field, Filled, Hook, Key, KeyType, Limit,
    LogGroup, Match, Reject, Rule, SNAPLEN, Set, SetName, Stmt, TABLE, Table, TableFamily, Verdict, VerdictMap,
};
use crate::api::Protocol;

impl fmt::Display for Table {
    /// `table inet postern { ... }`, and `table bridge postern { ... }` if there is one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_table(f, self, TableFamily::Inet)?;
        if self.has_bridge() {
            writeln!(f)?;
            write_table(f, self, TableFamily::Bridge)?;
        }
        Ok(())
    }
}

fn write_table(f: &mut fmt::Formatter<'_>, table: &Table, family: TableFamily) -> fmt::Result {
    writeln!(f, "table {family} {TABLE} {{")?;
    for counter in table.counters.iter().filter(|name| name.family() == family) {
        writeln!(f, "    counter {counter} {{ }}")?;
    }
    for (name, set) in table.sets.iter().filter(|(name, _)| name.family() == family) {
        write_set(f, name, set)?;
    }
    for (name, map) in table.maps.iter().filter(|(name, _)| name.family() == family) {
        write_map(f, name, map)?;
    }
    for (name, chain) in table.chains.iter().filter(|(name, _)| name.family() == family) {
        write_chain(f, name, chain)?;
    }
    writeln!(f, "}}")
}

fn write_set(f: &mut fmt::Formatter<'_>, name: &SetName, set: &Set) -> fmt::Result {
    writeln!(f, "\n    set {name} {{")?;
    writeln!(f, "        type {}", set.key_type)?;
    if set.key_type.is_interval() {
        writeln!(f, "        flags interval")?;
    }
    if let Some(Filled { size, timeout }) = set.filled {
        writeln!(f, "        size {size}")?;
        writeln!(f, "        flags dynamic,timeout")?;
        writeln!(f, "        timeout {timeout}s")?;
    }
    if let Some(comment) = &set.comment {
        writeln!(f, "        comment \"{comment}\"")?;
    }
    write_elements(f, set.keys.iter().map(ToString::to_string))?;
    writeln!(f, "    }}")
}

fn write_map(f: &mut fmt::Formatter<'_>, name: &SetName, map: &VerdictMap) -> fmt::Result {
    writeln!(f, "\n    map {name} {{")?;
    writeln!(f, "        type {} : verdict", map.key_type)?;
    if map.key_type.is_interval() {
        writeln!(f, "        flags interval")?;
    }
    if let Some(comment) = &map.comment {
        writeln!(f, "        comment \"{comment}\"")?;
    }
    let elements = map.elements.iter().map(|(key, element)| match &element.comment {
        Some(comment) => format!("{key} comment \"{comment}\" : {}", element.verdict),
        None => format!("{key} : {}", element.verdict),
    });
    write_elements(f, elements)?;
    writeln!(f, "    }}")
}

/// `elements = { ... }`, one a line; nothing where there are none.
fn write_elements(f: &mut fmt::Formatter<'_>, elements: impl Iterator<Item = String>) -> fmt::Result {
    let elements: Vec<String> = elements.collect();
    if elements.is_empty() {
        return Ok(());
    }
    writeln!(f, "        elements = {{\n            {}\n        }}", elements.join(",\n            "))
}

fn write_chain(f: &mut fmt::Formatter<'_>, name: &ChainName, chain: &Chain) -> fmt::Result {
    writeln!(f, "\n    chain {name} {{")?;
    if let Some(comment) = &chain.comment {
        writeln!(f, "        comment \"{comment}\"")?;
    }
    if let Some(base) = &chain.base {
        writeln!(f, "        {base}")?;
    }
    for rule in &chain.rules {
        writeln!(f, "        {rule}")?;
    }
    writeln!(f, "    }}")
}

impl fmt::Display for BaseChain {
    /// `type filter hook forward priority 0; policy accept;`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hook = match self.hook {
            Hook::Prerouting => "prerouting",
            Hook::Input => "input",
            Hook::Forward => "forward",
        };
        let policy = match self.policy {
            ChainPolicy::Accept => "accept",
            ChainPolicy::Drop => "drop",
        };
        write!(f, "type filter hook {hook} priority {}; policy {policy};", self.priority)
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, stmt) in self.stmts.iter().enumerate() {
            write!(f, "{}{stmt}", if i == 0 { "" } else { " " })?;
        }
        match &self.comment {
            Some(comment) => write!(f, " comment \"{comment}\""),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Stmt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Stmt::Match(condition) => condition.fmt(f),
            Stmt::Counter => f.write_str("counter"),
            Stmt::CounterName(name) => write!(f, "counter name \"{name}\""),
            Stmt::Log(refusal, LogGroup(group)) => {
                write!(f, "log prefix \"{}\" group {group} snaplen {SNAPLEN}", refusal.prefix())
            }
            Stmt::Reject(Reject::TcpReset) => f.write_str("reject with tcp reset"),
            Stmt::Reject(Reject::AdminProhibited) => f.write_str("reject with icmpx admin-prohibited"),
            Stmt::Verdict(verdict) => verdict.fmt(f),
            Stmt::VerdictMap(field, map) => write!(f, "{field} vmap @{map}"),
        }
    }
}

impl fmt::Display for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Match::CtState(states) => {
                let names: Vec<&str> = states
                    .iter()
                    .map(|state| match state {
                        CtState::Established => "established",
                        CtState::Related => "related",
                    })
                    .collect();
                write!(f, "ct state {}", names.join(","))
            }
            Match::In(field, set) => write!(f, "{field} @{set}"),
            Match::NotIn(field, set) => write!(f, "{field} != @{set}"),
            Match::Limit(field, set, limit) => write!(f, "update @{set} {{ {field} {limit} }}"),
            Match::Protocol(protocol) => write!(f, "meta l4proto {}", nft_protocol(*protocol)),
            Match::Port(protocol, range) => write!(f, "{} dport {range}", nft_protocol(*protocol)),
            Match::PortIn(protocol, set) => write!(f, "{} dport @{set}", nft_protocol(*protocol)),
            Match::Icmpv6Type(first, last) if first == last => write!(f, "icmpv6 type {first}"),
            Match::Icmpv6Type(first, last) => write!(f, "icmpv6 type {first}-{last}"),
            Match::HopLimit(hops) => write!(f, "ip6 hoplimit {hops}"),
            Match::Original => f.write_str("ct direction original"),
            Match::LinkLocalSource => f.write_str("ip6 saddr fe80::/10"),
            Match::SourceIs(address) => write!(f, "{} {address}", Field::Source(Family::of(*address))),
            Match::SourceAstray => f.write_str("fib saddr . iif oif missing"),
            Match::EtherType(kind) => write!(f, "ether type {kind}"),
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Limit { over, a_minute, burst } = self;
        let over = if *over { "over " } else { "" };
        write!(f, "limit rate {over}{a_minute}/minute burst {burst} packets")
    }
}

impl fmt::Display for EtherType {
    /// As nft has it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            EtherType::V4 => "ip",
            EtherType::V6 => "ip6",
            EtherType::CustomerTag => "8021q",
            EtherType::ServiceTag => "8021ad",
        })
    }
}

fn nft_protocol(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Sctp => "sctp",
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ip = |family: &Family| match family {
            Family::V4 => "ip",
            Family::V6 => "ip6",
        };
        match self {
            Field::Source(family) => write!(f, "{} saddr", ip(family)),
            Field::Destination(family) => write!(f, "{} daddr", ip(family)),
            Field::Endpoint(family) => write!(f, "{} daddr . meta l4proto . th dport", ip(family)),
            Field::Pair(family) => write!(f, "{0} saddr . {0} daddr", ip(family)),
            Field::Flow(family) => write!(f, "{0} saddr . {0} daddr . meta l4proto . th sport . th dport", ip(family)),
            Field::InputLink => f.write_str("iifname"),
            Field::OutputLink => f.write_str("oifname"),
        }
    }
}

impl fmt::Display for KeyType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let addr = |family: &Family| match family {
            Family::V4 => "ipv4_addr",
            Family::V6 => "ipv6_addr",
        };
        match self {
            KeyType::Address(family) | KeyType::AddressRange(family) => f.write_str(addr(family)),
            KeyType::PortRange => f.write_str("inet_service"),
            KeyType::Endpoint(family) => write!(f, "{} . inet_proto . inet_service", addr(family)),
            KeyType::Pair(family) => write!(f, "{0} . {0}", addr(family)),
            KeyType::Flow(family) => write!(f, "{0} . {0} . inet_proto . inet_service . inet_service", addr(family)),
            KeyType::Link => f.write_str("ifname"),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Key::V4(address) => address.fmt(f),
            Key::V6(address) => address.fmt(f),
            Key::V4Range(first, last) => write_range(f, first, last),
            Key::V6Range(first, last) => write_range(f, first, last),
            Key::Ports(range) => range.fmt(f),
            Key::V4Endpoint(address, protocol, port) => write!(f, "{address} . {} . {port}", nft_protocol(*protocol)),
            Key::V6Endpoint(address, protocol, port) => write!(f, "{address} . {} . {port}", nft_protocol(*protocol)),
            Key::V4Pair(source, destination) => write!(f, "{source} . {destination}"),
            Key::V6Pair(source, destination) => write!(f, "{source} . {destination}"),
            Key::V4Flow(source, destination, protocol, from, to) => {
                write!(f, "{source} . {destination} . {} . {from} . {to}", nft_protocol(*protocol))
            }
            Key::V6Flow(source, destination, protocol, from, to) => {
                write!(f, "{source} . {destination} . {} . {from} . {to}", nft_protocol(*protocol))
            }
            Key::Link(name) => write!(f, "\"{name}\""),
        }
    }
}

fn write_range<T: fmt::Display + PartialEq>(f: &mut fmt::Formatter<'_>, first: &T, last: &T) -> fmt::Result {
    if first == last { write!(f, "{first}") } else { write!(f, "{first}-{last}") }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Accept => f.write_str("accept"),
            Verdict::Drop => f.write_str("drop"),
            Verdict::Return => f.write_str("return"),
            Verdict::Jump(chain) => write!(f, "jump {chain}"),
            Verdict::Goto(chain) => write!(f, "goto {chain}"),
        }
    }
}

#[cfg(test)]
mod tests;
