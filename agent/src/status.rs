//! What an agent tells of itself to programs: what `/readyz` says to people, and what it knows and enforces in numbers.

mod policy;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use compiler::api::PolicyKey;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::metrics::Metrics;
use crate::readiness::Readiness;
use crate::sync::Snapshot;

pub use policy::{POLICY_PATH, PolicyStatus, RevisionStatus};

/// Where the agent tells it.
pub const PATH: &str = "/debug/status";
/// Where it tells the table that it enforces, as nft prints it.
pub const TABLE_PATH: &str = "/debug/table";
/// How long an agent may take. It takes microseconds, and for a large table some hundred milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest answer, which is a large table.
const LONGEST: u64 = 256 * 1024 * 1024;

/// What an agent tells of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Of postern.
    pub version: String,
    /// The node whose pods it polices.
    pub node: String,
    /// Grows with everything that is known or enforced anew.
    pub epoch: u64,
    /// The generation of nf_tables since when the kernel holds what is enforced; null before the first commit.
    pub generation: Option<u32>,
    /// When that was.
    #[serde(default)]
    pub since: Option<Timestamp>,
    /// Whether the kernel does not take what it should; what it took before stays in force.
    #[serde(default)]
    pub failing: bool,
    /// What it waits for; empty where it is ready.
    pub waiting_for: Vec<String>,
    /// What does not keep it from being ready.
    pub notes: Vec<String>,
    /// Seconds since the API server last had a word for the watch of each kind that has waited longest. Empty without an
    /// API.
    pub watches: BTreeMap<String, u64>,
    /// How many objects are known, by kind.
    pub objects: BTreeMap<String, usize>,
    /// How many networks of pods the container runtime has told of.
    pub sandboxes: usize,
    /// The policies that are not enforced as they are written, and why.
    pub quarantined: BTreeMap<String, String>,
    /// The gate.
    pub gate: Gate,
}

/// What is refused of addresses of which no pod is known.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gate {
    /// The ranges of the node's pods; empty where nothing is refused.
    pub ranges: Vec<String>,
    /// Why nothing is refused, if so.
    pub open_because: Option<String>,
}

impl Status {
    /// The status at this moment.
    pub fn of(snapshot: &Snapshot, readiness: &Readiness, metrics: &Metrics) -> Status {
        let crate::readiness::Status { waiting_for, mut notes } = readiness.status();
        let freshness = metrics.watch.freshness();
        let told = freshness.to_string();
        notes.extend(told.lines().filter_map(|line| line.strip_prefix("note: ")).map(str::to_owned));
        let gate = snapshot.enforced.as_ref().map(|enforced| Gate {
            ranges: enforced.ir.gate.ranges().iter().map(ToString::to_string).collect(),
            open_because: enforced.ir.gate.open_because().map(ToString::to_string),
        });
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            node: snapshot.pods.node().to_string(),
            epoch: snapshot.epoch,
            generation: snapshot.enforced.as_ref().map(|enforced| enforced.generation.0),
            since: snapshot.enforced.as_ref().map(|enforced| enforced.since),
            failing: metrics.sync.is_failing(),
            waiting_for,
            notes,
            watches: freshness.ages().into_iter().map(|(kind, age)| (kind.to_owned(), age.as_secs())).collect(),
            objects: snapshot.objects.iter().map(|(kind, count)| ((*kind).to_owned(), *count)).collect(),
            sandboxes: snapshot.pods.sandboxes().iter().count(),
            quarantined: snapshot
                .quarantined()
                .into_iter()
                .map(|(key, reason)| (key.to_string(), reason.to_string()))
                .collect(),
            gate: gate.unwrap_or_default(),
        }
    }
}

impl Status {
    /// Whether what the agent knows is in force, and it knows what it should.
    pub fn is_in_force(&self) -> bool {
        self.waiting_for.is_empty() && !self.failing && self.generation.is_some()
    }
}

/// Asks an agent for its status.
///
/// # Errors
///
/// If none answers, or not in our language.
pub fn ask(agent: SocketAddr) -> anyhow::Result<Status> {
    serde_json::from_str(&get(agent, PATH)?).context("it is of another version")
}

/// Asks an agent for the table that it enforces.
///
/// # Errors
///
/// If none answers.
pub fn table(agent: SocketAddr) -> anyhow::Result<String> {
    get(agent, TABLE_PATH)
}

/// Asks an agent how it stands with a policy.
///
/// # Errors
///
/// As for [`ask`].
pub fn of_policy(agent: SocketAddr, policy: &PolicyKey) -> anyhow::Result<PolicyStatus> {
    let path = format!("{}/{}/{}", policy::PREFIX, policy.namespace, policy.name);
    serde_json::from_str(&get(agent, &path)?).context("it is of another version")
}

fn get(agent: SocketAddr, path: &str) -> anyhow::Result<String> {
    let config = ureq::Agent::config_builder().timeout_global(Some(PATIENCE)).http_status_as_error(false).build();
    let mut response = ureq::Agent::new_with_config(config).get(format!("http://{agent}{path}")).call()?;
    let text = response.body_mut().with_config().limit(LONGEST).read_to_string()?;
    match response.status().as_u16() {
        200 => Ok(text),
        404 => anyhow::bail!("it knows no {path}: it is of another version"),
        status => anyhow::bail!("it answers {status}: {}", text.trim_end()),
    }
}
