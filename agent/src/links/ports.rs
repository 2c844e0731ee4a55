//! Which addresses are behind which port of a bridge.
//!
//! No route leads to a port. But the node has had to find out for its own packets: its table of neighbours says which
//! hardware address has an address, and the bridge's table of stations by which port that one was heard. Both forget
//! who is silent, so that what was learnt is kept for as long as the port is there and nothing else is heard.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use compiler::api::LinkName;
use compiler::cluster::Port;
use rtnetlink::packet_route::link::{InfoKind, LinkAttribute, LinkInfo, LinkMessage};
use rtnetlink::packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState};

/// The hardware address of a station.
type Station = Vec<u8>;

/// What is known of ports, over many readings.
#[derive(Debug, Default)]
pub(super) struct Ports {
    /// By index.
    known: BTreeMap<u32, Known>,
}

#[derive(Debug)]
struct Known {
    bridge: u32,
    name: LinkName,
    addresses: BTreeSet<IpAddr>,
}

/// What one reading of the kernel's tables says.
#[derive(Debug, Default)]
pub(super) struct Heard {
    /// The ports that may lead to pods, by index, each with the index of its bridge.
    ports: BTreeMap<u32, (LinkName, u32)>,
    /// The port by which each station was heard, by the index of the bridge.
    stations: BTreeMap<(u32, Station), u32>,
    /// Neighbours by the index of the link.
    neighbours: Vec<(u32, IpAddr, Station)>,
}

// === impl Heard ===

impl Heard {
    /// The host's end of a pod's link, if it is on a bridge.
    pub(super) fn add_link(&mut self, link: &LinkMessage, name: LinkName) {
        let is_veth = |info: &LinkInfo| matches!(info, LinkInfo::Kind(InfoKind::Veth));
        let (mut bridge, mut may_lead_to_pod) = (None, false);
        for attribute in &link.attributes {
            if let LinkAttribute::Controller(index) = attribute {
                bridge = Some(*index);
            } else if let LinkAttribute::LinkInfo(infos) = attribute {
                may_lead_to_pod = infos.iter().any(is_veth);
            }
        }
        if let Some(bridge) = bridge.filter(|_| may_lead_to_pod) {
            self.ports.insert(link.header.index, (name, bridge));
        }
    }

    /// An entry of a bridge's table of stations. Those that do not age are the bridge's own.
    pub(super) fn add_station(&mut self, entry: &NeighbourMessage) {
        let Some((_, bridge)) = self.ports.get(&entry.header.ifindex) else { return };
        if entry.header.state != NeighbourState::Permanent
            && let Some(station) = station(entry)
        {
            self.stations.insert((*bridge, station), entry.header.ifindex);
        }
    }

    /// An entry of the table of neighbours.
    pub(super) fn add_neighbour(&mut self, entry: &NeighbourMessage) {
        let address = entry.attributes.iter().find_map(|attribute| {
            let NeighbourAttribute::Destination(address) = attribute else { return None };
            if let NeighbourAddress::Inet(address) = address {
                Some(IpAddr::V4(*address))
            } else if let NeighbourAddress::Inet6(address) = address {
                Some(IpAddr::V6(*address))
            } else {
                None
            }
        });
        let is_found = !matches!(entry.header.state, NeighbourState::Incomplete | NeighbourState::Failed);
        if let (Some(address), Some(station), true) = (address, station(entry), is_found) {
            self.neighbours.push((entry.header.ifindex, address, station));
        }
    }

    /// Whether there are ports of which something could be heard.
    pub(super) fn has_ports(&self) -> bool {
        !self.ports.is_empty()
    }
}

fn station(entry: &NeighbourMessage) -> Option<Station> {
    entry.attributes.iter().find_map(|attribute| {
        let NeighbourAttribute::LinkLayerAddress(station) = attribute else { return None };
        Some(station.clone())
    })
}

// === impl Ports ===

impl Ports {
    /// Takes over a reading. An address that is heard by another port than before is behind that one only.
    pub(super) fn learn(&mut self, heard: Heard) {
        let Heard { ports, stations, neighbours } = heard;
        self.known.retain(|index, known| ports.get(index) == Some(&(known.name, known.bridge)));
        for (index, (name, bridge)) in ports {
            self.known.entry(index).or_insert_with(|| Known { bridge, name, addresses: BTreeSet::new() });
        }
        for (bridge, address, station) in neighbours {
            let Some(port) = stations.get(&(bridge, station)) else { continue };
            for (index, known) in self.known.iter_mut().filter(|(_, known)| known.bridge == bridge) {
                if index == port {
                    known.addresses.insert(address);
                } else {
                    known.addresses.remove(&address);
                }
            }
        }
    }

    /// The ports of a bridge, by name.
    pub(super) fn of(&self, bridge: u32) -> Vec<Port> {
        let of_bridge = self.known.values().filter(|known| known.bridge == bridge);
        let port = |known: &Known| Port { name: known.name, addresses: known.addresses.iter().copied().collect() };
        let mut ports: Vec<Port> = of_bridge.map(port).collect();
        ports.sort();
        ports
    }
}
