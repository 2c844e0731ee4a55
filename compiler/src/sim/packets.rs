//! Packets at the edges of what a cluster's policies say.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde_json::Value;

use super::{Cluster, Dice};
use crate::api::Protocol;
use crate::nft::CtState;
use crate::nft::trace::{Payload, TracedPacket};
use crate::policy::oracle::{Content, Packet};

/// The addresses and ports at which a verdict may change: the first and last of each range, and one before and one
/// after; the addresses of pods and nodes; the ports of containers.
#[derive(Debug, Clone)]
pub struct Edges {
    pods: Vec<IpAddr>,
    addresses: Vec<IpAddr>,
    ports: Vec<u16>,
}

/// The packet as a hook sees it.
pub fn traced(packet: &Packet) -> TracedPacket {
    let Packet { source, destination, content, hop_limit, of_known_flow } = *packet;
    let payload = match (content, source) {
        (Content::Port(protocol, port), _) => Payload::Port(protocol, port),
        (Content::Icmp(kind, code), IpAddr::V4(_)) => Payload::Icmp(kind, code),
        (Content::Icmp(kind, code), IpAddr::V6(_)) => Payload::Icmpv6(kind, code),
    };
    let state = of_known_flow.then_some(CtState::Established);
    TracedPacket {
        source,
        destination,
        payload,
        hop_limit,
        state,
        is_reply: false,
        source_port: None,
        link: None,
        is_astray: false,
        exit: None,
        tag: None,
    }
}

impl Edges {
    /// The edges of a cluster.
    pub fn of(cluster: &Cluster) -> Edges {
        let mut edges = Gathered::default();
        for object in &cluster.objects {
            edges.gather(object);
        }
        let mut addresses = edges.addresses;
        addresses.extend(edges.pods.iter().copied());
        addresses.extend(OUTSIDE);
        edges.ports.extend([1, 80, u16::MAX]);
        Edges {
            pods: edges.pods.into_iter().collect(),
            addresses: addresses.into_iter().collect(),
            ports: edges.ports.into_iter().collect(),
        }
    }

    /// Any packet between them. Nearly always one end is a pod, since nothing else is judged.
    pub fn packet(&self, dice: &mut Dice) -> Packet {
        let own =
            if self.pods.is_empty() || dice.once_in(50) { *dice.pick(&self.addresses) } else { *dice.pick(&self.pods) };
        let of_family = |list: &[IpAddr]| -> Vec<IpAddr> {
            list.iter().copied().filter(|other| other.is_ipv4() == own.is_ipv4()).collect()
        };
        let pods = of_family(&self.pods);
        let other = if pods.is_empty() || dice.once_in(2) {
            *dice.pick(&of_family(&self.addresses))
        } else {
            *dice.pick(&pods)
        };
        let (source, destination) = if dice.once_in(2) { (own, other) } else { (other, own) };
        let content = self.content(own, dice);
        let hop_limit = *dice.pick(&[255, 255, 254, 64, 1]);
        Packet { source, destination, content, hop_limit, of_known_flow: dice.once_in(40) }
    }

    fn content(&self, address: IpAddr, dice: &mut Dice) -> Content {
        if dice.once_in(8) {
            // Echo requests; what keeps a network running; and errors, which are policed.
            let (kind, code) = match address {
                IpAddr::V4(_) => *dice.pick(&[(8, 0), (8, 0), (3, 4), (3, 3), (11, 0)]),
                IpAddr::V6(_) => *dice.pick(&[
                    (128, 0),
                    (128, 0),
                    (132, 0),
                    (133, 0),
                    (135, 0),
                    (136, 0),
                    (137, 0),
                    (138, 0),
                    (2, 0),
                    (1, 4),
                ]),
            };
            return Content::Icmp(kind, code);
        }
        let protocols = [Protocol::Tcp, Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
        Content::Port(*dice.pick(&protocols), *dice.pick(&self.ports))
    }
}

/// Addresses of nobody in particular, some of them of many at once or of one link: no pod is their owner, and blocks may
/// mean them.
const OUTSIDE: [IpAddr; 10] = [
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7)),
    IpAddr::V4(Ipv4Addr::new(0, 0, 0, 1)),
    IpAddr::V4(Ipv4Addr::BROADCAST),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7)),
    IpAddr::V6(Ipv6Addr::LOCALHOST),
    IpAddr::V6(Ipv6Addr::from_bits(u128::MAX)),
    IpAddr::V4(Ipv4Addr::new(224, 0, 0, 251)),
    IpAddr::V4(Ipv4Addr::new(169, 254, 0, 1)),
    IpAddr::V6(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1)),
    IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1)),
];

#[derive(Default)]
struct Gathered {
    pods: BTreeSet<IpAddr>,
    addresses: BTreeSet<IpAddr>,
    ports: BTreeSet<u16>,
}

impl Gathered {
    fn gather(&mut self, object: &Value) {
        for entry in object["status"]["podIPs"].as_array().into_iter().flatten() {
            self.pods.extend(address(&entry["ip"]));
        }
        self.pods.extend(address(&object["status"]["podIP"]));
        // Of a sandbox.
        for text in object["addresses"].as_array().into_iter().flatten() {
            self.pods.extend(address(text));
        }
        for entry in object["status"]["addresses"].as_array().into_iter().flatten() {
            self.addresses.extend(address(&entry["address"]));
        }
        self.gather_spec(&object["spec"]);
    }

    /// Looks for CIDRs and ports wherever they stand.
    fn gather_spec(&mut self, value: &Value) {
        match value {
            Value::Object(fields) => {
                for (name, value) in fields {
                    match name.as_str() {
                        "port" | "endPort" | "containerPort" => self.gather_port(value),
                        _ => self.gather_spec(value),
                    }
                }
            }
            Value::Array(items) => items.iter().for_each(|item| self.gather_spec(item)),
            Value::String(text) => self.gather_cidr(text),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    fn gather_port(&mut self, value: &Value) {
        let Some(number) = value.as_u64().and_then(|number| u16::try_from(number).ok()) else { return };
        self.ports.extend([number.checked_sub(1), Some(number), number.checked_add(1)].into_iter().flatten());
    }

    fn gather_cidr(&mut self, text: &str) {
        let Some((network, length)) = text.split_once('/') else { return };
        let (Ok(network), Ok(length)) = (network.parse::<IpAddr>(), length.parse::<u32>()) else { return };
        match network {
            IpAddr::V4(network) => {
                let mask = u32::MAX.checked_shr(length).unwrap_or(0);
                let (first, last) = (network.to_bits() & !mask, network.to_bits() | mask);
                let edges = [first.wrapping_sub(1), first, last, last.wrapping_add(1)];
                self.addresses.extend(edges.map(|bits| IpAddr::V4(Ipv4Addr::from_bits(bits))));
            }
            IpAddr::V6(network) => {
                let mask = u128::MAX.checked_shr(length).unwrap_or(0);
                let (first, last) = (network.to_bits() & !mask, network.to_bits() | mask);
                let edges = [first.wrapping_sub(1), first, last, last.wrapping_add(1)];
                self.addresses.extend(edges.map(|bits| IpAddr::V6(Ipv6Addr::from_bits(bits))));
            }
        }
    }
}

fn address(text: &Value) -> Option<IpAddr> {
    text.as_str()?.parse().ok()
}
