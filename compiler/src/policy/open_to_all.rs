//! What a pod may be sent by anybody, and may send to anybody.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use super::{AddressRange, Isolation, PeerSet, PortSet, RulesByPolicy, merge_ports};
use crate::api::{Direction, PortRange, Protocol};

/// The ports that the rules of a direction open to everybody, by number: a rule without peers, or with an `ipBlock` of all addresses of
/// the family and no exceptions.
///
/// What is sent to many at once, or by an address that is nobody's, has no end whose named ports or labels could be asked
/// for, so that only such rules let it pass.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OpenToAll {
    /// For all IPv4 addresses.
    pub v4: OpenPorts,
    /// For all IPv6 addresses.
    pub v6: OpenPorts,
}

/// Ports of one family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OpenPorts {
    /// All traffic, also of protocols that have no ports.
    Any,
    /// These, ascending and joined.
    These(BTreeMap<Protocol, Vec<PortRange>>),
}

impl Default for OpenPorts {
    fn default() -> OpenPorts {
        OpenPorts::These(BTreeMap::new())
    }
}

impl OpenToAll {
    /// What the pods that these policies isolate have in common with everybody.
    pub(super) fn of(direction: Direction, isolation: &Isolation, policies: &RulesByPolicy) -> OpenToAll {
        let mut open = OpenToAll::default();
        let rules = isolation.policies.iter().filter_map(|key| policies.get(key)?.rules(direction)).flatten();
        for rule in rules {
            let (v4, v6) = match &rule.peers {
                PeerSet::Any => (true, true),
                PeerSet::These { blocks, .. } => (
                    blocks.contains(&AddressRange::V4(Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST)),
                    blocks.contains(&AddressRange::V6(Ipv6Addr::UNSPECIFIED, Ipv6Addr::from_bits(u128::MAX))),
                ),
            };
            if v4 {
                open.v4.add(&rule.ports);
            }
            if v6 {
                open.v6.add(&rule.ports);
            }
        }
        open.v4.join();
        open.v6.join();
        open
    }

    /// Whether nothing is refused.
    pub(super) fn is_everything(&self) -> bool {
        self.v4 == OpenPorts::Any && self.v6 == OpenPorts::Any
    }
}

impl OpenPorts {
    fn add(&mut self, ports: &PortSet) {
        let PortSet::These { numbers, names: _ } = ports else {
            *self = OpenPorts::Any;
            return;
        };
        let OpenPorts::These(open) = self else { return };
        for (protocol, ranges) in numbers {
            open.entry(*protocol).or_default().extend(ranges);
        }
    }

    fn join(&mut self) {
        let OpenPorts::These(open) = self else { return };
        for ranges in open.values_mut() {
            *ranges = merge_ports(std::mem::take(ranges));
        }
    }
}
