//! What all nodes say, a line after the other, each with its node.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write as _};

use anyhow::Result;
use serde_json::Value;

use super::super::Exit;
use super::super::output::record;
use super::fleet::Fleet;
use crate::args::{DenialsFilterArgs, FlowsFilterArgs, Notation, OutputArg};
use crate::lookup::AgentPod;
use crate::remote::Said;
use crate::telemetry::Escaped;

/// How many nodes are named that say the same.
const NAMED: usize = 5;

pub(super) fn denials(fleet: &mut Fleet, filter: &DenialsFilterArgs) -> Result<Exit> {
    let words = |agent: &AgentPod| agent.command("denials", &["--socket"], tethered(filter.words(), filter.follow));
    if filter.follow {
        return follow(fleet, words, filter.output);
    }
    let mut heard = gather(fleet, words)?;
    heard.lines.sort_by_cached_key(|(_, line)| last_seen(line, filter.output));
    heard.print(fleet, filter.output)
}

pub(super) fn flows(fleet: &mut Fleet, filter: &FlowsFilterArgs) -> Result<Exit> {
    let words = |agent: &AgentPod| agent.command("flows", &["--admin-address"], tethered(filter.words(), filter.watch));
    if filter.watch {
        return follow(fleet, words, filter.output);
    }
    gather(fleet, words)?.print(fleet, filter.output)
}

fn tethered(mut words: Vec<String>, is_endless: bool) -> Vec<String> {
    words.extend(is_endless.then(|| "--tethered".to_owned()));
    words
}

/// When a denial was seen last, as text that sorts by time.
fn last_seen(line: &str, format: OutputArg) -> String {
    match format {
        OutputArg::Text => line.split(' ').next().unwrap_or_default().to_owned(),
        OutputArg::Json | OutputArg::Yaml => {
            let denial: Value = serde_json::from_str(line).unwrap_or_default();
            denial["last"].as_str().unwrap_or_default().to_owned()
        }
    }
}

/// All that was said.
#[derive(Default)]
pub(super) struct Heard {
    /// The lines with their nodes.
    pub(super) lines: Vec<(String, String)>,
    /// What each node said besides.
    asides: BTreeMap<String, Vec<String>>,
    /// How each ended.
    pub(super) ends: BTreeMap<String, Result<i32, String>>,
}

/// Runs a program that ends on all nodes.
pub(super) fn gather(fleet: &mut Fleet, words: impl Fn(&AgentPod) -> Vec<String>) -> Result<Heard> {
    let mut heard = Heard::default();
    fleet.each(words, false, |node, said| {
        heard.add(node, said);
        Ok(())
    })?;
    Ok(heard)
}

impl Heard {
    fn add(&mut self, node: &str, said: Said) {
        match said {
            Said::Line(line) => self.lines.push((node.to_owned(), line)),
            Said::Aside(line) => self.asides.entry(node.to_owned()).or_default().push(line),
            Said::End(end) => _ = self.ends.insert(node.to_owned(), end),
        }
    }

    /// Why nodes have no answer, or not all of it.
    pub(super) fn failures(&self) -> BTreeMap<String, String> {
        let failure = |(node, end): (&String, &Result<i32, String>)| {
            let reason = match end {
                Ok(0 | 1) => return None,
                Ok(code) => self.last_error(node).unwrap_or_else(|| format!("its program ended with status {code}")),
                Err(reason) => reason.clone(),
            };
            Some((node.clone(), reason))
        };
        self.ends.iter().filter_map(failure).collect()
    }

    fn last_error(&self, node: &str) -> Option<String> {
        let lines = self.asides.get(node)?.iter().rev();
        lines.into_iter().find_map(|line| line.strip_prefix("error: ")).map(str::to_owned)
    }

    /// Says once what nodes have noted, and which have no answer.
    pub(super) fn tell(&self) {
        let mut notes: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for (node, lines) in &self.asides {
            for note in lines.iter().filter_map(|line| line.strip_prefix("note: ")) {
                notes.entry(note).or_default().insert(node);
            }
        }
        for (note, nodes) in notes {
            eprintln!("note: {} ({})", Escaped(note), listed(&nodes));
        }
        self.tell_failures();
    }

    /// Says which nodes have no answer.
    pub(super) fn tell_failures(&self) {
        for (node, reason) in self.failures() {
            eprintln!("missing: node {node}: {}", Escaped(reason));
        }
    }

    /// Prints the lines, and tells the rest.
    fn print(&self, fleet: &Fleet, format: OutputArg) -> Result<Exit> {
        let mut out = io::BufWriter::new(io::stdout().lock());
        for (node, line) in &self.lines {
            write!(out, "{}", with_node(fleet.width(), node, line, format)?)?;
        }
        out.flush()?;
        self.tell();
        Ok(exit(self.ends.len(), self.failures().len()))
    }
}

/// Shows what all nodes say as they say it.
fn follow(fleet: &mut Fleet, words: impl Fn(&AgentPod) -> Vec<String>, format: OutputArg) -> Result<Exit> {
    let width = fleet.width();
    let mut out = io::stdout();
    let mut heard = Heard::default();
    fleet.each(words, true, |node, said| {
        match said {
            Said::Line(line) => {
                write!(out, "{}", with_node(width, node, &line, format)?)?;
                out.flush()?;
            }
            Said::Aside(line) => {
                eprintln!("node {node}: {}", Escaped(&line));
                heard.add(node, Said::Aside(line));
            }
            Said::End(end) => {
                heard.add(node, Said::End(end));
                if let Some(reason) = heard.failures().get(node) {
                    eprintln!("missing: node {node}: {}", Escaped(reason));
                }
            }
        }
        Ok(())
    })?;
    Ok(exit(heard.ends.len(), heard.failures().len()))
}

/// The line of a node, which says whose it is.
fn with_node(width: usize, node: &str, line: &str, format: OutputArg) -> Result<String> {
    let text = || format!("{node:<width$}  {}\n", Escaped(line));
    let Some(notation) = format.notation() else { return Ok(text()) };
    let Some(rest) = line.strip_prefix('{') else { return Ok(text()) };
    let line = format!("{{\"node\":{},{rest}", Value::from(node));
    match notation {
        Notation::Json => Ok(line + "\n"),
        Notation::Yaml => {
            let Ok(value) = serde_json::from_str::<Value>(&line) else { return Ok(text()) };
            let mut document = Vec::new();
            record(&mut document, notation, &value)?;
            Ok(String::from_utf8(document)?)
        }
    }
}

/// A part that is missing is not what was expected; and without any part nothing was done.
fn exit(asked: usize, failed: usize) -> Exit {
    match failed {
        0 => Exit::Done,
        failed if failed == asked => Exit::BadInput,
        _ => Exit::Unexpected,
    }
}

pub(super) fn listed(nodes: &BTreeSet<&str>) -> String {
    let named = nodes.iter().take(NAMED).copied().collect::<Vec<_>>().join(", ");
    match nodes.len().saturating_sub(NAMED) {
        0 => named,
        more => format!("{named} and {more} more"),
    }
}
