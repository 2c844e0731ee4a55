//! `postern status`: how the agent of this node stands, or how it stands with a policy.

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use compiler::api::PolicyKey;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Exit;
use super::output::record;
use crate::args::{OutputArg, StatusArgs, StatusFilterArgs};
use crate::lookup::Lookup;
use crate::status::{self, PolicyStatus, RevisionStatus, Status};
use crate::telemetry::Escaped;

/// How often the agent is asked again.
const INTERVAL: Duration = Duration::from_millis(200);

/// How a node stands with a policy, and whether that is as it should be.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct PolicyLine {
    #[serde(flatten)]
    status: PolicyStatus,
    /// Whether the node enforces it as it is due, or has no pod of it.
    pub(super) in_force: bool,
    /// Why not. Left out where it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    why: Option<String>,
}

pub(super) fn run(args: StatusArgs) -> Result<Exit> {
    let StatusArgs { filter: StatusFilterArgs { policy, wait, output }, admin_address, kubeconfig, due } = args;
    let until = Instant::now() + wait.map_or(Ok(Duration::ZERO), Duration::try_from).context("--wait is negative")?;
    let Some(policy) = policy else {
        let status = patiently(until, || asked(admin_address, status::ask), Status::is_in_force)?;
        let text = || format!("{}  {}", status.node, of_agent(&status, Timestamp::now()));
        print(output, &status, text)?;
        return Ok(if status.is_in_force() { Exit::Done } else { Exit::Unexpected });
    };
    let key = key(&policy)?;
    let due = match due {
        Some(due) => read_due(&due).with_context(|| format!("--due {due:?} is not GENERATION/UID"))?,
        None => self::due(&mut Lookup::new(kubeconfig)?, &key)?,
    };
    let ask = || {
        let status = asked(admin_address, |agent| status::of_policy(agent, &key))?;
        let why = status.lacks(&due);
        Ok(PolicyLine { in_force: why.is_none(), why, status })
    };
    let line = patiently(until, ask, |line| line.in_force)?;
    print(output, &line, || format!("{}  {}", line.status.node, of_policy(&line)))?;
    Ok(if line.in_force { Exit::Done } else { Exit::Unexpected })
}

/// `namespace/name`
pub(super) fn key(policy: &str) -> Result<PolicyKey> {
    let (namespace, name) = policy.split_once('/').unwrap_or(("default", policy));
    anyhow::ensure!(!namespace.is_empty() && !name.is_empty(), "{policy:?} is not NAMESPACE/POLICY");
    Ok(PolicyKey { namespace: namespace.into(), name: name.into() })
}

/// Which text of the policy the API has now.
pub(super) fn due(lookup: &mut Lookup, key: &PolicyKey) -> Result<RevisionStatus> {
    let policy = lookup.policy(key).map_err(|missing| anyhow::anyhow!("the policy cannot be read: {missing}"))?;
    Ok(RevisionStatus::of(&policy.revision))
}

/// As the hidden flag has it.
pub(super) fn due_in_words(due: &RevisionStatus) -> String {
    format!("--due={}/{}", due.generation, due.uid.as_deref().unwrap_or_default())
}

fn read_due(text: &str) -> Option<RevisionStatus> {
    let (generation, uid) = text.split_once('/')?;
    Some(RevisionStatus { generation: generation.parse().ok()?, uid: (!uid.is_empty()).then(|| uid.to_owned()) })
}

fn asked<T>(agent: SocketAddr, ask: impl Fn(SocketAddr) -> Result<T>) -> Result<T> {
    ask(agent).with_context(|| format!("cannot ask the agent at {agent}"))
}

/// Asks until the answer is good, or time is up.
fn patiently<T>(until: Instant, ask: impl Fn() -> Result<T>, is_good: impl Fn(&T) -> bool) -> Result<T> {
    loop {
        let answer = ask();
        if answer.as_ref().is_ok_and(&is_good) || Instant::now() >= until {
            return answer;
        }
        sleep(INTERVAL);
    }
}

fn print(format: OutputArg, value: &impl Serialize, text: impl FnOnce() -> String) -> Result<()> {
    match format.notation() {
        None => Ok(writeln!(io::stdout(), "{}", text())?),
        Some(notation) => record(&mut io::stdout(), notation, value),
    }
}

/// `in force since 12m (generation 57, epoch 391), version 0.1.0; 2 notes`
pub(super) fn of_agent(status: &Status, now: Timestamp) -> String {
    let Status { version, epoch, generation, since, failing, waiting_for, notes, quarantined, .. } = status;
    let state = match (failing, waiting_for.first()) {
        (true, _) => "failing, the kernel holds what it took",
        (false, Some(_)) => "waiting, the kernel holds what it took",
        (false, None) => "in force",
    };
    let held = match (generation, since) {
        (Some(generation), Some(since)) => {
            format!(" since {} (generation {generation}, epoch {epoch})", age(*since, now))
        }
        (Some(generation), None) => format!(" (generation {generation}, epoch {epoch})"),
        (None, _) => " never yet".to_owned(),
    };
    let mut text = format!("{state}{held}, version {version}");
    for waiting in waiting_for {
        text += &format!("; waiting for {}", Escaped(waiting));
    }
    match notes.len() {
        0 => {}
        1 => text += "; 1 note",
        several => text += &format!("; {several} notes"),
    }
    if !quarantined.is_empty() {
        let policies: Vec<&str> = quarantined.keys().map(String::as_str).collect();
        text += &format!("; quarantined: {}", Escaped(policies.join(", ")));
    }
    text
}

/// `in force: generation 3, 2 pods`
pub(super) fn of_policy(line: &PolicyLine) -> String {
    let PolicyLine { status, why, .. } = line;
    let pods = match status.pods {
        0 => "no pod of it".to_owned(),
        1 => "1 pod".to_owned(),
        pods => format!("{pods} pods"),
    };
    match (why, &status.enforced) {
        (Some(why), _) => format!("not in force: {}, {pods}", Escaped(why)),
        (None, Some(enforced)) if status.pods > 0 => format!("in force: generation {}, {pods}", enforced.generation),
        (None, _) => pods,
    }
}

/// `5s`, `12m`, `3h`, `2d`
fn age(since: Timestamp, now: Timestamp) -> String {
    let seconds = now.duration_since(since).as_secs().max(0);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86_400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}
