//! The whole table.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Chain, ChainName, CounterName, Set, SetName, VerdictMap};

/// The name of the one table that postern owns, in family `inet`.
pub const TABLE: &str = "postern";

/// Everything in table `inet postern`, by name.
///
/// Sets and verdict maps share one name space in the kernel; they are kept apart here because nothing treats
/// them alike. Objects are shared by reference: a compile that changes one set leaves every other `Arc` as it
/// was, and the diff passes over those without looking inside.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table {
    /// Named counters. Their values are the kernel's business.
    pub counters: BTreeSet<CounterName>,
    /// Sets, by name.
    pub sets: BTreeMap<SetName, Arc<Set>>,
    /// Verdict maps, by name.
    pub maps: BTreeMap<SetName, Arc<VerdictMap>>,
    /// Base chains and regular chains, by name.
    pub chains: BTreeMap<ChainName, Arc<Chain>>,
}
