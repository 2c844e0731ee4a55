//! A way of many transactions.

use super::{Limits, Mirror, Transaction, next};
use crate::nft::Table;

/// How many transactions it is to the next milestone, more or less. To find one costs as much as there is left to do in
/// all, and each transaction on the way as much as there is left to do up to there.
const TRANSACTIONS_A_MILESTONE: usize = 16;

/// The way from a mirror to a desired table, and what is remembered of it between two transactions.
///
/// The memory only saves work: where the table is to become another than before, or the mirror shows something else than
/// the last transaction should have left, the way is found anew.
#[derive(Debug, Default)]
pub struct Way {
    remembered: Option<Remembered>,
}

#[derive(Debug)]
struct Remembered {
    desired: Table,
    /// A table that may stand, on the way to the desired one.
    milestone: Table,
    /// What the kernel holds after the last transaction.
    reached: Option<Table>,
}

impl Way {
    /// The next transaction, or `None` where the desired table is reached. It is one that [`next`] might give, and is
    /// found faster where there are many to come.
    pub fn next(&mut self, desired: &Table, mirror: &Mirror, limits: Limits) -> Option<Transaction> {
        if let Some(mut known) = self.remembered.take_if(|known| known.is_valid(desired, mirror))
            && let Some(transaction) = next(&known.milestone, mirror, limits)
        {
            known.reached = transaction.result().cloned();
            self.remembered = Some(known);
            return Some(transaction);
        }
        let far = Limits { weight: limits.weight.saturating_mul(TRANSACTIONS_A_MILESTONE), ..limits };
        let milestone = next::milestone(desired, mirror, far);
        let transaction = next(milestone.as_ref().unwrap_or(desired), mirror, limits)?;
        self.remembered = milestone.map(|milestone| Remembered {
            desired: desired.clone(),
            milestone,
            reached: transaction.result().cloned(),
        });
        Some(transaction)
    }
}

impl Remembered {
    fn is_valid(&self, desired: &Table, mirror: &Mirror) -> bool {
        let is_reached = match (&self.reached, &mirror.table) {
            (Some(reached), Some(table)) => reached.is_same(table),
            (_, None) | (None, _) => false,
        };
        is_reached && mirror.foreign.is_empty() && self.desired.is_same(desired)
    }
}
