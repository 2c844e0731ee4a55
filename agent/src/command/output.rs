//! What commands print.

use std::io::{self, IsTerminal as _, Write};

use compiler::api::{Direction, escaped};

use super::Exit;
use super::input::Asked;
use crate::args::OutputArg;
use crate::probes::{Answer, Probe, SideAnswer, Unanswered};

/// Prints one answer as a JSON line.
pub(super) fn json(out: &mut impl Write, answer: &Answer) -> anyhow::Result<()> {
    serde_json::to_writer(&mut *out, answer)?;
    writeln!(out)?;
    Ok(())
}

/// Says that a probe has no answer: on standard error, and in JSON on a line in the place of the answer.
pub(super) fn unanswered(out: &mut impl Write, format: OutputArg, asked: &Asked, error: &str) -> anyhow::Result<()> {
    let (probe, line) = match asked {
        Ok(probe) => {
            eprintln!("error: {probe}: {}", escaped(error));
            (Some(probe), None)
        }
        Err(bad) => {
            eprintln!("error: {}", escaped(&bad.to_string()));
            (None, Some(bad.line))
        }
    };
    if format == OutputArg::Json {
        serde_json::to_writer(&mut *out, &Unanswered { probe, line, error: error.to_owned() })?;
        writeln!(out)?;
    }
    Ok(())
}

/// Prints one answer for people: a line for the flow, and one a direction. `ends` are the names of client and server,
/// `paths` the nft rules that the packet met at each, if they are wanted.
pub(super) fn text(
    out: &mut impl Write,
    probe: &Probe,
    answer: &Answer,
    ends: [&str; 2],
    paths: [&[String]; 2],
) -> io::Result<()> {
    writeln!(out, "{probe}: {}", if answer.allowed { "allowed" } else { "refused" })?;
    let sides = [(Direction::Egress, &answer.egress), (Direction::Ingress, &answer.ingress)];
    for ((direction, side), (end, path)) in sides.into_iter().zip(ends.into_iter().zip(paths)) {
        writeln!(out, "  {:<7} of {end}: {}", direction.as_str(), reason(side))?;
        for quarantined in &side.quarantined {
            writeln!(out, "          quarantined: {quarantined}")?;
        }
        for rule in path {
            writeln!(out, "          {rule}")?;
        }
    }
    Ok(())
}

/// Why a direction lets a flow pass or not, in words.
fn reason(side: &SideAnswer) -> String {
    let isolated_by = side.isolated_by.join(", ");
    match (&side.rule, side.allowed) {
        (Some(rule), _) => format!("isolated by {isolated_by}; allowed by {rule}"),
        (None, true) if isolated_by.is_empty() => "not isolated".to_string(),
        (None, true) => format!("isolated by {isolated_by}; no policy may block this flow"),
        (None, false) => format!("isolated by {isolated_by}; no rule allows it"),
    }
}

/// Whether standard output wants colours: a terminal, and nobody said no (<https://no-color.org>).
pub(super) fn wants_colour() -> bool {
    io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// `postern version`
pub(super) fn version() -> anyhow::Result<Exit> {
    writeln!(io::stdout(), "postern {}", env!("CARGO_PKG_VERSION"))?;
    Ok(Exit::Done)
}
