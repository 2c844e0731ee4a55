//! The nf_tables netlink codec and its socket, and readers of connection tracking and of what rules log.
//!
//! ```text
//! Connection::commit   Transaction -> encode -> one batch, one sendmsg -> answers -> Committed
//! Connection::dump     requests    -> dump bytes -> decode -> Mirror
//! conntrack::flows     request     -> dump bytes -> Flow, Flow, Flow...
//! log::LogReader       what rules log          -> Logged, Logged...
//! conntrack::Events    multicast   -> Change, Change, Change...
//! ```
//!
//! One [`Connection`] is the one writer of table `inet postern`. It is opened in the network namespace of the calling
//! thread and stays in it. All its calls block; the kernel runs a whole transaction inside the one system call that
//! sends it, so a connection lives on a thread of its own.
//!
//! From the bytes up: `constants` holds the kernel's numbers, `attr` and `message` read and write the format, [`expr`]
//! holds what rules are made of, `encode` and [`Decoder`] translate between the compiler's types and messages,
//! `batch` frames messages as one transaction, `socket` carries them. [`conntrack`] and [`log`] need of these `attr`, `message`
//! and `socket` only.
//!
//! Nothing here is `unsafe`: `netlink-sys` and `rustix` make the system calls.

mod attr;
mod batch;
mod connection;
pub mod conntrack;
mod constants;
mod decode;
mod encode;
mod error;
pub mod expr;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
pub mod log;
mod message;
mod raw;
mod socket;

pub use connection::others::{OtherChain, OtherTable};
pub use connection::{Claim, Committed, Connection, Ownership};
pub use decode::{Count, Decoded, Decoder};
pub use encode::Encoder;
pub use error::{At, Errno, Error, Refusal};
pub use raw::{ChainKind, RawBase, RawBatch, RawHook};
