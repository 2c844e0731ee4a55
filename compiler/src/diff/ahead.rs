//! Chains to which an address is about to be led go ahead, in a transaction of their own.
//!
//! A packet learns at its base chain which generation of the rules it is judged by, and at each look-up, a moment later,
//! which generation of the elements counts. One that is on its way when the kernel switches generations is judged by the
//! old rules and finds the new element. By the old rules a chain that comes in the same transaction is empty, and who
//! falls off its end is let through: of the packets to a pod whose policies change, now and then one that every policy
//! forbids. A chain that has been there for a generation has its rules in both.

use super::next::{Changes, differing_elements};
use crate::nft::{Chain, ChainName, Stmt, Table, Verdict, is_gated, sets_of};

/// The kernel's table with the chains that are missing where a key that leads somewhere is to lead elsewhere, and with
/// what these refer to; `None` if none is missing. A key that leads nowhere yet needs no such care, unless the gate has
/// shut out who has it: whoever goes to an empty chain gets past the gate.
pub(super) fn target(desired: &Table, base: &Table, changes: &Changes<'_>) -> Option<Table> {
    let mut missing: Vec<&ChainName> = Vec::new();
    let is_gated = is_gated(base);
    for map in &changes.maps {
        let (Some(old), Some(new)) = (map.old, map.new) else { continue };
        missing.extend(differing_elements(&old.elements, &new.elements).filter_map(|(_, before, now)| {
            let now = now?;
            let needs_care = match before {
                Some(before) => before.verdict != now.verdict,
                None => is_gated && matches!(now.verdict, Verdict::Goto(_)),
            };
            chain_of(&now.verdict).filter(|_| needs_care)
        }));
    }
    missing.retain(|chain| !base.chains.contains_key(*chain));
    if missing.is_empty() {
        return None;
    }
    let mut target = base.clone();
    while let Some(name) = missing.pop() {
        let Some(chain) = desired.chains.get(name).filter(|_| !target.chains.contains_key(name)) else { continue };
        for set in sets_of(chain) {
            if let Some(new) = desired.sets.get(set).filter(|_| !base.sets.contains_key(set)) {
                target.sets.insert(set.clone(), new.clone());
            }
            if let Some(new) = desired.maps.get(set).filter(|_| !base.maps.contains_key(set)) {
                target.maps.insert(set.clone(), new.clone());
                missing.extend(new.elements.values().filter_map(|element| chain_of(&element.verdict)));
            }
        }
        target.chains.insert(name.clone(), chain.clone());
        missing.extend(chains_of(chain));
    }
    target.counters.extend(desired.counters.iter().cloned());
    Some(target)
}

/// The chains to which the rules of a chain lead.
pub(super) fn chains_of(chain: &Chain) -> impl Iterator<Item = &ChainName> {
    chain.rules.iter().flat_map(|rule| &rule.stmts).filter_map(|stmt| match stmt {
        Stmt::Verdict(verdict) => chain_of(verdict),
        Stmt::Match(_)
        | Stmt::Counter
        | Stmt::CounterName(_)
        | Stmt::Log(..)
        | Stmt::Reject(_)
        | Stmt::VerdictMap(..) => None,
    })
}

/// The chain to which a verdict leads.
pub(super) fn chain_of(verdict: &Verdict) -> Option<&ChainName> {
    match verdict {
        Verdict::Jump(chain) | Verdict::Goto(chain) => Some(chain),
        Verdict::Accept | Verdict::Drop | Verdict::Return => None,
    }
}
