//! From what the kernel holds to what it should hold.
//!
//! [`next`] compares the desired table with the [`Mirror`] and gives the next [`Transaction`] on the way from
//! one to the other; the caller commits it and asks again until there is none. Nearly always that is one
//! transaction. More are given when a big load is cut into chunks, when an address is to be led to a chain that is not there
//! yet, when a packet on its way may still look into what goes or pass the gate too early, and on kernels that release a chain late. Whoever asks many times for the same table does so through a [`Way`].

mod ahead;
mod behind;
mod mirror;
mod next;
mod opening;
mod provenance;
mod stage;
mod text;
mod transaction;
mod way;

pub use mirror::{Generation, Mirror};
pub use next::{Limits, next};
pub use provenance::policies_behind;
pub use transaction::{Op, Transaction};
pub use way::Way;

#[cfg(test)]
mod tests;
