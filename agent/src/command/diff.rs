//! `postern diff`: which connections would open or close.

use std::io::{self, Write as _};

use serde::Serialize;

use super::matrix::{called, filter, parts, placed, tell};
use super::output::record;
use super::{Exit, input};
use crate::args::{DiffArgs, FilesArgs, Notation, ReportArg};
use crate::files::applied;
use crate::lookup::{Lookup, Way};
use crate::matrix::changes::{Change, arrivals, changes};
use crate::matrix::{Matrix, page, text};

/// Where nothing is said of how to reach a running cluster, it is reached by this way.
pub(super) fn run(args: DiffArgs, way: Option<Way>) -> anyhow::Result<Exit> {
    let DiffArgs { files: FilesArgs { paths, reading }, against, kubeconfig, output: format, end } = args;
    let filter = filter(end.as_deref())?;
    let after = called(&paths);
    let sets = [called(&against), if against.is_empty() { format!("with {after} applied") } else { after }];
    let Some(files) = input::manifests(&paths, reading) else { return Ok(Exit::BadInput) };
    let (before, after) = if against.is_empty() {
        let before = Lookup::by(Way::to(kubeconfig, way))?.cluster();
        let before = before.map_err(|missing| {
            anyhow::anyhow!("the running cluster cannot be read (give --against to compare with files): {missing}")
        })?;
        let after = applied(&before, &files);
        (before, after)
    } else {
        let Some(before) = input::manifests(&against, reading) else { return Ok(Exit::BadInput) };
        (before, files)
    };
    if !input::has_pods(&before, "note") & !input::has_pods(&after, "note") {
        eprintln!("error: there is nobody between whom anything could open or close");
        return Ok(Exit::BadInput);
    }
    let is_same_input = before.objects == after.objects;
    let [before, after] = [before, after].map(placed);
    let matrix = Matrix::of(&[&before, &after], &filter)?;
    tell(&matrix);
    let changes = changes(&matrix);
    let mut out = io::BufWriter::new(io::stdout().lock());
    match format {
        ReportArg::Text => out.write_all(text::changes(&matrix, &changes).as_bytes())?,
        ReportArg::Markdown => out.write_all(text::markdown(&matrix, &changes).as_bytes())?,
        ReportArg::Html => page::write(&mut out, &matrix, &[&before, &after], &sets)?,
        ReportArg::Json => records(&mut out, Notation::Json, &matrix, &changes)?,
        ReportArg::Yaml => records(&mut out, Notation::Yaml, &matrix, &changes)?,
    }
    out.flush()?;
    let is_compared = matrix.left_out == 0 || is_same_input;
    if !is_compared {
        eprintln!(
            "note: what may be open to or from the CIDRs without rows was not compared, so that this counts as a change"
        );
    }
    let is_same = changes.is_empty() && arrivals(&matrix).next().is_none() && is_compared;
    Ok(if is_same { Exit::Done } else { Exit::Unexpected })
}

/// A pair between which something changes, for programs.
#[derive(Serialize)]
struct Line<'a> {
    from: &'a str,
    to: &'a str,
    opens: Vec<String>,
    closes: Vec<String>,
    /// The same by IPv6, where that differs.
    #[serde(skip_serializing_if = "Option::is_none")]
    opens_v6: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    closes_v6: Option<Vec<String>>,
}

/// Somebody who is there before or after only.
#[derive(Serialize)]
struct Arrival<'a> {
    end: &'a str,
    change: &'a str,
}

fn records(out: &mut impl io::Write, notation: Notation, matrix: &Matrix, changes: &[Change]) -> anyhow::Result<()> {
    for change in changes {
        let (from, to) = (&*matrix.parties[change.from].name, &*matrix.parties[change.to].name);
        let ((opens, opens_v6), (closes, closes_v6)) = (parts(&change.opens), parts(&change.closes));
        record(out, notation, &Line { from, to, opens, closes, opens_v6, closes_v6 })?;
    }
    for (change, party) in arrivals(matrix) {
        record(out, notation, &Arrival { end: &party.name, change })?;
    }
    Ok(())
}
