//! Chains and rules.

use compiler::nft::{Comment, TABLE};

use crate::batch::{Batch, NewMessage};
use crate::constants::{chain, rule, udata};
use crate::expr::{self, Expr};

/// Where a base chain hangs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HookSpec {
    /// `filter` or `nat`.
    pub(crate) kind: &'static str,
    /// `enum nf_inet_hooks`
    pub(crate) hook: u32,
    pub(crate) priority: i32,
    /// `NF_ACCEPT` or `NF_DROP`
    pub(crate) policy: i32,
}

pub(crate) fn put_chain(
    batch: &mut Batch,
    new: NewMessage,
    table: &str,
    name: &str,
    base: Option<HookSpec>,
    comment: Option<&Comment>,
) {
    batch.add(new, |w| {
        w.string(chain::TABLE, table);
        w.string(chain::NAME, name);
        if let Some(base) = base {
            w.nest(chain::HOOK, |w| {
                w.be32(chain::HOOK_HOOKNUM, base.hook);
                w.bytes(chain::HOOK_PRIORITY, &base.priority.to_be_bytes());
            });
            w.bytes(chain::POLICY, &base.policy.to_be_bytes());
            w.string(chain::TYPE, base.kind);
        }
        if let Some(comment) = comment {
            w.comment(chain::USERDATA, udata::COMMENT, comment.as_str());
        }
    });
}

pub(super) fn put_delete(batch: &mut Batch, delete: NewMessage, name: &str) {
    batch.add(delete, |w| {
        w.string(chain::TABLE, TABLE);
        w.string(chain::NAME, name);
    });
}

pub(crate) fn put_rule(
    batch: &mut Batch,
    new: NewMessage,
    table: &str,
    chain: &str,
    exprs: &[Expr],
    comment: Option<&Comment>,
) {
    batch.add(new, |w| {
        w.string(rule::TABLE, table);
        w.string(rule::CHAIN, chain);
        if let Some(comment) = comment {
            w.comment(rule::USERDATA, udata::COMMENT, comment.as_str());
        }
        w.nest(rule::EXPRESSIONS, |w| exprs.iter().for_each(|expression| expr::encode(w, expression)));
    });
}
