//! The connection: dump, commit, adopt.

pub(crate) mod answer;
mod features;
pub(crate) mod others;
mod query;

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use compiler::diff::{Generation, Mirror, Op, Transaction};
use compiler::nft::{CounterName, TABLE, TableFamily};
use rustix::io::Errno;

use crate::attr::AttrWriter;
use crate::batch::{Answers, Batch, Buffers, FinalizedBatch, NewMessage, Slot};
use crate::constants::{msg, nl, obj, table};
use crate::decode::{Decoded, Decoder, TableHeader};
use crate::encode::{Context, Held, encode};
use crate::message::Message;
use crate::raw::RawBatch;
use crate::socket::NetlinkSocket;
use crate::{At, Count, Error, Refusal};

/// How often a dump is tried while others write.
const ATTEMPTS: u32 = 10;

/// Who may edit the table that this connection creates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ownership {
    /// Whoever has CAP_NET_ADMIN.
    Plain,
    /// `flags owner, persist`: this connection only, and after its end the table stays for the next owner. Needs
    /// Linux 6.9; see [`Connection::supports_ownership`].
    OwnerPersist,
}

/// Whose the table is, as [`Connection::adopt`] left it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// There is no table yet.
    Absent,
    /// It belongs to this connection.
    Owned,
    /// It has no owner, and everybody may edit it, which is how this connection makes tables.
    Plain,
    /// It is not as this connection makes tables: it stands still (`flags dormant`), or never had an owner where this
    /// connection's tables have one. Somebody else made it or changed it, and it cannot be owned but by being replaced.
    Foreign,
}

/// What a commit did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Committed {
    /// The generation that the next transaction is to be committed against. If it is stale, because another writer
    /// came right behind, that commit fails with [`Error::is_restart`]. Where this one was committed without a
    /// generation, it is the present one.
    pub generation: Generation,
    /// The length of the batch.
    pub bytes: usize,
    /// The messages of the batch, without its begin and end.
    pub messages: usize,
}

/// A netlink socket to the nf_tables of one network namespace.
#[derive(Debug)]
pub struct Connection {
    socket: NetlinkSocket,
    ownership: Ownership,
    /// The next sequence number.
    sequence: u32,
    buffers: Buffers,
}

/// The message that makes a table, or claims it.
fn claim_of(family: TableFamily, changes: bool) -> NewMessage {
    NewMessage { kind: msg::NEWTABLE, flags: nl::F_CREATE, family, op: 0, first: 0, changes }
}

// === impl Ownership ===

impl Ownership {
    fn table_flags(self) -> u32 {
        match self {
            Ownership::Plain => 0,
            Ownership::OwnerPersist => table::F_OWNER | table::F_PERSIST,
        }
    }
}

// === impl Connection ===

/// Whoever has opened the connection may change the options of its socket.
impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Connection {
    /// Opens a connection in the network namespace of the calling thread.
    pub fn open(ownership: Ownership) -> Result<Connection, Error> {
        Ok(Connection { socket: NetlinkSocket::open()?, ownership, sequence: 1, buffers: Buffers::default() })
    }

    /// Claims the tables that a former life of the agent left, if this connection wants to own tables and those can
    /// be owned. A dormant one wakes up with it. Fails with [`Error::is_owned_by_other`] where one belongs to a living
    /// process. What it says is of both: that one is foreign, or absent where there is neither.
    pub fn adopt(&mut self) -> Result<Claim, Error> {
        let mut orphans = Vec::new();
        let mut found = Claim::Absent;
        for (family, header) in self.table_headers()? {
            match self.claim_on(header)? {
                Claim::Foreign => return Ok(Claim::Foreign),
                Claim::Absent => orphans.push(family),
                claim @ (Claim::Owned | Claim::Plain) => found = claim,
            }
        }
        if orphans.is_empty() {
            return Ok(found);
        }
        self.commit_unbound(|batch| {
            for family in &orphans {
                batch.add(claim_of(*family, true), |w| {
                    w.string(table::NAME, TABLE);
                    w.be32(table::FLAGS, Ownership::OwnerPersist.table_flags());
                });
            }
            orphans.iter().map(|family| format!("claim table {family}")).collect()
        })?;
        Ok(Claim::Owned)
    }

    /// Whose a table is; [`Claim::Absent`] where nobody owns it and this connection may.
    fn claim_on(&self, header: TableHeader) -> Result<Claim, Error> {
        match header.owner.filter(|_| header.flags & table::F_OWNER != 0) {
            Some(port) if port == self.socket.port() => return Ok(Claim::Owned),
            Some(port) => return Err(Error::OwnedByOther { port }),
            None => {}
        }
        Ok(match self.ownership {
            Ownership::Plain if header.is_odd() => Claim::Foreign,
            Ownership::Plain => Claim::Plain,
            Ownership::OwnerPersist if header.flags & table::F_PERSIST == 0 => Claim::Foreign,
            Ownership::OwnerPersist => Claim::Absent,
        })
    }

    /// The present generation of the ruleset of the network namespace.
    pub fn generation(&mut self) -> Result<Generation, Error> {
        query::generation(self)
    }

    /// Reads back the tables of postern, as they were at one generation. One that is not as this connection makes tables
    /// is foreign as a whole, whatever is in it: it may hold what no dump shows.
    pub fn dump(&mut self) -> Result<Mirror, Error> {
        self.settled(|connection, generation| {
            let mut decoder = Decoder::default();
            let undisturbed = query::tables(connection, &mut decoder, |_| {})?;
            let headers = decoder.headers();
            let is_ours = headers.values().all(|header| connection.would_make(*header));
            // Nobody else can have edited tables that this connection owns, whatever else they wrote.
            let is_own = |header: &TableHeader| header.owner == Some(connection.socket.port());
            let is_owned = !headers.is_empty() && headers.values().all(is_own);
            let Decoded { table, mut foreign, is_torn } = decoder.finish();
            if !is_ours && !foreign.iter().any(|name| name == TABLE) {
                foreign.push(TABLE.to_owned());
            }
            let is_whole = undisturbed && !is_torn && (is_owned || connection.generation()? == generation);
            Ok(is_whole.then_some(Mirror { table, generation, foreign }))
        })
    }

    /// The messages of a dump as they came, from which a [`Decoder`] makes the table: for a bug report, and to try the
    /// decoder on.
    pub fn dump_bytes(&mut self) -> Result<Vec<u8>, Error> {
        self.settled(|connection, generation| {
            let mut bytes = Vec::new();
            let keep = |message: &Message<'_>| bytes.extend_from_slice(message.whole);
            let mut decoder = Decoder::default();
            let undisturbed = query::tables(connection, &mut decoder, keep)?;
            let is_whole = undisturbed && !decoder.finish().is_torn && connection.generation()? == generation;
            Ok(is_whole.then_some(bytes))
        })
    }

    /// Commits a transaction that was computed against a generation: all of it, or nothing. Without a generation it is
    /// committed whatever others have done since, which is right where this connection owns the table: no writer is too
    /// fast for it then.
    pub fn commit(
        &mut self,
        transaction: &Transaction,
        generation: impl Into<Option<Generation>>,
    ) -> Result<Committed, Error> {
        let generation = generation.into();
        // What is read here holds when the batch comes, because the batch is bound to the generation, or the table to
        // its owner.
        let asks = transaction.ops().iter().any(|op| matches!(op, Op::DestroyTables | Op::AddTable(_)));
        let mut held = Held::default();
        if asks {
            self.table_headers()?.into_keys().for_each(|family| *held.of(family) = true);
        }
        let mut batch = self.begin(generation);
        encode(&mut batch, transaction, Context { table_flags: self.ownership.table_flags(), held });
        self.run(batch.finalize(), generation, |slot, errno, offset, batch| {
            answer::refusal(transaction, slot, errno, offset, batch)
        })
    }

    /// Commits messages about another table, whatever the generation is.
    pub fn commit_raw(&mut self, raw: &RawBatch) -> Result<Committed, Error> {
        self.commit_unbound(|batch| raw.encode(batch))
    }

    /// The values of the named counters of the tables of postern; empty where there is none.
    pub fn counters(&mut self) -> Result<BTreeMap<CounterName, Count>, Error> {
        let mut decoder = Decoder::default();
        for family in TableFamily::ALL {
            let of_table = |w: &mut AttrWriter<'_>| w.string(obj::TABLE, TABLE);
            query::dump(self, "counters", family, msg::GETOBJ, of_table, |m| decoder.message(m))?;
        }
        Ok(decoder.into_counts())
    }

    /// Reads something that takes several requests, until it is whole: `read` gives `None` where somebody who wrote
    /// meanwhile may have changed it.
    fn settled<T>(
        &mut self,
        read: impl Fn(&mut Connection, Generation) -> Result<Option<T>, Error>,
    ) -> Result<T, Error> {
        for attempt in 0..ATTEMPTS {
            let generation = self.generation()?;
            if let Some(found) = read(self, generation)? {
                return Ok(found);
            }
            // Who disturbed, a writer or the kernel's own housekeeping, is mostly done in some milliseconds.
            std::thread::sleep(Duration::from_millis(1 << attempt));
        }
        Err(Error::Unsettled { attempts: ATTEMPTS })
    }

    /// Whether the table could be one that this connection made or claimed. One that makes plain tables leaves those of
    /// owners to them.
    fn would_make(&self, header: TableHeader) -> bool {
        let is_owned = header.owner == Some(self.socket.port()) && header.flags == self.ownership.table_flags();
        is_owned || (self.ownership == Ownership::Plain && !header.is_odd())
    }

    fn table_headers(&mut self) -> Result<BTreeMap<TableFamily, TableHeader>, Error> {
        let mut decoder = Decoder::default();
        query::table_headers(self, &mut decoder)?;
        Ok(decoder.headers().clone())
    }

    /// Commits what `encode` adds, against whatever generation there is. `encode` gives a line for each operation.
    fn commit_unbound(&mut self, encode: impl Fn(&mut Batch) -> Vec<String>) -> Result<Committed, Error> {
        let mut batch = self.begin(None);
        let lines = encode(&mut batch);
        self.run(batch.finalize(), None, |slot, errno, offset, batch| {
            let what = lines.get(slot.op).cloned().unwrap_or_default();
            let expression = offset.and_then(|offset| batch.expression_at(slot, offset)).map(str::to_owned);
            Refusal { op: slot.op, what, at: At::Whole, expression, errno }
        })
    }

    fn begin(&mut self, generation: Option<Generation>) -> Batch {
        Batch::begin(std::mem::take(&mut self.buffers), self.sequence, generation)
    }

    fn reuse(&mut self, batch: FinalizedBatch) {
        self.buffers = batch.into_buffers();
    }

    /// Sends a batch, which is bound to `generation` if there is one, and judges the answers.
    fn run(
        &mut self,
        batch: FinalizedBatch,
        generation: Option<Generation>,
        refusal: impl Fn(Slot, Errno, Option<usize>, &FinalizedBatch) -> Refusal,
    ) -> Result<Committed, Error> {
        let result = self.run_borrowed(&batch, generation, refusal);
        self.reuse(batch);
        result
    }

    fn run_borrowed(
        &mut self,
        batch: &FinalizedBatch,
        generation: Option<Generation>,
        refusal: impl Fn(Slot, Errno, Option<usize>, &FinalizedBatch) -> Refusal,
    ) -> Result<Committed, Error> {
        let answers = self.exchange(batch)?;
        if !answers.refused.is_empty() {
            let refused = answers.refused.into_iter();
            return Err(Error::Refused(refused.map(|(slot, errno, at)| refusal(slot, errno, at, batch)).collect()));
        }
        match (answers.whole, generation) {
            (Some(Errno::RESTART), Some(Generation(generation))) => return Err(Error::Restart { generation }),
            (Some(errno), _) => return Err(Error::BatchRefused(errno)),
            (None, _) => {}
        }
        let is_proven = match (answers.end, answers.last, generation) {
            (true, _, _) => true,
            // Before Linux 6.10 nothing answers for the commit itself, but the generation moves with it, and the
            // batch was bound to the one before.
            (false, true, Some(generation)) => !batch.changes() || self.generation()? != generation,
            // Where it was bound to none, what is left is that a commit that fails is answered.
            (false, true, None) => answers.lost.is_none(),
            // A batch of no messages has no last one, and changes nothing.
            (false, false, Some(generation)) => batch.messages() == 0 && self.generation()? == generation,
            (false, false, None) => batch.messages() == 0,
        };
        if !is_proven {
            return Err(Error::UnknownResult(answers.lost.unwrap_or(Errno::NODATA).into()));
        }
        // A commit that changes something moves the generation by one. Where that is not sure, the old one is given:
        // if it did move, by us or by somebody else, the next commit fails as stale, and a dump tells the truth.
        let generation = match generation {
            Some(generation) if batch.changes() => answer::next_generation(generation),
            Some(generation) => generation,
            None => self.generation()?,
        };
        Ok(Committed { generation, bytes: batch.bytes().len(), messages: batch.messages() })
    }

    /// Sends a batch and collects what the kernel answers, all of which is there when the sending is done.
    fn exchange(&mut self, batch: &FinalizedBatch) -> Result<Answers, Error> {
        self.sequence = batch.next_sequence();
        self.socket.send(batch.bytes())?;
        let mut answers = Answers::default();
        loop {
            match self.socket.try_receive() {
                Ok(messages) => messages.filter_map(|m| m.ack()).for_each(|ack| batch.answer(ack, &mut answers)),
                Err(Errno::AGAIN) => return Ok(answers),
                // The buffer overflowed (ENOBUFS): what is still in it counts, what is not may have been the answer.
                Err(errno) => {
                    answers.lost = Some(errno);
                    if errno != Errno::NOBUFS {
                        return Ok(answers);
                    }
                }
            }
        }
    }
}
