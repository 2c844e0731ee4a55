//! The state of the cluster, as far as one node needs it, indexed for the questions that policies ask.
//!
//! [`State::apply`] takes events in any order. What the state answers depends on the objects that it holds, never
//! on how they came: [`Change::Reset`] equals forgetting everything of a kind and applying each object of the list,
//! and an object that is applied twice is there once. A local pod whose network outlives it is the exception
//! ([`PodSource::Lingering`]).
//!
//! Two answers are kept up to date as events come, because working them out afresh would cost the size of the
//! cluster for every event: which addresses the pods of a rule have ([`Memberships`]), and which policies select a
//! local pod ([`Selection`]). Everything else is looked up.

mod admission;
mod budget;
mod event;
mod interest;
mod labelled;
mod links;
mod membership;
mod namespaces;
mod needs;
mod pods;
mod policies;
mod port_selector;
mod sandboxes;
mod selection;
mod state;

pub use budget::{Budget, Cost, InvalidCost, Measure, Quarantine, Spender};
pub use event::{Change, Event, PodSource};
pub use interest::{Interest, MOST_WATCHES, PodQuery};
pub use links::{Link, Links, Port};
pub use membership::{Endpoint, Endpoints, EndpointsByPort, Members, MembersByPeers, Memberships};
pub use namespaces::Namespaces;
pub(crate) use needs::MOST_PORT_RULES;
pub use pods::Pods;
pub use policies::Policies;
pub use port_selector::{PodScope, PortSelector, named_ports};
pub use sandboxes::{Sandbox, Sandboxes};
pub use selection::{ListId, PolicyList, Selection};
pub use state::{State, Versions};

#[cfg(test)]
mod tests;
