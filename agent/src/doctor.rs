//! The health of a node: what the agent says of itself, and what only the node can be asked.
//!
//! ```text
//! agent   status  -> running, ready, watches, gate, quarantine, notes
//! agent, kernel   -> the table that is enforced, and the one that is there
//! kernel          -> release, what nf_tables knows, connection tracking, sysctls, bridges
//! others          -> tables that decide about the same packets
//! API             -> rights, and how long an answer takes
//! ```
//!
//! Everything is looked at and nothing is changed.

mod agent;
mod drift;
mod kernel;
mod others;
mod rights;

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Serialize;

/// What is looked at.
#[derive(Debug, Clone)]
pub struct Subject {
    /// Where the agent serves.
    pub agent: SocketAddr,
    /// The agent's socket for root of the node.
    pub socket: PathBuf,
    /// With whose rights the API is asked; by default with those of the pod's service account, or of the default kubeconfig.
    pub kubeconfig: Option<PathBuf>,
    /// Where the container runtime keeps the results of its network plugins.
    pub cni_results: PathBuf,
}

/// How one thing stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// As it should.
    Ok,
    /// Something is weaker than it could be, or should be known.
    Note,
    /// Policies are not enforced as they are written, or soon will not be.
    Wrong,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was looked at, in a word or two; the same from version to version.
    pub check: &'static str,
    /// How it stands.
    pub state: State,
    /// What was found.
    pub found: String,
    /// Why it matters. Left out where all is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<&'static str>,
    /// What to do. Left out where all is well.
    #[serde(rename = "do", skip_serializing_if = "Option::is_none")]
    pub remedy: Option<&'static str>,
}

/// Looks at everything, in an order that goes from what matters most to what is around.
pub fn examine(subject: &Subject) -> Vec<Check> {
    let (mut checks, status) = agent::checks(subject);
    checks.extend(drift::checks(subject.agent, status.as_ref()));
    checks.extend(kernel::checks());
    checks.extend(others::checks());
    let follows_files = status.as_ref().is_some_and(|status| status.watches.is_empty());
    checks.extend(rights::checks(subject.kubeconfig.clone(), follows_files));
    checks
}

impl Check {
    fn ok(check: &'static str, found: impl Into<String>) -> Check {
        Check { check, state: State::Ok, found: found.into(), why: None, remedy: None }
    }

    fn note(check: &'static str, found: impl Into<String>, why: &'static str, remedy: &'static str) -> Check {
        Check { check, state: State::Note, found: found.into(), why: Some(why), remedy: Some(remedy) }
    }

    fn wrong(check: &'static str, found: impl Into<String>, why: &'static str, remedy: &'static str) -> Check {
        Check { state: State::Wrong, ..Check::note(check, found, why, remedy) }
    }
}

impl State {
    /// In a word.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Ok => "ok",
            State::Note => "note",
            State::Wrong => "wrong",
        }
    }
}
