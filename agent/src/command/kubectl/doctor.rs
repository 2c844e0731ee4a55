//! The health of all nodes: of each what is not as it should be, and whether they are of one version.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write as _};

use anyhow::Result;
use serde_json::{Value, json};

use super::super::Exit;
use super::super::output::record;
use super::each::{gather, listed};
use super::fleet::Fleet;
use super::status;
use crate::args::OutputArg;
use crate::lookup::AgentPod;
use crate::telemetry::Escaped;

/// A check, as `doctor` prints it.
type Check = Value;

pub(super) fn run(fleet: &mut Fleet, format: OutputArg) -> Result<Exit> {
    let flags = ["--admin-address", "--socket", "--cni-results"];
    let words = |agent: &AgentPod| agent.command("doctor", &flags, ["--output=json".to_owned()]);
    let heard = gather(fleet, words)?;
    let mut by_node: BTreeMap<String, Vec<Check>> =
        fleet.agents.keys().map(|node| (node.clone(), Vec::new())).collect();
    for (node, line) in &heard.lines {
        by_node.entry(node.clone()).or_default().extend(serde_json::from_str::<Check>(line));
    }
    for (node, reason) in heard.failures() {
        by_node.entry(node).or_default().push(json!({
            "check": "agent", "state": "wrong", "found": reason,
            "why": "whether the node's policies are enforced cannot be told",
            "do": "kubectl -n kube-system get pods -l app.kubernetes.io/name=postern -o wide",
        }));
    }
    let versions = versions(fleet)?;
    let mut out = io::BufWriter::new(io::stdout().lock());
    let mut is_wrong = false;
    for (node, checks) in by_node {
        is_wrong |= checks.iter().any(|check| check["state"] == "wrong");
        match format.notation() {
            None => write!(out, "{}", text(&node, &checks))?,
            Some(notation) => {
                for check in checks {
                    record(&mut out, notation, &with("node", &node, check))?;
                }
            }
        }
    }
    match format.notation() {
        None => writeln!(out, "{}", in_words(&versions).trim_end())?,
        Some(notation) => record(&mut out, notation, &versions)?,
    }
    out.flush()?;
    Ok(if is_wrong { Exit::Unexpected } else { Exit::Done })
}

/// Whether all agents are of the version of this program.
fn versions(fleet: &mut Fleet) -> Result<Check> {
    let words = |agent: &AgentPod| agent.command("status", &["--admin-address"], ["--output=json".to_owned()]);
    let heard = gather(fleet, words)?;
    let own = env!("CARGO_PKG_VERSION").to_owned();
    let mut nodes: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    for (node, answer) in status::answers(fleet, &heard) {
        let version = answer.ok().and_then(|status| Some(status["version"].as_str()?.to_owned()));
        nodes.entry(version.unwrap_or_else(|| "unknown".to_owned())).or_default().insert(node);
    }
    if nodes.keys().eq([&own]) {
        return Ok(
            json!({"check": "versions", "state": "ok", "found": format!("all agents and this program are {own}")}),
        );
    }
    let found: Vec<String> = nodes.iter().map(|(version, nodes)| format!("{version} on {}", listed(nodes))).collect();
    Ok(json!({
        "check": "versions", "state": "note", "found": format!("this program is {own}; {}", found.join("; ")),
        "why": "what one version tells another may not understand",
        "do": "kubectl -n kube-system rollout status daemonset/postern, and take this program from the same release",
    }))
}

/// How many checks are well, and the others in full.
fn text(node: &str, checks: &[Check]) -> String {
    let of = |state: &str| checks.iter().filter(|check| check["state"] == state).count();
    let mut text = format!("{node}: {} ok, {} to note, {} wrong\n", of("ok"), of("note"), of("wrong"));
    for check in checks.iter().filter(|check| check["state"] != "ok") {
        for line in in_words(check).lines() {
            text += &format!("  {line}\n");
        }
    }
    text
}

fn in_words(check: &Check) -> String {
    let field = |name: &str| check[name].as_str().unwrap_or_default();
    let mut text = format!("{:<5}  {}: {}\n", field("state"), field("check"), Escaped(field("found")));
    for name in ["why", "do"].into_iter().filter(|name| !field(name).is_empty()) {
        text += &format!("       {name}: {}\n", Escaped(field(name)));
    }
    text
}

fn with(name: &str, value: &str, mut check: Check) -> Check {
    if let Some(fields) = check.as_object_mut() {
        fields.insert(name.to_owned(), value.into());
    }
    check
}
