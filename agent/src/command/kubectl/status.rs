//! How all nodes stand, a line a node.

use std::io::{self, Write as _};
use std::time::Duration;

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::super::Exit;
use super::super::output::record;
use super::super::status::{PolicyLine, due, due_in_words, key, of_agent, of_policy};
use super::each::{Heard, gather};
use super::fleet::Fleet;
use crate::args::StatusFilterArgs;
use crate::status::Status;
use crate::telemetry::Escaped;

pub(super) fn run(fleet: &mut Fleet, args: &StatusFilterArgs) -> Result<Exit> {
    let StatusFilterArgs { policy, wait, output } = args;
    let mut words = vec!["--output=json".to_owned()];
    if let Some(wait) = wait {
        // Each node waits by itself, and then answers in the time that it has anyway.
        fleet.patience += Duration::try_from(*wait).context("--wait is negative")?;
        words.push(format!("--wait={wait}"));
    }
    if let Some(policy) = policy {
        let key = key(policy)?;
        let due = due(&mut fleet.lookup, &key)?;
        words.extend([due_in_words(&due), key.to_string()]);
    }
    let heard = gather(fleet, |agent| agent.command("status", &["--admin-address"], words.clone()))?;
    let mut out = io::BufWriter::new(io::stdout().lock());
    let width = fleet.width();
    let mut are_all_well = true;
    for (node, answer) in answers(fleet, &heard) {
        let (text, is_well) = match &answer {
            Ok(line) => in_words(line, policy.is_some()),
            Err(reason) => (format!("no answer: {}", Escaped(reason)), false),
        };
        are_all_well &= is_well;
        match output.notation() {
            None => writeln!(out, "{node:<width$}  {text}")?,
            Some(notation) => {
                let line = answer.unwrap_or_else(|error| json!({"node": node, "error": error}));
                record(&mut out, notation, &line)?;
            }
        }
    }
    out.flush()?;
    Ok(if are_all_well { Exit::Done } else { Exit::Unexpected })
}

/// The line of each node, or why it has none.
pub(super) fn answers<'a>(
    fleet: &'a Fleet,
    heard: &'a Heard,
) -> impl Iterator<Item = (&'a str, Result<Value, String>)> {
    let mut failures = heard.failures();
    fleet.agents.keys().map(move |node| {
        let line = heard.lines.iter().find(|(of, _)| of == node).map(|(_, line)| line);
        let answer = match (failures.remove(node), line) {
            (Some(reason), _) => Err(reason),
            (None, Some(line)) => serde_json::from_str(line).map_err(|_| "it is of another version".to_owned()),
            (None, None) => Err("it said nothing".to_owned()),
        };
        (&**node, answer)
    })
}

fn in_words(line: &Value, is_of_policy: bool) -> (String, bool) {
    let other = |_| ("it is of another version, and answers otherwise".to_owned(), false);
    if is_of_policy {
        let line = serde_json::from_value::<PolicyLine>(line.clone());
        return line.map_or_else(other, |line| (of_policy(&line), line.in_force));
    }
    let status = serde_json::from_value::<Status>(line.clone());
    status.map_or_else(other, |status| (of_agent(&status, Timestamp::now()), status.is_in_force()))
}
