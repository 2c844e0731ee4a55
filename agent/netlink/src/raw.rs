//! A batch of messages about a table that is not ours.
//!
//! The throw-away clusters of `postern try` need address translation for Services, which is a table of its own. It is
//! built here of plain expressions, and committed by the same code as ours.

use compiler::nft::{Comment, TableFamily};

use crate::batch::{Batch, NewMessage};
use crate::constants::{msg, nf, nl, table};
use crate::encode::{HookSpec, put_chain, put_rule};
use crate::expr::Expr;

/// Messages about one table, in the order in which they are added.
#[derive(Debug, Clone)]
pub struct RawBatch {
    family: TableFamily,
    table: String,
    messages: Vec<RawMessage>,
}

/// Where a base chain of a [`RawBatch`] hangs. Its default verdict is accept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RawBase {
    /// What the chain may do.
    pub kind: ChainKind,
    /// Where packets meet it.
    pub hook: RawHook,
    /// Lower runs first; `nft` calls -100 `dstnat` and 100 `srcnat`.
    pub priority: i32,
}

/// The type of a base chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChainKind {
    /// Lets pass or drops.
    Filter,
    /// Translates addresses: it sees the first packet of each flow only.
    Nat,
}

/// `enum nf_inet_hooks` of `linux/netfilter.h`
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RawHook {
    /// Packets that came in, before routing.
    Prerouting = 0,
    /// Packets for this host.
    Input = 1,
    /// Packets that this host passes on.
    Forward = 2,
    /// Packets of this host.
    Output = 3,
    /// Packets that leave, after routing.
    Postrouting = 4,
}

#[derive(Debug, Clone)]
enum RawMessage {
    AddTable,
    DeleteTable,
    AddChain { name: String, base: Option<RawBase> },
    AddRule { chain: String, exprs: Vec<Expr>, comment: Option<Comment> },
}

impl RawBatch {
    /// An empty batch about the table `inet` of this name.
    pub fn new(table: &str) -> RawBatch {
        RawBatch { family: TableFamily::Inet, table: table.to_owned(), messages: Vec::new() }
    }

    /// The same, about the table of another family.
    pub fn of_family(self, family: TableFamily) -> Self {
        RawBatch { family, ..self }
    }

    /// Creates the table, or does nothing if it is there.
    pub fn add_table(mut self) -> Self {
        self.messages.push(RawMessage::AddTable);
        self
    }

    /// Deletes the table with all that is in it; it must be there.
    pub fn delete_table(mut self) -> Self {
        self.messages.push(RawMessage::DeleteTable);
        self
    }

    /// Creates a base chain, or without `base` a regular one.
    pub fn add_chain(mut self, name: &str, base: Option<RawBase>) -> Self {
        self.messages.push(RawMessage::AddChain { name: name.to_owned(), base });
        self
    }

    /// Appends a rule to a chain.
    pub fn add_rule(mut self, chain: &str, exprs: Vec<Expr>, comment: Option<Comment>) -> Self {
        self.messages.push(RawMessage::AddRule { chain: chain.to_owned(), exprs, comment });
        self
    }

    /// Adds the messages to a batch and gives a line for each.
    pub(crate) fn encode(&self, batch: &mut Batch) -> Vec<String> {
        self.messages
            .iter()
            .enumerate()
            .map(|(op, message)| {
                self.encode_message(batch, op, message);
                message.line(&self.table)
            })
            .collect()
    }

    fn encode_message(&self, batch: &mut Batch, op: usize, message: &RawMessage) {
        let new = |kind, flags| NewMessage { kind, flags, family: self.family, op, first: 0, changes: true };
        let table = &self.table;
        match message {
            RawMessage::AddTable => {
                batch.add(NewMessage { changes: false, ..new(msg::NEWTABLE, nl::F_CREATE) }, |w| {
                    w.string(table::NAME, table);
                });
            }
            RawMessage::DeleteTable => batch.add(new(msg::DELTABLE, 0), |w| w.string(table::NAME, table)),
            RawMessage::AddChain { name, base } => {
                let spec = base.map(|base| HookSpec {
                    kind: base.kind.as_str(),
                    hook: base.hook as u32,
                    priority: base.priority,
                    policy: nf::ACCEPT,
                });
                put_chain(batch, new(msg::NEWCHAIN, nl::F_CREATE | nl::F_EXCL), table, name, spec, None);
            }
            RawMessage::AddRule { chain, exprs, comment } => {
                let append = new(msg::NEWRULE, nl::F_CREATE | nl::F_APPEND);
                put_rule(batch, append, table, chain, exprs, comment.as_ref());
            }
        }
    }
}

impl ChainKind {
    fn as_str(self) -> &'static str {
        match self {
            ChainKind::Filter => "filter",
            ChainKind::Nat => "nat",
        }
    }
}

impl RawMessage {
    fn line(&self, table: &str) -> String {
        match self {
            RawMessage::AddTable => format!("add table {table}"),
            RawMessage::DeleteTable => format!("delete table {table}"),
            RawMessage::AddChain { name, .. } => format!("add chain {table} {name}"),
            RawMessage::AddRule { chain, .. } => format!("add a rule to chain {table} {chain}"),
        }
    }
}
