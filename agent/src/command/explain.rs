//! `postern explain`: is a flow allowed, by whom, or who isolates.

use std::io::{self, Write as _};
use std::path::Path;

use compiler::nft::Deny;

use super::input::Asked;
use super::output::Shown;
use super::{Exit, input, output};
use crate::args::{ExplainArgs, OutputArg, ProbesArgs};
use crate::explanation::{self, Explained};
use crate::live::{self, Live};
use crate::probes::Probe;

pub(super) fn run(args: ExplainArgs) -> anyhow::Result<Exit> {
    let ExplainArgs { paths, recursive, strict, admin_address, kubeconfig, probes, trace, src, dst, port } = args;
    let ProbesArgs { probes: probes_file, output: format } = probes;
    let probes = probes_of(probes_file.as_deref(), src, dst, port)?;
    let mut report =
        Report { out: io::BufWriter::new(io::stdout().lock()), format, with_path: trace, exit: Exit::Done };
    if paths.is_empty() {
        let mut live = Live::new(admin_address, kubeconfig, live::kernels_table())?;
        for asked in &probes {
            report.add(asked, |probe| live.explain(probe))?;
        }
    } else {
        let Some(loaded) = input::manifests(&paths, recursive, strict) else { return Ok(Exit::BadInput) };
        input::has_pods(&loaded, "note");
        let model = input::model(&loaded, &probes, Deny::default());
        for asked in &probes {
            report.add(asked, |probe| explanation::explain(&model, probe).map_err(|error| error.to_string()))?;
        }
    }
    report.out.flush()?;
    Ok(report.exit)
}

fn probes_of(
    file: Option<&Path>,
    src: Option<String>,
    dst: Option<String>,
    port: Option<String>,
) -> anyhow::Result<Vec<Asked>> {
    match (file, src, dst, port) {
        (Some(file), None, ..) => input::probes(file),
        (None, Some(src), Some(dst), Some(port)) => {
            Ok(vec![Ok(Probe::from_words(&src, &dst, &port).map_err(anyhow::Error::msg)?)])
        }
        (Some(_), Some(_), ..) | (None, ..) => anyhow::bail!("give either SRC, DST and PORT/PROTO, or --probes"),
    }
}

/// What is printed, and how the command ends.
struct Report<W> {
    out: W,
    format: OutputArg,
    with_path: bool,
    exit: Exit,
}

impl<W: io::Write> Report<W> {
    fn add(&mut self, asked: &Asked, explain: impl FnOnce(&Probe) -> Result<Explained, String>) -> anyhow::Result<()> {
        let explained = match asked {
            Ok(probe) => explain(probe).map(|explained| (probe, explained)),
            Err(bad) => Err(bad.reason.clone()),
        };
        let (probe, Explained { answer, parts }) = match explained {
            Ok(explained) => explained,
            Err(reason) => {
                self.exit = self.exit.max(Exit::BadInput);
                return output::unanswered(&mut self.out, self.format, asked, &reason);
            }
        };
        match self.format {
            OutputArg::Json => output::json(&mut self.out, &answer)?,
            OutputArg::Text => {
                let shown: Vec<Shown<'_>> = parts
                    .iter()
                    .map(|part| {
                        let [client, server] = &part.ends;
                        let [egress, ingress] = &part.paths;
                        let paths: [&[String]; 2] = if self.with_path { [egress, ingress] } else { [&[], &[]] };
                        Shown { ends: [client, server], paths }
                    })
                    .collect();
                output::text(&mut self.out, probe, &answer, &shown)?;
            }
        }
        if !answer.is_expected(probe.allowed) {
            eprintln!("unexpected: {probe}: {}", answer.summary());
            self.exit = self.exit.max(Exit::Unexpected);
        }
        if parts.iter().any(|part| part.disagrees) {
            eprintln!("disagreement: {probe}: the policies and the table give different answers");
            self.exit = self.exit.max(Exit::Disagreement);
        }
        Ok(())
    }
}
