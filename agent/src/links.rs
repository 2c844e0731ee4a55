//! Which links of the node lead where: from the kernel's routes to the sync thread.
//!
//! A network plugin gives a pod a link and routes the pod's addresses there. So what is behind a link is known without a
//! word of the API server or the runtime, as long as the kernel itself has it.

mod ports;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use compiler::api::LinkName;
use compiler::cluster::{Event, Link};
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, TryStreamExt};
use ipnet::IpNet;
use ports::{Heard, Ports};
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::link::{InfoKind, LinkAttribute, LinkInfo, LinkMessage};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType};
use rtnetlink::{Handle, MulticastGroup, RouteMessageBuilder, new_multicast_connection};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, warn};

use crate::backoff::Backoff;
use crate::kernel;
use crate::readiness::{Guard, Readiness};
use crate::sync;

/// How long after a change further ones are waited for: a plugin makes several in a row.
const BURST: Duration = Duration::from_millis(10);
/// How often links and routes are read though nothing was told: what is told may be lost. After a change it is sooner,
/// and then ever later: who is behind the port of a bridge is known once the node has heard of it, which is not told.
const INTERVAL: Duration = Duration::from_secs(30);
const FIRST_INTERVAL: Duration = Duration::from_secs(1);
/// To read takes at most one part in so many of the time: a node of a large network may have many routes.
const SHARE: u32 = 5;
/// What is told where the kernel has no tables for bridges.
const UNJUDGED: &str = "what pods of one bridge send to many at once, or in tagged frames, is not judged: that needs \
    nf_tables for bridges (CONFIG_NF_TABLES_BRIDGE)";
/// Of `fe80::/10` (RFC 4291, section 2.5.6), as far as routes go: `fe80::/64`.
const LINK_LOCAL: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0));
/// How long the kernel may take to list them.
const PATIENCE: Duration = Duration::from_secs(5);

/// The links of the network namespace of the calling thread, by name, with what is routed there.
///
/// # Errors
///
/// If the kernel does not list links and routes.
pub async fn read() -> Result<Vec<Link>> {
    Routes::open(&[])?.read().await
}

/// Reads them once, and tells the sync thread.
///
/// # Errors
///
/// If the kernel does not list links and routes.
pub async fn tell(sync: &sync::Handle) -> Result<()> {
    sync.event(Event::Links(read().await?));
    Ok(())
}

/// Tells the sync thread of links and routes as they change, for ever.
pub async fn follow(sync: &sync::Handle, readiness: &Readiness) -> Infallible {
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(30));
    // Stands until links have been read again.
    let mut note = None;
    loop {
        let Err(error) = follow_once(sync, readiness, &mut backoff, &mut note).await;
        let text = format!("links cannot be followed, and new pods are known by their addresses alone: {error:#}");
        warn!("{text}");
        note = Some(readiness.note(text));
        sleep(backoff.next_wait()).await;
    }
}

async fn follow_once(
    sync: &sync::Handle,
    readiness: &Readiness,
    backoff: &mut Backoff,
    note: &mut Option<Guard>,
) -> Result<Infallible> {
    let mut routes = Routes::open(&[MulticastGroup::Link, MulticastGroup::Ipv4Route, MulticastGroup::Ipv6Route])?;
    let mut told = None;
    let mut intervals = Backoff::new(FIRST_INTERVAL, INTERVAL);
    let mut unjudged = None;
    loop {
        let begun = Instant::now();
        let links = routes.read().await?;
        let rest = begun.elapsed() * SHARE;
        backoff.reset();
        *note = None;
        if told.as_ref() != Some(&links) {
            intervals.reset();
            debug!(links = links.len(), "links of the node");
            let is_unjudged = !routes.reads_ports && links.iter().any(|link| link.is_bridge);
            unjudged = is_unjudged.then(|| unjudged.take().unwrap_or_else(|| readiness.note(UNJUDGED.to_owned())));
            sync.event(Event::Links(links.clone()));
            told = Some(links);
        }
        sleep(rest).await;
        routes.change(intervals.next_wait()).await?;
    }
}

/// An rtnetlink socket.
pub(crate) struct Routes {
    handle: Handle,
    driver: JoinHandle<()>,
    /// An item for each change of a link or a route.
    changes: BoxStream<'static, ()>,
    ports: Ports,
    /// Whether rules can be made for the ports of bridges.
    reads_ports: bool,
}

// === impl Routes ===

impl Routes {
    /// Opens a socket in the network namespace of the calling thread, which is told of some changes.
    pub(crate) fn open(groups: &[MulticastGroup]) -> Result<Routes> {
        let (connection, handle, changes) = new_multicast_connection(groups).context("cannot open rtnetlink")?;
        let driver = tokio::spawn(connection);
        // Where the kernel cannot be asked, the sync thread meets the same error, and tells of it.
        let reads_ports = kernel::supports_bridge_tables().unwrap_or(true);
        Ok(Routes { handle, driver, changes: changes.map(drop).boxed(), ports: Ports::default(), reads_ports })
    }

    /// The links, by name.
    pub(crate) async fn read(&mut self) -> Result<Vec<Link>> {
        let read = async {
            let (mut leading, mut heard) = (Leading::default(), Heard::default());
            let mut links = self.handle.link().get().execute();
            while let Some(link) = links.try_next().await? {
                let Some(name) = name(&link) else { continue };
                leading.add_link(&link, name);
                if self.reads_ports {
                    heard.add_link(&link, name);
                }
            }
            let v4 = RouteMessageBuilder::<Ipv4Addr>::new().build();
            let v6 = RouteMessageBuilder::<Ipv6Addr>::new().build();
            for request in [v4, v6] {
                let mut routes = self.handle.route().get(request).execute();
                while let Some(route) = routes.try_next().await? {
                    leading.add_route(&route);
                }
            }
            if heard.has_ports() {
                self.listen(&mut heard).await?;
            }
            anyhow::Ok((leading, heard))
        };
        let (leading, heard) =
            timeout(PATIENCE, read).await.map_err(|_| anyhow!("no answer within {PATIENCE:?}"))??;
        self.ports.learn(heard);
        Ok(leading.into_links(&self.ports))
    }

    /// Reads what is known of who is behind ports.
    async fn listen(&self, heard: &mut Heard) -> Result<()> {
        for family in [AddressFamily::Bridge, AddressFamily::Inet, AddressFamily::Inet6] {
            let mut entries = self.handle.neighbours().get().set_address_family(family).execute();
            while let Some(entry) = entries.try_next().await? {
                if family == AddressFamily::Bridge {
                    heard.add_station(&entry);
                } else {
                    heard.add_neighbour(&entry);
                }
            }
        }
        Ok(())
    }

    /// Waits until something has changed, or so long.
    async fn change(&mut self, longest: Duration) -> Result<()> {
        match timeout(longest, self.changes.next()).await {
            Err(_) => return Ok(()),
            Ok(None) => return Err(anyhow!("rtnetlink has ended")),
            Ok(Some(())) => {}
        }
        sleep(BURST).await;
        while let Some(Some(())) = self.changes.next().now_or_never() {}
        Ok(())
    }
}

impl Drop for Routes {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// The links, with what is routed there directly: to a bridge whatever it is, to others a single address.
#[derive(Default)]
struct Leading {
    by_index: BTreeMap<u32, Link>,
}

impl Leading {
    fn add_link(&mut self, link: &LinkMessage, name: LinkName) {
        let (is_bridge, is_cable) = (is_kind(link, &InfoKind::Bridge), is_kind(link, &InfoKind::Veth));
        let link_of_node = Link { name, is_bridge, prefixes: Vec::new(), ports: Vec::new(), is_cable };
        self.by_index.insert(link.header.index, link_of_node);
    }

    fn add_route(&mut self, route: &RouteMessage) {
        let Some(Way { link, destination, is_direct }) = Way::of(route) else { return };
        let Some(link) = self.by_index.get_mut(&link) else { return };
        let single = destination.filter(|prefix| prefix.prefix_len() == prefix.max_prefix_len());
        match if link.is_bridge { destination } else { single } {
            Some(prefix) if is_direct => link.prefixes.push(prefix),
            // Every link has those.
            _ if destination.is_some_and(|prefix| prefix.addr() == LINK_LOCAL || prefix.addr().is_multicast()) => {}
            Some(_) | None => link.is_cable = false,
        }
    }

    fn into_links(self, ports: &Ports) -> Vec<Link> {
        let link = |(index, mut link): (u32, Link)| {
            link.prefixes.sort_unstable();
            link.prefixes.dedup();
            if link.is_bridge {
                link.ports = ports.of(index);
            }
            link
        };
        let mut links: Vec<Link> = self.by_index.into_iter().map(link).collect();
        links.sort();
        links
    }
}

fn is_kind(link: &LinkMessage, kind: &InfoKind) -> bool {
    let is_kind = |info: &LinkInfo| matches!(info, LinkInfo::Kind(found) if found == kind);
    let is_info =
        |attribute: &LinkAttribute| matches!(attribute, LinkAttribute::LinkInfo(infos) if infos.iter().any(is_kind));
    link.attributes.iter().any(is_info)
}

fn name(link: &LinkMessage) -> Option<LinkName> {
    link.attributes.iter().find_map(|attribute| {
        let LinkAttribute::IfName(name) = attribute else { return None };
        LinkName::new(name)
    })
}

/// A route over a link.
struct Way {
    link: u32,
    /// `None` is everywhere.
    destination: Option<IpNet>,
    /// Whether the destination is a neighbour.
    is_direct: bool,
}

impl Way {
    fn of(route: &RouteMessage) -> Option<Way> {
        if route.header.kind != RouteType::Unicast {
            return None;
        }
        let (mut link, mut destination, mut has_router) = (None, None, false);
        for attribute in &route.attributes {
            if let RouteAttribute::Oif(index) = attribute {
                link = Some(*index);
            } else if let RouteAttribute::Destination(RouteAddress::Inet(address)) = attribute {
                destination = Some(IpAddr::V4(*address));
            } else if let RouteAttribute::Destination(RouteAddress::Inet6(address)) = attribute {
                destination = Some(IpAddr::V6(*address));
            }
            has_router |= matches!(attribute, RouteAttribute::Gateway(_) | RouteAttribute::Via(_));
        }
        let length = route.header.destination_prefix_length;
        let destination = destination.and_then(|address| IpNet::new(address, length).ok());
        link.map(|link| Way { link, destination, is_direct: !has_router })
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use lab::{Netns, isolated};

    use super::*;

    fn ip(netns: &Netns, batch: &str) {
        let run = || {
            for line in batch.lines() {
                let status = Command::new("ip").args(line.split_whitespace()).status().unwrap();
                assert!(status.success(), "ip {line}");
            }
        };
        netns.run(run).unwrap();
    }

    fn bridge_fdb(arguments: &str) {
        let status = Command::new("bridge").arg("fdb").args(arguments.split_whitespace()).status().unwrap();
        assert!(status.success(), "bridge fdb {arguments}");
    }

    fn text(links: &[Link]) -> Vec<String> {
        let line = |link: &Link| {
            let prefixes = link.prefixes.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
            format!("{}{}: {prefixes}", link.name, if link.is_bridge { " (bridge)" } else { "" })
        };
        links.iter().filter(|link| !link.prefixes.is_empty()).map(line).collect()
    }

    #[test]
    fn links_are_read_with_what_is_routed_there() {
        isolated(async {
            let netns = Netns::new().unwrap();
            ip(
                &netns,
                "link set lo up
                 link add v1 type veth peer name p1
                 link add v2 type veth peer name p2
                 link add cni0 type bridge
                 link set v1 up
                 link set p1 up
                 link set v2 up
                 link set p2 up
                 link set cni0 up
                 addr add 10.9.0.1/32 dev lo
                 addr add 10.1.0.1/24 dev cni0
                 addr add fd01::1/64 dev cni0 nodad
                 route add 10.0.0.2/32 dev v1
                 route add fd00::2/128 dev v1
                 route add 10.8.0.0/24 dev v2
                 route add default via 10.0.0.2 dev v1 onlink",
            );
            let runtime = tokio::runtime::Handle::current();
            let mut routes = netns
                .run(|| {
                    let _inside = runtime.enter();
                    Routes::open(&[MulticastGroup::Link, MulticastGroup::Ipv4Route])
                })
                .unwrap()
                .unwrap();
            let links = routes.read().await.unwrap();
            let cables = links.iter().filter(|link| link.is_cable).map(|link| link.name.to_string());
            assert_eq!(cables.collect::<Vec<_>>(), ["p1", "p2"], "routes lead away by the others");
            let found = text(&links);
            assert_eq!(found.len(), 2, "{found:?}");
            assert!(found[0].starts_with("cni0 (bridge): 10.1.0.0/24 "), "{found:?}");
            assert!(found[0].contains("fd01::/64") && !found[0].contains("0.0.0.0/0"), "{found:?}");
            assert_eq!(found[1], "v1: 10.0.0.2/32 fd00::2/128");

            // A port's address is known once the node has had to find it out, and for as long as nobody else has it. No link
            // has the hardware address, so that no frame of its own moves it; and that of the bridge is given, because one
            // that changes with the ports makes the node forget its neighbours.
            ip(
                &netns,
                "link set cni0 address 02:00:00:00:00:01
                 link set v2 master cni0",
            );
            let port = |links: &[Link]| links.iter().find(|link| link.is_bridge).unwrap().ports.clone();
            assert_eq!(port(&routes.read().await.unwrap()).len(), 1, "the other end of v1 is no port");
            assert!(port(&routes.read().await.unwrap())[0].addresses.is_empty(), "nothing was heard of it");
            ip(
                &netns,
                "neigh add 10.1.0.7 lladdr 02:00:00:00:00:07 dev cni0
                 neigh add fd01::7 lladdr 02:00:00:00:00:07 dev cni0
                 neigh add 10.1.0.8 lladdr 02:00:00:00:00:08 dev cni0",
            );
            assert!(port(&routes.read().await.unwrap())[0].addresses.is_empty(), "nobody was heard by it");
            netns.run(|| bridge_fdb("add 02:00:00:00:00:07 dev v2 master dynamic")).unwrap();
            let known = port(&routes.read().await.unwrap());
            assert_eq!(known[0].addresses.iter().map(ToString::to_string).collect::<Vec<_>>(), ["10.1.0.7", "fd01::7"]);
            netns.run(|| bridge_fdb("del 02:00:00:00:00:07 dev v2 master")).unwrap();
            ip(&netns, "neigh del 10.1.0.7 dev cni0");
            assert_eq!(port(&routes.read().await.unwrap()), known, "who is silent is not forgotten");
            ip(&netns, "link set v1 master cni0");
            netns.run(|| bridge_fdb("add 02:00:00:00:00:07 dev v1 master dynamic")).unwrap();
            let moved = port(&routes.read().await.unwrap());
            let counts: Vec<_> = moved.iter().map(|port| (port.name.to_string(), port.addresses.len())).collect();
            assert_eq!(counts, [("v1".to_owned(), 1), ("v2".to_owned(), 1)], "fd01::7 is behind v1 now");
            ip(&netns, "link set v1 nomaster");
            ip(&netns, "link set v2 nomaster");
            assert!(port(&routes.read().await.unwrap()).is_empty());
            ip(&netns, "route add 10.0.0.3/32 dev v2");
            let changed = async {
                loop {
                    routes.change(INTERVAL).await.unwrap();
                    let links = text(&routes.read().await.unwrap());
                    if links.iter().any(|link| link == "v2: 10.0.0.3/32") {
                        return;
                    }
                }
            };
            timeout(Duration::from_secs(20), changed).await.unwrap();
        });
    }
}
