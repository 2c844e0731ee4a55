//! The nftables program as typed values: what `nft list table inet postern` would print.
//!
//! [`Table`] is the unit of ownership. Everything in it is plain data with a canonical order, so that equal
//! programs are equal values, and the diff, the text, the codec and the tracer match on the same enums.
//!
//! Terms are nftables' own: a *rule* is a list of *statements*; a *set* holds *keys*; a *verdict map* holds
//! *elements* that lead from a key to a *verdict*; a *base chain* hangs on a netfilter hook, a *regular chain*
//! is reached by jump or goto.

mod chain;
mod denials;
mod gate;
mod lower;
mod name;
mod open_flows;
mod rule;
mod set;
mod skeleton;
mod table;
mod text;
pub mod trace;

pub(crate) use chain::sets_of;
pub use chain::{BaseChain, Chain, ChainPolicy, Hook};
pub use denials::{LogGroup, Refusal, SNAPLEN, unlogged_counter};
pub use gate::refused_gate_counter;
pub(crate) use gate::{is_gated, opens_gate, ranges_of};
pub use lower::{
    Lowerer, lower, refused_destination_counter, refused_link_local_counter, refused_port_source_counter,
    refused_tag_counter,
};
pub use name::{ChainName, Comment, CounterName, SetName};
pub(crate) use open_flows::add_open_flows;
pub use open_flows::without_open_flows;
pub use rule::{CtState, EtherType, Field, Limit, Match, Reject, Rule, Stmt, Verdict};
pub use set::{Filled, Key, KeyType, MapElement, Set, VerdictMap};
pub use skeleton::{Deny, denied_counter, refused_source_counter};
pub use table::{TABLE, Table, TableFamily};

use std::fmt;
use std::net::IpAddr;

use serde::Serialize;

/// An address family. The table is `inet`: rules of both families stand side by side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Family {
    /// IPv4, `ip` in nft.
    V4,
    /// IPv6, `ip6` in nft.
    V6,
}

impl Family {
    /// Both families, in the order in which they appear in the table.
    pub const ALL: [Family; 2] = [Family::V4, Family::V6];

    /// The family of an address.
    pub fn of(address: IpAddr) -> Family {
        match address {
            IpAddr::V4(_) => Family::V4,
            IpAddr::V6(_) => Family::V6,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Family::V4 => "v4",
            Family::V6 => "v6",
        })
    }
}
