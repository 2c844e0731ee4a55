//! `postern explain`: is a flow allowed, by whom, or who isolates.

use std::io;

use super::{Exit, input, output};
use crate::args::{ExplainArgs, OutputArg, ProbesArgs};
use crate::model::Model;
use crate::probes::Probe;
use compiler::nft::Deny;

pub(super) fn run(args: ExplainArgs) -> anyhow::Result<Exit> {
    let ExplainArgs { paths, strict, admin_address, probes, trace, src, dst, port } = args;
    let ProbesArgs { probes: probes_file, output: format } = probes;
    let probes = match (probes_file, src, dst, port) {
        (Some(file), ..) => input::probes(&file)?,
        (None, Some(src), Some(dst), Some(port)) => {
            vec![Probe::from_words(&src, &dst, &port).map_err(anyhow::Error::msg)?]
        }
        (None, ..) => anyhow::bail!("give SRC, DST and PORT/PROTO, or --probes"),
    };
    let Some(loaded) = input::manifests(&paths, strict) else { return Ok(Exit::BadInput) };
    let model = Model::new(&loaded.objects, Deny::default());
    let mut out = io::BufWriter::new(io::stdout().lock());
    let mut exit = Exit::Done;
    for probe in &probes {
        let verdict = match probe.flow(&model).and_then(|flow| model.judge(&flow)) {
            Ok(verdict) => verdict,
            Err(error) => {
                eprintln!("error: {probe}: {error}");
                exit = exit.max(Exit::BadInput);
                continue;
            }
        };
        match format {
            OutputArg::Json => output::json(&mut out, &probe.answer(verdict.allowed(), &verdict))?,
            OutputArg::Text => output::verdict(&mut out, &model, probe, &verdict, trace)?,
        }
        if probe.allowed.is_some_and(|expected| expected != verdict.allowed()) {
            eprintln!("unexpected: {probe}: {}", if verdict.allowed() { "allowed" } else { "refused" });
            exit = exit.max(Exit::Unexpected);
        }
        if verdict.disagrees() {
            eprintln!("disagreement: {probe}: the policies and the compiled table give different answers");
            exit = exit.max(Exit::Disagreement);
        }
    }
    Ok(exit)
}
