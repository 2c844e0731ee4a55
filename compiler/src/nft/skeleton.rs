//! What every table has, whatever the policies say: base chains, dispatch maps, and what no policy may block.

use std::sync::Arc;

use super::{
    BaseChain, Chain, ChainName, ChainPolicy, Comment, CounterName, CtState, Family, Field, Hook, Match, Reject, Rule,
    SetName, Stmt, Table, Verdict,
};
use crate::api::{Direction, Protocol};

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

/// Adds the chains and counters that every table has. The dispatch maps and the sets of pairs, to which they refer,
/// are the caller's to fill.
///
/// There are two base chains on the forward hook, one a direction, because `accept` ends a base chain only: a packet
/// between two pods of this node that egress has let pass still meets the ingress rules of the other pod. Both see
/// the packet after DNAT and before SNAT. A pod's packets to its own node meet the input hook instead; packets of the
/// node to its own pods meet neither, and so always pass, as the API demands for the kubelet's probes.
pub(super) fn add_to(table: &mut Table, deny: Deny) {
    let forward = |priority| BaseChain { hook: Hook::Forward, priority, policy: ChainPolicy::Accept };
    let input = BaseChain { hook: Hook::Input, priority: 0, policy: ChainPolicy::Accept };
    let base_chains = [
        ("egress", forward(0), Direction::Egress, "what local pods may send"),
        ("ingress", forward(1), Direction::Ingress, "what may reach local pods"),
        ("to-node", input, Direction::Egress, "what local pods may send to this node"),
    ];
    for (name, base, direction, comment) in base_chains {
        table.chains.insert(ChainName::fixed(name), Arc::new(base_chain(base, direction, comment)));
    }
    for direction in Direction::ALL {
        table.counters.insert(denied_counter(direction));
        table.chains.insert(deny_chain(direction), Arc::new(deny_rules(direction, deny)));
    }
    table.chains.insert(ChainName::fixed(EXEMPT), Arc::new(exempt()));
}

/// The chain of what no policy may block.
const EXEMPT: &str = "exempt";

/// `ct state established,related accept`, then one look-up a family.
fn base_chain(base: BaseChain, direction: Direction, comment: &str) -> Chain {
    let local_end = |family| match direction {
        Direction::Ingress => Field::Destination(family),
        Direction::Egress => Field::Source(family),
    };
    let known_flow = Match::CtState(vec![CtState::Established, CtState::Related]);
    let mut rules = vec![rule([Stmt::Match(known_flow), Stmt::Verdict(Verdict::Accept)], None)];
    for family in Family::ALL {
        rules.push(rule([Stmt::VerdictMap(local_end(family), dispatch_map(direction, family))], None));
    }
    Chain { base: Some(base), comment: Some(Comment::new(comment)), rules }
}

/// What no rule has allowed. The exemptions are looked at here, so that allowed packets do not pay for them.
fn deny_rules(direction: Direction, deny: Deny) -> Chain {
    let mut rules = vec![
        rule([Stmt::Verdict(Verdict::Jump(ChainName::fixed(EXEMPT)))], None),
        rule([Stmt::CounterName(denied_counter(direction))], None),
    ];
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
/// Errors, those of path-MTU discovery among them, are `related` to the flow that they are about; one that is about none
/// could carry anything.
fn exempt() -> Chain {
    let accept = |conditions: &[Match], why| {
        let conditions = conditions.iter().cloned().map(Stmt::Match);
        rule(conditions.chain([Stmt::Verdict(Verdict::Accept)]), Some(why))
    };
    let mut rules = vec![accept(&[Match::HopLimit(255), Match::Icmpv6Type(133, 137)], "neighbour discovery")];
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
