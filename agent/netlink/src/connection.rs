//! The connection: dump, commit, adopt.

use std::collections::BTreeMap;

use compiler::diff::{Generation, Mirror, Transaction};
use compiler::nft::CounterName;

use crate::Error;

/// Who may edit the table that this connection creates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ownership {
    /// Whoever has CAP_NET_ADMIN.
    Plain,
    /// `flags owner, persist`: this connection only, and after its end the table stays for the next owner. Needs
    /// Linux 6.9.
    OwnerPersist,
}

/// Whose the table is, as [`Connection::adopt`] left it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// There is no table yet.
    Absent,
    /// It belongs to this connection.
    Owned,
    /// It has no owner, and cannot get one but by replacing it; everybody may edit it.
    Plain,
}

/// What a commit did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Committed {
    /// The generation that the next transaction is to be committed against.
    pub generation: Generation,
    /// The length of the batch.
    pub bytes: usize,
    /// The messages of the batch, without its begin and end.
    pub messages: usize,
}

/// The value of a counter.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    /// Packets counted.
    pub packets: u64,
    /// Bytes counted, of the network layer.
    pub bytes: u64,
}

/// A netlink socket to the nf_tables of one network namespace.
#[derive(Debug)]
pub struct Connection;

impl Connection {
    /// Opens a connection in the network namespace of the calling thread.
    pub fn open(_ownership: Ownership) -> Result<Connection, Error> {
        unimplemented!()
    }

    /// Whether the kernel knows `flags owner, persist`. Changes nothing.
    pub fn supports_ownership(&mut self) -> Result<bool, Error> {
        unimplemented!()
    }

    /// Claims the table that a former life of the agent left, if it can be claimed and this connection wants to.
    pub fn adopt(&mut self) -> Result<Claim, Error> {
        unimplemented!()
    }

    /// The present generation of the ruleset of the network namespace.
    pub fn generation(&mut self) -> Result<Generation, Error> {
        unimplemented!()
    }

    /// Reads back table `inet postern`.
    pub fn dump(&mut self) -> Result<Mirror, Error> {
        unimplemented!()
    }

    /// Commits a transaction that was computed against `generation`: all of it, or nothing.
    pub fn commit(&mut self, _transaction: &Transaction, _generation: Generation) -> Result<Committed, Error> {
        unimplemented!()
    }

    /// The values of the named counters of table `inet postern`; empty where there is no table.
    pub fn counters(&mut self) -> Result<BTreeMap<CounterName, Count>, Error> {
        unimplemented!()
    }
}
