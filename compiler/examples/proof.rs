//! Searches for a packet on which the judges differ, as long as asked.
//!
//! ```text
//! cargo run --package compiler --example proof -- VERDICTS SEED [FOLDER]
//! ```
//!
//! Prints how often each thing occurred. Where the judges differ it ends with status 1, after it has printed the
//! smallest cluster that it found, or saved it in FOLDER as a golden: `cluster.yaml`, and in `probes.jsonl` the packet
//! with what the API's words say of it.

#![allow(clippy::disallowed_methods, reason = "this is a tool around the compiler, and writes what it finds")]

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use compiler::policy::oracle::{Content, Packet};
use compiler::sim::{Failure, Search, to_yaml};
use serde_json::{Value, json};

/// How many packets are judged in each cluster. What a cluster costs to compile is worth so many.
const PACKETS: usize = 200;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let numbers: Vec<u64> = arguments.iter().take(2).filter_map(|argument| argument.parse().ok()).collect();
    let &[verdicts, seed] = &numbers[..] else {
        return end_with("usage: proof VERDICTS SEED [FOLDER]", 2);
    };
    let Ok(verdicts) = usize::try_from(verdicts) else { return end_with("that many verdicts cannot be counted", 2) };
    let report = Search { clusters: verdicts.div_ceil(PACKETS), packets: PACKETS, seed }.run();
    say(&report.counts.to_string());
    let (judged, refused) = (report.counts.of("verdicts"), report.counts.of("packet: refused"));
    let summary = format!("{judged} verdicts in {} clusters, {refused} of them refused", report.clusters);
    match (report.failure, arguments.get(2)) {
        (None, _) => end_with(&format!("{summary}: the judges agree"), 0),
        (Some(failure), None) => end_with(&format!("{failure:?}\n{summary}"), 1),
        (Some(failure), Some(folder)) => match save(&failure, Path::new(folder)) {
            Ok(()) => end_with(&format!("{:?}\n{summary}: saved in {folder}", failure.disagreement), 1),
            Err(error) => end_with(&format!("{failure:?}\n{summary}: cannot save in {folder}: {error}"), 1),
        },
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a program of its own, which writes where it is told; the compiler does no I/O"
)]
fn save(failure: &Failure, folder: &Path) -> std::io::Result<()> {
    fs::create_dir_all(folder)?;
    fs::write(folder.join("cluster.yaml"), to_yaml(&failure.cluster.objects))?;
    fs::write(folder.join("probes.jsonl"), format!("{}\n", probe(failure)))
}

/// The packet as a probe, with what is to be expected.
fn probe(failure: &Failure) -> Value {
    let Packet { source, destination, content, .. } = failure.disagreement.packet;
    let (protocol, port) = match content {
        Content::Port(protocol, port) => (json!(protocol), Some(port)),
        Content::Icmp(..) => (json!("ICMP"), None),
    };
    let allowed = failure.disagreement.opinions.allowed();
    let mut probe = json!({"src": source, "dst": destination, "protocol": protocol, "allowed": allowed});
    if let Some(port) = port {
        probe["port"] = json!(port);
    }
    probe
}

#[expect(clippy::print_stdout, reason = "the report of a program that is run by hand")]
fn say(text: &str) {
    println!("{}", text.trim_end());
}

fn end_with(text: &str, status: u8) -> ExitCode {
    say(text);
    ExitCode::from(status)
}
