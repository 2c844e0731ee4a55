//! The whole table.

use std::collections::BTreeSet;
use std::sync::Arc;

use imbl::OrdMap;

use super::{Chain, ChainName, CounterName, Set, SetName, VerdictMap};

/// The name of the one table that postern owns, in family `inet`.
pub const TABLE: &str = "postern";

/// Everything in table `inet postern`, by name.
///
/// Sets and verdict maps share one name space in the kernel; they are kept apart here because nothing treats
/// them alike. Objects are shared by reference: a compile that changes one set leaves every other `Arc` as it
/// was, and the diff passes over those without looking inside. The same goes for the maps of names: a copy shares all
/// that has not changed since, so that a table is copied at once, however large.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table {
    /// Named counters. Their values are the kernel's business.
    pub counters: BTreeSet<CounterName>,
    /// Sets, by name.
    pub sets: OrdMap<SetName, Arc<Set>>,
    /// Verdict maps, by name.
    pub maps: OrdMap<SetName, Arc<VerdictMap>>,
    /// Base chains and regular chains, by name.
    pub chains: OrdMap<ChainName, Arc<Chain>>,
}

impl Table {
    /// Whether this is a copy of the other and neither has changed since, by a look at no object. Tables that are equal by
    /// chance are not the same.
    pub fn is_same(&self, other: &Table) -> bool {
        let same_objects =
            self.sets.ptr_eq(&other.sets) && self.maps.ptr_eq(&other.maps) && self.chains.ptr_eq(&other.chains);
        same_objects && self.counters == other.counters
    }
}
