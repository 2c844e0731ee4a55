//! `postern explain`: is a flow allowed, by whom, or who isolates.

use std::io;
use std::path::Path;

use compiler::nft::Deny;

use super::input::Asked;
use super::output::Shown;
use super::{Exit, input, output};
use crate::args::{ExplainArgs, ManifestsArgs, OutputArg, ProbesArgs, QuestionArgs};
use crate::explanation::{self, Explained};
use crate::live::{self, Here, Live};
use crate::lookup::Lookup;
use crate::probes::Probe;
use crate::telemetry::Escaped;

pub(super) fn run(args: ExplainArgs) -> anyhow::Result<Exit> {
    let ExplainArgs { manifests, admin_address, question } = args;
    let ManifestsArgs { paths, reading, kubeconfig } = manifests;
    if paths.is_empty() {
        let table = live::kernels_table().unwrap_or_else(|note| {
            eprintln!("note: {note}");
            None
        });
        return ask(question, || Ok(Live::here(Here::new(admin_address, table), Lookup::new(kubeconfig)?)));
    }
    let (probes, mut report) = begin(question)?;
    let Some(loaded) = input::manifests(&paths, reading) else { return Ok(Exit::BadInput) };
    input::has_pods(&loaded, "note");
    let model = input::model(&loaded, &probes, Deny::default());
    for asked in &probes {
        report.add(asked, |probe| explanation::explain(&model, probe).map_err(|error| error.to_string()))?;
    }
    report.end()
}

/// Asks a running cluster.
pub(super) fn ask(question: QuestionArgs, live: impl FnOnce() -> anyhow::Result<Live>) -> anyhow::Result<Exit> {
    let (probes, mut report) = begin(question)?;
    let mut live = live()?;
    for asked in &probes {
        report.add(asked, |probe| live.explain(probe))?;
    }
    for remark in live.remarks() {
        eprintln!("note: {}", Escaped(remark));
    }
    report.end()
}

type Begun = (Vec<Asked>, Report<io::BufWriter<io::StdoutLock<'static>>>);

fn begin(question: QuestionArgs) -> anyhow::Result<Begun> {
    let QuestionArgs { probes, trace, src, dst, port } = question;
    let ProbesArgs { probes: probes_file, output: format } = probes;
    let probes = probes_of(probes_file.as_deref(), src, dst, port)?;
    let out = io::BufWriter::new(io::stdout().lock());
    Ok((probes, Report { out, format, with_path: trace, exit: Exit::Done }))
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
    fn end(mut self) -> anyhow::Result<Exit> {
        self.out.flush()?;
        Ok(self.exit)
    }

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
        match self.format.notation() {
            Some(notation) => output::record(&mut self.out, notation, &answer)?,
            None => {
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
