//! `postern`: a per-node agent that enforces Kubernetes NetworkPolicy with nftables.
//!
//! The daemon, in the order of an event:
//!
//! ```text
//! watch    API server or files  -> events
//! sync     events               -> compiler -> diff -> kernel, on a thread of its own
//! links    the node's routes        -> events
//! cni      what the container runtime writes -> events
//! gate     the ranges of the node's pods     -> events
//! denials  what the kernel tells of refused packets -> a ledger, for who asks
//! kernel   the seam behind which the netlink connection sits
//! admin    what it tells: readiness, metrics, explanation; quarantine tells of policies that cost too much
//! ```
//!
//! The commands: [`args`] and [`command`], over [`files`] (manifests), [`model`] (a whole cluster, compiled and judged),
//! [`probes`] and [`explanation`] (questions and answers), [`record`] (what programs read), [`live`] and [`lookup`] (of a running cluster), [`remote`] (agents of other nodes), [`flows`] (those
//! that are open), the crate [`lab`] (network namespaces and packets) and [`trial`] (a
//! model that runs in a lab).

pub mod admin;
pub mod args;
pub mod backoff;
pub mod cni;
pub mod command;
pub mod denials;
pub mod doctor;
pub mod explanation;
pub mod files;
pub mod flows;
pub mod gate;
pub mod kernel;
pub mod links;
pub mod live;
pub mod lookup;
pub mod matrix;
pub mod metrics;
pub mod model;
pub mod near_rule;
pub mod probes;
pub mod quarantine;
pub mod readiness;
pub mod record;
pub mod remote;
pub mod status;
pub mod sync;
pub mod telemetry;
pub mod trial;
pub mod watch;
