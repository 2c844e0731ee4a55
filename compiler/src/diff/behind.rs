//! What packets on their way still look into stays behind, for one transaction more.
//!
//! As [`ahead`](super::ahead) says, a packet that is on its way when the kernel switches generations is judged by the
//! rules of before and by the elements of now. A chain that goes has its rules in the generation of before, and so has
//! one whose rules are replaced; but the elements that these look for are gone at once, and who finds none is
//! refused: of the packets that are allowed before and after, now and then one. So a verdict map outlives the chain
//! that looks into it. Where the chain stays and gets other rules, those that lead to more come first, then the
//! elements change, and then those go that lead to too much. All that is met on the way are jumps to the chains of
//! policies, which check everything themselves: to be led to one too many changes no verdict.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::ahead::{chain_of, chains_of};
use super::next::{Change, Changes, differing_elements};
use crate::nft::{Chain, ChainName, Rule, SetName, Table, VerdictMap, sets_of};

/// A table between the kernel's and the one that is aimed at.
pub(super) struct Between {
    pub(super) table: Table,
    /// Whether a chain is half way to its new rules, so that the rest of its way has to come next.
    pub(super) is_half_way: bool,
}

/// The target with what packets on their way may look for; `None` if that has it all.
pub(super) fn target(target: &Table, base: &Table, changes: &Changes<'_>) -> Option<Between> {
    let mut between = Between { table: target.clone(), is_half_way: false };
    let mut wanted = Vec::new();
    for Change { name, old, new } in &changes.chains {
        let Some(old) = old.filter(|old| old.base.is_none()) else { continue };
        let mut lost: Vec<_> = sets_of(old).filter_map(|map| lost(map, base, target)).collect();
        if lost.is_empty() {
            continue;
        }
        if let Some(new) = new {
            between.is_half_way = true;
            let rules = with_more(old, new);
            if rules.len() > old.rules.len() {
                between.table.chains.insert((*name).clone(), Arc::new(Chain { rules, ..Chain::clone(new) }));
            } else {
                // It leads to all that is to come. So much for the elements that change; the maps that go are left.
                let is_gone = |(map, _): &(&SetName, _)| !target.maps.contains_key(*map);
                if !lost.iter().all(is_gone) {
                    between.table.chains.insert((*name).clone(), (*old).clone());
                }
                lost.retain(is_gone);
            }
            wanted.extend(between.table.chains.get(*name).into_iter().flat_map(|chain| chains_of(chain)).cloned());
        }
        for (map, before) in lost {
            wanted.extend(before.elements.values().filter_map(|element| chain_of(&element.verdict)).cloned());
            between.table.maps.insert(map.clone(), before.clone());
        }
    }
    if wanted.is_empty() && !between.is_half_way {
        return None;
    }
    keep_chains(&mut between.table, base, wanted);
    Some(between)
}

/// The kernel's map of this name, if the target has not all of its elements.
fn lost<'a>(name: &'a SetName, base: &'a Table, target: &Table) -> Option<(&'a SetName, &'a Arc<VerdictMap>)> {
    let before = base.maps.get(name)?;
    let has_all = target.maps.get(name).is_some_and(|now| {
        Arc::ptr_eq(before, now) || differing_elements(&before.elements, &now.elements).all(|(_, old, _)| old.is_none())
    });
    (!has_all).then_some((name, before))
}

/// The rules of a chain, and in front of the last one, which refuses, those that are to come.
fn with_more(old: &Chain, new: &Chain) -> Vec<Rule> {
    let Some((last, rules)) = old.rules.split_last() else { return new.rules.clone() };
    let known: BTreeSet<&Rule> = old.rules.iter().collect();
    let more = new.rules.iter().filter(|rule| !known.contains(rule));
    rules.iter().chain(more).chain([last]).cloned().collect()
}

/// Adds what a table lacks of these chains and of all that they refer to.
fn keep_chains(table: &mut Table, base: &Table, mut wanted: Vec<ChainName>) {
    while let Some(name) = wanted.pop() {
        let Some(chain) = base.chains.get(&name).filter(|_| !table.chains.contains_key(&name)) else { continue };
        for set in sets_of(chain) {
            if let Some(before) = base.sets.get(set).filter(|_| !table.sets.contains_key(set)) {
                table.sets.insert(set.clone(), before.clone());
            }
        }
        wanted.extend(chains_of(chain).cloned());
        table.chains.insert(name, chain.clone());
    }
}
