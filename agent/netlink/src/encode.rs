//! A transaction as a batch.
//!
//! The order of the operations is the transaction's; here each becomes one message or a few.

mod chain;
mod key;
mod set;

pub(crate) use chain::{HookSpec, put_chain, put_rule};
pub(crate) use key::elements_of;
pub(crate) use set::{MILLISECONDS, put_set_of, set_type};

use compiler::diff::{Generation, Op, Transaction};
use compiler::nft::{ChainPolicy, Hook, TABLE, TableFamily};

use crate::batch::{Batch, Buffers, NewMessage};
use crate::constants::{counter, msg, nf, nl, obj, rule, table};

/// What the bytes depend on besides the transaction.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Context {
    /// The table's flags, `NFT_TABLE_F_*`.
    pub(crate) table_flags: u32,
    /// The tables that the kernel has: they are deleted only if so (older kernels cannot be asked to delete what may
    /// not be there), and created only if not.
    pub(crate) held: Held,
}

/// Which tables the kernel has.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Held {
    pub(crate) inet: bool,
    pub(crate) bridge: bool,
}

/// Encodes transactions without sending them: for benchmarks, and to compare with what other programs write.
#[derive(Debug, Default)]
pub struct Encoder {
    buffers: Buffers,
}

impl Encoder {
    /// The batch of a transaction against `generation`, for a kernel that has no table yet if the transaction adds
    /// one. The memory is used again by the next call.
    pub fn encode(&mut self, transaction: &Transaction, generation: Generation) -> &[u8] {
        let mut batch = Batch::begin(std::mem::take(&mut self.buffers), 1, Some(generation));
        encode(&mut batch, transaction, Context { table_flags: 0, held: Held::default() });
        self.buffers = batch.finalize().into_buffers();
        self.buffers.bytes()
    }
}

/// Adds all operations of a transaction to a batch.
pub(crate) fn encode(batch: &mut Batch, transaction: &Transaction, mut context: Context) {
    for (op, operation) in transaction.ops().iter().enumerate() {
        encode_op(batch, op, operation, &mut context);
    }
}

fn encode_op(batch: &mut Batch, op: usize, operation: &Op, context: &mut Context) {
    // What is new must be new: an object that is there already is drift, and the kernel says so (EEXIST).
    let family = operation.family().unwrap_or(TableFamily::Inet);
    let create = |kind| NewMessage { kind, flags: nl::F_CREATE | nl::F_EXCL, family, op, first: 0, changes: true };
    let delete = |kind| NewMessage { kind, flags: 0, family, op, first: 0, changes: true };
    match operation {
        Op::DestroyTables => {
            for family in TableFamily::ALL {
                if std::mem::take(context.held.of(family)) {
                    let delete = NewMessage { family, ..delete(msg::DELTABLE) };
                    batch.add(delete, |w| w.string(table::NAME, TABLE));
                }
            }
        }
        Op::AddTable(family) => {
            if !std::mem::replace(context.held.of(*family), true) {
                batch.add(create(msg::NEWTABLE), |w| {
                    w.string(table::NAME, TABLE);
                    w.be32(table::FLAGS, context.table_flags);
                });
            }
        }
        Op::DeleteTable(family) => {
            *context.held.of(*family) = false;
            batch.add(delete(msg::DELTABLE), |w| w.string(table::NAME, TABLE));
        }
        Op::DeleteMapElements(map, keys) => set::put_keys(batch, delete(msg::DELSETELEM), map, keys),
        Op::DeleteKeys(set, keys) => set::put_keys(batch, delete(msg::DELSETELEM), set, keys),
        Op::AddCounter(name) => batch.add(create(msg::NEWOBJ), |w| {
            w.string(obj::TABLE, TABLE);
            w.string(obj::NAME, name.as_str());
            w.be32(obj::TYPE, obj::TYPE_COUNTER);
            w.nest(obj::DATA, |w| {
                w.be64(counter::BYTES, 0);
                w.be64(counter::PACKETS, 0);
            });
        }),
        Op::AddSet(name, added) => set::put_set(batch, create(msg::NEWSET), name, added),
        Op::AddMap(name, map) => set::put_map(batch, create(msg::NEWSET), name, map),
        Op::AddKeys(set, keys) => set::put_keys(batch, create(msg::NEWSETELEM), set, keys),
        Op::AddChain(name, chain) => {
            let spec = chain.base.as_ref().map(|base| HookSpec {
                kind: "filter",
                hook: hook_number(base.hook),
                priority: base.priority,
                policy: match base.policy {
                    ChainPolicy::Accept => nf::ACCEPT,
                    ChainPolicy::Drop => nf::DROP,
                },
            });
            put_chain(batch, create(msg::NEWCHAIN), TABLE, name.as_str(), spec, chain.comment.as_ref());
        }
        Op::FlushChain(name) => {
            let flush = NewMessage { changes: false, ..delete(msg::DELRULE) };
            batch.add(flush, |w| {
                w.string(rule::TABLE, TABLE);
                w.string(rule::CHAIN, name.as_str());
            });
        }
        Op::AddRules(name, chain) => {
            let mut exprs = batch.take_exprs();
            for (first, rule) in chain.rules.iter().enumerate() {
                exprs.clear();
                crate::expr::lower(&rule.stmts, &mut exprs);
                let append = NewMessage { flags: nl::F_CREATE | nl::F_APPEND, first, ..create(msg::NEWRULE) };
                put_rule(batch, append, TABLE, name.as_str(), &exprs, rule.comment.as_ref());
            }
            batch.restore_exprs(exprs);
        }
        Op::AddMapElements(map, elements) => set::put_elements(batch, create(msg::NEWSETELEM), map, elements),
        Op::DeleteChain(name) => chain::put_delete(batch, delete(msg::DELCHAIN), name.as_str()),
        Op::DeleteSet(name) | Op::DeleteMap(name) => set::put_delete(batch, delete(msg::DELSET), name),
        Op::DeleteCounter(name) => batch.add(delete(msg::DELOBJ), |w| {
            w.string(obj::TABLE, TABLE);
            w.string(obj::NAME, name.as_str());
            w.be32(obj::TYPE, obj::TYPE_COUNTER);
        }),
    }
}

impl Held {
    pub(crate) fn of(&mut self, family: TableFamily) -> &mut bool {
        match family {
            TableFamily::Inet => &mut self.inet,
            TableFamily::Bridge => &mut self.bridge,
        }
    }
}

fn hook_number(hook: Hook) -> u32 {
    hook as u32
}
