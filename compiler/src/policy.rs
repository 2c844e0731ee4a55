//! The policy IR: who may talk to whom on this node.
//!
//! [`Resolver::resolve`] turns the state of the cluster into an [`Ir`]: the local pods with the policies that speak
//! about each, the rules of those policies with their CIDRs and ports normalised, and the addresses that their
//! selectors mean. Nothing here knows of nftables; [`judge`] evaluates the IR directly.

mod cidr;
mod gate;
mod ir;
mod judge;
mod links;
mod nearest;
mod open_to_all;
#[cfg(feature = "sim")]
pub mod oracle;
mod ports;
mod resolve;

pub use cidr::{AddressRange, subtract_and_merge};
pub use gate::{Gate, OpenGate};
pub use ir::{Ir, Isolation, LocalPod, PeerSet, PolicyRules, PortSet, ResolvedRule, RulesByPolicy, SharedAddress};
pub use judge::{Judgement, Packet, PacketProtocol, judge, judge_pod};
pub use links::{OwnAddresses, PodLinks};
pub use nearest::{Change, Effort, Known, Miss, Nearest, Part, nearest};
pub use open_to_all::{OpenPorts, OpenToAll};
pub use ports::merge_ports;
pub use resolve::Resolver;

#[cfg(test)]
mod tests;
