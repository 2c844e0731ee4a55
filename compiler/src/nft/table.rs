//! The whole table.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use imbl::OrdMap;

use super::{Chain, ChainName, CounterName, Set, SetName, VerdictMap};

/// The name of the tables that postern owns.
pub const TABLE: &str = "postern";

/// The family of a table, which says whose packets meet its hooks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TableFamily {
    /// Packets of IPv4 and IPv6 that the node routes, sends or receives, and those that `br_netfilter` shows it.
    Inet,
    /// Frames that a bridge passes from one of its ports to another.
    Bridge,
}

/// Everything in table `inet postern`, and in table `bridge postern` if there is one, by name.
///
/// A name says in which of the two it stands; those of `bridge` come last. Table `bridge postern` is there if something
/// is in it.
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

impl TableFamily {
    /// Both.
    pub const ALL: [TableFamily; 2] = [TableFamily::Inet, TableFamily::Bridge];
}

impl fmt::Display for TableFamily {
    /// `inet` or `bridge`, as nft has it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TableFamily::Inet => "inet",
            TableFamily::Bridge => "bridge",
        })
    }
}

impl Table {
    /// Whether something is in table `bridge postern`.
    pub fn has_bridge(&self) -> bool {
        let Table { counters, sets, maps, chains } = self;
        let last = [
            counters.last().map(CounterName::family),
            sets.get_max().map(|(name, _)| name.family()),
            maps.get_max().map(|(name, _)| name.family()),
            chains.get_max().map(|(name, _)| name.family()),
        ];
        last.contains(&Some(TableFamily::Bridge))
    }

    /// Whether this is a copy of the other and neither has changed since, by a look at no object. Tables that are equal by
    /// chance are not the same.
    pub fn is_same(&self, other: &Table) -> bool {
        let same_objects =
            self.sets.ptr_eq(&other.sets) && self.maps.ptr_eq(&other.maps) && self.chains.ptr_eq(&other.chains);
        same_objects && self.counters == other.counters
    }
}
