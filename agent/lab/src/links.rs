//! Links, addresses and routes of one namespace, over rtnetlink.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use futures::TryStreamExt;
use rtnetlink::{
    Handle, LinkBridge, LinkBridgePort, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder,
    packet_route::{
        address::{AddressAttribute, AddressFlags, AddressScope},
        link::{InfoData, InfoVeth, LinkAttribute, State},
        route::{RouteMessage, RouteScope},
    },
};
use tokio::{runtime, time};

use super::{LabError, Namespace, Netns};

/// The loopback link's index in every namespace.
pub(super) const LOOPBACK: u32 = 1;
/// The index that the lab gives to `eth0`: a pod's only link, a node's uplink.
pub(super) const ETH0: u32 = 2;
/// The index of a node's bridge.
pub(super) const BRIDGE: u32 = 3;
/// The first index for the router's ends of veth pairs. The two ends never have the same index: the kernel takes a link
/// whose peer has its own index for one without a peer, and may then wait a second before it brings the link up.
pub(super) const FIRST_PORT: u32 = 100;

/// The rtnetlink socket of a namespace.
pub(super) struct Links {
    handle: Handle,
}

/// Where a route leads to, besides its destination.
#[derive(Clone, Copy)]
pub(super) struct Hop {
    pub(super) link: u32,
    /// The router; without one the destination is a neighbour.
    pub(super) gateway: Option<IpAddr>,
    /// The source address of the namespace's own packets.
    pub(super) source: Option<IpAddr>,
}

// === impl Links ===

impl Links {
    /// Opens the socket in the namespace, and brings its loopback link up. Needs the runtime that shall drive the socket.
    pub(super) async fn open(netns: &Netns) -> Result<Self, LabError> {
        let runtime = runtime::Handle::current();
        let (connection, handle, _) = netns
            .run(|| {
                let _inside = runtime.enter();
                rtnetlink::new_connection()
            })
            .and_then(|opened| opened)
            .map_err(LabError::Namespace)?;
        // The task ends when the last handle is dropped.
        tokio::spawn(connection);
        let links = Self { handle };
        links.bring_up(LOOPBACK).await?;
        Ok(links)
    }

    /// Makes a veth pair, both ends up: one here, its peer `eth0` in the namespace of `peer`.
    pub(super) async fn add_veth(&self, index: u32, name: &str, peer: &Namespace) -> Result<(), LabError> {
        let far_end =
            LinkMessageBuilder::<LinkUnspec>::new().name("eth0").index(ETH0).setns_by_fd(peer.netns.raw_fd()).build();
        let near_end =
            LinkVeth::new(name, "eth0").set_info_data(InfoData::Veth(InfoVeth::Peer(far_end))).index(index).up();
        let what = format!("add the veth pair {name}");
        self.handle.link().add(near_end.build()).execute().await.map_err(refused(what))?;
        // Not by the same message: the peer is set up first, and cannot come up without its own peer.
        peer.links.bring_up(ETH0).await
    }

    async fn bring_up(&self, index: u32) -> Result<(), LabError> {
        let up = LinkUnspec::new_with_index(index).up().build();
        self.handle.link().set(up).execute().await.map_err(refused(format!("bring link {index} up")))
    }

    /// Makes an empty bridge and brings it up.
    pub(super) async fn add_bridge(&self, index: u32, name: &str) -> Result<(), LabError> {
        let bridge = LinkBridge::new(name).index(index).build();
        self.handle.link().add(bridge).execute().await.map_err(refused(format!("add the bridge {name}")))
    }

    /// Makes the near end of a veth pair a port of the bridge, as flannel does: a packet may leave by the port that it came from,
    /// for a pod that asks a Service and gets itself. `address` is one of the pod's.
    pub(super) async fn add_port(&self, bridge: u32, port: u32, peer: &Links, address: IpAddr) -> Result<(), LabError> {
        let what = format!("make link {port} a port of the bridge");
        let set = LinkUnspec::new_with_index(port).controller(bridge).build();
        self.handle.link().set(set).execute().await.map_err(refused(&what))?;
        let hairpin = LinkBridgePort::new(port).hairpin(true).build();
        self.handle.link().set_port(hairpin).execute().await.map_err(refused(&what))?;
        let hardware = LinkUnspec::new_with_index(ETH0).address(hardware_address(address)).build();
        peer.handle.link().set(hardware).execute().await.map_err(refused(what))
    }

    /// Removes a link; its peer, their addresses and their routes go with it.
    pub(super) async fn remove(&self, index: u32) -> Result<(), LabError> {
        self.handle.link().del(index).execute().await.map_err(refused(format!("remove link {index}")))
    }

    /// Waits until a link carries packets. Its carrier is there at once, but a worker of the kernel makes it usable.
    pub(super) async fn wait_until_up(&self, index: u32) -> Result<(), LabError> {
        for _ in 0..2_000 {
            let mut answer = std::pin::pin!(self.handle.link().get().match_index(index).execute());
            let link = answer.try_next().await.map_err(refused(format!("read link {index}")))?;
            let is_up = |attribute: &LinkAttribute| matches!(attribute, LinkAttribute::OperState(State::Up));
            if link.is_some_and(|link| link.attributes.iter().any(is_up)) {
                return Ok(());
            }
            time::sleep(Duration::from_millis(1)).await;
        }
        Err(LabError::LinkDown(index))
    }

    /// Adds an address that can be used at once: without duplicate address detection.
    pub(super) async fn add_address(&self, link: u32, address: IpAddr, prefix: u8) -> Result<(), LabError> {
        let mut request = self.handle.address().add(link, address, prefix);
        let message = request.message_mut();
        message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        if is_link_local(address) {
            message.header.scope = AddressScope::Link;
        }
        request.execute().await.map_err(refused(format!("add address {address}/{prefix}")))
    }

    /// Adds the default route of a family, that of `gateway`.
    pub(super) async fn add_default_route(&self, gateway: IpAddr, source: Option<IpAddr>) -> Result<(), LabError> {
        let any: IpAddr = if gateway.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        self.add_route(any, 0, Hop { link: ETH0, gateway: Some(gateway), source }).await
    }

    /// Adds the route to one address.
    pub(super) async fn add_host_route(&self, address: IpAddr, hop: Hop) -> Result<(), LabError> {
        self.add_route(address, host_prefix(address), hop).await
    }

    /// Removes the route to one address.
    pub(super) async fn remove_host_route(&self, address: IpAddr, hop: Hop) -> Result<(), LabError> {
        let what = format!("remove the route to {address}");
        self.handle.route().del(route(address, host_prefix(address), hop)).execute().await.map_err(refused(what))
    }

    async fn add_route(&self, address: IpAddr, prefix: u8, hop: Hop) -> Result<(), LabError> {
        let what = format!("add the route to {address}/{prefix}");
        self.handle.route().add(route(address, prefix, hop)).execute().await.map_err(refused(what))
    }
}

/// The prefix length of a single address.
pub(super) fn host_prefix(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn route(address: IpAddr, prefix: u8, hop: Hop) -> RouteMessage {
    const ONE_FAMILY: &str = "destination, gateway and source of a lab's route are of one family";
    let mut builder = RouteMessageBuilder::<IpAddr>::new()
        .destination_prefix(address, prefix)
        .expect(ONE_FAMILY)
        .output_interface(hop.link);
    builder = match hop.gateway {
        // On-link, because the gateways are in no subnet of the link.
        Some(gateway) => builder.gateway(gateway).expect(ONE_FAMILY).onlink(),
        None if address.is_ipv4() => builder.scope(RouteScope::Link),
        None => builder,
    };
    if let Some(source) = hop.source {
        builder = builder.pref_source(source).expect(ONE_FAMILY);
    }
    builder.build()
}

/// A hardware address that is always the same for an IP address: when another pod gets the address, the neighbours that remember
/// the old one reach the new one.
fn hardware_address(address: IpAddr) -> Vec<u8> {
    let (kind, last) = match address {
        IpAddr::V4(address) => (0x58, address.octets()),
        IpAddr::V6(address) => {
            let [.., a, b, c, d] = address.octets();
            (0x59, [a, b, c, d])
        }
    };
    [&[0x0a, kind][..], &last].concat()
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

fn refused(what: impl Into<String>) -> impl FnOnce(rtnetlink::Error) -> LabError {
    let what = what.into();
    move |source| LabError::Network { what, source }
}
