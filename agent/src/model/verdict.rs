//! What the policies say of a flow, and why.

use std::net::IpAddr;

use compiler::api::{Direction, NodeName, PodKey, PolicyKey};
use compiler::nft::trace::{Payload, Trace, TracedPacket, trace, trace_in};
use compiler::nft::{ChainName, Family, Refusal, TableFamily};
use compiler::policy::{Ir, Judgement, Packet, PacketProtocol, judge};

use super::refused::{in_words, refusal};
use super::{End, Model, ModelNode, Way};

/// A flow to be judged: its first packet, as the client sends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flow {
    /// The client's address.
    pub source: IpAddr,
    /// The address that the client sends to; it may be a Service's.
    pub destination: IpAddr,
    /// The protocol, with the port that the client sends to.
    pub protocol: PacketProtocol,
}

/// What both directions say of a flow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The flow after the translation of a Service's address.
    pub packet: Packet,
    /// What the source's node says.
    pub egress: Side,
    /// What the destination's node says.
    pub ingress: Side,
}

/// What one direction says of a flow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Side {
    /// The answer of the policy IR.
    pub judgement: Judgement,
    /// Whether the compiled table lets the packet pass.
    pub table_allows: bool,
    /// Why the table refuses the packet, if it does.
    pub refusal: Option<Refusal>,
    /// The same in words, where it is not a policy that refuses it.
    pub refused_by: Option<String>,
    /// The base chain that the packet meets on the node of the end; `None` where it meets none.
    pub base_chain: Option<&'static str>,
    /// The base chain of table `bridge` that it meets besides, if any.
    pub bridge_chain: Option<&'static str>,
    /// By which links it goes there.
    pub way: Way,
    /// The nft rules that the packet met, `chain: rule`.
    pub path: Vec<String>,
    /// The policies that isolate the end and are not enforced as they are written, with the reason.
    pub quarantined: Vec<String>,
    /// The node that decides, where it is none of the model.
    pub elsewhere: Option<NodeName>,
}

impl Verdict {
    /// Whether the flow passes.
    pub fn allowed(&self) -> bool {
        self.egress.allows() && self.ingress.allows()
    }

    /// Whether the policy IR and the table give different answers: a fault of postern.
    pub fn disagrees(&self) -> bool {
        let differs = |side: &&Side| side.judgement.allowed != side.table_allows && !side.is_refused_by_link();
        [&self.egress, &self.ingress].iter().any(differs)
    }
}

impl Model {
    /// Judges the first packet of a flow, as policies see it.
    pub fn judge(&self, packet: &Packet) -> Verdict {
        let (source, destination) = (self.end(packet.source), self.end(packet.destination));
        Verdict {
            egress: self.egress(packet, &source, &destination),
            ingress: self.ingress(packet, &source, &destination),
            packet: *packet,
        }
    }

    fn egress(&self, packet: &Packet, source: &End, destination: &End) -> Side {
        let Some((own, node)) = self.enforcing(source, packet.source) else { return self.not_here(source) };
        let to_own_node = matches!(destination, End::Node(name) if name == own);
        let base_chain = if to_own_node { "to-node" } else { "egress" };
        node.side(Direction::Egress, base_chain, packet, self.way(node, packet))
    }

    /// A node's packets to its own pods meet no hook of ours.
    fn ingress(&self, packet: &Packet, source: &End, destination: &End) -> Side {
        let Some((own, node)) = self.enforcing(destination, packet.destination) else {
            return self.not_here(destination);
        };
        let from_own_node = matches!(source, End::Node(name) if name == own);
        let mut side = node.side(Direction::Ingress, "ingress", packet, self.way(node, packet));
        if from_own_node {
            let judgement = Judgement { allowed: true, rule: None, ..side.judgement };
            side = Side { judgement, quarantined: side.quarantined, ..Side::free() };
        }
        side
    }

    /// An end that no node of the model polices.
    fn not_here(&self, end: &End) -> Side {
        Side { elsewhere: self.pods_node_name(end).cloned(), ..Side::free() }
    }

    fn pods_node_name(&self, end: &End) -> Option<&NodeName> {
        let key: &PodKey = match end {
            End::Pod(key) => key,
            End::Node(_) | End::Service(_) | End::Outside => return None,
        };
        self.pods.get(key).and_then(|pod| pod.node.as_ref())
    }

    pub(super) fn pods_node(&self, end: &End) -> Option<&ModelNode> {
        self.pods_node_name(end).and_then(|name| self.nodes.get(name))
    }

    /// The node that polices an end: that of the pod, or that which takes the address for one of its pods'.
    fn enforcing(&self, end: &End, address: IpAddr) -> Option<(&NodeName, &ModelNode)> {
        match end {
            End::Pod(_) => self.nodes.get_key_value(self.pods_node_name(end)?),
            End::Outside => self.nodes.iter().find(|(_, node)| node.ir.gate.guards(address)),
            End::Node(_) | End::Service(_) => None,
        }
    }
}

impl ModelNode {
    fn side(&self, direction: Direction, base_chain: &'static str, packet: &Packet, way: Way) -> Side {
        let (chain, traced) = bridged(direction, &way, &first_of_flow(packet));
        let in_bridge = trace_in(&self.table, &ChainName::in_table(TableFamily::Bridge, chain), &traced)
            .filter(|_| traced.link.is_some() || traced.exit.is_some());
        let bridge_chain = in_bridge.as_ref().map(|_| chain);
        let in_inet = trace(&self.table, base_chain, &routed(&way, &first_of_flow(packet)));
        let in_inet = in_inet.expect("every table has the base chains");
        let traces: Vec<Trace> = in_bridge.into_iter().chain([in_inet]).collect();
        let refusing = traces.iter().find(|trace| !trace.accepted);
        // The gate has one counter for both directions.
        let refusal = refusing.and_then(|trace| refusal(&self.table, trace)).map(|refusal| match refusal {
            Refusal::Gate(_) => Refusal::Gate(direction),
            Refusal::Policy(_)
            | Refusal::Source
            | Refusal::PortSource
            | Refusal::Destination
            | Refusal::LinkLocal
            | Refusal::Tag => refusal,
        });
        let rule = |step: &compiler::nft::trace::Step| {
            format!("{}: {}", step.chain, self.table.chains[&step.chain].rules[step.rule])
        };
        let judgement = judge(&self.ir, direction, packet);
        Side {
            quarantined: quarantined(&self.ir, &judgement),
            judgement,
            table_allows: refusing.is_none(),
            refusal,
            refused_by: refusal.and_then(|refusal| in_words(refusal, packet, &way)),
            base_chain: Some(base_chain),
            bridge_chain,
            way,
            path: traces.iter().flat_map(|trace| &trace.steps).map(rule).collect(),
            elsewhere: None,
        }
    }
}

/// The packet as the table sees it: the first of its flow.
pub fn first_of_flow(packet: &Packet) -> TracedPacket {
    TracedPacket {
        source: packet.source,
        destination: packet.destination,
        payload: match (packet.protocol, Family::of(packet.source)) {
            (PacketProtocol::Port(protocol, port), _) => Payload::Port(protocol, port),
            (PacketProtocol::Echo, Family::V4) => Payload::Icmp(8, 0),
            (PacketProtocol::Echo, Family::V6) => Payload::Icmpv6(128, 0),
        },
        hop_limit: 64,
        state: None,
        is_reply: false,
        source_port: None,
        link: None,
        is_astray: false,
        exit: None,
        tag: None,
    }
}

/// The chain of table `bridge` that judges a direction, and the packet as it sees it: with the port, if it is known.
pub fn bridged(direction: Direction, way: &Way, packet: &TracedPacket) -> (&'static str, TracedPacket) {
    match direction {
        Direction::Egress => ("from-port", TracedPacket { link: way.from_port, ..*packet }),
        Direction::Ingress => ("to-port", TracedPacket { exit: way.to_port, ..*packet }),
    }
}

/// The packet as the chains of table `inet` see it.
pub fn routed(way: &Way, packet: &TracedPacket) -> TracedPacket {
    TracedPacket { link: way.link, is_astray: way.is_astray, ..*packet }
}

impl Side {
    /// An end that no node polices.
    fn free() -> Side {
        Side {
            judgement: Judgement::free(),
            table_allows: true,
            refusal: None,
            refused_by: None,
            base_chain: None,
            bridge_chain: None,
            way: Way::default(),
            path: Vec::new(),
            quarantined: Vec::new(),
            elsewhere: None,
        }
    }

    /// Whether the packet passes in this direction.
    pub fn allows(&self) -> bool {
        self.judgement.allowed && !self.is_refused_by_link()
    }

    /// Whether it is refused for the link by which it comes or goes, which policies know nothing of.
    fn is_refused_by_link(&self) -> bool {
        self.refusal.is_some_and(|refusal| match refusal {
            Refusal::Policy(_) | Refusal::Gate(_) => false,
            Refusal::Source | Refusal::PortSource | Refusal::Destination | Refusal::LinkLocal | Refusal::Tag => true,
        })
    }

    /// Who isolates the end, see [`isolated_by`].
    pub fn isolated_by(&self) -> Vec<String> {
        isolated_by(&self.judgement)
    }
}

/// Who isolates an end: policies by name, and the annotation of a namespace as `Namespace name`.
pub fn isolated_by(judgement: &Judgement) -> Vec<String> {
    let annotation = judgement.isolated_by_namespace.iter().map(|name| format!("Namespace {name}"));
    annotation.chain(judgement.isolated_by.iter().map(PolicyKey::to_string)).collect()
}

/// The rule that allows a flow: `prod/backend ingress[0]`.
pub fn rule(judgement: &Judgement, direction: Direction) -> Option<String> {
    let (policy, index) = judgement.rule.as_ref()?;
    Some(format!("{policy} {}[{index}]", direction.as_str()))
}

/// The policies that isolate an end and are not enforced as they are written, with the reason.
pub fn quarantined(ir: &Ir, judgement: &Judgement) -> Vec<String> {
    let reason = |key: &PolicyKey| {
        let reason = ir.policies.get(key)?.quarantine.as_ref()?;
        Some(format!("{key} allows nothing: {reason}"))
    };
    judgement.isolated_by.iter().filter_map(reason).collect()
}
