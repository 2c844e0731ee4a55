//! Addresses and networks.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::api::findings::{Broken, Findings, quoted};
use crate::api::reader::Path;

/// An address that a pod or a node has.
///
/// Leading zeros and zones are refused, as by the API. An IPv4 address written as an IPv6 one is taken for the
/// IPv4 address, since that is what its packets carry: leaving it out would leave the pod open.
pub(super) fn address(text: &str, field: impl FnOnce() -> String, findings: &mut Findings) -> Result<IpAddr, Broken> {
    let Ok(address) = text.parse::<IpAddr>() else {
        return Err(findings.broken(field(), format!("{} is not an IP address; it is left out", quoted(text))));
    };
    let canonical = address.to_canonical();
    if canonical.is_unspecified() || canonical.is_loopback() || canonical.is_multicast() {
        return Err(findings.broken(field(), format!("{canonical} is nobody's own address; it is left out")));
    }
    if canonical != address {
        findings.add(field(), format!("{text} is an IPv4 address in IPv6 form; it is taken for {canonical}"));
    }
    Ok(canonical)
}

/// A network in CIDR notation. Host bits are cut off, with a finding.
pub(super) fn network(text: &str, field: &Path<'_>, findings: &mut Findings) -> Result<IpNet, Broken> {
    let Some(network) = cidr(text) else {
        let reason = format!("{} is not a CIDR (such as 10.0.0.0/8 or fd00::/64)", quoted(text));
        return Err(findings.broken(field, reason));
    };
    if network.addr().to_canonical() != network.addr() {
        return Err(findings.broken(field, format!("{text} is an IPv4 network in IPv6 form; write it as IPv4")));
    }
    let without_host_bits = network.trunc();
    if without_host_bits != network {
        findings.add(field, format!("{text} has host bits; it is taken for {without_host_bits}"));
    }
    Ok(without_host_bits)
}

fn cidr(text: &str) -> Option<IpNet> {
    let (address, length) = text.split_once('/')?;
    let is_canonical = !length.is_empty()
        && length.bytes().all(|byte| byte.is_ascii_digit())
        && (length == "0" || !length.starts_with('0'));
    if !is_canonical {
        return None;
    }
    IpNet::new(address.parse().ok()?, length.parse().ok()?).ok()
}
