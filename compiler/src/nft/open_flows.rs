//! Rules about flows that are open already, in front of the one that lets them pass.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::skeleton::{deny_chain, dispatch_map, rule};
use super::{Chain, ChainName, Comment, CtState, Family, Field, Key, Match, Rule, Set, SetName, Stmt, Table, Verdict};
use crate::api::Direction;

/// Adds the rules and sets to a table that has the base chains. What there is nothing to say about gets no rule, so that
/// packets pay only while there is something.
pub(crate) fn add_open_flows(table: &mut Table, rejudged: impl Iterator<Item = IpAddr>, cut: &BTreeSet<Key>) {
    let mut addresses: BTreeMap<Family, Vec<Key>> = BTreeMap::new();
    for address in rejudged {
        addresses.entry(Family::of(address)).or_default().push(Key::address(address));
    }
    let mut flows: BTreeMap<Family, Vec<Key>> = BTreeMap::new();
    for key in cut {
        let both = [Some(*key), key.reverse()].into_iter().flatten();
        flows.entry(if matches!(key, Key::V4Flow(..)) { Family::V4 } else { Family::V6 }).or_default().extend(both);
    }
    let chains = [("egress", Direction::Egress), ("ingress", Direction::Ingress), ("to-node", Direction::Egress)];
    for (name, direction) in chains {
        let name = ChainName::fixed(name);
        let Some(chain) = table.chains.get(&name) else { continue };
        let mut rules = Vec::new();
        // One look at each packet is enough, and all that is forwarded meets this chain.
        if direction == Direction::Egress {
            let is_to_node = name.as_str() == "to-node";
            rules.extend(flows.keys().map(|family| cut_rule(*family, is_to_node)));
        }
        rules.extend(addresses.keys().map(|family| rejudged_rule(*family, direction)));
        rules.extend(chain.rules.iter().cloned());
        table.chains.insert(name, Arc::new(Chain { rules, ..Chain::clone(chain) }));
    }
    let mut add = |name: SetName, comment: &str, mut keys: Vec<Key>| {
        keys.sort_unstable();
        keys.dedup();
        let Some(key_type) = keys.first().map(Key::key_type) else { return };
        let comment = Some(Comment::new(comment));
        table.sets.insert(name, Arc::new(Set { key_type, comment, keys: Arc::new(keys), filled: None }));
    };
    for (family, keys) in addresses {
        add(rejudged_set(family), "pods whose open flows are judged again", keys);
    }
    for (family, keys) in flows {
        add(cut_set(family), "open flows that are not allowed any more, both ways", keys);
    }
}

/// The table without these rules and sets: what is the same whatever was in force before.
pub fn without_open_flows(table: &Table) -> Table {
    let mut plain = table.clone();
    let is_about_flows = |name: &SetName| name.is_of_cut_flows() || name.is_of_rejudged();
    for name in table.sets.keys().filter(|name| is_about_flows(name)) {
        plain.sets.remove(name);
    }
    let looks_flows_up = |rule: &Rule| {
        rule.stmts.iter().any(|stmt| matches!(stmt, Stmt::Match(Match::In(_, set)) if is_about_flows(set)))
    };
    for (name, chain) in table.chains.iter().filter(|(_, chain)| chain.rules.iter().any(looks_flows_up)) {
        let rules = chain.rules.iter().filter(|rule| !looks_flows_up(rule)).cloned().collect();
        plain.chains.insert(name.clone(), Arc::new(Chain { rules, ..Chain::clone(chain) }));
    }
    plain
}

/// What a cut flow's ends send is refused. The node may always send to its pods, and they may answer.
fn cut_rule(family: Family, is_to_node: bool) -> Rule {
    let original = is_to_node.then_some(Stmt::Match(Match::Original));
    let cut = Stmt::Match(Match::In(Field::Flow(family), cut_set(family)));
    let refuse = Stmt::Verdict(Verdict::Goto(deny_chain(Direction::Egress)));
    rule(original.into_iter().chain([cut, refuse]), None)
}

/// The first sender's packets carry in this hook the ends that policies mean, as the first one did: they are before any
/// translation of the source, and after that of the destination.
fn rejudged_rule(family: Family, direction: Direction) -> Rule {
    let local_end = match direction {
        Direction::Ingress => Field::Destination(family),
        Direction::Egress => Field::Source(family),
    };
    let conditions =
        [Match::CtState(vec![CtState::Established]), Match::Original, Match::In(local_end, rejudged_set(family))];
    let conditions = conditions.into_iter().map(Stmt::Match);
    rule(conditions.chain([Stmt::VerdictMap(local_end, dispatch_map(direction, family))]), None)
}

/// The set of the addresses whose open flows are judged again.
fn rejudged_set(family: Family) -> SetName {
    SetName::fixed(&format!("rejudged-{family}"))
}

/// The set of the flows that are cut.
fn cut_set(family: Family) -> SetName {
    SetName::fixed(&format!("cut-{family}"))
}

impl SetName {
    /// Whether this is a set of flows that are cut.
    pub(crate) fn is_of_cut_flows(&self) -> bool {
        Family::ALL.iter().any(|family| *self == cut_set(*family))
    }

    /// Whether this is a set of addresses whose open flows are judged again.
    pub(crate) fn is_of_rejudged(&self) -> bool {
        Family::ALL.iter().any(|family| *self == rejudged_set(*family))
    }
}

#[cfg(test)]
mod tests;
