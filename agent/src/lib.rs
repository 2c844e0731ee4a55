//! `postern`: a per-node agent that enforces Kubernetes NetworkPolicy with nftables.

pub mod admin;
pub mod args;
pub mod backoff;
pub mod command;
pub mod explanation;
pub mod files;
pub mod kernel;
pub mod lab;
pub mod metrics;
pub mod model;
pub mod probes;
pub mod readiness;
pub mod sync;
pub mod telemetry;
pub mod trial;
pub mod watch;
