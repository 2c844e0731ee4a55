//! `postern try`: a throw-away cluster, real packets.

use std::collections::BTreeSet;
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::time::Duration;

use anyhow::Context as _;
use compiler::nft::Deny;
use compiler::policy::Packet;

use super::input::Asked;
use super::{Exit, input, output};
use crate::args::{AttachmentArg, OutputArg, ProbesArgs, TryArgs};
use crate::files::Loaded;
use crate::model::{End, Flow, Model, Verdict};
use crate::probes::{Probe, ProbeProtocol};
use crate::trial::Trial;
use crate::trial::matrix::{self, Entry, Tried};
use lab::{Attachment, Outcome};

pub(super) fn run(args: TryArgs) -> anyhow::Result<Exit> {
    let TryArgs { files, probes, deny, attachment, timeout } = args;
    let ProbesArgs { probes: probes_file, output: format } = probes;
    let Some(loaded) = input::manifests(&files.paths, files.recursive, files.strict) else { return Ok(Exit::BadInput) };
    if !input::has_pods(&loaded, "error") {
        return Ok(Exit::BadInput);
    }
    let probes = probes_file.map(|file| input::probes(&file)).transpose()?;
    // Threads cannot change their user namespace, so this comes before any runtime.
    lab::enter()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start")?;
    let plan = Plan {
        model: input::model(&loaded, probes.as_deref().unwrap_or_default(), deny.into()),
        deny: deny.into(),
        attachment: match attachment {
            AttachmentArg::Routed => Attachment::Routed,
            AttachmentArg::Bridged => Attachment::Bridged,
        },
        window: Duration::from_millis(timeout),
        format,
    };
    runtime.block_on(async {
        match probes {
            Some(probes) => plan.batch(&probes).await,
            None => plan.matrix(&loaded).await,
        }
    })
}

/// What is tried.
struct Plan {
    model: Model,
    deny: Deny,
    attachment: Attachment,
    window: Duration,
    format: OutputArg,
}

/// A flow with what the policies say of it.
type Judged = (Flow, Verdict);

impl Plan {
    /// Every pair on every declared port, as a matrix or as JSON lines.
    async fn matrix(&self, loaded: &Loaded) -> anyhow::Result<Exit> {
        let mut judged = Vec::new();
        for entry in matrix::entries(&self.model, &loaded.declared_ports) {
            let verdict = self.model.judge(&entry.flow).context("a pair of the matrix cannot be judged")?;
            judged.push((entry, verdict));
        }
        if judged.is_empty() {
            eprintln!(
                "error: no pod of the manifests has a network of its own and an address, so there is nothing to try"
            );
            return Ok(Exit::BadInput);
        }
        let flows: Vec<Judged> = judged.iter().map(|(entry, verdict)| (entry.flow, verdict.clone())).collect();
        let outcomes = self.send(&flows).await?;
        let results: Vec<Tried> = judged
            .into_iter()
            .zip(outcomes)
            .map(|((entry, verdict), outcome)| Tried { entry, verdict, outcome })
            .collect();
        let mut out = io::BufWriter::new(io::stdout().lock());
        match self.format {
            OutputArg::Text => write!(out, "{}", matrix::print(&self.model, &results, output::wants_colour()))?,
            OutputArg::Json => {
                for result in &results {
                    let allowed = result.outcome == Outcome::Allowed;
                    output::json(&mut out, &probe_of(&result.entry).answer(allowed, &result.verdict))?;
                }
            }
        }
        out.flush()?;
        let exits = results
            .iter()
            .map(|result| self.check(&probe_of(&result.entry).to_string(), &result.outcome, &result.verdict, None));
        Ok(exits.max().unwrap_or(Exit::Done))
    }

    /// The probes of a file, in their order.
    async fn batch(&self, probes: &[Asked]) -> anyhow::Result<Exit> {
        let judged: Vec<Result<Judged, String>> = probes.iter().map(|asked| self.judge(asked)).collect();
        let flows: Vec<Judged> = judged.iter().flatten().cloned().collect();
        let sent = self.send(&flows).await;
        let mut outcomes = sent.as_ref().ok().into_iter().flatten();
        let mut exit = Exit::Done;
        let mut out = io::BufWriter::new(io::stdout().lock());
        for (asked, judged) in probes.iter().zip(&judged) {
            let (probe, verdict) = match (asked, judged) {
                (Ok(probe), Ok((_, verdict))) => (probe, verdict),
                (_, Err(reason)) => {
                    exit = exit.max(Exit::BadInput);
                    output::unanswered(&mut out, self.format, asked, reason)?;
                    continue;
                }
                (Err(bad), Ok(_)) => unreachable!("{bad}: what is no probe is not judged"),
            };
            let outcome = match (&sent, outcomes.next()) {
                (Ok(_), Some(outcome)) => outcome,
                (Ok(_), None) => unreachable!("every flow that is sent has an outcome"),
                (Err(error), _) => {
                    output::unanswered(&mut out, self.format, asked, &format!("{error:#}"))?;
                    continue;
                }
            };
            let allowed = *outcome == Outcome::Allowed;
            match (self.format, outcome) {
                (OutputArg::Json, Outcome::Error(reason)) => {
                    output::unanswered(&mut out, self.format, asked, reason)?;
                    exit = exit.max(Exit::Unexpected);
                    continue;
                }
                (OutputArg::Json, _) => output::json(&mut out, &probe.answer(allowed, verdict))?,
                (OutputArg::Text, _) => {
                    let (client, server) =
                        (self.model.describe(verdict.packet.source), self.model.describe(verdict.packet.destination));
                    output::text(&mut out, probe, &probe.answer(allowed, verdict), [&client, &server], [&[], &[]])?;
                }
            }
            exit = exit.max(self.check(&probe.to_string(), outcome, verdict, probe.allowed));
        }
        out.flush()?;
        sent.map(|_| exit)
    }

    /// The flow that a probe means, and what the policies say of it.
    fn judge(&self, asked: &Asked) -> Result<Judged, String> {
        let probe = asked.as_ref().map_err(|bad| bad.reason.clone())?;
        let flow = probe.flow(&self.model);
        let judged = flow.and_then(|flow| self.model.judge(&flow).map(|verdict| (flow, verdict)));
        judged.map_err(|error| error.to_string())
    }

    async fn send(&self, flows: &[Judged]) -> anyhow::Result<Vec<Outcome>> {
        let packets: Vec<(Flow, Packet)> = flows.iter().map(|(flow, verdict)| (*flow, verdict.packet)).collect();
        let ends = packets.iter().flat_map(|(flow, packet)| [flow.source, packet.destination]);
        let outside: BTreeSet<IpAddr> = ends.filter(|address| self.model.end(*address) == End::Outside).collect();
        let trial = Trial::start(&self.model, outside, self.attachment, self.deny).await?;
        Ok(trial.probe(&packets, self.window).await)
    }

    /// Holds what the network did against the policies, and against what the author of the probe expects.
    fn check(&self, probe: &str, outcome: &Outcome, verdict: &Verdict, expected: Option<bool>) -> Exit {
        let said = if verdict.allowed() { "allow" } else { "refuse" };
        match outcome {
            Outcome::Error(reason) => eprintln!("unexpected: {probe}: {reason}"),
            _ if !matrix::is_as_expected(outcome, verdict) => {
                eprintln!("unexpected: {probe}: the policies {said} it, the packets were {}", passive(outcome));
            }
            _ if expected.is_some_and(|expected| expected != verdict.allowed()) => {
                eprintln!("unexpected: {probe}: {}", passive(outcome));
            }
            _ if verdict.disagrees() => {
                eprintln!("disagreement: {probe}: the policies and the compiled table give different answers");
                return Exit::Disagreement;
            }
            Outcome::Allowed | Outcome::Refused | Outcome::Rejected => return Exit::Done,
        }
        Exit::Unexpected
    }
}

fn passive(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Allowed => "allowed",
        Outcome::Refused => "refused",
        Outcome::Rejected => "rejected",
        Outcome::Error(_) => "not sent",
    }
}

/// The probe that asks for one cell of the matrix.
fn probe_of(entry: &Entry) -> Probe {
    let (protocol, port) = match entry.flow.protocol {
        compiler::policy::PacketProtocol::Port(protocol, port) => (protocol.into(), Some(port)),
        compiler::policy::PacketProtocol::Echo => (ProbeProtocol::Icmp, None),
    };
    Probe { src: entry.flow.source.to_string(), dst: entry.flow.destination.to_string(), protocol, port, allowed: None }
}
