//! What opens the gate comes last, in a transaction of its own.
//!
//! A packet is looked up in the base chain's maps first, and at the gate afterwards. One that is between the two when the
//! kernel switches generations was not yet isolated at the first, and would be known at the second: it would pass whatever
//! policies say. So whose address it is, or whose link, is told once the rules of the pod have been there for a generation.
//! The other way round there is no such care: the gate shuts behind who goes.

use std::sync::Arc;

use super::next::Changes;
use crate::nft::{Set, Table, opens_gate};

/// The target without what opens the gate; `None` if nothing does, or nothing else is left to do.
pub(super) fn target(target: &Table, changes: &Changes<'_>) -> Option<Table> {
    let is_last = changes.maps.is_empty()
        && changes.chains.is_empty()
        && changes.sets.iter().all(|change| opens_gate(change.name));
    if is_last {
        return None;
    }
    let mut shut = None;
    for change in changes.sets.iter().filter(|change| opens_gate(change.name)) {
        let (Some(old), Some(new)) = (change.old, change.new) else { continue };
        let stays = new.keys.iter().filter(|key| old.keys.binary_search(key).is_ok()).copied().collect::<Vec<_>>();
        if stays.len() < new.keys.len() {
            let set = Set { keys: Arc::new(stays), ..Set::clone(new) };
            shut.get_or_insert_with(|| target.clone()).sets.insert(change.name.clone(), Arc::new(set));
        }
    }
    shut
}
