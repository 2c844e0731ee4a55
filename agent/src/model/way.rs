//! By which links a packet goes between its ends, as far as the node knows them: what rules by link see of it.

use std::net::IpAddr;

use compiler::api::{LinkName, PodKey};
use compiler::cluster::{Link, Links};
use compiler::policy::Packet;

use super::{End, Model, ModelNode};

/// The links of a packet's way through the node of one of its ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Way {
    /// The link that leads to the source alone, if it is a pod of the node.
    pub link: Option<LinkName>,
    /// Whether the node checks what comes from there, and routes the source elsewhere.
    pub is_astray: bool,
    /// The port of a bridge behind which the source is.
    pub from_port: Option<LinkName>,
    /// The port behind which the destination is, if it is of the same bridge.
    pub to_port: Option<LinkName>,
    /// That bridge.
    pub bridge: Option<LinkName>,
}

impl Model {
    /// The same model, of a node with these links and these addresses of its own.
    #[must_use]
    pub fn on(mut self, links: Links, own: impl IntoIterator<Item = IpAddr>) -> Model {
        let addresses: Vec<IpAddr> = own.into_iter().collect();
        for node in self.nodes.values_mut() {
            node.addresses.extend(&addresses);
        }
        Model { links, ..self }
    }

    /// The way of a packet through a node.
    pub(super) fn way(&self, node: &ModelNode, packet: &Packet) -> Way {
        let mut way = Way::default();
        let Some((bridge, port)) = self.port_of(packet.source) else {
            let End::Pod(pod) = self.end(packet.source) else { return way };
            way.link = node.ir.links.own.iter().find(|(_, of)| **of == pod).map(|(link, _)| *link);
            way.is_astray = way.link.is_some_and(|link| {
                let leads_there = |known: &Link| known.prefixes.iter().any(|prefix| prefix.addr() == packet.source);
                let is_checked = node.ir.links.checked.contains(&link);
                is_checked && !self.links.iter().any(|known| known.name == link && leads_there(known))
            });
            return way;
        };
        way.from_port = Some(port);
        if let Some((_, to_port)) = self.port_of(packet.destination).filter(|(of, _)| of.name == bridge.name) {
            way.to_port = Some(to_port);
            way.bridge = Some(bridge.name);
        }
        way
    }

    /// The port of a bridge behind which an address is: by the word of the container runtime, or as it was heard.
    fn port_of(&self, address: IpAddr) -> Option<(&Link, LinkName)> {
        let pod = self.pods.local_owner(address);
        let told = pod.and_then(|pod| self.pods.sandboxes_of(pod).find_map(|sandbox| sandbox.link));
        let ports = || self.links.iter().flat_map(|link| link.ports.iter().map(move |port| (link, port)));
        let by_runtime = || ports().find(|(_, port)| Some(port.name) == told);
        let by_ear = || ports().find(|(_, port)| port.addresses.contains(&address));
        by_runtime().or_else(by_ear).map(|(link, port)| (link, port.name))
    }

    /// What is to be said of an address in a packet that several pods of the node claim, none of them known by its link.
    pub fn shared(&self, address: IpAddr) -> Option<String> {
        let key = &self.pods.local_owner(address)?.key;
        let pods = self.nodes.values().flat_map(|node| node.ir.pods.iter());
        let shared = pods.filter(|pod| pod.key == *key).find_map(|pod| pod.shared_at(address))?;
        let names: Vec<String> = shared.pods.iter().map(ToString::to_string).collect();
        Some(format!(
            "{address} is the address of {}, and it is not known who of them has it: none of them opens what another \
             closes, and where they are isolated by different policies nothing is allowed",
            names.join(", ")
        ))
    }

    /// What is to be said of a pod of the node of which it is not known how it is linked, by the address in a packet.
    pub fn link_unknown(&self, address: IpAddr) -> Option<String> {
        let pod = self.pods.local_owner(address)?;
        if self.shared(address).is_some() {
            return None;
        }
        let node =
            self.nodes.get(self.pods.node()).filter(|_| self.links.iter().any(|link| !link.prefixes.is_empty()))?;
        let leads_there = |key: &PodKey| node.ir.links.own.values().any(|own| own == key);
        if leads_there(&pod.key) || self.port_of(address).is_some() {
            return None;
        }
        let bridge = self
            .links
            .iter()
            .find(|link| link.is_bridge && link.prefixes.iter().any(|prefix| prefix.contains(&address)));
        Some(match bridge {
            Some(bridge) => format!(
                "by which port of bridge {} {} is linked is not known yet: it is told by its address alone",
                bridge.name, pod.key
            ),
            None => format!(
                "the node routes {address} to no link of its own, so that {} is told by its address alone: its link may not \
                 be up yet",
                pod.key
            ),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use compiler::Compiler;
    use compiler::api::{NodeName, PodWire, Protocol, parse_network_policy};
    use compiler::cluster::{Change, Event, PodSource, Port};
    use compiler::nft::{Deny, Refusal};
    use compiler::policy::{OwnAddresses, PacketProtocol};
    use serde_json::json;

    use super::*;

    /// A node with these links, and pods that all may reach on port 80, by name and addresses.
    fn node(links: Vec<Link>, pods: &[(&str, &[&str])]) -> Model {
        let own_addresses = OwnAddresses::All { except: BTreeSet::new() };
        let mut compiler = Compiler::new(NodeName("n1".into()), Deny::Drop).checking(own_addresses);
        for (name, addresses) in pods {
            let ips: Vec<_> = addresses.iter().map(|ip| json!({"ip": ip})).collect();
            let pod = json!({"metadata": {"name": name, "namespace": "a"}, "spec": {"nodeName": "n1"},
                "status": {"phase": "Running", "podIPs": ips}});
            let pod = serde_json::from_value::<PodWire>(pod).unwrap().parse().value;
            compiler.apply(Event::Pods(PodSource::Cluster, Change::Applied(pod)));
        }
        let policy =
            json!({"metadata": {"name": "p", "namespace": "a"}, "spec": {"ingress": [{"ports": [{"port": 80}]}]}});
        compiler.apply(Event::Policies(Change::Applied(parse_network_policy(&policy.into()).value)));
        compiler.apply(Event::Links(links));
        let (table, ir) = (Arc::new(compiler.table()), compiler.ir());
        let state = compiler.state();
        Model::of_node(state.pods().clone(), ir, table).on(state.links().clone(), [])
    }

    fn link(name: &str, is_bridge: bool, prefix: &str, ports: &[(&str, &str)]) -> Link {
        let port = |(name, address): &(&str, &str)| Port {
            name: LinkName::new(name).unwrap(),
            addresses: vec![address.parse().unwrap()],
        };
        Link {
            name: LinkName::new(name).unwrap(),
            is_bridge,
            prefixes: vec![prefix.parse().unwrap()],
            ports: ports.iter().map(port).collect(),
            is_cable: !is_bridge,
        }
    }

    fn to_port_80(source: &str, destination: &str) -> Packet {
        let protocol = PacketProtocol::Port(Protocol::Tcp, 80);
        Packet { source: source.parse().unwrap(), destination: destination.parse().unwrap(), protocol }
    }

    #[test]
    fn what_is_routed_elsewhere_passes_for_forged() {
        let model = node(vec![link("veth1", false, "10.0.0.1/32", &[])], &[("web", &["10.0.0.1", "10.0.0.2"])]);
        let rightful = model.judge(&to_port_80("10.0.0.1", "192.0.2.1"));
        assert!(rightful.allowed() && !rightful.egress.way.is_astray, "{rightful:?}");
        let astray = model.judge(&to_port_80("10.0.0.2", "192.0.2.1"));
        assert_eq!((astray.allowed(), astray.egress.refusal), (false, Some(Refusal::Source)), "{astray:?}");
        assert!(!astray.disagrees(), "policies know nothing of it");
        assert_eq!(model.link_unknown("10.0.0.1".parse().unwrap()), None);
    }

    #[test]
    fn who_shares_an_address_is_named() {
        let model = node(vec![], &[("evil", &["10.0.0.1", "10.0.0.9"]), ("web", &["10.0.0.1"])]);
        let told = model.shared("10.0.0.1".parse().unwrap()).unwrap();
        assert!(told.starts_with("10.0.0.1 is the address of a/evil, a/web, and it is not known"), "{told}");
        assert_eq!(model.shared("10.0.0.9".parse().unwrap()), None);
        let verdict = model.judge(&to_port_80("192.0.2.1", "10.0.0.1"));
        assert!(verdict.allowed() && !verdict.disagrees(), "the same policies: {verdict:?}");
    }

    #[test]
    fn packets_of_one_bridge_meet_its_table() {
        let ports = [("v1", "10.1.0.1"), ("v2", "10.1.0.2")];
        let pods: [(&str, &[&str]); 3] = [("one", &["10.1.0.1"]), ("two", &["10.1.0.2"]), ("mute", &["10.1.0.3"])];
        let model = node(vec![link("cni0", true, "10.1.0.0/24", &ports)], &pods);
        let verdict = model.judge(&to_port_80("10.1.0.1", "10.1.0.2"));
        assert!(verdict.allowed() && !verdict.disagrees(), "{verdict:?}");
        let chains = (verdict.egress.bridge_chain, verdict.ingress.bridge_chain);
        assert_eq!(chains, (Some("from-port"), Some("to-port")));
        assert!(verdict.ingress.path.iter().any(|rule| rule.starts_with("to-port: ")), "{verdict:?}");
        let unheard = model.judge(&to_port_80("10.1.0.1", "10.1.0.3"));
        assert_eq!((unheard.egress.way.to_port, unheard.ingress.bridge_chain), (None, None));
        let unknown = model.link_unknown("10.1.0.3".parse().unwrap()).unwrap();
        assert!(unknown.starts_with("by which port of bridge cni0 a/mute is linked"), "{unknown}");
        assert_eq!(model.link_unknown("10.1.0.1".parse().unwrap()), None);
    }
}
