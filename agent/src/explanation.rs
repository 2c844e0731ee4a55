//! What is said of a probe, and how an agent is asked for it.
//!
//! The agent answers from its own state, which is that of one node: its local pods, and of the others those that local
//! policies speak about. An end that it does not know is an address like any other.

pub mod stranger;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use compiler::api::{Direction, LinkName};
use compiler::nft::trace::{TracedPacket, trace, trace_in};
use compiler::nft::{ChainName, Family, Table, TableFamily};
use compiler::policy::{Effort, Gate, Packet};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::kernel::{bridge, own_addresses};
use crate::model::{EndError, Model, Several, Verdict, Way, bridged, first_of_flow, routed};
use crate::near_rule::NearRule;
use crate::probes::{Answer, EndpointAnswer, Probe};
use crate::sync::Snapshot;

/// Where the agent answers questions about probes: an [`Asked`] is posted as JSON, an [`Explanation`] comes back.
pub const PATH: &str = "/debug/explain";
/// How long an agent may take. It takes microseconds.
const PATIENCE: Duration = Duration::from_secs(10);

/// What an agent is asked.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Asked {
    /// The probe.
    pub probe: Probe,
    /// The pods that it is about as far as the asker knows them, see [`stranger`]: the agent knows no pods of other nodes
    /// that no policy means, and so not what a rule lacks that nearly means them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub strangers: Vec<Value>,
}

/// A probe, judged, with the reasons.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Explanation {
    /// What the policies say.
    pub answer: Answer,
    /// The client and the server, for people.
    pub ends: [String; 2],
    /// The addresses between which the packet was judged.
    pub addresses: [IpAddr; 2],
    /// The server's port behind a Service.
    pub port: Option<u16>,
    /// The base chains that the packet meets, on egress and on ingress.
    pub base_chains: [Option<String>; 2],
    /// Those of table `bridge` that it meets besides.
    #[serde(default)]
    pub bridge_chains: [Option<String>; 2],
    /// The links by which it goes, by name: that which leads to the client, the port behind which the client is, and the
    /// server's port if both are on one bridge.
    #[serde(default)]
    pub links: [Option<String>; 3],
    /// Whether the node routes the client's address to another link than that.
    #[serde(default)]
    pub is_astray: bool,
    /// What is to be said besides.
    #[serde(default)]
    pub notes: Vec<String>,
    /// The nft rules that it meets there.
    pub paths: [Vec<String>; 2],
    /// Whether the policies and the table give different answers: a fault of postern, or of who changed the table.
    pub disagrees: bool,
}

/// The answer to a probe, with what is behind it.
#[derive(Debug, Clone)]
pub struct Explained {
    /// The answer.
    pub answer: Answer,
    /// One for each flow that the probe means, in the order of the answer's endpoints; at least one.
    pub parts: Vec<Explanation>,
}

/// Judges a probe.
///
/// # Errors
///
/// If it names an end that there is not, two ends that cannot talk, or a Service that leads nowhere.
pub fn explain(model: &Model, probe: &Probe) -> Result<Explained, EndError> {
    let question = probe.question(model)?;
    let parts: Vec<Explanation> =
        question.routes.iter().map(|route| of_verdict(model, probe, model.judge(&route.packet))).collect();
    Ok(Explained::of_several(probe, question.several, question.service, question.notes, parts))
}

fn of_verdict(model: &Model, probe: &Probe, verdict: Verdict) -> Explanation {
    let Packet { source, destination, protocol } = verdict.packet;
    let mut answer = probe.answer(verdict.allowed(), &verdict);
    for (direction, side) in [(Direction::Egress, &mut answer.egress), (Direction::Ingress, &mut answer.ingress)] {
        if !side.allowed {
            let nearest = model.nearest(direction, &verdict.packet, &mut Effort::default());
            side.nearest = nearest.map(|nearest| NearRule::of(&nearest, direction));
        }
    }
    let way = if verdict.egress.base_chain.is_some() { verdict.egress.way } else { verdict.ingress.way };
    Explanation {
        answer,
        ends: [model.describe(source), model.describe(destination)],
        addresses: [source, destination],
        port: protocol.port(),
        base_chains: [verdict.egress.base_chain, verdict.ingress.base_chain].map(|chain| chain.map(str::to_owned)),
        bridge_chains: [verdict.egress.bridge_chain, verdict.ingress.bridge_chain]
            .map(|chain| chain.map(str::to_owned)),
        links: [way.link, way.from_port, way.to_port].map(|link| link.map(|link| link.to_string())),
        is_astray: way.is_astray,
        notes: notes(model, &verdict, &way),
        disagrees: verdict.disagrees(),
        paths: [verdict.egress.path, verdict.ingress.path],
    }
}

/// What is to be said of both ends: of their links, and of a mesh between them.
fn notes(model: &Model, verdict: &Verdict, way: &Way) -> Vec<String> {
    let Packet { source, destination, protocol: _ } = verdict.packet;
    let ends = [source, destination];
    let mut notes: Vec<String> = ends.iter().filter_map(|end| model.shared(*end)).collect();
    notes.extend(ends.iter().filter_map(|end| model.link_unknown(*end)));
    notes.extend(model.mesh_hint(&verdict.packet));
    if let Some(bridge) = way.bridge
        && let Some(setting) = bridge::unfiltered(Family::of(source))
    {
        notes.push(format!(
            "both are on bridge {bridge}, and {setting} is not 1: what they send each other meets no rule"
        ));
    }
    notes
}

/// Judges a probe by what an agent knows and enforces.
///
/// # Errors
///
/// If it makes no sense, or nothing is enforced yet.
pub fn explain_snapshot(snapshot: &Snapshot, asked: &Asked) -> Result<Explanation, String> {
    let Asked { probe, strangers } = asked;
    let enforced = snapshot.enforced.as_ref().ok_or("the kernel holds no table yet")?;
    probe.packet_protocol()?;
    let strangers = strangers.iter().filter_map(stranger::heard).map(Arc::new).collect();
    let model = Model::of_node(snapshot.pods.clone(), enforced.ir.clone(), enforced.table.clone());
    // Where they cannot be read, the agent's readiness tells.
    let own = own_addresses().unwrap_or_default();
    let model = model.knowing(snapshot.namespaces.clone(), strangers).on(snapshot.links.clone(), own);
    let in_words = |error: EndError| {
        let is_here = |key: &str| {
            let pod = snapshot.pods.iter().find(|pod| pod.key.to_string() == key);
            pod.is_some_and(|pod| pod.node.as_ref() == Some(snapshot.pods.node()))
        };
        let waits = matches!(&error, EndError::NoAddress(key) if is_here(key));
        let meanwhile = waits.then(|| meanwhile(&enforced.ir.gate));
        meanwhile.iter().fold(error.to_string(), |text, meanwhile| format!("{text}; {meanwhile}"))
    };
    let question = probe.question(&model).map_err(in_words)?;
    // Anybody on the host network may ask, and thousands of flows would keep the agent busy.
    if question.several != Several::default() {
        return Err("the agent answers about one flow at a time: name one pod".to_owned());
    }
    let mut explained = explain(&model, probe).map_err(in_words)?;
    // The agent knows no Services, so there is one flow.
    explained.parts.pop().ok_or_else(|| "the probe means no flow".to_owned())
}

/// What comes of a pod of this node until its address is known.
fn meanwhile(gate: &Gate) -> String {
    match gate.open_because() {
        Some(reason) => format!("the gate is open ({reason}), so that until it has one nobody judges what it sends"),
        None => {
            let ranges: Vec<String> = gate.ranges().iter().map(ToString::to_string).collect();
            format!(
                "until it has one the gate refuses what it sends from {}, and what is sent there",
                ranges.join(", ")
            )
        }
    }
}

/// Asks an agent. The inner error is its own: the probe makes no sense to it.
///
/// # Errors
///
/// If no agent answers, or not in our language.
pub fn ask(agent: SocketAddr, asked: &Asked) -> anyhow::Result<Result<Explanation, String>> {
    let config = ureq::Agent::config_builder().timeout_global(Some(PATIENCE)).http_status_as_error(false).build();
    let client = ureq::Agent::new_with_config(config);
    let mut response = client.post(format!("http://{agent}{PATH}")).send(serde_json::to_string(asked)?)?;
    let text = response.body_mut().read_to_string()?;
    match response.status().as_u16() {
        200 => Ok(Ok(serde_json::from_str(&text)?)),
        400 => Ok(Err(text.trim_end().to_owned())),
        status => anyhow::bail!("it answers {status}: {}", text.trim_end()),
    }
}

impl Explained {
    /// The answer to a probe by its parts. A Service has its endpoints listed, also if there is one.
    pub fn of(probe: &Probe, service: Option<String>, notes: Vec<String>, parts: Vec<Explanation>) -> Explained {
        Explained::of_several(probe, Several::default(), service, notes, parts)
    }

    /// The same, where an end may be a name for several pods. They are listed, also if there is one.
    pub fn of_several(
        probe: &Probe,
        several: Several,
        service: Option<String>,
        notes: Vec<String>,
        parts: Vec<Explanation>,
    ) -> Explained {
        let endpoint = |part: &Explanation| EndpointAnswer {
            client: several.clients.then(|| short(&part.ends[0], part.addresses[0])),
            endpoint: short(&part.ends[1], part.addresses[1]),
            address: part.addresses[1],
            port: part.port,
            allowed: part.answer.allowed,
            egress: part.answer.egress.clone(),
            ingress: part.answer.ingress.clone(),
        };
        let is_plain = service.is_none() && several == Several::default() && parts.len() == 1;
        let endpoints = parts.iter().map(endpoint).collect();
        let whole = if is_plain { None } else { Answer::of_endpoints(probe, service, endpoints) };
        let answer = whole.unwrap_or_else(|| parts[0].answer.clone());
        let doubt = doubt(&answer);
        let of_parts: BTreeSet<String> = parts.iter().flat_map(|part| part.notes.iter().cloned()).collect();
        let notes = notes.into_iter().chain(of_parts).collect();
        Explained { answer: Answer { notes, doubt, ..answer }, parts }
    }
}

/// What an answer depends on that was not asked, where it matters.
fn doubt(answer: &Answer) -> Option<String> {
    let of_endpoints =
        answer.endpoints.iter().filter(|part| part.allowed).flat_map(|part| [&part.egress, &part.ingress]);
    let own = [&answer.egress, &answer.ingress].into_iter().filter(|_| answer.allowed && answer.endpoints.is_empty());
    let nodes: BTreeSet<&str> = of_endpoints.chain(own).filter_map(|side| side.elsewhere.as_deref()).collect();
    let nodes: Vec<&str> = nodes.into_iter().collect();
    (!nodes.is_empty()).then(|| format!("unless the agent of node {} refuses it", nodes.join(" or ")))
}

/// The name of an end without its address, where it has one.
pub fn short(end: &str, address: IpAddr) -> String {
    end.strip_suffix(&format!(" ({address})")).unwrap_or(end).to_owned()
}

impl Explanation {
    /// The packet that was judged.
    pub fn first_packet(&self) -> TracedPacket {
        let [source, destination] = self.addresses;
        let protocol = self.answer.protocol.packet_protocol(self.port);
        first_of_flow(&Packet { source, destination, protocol })
    }

    /// The links by which it goes.
    fn way(&self) -> Way {
        let [link, from_port, to_port] = [0, 1, 2].map(|at| self.links[at].as_deref().and_then(LinkName::new));
        Way { link, is_astray: self.is_astray, from_port, to_port, bridge: None }
    }

    /// Whether a table lets the packet pass in each direction; `None` where it does not hold the chains that it meets.
    pub fn passes(&self, table: &Table) -> [Option<bool>; 2] {
        let packet = self.first_packet();
        let way = self.way();
        let of = |at: usize, direction| {
            let in_bridge = self.bridge_chains[at].as_ref().map(|chain| {
                let (_, packet) = bridged(direction, &way, &packet);
                trace_in(table, &ChainName::in_table(TableFamily::Bridge, chain), &packet)
            });
            let in_inet = self.base_chains[at].as_ref().map(|chain| trace(table, chain, &routed(&way, &packet)));
            let mut met = in_bridge.into_iter().chain(in_inet);
            met.try_fold(true, |passes, trace| trace.map(|trace| passes && trace.accepted))
        };
        [of(0, Direction::Egress), of(1, Direction::Ingress)]
    }
}

#[cfg(test)]
mod tests {
    use compiler::Compiler;
    use compiler::api::{NodeName, PodWire, parse_network_policy};
    use compiler::cluster::{Budget, Change, Cost, Event, PodSource};
    use compiler::nft::Deny;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_policy_in_quarantine_is_named_with_the_limit() {
        let budget = Budget { policy: Cost { sets: 0, ..Budget::default().policy }, ..Budget::default() };
        let mut compiler = Compiler::with_budget(NodeName("n1".into()), Deny::Drop, budget);
        let pod = json!({"metadata": {"name": "web", "namespace": "shop"}, "spec": {"nodeName": "n1"},
            "status": {"phase": "Running", "podIPs": [{"ip": "10.0.0.1"}]}});
        let pod = serde_json::from_value::<PodWire>(pod).unwrap().parse().value;
        compiler.apply(Event::Pods(PodSource::Cluster, Change::Applied(pod)));
        for (name, ingress) in [("large", json!([{"from": [{"podSelector": {}}]}])), ("small", json!([]))] {
            let policy = json!({"metadata": {"name": name, "namespace": "shop"}, "spec": {"ingress": ingress}});
            compiler.apply(Event::Policies(Change::Applied(parse_network_policy(&policy.into()).value)));
        }
        let (pods, ir) = (compiler.state().pods().clone(), compiler.ir());
        let model = Model::of_node(pods, ir, Arc::new(compiler.table()));
        let probe = json!({"src": "192.0.2.1", "dst": "shop/web", "protocol": "TCP", "port": 80});
        let answer = explain(&model, &serde_json::from_value(probe).unwrap()).unwrap().answer;
        assert_eq!(answer.ingress.isolated_by, ["shop/large", "shop/small"]);
        assert_eq!(
            answer.ingress.quarantined,
            ["shop/large allows nothing: it costs 1 sets in the kernel, and a policy may cost 0"]
        );
        assert!(!answer.allowed && answer.egress.quarantined.is_empty());
    }
}
