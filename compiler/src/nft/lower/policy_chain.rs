//! The chain of one policy in one direction.

use std::net::IpAddr;
use std::sync::Arc;

use super::super::{Chain, ChainName, Comment, Family, Field, Match, Rule, Set, SetName, Stmt, Verdict};
use super::sets::{self, Followed};
use crate::api::{Direction, PodPeers, PolicyKey, PortRange, Protocol};
use crate::cluster::{Endpoint, MOST_PORT_RULES, PortSelector};
use crate::policy::{PeerSet, PortSet, ResolvedRule};
#[cfg(test)]
use crate::work::{self, Work};

/// The chain of one policy in one direction, and the sets whose content it alone decides.
#[derive(Debug, Clone)]
pub(super) struct PolicyChain {
    pub(super) name: ChainName,
    pub(super) chain: Arc<Chain>,
    /// Sets of CIDRs and of ports. They are named by their content, and so shared with other policies.
    pub(super) sets: Vec<(SetName, Arc<Set>)>,
}

/// The chain that accepts what the rules of one direction allow, and falls through otherwise.
pub(super) fn lower(key: &PolicyKey, direction: Direction, rules: &[ResolvedRule], known: &Known<'_>) -> PolicyChain {
    #[cfg(test)]
    work::count(Work::ChainLowered);
    let mut builder = Builder { direction, known, rules: Vec::new(), sets: Vec::new() };
    for rule in rules {
        builder.add(rule);
    }
    let comment = Some(Comment::new(&format!("NetworkPolicy {key}")));
    PolicyChain {
        name: ChainName::of_policy(direction, key),
        chain: Arc::new(Chain { base: None, comment, rules: builder.rules }),
        sets: builder.sets,
    }
}

/// What the chains of all policies have in common.
pub(super) struct Known<'a> {
    pub(super) families: &'a [Family],
    /// The sets that follow the pods.
    pub(super) members: &'a Followed<PodPeers, IpAddr>,
    pub(super) endpoints: &'a Followed<PortSelector, Endpoint>,
}

struct Builder<'a> {
    direction: Direction,
    known: &'a Known<'a>,
    rules: Vec<Rule>,
    sets: Vec<(SetName, Arc<Set>)>,
}

/// The peer part of an nft rule: what the packet must match, and among which pods, if it is by selectors.
struct PeerMatch<'a> {
    /// `None` where the match is good for both families.
    family: Option<Family>,
    condition: Option<Match>,
    pods: Option<&'a Arc<PodPeers>>,
}

impl Builder<'_> {
    /// One rule of the policy: for each family at most two look-ups of the peer, each with a handful of alternatives of
    /// ports, however long the lists are.
    fn add(&mut self, rule: &ResolvedRule) {
        let comment = Comment::new(&format!("{}[{}]", self.direction.as_str(), rule.index));
        for peer in self.peer_matches(&rule.peers) {
            for matches in self.port_matches(&rule.ports, &peer) {
                let conditions = matches.into_iter().map(Stmt::Match);
                let stmts = conditions.chain([Stmt::Counter, Stmt::Verdict(Verdict::Accept)]).collect();
                self.rules.push(Rule { stmts, comment: Some(comment.clone()) });
            }
        }
    }

    fn peer_matches<'p>(&mut self, peers: &'p PeerSet) -> Vec<PeerMatch<'p>> {
        let (pods, blocks, text) = match peers {
            PeerSet::Any => return vec![PeerMatch { family: None, condition: None, pods: None }],
            PeerSet::These { pods, blocks, blocks_text } => (pods, blocks, blocks_text),
        };
        let Known { families, members, endpoints: _ } = self.known;
        let names = pods.as_ref().map(|pods| (pods, members.names(pods, families, sets::declare_pods)));
        let mut matches = Vec::new();
        for (place, family) in families.iter().copied().enumerate() {
            if let Some((pods, names)) = &names {
                let condition = Match::In(self.peer_field(family), names[place].clone());
                matches.push(PeerMatch { family: Some(family), condition: Some(condition), pods: Some(pods) });
            }
            if let Some((name, set)) = sets::cidr_set(blocks, family, text) {
                self.sets.push((name.clone(), set));
                let condition = Match::In(self.peer_field(family), name);
                matches.push(PeerMatch { family: Some(family), condition: Some(condition), pods: None });
            }
        }
        matches
    }

    fn peer_field(&self, family: Family) -> Field {
        match self.direction {
            Direction::Ingress => Field::Source(family),
            Direction::Egress => Field::Destination(family),
        }
    }

    /// The conditions of each nft rule for one peer: the peer's own, and one alternative of the ports.
    fn port_matches(&mut self, ports: &PortSet, peer: &PeerMatch<'_>) -> Vec<Vec<Match>> {
        let with_peer = |port: Option<Match>| peer.condition.iter().cloned().chain(port).collect::<Vec<_>>();
        let (numbers, names) = match ports {
            PortSet::Any => return vec![with_peer(None)],
            PortSet::These { numbers, names } => (numbers, names),
        };
        let mut alternatives = Vec::new();
        for (protocol, ranges) in numbers {
            for condition in self.numbers(*protocol, ranges) {
                alternatives.push(with_peer(Some(condition)));
            }
        }
        if names.is_empty() {
            return alternatives;
        }
        let selector = PortSelector::of_rule(self.direction, peer.pods, names);
        let Known { families, members: _, endpoints } = self.known;
        let names = endpoints.names(&selector, families, sets::declare_endpoints);
        let of_peer = |family: &Family| peer.family.is_none_or(|of_peer| of_peer == *family);
        for (family, name) in families.iter().copied().zip(names).filter(|(family, _)| of_peer(family)) {
            let endpoint = Match::In(Field::Endpoint(family), name);
            alternatives.push(match (self.direction, peer.pods) {
                // The endpoints are the peer's own: one look-up says both.
                (Direction::Egress, Some(_)) => vec![endpoint],
                (Direction::Egress, None) | (Direction::Ingress, _) => with_peer(Some(endpoint)),
            });
        }
        alternatives
    }

    fn numbers(&mut self, protocol: Protocol, ranges: &[PortRange]) -> Vec<Match> {
        if ranges == [PortRange::ALL] {
            return vec![Match::Protocol(protocol)];
        }
        if ranges.len() <= MOST_PORT_RULES {
            return ranges.iter().map(|range| Match::Port(protocol, *range)).collect();
        }
        let (name, set) = sets::port_set(ranges);
        self.sets.push((name.clone(), set));
        vec![Match::PortIn(protocol, name)]
    }
}
