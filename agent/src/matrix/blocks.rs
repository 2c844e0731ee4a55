//! The addresses outside of the cluster that policies tell apart.
//!
//! Two CIDRs lie within each other or apart. So the addresses of one that are in none of the CIDRs within it are alike to
//! every policy that names no others, and one of them stands for all.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use compiler::api::{NetworkPolicy, Peer, Peers};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Everything of a family.
const EVERYTHING: [IpNet; 2] = [
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0)),
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 0)),
];
/// Who stands for everything, if he may: documentation's addresses (RFC 5737, RFC 3849), which no cluster has.
const ANYBODY: [IpAddr; 3] = [
    IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1)),
    IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
];
/// How many addresses are looked at until it is believed that a CIDR has no other than pods'.
const MOST_LOOKS: usize = 10_000;

/// The CIDRs and exceptions that policies name, but for everything.
pub(super) fn named(policies: &[NetworkPolicy]) -> BTreeSet<IpNet> {
    let rules = policies.iter().flat_map(|policy| [&policy.ingress, &policy.egress]).flatten().flatten();
    let peers = rules.flat_map(|rule| match &rule.peers {
        Peers::These(peers) => &peers[..],
        Peers::Any => &[],
    });
    let blocks = peers.filter_map(Peer::ip_block);
    let networks = blocks.flat_map(|block| block.except.iter().copied().chain([block.cidr]));
    networks.map(|network| network.trunc()).filter(|network| network.prefix_len() > 0).collect()
}

/// The smallest of the CIDRs that has an address; `None` where none has.
pub(super) fn innermost(named: &BTreeSet<IpNet>, address: IpAddr) -> Option<IpNet> {
    around(named, address).last()
}

/// The CIDRs that have an address, the largest first. However many there are, it is looked for one of each length.
fn around(named: &BTreeSet<IpNet>, address: IpAddr) -> impl Iterator<Item = IpNet> {
    let host = IpNet::from(address);
    let cut = move |length| IpNet::new(address, length).ok().map(|network| network.trunc());
    (1..=host.max_prefix_len()).filter_map(cut).filter(|network| named.contains(network))
}

/// For each of some CIDRs, and for everything, an address that is in none of all within it and that is not taken, where
/// there is one.
pub(super) fn representatives(
    some: &BTreeSet<IpNet>,
    all: &BTreeSet<IpNet>,
    is_taken: impl Fn(IpAddr) -> bool,
) -> Vec<(IpNet, IpAddr)> {
    let some = EVERYTHING.iter().chain(some);
    some.filter_map(|network| Some((*network, representative(network, all, &is_taken)?))).collect()
}

fn representative(network: &IpNet, named: &BTreeSet<IpNet>, is_taken: impl Fn(IpAddr) -> bool) -> Option<IpAddr> {
    let inside = |address: IpAddr| around(named, address).find(|other| other.prefix_len() > network.prefix_len());
    let is_free = |address: IpAddr| network.contains(&address) && inside(address).is_none() && !is_taken(address);
    if let Some(address) = ANYBODY.into_iter().filter(|_| network.prefix_len() == 0).find(|address| is_free(*address)) {
        return Some(address);
    }
    let mut address = network.network();
    for _ in 0..MOST_LOOKS {
        let last = match inside(address) {
            Some(other) => other.broadcast(),
            None if is_free(address) => return Some(address),
            None => address,
        };
        address = next(last).filter(|address| network.contains(address))?;
    }
    None
}

/// The address after one; `None` after the last.
fn next(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(address) => Some(Ipv4Addr::from(u32::from(address).checked_add(1)?).into()),
        IpAddr::V6(address) => Some(Ipv6Addr::from(u128::from(address).checked_add(1)?).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cidr_has_somebody_who_is_in_no_smaller_one() {
        let named: BTreeSet<IpNet> =
            ["10.0.0.0/8", "10.0.0.0/24", "10.0.1.7/32", "203.0.113.0/24", "198.51.100.0/24", "fd00::/127"]
                .iter()
                .map(|text| text.parse().unwrap())
                .collect();
        let taken: IpAddr = "10.0.0.0".parse().unwrap();
        let shown: Vec<String> = representatives(&named, &named, |address| {
            address == taken || address == "10.0.1.7".parse::<IpAddr>().unwrap()
        })
        .iter()
        .map(|(network, address)| format!("{network} {address}"))
        .collect();
        assert_eq!(
            shown,
            [
                "0.0.0.0/0 0.0.0.0",
                "::/0 2001:db8::1",
                "10.0.0.0/8 10.0.1.0",
                "10.0.0.0/24 10.0.0.1",
                "198.51.100.0/24 198.51.100.0",
                "203.0.113.0/24 203.0.113.0",
                "fd00::/127 fd00::",
            ]
        );
        assert_eq!(innermost(&named, "10.0.0.9".parse().unwrap()).unwrap().to_string(), "10.0.0.0/24");
        assert_eq!(innermost(&named, "192.0.2.1".parse().unwrap()), None);
    }
}
