//! Chains and rules.

use compiler::nft::{BaseChain, Chain, ChainPolicy, Comment, Hook, Rule, TableFamily};

use crate::attr::AttrReader;
use crate::constants::{LIST_ELEM, chain, nf, rule, udata};
use crate::expr;

/// A chain without its rules; `None` is one that postern never makes.
pub(super) fn decode_chain(a: AttrReader<'_>) -> Option<Chain> {
    let base = match a.nested(chain::HOOK) {
        None => None,
        Some(hook) => Some(decode_base(a, hook)?),
    };
    // Offload to hardware and chains that live inside a rule have a flag of their own.
    if a.be32(chain::FLAGS).unwrap_or(0) & !chain::F_BASE != 0 {
        return None;
    }
    let comment = a.comment(chain::USERDATA, udata::COMMENT).ok()?;
    Some(Chain { base, comment: comment.map(Comment::from_kernel), rules: Vec::new() })
}

fn decode_base(a: AttrReader<'_>, hook: AttrReader<'_>) -> Option<BaseChain> {
    if a.string(chain::TYPE)? != "filter" || hook.has(chain::HOOK_DEV) || hook.has(chain::HOOK_DEVS) {
        return None;
    }
    let number = hook.be32(chain::HOOK_HOOKNUM)?;
    Some(BaseChain {
        hook: [Hook::Prerouting, Hook::Input, Hook::Forward].into_iter().find(|hook| *hook as u32 == number)?,
        priority: hook.be32(chain::HOOK_PRIORITY)?.cast_signed(),
        policy: match a.be32(chain::POLICY)?.cast_signed() {
            nf::ACCEPT => ChainPolicy::Accept,
            nf::DROP => ChainPolicy::Drop,
            _ => return None,
        },
    })
}

/// A rule in the table of a family; `None` is one that postern never writes.
pub(super) fn decode_rule(family: TableFamily, a: AttrReader<'_>) -> Option<Rule> {
    // Rules of iptables-nft carry a description of their match for its own use.
    if a.has(rule::COMPAT) {
        return None;
    }
    let list = a.nested(rule::EXPRESSIONS).unwrap_or(AttrReader::new(&[]));
    let decode = |(kind, value)| (kind == LIST_ELEM).then(|| expr::decode(family, AttrReader::new(value)))?;
    let exprs = list.map(decode).collect::<Option<Vec<_>>>()?;
    let comment = a.comment(rule::USERDATA, udata::COMMENT).ok()?;
    Some(Rule { stmts: expr::raise(&exprs)?, comment: comment.map(Comment::from_kernel) })
}
