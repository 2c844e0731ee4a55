//! Which link leads to which local pod, and what that says about the packets that come from there.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::{Gate, LocalPod, OpenToAll, RulesByPolicy};
use crate::api::{Direction, LinkName, PodKey, Str};
use crate::cluster::{Link, ListId, Port, State};

/// Whose packets must have a source that the node routes to the link from which they come.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum OwnAddresses {
    /// Those of all local pods but the pods of these namespaces, which route for others.
    All {
        /// The namespaces.
        except: BTreeSet<Str>,
    },
    /// The same, of pods that are isolated in some direction.
    Isolated {
        /// The namespaces.
        except: BTreeSet<Str>,
    },
    /// Nobody's.
    #[default]
    Off,
}

/// The links that lead to local pods.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodLinks {
    /// The links that lead to one pod each, with the pod.
    pub own: BTreeMap<LinkName, PodKey>,
    /// Those of them whose packets must have a source that the node routes there.
    pub checked: BTreeSet<LinkName>,
    /// The links behind which there are several pods, one of them isolated, and no ports are known: the rules of the node
    /// do not see who of them it is.
    pub shared: BTreeSet<LinkName>,
    /// The ports of bridges by which tagged frames must not come: what is in them is no packet to the rules of the node,
    /// and is one to whoever receives it. Those of pods that are isolated for egress or must have a source of their own,
    /// and those that could be.
    pub tagless: BTreeSet<LinkName>,
    /// The ports of bridges that the container runtime says are a pod's, whose packets must have a source of these. What
    /// is only heard does not count here: who may forge a source can be heard with it.
    pub sources: BTreeMap<LinkName, BTreeSet<IpAddr>>,
    /// The ports of bridges by which nothing may come from a link-local address, which is nobody's in particular, but what
    /// makes a link work. Those of pods that are isolated for egress, and those that could be.
    pub jailed: BTreeSet<LinkName>,
    /// The ports of bridges by which nothing may leave but what the rules of the node judge, and what anybody may send
    /// there. Those of pods that are isolated for ingress, and those that could be.
    pub closed: BTreeMap<LinkName, OpenToAll>,
    /// Where the gate stands, the links that are no riddle: it is known which pod is behind them, or no pod can be. What is
    /// missing here is new, or was never heard of. Empty where the gate is open.
    pub settled: BTreeSet<LinkName>,
    /// Whether ports that are not settled are gated, too: a bridge of the ranges is there, and its ports are known.
    pub gates_ports: bool,
}

impl PodLinks {
    pub(super) fn of(
        state: &State,
        pods: &[LocalPod],
        policies: &RulesByPolicy,
        own_addresses: &OwnAddresses,
        gate: &Gate,
    ) -> PodLinks {
        let mut found = PodLinks::default();
        let links = state.links();
        if links.is_empty() {
            return found;
        }
        let by_port = by_port(state, pods);
        let by_address = by_address(pods);
        for link in links.iter() {
            if link.is_bridge {
                let is_behind = |address: &IpAddr| link.prefixes.iter().any(|prefix| prefix.contains(address));
                let behind = by_address.iter().filter(|(address, _)| is_behind(address)).flat_map(|(_, pods)| pods);
                let isolated: Vec<&LocalPod> = behind.filter(|pod| pod.is_isolated()).copied().collect();
                if !isolated.is_empty() {
                    if link.ports.is_empty() {
                        found.shared.insert(link.name);
                    }
                    let any_ingress = isolated.iter().any(|pod| pod.ingress.is_some());
                    let behind = Behind { by_address: &by_address, by_port: &by_port };
                    found.add_ports(link, any_ingress, behind, policies, own_addresses);
                }
                continue;
            }
            let behind: Vec<&Vec<&LocalPod>> =
                link.prefixes.iter().filter_map(|prefix| by_address.get(&prefix.addr())).collect();
            let alone = behind.iter().filter(|pods| pods.len() == 1).flat_map(|pods| pods.iter().map(|pod| &pod.key));
            let alone: BTreeSet<&PodKey> = alone.collect();
            let all: BTreeMap<&PodKey, &LocalPod> = behind.into_iter().flatten().map(|pod| (&pod.key, *pod)).collect();
            // Where it is not known who of several has an address, the link may still be that of one pod.
            if alone.len() <= 1 && all.values().any(|pod| own_addresses.concern(pod)) {
                found.checked.insert(link.name);
            }
            let mut pods = all.values();
            match (pods.next(), pods.next()) {
                (None, _) => {}
                (Some(pod), None) => _ = found.own.insert(link.name, pod.key.clone()),
                (Some(_), Some(_)) => {
                    if all.values().any(|pod| pod.is_isolated()) {
                        found.shared.insert(link.name);
                    }
                }
            }
        }
        if !gate.ranges().is_empty() {
            found.settle(links, Behind { by_address: &by_address, by_port: &by_port }, gate);
        }
        found
    }

    /// Finds the links that are no riddle.
    fn settle(&mut self, links: &[Link], known_behind: Behind<'_>, gate: &Gate) {
        let mut gated = BTreeMap::new();
        for bridge in links.iter().filter(|link| link.is_bridge) {
            let is_gated = bridge.prefixes.iter().any(|prefix| gate.guards(prefix.addr()));
            self.gates_ports |= is_gated && !bridge.ports.is_empty();
            gated.extend(bridge.ports.iter().map(|port| (port.name, is_gated.then_some(port))));
        }
        let is_settled = |link: &&Link| match gated.get(&link.name) {
            Some(Some(port)) => !known_behind.port(port).is_empty(),
            Some(None) => true,
            None => {
                let is_plain = |address| known_behind.by_address.contains_key(&address) || !gate.guards(address);
                !link.is_cable || link.prefixes.iter().any(|prefix| is_plain(prefix.addr()))
            }
        };
        self.settled = links.iter().filter(is_settled).map(|link| link.name).collect();
    }
}

impl PodLinks {
    /// Whether anything is decided by the ports of bridges.
    pub fn has_ports(&self) -> bool {
        let PodLinks { own: _, checked: _, shared: _, tagless, sources, jailed, closed, settled: _, gates_ports } =
            self;
        *gates_ports || !(tagless.is_empty() && sources.is_empty() && jailed.is_empty() && closed.is_empty())
    }

    /// The ports of a bridge behind which there is an isolated pod, one that is isolated for ingress if `any_ingress`.
    ///
    /// Where the runtime does not say who is behind a port it is learnt from what was sent by it, so that who may forge
    /// frames can pass for another there. That opens no port of a victim: the owner of a forged address is then behind no
    /// port that is known.
    fn add_ports(
        &mut self,
        bridge: &Link,
        any_ingress: bool,
        known_behind: Behind<'_>,
        policies: &RulesByPolicy,
        own_addresses: &OwnAddresses,
    ) {
        let mut known: BTreeMap<(Direction, ListId), OpenToAll> = BTreeMap::new();
        let mut open_to_all = |pod: &LocalPod, direction| {
            let isolation = pod.isolation(direction)?;
            let open = known.entry((direction, isolation.policies.id()));
            Some(open.or_insert_with(|| OpenToAll::of(direction, isolation, policies)).clone())
        };
        for port in &bridge.ports {
            let behind = known_behind.port(port);
            if let Some((pod, addresses)) = known_behind.by_port.get(&port.name)
                && own_addresses.concern(pod)
            {
                self.sources.insert(port.name, addresses.clone());
            }
            let is_unknown = behind.is_empty();
            let must_be_tagless = |pod: &&LocalPod| pod.egress.is_some() || own_addresses.concern(pod);
            if is_unknown || behind.values().any(must_be_tagless) {
                self.tagless.insert(port.name);
            }
            let mut is_jailed = |pod: &LocalPod| {
                open_to_all(pod, Direction::Egress).is_some_and(|open| !open.is_everything())
                    && !own_addresses.except(pod)
            };
            if is_unknown || behind.values().any(|pod| is_jailed(pod)) {
                self.jailed.insert(port.name);
            }
            let is_judged = |pod: &&LocalPod| pod.ingress.is_some() && !own_addresses.except(pod);
            if any_ingress && (is_unknown || behind.values().any(is_judged)) {
                // Several pods behind one port have nothing that is open to all of them, as far as is looked at here.
                let mut pods = behind.values();
                let alone = pods.next().filter(|_| pods.next().is_none());
                let open = alone.and_then(|pod| open_to_all(pod, Direction::Ingress)).unwrap_or_default();
                if !open.is_everything() {
                    self.closed.insert(port.name, open);
                }
            }
        }
    }
}

/// The pods that have each address, the one first to which it belongs.
type ByAddress<'a> = BTreeMap<IpAddr, Vec<&'a LocalPod>>;

fn by_address(pods: &[LocalPod]) -> ByAddress<'_> {
    let named = |key| pods.binary_search_by(|pod| pod.key.cmp(key)).ok().map(|at| &pods[at]);
    let mut by_address = ByAddress::new();
    for pod in pods {
        for address in &pod.addresses {
            let mut owners = vec![pod];
            let others = pod.shared_at(*address).into_iter().flat_map(|shared| &shared.pods[1..]);
            owners.extend(others.filter_map(named));
            by_address.insert(*address, owners);
        }
    }
    by_address
}

/// The pods that the container runtime says are behind a link of the node, with their addresses.
type ByPort<'a> = BTreeMap<LinkName, (&'a LocalPod, BTreeSet<IpAddr>)>;

fn by_port<'a>(state: &State, pods: &'a [LocalPod]) -> ByPort<'a> {
    let mut by_port = ByPort::new();
    for (of_api, pod) in state.pods().local().zip(pods) {
        for sandbox in state.pods().sandboxes_of(of_api) {
            let Some(link) = sandbox.link else { continue };
            let (_, addresses) = by_port.entry(link).or_insert_with(|| (pod, pod.addresses.iter().copied().collect()));
            addresses.extend(&sandbox.addresses);
        }
    }
    by_port
}

/// Who is behind which port of a bridge.
#[derive(Clone, Copy)]
struct Behind<'a> {
    by_address: &'a ByAddress<'a>,
    by_port: &'a ByPort<'a>,
}

impl<'a> Behind<'a> {
    /// The pod that the runtime says is there; without its word those that were heard.
    fn port(self, port: &Port) -> BTreeMap<&'a PodKey, &'a LocalPod> {
        if let Some((pod, _)) = self.by_port.get(&port.name) {
            return BTreeMap::from([(&pod.key, *pod)]);
        }
        let heard = port.addresses.iter().filter_map(|address| self.by_address.get(address)).flatten();
        heard.map(|pod| (&pod.key, *pod)).collect()
    }
}

impl OwnAddresses {
    /// Whether the pod routes for others.
    fn except(&self, pod: &LocalPod) -> bool {
        match self {
            OwnAddresses::All { except } | OwnAddresses::Isolated { except } => except.contains(&pod.key.namespace),
            OwnAddresses::Off => false,
        }
    }

    fn concern(&self, pod: &LocalPod) -> bool {
        match self {
            OwnAddresses::All { .. } => !self.except(pod),
            OwnAddresses::Isolated { .. } => pod.is_isolated() && !self.except(pod),
            OwnAddresses::Off => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Event;
    use crate::policy::Resolver;
    use crate::testing::{pod, policy, state};

    fn link(name: &str, is_bridge: bool, prefixes: &[&str]) -> Link {
        let prefixes = prefixes.iter().map(|prefix| prefix.parse().unwrap()).collect();
        Link { name: LinkName::new(name).unwrap(), is_bridge, prefixes, ports: vec![], is_cable: !is_bridge }
    }

    fn names(links: &BTreeSet<LinkName>) -> Vec<String> {
        links.iter().map(ToString::to_string).collect()
    }

    /// A deny-all pod and a free one with links of their own, two behind one link, one behind a bridge.
    fn links(own_addresses: OwnAddresses) -> PodLinks {
        let state = state([
            policy("a/deny").selects("app=shut").ingress([]).into(),
            pod("a/shut").labels("app=shut").ip("10.0.0.1").ip("fd00::1").into(),
            pod("b/free").ip("10.0.0.2").into(),
            pod("a/one").labels("app=shut").ip("10.0.0.3").into(),
            pod("a/two").ip("10.0.0.4").into(),
            pod("a/port").labels("app=shut").ip("10.1.0.1").into(),
            pod("a/far").ip("10.0.0.5").elsewhere().into(),
            Event::Links(vec![
                link("cni0", true, &["10.1.0.0/24"]),
                link("docker0", true, &["172.17.0.0/16"]),
                link("tunnel", false, &["10.0.0.5/32"]),
                link("veth1", false, &["10.0.0.1/32", "fd00::1/128"]),
                link("veth2", false, &["10.0.0.2/32"]),
                link("veth3", false, &["10.0.0.3/32", "10.0.0.4/32"]),
            ]),
        ]);
        (*Resolver::checking(own_addresses).resolve(&state).links).clone()
    }

    #[test]
    fn a_link_is_a_pods_if_its_address_is_routed_there() {
        let found = links(OwnAddresses::Off);
        let own: Vec<String> = found.own.iter().map(|(link, pod)| format!("{link} {pod}")).collect();
        assert_eq!(own, ["veth1 a/shut", "veth2 b/free"]);
        assert_eq!((names(&found.shared), names(&found.checked)), (vec!["cni0".into(), "veth3".into()], vec![]));
    }

    #[test]
    fn a_link_to_an_address_that_two_pods_claim_is_an_isolated_pods() {
        let shut = || pod("a/shut").labels("app=shut").ip("10.0.0.1").ip("fd00::1").created(1).into();
        let links = |evil: Event| {
            let state = state([
                policy("a/deny").selects("app=shut").ingress([]).into(),
                shut(),
                evil,
                Event::Links(vec![
                    link("cni0", true, &["10.0.0.0/24"]),
                    link("veth1", false, &["10.0.0.1/32", "fd00::1/128"]),
                ]),
            ]);
            let all = OwnAddresses::All { except: BTreeSet::new() };
            let found = Resolver::checking(all).resolve(&state).links;
            (names(&found.shared), names(&found.checked), found.own.len())
        };
        let due = (vec!["cni0".to_owned(), "veth1".to_owned()], vec!["veth1".to_owned()], 0);
        assert_eq!(links(pod("b/evil").ip("10.0.0.1").ip("fd00::1").created(2).into()), due);
        assert_eq!(links(pod("b/evil").ip("10.0.0.1").created(2).into()), due, "one of its addresses");
    }

    /// A node with an uplink, a bridge of the ranges and one of others, cables, and ports.
    fn settled(ranges: &str) -> (Vec<String>, bool) {
        let port = |name: &str, address: Option<&str>| Port {
            name: LinkName::new(name).unwrap(),
            addresses: address.into_iter().map(|address| address.parse().unwrap()).collect(),
        };
        let (free, new) = (port("free", Some("10.1.0.1")), port("new", None));
        let uplink = Link { is_cable: false, ..link("eth0", false, &[]) };
        let state = state([
            Event::PodRanges(vec![ranges.parse().unwrap()]),
            pod("a/free").ip("10.1.0.1").into(),
            pod("a/routed").ip("10.1.0.2").into(),
            Event::Links(vec![
                uplink,
                Link { ports: vec![free, new], ..link("cni0", true, &["10.1.0.0/24"]) },
                Link { ports: vec![port("container", None)], ..link("docker0", true, &["172.17.0.0/16"]) },
                link("container", false, &[]),
                link("free", false, &[]),
                link("new", false, &[]),
                link("veth-new", false, &[]),
                link("veth-other", false, &["172.18.0.2/32"]),
                link("veth-pod", false, &["10.1.0.2/32"]),
                link("veth-soon", false, &["10.1.0.3/32"]),
            ]),
        ]);
        let links = Resolver::default().resolve(&state).links;
        (names(&links.settled), links.gates_ports)
    }

    #[test]
    fn a_cable_is_a_riddle_until_it_is_known_who_is_behind_it() {
        let due = ["cni0", "container", "docker0", "eth0", "free", "veth-other", "veth-pod"];
        assert_eq!(settled("10.1.0.0/24"), (due.map(str::to_owned).to_vec(), true));
        assert_eq!(settled("10.9.0.0/24"), (vec![], false), "the gate is open");
    }

    #[test]
    fn whose_sources_are_checked() {
        let except = || BTreeSet::from(["b".into()]);
        let none = BTreeSet::new;
        for (own_addresses, expected) in [
            (OwnAddresses::All { except: none() }, &["veth1", "veth2"][..]),
            (OwnAddresses::All { except: except() }, &["veth1"]),
            (OwnAddresses::Isolated { except: none() }, &["veth1"]),
            (OwnAddresses::Isolated { except: BTreeSet::from(["a".into()]) }, &[]),
        ] {
            assert_eq!(names(&links(own_addresses.clone()).checked), expected, "{own_addresses:?}");
        }
    }
}
