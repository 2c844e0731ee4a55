//! The look at all open flows, and what it finds.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::MOST_CUT;
use crate::api::{Direction, Protocol};
use crate::nft::Key;
use crate::policy::{Ir, Judgement, LocalPod, Packet, PacketProtocol, judge_pod};

/// An open flow, by its ends as the policies mean them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flow {
    /// Who sent its first packet, before any translation.
    pub client: IpAddr,
    /// Who got it, after any translation.
    pub server: IpAddr,
    /// The number of the protocol (IANA).
    pub protocol: u8,
    /// The ports of client and server, where the protocol has ports.
    pub ports: Option<(u16, u16)>,
}

/// What to look for among the open flows. It is a snapshot: whoever looks keeps nobody waiting.
#[derive(Debug, Clone)]
pub struct Review {
    pub(super) number: u64,
    pub(super) ir: Ir,
    /// The addresses whose flows are to be judged.
    pub(super) addresses: BTreeSet<IpAddr>,
    /// What is cut already.
    pub(super) cut: Arc<BTreeSet<Key>>,
}

/// A review under way.
#[derive(Debug)]
pub struct Inspection<'a> {
    review: &'a Review,
    judge: Judge<'a>,
    own: &'a BTreeSet<IpAddr>,
    refused: BTreeSet<Key>,
    /// Of what was cut already.
    seen: BTreeSet<Key>,
    unfinished: BTreeSet<IpAddr>,
}

/// What a review found.
#[derive(Debug, PartialEq, Eq)]
pub struct Reviewed {
    pub(super) number: u64,
    /// Flows that are to be cut.
    pub(super) refused: BTreeSet<Key>,
    /// Flows that were cut and are not there any more.
    pub(super) gone: BTreeSet<Key>,
    /// The addresses with refused flows that cannot be cut.
    pub(super) unfinished: BTreeSet<IpAddr>,
}

/// Judges open flows by an IR: whether they could begin now.
#[derive(Debug)]
pub struct Judge<'a> {
    ir: &'a Ir,
    pods: BTreeMap<IpAddr, &'a LocalPod>,
}

// === impl Review ===

impl Review {
    /// Begins to look, on a node that has these addresses of its own: it may always speak to its pods.
    pub fn begin<'a>(&'a self, own: &'a BTreeSet<IpAddr>) -> Inspection<'a> {
        let (refused, seen, unfinished) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        Inspection { review: self, judge: Judge::new(&self.ir), own, refused, seen, unfinished }
    }
}

// === impl Inspection ===

impl Inspection<'_> {
    /// Looks at one open flow.
    pub fn flow(&mut self, flow: &Flow) {
        let ends = [flow.client, flow.server];
        let key = key(flow);
        if let Some(key) = key.filter(|key| self.review.cut.contains(key)) {
            self.seen.insert(key);
            return;
        }
        let is_asked_for = ends.iter().any(|end| self.review.addresses.contains(end));
        if !is_asked_for || self.own.contains(&flow.client) || !self.judge.refuses(flow) {
            return;
        }
        match key.filter(|_| self.refused.len() + self.review.cut.len() < MOST_CUT) {
            Some(key) => drop(self.refused.insert(key)),
            None => self.unfinished.extend(ends.iter().filter(|end| self.review.addresses.contains(end))),
        }
    }

    /// What was found. Flows that were not seen are gone only if all were looked at.
    pub fn end(self, is_whole: bool) -> Reviewed {
        let Inspection { review, refused, seen, mut unfinished, .. } = self;
        let mut gone = BTreeSet::new();
        if is_whole {
            gone.extend(review.cut.difference(&seen));
        } else {
            // Whom the rest concerns is not known.
            unfinished.clone_from(&review.addresses);
        }
        Reviewed { number: review.number, refused, gone, unfinished }
    }
}

// === impl Reviewed ===

impl Reviewed {
    /// How many flows are to be cut.
    pub fn refused(&self) -> usize {
        self.refused.len()
    }
}

// === impl Judge ===

impl<'a> Judge<'a> {
    /// A judge of flows on the node of this IR.
    pub fn new(ir: &'a Ir) -> Judge<'a> {
        let of_pod = |pod: &'a LocalPod| pod.addresses.iter().map(move |address| (*address, pod));
        Judge { ir, pods: ir.pods.iter().flat_map(of_pod).collect() }
    }

    /// What the client's egress and the server's ingress say of a flow, as a [`Review`] finds it on a node that has these
    /// addresses of its own.
    pub fn judge(&self, flow: &Flow, own: &BTreeSet<IpAddr>) -> [Judgement; 2] {
        let packet = first_packet(flow);
        let mut sides = [Direction::Egress, Direction::Ingress].map(|direction| self.side(direction, &packet));
        if own.contains(&flow.client) {
            sides.iter_mut().for_each(|side| side.allowed = true);
        }
        sides
    }

    /// Whether a flow could not begin now.
    fn refuses(&self, flow: &Flow) -> bool {
        let packet = first_packet(flow);
        !self.side(Direction::Egress, &packet).allowed || !self.side(Direction::Ingress, &packet).allowed
    }

    fn side(&self, direction: Direction, packet: &Packet) -> Judgement {
        let end = match direction {
            Direction::Egress => packet.source,
            Direction::Ingress => packet.destination,
        };
        judge_pod(self.ir, self.pods.get(&end).copied(), direction, packet)
    }

    /// The same of a flow that is cut.
    pub(super) fn refuses_key(&self, key: &Key) -> bool {
        flow(key).is_some_and(|flow| self.refuses(&flow))
    }
}

/// What a flow began with, as policies see it.
fn first_packet(flow: &Flow) -> Packet {
    let protocol = match (protocol(flow.protocol), flow.ports) {
        (Some(protocol), Some((_, port))) => PacketProtocol::Port(protocol, port),
        // Whatever has no ports is allowed where all ports are.
        (None, _) | (_, None) => PacketProtocol::Echo,
    };
    Packet { source: flow.client, destination: flow.server, protocol }
}

/// The flow as a key from client to server, if its protocol has ports that rules can look at.
fn key(flow: &Flow) -> Option<Key> {
    let (from, to) = flow.ports?;
    Key::flow(flow.client, flow.server, protocol(flow.protocol)?, from, to)
}

fn flow(key: &Key) -> Option<Flow> {
    let (client, server, protocol, from, to) = key.as_flow()?;
    Some(Flow { client, server, protocol: protocol.number(), ports: Some((from, to)) })
}

/// Client and server of a flow that is cut.
pub(super) fn ends(key: &Key) -> Option<[IpAddr; 2]> {
    flow(key).map(|flow| [flow.client, flow.server])
}

fn protocol(number: u8) -> Option<Protocol> {
    Protocol::ALL.into_iter().find(|protocol| protocol.number() == number)
}
