//! What every table has, whatever the policies say: base chains, dispatch maps, and what no policy may block.

use std::net::Ipv4Addr;
use std::sync::Arc;

use super::denials::{add_log, add_shares, refuse, tell};
use super::{
    BaseChain, Chain, ChainName, ChainPolicy, Comment, CounterName, CtState, Family, Field, Hook, LogGroup, Match,
    Refusal, Reject, Rule, SetName, Stmt, Table, TableFamily, Verdict,
};
use crate::api::{Direction, PortRange, Protocol};

/// How a packet of an isolated pod that no rule allows is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Deny {
    /// In silence. The sender learns by its own timeout.
    #[default]
    Drop,
    /// With a TCP reset, or ICMP "administratively prohibited".
    Reject,
}

/// The verdict map that leads from the address of a local pod to the chain of its policies.
pub(super) fn dispatch_map(direction: Direction, family: Family) -> SetName {
    SetName::fixed(&format!("{}-pods-{family}", direction.as_str()))
}

/// The chain that refuses.
pub(super) fn deny_chain(direction: Direction) -> ChainName {
    ChainName::fixed(match direction {
        Direction::Ingress => "deny-ingress",
        Direction::Egress => "deny-egress",
    })
}

/// The set of the pairs of every isolated local pod with itself.
pub(super) fn self_set(family: Family) -> SetName {
    SetName::fixed(&format!("self-{family}"))
}

/// The counter of refused packets.
pub fn denied_counter(direction: Direction) -> CounterName {
    CounterName::fixed(match direction {
        Direction::Ingress => "denied-ingress",
        Direction::Egress => "denied-egress",
    })
}

/// Adds the chains and counters that every table has. The base chains, the dispatch maps and the sets of pairs, to which
/// they refer, are the caller's.
pub(super) fn add_to(table: &mut Table, deny: Deny, log: Option<LogGroup>) {
    for direction in Direction::ALL {
        table.counters.insert(denied_counter(direction));
        table.chains.insert(deny_chain(direction), Arc::new(deny_rules(direction, deny, log)));
        add_log(table, Refusal::Policy(direction), log);
    }
    add_shares(table, TableFamily::Inet, log);
    table.counters.insert(refused_source_counter());
    table.chains.insert(ChainName::fixed(EXEMPT), Arc::new(exempt()));
}

/// The base chains, with rules for as much as is known of links.
///
/// There are two base chains on the forward hook, one a direction, because `accept` ends a base chain only: a packet
/// between two pods of this node that egress has let pass still meets the ingress rules of the other pod. Both see
/// the packet after DNAT and before SNAT. A pod's packets to its own node meet the input hook instead; packets of the
/// node to its own pods meet neither, and so always pass, as the API demands for the kubelet's probes.
pub(super) fn base_chains(links: KnownLinks) -> [(ChainName, Arc<Chain>); 3] {
    let forward = |priority| BaseChain { hook: Hook::Forward, priority, policy: ChainPolicy::Accept };
    let input = BaseChain { hook: Hook::Input, priority: 0, policy: ChainPolicy::Accept };
    let base_chains = [
        ("egress", forward(0), Direction::Egress, "what local pods may send"),
        ("ingress", forward(1), Direction::Ingress, "what may reach local pods"),
        ("to-node", input, Direction::Egress, "what local pods may send to this node"),
    ];
    base_chains.map(|(name, base, direction, comment)| {
        (ChainName::fixed(name), Arc::new(base_chain(base, direction, comment, links)))
    })
}

/// Which of the sets and maps by link have anything in them. For what has not there is no rule.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct KnownLinks {
    /// [`checked_links`]
    pub(super) checked: bool,
    /// [`egress_links`]
    pub(super) egress: bool,
    /// [`shared_links`]
    pub(super) shared: bool,
}

/// The set of the links whose packets must have a source that the node routes there.
pub(super) fn checked_links() -> SetName {
    SetName::fixed("links")
}

/// The verdict map from the link of a local pod to the chain of its egress policies.
pub(super) fn egress_links() -> SetName {
    SetName::fixed("egress-links")
}

/// The set of the links behind which there are several pods.
pub(super) fn shared_links() -> SetName {
    SetName::fixed("shared-links")
}

/// The chain that checks sources, and its name.
///
/// Whoever has no address yet has none to show: that is neighbour discovery, and a client of DHCP (RFC 2131, section
/// 4.1). Nothing else comes from the unspecified address, which the kernel finds on every link if it is that of IPv4.
pub(super) fn own_source(log: Option<LogGroup>) -> (ChainName, Arc<Chain>) {
    let to = |conditions: &[Match], end: &[Stmt], why| {
        let conditions = conditions.iter().cloned().map(Stmt::Match);
        rule(conditions.chain(end.iter().cloned()), why)
    };
    let back = [Stmt::Verdict(Verdict::Return)];
    let refuse = refuse(Refusal::Source, log);
    let nobody = Match::SourceIs(Ipv4Addr::UNSPECIFIED.into());
    let dhcp = [nobody.clone(), Match::Port(Protocol::Udp, PortRange::single(DHCP_SERVER))];
    let rules = vec![
        to(&neighbour_discovery(), &back, Some("neighbour discovery")),
        to(&dhcp, &back, Some("DHCP")),
        to(&[nobody], &refuse, None),
        to(&[Match::SourceAstray], &refuse, None),
    ];
    let comment = Some(Comment::new("what a pod sends has a source that the node routes to its link"));
    (own_source_chain(), Arc::new(Chain { base: None, comment, rules }))
}

/// The ports of DHCP servers (RFC 2131, section 4.1, and RFC 8415, section 7.2).
pub(super) const DHCP_SERVER: u16 = 67;
pub(super) const DHCPV6_SERVER: u16 = 547;
/// The listeners of multicast say what they want to hear, to their own link, with a hop limit of 1, by these types of ICMPv6
/// (RFC 2710, section 3, RFC 3810, section 5).
pub(super) const LISTENERS: [(u8, u8); 2] = [(130, 132), (143, 143)];

fn own_source_chain() -> ChainName {
    ChainName::fixed("own-source")
}

/// The counter of packets whose source is not their pod's.
pub fn refused_source_counter() -> CounterName {
    CounterName::fixed("refused-source")
}

/// The chain of what no policy may block.
const EXEMPT: &str = "exempt";

/// `ct state established,related accept`, then one look-up a family.
fn base_chain(base: BaseChain, direction: Direction, comment: &str, links: KnownLinks) -> Chain {
    let local_end = |family| match direction {
        Direction::Ingress => Field::Destination(family),
        Direction::Egress => Field::Source(family),
    };
    let known_flow = Match::CtState(vec![CtState::Established, CtState::Related]);
    let mut rules = vec![rule([Stmt::Match(known_flow), Stmt::Verdict(Verdict::Accept)], None)];
    if direction == Direction::Egress {
        rules.extend(rules_by_link(links));
    }
    for family in Family::ALL {
        rules.push(rule([Stmt::VerdictMap(local_end(family), dispatch_map(direction, family))], None));
    }
    Chain { base: Some(base), comment: Some(Comment::new(comment)), rules }
}

/// A pod is what is behind its link. What has the source of another goes no further; a link-local source, which is nobody's
/// in particular, is judged as the pod's. On a bridge it is not known whose it is, and so it is nobody's.
fn rules_by_link(KnownLinks { checked, egress, shared }: KnownLinks) -> Vec<Rule> {
    let from = |links| Stmt::Match(Match::In(Field::InputLink, links));
    let link_local = || Stmt::Match(Match::LinkLocalSource);
    let mut rules = Vec::new();
    if checked {
        rules.push(rule([from(checked_links()), Stmt::Verdict(Verdict::Jump(own_source_chain()))], None));
    }
    if egress {
        rules.push(rule([link_local(), Stmt::VerdictMap(Field::InputLink, egress_links())], None));
    }
    if shared {
        let refuse = Stmt::Verdict(Verdict::Goto(deny_chain(Direction::Egress)));
        rules.push(rule([link_local(), from(shared_links()), refuse], None));
    }
    rules
}

/// What no rule has allowed. The exemptions are looked at here, so that allowed packets do not pay for them.
fn deny_rules(direction: Direction, deny: Deny, log: Option<LogGroup>) -> Chain {
    let mut rules = vec![
        rule([Stmt::Verdict(Verdict::Jump(ChainName::fixed(EXEMPT)))], None),
        rule([Stmt::CounterName(denied_counter(direction))], None),
    ];
    rules.extend(log.map(|_| tell(Refusal::Policy(direction))));
    match deny {
        Deny::Drop => rules.push(rule([Stmt::Verdict(Verdict::Drop)], None)),
        Deny::Reject => {
            let tcp = Stmt::Match(Match::Protocol(Protocol::Tcp));
            rules.push(rule([tcp, Stmt::Reject(Reject::TcpReset)], None));
            rules.push(rule([Stmt::Reject(Reject::AdminProhibited)], None));
        }
    }
    Chain { base: None, comment: Some(Comment::new("isolated, and no rule allows it")), rules }
}

/// Neighbour discovery never passes a router, and by its hop limit shows that it has not (RFC 4861, section 6.1 and 7.1).
pub(super) fn neighbour_discovery() -> [Match; 2] {
    [Match::HopLimit(255), Match::Icmpv6Type(133, 137)]
}

/// Errors, those of path-MTU discovery among them, are `related` to the flow that they are about; one that is about none
/// could carry anything.
fn exempt() -> Chain {
    let accept = |conditions: &[Match], why| {
        let conditions = conditions.iter().cloned().map(Stmt::Match);
        rule(conditions.chain([Stmt::Verdict(Verdict::Accept)]), Some(why))
    };
    let mut rules = vec![accept(&neighbour_discovery(), "neighbour discovery")];
    for family in Family::ALL {
        rules.push(accept(&[Match::In(Field::Pair(family), self_set(family))], "a pod to itself"));
    }
    Chain { base: None, comment: Some(Comment::new("what no policy may block")), rules }
}

/// A rule of these statements.
pub(super) fn rule(stmts: impl IntoIterator<Item = Stmt>, comment: Option<&str>) -> Rule {
    Rule { stmts: stmts.into_iter().collect(), comment: comment.map(Comment::new) }
}

#[cfg(test)]
mod tests;
