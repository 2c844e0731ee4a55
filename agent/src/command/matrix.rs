//! `postern matrix`: who may talk to whom, by workload and port.

use std::collections::BTreeSet;
use std::io::{self, Write as _};
use std::path::PathBuf;

use compiler::api::escaped;
use compiler::nft::Deny;
use serde::Serialize;

use super::{Exit, input, output};
use crate::args::{ManifestsArgs, MatrixArgs, MatrixOutputArg, Notation};
use crate::files::Loaded;
use crate::lookup::{Lookup, Way};
use crate::matrix::{Filter, Matrix, Open, page, text};
use crate::model::{Model, Named};

/// Where nothing is said of how to reach a running cluster, it is reached by this way.
pub(super) fn run(args: MatrixArgs, way: Option<Way>) -> anyhow::Result<Exit> {
    let MatrixArgs { manifests: ManifestsArgs { paths, reading, kubeconfig }, output: format, end } = args;
    let filter = filter(end.as_deref())?;
    let name = called(&paths);
    let loaded = if paths.is_empty() {
        Lookup::by(Way::to(kubeconfig, way))?
            .cluster()
            .map_err(|missing| anyhow::anyhow!("the cluster cannot be read: {missing}"))?
    } else {
        let Some(loaded) = input::manifests(&paths, reading) else { return Ok(Exit::BadInput) };
        loaded
    };
    if !input::has_pods(&loaded, "error") {
        return Ok(Exit::BadInput);
    }
    let model = placed(loaded);
    let matrix = Matrix::of(&[&model], &filter)?;
    tell(&matrix);
    let mut out = io::BufWriter::new(io::stdout().lock());
    match format {
        MatrixOutputArg::Text => out.write_all(text::matrix(&matrix, output::wants_colour()).as_bytes())?,
        MatrixOutputArg::Json => records(&mut out, Notation::Json, &matrix)?,
        MatrixOutputArg::Yaml => records(&mut out, Notation::Yaml, &matrix)?,
        MatrixOutputArg::Html => page::write(&mut out, &matrix, &[&model], &[name])?,
    }
    out.flush()?;
    Ok(Exit::Done)
}

fn records(out: &mut impl io::Write, notation: Notation, matrix: &Matrix) -> anyhow::Result<()> {
    for cell in &matrix.cells {
        let (from, to) = (&*matrix.parties[cell.from].name, &*matrix.parties[cell.to].name);
        let (ports, ports_v6) = parts(&cell.open[0]);
        output::record(out, notation, &Line { from, to, ports, ports_v6 })?;
    }
    Ok(())
}

/// A pair for programs.
#[derive(Serialize)]
struct Line<'a> {
    from: &'a str,
    to: &'a str,
    /// As [`crate::matrix::Ports::parts`] gives them; empty where nothing is open.
    ports: Vec<String>,
    /// The same by IPv6, where that differs.
    #[serde(skip_serializing_if = "Option::is_none")]
    ports_v6: Option<Vec<String>>,
}

/// What is open for programs: in both families or the only one; and by IPv6, where that differs.
pub(super) fn parts(open: &Open) -> (Vec<String>, Option<Vec<String>>) {
    let parts =
        |ports: &Option<crate::matrix::Ports>| ports.as_ref().map(crate::matrix::Ports::parts).unwrap_or_default();
    match open.alike() {
        Some(ports) => (ports.parts(), None),
        None => (parts(&open.v4), open.v6.is_some().then(|| parts(&open.v6))),
    }
}

/// What a cluster is called that was read from these files, or from the API server where there are none.
pub(super) fn called(paths: &[PathBuf]) -> String {
    let names: Vec<String> = paths.iter().map(|path| escaped(&path.to_string_lossy()).into_owned()).collect();
    if names.is_empty() { "the running cluster".to_owned() } else { names.join(" ") }
}

/// The pairs that the name of an end leaves.
pub(super) fn filter(end: Option<&str>) -> anyhow::Result<Filter> {
    Ok(match end {
        Some(end) => Filter::Of(Named::read(end)?),
        None => Filter::All,
    })
}

/// The model of what was read, in which also pods without an address have one: what policies mean for them when they run.
pub(super) fn placed(loaded: Loaded) -> Model {
    let loaded = Loaded { without_address: BTreeSet::new(), ..loaded };
    input::model(&loaded, &[], Deny::default())
}

/// Says what is to be said besides.
pub(super) fn tell(matrix: &Matrix) {
    for note in &matrix.notes {
        eprintln!("note: {note}");
    }
}
