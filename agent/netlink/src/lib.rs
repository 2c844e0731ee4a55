//! The nf_tables netlink codec and its socket.
//!
//! ```text
//! Connection::commit   Transaction -> encode -> one batch, one sendmsg -> answers -> Committed
//! Connection::dump     requests    -> dump bytes -> decode -> Mirror
//! ```
//!
//! One [`Connection`] is the one writer of table `inet postern`. It is opened in the network namespace of the calling
//! thread and stays in it. All its calls block; the kernel runs a whole transaction inside the one system call that
//! sends it, so a connection lives on a thread of its own.
//!
//! Nothing here is `unsafe`: `netlink-sys` and `rustix` carry the system calls.

mod connection;
mod error;

pub use connection::{Claim, Committed, Connection, Count, Ownership};
pub use error::{At, Errno, Error, Refusal};
