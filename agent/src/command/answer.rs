//! `postern answer`: what `kubectl postern explain` runs in an agent's pod. Each line of standard input is a question.

use std::io::{self, BufRead as _, Write as _};
use std::net::SocketAddr;

use super::Exit;
use crate::live::{self, Here};
use crate::remote::{Hello, Reply};

pub(super) fn run(agent: SocketAddr) -> anyhow::Result<Exit> {
    let (table, note) = match live::kernels_table() {
        Ok(table) => (table, None),
        Err(note) => (None, Some(note)),
    };
    let mut here = Here::new(agent, table);
    let mut out = io::stdout().lock();
    let version = env!("CARGO_PKG_VERSION").to_owned();
    writeln!(out, "{}", serde_json::to_string(&Hello { version, note })?)?;
    out.flush()?;
    for line in io::stdin().lock().lines() {
        let reply = match serde_json::from_str(&line?) {
            Ok(asked) => here.ask(&asked),
            Err(error) => Reply::Reason(format!("the question cannot be read: {error}")),
        };
        writeln!(out, "{}", serde_json::to_string(&reply)?)?;
        out.flush()?;
    }
    Ok(Exit::Done)
}
