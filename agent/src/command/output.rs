//! What commands print.

use std::io::{self, IsTerminal as _, Write};

use compiler::api::{Direction, escaped};

use super::input::Asked;
use super::{Exit, groups};
use crate::args::OutputArg;
use crate::near_rule::Proposed;
use crate::probes::{Answer, Probe, SideAnswer, Unanswered};
pub(super) use crate::record::record;

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
    if let Some(notation) = format.notation() {
        record(out, notation, &Unanswered { probe, line, error: error.to_owned() })?;
    }
    Ok(())
}

/// What is printed of one flow for people, beside the answer: the names of client and server, and the nft rules that the
/// packet met at each, if they are wanted.
pub(super) struct Shown<'a> {
    pub(super) ends: [&'a str; 2],
    pub(super) paths: [&'a [String]; 2],
}

/// Prints one answer for people: a line for the probe, and one a direction; of a Service the same for each endpoint, of
/// workloads and namespaces for each group of flows that come out alike.
/// `shown` holds one part for each endpoint, or one.
pub(super) fn text(out: &mut impl Write, probe: &Probe, answer: &Answer, shown: &[Shown<'_>]) -> io::Result<()> {
    writeln!(out, "{probe}: {}", answer.summary())?;
    for note in &answer.notes {
        writeln!(out, "  note: {}", escaped(note))?;
    }
    let mut proposed = Vec::new();
    if let (true, Some(part)) = (answer.endpoints.is_empty(), shown.first()) {
        return sides(out, "  ", [&answer.egress, &answer.ingress], part, &mut proposed);
    }
    if answer.service.is_none() || answer.endpoints.iter().any(|endpoint| endpoint.client.is_some()) {
        return groups::text(out, answer, shown);
    }
    for (endpoint, part) in answer.endpoints.iter().zip(shown) {
        let word = if endpoint.allowed { "allowed" } else { "refused" };
        let port = endpoint.port.map_or(String::new(), |port| format!(" port {port}"));
        let through = match (&answer.service, probe.port) {
            (Some(service), Some(asked)) => format!("Service {service} port {asked} -> "),
            (Some(_) | None, _) => String::new(),
        };
        writeln!(out, "  {through}{}{port}: {word}", part.ends[1])?;
        sides(out, "    ", [&endpoint.egress, &endpoint.ingress], part, &mut proposed)?;
    }
    Ok(())
}

/// A line a direction, and what is behind it. A change that is `proposed` already is not written out again.
pub(super) fn sides<'a>(
    out: &mut impl Write,
    indent: &str,
    of: [&'a SideAnswer; 2],
    shown: &Shown<'_>,
    proposed: &mut Vec<&'a Proposed>,
) -> io::Result<()> {
    let directions = [Direction::Egress, Direction::Ingress].into_iter().zip(of);
    for ((direction, side), (end, path)) in directions.zip(shown.ends.into_iter().zip(shown.paths)) {
        writeln!(out, "{indent}{:<7} of {end}: {}", direction.as_str(), side.reason())?;
        for quarantined in &side.quarantined {
            writeln!(out, "{indent}        quarantined: {quarantined}")?;
        }
        if let Some(nearest) = &side.nearest {
            writeln!(out, "{indent}        nearest: {}", nearest.in_words(direction))?;
            match &nearest.change {
                None => {}
                Some(change) if proposed.contains(&change) => writeln!(out, "{indent}        to allow it: as above")?,
                Some(change) => {
                    writeln!(out, "{indent}        to allow it: {}", escaped(&change.command))?;
                    for line in change.lines() {
                        writeln!(out, "{indent}          {line}")?;
                    }
                    proposed.push(change);
                }
            }
        }
        for rule in path {
            writeln!(out, "{indent}        {rule}")?;
        }
    }
    Ok(())
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
