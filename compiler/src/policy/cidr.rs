//! Address arithmetic: blocks minus their exceptions, as disjoint ranges.
//!
//! The kernel refuses overlapping intervals in one set (EEXIST), so the union is worked out here. An exception is
//! carved out of its own block only; another block may cover it again.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::api::IpBlock;

/// Addresses of one family from first to last, inclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AddressRange {
    /// IPv4
    V4(Ipv4Addr, Ipv4Addr),
    /// IPv6
    V6(Ipv6Addr, Ipv6Addr),
}

impl AddressRange {
    /// Whether an address lies in the range.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self, address) {
            (AddressRange::V4(first, last), IpAddr::V4(address)) => (*first..=*last).contains(&address),
            (AddressRange::V6(first, last), IpAddr::V6(address)) => (*first..=*last).contains(&address),
            (AddressRange::V4(..), IpAddr::V6(_)) | (AddressRange::V6(..), IpAddr::V4(_)) => false,
        }
    }
}

/// The addresses that any of the blocks covers: ascending, disjoint, not adjacent, IPv4 first.
pub fn subtract_and_merge<'a>(blocks: impl Iterator<Item = &'a IpBlock>) -> Vec<AddressRange> {
    let (mut v4, mut v6) = (Vec::new(), Vec::new());
    for block in blocks {
        let ranges = match block.cidr {
            IpNet::V4(_) => &mut v4,
            IpNet::V6(_) => &mut v6,
        };
        ranges.extend(subtract(bounds(&block.cidr), &block.except));
    }
    let v4 = merge(v4).into_iter().map(|(first, last)| AddressRange::V4(to_v4(first), to_v4(last)));
    let v6 = merge(v6).into_iter().map(|(first, last)| AddressRange::V6(first.into(), last.into()));
    v4.chain(v6).collect()
}

/// First and last address of a network as numbers; an IPv4 address is one below 2^32.
fn bounds(net: &IpNet) -> (u128, u128) {
    match net {
        IpNet::V4(net) => (u32::from(net.network()).into(), u32::from(net.broadcast()).into()),
        IpNet::V6(net) => (net.network().into(), net.broadcast().into()),
    }
}

fn to_v4(address: u128) -> Ipv4Addr {
    Ipv4Addr::from(u32::try_from(address).expect("bounds of an IPv4 network fit 32 bits"))
}

/// What is left of a block after its exceptions, all of which lie within it.
fn subtract((first, last): (u128, u128), except: &[IpNet]) -> Vec<(u128, u128)> {
    let mut left = Vec::new();
    // Where the part begins that no exception has taken yet; `None` once an exception reached the top of all addresses.
    let mut from = Some(first);
    for (cut_first, cut_last) in merge(except.iter().map(bounds).collect()) {
        if let Some(start) = from.filter(|start| *start < cut_first) {
            left.push((start, cut_first - 1));
        }
        from = cut_last.checked_add(1);
    }
    left.extend(from.filter(|start| *start <= last).map(|start| (start, last)));
    left
}

/// Sorts ranges and joins those that overlap or touch.
fn merge(mut ranges: Vec<(u128, u128)>) -> Vec<(u128, u128)> {
    ranges.sort_unstable();
    let mut merged: Vec<(u128, u128)> = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match merged.last_mut() {
            Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
            Some(_) | None => merged.push((first, last)),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(cidr: &str, except: &[&str]) -> IpBlock {
        let net = |text: &str| text.parse::<IpNet>().unwrap();
        IpBlock { cidr: net(cidr), except: except.iter().map(|e| net(e)).collect() }
    }

    #[track_caller]
    fn check(blocks: &[IpBlock], expected: &str) {
        let ranges = subtract_and_merge(blocks.iter());
        let text: Vec<String> = ranges
            .iter()
            .map(|range| match range {
                AddressRange::V4(first, last) => format!("{first}-{last}"),
                AddressRange::V6(first, last) => format!("{first}-{last}"),
            })
            .collect();
        assert_eq!(text.join(" "), expected);
    }

    #[test]
    fn exceptions_are_carved_out_of_their_own_block() {
        check(&[block("172.17.0.0/16", &["172.17.1.0/24"])], "172.17.0.0-172.17.0.255 172.17.2.0-172.17.255.255");
        check(
            &[block("172.17.0.0/16", &["172.17.1.0/24"]), block("172.17.1.5/32", &[])],
            "172.17.0.0-172.17.0.255 172.17.1.5-172.17.1.5 172.17.2.0-172.17.255.255",
        );
        check(&[block("10.0.0.0/8", &["10.0.0.0/9"])], "10.128.0.0-10.255.255.255");
        check(&[block("10.0.0.0/8", &["10.128.0.0/9"])], "10.0.0.0-10.127.255.255");
        check(&[block("10.0.0.0/8", &["10.0.0.0/8"])], "");
    }

    #[test]
    fn nested_overlapping_and_adjacent_exceptions() {
        check(
            &[block("10.0.0.0/24", &["10.0.0.128/25", "10.0.0.0/30", "10.0.0.64/27"])],
            "10.0.0.4-10.0.0.63 10.0.0.96-10.0.0.127",
        );
        check(
            &[block("10.0.0.0/29", &["10.0.0.1/32", "10.0.0.3/32", "10.0.0.7/32"])],
            "10.0.0.0-10.0.0.0 10.0.0.2-10.0.0.2 10.0.0.4-10.0.0.6",
        );
        check(
            &[block("10.0.0.0/24", &["10.0.0.64/26", "10.0.0.64/27", "10.0.0.128/26"])],
            "10.0.0.0-10.0.0.63 10.0.0.192-10.0.0.255",
        );
    }

    #[test]
    fn overlapping_and_adjacent_blocks_become_one_range() {
        check(&[block("10.0.0.0/25", &[]), block("10.0.0.128/25", &[])], "10.0.0.0-10.0.0.255");
        check(&[block("10.0.0.0/8", &[]), block("10.1.0.0/16", &[])], "10.0.0.0-10.255.255.255");
    }

    #[test]
    fn all_addresses_and_the_ends_of_the_space() {
        check(&[block("0.0.0.0/0", &[])], "0.0.0.0-255.255.255.255");
        check(&[block("0.0.0.0/0", &["255.255.255.255/32"])], "0.0.0.0-255.255.255.254");
        check(&[block("::/0", &[])], "::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff");
        check(
            &[block("::/0", &["ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128", "::/128"])],
            "::1-ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe",
        );
        check(&[block("0.0.0.0/0", &["0.0.0.0/1", "128.0.0.0/1"])], "");
    }

    #[test]
    fn families_do_not_mix() {
        check(
            &[block("fd00::/64", &[]), block("10.0.0.1/32", &[])],
            "10.0.0.1-10.0.0.1 fd00::-fd00::ffff:ffff:ffff:ffff",
        );
    }
}
