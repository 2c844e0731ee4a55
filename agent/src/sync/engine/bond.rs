//! The connection, and what is believed of the kernel behind it.

use std::fmt;
use std::time::Instant;

use compiler::diff::{self, Generation, Limits, Mirror, Op, Transaction, Way};
use compiler::nft::Table;
use netlink::{Claim, Error};
use tracing::{debug, info, warn};

use crate::kernel::Kernel;
use crate::metrics::{CommitResult, SyncMetrics};

/// A connection, and what we believe it holds.
pub(super) struct Bond<K> {
    pub(super) kernel: K,
    pub(super) mirror: Mirror,
    /// From there to what is desired.
    pub(super) way: Way,
    /// Whose the table was when it was last asked for.
    claim: Claim,
}

// === impl Bond ===

impl<K: Kernel> Bond<K> {
    /// Claims the table and reads it.
    pub(super) fn new(mut kernel: K) -> Result<Bond<K>, Error> {
        let claim = kernel.adopt()?;
        let mirror = kernel.dump()?;
        if claim == Claim::Foreign {
            warn!("somebody else made or changed table inet postern: what is in it is not believed but replaced");
        }
        Ok(Bond { kernel, mirror, way: Way::default(), claim })
    }

    /// Nobody else can edit the table.
    pub(super) fn is_protected(&self) -> bool {
        self.claim == Claim::Owned
    }

    /// Whether the kernel enforces something, be it of an earlier life. A table of somebody else may enforce nothing at
    /// all, so that nothing is to wait for its sake.
    pub(super) fn has_rules(&self) -> bool {
        let Mirror { table, foreign, generation: _ } = &self.mirror;
        let has_rules = !foreign.is_empty() || table.as_ref().is_some_and(|table| !table.chains.is_empty());
        has_rules && self.claim != Claim::Foreign
    }

    /// Commits a transaction for so many events, or gives it back with the error.
    pub(super) fn commit(
        &mut self,
        transaction: Transaction,
        events: usize,
        clock: &impl Fn() -> Instant,
        metrics: &SyncMetrics,
    ) -> Result<(), Box<(Error, Transaction)>> {
        match self.send(&transaction, events, clock, metrics) {
            Ok(generation) => {
                self.mirror.committed(transaction, generation);
                Ok(())
            }
            Err(error) => Err(Box::new((error, transaction))),
        }
    }

    fn send(
        &mut self,
        transaction: &Transaction,
        events: usize,
        clock: &impl Fn() -> Instant,
        metrics: &SyncMetrics,
    ) -> Result<Generation, Error> {
        // Nobody else can edit a protected table, so it does not matter that others edited theirs.
        let base = if self.is_protected() { None } else { Some(self.mirror.generation) };
        debug!(commands = %transaction, "committing");
        let begun = clock();
        let ops = transaction.ops().len();
        let result = self.kernel.commit(transaction, base);
        let duration = clock().saturating_duration_since(begun);
        let outcome = match &result {
            Ok(_) => CommitResult::Ok,
            Err(error) if error.is_restart() => CommitResult::Restart,
            Err(_) => CommitResult::Error,
        };
        metrics.commit(outcome, ops, duration);
        let committed = result?;
        info!(ops, bytes = committed.bytes, ?duration, generation = committed.generation.0, events, "committed");
        if transaction.ops().iter().any(|op| matches!(op, Op::AddTable(_))) {
            self.claim = self.kernel.adopt()?;
        }
        Ok(committed.generation)
    }

    /// Whether somebody may have edited the table since it was last read.
    pub(super) fn may_have_drifted(&mut self) -> bool {
        // An error here comes again in the check, or is gone by then.
        !self.is_protected() && self.kernel.generation().is_ok_and(|now| now != self.mirror.generation)
    }

    /// Reads the table back and returns what would undo the edits of others, if there are any.
    pub(super) fn reread(&mut self, limits: Limits) -> Result<Option<Transaction>, Error> {
        let mut found = self.kernel.dump()?;
        let believed = self.mirror.table.take();
        let nothing = Table::default();
        let drift = match &believed {
            Some(table) => diff::next(table, &found, limits),
            // Where there was no table, any that is there now was made by somebody else.
            None => found.table.as_ref().and_then(|_| diff::next(&nothing, &found, limits)),
        };
        if let (None, Some(table)) = (&drift, believed) {
            found.settled(table);
        }
        self.mirror = found;
        Ok(drift)
    }
}

/// The objects that a transaction touches, as the log shows them.
pub(super) struct Objects<'a>(pub(super) &'a Transaction);

impl fmt::Display for Objects<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 5;
        let ops = self.0.ops();
        let shown: Vec<String> = ops.iter().take(SHOWN).map(ToString::to_string).collect();
        f.write_str(&shown.join(", "))?;
        if ops.len() > SHOWN { write!(f, ", and {} more", ops.len() - SHOWN) } else { Ok(()) }
    }
}
