//! The next transaction.

use super::{Mirror, Transaction};
use crate::nft::Table;

/// What one transaction may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The most keys that are loaded into sets in one transaction, as far as the sets are not referred to yet.
    pub chunk: usize,
    /// Whether a chain must be deleted in a later transaction than the map element that led to it. Kernels before
    /// 6.2 release the reference late and would refuse with EBUSY.
    pub defer_chain_delete: bool,
}

/// The next transaction from the mirror to the desired table, or `None` where they are equal.
pub fn next(_desired: &Table, _mirror: &Mirror, _limits: Limits) -> Option<Transaction> {
    None
}
