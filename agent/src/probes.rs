//! Probes as people and programs write them, and results as they are printed: the batch form of `explain` and `try`.
//!
//! ```text
//! {"src":"ns/pod or IP","dst":"ns/pod, svc/ns/name or IP","protocol":"TCP|UDP|SCTP|ICMP","port":80}
//! ```
//!
//! How ends are named is [`Named`](crate::model::Named)'s to say.
//! A probe may say `"allowed":true` or `false`: what its author expects, which is then checked.

use std::collections::BTreeSet;
use std::fmt;
use std::io::BufRead;
use std::net::IpAddr;

use compiler::api::{Direction, Protocol, escaped};
use compiler::policy::{Judgement, PacketProtocol};
use serde::{Deserialize, Serialize};

use crate::model::{EndError, Model, Question, Side, Verdict, isolated_by, rule};
use crate::near_rule::NearRule;

/// One probe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Probe {
    /// The client: `namespace/pod` or an address.
    pub src: String,
    /// The server: `namespace/pod` or an address.
    pub dst: String,
    /// The protocol.
    pub protocol: ProbeProtocol,
    /// The server's port; none for ICMP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// What the author of the probe expects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed: Option<bool>,
}

/// The protocol of a probe. In any case of letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE", try_from = "String")]
pub enum ProbeProtocol {
    /// A connection.
    Tcp,
    /// A datagram and its answer.
    Udp,
    /// An association's first exchange.
    Sctp,
    /// An echo request and its answer, of ICMP or ICMPv6.
    Icmp,
}

/// What came of one probe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The client, as the probe names it.
    pub src: String,
    /// The server, as the probe names it.
    pub dst: String,
    /// The protocol.
    pub protocol: ProbeProtocol,
    /// The server's port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Whether the flow passes.
    pub allowed: bool,
    /// What the client's side says. Where several flows are meant, of the first that is refused, or else of the first.
    pub egress: SideAnswer,
    /// What the server's side says of the same flow.
    pub ingress: SideAnswer,
    /// `namespace/name` of the Service that is asked about. Left out where none is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// What comes of each flow that the probe means, by the name of the server. Left out where the ends say it all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<EndpointAnswer>,
    /// What is to be said besides, in words. Left out where nothing is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// On what it depends besides that is not known here, `unless ..`. Left out where it depends on nothing else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub doubt: Option<String>,
}

/// What came of one of several flows that a probe means: to an endpoint of a Service, or between pods of a workload or a
/// namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointAnswer {
    /// The same of the client, where the probe names several. Left out where it names one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// `namespace/pod`, `node name`, or the address of anybody else.
    pub endpoint: String,
    /// The endpoint's address.
    pub address: IpAddr,
    /// The port there, which may be another than the Service's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Whether the flow passes.
    pub allowed: bool,
    /// What the client's side says.
    pub egress: SideAnswer,
    /// What the server's side says.
    pub ingress: SideAnswer,
}

/// What one direction says of a probe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SideAnswer {
    /// Whether this direction lets the flow pass.
    pub allowed: bool,
    /// Who isolates the end: `namespace/policy`, or `Namespace name` for the annotation of Kubernetes 1.3.
    pub isolated_by: Vec<String>,
    /// The rule that allows the flow, `namespace/policy ingress[0]`; null where none is needed or none does.
    pub rule: Option<String>,
    /// Which of the policies that isolate the end are in quarantine, and why. Left out where none is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub quarantined: Vec<String>,
    /// The node whose agent decides this direction and was not asked. Left out where this one decides, or nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub elsewhere: Option<String>,
    /// Where that agent was asked: why it gave no answer. Left out where it was not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unanswered: Option<String>,
    /// What refuses the flow that is no policy: `gate`, `source`, `destination`, `link-local` or `tag`, as in denials. Left
    /// out where none of them does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<String>,
    /// The same in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused_by: Option<String>,
    /// Where policies refuse the flow: the rule that comes nearest to allowing it. Left out where they do not, and where
    /// it was not asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nearest: Option<NearRule>,
}

/// What stands in the place of an [`Answer`] where there is none, so that every probe has its line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unanswered<'a> {
    /// The probe, if the line holds one.
    #[serde(flatten)]
    pub probe: Option<&'a Probe>,
    /// The line of the list, from 1, if it holds none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// Why there is no answer.
    pub error: String,
}

/// Why a list of probes cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ProbesError {
    /// The list cannot be read at all.
    #[error("cannot read the probes")]
    Read(#[from] std::io::Error),
    /// One line is no probe.
    #[error(transparent)]
    Line(#[from] LineError),
}

/// A line of a list that is no probe.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("probe on line {line}: {reason}")]
pub struct LineError {
    /// Counted from 1.
    pub line: usize,
    /// What is wrong.
    pub reason: String,
}

/// Reads JSON lines, all of which have to be probes; empty lines are passed over.
pub fn read(lines: impl BufRead) -> Result<Vec<Probe>, ProbesError> {
    read_each(lines)?.into_iter().map(|probe| probe.map_err(ProbesError::from)).collect()
}

/// Reads JSON lines, each for itself; empty lines are passed over.
pub fn read_each(lines: impl BufRead) -> Result<Vec<Result<Probe, LineError>>, ProbesError> {
    let mut probes = Vec::new();
    for (index, line) in lines.split(b'\n').enumerate() {
        let line = line?;
        if line.trim_ascii().is_empty() {
            continue;
        }
        let read = serde_json::from_slice(&line).map_err(|error| error.to_string());
        let checked = read.and_then(|probe: Probe| probe.packet_protocol().map(|_| probe));
        probes.push(checked.map_err(|reason| LineError { line: index + 1, reason }));
    }
    Ok(probes)
}

impl Probe {
    /// Reads `80/TCP`, `80` (TCP) or `ICMP` beside the names of both ends.
    pub fn from_words(src: &str, dst: &str, port: &str) -> Result<Probe, String> {
        let (port, protocol) = match port.split_once('/') {
            Some((port, protocol)) => (Some(port), protocol),
            None if port.bytes().all(|b| b.is_ascii_digit()) => (Some(port), "TCP"),
            None => (None, port),
        };
        let number = |text: &str| text.parse::<u16>().map_err(|_| format!("{text:?} is not a port (1 to 65535)"));
        let probe = Probe {
            src: src.to_string(),
            dst: dst.to_string(),
            protocol: ProbeProtocol::try_from(protocol.to_string())?,
            port: port.map(number).transpose()?,
            allowed: None,
        };
        probe.packet_protocol().map(|_| probe.clone())
    }

    /// The protocol with its port, which all but ICMP need.
    pub fn packet_protocol(&self) -> Result<PacketProtocol, String> {
        match (self.protocol.transport(), self.port) {
            (Some(protocol), None | Some(0)) => Err(format!("{protocol} needs a port (1 to 65535)")),
            (Some(_) | None, _) => Ok(self.protocol.packet_protocol(self.port)),
        }
    }

    /// The flows that the probe means in a cluster.
    pub fn question(&self, model: &Model) -> Result<Question, EndError> {
        let protocol = self.packet_protocol().expect("probes are checked as they are read");
        model.question(&self.src, &self.dst, protocol)
    }

    /// The answer that a verdict gives to this probe.
    pub fn answer(&self, allowed: bool, verdict: &Verdict) -> Answer {
        Answer {
            src: self.src.clone(),
            dst: self.dst.clone(),
            protocol: self.protocol,
            port: self.port,
            allowed,
            egress: SideAnswer::new(&verdict.egress, Direction::Egress),
            ingress: SideAnswer::new(&verdict.ingress, Direction::Ingress),
            service: None,
            endpoints: Vec::new(),
            notes: Vec::new(),
            doubt: None,
        }
    }
}

impl Answer {
    /// The answer to a probe that means several flows, by the answers to each: allowed if all of them are. `None` if there
    /// are none.
    pub fn of_endpoints(probe: &Probe, service: Option<String>, endpoints: Vec<EndpointAnswer>) -> Option<Answer> {
        let first = endpoints.iter().find(|endpoint| !endpoint.allowed).or(endpoints.first())?;
        Some(Answer {
            src: probe.src.clone(),
            dst: probe.dst.clone(),
            protocol: probe.protocol,
            port: probe.port,
            allowed: first.allowed,
            egress: first.egress.clone(),
            ingress: first.ingress.clone(),
            service,
            endpoints,
            notes: Vec::new(),
            doubt: None,
        })
    }

    /// `3 endpoints: 2 allowed, 1 refused`; or `allowed`, where the probe means one flow; with the doubt, if there is one. Of
    /// workloads and namespaces it counts `pods`, and where there are several on both sides, `flows` between them.
    pub fn summary(&self) -> String {
        let all = self.endpoints.len();
        let allowed = self.endpoints.iter().filter(|endpoint| endpoint.allowed).count();
        let noun = self.noun();
        let noun = if all == 1 { noun.to_owned() } else { format!("{noun}s") };
        let counts = match (allowed, all - allowed) {
            (0, 0) => if self.allowed { "allowed" } else { "refused" }.to_owned(),
            (allowed, 0) => format!("{all} {noun}: {allowed} allowed"),
            (0, refused) => format!("{all} {noun}: {refused} refused"),
            (allowed, refused) => format!("{all} {noun}: {allowed} allowed, {refused} refused"),
        };
        self.doubt.iter().fold(counts, |counts, doubt| format!("{counts}, {doubt}"))
    }

    /// What the flows are counted by.
    fn noun(&self) -> &'static str {
        let has_clients = self.endpoints.iter().any(|endpoint| endpoint.client.is_some());
        let servers: BTreeSet<&str> = self.endpoints.iter().map(|endpoint| &*endpoint.endpoint).collect();
        match (has_clients, self.service.is_some()) {
            (false, true) => "endpoint",
            (false, false) => "pod",
            (true, _) if servers.len() == 1 => "pod",
            (true, _) => "flow",
        }
    }

    /// Whether all flows come out as the author of the probe expects, if he says so: of several that shall be refused,
    /// none may be allowed.
    pub fn is_expected(&self, expected: Option<bool>) -> bool {
        match expected {
            None => true,
            Some(true) => self.allowed,
            Some(false) if self.endpoints.is_empty() => !self.allowed,
            Some(false) => self.endpoints.iter().all(|endpoint| !endpoint.allowed),
        }
    }
}

impl fmt::Display for Probe {
    /// `shop/web -> shop/db TCP 5432`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {} {}", escaped(&self.src), escaped(&self.dst), self.protocol)?;
        self.port.map_or(Ok(()), |port| write!(f, " {port}"))
    }
}

impl SideAnswer {
    fn new(side: &Side, direction: Direction) -> SideAnswer {
        SideAnswer {
            quarantined: side.quarantined.clone(),
            elsewhere: side.elsewhere.as_ref().map(ToString::to_string),
            allowed: side.allows(),
            refusal: side.refusal.filter(|_| side.refused_by.is_some()).map(|refusal| refusal.reason().to_owned()),
            refused_by: side.refused_by.clone(),
            ..SideAnswer::of(&side.judgement, direction)
        }
    }

    /// Why the direction lets the flow pass or not, in words.
    pub fn reason(&self) -> String {
        if let (Some(node), Some(reason)) = (&self.elsewhere, &self.unanswered) {
            return format!("decided on node {node}, which gave no answer: {reason}");
        }
        if let Some(node) = &self.elsewhere {
            return format!("decided on node {node}, whose agent was not asked");
        }
        if let Some(refused_by) = &self.refused_by {
            return format!("refused by {refused_by}");
        }
        let isolated_by = self.isolated_by.join(", ");
        match (&self.rule, self.allowed) {
            (Some(rule), _) => format!("isolated by {isolated_by}; allowed by {rule}"),
            (None, true) if isolated_by.is_empty() => "not isolated".to_string(),
            (None, true) => format!("isolated by {isolated_by}; no policy may block this flow"),
            (None, false) => format!("isolated by {isolated_by}; no rule allows it"),
        }
    }

    /// Of a direction that the agent of another node decides, which gave no answer: nothing else refuses the flow.
    pub fn unanswered(node: String, reason: String) -> SideAnswer {
        SideAnswer {
            allowed: true,
            isolated_by: Vec::new(),
            rule: None,
            quarantined: Vec::new(),
            elsewhere: Some(node),
            unanswered: Some(reason),
            refusal: None,
            refused_by: None,
            nearest: None,
        }
    }

    /// What a judgement says by itself.
    pub fn of(judgement: &Judgement, direction: Direction) -> SideAnswer {
        SideAnswer {
            allowed: judgement.allowed,
            isolated_by: isolated_by(judgement),
            rule: rule(judgement, direction),
            quarantined: Vec::new(),
            elsewhere: None,
            unanswered: None,
            refusal: None,
            refused_by: None,
            nearest: None,
        }
    }
}

impl ProbeProtocol {
    /// The protocol with a port; without meaning for ICMP.
    pub fn packet_protocol(self, port: Option<u16>) -> PacketProtocol {
        match self.transport() {
            Some(protocol) => PacketProtocol::Port(protocol, port.unwrap_or_default()),
            None => PacketProtocol::Echo,
        }
    }

    /// The protocol with ports, if it is one.
    pub fn transport(self) -> Option<Protocol> {
        match self {
            ProbeProtocol::Tcp => Some(Protocol::Tcp),
            ProbeProtocol::Udp => Some(Protocol::Udp),
            ProbeProtocol::Sctp => Some(Protocol::Sctp),
            ProbeProtocol::Icmp => None,
        }
    }
}

impl TryFrom<String> for ProbeProtocol {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.to_ascii_uppercase().as_str() {
            "TCP" => Ok(ProbeProtocol::Tcp),
            "UDP" => Ok(ProbeProtocol::Udp),
            "SCTP" => Ok(ProbeProtocol::Sctp),
            "ICMP" => Ok(ProbeProtocol::Icmp),
            _ => Err(format!("{text:?} is not a protocol (TCP, UDP, SCTP or ICMP)")),
        }
    }
}

impl From<Protocol> for ProbeProtocol {
    fn from(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Tcp => ProbeProtocol::Tcp,
            Protocol::Udp => ProbeProtocol::Udp,
            Protocol::Sctp => ProbeProtocol::Sctp,
        }
    }
}

impl fmt::Display for ProbeProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.transport().map_or("ICMP", Protocol::as_str))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_line_spoils_itself_only() {
        let good = r#"{"src":"a/b","dst":"10.0.0.1","protocol":"tcp","port":80}"#;
        let lines = format!("{good}\n\nnonsense\n{}\n{good}\n", good.replace("\"port\":80", "\"port\":0"));
        let read = read_each(lines.as_bytes()).unwrap();
        let bad: Vec<_> = read.iter().filter_map(|probe| probe.as_ref().err()).map(|error| error.line).collect();
        assert_eq!((read.len(), bad), (4, vec![3, 4]));
        assert!(super::read(lines.as_bytes()).is_err());
    }

    #[test]
    fn what_is_not_answered_is_a_line_too() {
        let probe = Probe::from_words("a/b", "10.0.0.1", "80/TCP").unwrap();
        let line = |unanswered: &Unanswered<'_>| serde_json::to_string(unanswered).unwrap();
        assert_eq!(
            line(&Unanswered { probe: Some(&probe), line: None, error: "no".into() }),
            r#"{"src":"a/b","dst":"10.0.0.1","protocol":"TCP","port":80,"error":"no"}"#
        );
        assert_eq!(line(&Unanswered { probe: None, line: Some(3), error: "no".into() }), r#"{"line":3,"error":"no"}"#);
    }
}
