//! What an agent tells of refused packets, by its command.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::agent::{Agent, binary};

/// How long a denial may take to be told of, on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// What `postern denials` says: status, standard output, standard error.
///
/// # Errors
///
/// If it cannot be run.
pub fn run(socket: &Path, arguments: &[&str]) -> Result<(Option<i32>, String, String)> {
    let mut command = Command::new(binary()?);
    let output = command.arg("denials").arg("--socket").arg(socket).args(arguments).stdin(Stdio::null()).output()?;
    Ok((output.status.code(), String::from_utf8(output.stdout)?, String::from_utf8(output.stderr)?))
}

/// What an agent was told of, as objects.
///
/// # Errors
///
/// If it does not answer, or has something to note.
pub fn all(agent: &Agent, arguments: &[&str]) -> Result<Vec<Value>> {
    let (code, out, told) = run(&agent.socket(), &[&["-o", "json"], arguments].concat())?;
    ensure!(code == Some(0) && told.is_empty(), "{code:?}: {told}");
    out.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

/// One in a line: `egress policy shop/jail -> shop/web ICMP by shop/jail`.
pub fn line(denial: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let end = |end: &Value| text(end.get("pod").unwrap_or(&end["address"]));
    let port = denial.get("port").map_or_else(String::new, |port| format!("{port}/"));
    let by: Vec<String> = denial["isolated_by"].as_array().into_iter().flatten().map(text).collect();
    let [direction, reason, protocol] = ["direction", "reason", "protocol"].map(|field| text(&denial[field]));
    let [source, destination] = ["source", "destination"].map(|field| end(&denial[field]));
    format!("{direction} {reason} {source} -> {destination} {port}{protocol} by {}", by.join(",")).trim_end().to_owned()
}

/// Waits until the agent was told of one whose line begins so.
///
/// # Errors
///
/// If that takes too long; the error holds those of which it was told, and the log.
pub async fn until(agent: &Agent, due: &str) -> Result<Value> {
    let begun = Instant::now();
    loop {
        let told = all(agent, &[])?;
        if let Some(found) = told.iter().find(|denial| line(denial).starts_with(due)) {
            return Ok(found.clone());
        }
        let lines = || told.iter().map(line).collect::<Vec<_>>().join("\n");
        ensure!(begun.elapsed() < PATIENCE, "{due} is not among\n{}\n{}", lines(), agent.log().context("no log")?);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
