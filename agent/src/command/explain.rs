//! `postern explain`: is a flow allowed, by whom, or who isolates.

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::Path;

use anyhow::Context as _;
use compiler::nft::Deny;
use compiler::nft::trace::trace;
use netlink::{Connection, Ownership};

use super::{Exit, input, output};
use crate::args::{ExplainArgs, OutputArg, ProbesArgs};
use crate::explanation::{self, Explanation};
use crate::model::Model;
use crate::probes::Probe;

pub(super) fn run(args: ExplainArgs) -> anyhow::Result<Exit> {
    let ExplainArgs { paths, strict, admin_address, probes, trace, src, dst, port } = args;
    let ProbesArgs { probes: probes_file, output: format } = probes;
    let probes = probes_of(probes_file.as_deref(), src, dst, port)?;
    let mut report =
        Report { out: io::BufWriter::new(io::stdout().lock()), format, with_path: trace, exit: Exit::Done };
    if paths.is_empty() {
        ask_agent(admin_address, &probes, &mut report)?;
    } else {
        let Some(loaded) = input::manifests(&paths, strict) else { return Ok(Exit::BadInput) };
        let model = Model::new(&loaded.objects, Deny::default());
        for probe in &probes {
            report.add(probe, explanation::explain(&model, probe).map_err(|error| error.to_string()))?;
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
) -> anyhow::Result<Vec<Probe>> {
    match (file, src, dst, port) {
        (Some(file), None, ..) => input::probes(file),
        (None, Some(src), Some(dst), Some(port)) => {
            Ok(vec![Probe::from_words(&src, &dst, &port).map_err(anyhow::Error::msg)?])
        }
        (Some(_), Some(_), ..) | (None, ..) => anyhow::bail!("give either SRC, DST and PORT/PROTO, or --probes"),
    }
}

/// Asks the agent of this node, and holds what it says against the table that the kernel holds.
fn ask_agent(address: SocketAddr, probes: &[Probe], report: &mut Report<impl io::Write>) -> anyhow::Result<()> {
    let dumped = Connection::open(Ownership::Plain).and_then(|mut connection| connection.dump());
    let table = match dumped {
        Ok(mirror) => mirror.table,
        Err(error) => {
            eprintln!("note: the kernel's table is not compared: {:#}", anyhow::Error::from(error));
            None
        }
    };
    for probe in probes {
        let mut answer = explanation::ask(address, probe)
            .with_context(|| format!("cannot ask the agent at {address} (give -f to explain manifests)"))?;
        if let (Some(table), Ok(explanation)) = (&table, &mut answer) {
            for (side, chain) in
                [&explanation.answer.egress, &explanation.answer.ingress].into_iter().zip(&explanation.base_chains)
            {
                let Some(chain) = chain else { continue };
                let traced = trace(table, chain, &explanation.first_packet());
                explanation.disagrees |= traced.is_none_or(|traced| traced.accepted != side.allowed);
            }
        }
        report.add(probe, answer)?;
    }
    Ok(())
}

/// What is printed, and how the command ends.
struct Report<W> {
    out: W,
    format: OutputArg,
    with_path: bool,
    exit: Exit,
}

impl<W: io::Write> Report<W> {
    fn add(&mut self, probe: &Probe, explanation: Result<Explanation, String>) -> anyhow::Result<()> {
        let explanation = match explanation {
            Ok(explanation) => explanation,
            Err(reason) => {
                eprintln!("error: {probe}: {reason}");
                self.exit = self.exit.max(Exit::BadInput);
                return Ok(());
            }
        };
        let Explanation { answer, ends: [client, server], paths: [egress, ingress], .. } = &explanation;
        let paths: [&[String]; 2] = if self.with_path { [egress, ingress] } else { [&[], &[]] };
        match self.format {
            OutputArg::Json => output::json(&mut self.out, answer)?,
            OutputArg::Text => output::text(&mut self.out, probe, answer, [client, server], paths)?,
        }
        if probe.allowed.is_some_and(|expected| expected != answer.allowed) {
            eprintln!("unexpected: {probe}: {}", if answer.allowed { "allowed" } else { "refused" });
            self.exit = self.exit.max(Exit::Unexpected);
        }
        if explanation.disagrees {
            eprintln!("disagreement: {probe}: the policies and the table give different answers");
            self.exit = self.exit.max(Exit::Disagreement);
        }
        Ok(())
    }
}
