//! A way of many transactions.

use super::next::{self, Step};
use super::{Limits, Mirror, Transaction};
use crate::nft::Table;

/// How many transactions it is to the next milestone, more or less. To find one costs as much as there is left to do in
/// all, and each transaction on the way as much as there is left to do up to there.
const TRANSACTIONS_A_MILESTONE: usize = 16;

/// The way from a mirror to a desired table, and what is remembered of it between two transactions.
///
/// Where chains have gone ahead, the transaction that leads to them comes next, whatever is desired by then: else one who
/// changes something at every turn would have chains go ahead for ever, while nobody's change takes effect. The same goes
/// for a chain that is half way to its new rules, and for a gate that is still shut. The rest of the memory only saves work: where the table is to become another than before, or the mirror shows something else than
/// the last transaction should have left, the way is found anew.
#[derive(Debug, Default)]
pub struct Way {
    begun: Option<Begun>,
    remembered: Option<Remembered>,
}

/// What a transaction has begun.
#[derive(Debug)]
struct Begun {
    target: Table,
    /// What the kernel holds after that transaction.
    reached: Option<Table>,
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
    /// The next transaction, or `None` where the desired table is reached. It is one that [`next`](super::next) might give,
    /// or ends what such a one has begun, and is found faster where there are many to come.
    pub fn next(&mut self, desired: &Table, mirror: &Mirror, limits: Limits) -> Option<Transaction> {
        let begun = self.begun.take().filter(|begun| is_at(begun.reached.as_ref(), mirror));
        let known = self.remembered.take().filter(|known| is_at(known.reached.as_ref(), mirror));
        let known = known.filter(|known| known.desired.is_same(desired));
        let step_to = |target: &Table| next::step(target, mirror, limits);
        let (step, remembered) = if let Some(step) = begun.and_then(|begun| step_to(&begun.target)) {
            (step, known)
        } else if let Some(known) = known
            && let Some(step) = step_to(&known.milestone)
        {
            (step, Some(known))
        } else {
            let far = Limits { weight: limits.weight.saturating_mul(TRANSACTIONS_A_MILESTONE), ..limits };
            let milestone = next::milestone(desired, mirror, far);
            let step = step_to(milestone.as_ref().unwrap_or(desired))?;
            let remember = |milestone| Remembered { desired: desired.clone(), milestone, reached: None };
            (step, milestone.map(remember))
        };
        let Step { transaction, begun } = step;
        let reached = transaction.result();
        self.begun = begun.map(|target| Begun { target, reached: reached.cloned() });
        self.remembered = remembered.map(|known| Remembered { reached: reached.cloned(), ..known });
        Some(transaction)
    }
}

/// Whether the mirror shows what a transaction should have left.
fn is_at(reached: Option<&Table>, mirror: &Mirror) -> bool {
    let shows = |reached: &Table| mirror.table.as_ref().is_some_and(|table| reached.is_same(table));
    mirror.foreign.is_empty() && reached.is_some_and(shows)
}
