//! One packet before all judges.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use super::cluster::{Cluster, Compiled};
use super::packets::traced;
use crate::api::Direction;
use crate::nft::trace::trace;
use crate::nft::{Deny, Table};
use crate::policy::oracle::{self, Content, Packet, Side, Verdict};
use crate::policy::{self, PacketProtocol, judge};

/// A cluster with everything that is asked about it.
pub struct Judges<'a> {
    /// What the API's words are read from.
    truth: &'a Cluster,
    /// What the compiler made, by node.
    nodes: BTreeMap<String, Compiled>,
}

/// What the judges say of one packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opinions {
    /// The API's words.
    pub oracle: Verdict,
    /// The IR; `None` where the packet is none that opens a flow, which the IR does not know.
    pub ir: Option<Verdict>,
    /// The table, traced: whether the packet passes at the sender's node, and at the receiver's.
    pub table: [bool; 2],
    /// The same of the table that leads every pod to its policies by peer.
    pub by_peer: [bool; 2],
    /// Whether every other chain on the way lets it pass, as it must.
    pub transit: bool,
}

/// A packet on which the judges differ.
#[derive(Clone, PartialEq, Eq)]
pub struct Disagreement {
    /// The packet.
    pub packet: Packet,
    /// What each of them says.
    pub opinions: Opinions,
}

impl Judges<'_> {
    /// All judges of a cluster.
    pub fn new(cluster: &Cluster, deny: Deny) -> Judges<'_> {
        Judges::of_another(cluster, cluster.compile(deny))
    }

    /// The API's words about a cluster against what was compiled from something else.
    pub fn of_another(truth: &Cluster, nodes: BTreeMap<String, Compiled>) -> Judges<'_> {
        Judges { truth, nodes }
    }

    /// What all of them say.
    pub fn ask(&self, packet: &Packet) -> Opinions {
        let (egress, ingress) = (self.enforced(packet, Direction::Egress), self.enforced(packet, Direction::Ingress));
        let sides = |table: fn(&Compiled) -> &Table| {
            [
                egress.is_none_or(|(node, to_node)| {
                    passes(table(node), if to_node { "to-node" } else { "egress" }, packet)
                }),
                // What a node sends to its own pods meets no hook of ours.
                ingress.is_none_or(|(node, from_node)| from_node || passes(table(node), "ingress", packet)),
            ]
        };
        Opinions {
            oracle: oracle::verdict(&self.truth.objects, packet),
            ir: self.ir(packet, egress, ingress),
            table: sides(|node| &node.table),
            by_peer: sides(|node| &node.by_peer),
            transit: self.transit(packet, egress, ingress),
        }
    }

    /// The packet, if they differ on it.
    pub fn disagreement(&self, packet: &Packet) -> Option<Disagreement> {
        let opinions = self.ask(packet);
        opinions.differ().then_some(Disagreement { packet: *packet, opinions })
    }

    /// The node that enforces one direction, and whether the other end is that node itself.
    fn enforced(&self, packet: &Packet, direction: Direction) -> Option<(&Compiled, bool)> {
        let (own, other) = match direction {
            Direction::Egress => (packet.source, packet.destination),
            Direction::Ingress => (packet.destination, packet.source),
        };
        let (name, is_other_end) = oracle::node_of(&self.truth.objects, own, other)?;
        Some((self.nodes.get(name)?, is_other_end))
    }

    fn ir(
        &self,
        packet: &Packet,
        egress: Option<(&Compiled, bool)>,
        ingress: Option<(&Compiled, bool)>,
    ) -> Option<Verdict> {
        let Packet { source, destination, content, hop_limit: _, of_known_flow } = *packet;
        let protocol = match (content, source) {
            (Content::Port(protocol, port), _) => PacketProtocol::Port(protocol, port),
            (Content::Icmp(8, 0), IpAddr::V4(_)) | (Content::Icmp(128, 0), IpAddr::V6(_)) => PacketProtocol::Echo,
            (Content::Icmp(..), _) => return None,
        };
        let packet = policy::Packet { source, destination, protocol };
        let side = |node: Option<(&Compiled, bool)>, direction| {
            let Some((node, is_own_node)) = node else { return Side { isolated: false, allowed: true } };
            let judgement = judge(&node.ir, direction, &packet);
            let isolated = !judgement.isolated_by.is_empty() || judgement.isolated_by_namespace.is_some();
            let allowed = judgement.allowed || direction == Direction::Ingress && is_own_node;
            Side { isolated, allowed }
        };
        let verdict = Verdict { egress: side(egress, Direction::Egress), ingress: side(ingress, Direction::Ingress) };
        (!of_known_flow).then_some(verdict)
    }

    /// A packet between nodes also meets, at the sender's node, the chain that guards what arrives there, and at the
    /// receiver's the one that guards what leaves. Those must know nothing of it, unless a pod there reports an address
    /// that another pod has, or the node takes it for its own pods'.
    fn transit(&self, packet: &Packet, egress: Option<(&Compiled, bool)>, ingress: Option<(&Compiled, bool)>) -> bool {
        let pass = |node: &Compiled, chain| passes(&node.table, chain, packet) && passes(&node.by_peer, chain, packet);
        let claims = |node: &Compiled, address| {
            node.ir.gate.guards(address) || node.ir.pods.iter().any(|pod| pod.addresses.contains(&address))
        };
        egress.is_none_or(|(node, _)| claims(node, packet.destination) || pass(node, "ingress"))
            && ingress.is_none_or(|(node, _)| claims(node, packet.source) || pass(node, "egress"))
    }
}

fn passes(table: &Table, base_chain: &str, packet: &Packet) -> bool {
    trace(table, base_chain, &traced(packet)).expect("every table has the three base chains").accepted
}

impl Opinions {
    /// Whether not all say the same.
    pub fn differ(&self) -> bool {
        self.ir.is_some_and(|ir| ir != self.oracle)
            || self.table != [self.oracle.egress.allowed, self.oracle.ingress.allowed]
            || self.by_peer != self.table
            || !self.transit
    }

    /// Whether the packet arrives, in the API's words.
    pub fn allowed(&self) -> bool {
        self.oracle.egress.allowed && self.oracle.ingress.allowed
    }
}

impl fmt::Debug for Disagreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = |side: Side| {
            let isolated = if side.isolated { "isolated" } else { "free" };
            format!("{isolated}, {}", if side.allowed { "passes" } else { "refused" })
        };
        let verdict = |v: Verdict| format!("egress {}; ingress {}", side(v.egress), side(v.ingress));
        let Packet { source, destination, content, hop_limit, of_known_flow } = self.packet;
        let flow = if of_known_flow { " of a known flow" } else { "" };
        writeln!(f, "{source} -> {destination} {content:?} hop limit {hop_limit}{flow}")?;
        writeln!(f, "  API   {}", verdict(self.opinions.oracle))?;
        match self.opinions.ir {
            Some(ir) => writeln!(f, "  IR    {}", verdict(ir))?,
            None => writeln!(f, "  IR    is not asked")?,
        }
        for (name, sides) in [("table", self.opinions.table), ("peers", self.opinions.by_peer)] {
            let [egress, ingress] = sides.map(|passes| if passes { "passes" } else { "refused" });
            writeln!(f, "  {name} egress {egress}; ingress {ingress}")?;
        }
        write!(f, "  on the way {}", self.opinions.transit)
    }
}
