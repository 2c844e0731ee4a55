//! What a rule fails by.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::{Known, Miss, Part};
use crate::api::{
    Direction, IpBlock, Labels, NamespaceScope, Operator, Peer, Peers, Pod, PodSelector, Port, PortMatch, Ports,
    Requirement, Rule, Selector, Str,
};
use crate::policy::{Packet, PacketProtocol};

/// How many of several things are named.
const MOST_NAMED: usize = 4;
/// How long a text of a tenant may be that is named, in characters.
const LONGEST_NAMED: usize = 120;

/// A packet in one direction, with its ends.
#[derive(Debug, Clone, Copy)]
pub(super) struct Question<'a> {
    pub(super) direction: Direction,
    /// The pod whose rules are asked.
    pub(super) own: Option<&'a Pod>,
    /// The other end, if it is a pod that is known.
    pub(super) peer: Option<&'a Pod>,
    pub(super) peer_address: IpAddr,
    pub(super) packet: &'a Packet,
    pub(super) known: Known<'a>,
}

/// What a rule fails by.
#[derive(Debug, Clone, Copy)]
pub(super) struct Failing<'a> {
    /// Whether its ports do not allow the packet.
    pub(super) ports: bool,
    /// Its entry that comes nearest to the peer, if none means it.
    pub(super) peers: Option<FailingPeer<'a>>,
}

/// Why an entry does not mean the peer.
#[derive(Debug, Clone, Copy)]
pub(super) enum FailingPeer<'a> {
    /// The selector means other pods.
    Pods { selector: &'a PodSelector, by_namespace: bool, by_labels: bool },
    /// It means pods, and the peer is none.
    NoPod,
    /// The block does not contain the address.
    Block { block: &'a IpBlock, peer_is_pod: bool },
    /// There is no entry that could be understood.
    Nobody,
}

/// How many entries there are to look at.
pub(super) fn entries(rule: &Rule) -> usize {
    let of_peer = |peer: &Peer| 1 + peer.ip_block().map_or(0, |block| block.except.len());
    let peers = match &rule.peers {
        Peers::Any => 0,
        Peers::These(peers) => peers.iter().map(of_peer).sum(),
    };
    let ports = match &rule.ports {
        Ports::Any => 0,
        Ports::These(ports) => ports.len(),
    };
    1 + peers + ports
}

impl Question<'_> {
    pub(super) fn failing<'r>(&self, rule: &'r Rule) -> Failing<'r> {
        Failing { ports: !self.ports_allow(&rule.ports), peers: self.failing_peer(&rule.peers) }
    }

    fn ports_allow(&self, ports: &Ports) -> bool {
        let Ports::These(ports) = ports else { return true };
        let PacketProtocol::Port(protocol, number) = self.packet.protocol else { return false };
        // A name is looked up at the destination.
        let destination = match self.direction {
            Direction::Ingress => self.own,
            Direction::Egress => self.peer,
        };
        let declares = |name: &str| {
            let ports = destination.into_iter().flat_map(|pod| &pod.ports);
            ports.into_iter().any(|port| &*port.name == name && port.protocol == protocol && port.number == number)
        };
        ports.iter().filter(|port| port.protocol == protocol).any(|port| match &port.port {
            PortMatch::Any => true,
            PortMatch::Numbers(range) => range.contains(number),
            PortMatch::Named(name) => declares(name),
        })
    }

    /// The entry that fails by the fewest parts; of equals one whose `cidr` has the address and whose `except` too, then the
    /// first. `None` if one means the peer.
    fn failing_peer<'r>(&self, peers: &'r Peers) -> Option<FailingPeer<'r>> {
        let Peers::These(peers) = peers else { return None };
        let mut nearest = None::<((usize, bool), FailingPeer<'r>)>;
        for peer in peers.iter() {
            let failing = match peer {
                Peer::Pods(selector) => self.failing_selector(selector)?,
                Peer::IpBlock(block) if contains(block, self.peer_address) => return None,
                Peer::IpBlock(block) => FailingPeer::Block { block, peer_is_pod: self.peer.is_some() },
            };
            let rank = (failing.parts(), !failing.is_excepted(self.peer_address));
            if nearest.as_ref().is_none_or(|(best, _)| rank < *best) {
                nearest = Some((rank, failing));
            }
        }
        Some(nearest.map_or(FailingPeer::Nobody, |(_, failing)| failing))
    }

    fn failing_selector<'r>(&self, selector: &'r PodSelector) -> Option<FailingPeer<'r>> {
        let Some(peer) = self.peer else { return Some(FailingPeer::NoPod) };
        let by_namespace = match &selector.namespaces {
            NamespaceScope::Named(name) => *name != peer.key.namespace,
            NamespaceScope::Selected(labels) => {
                self.known.namespaces.labels(&peer.key.namespace).is_none_or(|of_peer| !labels.matches(of_peer))
            }
        };
        let by_labels = !selector.pods.matches(&peer.labels);
        (by_namespace || by_labels).then_some(FailingPeer::Pods { selector, by_namespace, by_labels })
    }
}

impl FailingPeer<'_> {
    fn parts(&self) -> usize {
        match self {
            FailingPeer::Pods { by_namespace, by_labels, .. } => usize::from(*by_namespace) + usize::from(*by_labels),
            FailingPeer::Block { peer_is_pod: false, .. } => 1,
            FailingPeer::Block { peer_is_pod: true, .. } | FailingPeer::NoPod | FailingPeer::Nobody => 2,
        }
    }

    fn is_excepted(&self, address: IpAddr) -> bool {
        match self {
            FailingPeer::Block { block, .. } => block.cidr.contains(&address),
            FailingPeer::Pods { .. } | FailingPeer::NoPod | FailingPeer::Nobody => false,
        }
    }

    fn misses(&self, question: &Question<'_>) -> Vec<Miss> {
        let address = question.peer_address;
        let miss = |part, why| vec![Miss { part, why }];
        match self {
            FailingPeer::Pods { selector, by_namespace, by_labels } => {
                let Some(peer) = question.peer else { return Vec::new() };
                let mut misses = Vec::new();
                if *by_labels {
                    misses.push(Miss { part: Part::PodSelector, why: unmet(&selector.pods, &peer.labels) });
                }
                if *by_namespace {
                    let why = namespace_unmet(&selector.namespaces, peer, &question.known);
                    misses.push(Miss { part: Part::NamespaceSelector, why });
                }
                misses
            }
            FailingPeer::NoPod => {
                miss(Part::PodSelector, format!("it means pods, and {address} is none that is known"))
            }
            FailingPeer::Block { block, .. } => {
                let except = block.except.iter().find(|except| except.contains(&address));
                let why = match except {
                    Some(except) => format!("{address} is in except {except} of {}", block.cidr),
                    None => format!("{address} is not in {}", block.cidr),
                };
                miss(Part::IpBlock, why)
            }
            FailingPeer::Nobody => miss(Part::Peers, "there is no entry that could be understood".to_owned()),
        }
    }
}

impl Failing<'_> {
    /// By how many parts the rule fails.
    pub(super) fn parts(&self) -> usize {
        usize::from(self.ports) + self.peers.map_or(0, |peer| peer.parts())
    }

    /// What it fails by, in words.
    pub(super) fn misses(&self, question: &Question<'_>, rule: &Rule) -> Vec<Miss> {
        let peers = self.peers.iter().flat_map(|peer| peer.misses(question));
        let ports = self.ports.then(|| Miss { part: Part::Ports, why: ports_text(question, &rule.ports) });
        peers.chain(ports).collect()
    }
}

fn contains(block: &IpBlock, address: IpAddr) -> bool {
    block.cidr.contains(&address) && !block.except.iter().any(|except| except.contains(&address))
}

/// `it has 80/TCP, http/TCP and 3 more`
fn ports_text(question: &Question<'_>, ports: &Ports) -> String {
    let ports = match ports {
        Ports::Any => return "it has all".to_owned(),
        Ports::These(ports) if ports.is_empty() => return "there is no entry that could be understood".to_owned(),
        Ports::These(ports) => ports,
    };
    let name = |port: &Port| match &port.port {
        PortMatch::Any => format!("all of {}", port.protocol),
        PortMatch::Numbers(range) => format!("{range}/{}", port.protocol),
        PortMatch::Named(name) => format!("{}/{}", bounded(name.to_string()), port.protocol),
    };
    let listed = listed(ports.iter().map(name), ports.len());
    match question.packet.protocol {
        PacketProtocol::Port(..) => format!("it has {listed}"),
        PacketProtocol::Echo => format!("it has {listed}, and only a rule without ports allows ICMP"),
    }
}

fn namespace_unmet(scope: &NamespaceScope, peer: &Pod, known: &Known<'_>) -> String {
    let namespace = &peer.key.namespace;
    match (scope, known.namespaces.labels(namespace)) {
        (NamespaceScope::Named(own), _) => {
            format!("there is none, so that pods of namespace {own} are meant, and this one is in {namespace}")
        }
        (NamespaceScope::Selected(_), None) => format!("namespace {namespace} is not known"),
        (NamespaceScope::Selected(selector), Some(labels)) => unmet(selector, labels),
    }
}

/// `app=web is wanted, and it has app=api`
fn unmet(selector: &Selector, labels: &Labels) -> String {
    let unmet = selector.requirements().filter(|requirement| !requirement.matches(labels.get(&requirement.key)));
    let texts = unmet.map(|requirement| {
        let has = match labels.get(&requirement.key) {
            Some(value) => format!("{}={}", requirement.key, bounded(value.to_string())),
            None => format!("no {}", requirement.key),
        };
        format!("{} is wanted, and it has {has}", bounded(shown(requirement)))
    });
    let texts: Vec<String> = texts.take(MOST_NAMED).collect();
    texts.join("; ")
}

/// A requirement with the first of its values: to write out all, only to cut the text, would take as long as they are many.
fn shown(requirement: &Requirement) -> String {
    let first = |values: &BTreeSet<Str>| values.iter().take(MOST_NAMED).cloned().collect();
    let (operator, values) = match &requirement.operator {
        Operator::In(values) => (Operator::In(first(values)), values.len()),
        Operator::NotIn(values) => (Operator::NotIn(first(values)), values.len()),
        Operator::Exists => (Operator::Exists, 0),
        Operator::DoesNotExist => (Operator::DoesNotExist, 0),
    };
    let short: Selector = [Requirement { key: requirement.key.clone(), operator }].into_iter().collect();
    let more = values.saturating_sub(MOST_NAMED);
    if more == 0 { short.to_string() } else { format!("{short} and {more} values more") }
}

/// Some texts of so many.
fn listed(texts: impl Iterator<Item = String>, all: usize) -> String {
    let named: Vec<String> = texts.take(MOST_NAMED).collect();
    let more = all - named.len();
    let named = named.join(", ");
    if more > 0 { format!("{named} and {more} more") } else { named }
}

fn bounded(text: String) -> String {
    match text.char_indices().nth(LONGEST_NAMED) {
        Some((end, _)) => format!("{}..", &text[..end]),
        None => text,
    }
}
