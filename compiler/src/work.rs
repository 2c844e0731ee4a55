//! What work has been done by this thread, for tests that say how much an event may cost.

use std::cell::Cell;

/// A piece of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    /// A selector was tried on a pod.
    SelectorTried,
    /// The rules of a policy were resolved.
    PolicyResolved,
    /// A chain of a policy was lowered.
    ChainLowered,
    /// A set was filled with what a selector means, in one family.
    SetFilled,
    /// What leads to policies by peer was worked out for a group of pods.
    GroupLowered,
    /// One policy of those to which an element leads was written out.
    PolicyLedTo,
    /// An object of the desired table was found not to be as it is in the kernel's.
    ObjectCompared,
}

const KINDS: usize = Work::ObjectCompared as usize + 1;

thread_local!(static DONE: Cell<[usize; KINDS]> = const { Cell::new([0; KINDS]) });

/// Counts one piece.
pub(crate) fn count(work: Work) {
    count_many(work, 1);
}

/// Counts so many.
pub(crate) fn count_many(work: Work, pieces: usize) {
    let mut done = DONE.get();
    done[work as usize] += pieces;
    DONE.set(done);
}

/// How much has been done since the last call.
pub(crate) fn take() -> Done {
    Done(DONE.take())
}

/// How much has been done, by kind.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Done([usize; KINDS]);

impl Done {
    /// Of one kind.
    pub(crate) fn of(self, work: Work) -> usize {
        self.0[work as usize]
    }
}
