//! nf_tables in memory, as far as postern uses it: atomic, and as strict as the kernel.
//!
//! A transaction is taken over as a whole or refused with the errno that the kernel gives for it. What it holds is kept
//! in shapes of its own, so that a fault in the diff's idea of the kernel cannot hide here. Where kernels differ in
//! what they let pass, the strictest is imitated.
//!
//! Source: `net/netfilter/nf_tables_api.c`, and what was tried on Linux 6.18.

mod content;
mod references;

use std::fmt;

use content::Content;

use crate::diff::{Generation, Mirror, Op, Transaction};

/// The nf_tables of one network namespace, with at most the tables of postern in it.
#[derive(Debug, Clone)]
pub struct Kernel {
    table: Option<Content>,
    generation: u32,
    release: Release,
}

/// When a deleted element of a verdict map lets go of the chain that it led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Release {
    /// At once: Linux 6.2 and later.
    AtOnce,
    /// When the transaction has ended: before 6.2.
    AfterCommit,
}

/// Why the kernel refuses an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Errno {
    /// There is no such table, chain, set, counter or key.
    Enoent,
    /// It is there already and is something else, or a range overlaps another.
    Eexist,
    /// Something refers to it.
    Ebusy,
    /// A key is of another type than its set, or a set of another type than the rule needs.
    Einval,
    /// A base chain cannot be jumped to.
    Eopnotsupp,
    /// Jumps lead in a circle, or go deeper than 15.
    Emlink,
}

/// A transaction that was refused. Nothing of it landed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("operation {index} of the transaction, to {operation}: {errno}")]
pub struct Refused {
    /// The place of the operation in the transaction, from 0.
    pub index: usize,
    /// The operation, for people.
    pub operation: String,
    /// What the kernel says.
    pub errno: Errno,
}

impl Kernel {
    /// A kernel without the table.
    pub fn new(release: Release) -> Kernel {
        Kernel { table: None, generation: 1, release }
    }

    /// Takes over a transaction, or nothing of it.
    pub fn commit(&mut self, transaction: &Transaction) -> Result<Generation, Refused> {
        let mut table = self.table.clone();
        for (index, op) in transaction.ops().iter().enumerate() {
            let refused = |errno| Refused { index, operation: op.to_string(), errno };
            match op {
                Op::DestroyTables => table = None,
                Op::AddTable(family) => {
                    table.get_or_insert_default().families.insert(*family);
                }
                Op::DeleteMapElements(..)
                | Op::DeleteKeys(..)
                | Op::AddCounter(_)
                | Op::AddSet(..)
                | Op::AddMap(..)
                | Op::AddKeys(..)
                | Op::AddChain(..)
                | Op::FlushChain(_)
                | Op::AddRules(..)
                | Op::AddMapElements(..)
                | Op::DeleteChain(_)
                | Op::DeleteSet(_)
                | Op::DeleteMap(_)
                | Op::DeleteCounter(_)
                | Op::DeleteTable(_) => {
                    let table = table.as_mut().ok_or_else(|| refused(Errno::Enoent))?;
                    table.apply(op, self.release).map_err(refused)?;
                }
            }
        }
        if let Some(table) = &mut table {
            table.forget_released();
        }
        self.table = table;
        self.generation += 1;
        Ok(Generation(self.generation))
    }

    /// What an agent reads back when it starts.
    pub fn dump(&self) -> Mirror {
        Mirror {
            table: self.table.as_ref().map(Content::to_table),
            generation: Generation(self.generation),
            foreign: Vec::new(),
        }
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Errno::Enoent => "ENOENT",
            Errno::Eexist => "EEXIST",
            Errno::Ebusy => "EBUSY",
            Errno::Einval => "EINVAL",
            Errno::Eopnotsupp => "EOPNOTSUPP",
            Errno::Emlink => "EMLINK",
        })
    }
}

#[cfg(test)]
mod tests;
