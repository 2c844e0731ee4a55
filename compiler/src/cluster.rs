//! The state of the cluster, as far as one node needs it, indexed for the questions that policies ask.
//!
//! [`State::apply`] takes events in any order. What the state answers depends on the objects that it holds, never
//! on how they came: [`Change::Reset`] equals forgetting everything of a kind and applying each object of the list,
//! and an object that is applied twice is there once.
//!
//! Two answers are kept up to date as events come, because working them out afresh would cost the size of the
//! cluster for every event: which addresses a peer selector means ([`Memberships`]), and which policies select a
//! local pod ([`Selection`]). Everything else is looked up.

mod event;
mod interest;
mod membership;
mod namespaces;
mod pods;
mod policies;
mod selection;
mod state;

pub use event::{Change, Event, PodSource};
pub use interest::Interest;
pub use membership::{Endpoints, EndpointsByPort, Members, MembersBySelector, Memberships, PortSelector};
pub use namespaces::Namespaces;
pub use pods::Pods;
pub use policies::Policies;
pub use selection::{PolicyList, Selection};
pub use state::{State, Versions};

#[cfg(test)]
mod tests;
