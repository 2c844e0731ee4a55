//! Addresses and CIDRs, bit by bit.

use std::net::IpAddr;

use serde_json::Value;

/// *v1*, `IPBlock`: "describes a particular CIDR [...] that is allowed [...]. The except entry describes CIDRs that
/// should not be included within this rule."
///
/// *concept*, "Behavior of to and from selectors": an `except` stands in one `ipBlock`, and each entry of `from` is
/// an alternative of its own, so that it takes nothing away from other entries.
pub(super) fn block_contains(block: &Value, address: IpAddr) -> bool {
    let excepted = |cidr: &Value| cidr_contains(cidr, address);
    cidr_contains(&block["cidr"], address) && !block["except"].as_array().into_iter().flatten().any(excepted)
}

/// *v1*, `IPBlock.cidr`: "a string representing the IPBlock; valid examples are "192.168.1.0/24" or "2001:db8::/64"".
/// RFC 4632: an address is in the block if the first bits, as many as the number says, are the same.
fn cidr_contains(cidr: &Value, address: IpAddr) -> bool {
    let (network, length) = cidr.as_str().expect("a stored cidr is text").split_once('/').expect("with a length");
    let network: IpAddr = network.parse().expect("a stored cidr starts with an address");
    let length: usize = length.parse().expect("and ends with a number");
    network.is_ipv4() == address.is_ipv4() && bits(network).take(length).eq(bits(address).take(length))
}

/// The bits of an address, the most significant first.
fn bits(address: IpAddr) -> impl Iterator<Item = bool> {
    let octets = match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    octets.into_iter().flat_map(|octet| (0..8).rev().map(move |bit| octet >> bit & 1 == 1))
}
