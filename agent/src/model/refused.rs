//! What besides policies refuses a packet, in words.

use compiler::api::{Direction, LinkName};
use compiler::nft::trace::Trace;
use compiler::nft::{Refusal, Stmt, Table};
use compiler::policy::Packet;

use super::Way;

/// Why the rules of a table refuse what they refused: by the counter that they counted it with.
pub(super) fn refusal(table: &Table, trace: &Trace) -> Option<Refusal> {
    let counted = trace.steps.iter().rev().flat_map(|step| {
        let chain = table.chains.get(&step.chain);
        let rule = chain.and_then(|chain| chain.rules.get(step.rule));
        rule.into_iter().flat_map(|rule| &rule.stmts)
    });
    let counters = counted.filter_map(|stmt| match stmt {
        Stmt::CounterName(name) => Some(name),
        Stmt::Match(_) | Stmt::Counter | Stmt::Log(..) | Stmt::Reject(_) | Stmt::Verdict(_) | Stmt::VerdictMap(..) => {
            None
        }
    });
    counters.into_iter().find_map(|name| Refusal::ALL.into_iter().find(|refusal| refusal.counter() == *name))
}

/// Who refuses it, and why, where it is not a policy.
pub(super) fn in_words(refusal: Refusal, packet: &Packet, way: &Way) -> Option<String> {
    let Packet { source, destination, protocol: _ } = packet;
    let name = |link: Option<_>| link.map_or_else(|| "its port".to_owned(), |link: LinkName| link.to_string());
    Some(match refusal {
        Refusal::Policy(_) => return None,
        Refusal::Gate(direction) => {
            let address = match direction {
                Direction::Egress => source,
                Direction::Ingress => destination,
            };
            format!("the gate: {address} is of the addresses of this node's pods, and no pod is known to have it (yet)")
        }
        Refusal::Source => format!(
            "the rule of own addresses: the node does not route {source} to {}, the pod's link, so that it passes for forged",
            name(way.link)
        ),
        Refusal::PortSource => format!(
            "the rule of own addresses on bridges: {source} is none of the addresses of the pod behind {}",
            name(way.from_port)
        ),
        Refusal::Destination => {
            format!("the bridge: what leaves by {} must be for the address of a pod", name(way.to_port))
        }
        Refusal::LinkLocal => {
            format!("the bridge: nothing may come from link-local addresses by {}", name(way.from_port))
        }
        Refusal::Tag => "the bridge: tagged frames do not pass".to_owned(),
    })
}
