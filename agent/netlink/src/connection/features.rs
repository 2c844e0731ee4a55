//! What the kernel knows: tried by batches that it takes back.

use compiler::nft::{
    ChainName, Family, Field, Filled, KeyType, Limit, LogGroup, Match, Refusal, SetName, Stmt, TableFamily, Verdict,
};
use rustix::io::Errno;

use super::{Connection, Ownership, claim_of};
use crate::Error;
use crate::batch::{Batch, NewMessage};
use crate::constants::{msg, nl, table};
use crate::encode::put_set_of;
use crate::expr::{Expr, Register};
use crate::raw::{ChainKind, RawBase, RawBatch, RawHook};

/// The name of the table that is tried, but never made.
const PROBE_TABLE: &str = "postern.probe";

impl Connection {
    /// Whether the kernel knows `flags owner, persist`.
    pub fn supports_ownership(&mut self) -> Result<bool, Error> {
        self.would_take("whether it knows owners", |batch| {
            batch.add(claim_of(TableFamily::Inet, false), |w| {
                w.string(table::NAME, PROBE_TABLE);
                w.be32(table::FLAGS, Ownership::OwnerPersist.table_flags());
            });
        })
    }

    /// Whether the kernel can say, to who is on the hooks input and forward, if it routes the source of a packet to the link
    /// from which it came: `nft_fib_inet` of Linux 5.19.
    pub fn supports_source_routes(&mut self) -> Result<bool, Error> {
        const CHAIN: &str = "probe";
        let mut probe = RawBatch::new(PROBE_TABLE).add_table().add_chain(CHAIN, None);
        probe = probe.add_rule(CHAIN, vec![Expr::SourceRoute { dreg: Register::R1 }], None);
        // Before Linux 5.19 it is refused on these hooks, which the kernel checks where a base chain leads to it.
        for (name, hook) in [("input", RawHook::Input), ("forward", RawHook::Forward)] {
            let jump = Expr::Verdict(Verdict::Jump(ChainName::from_kernel(CHAIN)));
            let base = RawBase { kind: ChainKind::Filter, hook, priority: 0 };
            probe = probe.add_chain(name, Some(base)).add_rule(name, vec![jump], None);
        }
        self.would_take("whether it knows fib", |batch| drop(probe.encode(batch)))
    }

    /// Whether the kernel has tables of family `bridge`.
    pub fn supports_bridge_tables(&mut self) -> Result<bool, Error> {
        let base = RawBase { kind: ChainKind::Filter, hook: RawHook::Forward, priority: 0 };
        let probe = RawBatch::new(PROBE_TABLE).of_family(TableFamily::Bridge);
        let probe = probe.add_table().add_chain("probe", Some(base));
        self.would_take("whether it knows tables of bridges", |batch| drop(probe.encode(batch)))
    }

    /// Whether the kernel can tell of some refused packets, in tables of both families where it has those: `nft_log`,
    /// `nft_limit` and `nfnetlink_log`.
    pub fn supports_denials(&mut self) -> Result<bool, Error> {
        const CHAIN: &str = "probe";
        let set = SetName::from_kernel("probe");
        let rule = [
            Stmt::Match(Match::Limit(
                Field::Source(Family::V4),
                set.clone(),
                Limit { over: true, a_minute: 1, burst: 1 },
            )),
            Stmt::Log(Refusal::Source, LogGroup::default()),
        ];
        let mut exprs = Vec::new();
        crate::expr::lower(&rule, &mut exprs);
        let rule = RawBatch::new(PROBE_TABLE).add_chain(CHAIN, None).add_rule(CHAIN, exprs, None);
        self.would_take("whether it can tell of refused packets", |batch| {
            RawBatch::new(PROBE_TABLE).add_table().encode(batch);
            let (kind, flags, family) = (msg::NEWSET, nl::F_CREATE | nl::F_EXCL, TableFamily::Inet);
            let new = NewMessage { kind, flags, family, op: 0, first: 0, changes: true };
            let filled = Filled { size: 1, timeout: 1 };
            put_set_of(batch, new, PROBE_TABLE, &set, KeyType::Address(Family::V4), filled);
            rule.encode(batch);
        })
    }

    /// Whether the kernel would take a batch. Changes nothing: it tries a batch without an end and takes it back.
    fn would_take(&mut self, what: &'static str, encode: impl FnOnce(&mut Batch)) -> Result<bool, Error> {
        let mut batch = self.begin(None);
        encode(&mut batch);
        let batch = batch.into_trial();
        let answers = self.exchange(&batch);
        self.reuse(batch);
        let answers = answers?;
        match (answers.whole, answers.refused.first()) {
            (Some(errno), _) => Err(Error::BatchRefused(errno)),
            (None, Some((_, Errno::OPNOTSUPP | Errno::INVAL | Errno::NOENT, _))) => Ok(false),
            (None, Some((_, errno, _))) => Err(Error::Query { what, source: *errno }),
            (None, None) => Ok(answers.last),
        }
    }
}
