//! The open flows, as connection tracking knows them.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;

use compiler::flows::{Flow, Review, Reviewed};
use netlink::{Error, conntrack};
use nix::ifaddrs::getifaddrs;

/// Looks at every open flow in the network namespace of the calling thread.
///
/// # Errors
///
/// If connection tracking cannot be read.
pub fn look(review: &Review) -> Result<Reviewed, Error> {
    let own = own_addresses()?;
    let mut inspection = review.begin(&own);
    let is_whole = conntrack::flows(|entry| inspection.flow(&as_policies_see(&entry)))?;
    Ok(inspection.end(is_whole))
}

/// A tracked flow by the ends that policies mean: before the translation of the source, and after that of the destination.
pub fn as_policies_see(entry: &conntrack::Flow) -> Flow {
    let ports = entry.original.ports.zip(entry.reply.ports);
    Flow {
        client: entry.original.source,
        server: entry.reply.source,
        protocol: entry.protocol,
        ports: ports.map(|((client, _), (server, _))| (client, server)),
    }
}

/// The addresses of the node itself, as the network namespace of the calling thread has them.
///
/// # Errors
///
/// If its links cannot be read.
pub fn own_addresses() -> Result<BTreeSet<IpAddr>, Error> {
    let links = getifaddrs().map_err(|errno| Error::Socket {
        what: "read the node's own addresses",
        source: io::Error::from_raw_os_error(errno as i32),
    })?;
    let address = |address: nix::sys::socket::SockaddrStorage| {
        let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
    };
    Ok(links.filter_map(|link| address(link.address?)).collect())
}
