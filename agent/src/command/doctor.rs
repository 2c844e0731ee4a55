//! `postern doctor`: the health of this node, a line a check.

use std::io::{self, Write as _};

use super::Exit;
use super::output::record;
use crate::args::DoctorArgs;
use crate::doctor::{self, Check, State, Subject};
use crate::telemetry::Escaped;

pub(super) fn run(args: DoctorArgs) -> anyhow::Result<Exit> {
    let DoctorArgs { output, admin_address, socket, kubeconfig, cni_results } = args;
    let checks = doctor::examine(&Subject { agent: admin_address, socket, kubeconfig, cni_results });
    let mut out = io::BufWriter::new(io::stdout().lock());
    for check in &checks {
        match output.notation() {
            Some(notation) => record(&mut out, notation, check)?,
            None => write!(out, "{}", text(check))?,
        }
    }
    out.flush()?;
    let is_wrong = checks.iter().any(|check| check.state == State::Wrong);
    Ok(if is_wrong { Exit::Unexpected } else { Exit::Done })
}

/// A line, and below it why it matters and what to do where there is something.
fn text(check: &Check) -> String {
    let Check { check, state, found, why, remedy } = check;
    let mut text = format!("{:<5}  {check}: {}\n", state.as_str(), Escaped(found));
    for (word, what) in [("why", why), ("do", remedy)] {
        text += &what.map_or_else(String::new, |what| format!("       {word}: {what}\n"));
    }
    text
}
