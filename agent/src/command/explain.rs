//! `postern explain`: is a flow allowed, by whom, or who isolates.

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::Path;

use anyhow::Context as _;
use compiler::nft::Deny;
use compiler::nft::trace::trace;
use netlink::{Connection, Ownership};

use super::input::Asked;
use super::{Exit, input, output};
use crate::args::{ExplainArgs, OutputArg, ProbesArgs};
use crate::explanation::{self, Explanation};
use crate::probes::Probe;

pub(super) fn run(args: ExplainArgs) -> anyhow::Result<Exit> {
    let ExplainArgs { paths, recursive, strict, admin_address, probes, trace, src, dst, port } = args;
    let ProbesArgs { probes: probes_file, output: format } = probes;
    let probes = probes_of(probes_file.as_deref(), src, dst, port)?;
    let mut report =
        Report { out: io::BufWriter::new(io::stdout().lock()), format, with_path: trace, exit: Exit::Done };
    if paths.is_empty() {
        ask_agent(admin_address, &probes, &mut report)?;
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

/// Asks the agent of this node, and holds what it says against the table that the kernel holds.
fn ask_agent(address: SocketAddr, probes: &[Asked], report: &mut Report<impl io::Write>) -> anyhow::Result<()> {
    let dumped = Connection::open(Ownership::Plain).and_then(|mut connection| connection.dump());
    let table = match dumped {
        Ok(mirror) => mirror.table,
        Err(error) => {
            eprintln!("note: the kernel's table is not compared: {:#}", anyhow::Error::from(error));
            None
        }
    };
    // An agent that does not answer once is not asked again, but what is left of the probes has its lines.
    let mut failure: Option<anyhow::Error> = None;
    for asked in probes {
        report.add(asked, |probe| {
            if let Some(error) = &failure {
                return Err(format!("{error:#}"));
            }
            let answer = explanation::ask(address, probe)
                .with_context(|| format!("cannot ask the agent at {address} (give -f to explain manifests)"));
            let mut explanation = match answer {
                Ok(answer) => answer?,
                Err(error) => {
                    let text = format!("{error:#}");
                    failure = Some(error);
                    return Err(text);
                }
            };
            if let Some(table) = &table {
                let sides = [&explanation.answer.egress, &explanation.answer.ingress].map(|side| side.allowed);
                for (allowed, chain) in sides.into_iter().zip(&explanation.base_chains) {
                    let Some(chain) = chain else { continue };
                    let traced = trace(table, chain, &explanation.first_packet());
                    explanation.disagrees |= traced.is_none_or(|traced| traced.accepted != allowed);
                }
            }
            Ok(explanation)
        })?;
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
    fn add(
        &mut self,
        asked: &Asked,
        explain: impl FnOnce(&Probe) -> Result<Explanation, String>,
    ) -> anyhow::Result<()> {
        let explained = match asked {
            Ok(probe) => explain(probe).map(|explanation| (probe, explanation)),
            Err(bad) => Err(bad.reason.clone()),
        };
        let (probe, explanation) = match explained {
            Ok(explained) => explained,
            Err(reason) => {
                self.exit = self.exit.max(Exit::BadInput);
                return output::unanswered(&mut self.out, self.format, asked, &reason);
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
