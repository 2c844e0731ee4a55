//! What commands print.

use std::io::{self, IsTerminal as _, Write};

use compiler::api::Direction;

use super::Exit;
use crate::model::{Model, Side, Verdict};
use crate::probes::{Answer, Probe};

/// Prints one answer as a JSON line.
pub(super) fn json(out: &mut impl Write, answer: &Answer) -> anyhow::Result<()> {
    serde_json::to_writer(&mut *out, answer)?;
    writeln!(out)?;
    Ok(())
}

/// Prints a verdict with its reasons: a line for the flow, and one a direction.
pub(super) fn verdict(
    out: &mut impl Write,
    model: &Model,
    probe: &Probe,
    verdict: &Verdict,
    with_path: bool,
) -> io::Result<()> {
    writeln!(out, "{probe}: {}", word(verdict.allowed()))?;
    reasons(out, model, verdict, with_path)
}

/// Prints what became of a probe's packets, and what the policies say.
pub(super) fn tried(
    out: &mut impl Write,
    model: &Model,
    probe: &Probe,
    allowed: bool,
    verdict: &Verdict,
) -> io::Result<()> {
    writeln!(out, "{probe}: {}", word(allowed))?;
    reasons(out, model, verdict, false)
}

fn word(allowed: bool) -> &'static str {
    if allowed { "allowed" } else { "refused" }
}

/// One line a direction, and below it the nft rules if asked for.
fn reasons(out: &mut impl Write, model: &Model, verdict: &Verdict, with_path: bool) -> io::Result<()> {
    let ends = [
        (Direction::Egress, &verdict.egress, verdict.packet.source),
        (Direction::Ingress, &verdict.ingress, verdict.packet.destination),
    ];
    for (direction, side, address) in ends {
        let end = model.describe(address);
        writeln!(out, "  {:<7} of {end}: {}", direction.as_str(), reason(direction, side))?;
        if with_path {
            for rule in &side.path {
                writeln!(out, "          {rule}")?;
            }
        }
    }
    Ok(())
}

/// Why a direction lets a flow pass or not, in words.
fn reason(direction: Direction, side: &Side) -> String {
    let isolated_by = side.isolated_by().join(", ");
    match (side.rule(direction), side.judgement.allowed) {
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
