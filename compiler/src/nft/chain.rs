//! Chains.

use super::{Comment, Match, Rule, SetName, Stmt};

/// A chain and its rules, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chain {
    /// Where the chain hangs; `None` for a regular chain.
    pub base: Option<BaseChain>,
    /// Shown by `nft list` in front of the rules.
    pub comment: Option<Comment>,
    /// The rules, in the order of evaluation.
    pub rules: Vec<Rule>,
}

/// `type filter hook <hook> priority <priority>; policy <policy>;`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BaseChain {
    /// The netfilter hook.
    pub hook: Hook,
    /// Lower runs first; 0 is nft's `filter`.
    pub priority: i32,
    /// What happens to a packet that no rule decides. nft calls it the policy of the chain.
    pub policy: ChainPolicy,
}

/// The hooks that are used, numbered as in `enum nf_inet_hooks` of `linux/netfilter.h`; those of bridges have the same
/// numbers in `linux/netfilter_bridge.h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hook {
    /// Whatever came in.
    Prerouting = 0,
    /// Packets for this node itself.
    Input = 1,
    /// Packets that this node passes on.
    Forward = 2,
}

/// The default verdict of a base chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChainPolicy {
    /// Let it pass.
    Accept,
    /// Drop it.
    Drop,
}

/// The sets and maps to which the rules of a chain refer.
pub(crate) fn sets_of(chain: &Chain) -> impl Iterator<Item = &SetName> {
    chain.rules.iter().flat_map(|rule| &rule.stmts).filter_map(|stmt| match stmt {
        Stmt::Match(Match::In(_, set) | Match::NotIn(_, set) | Match::Limit(_, set, _) | Match::PortIn(_, set)) => {
            Some(set)
        }
        Stmt::VerdictMap(_, map) => Some(map),
        Stmt::Match(
            Match::CtState(_)
            | Match::Protocol(_)
            | Match::Port(..)
            | Match::Icmpv6Type(..)
            | Match::HopLimit(_)
            | Match::Original
            | Match::LinkLocalSource
            | Match::SourceIs(_)
            | Match::SourceAstray
            | Match::EtherType(_),
        )
        | Stmt::Counter
        | Stmt::CounterName(_)
        | Stmt::Log(..)
        | Stmt::Reject(_)
        | Stmt::Verdict(_) => None,
    })
}
