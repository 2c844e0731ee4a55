//! The gate: addresses of this node's pod ranges that no pod is known to have.

use std::net::IpAddr;

use ipnet::IpNet;

use super::LocalPod;
use crate::api::PodKey;
use crate::cluster::{Link, State};

/// What is refused of the node's pod ranges: every address that no local pod is known to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gate {
    /// The ranges; empty where the gate is open.
    ranges: Vec<IpNet>,
    open: Option<OpenGate>,
}

/// Why nothing is refused. The network plugin need not keep to the ranges that the cluster has for the node, and what is
/// refused by mistake would be the traffic of rightful pods.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenGate {
    /// The ranges are not known, or there are none.
    #[error("the ranges of this node's pods are not known")]
    NoRanges,
    /// Nothing shows that they are in use.
    #[error("no pod and no link of this node has an address of its pod ranges yet")]
    Unused,
    /// A pod of this node has another address.
    #[error("pod {0} has the address {1}, which is not in the pod ranges of this node")]
    Outside(PodKey, IpAddr),
    /// A pod of another node has such an address.
    #[error("pod {0} of another node has the address {1}, which is in the pod ranges of this node")]
    Elsewhere(PodKey, IpAddr),
}

impl Default for Gate {
    fn default() -> Gate {
        Gate { ranges: Vec::new(), open: Some(OpenGate::NoRanges) }
    }
}

impl Gate {
    pub(super) fn of(state: &State, pods: &[LocalPod]) -> Gate {
        let ranges = state.pod_ranges();
        match why_open(ranges, state, pods) {
            None => Gate { ranges: ranges.to_vec(), open: None },
            open @ Some(_) => Gate { ranges: Vec::new(), open },
        }
    }

    /// The ranges of which only the addresses of known pods may be used.
    pub fn ranges(&self) -> &[IpNet] {
        &self.ranges
    }

    /// Whether an address is refused that no local pod has.
    pub fn guards(&self, address: IpAddr) -> bool {
        self.ranges.iter().any(|range| range.contains(&address))
    }

    /// Why nothing is refused, if so.
    pub fn open_because(&self) -> Option<&OpenGate> {
        self.open.as_ref()
    }
}

fn why_open(ranges: &[IpNet], state: &State, pods: &[LocalPod]) -> Option<OpenGate> {
    if ranges.is_empty() {
        return Some(OpenGate::NoRanges);
    }
    let is_inside = |address: &IpAddr| ranges.iter().any(|range| range.contains(address));
    let has_range = |address: &IpAddr| ranges.iter().any(|range| range.addr().is_ipv4() == address.is_ipv4());
    for pod in pods {
        if let Some(address) = pod.addresses.iter().find(|address| has_range(address) && !is_inside(address)) {
            return Some(OpenGate::Outside(pod.key.clone(), *address));
        }
    }
    for range in ranges {
        if let Some((address, pod)) = state.pods().elsewhere(range) {
            return Some(OpenGate::Elsewhere(pod.key.clone(), address));
        }
    }
    let leads_there =
        |link: &Link| link.prefixes.iter().any(|prefix| ranges.iter().any(|range| range.contains(prefix)));
    let is_used = pods.iter().flat_map(|pod| &pod.addresses).any(is_inside) || state.links().iter().any(leads_there);
    (!is_used).then_some(OpenGate::Unused)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{Direction, LinkName, Protocol};
    use crate::cluster::Event;
    use crate::policy::{Packet, PacketProtocol, Resolver, judge};
    use crate::testing::{PodBuilder, ip, pod, state};

    fn ranges(list: &[&str]) -> Event {
        Event::PodRanges(list.iter().map(|range| range.parse().unwrap()).collect())
    }

    fn web() -> PodBuilder {
        pod("a/web").ip("10.1.0.1")
    }

    fn gate(events: impl IntoIterator<Item = Event>) -> Gate {
        (*Resolver::default().resolve(&state(events)).gate).clone()
    }

    #[test]
    fn it_stands_where_pods_keep_to_the_ranges() {
        let far = || pod("a/far").ip("10.2.0.1").elsewhere();
        let host = || pod("a/host").ip("192.0.2.1").host_network();
        let gate = gate([ranges(&["10.1.0.0/24"]), web().ip("fd00::1").into(), far().into(), host().into()]);
        assert_eq!(gate.open_because(), None);
        assert!(gate.guards(ip("10.1.0.255")) && !gate.guards(ip("10.2.0.9")) && !gate.guards(ip("fd00::2")));
    }

    #[test]
    fn it_is_open_where_the_plugin_has_addresses_of_its_own() {
        let both = || ranges(&["10.1.0.0/24", "fd00::/64"]);
        for (events, due) in [
            (vec![web().into()], "the ranges of this node's pods are not known"),
            (vec![ranges(&[]), web().into()], "the ranges of this node's pods are not known"),
            (vec![both()], "no pod and no link of this node has an address of its pod ranges yet"),
            (
                vec![both(), web().into(), pod("a/b").ip("10.9.0.1").into()],
                "pod a/b has the address 10.9.0.1, which is not in the pod ranges of this node",
            ),
            (
                vec![both(), web().into(), pod("a/b").ip("fd00::9").elsewhere().into()],
                "pod a/b of another node has the address fd00::9, which is in the pod ranges of this node",
            ),
        ] {
            let gate = gate(events);
            assert_eq!(gate.open_because().map(ToString::to_string).as_deref(), Some(due));
            assert!(gate.ranges().is_empty());
        }
    }

    #[test]
    fn what_pods_elsewhere_have_counts_whenever_it_comes() {
        let mut state = state([ranges(&["10.1.0.0/24"]), web().into()]);
        let mut resolver = Resolver::default();
        assert_eq!(resolver.resolve(&state).gate.open_because(), None);
        let far = || pod("a/far").ip("10.1.0.9").elsewhere();
        state.apply(far().into());
        assert!(matches!(resolver.resolve(&state).gate.open_because(), Some(OpenGate::Elsewhere(..))));
        state.apply(far().phase(crate::api::Phase::Failed).into());
        assert_eq!(resolver.resolve(&state).gate.open_because(), None);
    }

    #[test]
    fn a_bridge_shows_that_the_ranges_are_in_use() {
        let bridge = Link {
            name: LinkName::new("cni0").unwrap(),
            is_bridge: true,
            prefixes: vec!["10.1.0.0/24".parse().unwrap()],
            ports: vec![],
            is_cable: false,
        };
        assert_eq!(gate([ranges(&["10.1.0.0/24"]), Event::Links(vec![bridge])]).open_because(), None);
    }

    #[test]
    fn an_address_of_nobody_is_refused_at_either_end() {
        let ir = Resolver::default().resolve(&state([ranges(&["10.1.0.0/24"]), web().into()]));
        let allowed = |direction, from, to, port| {
            let protocol = PacketProtocol::Port(Protocol::Udp, port);
            judge(&ir, direction, &Packet { source: ip(from), destination: ip(to), protocol }).allowed
        };
        assert!(!allowed(Direction::Egress, "10.1.0.9", "10.1.0.1", 80));
        assert!(!allowed(Direction::Ingress, "10.1.0.1", "10.1.0.9", 80));
        assert!(allowed(Direction::Ingress, "10.1.0.1", "10.1.0.9", 68), "an answer of DHCP");
        assert!(allowed(Direction::Egress, "10.1.0.1", "10.1.0.9", 80), "the known end does not refuse");
        assert!(allowed(Direction::Egress, "10.2.0.9", "10.1.0.1", 80));
    }
}
