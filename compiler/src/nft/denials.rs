//! What is told of refused packets: the beginning of some of them, to whoever listens to a group of NFLOG.
//!
//! ```text
//! deny-egress -> log-egress: a pair of addresses that is not known, and its pod has had its share: not told
//!                         -> a pair that has not had its share: told
//!                         -> not told, and counted
//! ```
//!
//! It is bounded in the kernel, by two shares: a pair of source and destination may be told of so often, and a pod, or a
//! link where addresses can be chosen, brings in so many pairs that are new. So whoever floods, from however many addresses,
//! uses up what is its own. Sets that are full, and a kernel without a listener, only mean that less is told: a packet is
//! refused whether or not.

use std::sync::Arc;

use super::skeleton::{denied_counter, refused_source_counter, rule};
use super::{
    Chain, ChainName, Comment, CounterName, EtherType, Family, Field, Filled, KeyType, Limit, Match, Rule, Set,
    SetName, Stmt, Table, TableFamily, Verdict, lower, refused_gate_counter,
};
use crate::api::Direction;

/// How many bytes of a packet are copied: the longest header of IPv4 (60) with that of TCP (20) fits, and that of IPv6 with
/// some extensions.
pub const SNAPLEN: u32 = 128;
/// What a pair of addresses is told of.
const OF_A_PAIR: Limit = Limit { over: false, a_minute: 20, burst: 10 };
/// How many new pairs an end brings in. With [`FORGOTTEN`] it has less than twice as many in a set, so that 250 pods, all of
/// them noisy, do not fill one.
const NEW_PAIRS: Limit = Limit { over: true, a_minute: 30, burst: 30 };
/// After how many seconds without a packet a pair, or an end, is forgotten.
const FORGOTTEN: u32 = 60;
/// The most pairs and ends; one takes some 200 bytes of the kernel's memory.
const MOST: u32 = 16_384;

/// A group of NFLOG (`linux/netfilter/nfnetlink_log.h`). Whoever listens to it gets what is logged to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogGroup(pub u16);

/// Why a packet is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Refusal {
    /// A pod is isolated in this direction, and no rule allows it; or its flow is cut.
    Policy(Direction),
    /// An address of the node's pod ranges that no pod is known to have: the source on egress, the destination on ingress.
    Gate(Direction),
    /// The source is not that of the pod behind the link.
    Source,
    /// The source is not that of the pod behind the port of a bridge.
    PortSource,
    /// By the port of an isolated pod, and for no pod's address.
    Destination,
    /// From a link-local address by the port of a pod that is isolated for egress.
    LinkLocal,
    /// A frame with a VLAN tag.
    Tag,
}

impl Default for LogGroup {
    /// The number of the agent's port, which no other program is known to use.
    fn default() -> LogGroup {
        LogGroup(9471)
    }
}

impl Refusal {
    /// All of them.
    pub const ALL: [Refusal; 9] = [
        Refusal::Policy(Direction::Ingress),
        Refusal::Policy(Direction::Egress),
        Refusal::Gate(Direction::Ingress),
        Refusal::Gate(Direction::Egress),
        Refusal::Source,
        Refusal::PortSource,
        Refusal::Destination,
        Refusal::LinkLocal,
        Refusal::Tag,
    ];

    /// What stands in front of what is logged, `postern: policy ingress`: no other reason has it.
    pub fn prefix(self) -> &'static str {
        match self {
            Refusal::Policy(Direction::Ingress) => "postern: policy ingress",
            Refusal::Policy(Direction::Egress) => "postern: policy egress",
            Refusal::Gate(Direction::Ingress) => "postern: gate ingress",
            Refusal::Gate(Direction::Egress) => "postern: gate egress",
            Refusal::Source => "postern: source",
            Refusal::PortSource => "postern: source on bridge",
            Refusal::Destination => "postern: destination on bridge",
            Refusal::LinkLocal => "postern: link-local on bridge",
            Refusal::Tag => "postern: tag on bridge",
        }
    }

    /// The reason that logs with this prefix.
    pub fn of_prefix(prefix: &str) -> Option<Refusal> {
        Refusal::ALL.into_iter().find(|refusal| refusal.prefix() == prefix)
    }

    /// What is refused: what a pod sends, or what is sent to it.
    pub fn direction(self) -> Direction {
        match self {
            Refusal::Policy(direction) | Refusal::Gate(direction) => direction,
            Refusal::Source | Refusal::PortSource | Refusal::LinkLocal | Refusal::Tag => Direction::Egress,
            Refusal::Destination => Direction::Ingress,
        }
    }

    /// In one word: `policy`, `gate`, `source`, `destination`, `link-local` or `tag`.
    pub fn reason(self) -> &'static str {
        match self {
            Refusal::Policy(_) => "policy",
            Refusal::Gate(_) => "gate",
            Refusal::Source | Refusal::PortSource => "source",
            Refusal::Destination => "destination",
            Refusal::LinkLocal => "link-local",
            Refusal::Tag => "tag",
        }
    }

    /// Counts every packet that is refused for this reason.
    pub fn counter(self) -> CounterName {
        match self {
            Refusal::Policy(direction) => denied_counter(direction),
            Refusal::Gate(_) => refused_gate_counter(),
            Refusal::Source => refused_source_counter(),
            Refusal::PortSource => lower::refused_port_source_counter(),
            Refusal::Destination => lower::refused_destination_counter(),
            Refusal::LinkLocal => lower::refused_link_local_counter(),
            Refusal::Tag => lower::refused_tag_counter(),
        }
    }

    fn table(self) -> TableFamily {
        match self {
            Refusal::Policy(_) | Refusal::Gate(_) | Refusal::Source => TableFamily::Inet,
            Refusal::PortSource | Refusal::Destination | Refusal::LinkLocal | Refusal::Tag => TableFamily::Bridge,
        }
    }

    fn chain(self) -> ChainName {
        let name = match self {
            Refusal::Policy(Direction::Ingress) => "log-ingress",
            Refusal::Policy(Direction::Egress) => "log-egress",
            Refusal::Gate(Direction::Ingress) => "log-gate-ingress",
            Refusal::Gate(Direction::Egress) => "log-gate-egress",
            Refusal::Source | Refusal::PortSource => "log-source",
            Refusal::Destination => "log-destination",
            Refusal::LinkLocal => "log-link-local",
            Refusal::Tag => "log-tag",
        };
        ChainName::in_table(self.table(), name)
    }

    /// What brings in new pairs: the local pod by the address of its own, where that is known to be its own; else the link
    /// from which the packet came.
    fn end(self, family: Family) -> Field {
        match self {
            Refusal::Policy(Direction::Ingress) => Field::Destination(family),
            Refusal::Policy(Direction::Egress) => Field::Source(family),
            Refusal::Gate(_)
            | Refusal::Source
            | Refusal::PortSource
            | Refusal::Destination
            | Refusal::LinkLocal
            | Refusal::Tag => Field::InputLink,
        }
    }
}

/// The counter of refused packets that were not told of, because of too many.
pub fn unlogged_counter(family: TableFamily) -> CounterName {
    CounterName::in_table(family, "denials-unlogged")
}

/// What ends a rule whose packets are refused for a reason: it is counted, told of if there is a group, and dropped.
pub(super) fn refuse(refusal: Refusal, log: Option<LogGroup>) -> [Stmt; 2] {
    let end = if log.is_some() { Verdict::Goto(refusal.chain()) } else { Verdict::Drop };
    [Stmt::CounterName(refusal.counter()), Stmt::Verdict(end)]
}

/// The rule that tells of a packet and comes back, for those that are not simply dropped.
pub(super) fn tell(refusal: Refusal) -> Rule {
    rule([Stmt::Verdict(Verdict::Jump(refusal.chain()))], None)
}

/// Adds what all the chains of [`add_log`] of a family share.
pub(super) fn add_shares(table: &mut Table, family: TableFamily, log: Option<LogGroup>) {
    if log.is_some() {
        table.sets.extend(sets(family).into_iter().map(|(name, set)| (name, Arc::new(set))));
        table.counters.insert(unlogged_counter(family));
    }
}

/// Adds the chain to which [`refuse`] or [`tell`] leads.
pub(super) fn add_log(table: &mut Table, refusal: Refusal, log: Option<LogGroup>) {
    let Some(group) = log else { return };
    let comment = Some(Comment::new("tells of some of the packets that are refused"));
    table.chains.insert(refusal.chain(), Arc::new(Chain { base: None, comment, rules: log_rules(refusal, group) }));
}

fn log_rules(refusal: Refusal, group: LogGroup) -> Vec<Rule> {
    let end = match refusal {
        Refusal::Policy(_) => Verdict::Return,
        Refusal::Gate(_)
        | Refusal::Source
        | Refusal::PortSource
        | Refusal::Destination
        | Refusal::LinkLocal
        | Refusal::Tag => Verdict::Drop,
    };
    let table = refusal.table();
    let unlogged = [Stmt::CounterName(unlogged_counter(table)), Stmt::Verdict(end.clone())];
    let log = [Stmt::Log(refusal, group), Stmt::Verdict(end)];
    let of = |conditions: Vec<Match>, end: &[Stmt]| {
        let conditions = conditions.into_iter().map(Stmt::Match);
        rule(conditions.chain(end.iter().cloned()), None)
    };
    let by = |field: Field| Match::Limit(field, ends_set(table, field), NEW_PAIRS);
    if refusal == Refusal::Tag {
        // What is behind a tag has no addresses that could be looked at.
        return vec![of(vec![by(Field::InputLink)], &unlogged), of(Vec::new(), &log)];
    }
    let mut rules = Vec::new();
    for family in Family::ALL {
        let of_family = || match table {
            TableFamily::Inet => Vec::new(),
            TableFamily::Bridge => vec![Match::EtherType(EtherType::of(family))],
        };
        let (pair, pairs) = (Field::Pair(family), pairs_set(table, family));
        let is_new = || [of_family(), vec![Match::NotIn(pair, pairs.clone())]].concat();
        if (refusal, family) == (Refusal::Policy(Direction::Egress), Family::V6) {
            // A pod may have any of these, and so as many as it likes.
            let by_link = vec![Match::LinkLocalSource, by(Field::InputLink)];
            rules.push(of([is_new(), by_link].concat(), &unlogged));
        }
        rules.push(of([is_new(), vec![by(refusal.end(family))]].concat(), &unlogged));
        rules.push(of([of_family(), vec![Match::Limit(pair, pairs, OF_A_PAIR)]].concat(), &log));
    }
    rules.push(of(Vec::new(), &unlogged));
    rules
}

/// The sets that packets fill. Both shares are counted in sets of their own, since a key keeps the limit with which it came.
fn sets(table: TableFamily) -> Vec<(SetName, Set)> {
    let filled = |key_type, text| {
        let filled = Some(Filled { size: MOST, timeout: FORGOTTEN });
        Set { key_type, comment: Some(Comment::new(text)), keys: Arc::default(), filled }
    };
    let mut sets = Vec::new();
    for family in Family::ALL {
        sets.push((pairs_set(table, family), filled(KeyType::Pair(family), "refused lately, and told of so often")));
        if table == TableFamily::Inet {
            let name = ends_set(table, Field::Source(family));
            sets.push((name, filled(KeyType::Address(family), "pods, by the new pairs that they brought in")));
        }
    }
    let name = ends_set(table, Field::InputLink);
    sets.push((name, filled(KeyType::Link, "links, by the new pairs that they brought in")));
    sets
}

fn pairs_set(table: TableFamily, family: Family) -> SetName {
    SetName::in_table(table, &format!("denials-{family}"))
}

fn ends_set(table: TableFamily, end: Field) -> SetName {
    let name = match end {
        Field::Source(family) | Field::Destination(family) => format!("denials-pods-{family}"),
        Field::Endpoint(_) | Field::Pair(_) | Field::Flow(_) | Field::InputLink | Field::OutputLink => {
            "denials-links".to_owned()
        }
    };
    SetName::in_table(table, &name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nft::{Deny, Lowerer};
    use crate::testing::{ir, pod, policy};

    fn table(group: Option<LogGroup>) -> Table {
        let ir = ir([
            policy("a/deny").selects("app=shut").ingress([]).into(),
            pod("a/shut").labels("app=shut").ip("10.1.0.1").into(),
        ]);
        Lowerer::new(Deny::Drop).logging(group).lower(&ir)
    }

    fn chain(table: &Table, name: &str) -> Vec<String> {
        table.chains[&ChainName::from_kernel(name)].rules.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_refused_packet_is_told_of_before_it_is_dropped() {
        let table = table(Some(LogGroup(77)));
        let denied = "counter name \"denied-ingress\"";
        assert_eq!(chain(&table, "deny-ingress"), ["jump exempt", denied, "jump log-ingress", "drop"]);
        let unlogged = "counter name \"denials-unlogged\" return";
        let log = "log prefix \"postern: policy ingress\" group 77 snaplen 128 return";
        let new = |ip, v| {
            format!(
                "{ip} saddr . {ip} daddr != @denials-{v} update @denials-pods-{v} {{ {ip} daddr limit rate over \
                 30/minute burst 30 packets }} {unlogged}"
            )
        };
        let pair = |ip, v| {
            format!("update @denials-{v} {{ {ip} saddr . {ip} daddr limit rate 20/minute burst 10 packets }} {log}")
        };
        let due = [new("ip", "v4"), pair("ip", "v4"), new("ip6", "v6"), pair("ip6", "v6"), unlogged.to_owned()];
        assert_eq!(chain(&table, "log-ingress"), due);
        let sets: Vec<&str> = table.sets.keys().map(SetName::as_str).filter(|name| name.starts_with("den")).collect();
        assert_eq!(sets, ["denials-links", "denials-pods-v4", "denials-pods-v6", "denials-v4", "denials-v6"]);
    }

    #[test]
    fn without_a_group_nothing_is_told() {
        let text = table(None).to_string();
        assert!(!text.contains("log") && !text.contains("denials"), "{text}");
    }

    #[test]
    fn a_prefix_has_one_reason_and_fits_the_kernel() {
        for refusal in Refusal::ALL {
            // `NF_LOG_PREFIXLEN` of `linux/netfilter/nf_log.h` is 128, with the closing NUL.
            assert!(refusal.prefix().len() < 128);
            assert_eq!(Refusal::of_prefix(refusal.prefix()), Some(refusal));
        }
        assert_eq!(Refusal::of_prefix("postern: "), None);
    }
}
