//! From Kubernetes objects to an nftables transaction, without I/O.
//!
//! One event travels through the modules in the order in which they stand here:
//!
//! ```text
//! api      parse    Kubernetes object          -> validated model, findings
//! cluster  apply    event                      -> indexed state
//! policy   resolve  state, node                -> policy IR: who may talk to whom on this node
//! nft      lower    IR                         -> Table: chains, sets, maps, rules as typed values
//! flows    follow   IR, the one before         -> what open flows need in the table
//! diff     next     desired table, kernel's    -> Transaction
//! ```
//!
//! Nothing here reads a file, a clock or the environment, and nothing depends on the order of past events: the
//! same objects give the same table, byte for byte. Two things do remember what was before: what [`flows`] adds about open
//! flows, and a pod that is gone while its network still runs ([`cluster::PodSource::Lingering`]).

pub mod api;
pub mod cluster;
pub mod diff;
pub mod flows;
pub mod nft;
mod pipeline;
pub mod policy;
mod shared;
#[cfg(feature = "sim")]
pub mod sim;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod work;
pub mod yaml;

pub use pipeline::Compiler;
