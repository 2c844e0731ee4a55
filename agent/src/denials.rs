//! What was refused: who sent what to whom, and why it did not pass.
//!
//! ```text
//! kernel --NFLOG--> reader (a thread) -> packet -> naming, by the snapshot -> ledger <- whoever asks on the socket
//! ```
//!
//! The kernel tells of some of the packets that it refuses, see `compiler::nft::Refusal`. Nothing here stands in the way of a
//! packet or of the sync thread, and what is kept is bounded in number: flows that were refused alike are one
//! [`Denial`] with a count.

mod answer;
mod ledger;
mod naming;
mod packet;
mod reader;

pub use answer::{Asked, Denials, PATH, answer};
pub use ledger::{Denial, Ledger, Who};
pub use reader::{Settings, UNTOLD, follow};
