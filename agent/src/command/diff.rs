//! `postern diff`: which connections would open or close.

use std::io::{self, Write as _};

use compiler::api::escaped;
use serde::Serialize;

use super::matrix::{called, filter, parts, placed, tell};
use super::output::record;
use super::{Exit, input};
use crate::args::{DiffArgs, FilesArgs, Notation, ReportArg};
use crate::files::applied;
use crate::lookup::{Lookup, Way};
use crate::matrix::changes::{Change, arrivals, changes};
use crate::matrix::traffic::{Affected, SeenEnd, Traffic, cut, healed};
use crate::matrix::{Matrix, page, text};

/// Asks for the traffic of a cluster, and says whether all of it was told.
pub(super) type Ask<'a> = &'a mut dyn FnMut() -> anyhow::Result<(Traffic, bool)>;

/// Where nothing is said of how to reach a running cluster, it is reached by this way. If its traffic can be asked for, what
/// the changes mean for it is said, too.
pub(super) fn run(args: DiffArgs, way: Option<Way>, traffic: Option<Ask<'_>>) -> anyhow::Result<Exit> {
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
    let mut matrix = Matrix::of(&[&before, &after], &filter)?;
    tell(&matrix);
    let changes = changes(&matrix);
    let (traffic, is_whole) = traffic.map_or(Ok((Traffic::default(), true)), |ask| ask())?;
    let meant = Meant { cut: cut(&matrix, &changes, &traffic), healed: healed(&matrix, &changes, &traffic) };
    let mut out = io::BufWriter::new(io::stdout().lock());
    match format {
        ReportArg::Text => {
            out.write_all(text::changes(&matrix, &changes).as_bytes())?;
            meant.lines(&matrix).try_for_each(|line| writeln!(out, "{line}"))?;
        }
        ReportArg::Markdown => {
            out.write_all(text::markdown(&matrix, &changes).as_bytes())?;
            let mut lines = meant.lines(&matrix).peekable();
            if lines.peek().is_some() {
                writeln!(out)?;
            }
            lines.try_for_each(|line| writeln!(out, "- {line}"))?;
        }
        ReportArg::Html => {
            let lines: Vec<String> = meant.lines(&matrix).collect();
            matrix.notes.extend(lines);
            page::write(&mut out, &matrix, &[&before, &after], &sets)?;
        }
        ReportArg::Json => records(&mut out, Notation::Json, &matrix, &changes, &meant)?,
        ReportArg::Yaml => records(&mut out, Notation::Yaml, &matrix, &changes, &meant)?,
    }
    out.flush()?;
    let is_compared = matrix.left_out == 0 || is_same_input;
    if !is_compared {
        eprintln!(
            "note: what may be open to or from the CIDRs without rows was not compared, so that this counts as a change"
        );
    }
    let is_same = changes.is_empty() && arrivals(&matrix).next().is_none() && is_compared && is_whole;
    Ok(if is_same { Exit::Done } else { Exit::Unexpected })
}

/// What the changes mean for the traffic that there is.
struct Meant {
    cut: Vec<Affected>,
    healed: Vec<Affected>,
}

impl Meant {
    /// Those of a kind, with the word for what becomes of them.
    fn kinds(&self) -> [(&'static str, &[Affected]); 2] {
        [("open flows it cuts", &self.cut), ("refused packets it lets pass", &self.healed)]
    }

    /// `open flows it cuts: 2 deploy/shop/web -> sts/shop/db 5432/TCP, such as shop/web-1 (10.0.0.1) -> shop/db-0 (10.0.1.1)`
    fn lines<'a>(&'a self, matrix: &'a Matrix) -> impl Iterator<Item = String> + 'a {
        self.kinds().into_iter().flat_map(move |(what, all)| {
            all.iter().map(move |Affected { from, to, port, count, such_as }| {
                let [from, to] = [from, to].map(|place| &*matrix.parties[*place].name);
                let [client, server] = such_as.each_ref().map(in_words);
                format!("{what}: {count} {from} -> {to} {port}, such as {client} -> {server}")
            })
        })
    }
}

fn in_words(end: &SeenEnd) -> String {
    let SeenEnd { pod, address } = end;
    pod.as_ref().map_or_else(|| address.to_string(), |pod| format!("{} ({address})", escaped(pod)))
}

/// Traffic that changes mean something for, for programs.
#[derive(Serialize)]
struct AffectedLine<'a> {
    from: &'a str,
    to: &'a str,
    port: &'a str,
    /// How many open flows it cuts. Left out where it cuts none.
    #[serde(skip_serializing_if = "Option::is_none")]
    cut_flows: Option<u64>,
    /// How many packets that were refused lately would pass. Left out where none would.
    #[serde(skip_serializing_if = "Option::is_none")]
    healed_packets: Option<u64>,
    /// The first of it.
    client: String,
    server: String,
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

fn records(
    out: &mut impl io::Write,
    notation: Notation,
    matrix: &Matrix,
    changes: &[Change],
    meant: &Meant,
) -> anyhow::Result<()> {
    for change in changes {
        let (from, to) = (&*matrix.parties[change.from].name, &*matrix.parties[change.to].name);
        let ((opens, opens_v6), (closes, closes_v6)) = (parts(&change.opens), parts(&change.closes));
        record(out, notation, &Line { from, to, opens, closes, opens_v6, closes_v6 })?;
    }
    for (change, party) in arrivals(matrix) {
        record(out, notation, &Arrival { end: &party.name, change })?;
    }
    for (affected, is_cut) in meant.cut.iter().map(|a| (a, true)).chain(meant.healed.iter().map(|a| (a, false))) {
        let Affected { from, to, port, count, such_as } = affected;
        let [from, to] = [from, to].map(|place| &*matrix.parties[*place].name);
        let [client, server] = such_as.each_ref().map(in_words);
        let (cut_flows, healed_packets) = if is_cut { (Some(*count), None) } else { (None, Some(*count)) };
        record(out, notation, &AffectedLine { from, to, port, cut_flows, healed_packets, client, server })?;
    }
    Ok(())
}
