//! `postern try`: a throw-away cluster, real packets.

use std::collections::BTreeSet;
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::time::Duration;

use anyhow::Context as _;
use compiler::nft::Deny;
use compiler::policy::Packet;

use super::input::Asked;
use super::output::Shown;
use super::{Exit, input, output};
use crate::args::{AttachmentArg, OutputArg, ProbesArgs, TryArgs};
use crate::explanation::short;
use crate::files::Loaded;
use crate::model::{End, Flow, Model, Question, Route, Several, Verdict};
use crate::probes::{Answer, EndpointAnswer, Probe, ProbeProtocol};
use crate::trial::Trial;
use crate::trial::matrix::{self, Entry, Tried};
use lab::{Attachment, Outcome};

pub(super) fn run(args: TryArgs) -> anyhow::Result<Exit> {
    let TryArgs { files, probes, deny, attachment, timeout } = args;
    let ProbesArgs { probes: probes_file, output: format } = probes;
    let Some(loaded) = input::manifests(&files.paths, files.reading) else { return Ok(Exit::BadInput) };
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

/// What a probe means.
struct Meant {
    service: Option<String>,
    several: Several,
    notes: Vec<String>,
    flows: Vec<Judged>,
}

impl Plan {
    /// Every pair on every declared port, as a matrix or as JSON lines.
    async fn matrix(&self, loaded: &Loaded) -> anyhow::Result<Exit> {
        let mut meant = Vec::new();
        for entry in matrix::entries(&self.model, &loaded.declared_ports) {
            match self.model.routes(&entry.flow) {
                Ok(routes) => {
                    let service = entry.service.clone();
                    meant.push((
                        entry,
                        Meant { service, several: Several::default(), notes: Vec::new(), flows: self.judge(&routes) },
                    ));
                }
                Err(error) => eprintln!("note: {} -> {}: {error}", entry.client, entry.server),
            }
        }
        if meant.is_empty() {
            eprintln!(
                "error: no pod of the manifests has a network of its own and an address, so there is nothing to try"
            );
            return Ok(Exit::BadInput);
        }
        let flows: Vec<Judged> = meant.iter().flat_map(|(_, meant)| meant.flows.iter().cloned()).collect();
        let outcomes = self.send(&flows).await?;
        let mut rest = &outcomes[..];
        let (mut results, mut exit) = (Vec::new(), Exit::Done);
        let mut out = io::BufWriter::new(io::stdout().lock());
        for (entry, meant) in meant {
            let (of_entry, later) = rest.split_at(meant.flows.len());
            rest = later;
            let probe = probe_of(&entry);
            if let Some(notation) = self.format.notation() {
                output::record(&mut out, notation, &self.whole(&probe, &meant, of_entry))?;
            }
            for ((_, verdict), outcome) in meant.flows.iter().zip(of_entry) {
                exit = exit.max(self.check(&self.flow_name(&probe, &meant, verdict), outcome, verdict, None));
                results.push(Tried { entry: entry.clone(), verdict: verdict.clone(), outcome: outcome.clone() });
            }
        }
        if self.format == OutputArg::Text {
            write!(out, "{}", matrix::print(&self.model, &results, output::wants_colour()))?;
        }
        out.flush()?;
        Ok(exit)
    }

    /// The probes of a file, in their order.
    async fn batch(&self, probes: &[Asked]) -> anyhow::Result<Exit> {
        let meant: Vec<Result<Meant, String>> = probes.iter().map(|asked| self.meant(asked)).collect();
        let flows: Vec<Judged> = meant.iter().flatten().flat_map(|meant| meant.flows.iter().cloned()).collect();
        let sent = self.send(&flows).await;
        let mut rest = sent.as_deref().unwrap_or_default();
        let mut exit = Exit::Done;
        let mut out = io::BufWriter::new(io::stdout().lock());
        for (asked, meant) in probes.iter().zip(&meant) {
            let (probe, meant) = match (asked, meant) {
                (Ok(probe), Ok(meant)) => (probe, meant),
                (_, Err(reason)) => {
                    exit = exit.max(Exit::BadInput);
                    output::unanswered(&mut out, self.format, asked, reason)?;
                    continue;
                }
                (Err(bad), Ok(_)) => unreachable!("{bad}: what is no probe is not judged"),
            };
            if let Err(error) = &sent {
                output::unanswered(&mut out, self.format, asked, &format!("{error:#}"))?;
                continue;
            }
            let (outcomes, later) = rest.split_at(meant.flows.len());
            rest = later;
            let failed = outcomes.iter().find_map(|outcome| match outcome {
                Outcome::Error(reason) => Some(reason),
                Outcome::Allowed | Outcome::Refused | Outcome::Rejected => None,
            });
            if let (Some(_), Some(reason)) = (self.format.notation(), failed) {
                output::unanswered(&mut out, self.format, asked, reason)?;
                exit = exit.max(Exit::Unexpected);
                continue;
            }
            self.print(&mut out, probe, meant, outcomes)?;
            for ((_, verdict), outcome) in meant.flows.iter().zip(outcomes) {
                let name = self.flow_name(probe, meant, verdict);
                exit = exit.max(self.check(&name, outcome, verdict, probe.allowed));
            }
        }
        out.flush()?;
        sent.map(|_| exit)
    }

    fn print(
        &self,
        out: &mut impl io::Write,
        probe: &Probe,
        meant: &Meant,
        outcomes: &[Outcome],
    ) -> anyhow::Result<()> {
        let answer = self.whole(probe, meant, outcomes);
        if let Some(notation) = self.format.notation() {
            return output::record(out, notation, &answer);
        }
        let ends: Vec<[String; 2]> = meant
            .flows
            .iter()
            .map(|(_, verdict)| [verdict.packet.source, verdict.packet.destination].map(|end| self.model.describe(end)))
            .collect();
        let shown: Vec<Shown<'_>> =
            ends.iter().map(|[client, server]| Shown { ends: [client, server], paths: [&[], &[]] }).collect();
        Ok(output::text(out, probe, &answer, &shown)?)
    }

    /// The answer to a probe, by what the network did.
    fn whole(&self, probe: &Probe, meant: &Meant, outcomes: &[Outcome]) -> Answer {
        let answers: Vec<Answer> = meant
            .flows
            .iter()
            .zip(outcomes)
            .map(|((_, verdict), outcome)| probe.answer(*outcome == Outcome::Allowed, verdict))
            .collect();
        let endpoint = |(answer, (_, verdict)): (&Answer, &Judged)| EndpointAnswer {
            client: meant.several.clients.then(|| self.name_of(verdict.packet.source)),
            endpoint: self.name_of(verdict.packet.destination),
            address: verdict.packet.destination,
            port: verdict.packet.protocol.port(),
            allowed: answer.allowed,
            egress: answer.egress.clone(),
            ingress: answer.ingress.clone(),
        };
        let is_plain = meant.service.is_none() && meant.several == Several::default() && answers.len() == 1;
        let endpoints = answers.iter().zip(&meant.flows).map(endpoint).collect();
        let whole = if is_plain { None } else { Answer::of_endpoints(probe, meant.service.clone(), endpoints) };
        let answer = whole.unwrap_or_else(|| answers[0].clone());
        Answer { notes: meant.notes.clone(), ..answer }
    }

    fn name_of(&self, address: IpAddr) -> String {
        short(&self.model.describe(address), address)
    }

    /// What a flow is called in complaints: its probe, and its own ends where the probe means several flows.
    fn flow_name(&self, probe: &Probe, meant: &Meant, verdict: &Verdict) -> String {
        let server = || self.name_of(verdict.packet.destination);
        match (meant.several.clients, meant.service.is_some() || meant.several.servers) {
            (false, false) => probe.to_string(),
            (false, true) => format!("{probe} at {}", server()),
            (true, _) => format!("{probe} from {} at {}", self.name_of(verdict.packet.source), server()),
        }
    }

    /// The flows that a probe means, and what the policies say of them.
    fn meant(&self, asked: &Asked) -> Result<Meant, String> {
        let probe = asked.as_ref().map_err(|bad| bad.reason.clone())?;
        let Question { service, several, routes, notes } =
            probe.question(&self.model).map_err(|error| error.to_string())?;
        let is_outside = |route: &Route| self.model.end(route.flow.source) == End::Outside;
        let through = |route: &Route| route.flow.destination != route.packet.destination;
        if routes.iter().any(|route| is_outside(route) && through(route)) {
            return Err("a client outside has no way to a Service here, where nothing stands in front of the nodes; \
                        explain says what policies say of it"
                .to_owned());
        }
        Ok(Meant { service, several, notes, flows: self.judge(&routes) })
    }

    fn judge(&self, routes: &[Route]) -> Vec<Judged> {
        routes.iter().map(|route| (route.flow, self.model.judge(&route.packet))).collect()
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
