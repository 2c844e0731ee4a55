//! What has to be kept for a policy while it selects a local pod, and what it costs.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::budget::Cost;
use super::{PortSelector, named_ports};
use crate::api::{Direction, NetworkPolicy, Peer, Peers, PodPeers, PortMatch, Ports, Protocol, Rule};

/// The memberships that a policy needs, and its cost without them.
#[derive(Debug, Clone, Default)]
pub(super) struct Needs {
    pub(super) pods: BTreeSet<Arc<PodPeers>>,
    pub(super) ports: BTreeSet<Arc<PortSelector>>,
    pub(super) cost: Cost,
}

impl Needs {
    pub(super) fn of(policy: &NetworkPolicy) -> Needs {
        let mut needs = Needs::default();
        for direction in Direction::ALL {
            for rule in policy.rules(direction).unwrap_or_default() {
                needs.add(direction, rule);
            }
        }
        needs.cost.sets += needs.pods.len() + needs.ports.len();
        needs
    }

    fn add(&mut self, direction: Direction, rule: &Rule) {
        let peers = rule.peers.pods();
        let names = named_ports(&rule.ports);
        // Whether somebody is meant by address, or everybody.
        let (by_address, blocks) = match &rule.peers {
            Peers::Any => (true, 0),
            Peers::These(peers) => {
                let blocks = peers.iter().filter_map(Peer::ip_block);
                let ranges: usize = blocks.map(|block| 1 + block.except.len()).sum();
                (ranges > 0, ranges)
            }
        };
        if !names.is_empty() {
            let lookups = peers.iter().map(Some).chain(by_address.then_some(None));
            let selectors = lookups.map(|peers| Arc::new(PortSelector::of_rule(direction, peers, &names)));
            self.ports.extend(selectors);
        }
        let (alternatives, port_sets, ranges) = cost_of_ports(&rule.ports, !names.is_empty());
        self.cost.rules += alternatives * (usize::from(peers.is_some()) + usize::from(by_address));
        self.cost.sets += port_sets + usize::from(blocks > 0);
        self.cost.elements += ranges + blocks;
        self.cost.ranges = self.cost.ranges.max(blocks);
        self.pods.extend(peers);
    }
}

/// How many rules the ports of one peer become at most, and how many sets with how many ranges.
fn cost_of_ports(ports: &Ports, has_names: bool) -> (usize, usize, usize) {
    let Ports::These(ports) = ports else { return (1, 0, 0) };
    let (mut rules, mut sets, mut elements) = (usize::from(has_names), 0, 0);
    for protocol in Protocol::ALL {
        let is_number = |port: &&PortMatch| matches!(port, PortMatch::Any | PortMatch::Numbers(_));
        let of_protocol = ports.iter().filter(|port| port.protocol == protocol).map(|port| &port.port);
        match of_protocol.filter(is_number).count() {
            few @ 0..=MOST_PORT_RULES => rules += few,
            many => {
                rules += 1;
                sets += 1;
                elements += many;
            }
        }
    }
    (rules, sets, elements)
}

/// Past this many ranges of one protocol a set is cheaper than a rule for each.
pub(crate) const MOST_PORT_RULES: usize = 4;
