//! What we believe the kernel holds.

use super::Transaction;
use crate::nft::Table;

/// The kernel's counter of committed ruleset changes, of all tables of the network namespace. It wraps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Generation(pub u32);

/// What we believe the kernel holds of our table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    /// The table, or `None` where the kernel has none.
    pub table: Option<Table>,
    /// The generation at which that was true.
    pub generation: Generation,
    /// Something in the kernel's table that is not in our vocabulary: a rule that somebody else wrote, a set of
    /// a type that we never use, an object of another version of postern. The names of the chains, sets and
    /// objects in question. Where there is any, the table is replaced as a whole.
    pub foreign: Vec<String>,
}

impl Mirror {
    /// Takes over the desired table where [`next`](super::next) found nothing to do: it says the same, and shares its
    /// parts with what the compiler makes next, which the next comparison passes over.
    pub fn settled(&mut self, desired: Table) {
        self.table = Some(desired);
    }

    /// Takes over what a committed transaction did.
    pub fn committed(&mut self, transaction: Transaction, generation: Generation) {
        self.table = transaction.result;
        self.generation = generation;
        self.foreign.clear();
    }
}
