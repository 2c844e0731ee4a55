//! Keys from the bytes that the kernel compares with those of a packet.

use std::net::{Ipv4Addr, Ipv6Addr};

use compiler::api::{LinkName, PortRange, Protocol};
use compiler::nft::{Family, Key, KeyType};

/// A key of a hash set; `None` where the bytes are no key of this type.
pub(super) fn decode_key(key_type: KeyType, bytes: &[u8]) -> Option<Key> {
    match key_type {
        KeyType::Address(Family::V4) => Some(Key::V4(v4(bytes)?)),
        KeyType::Address(Family::V6) => Some(Key::V6(v6(bytes)?)),
        KeyType::Endpoint(Family::V4) => {
            let (address, protocol, port) = endpoint(bytes)?;
            Some(Key::V4Endpoint(v4(address)?, protocol, port))
        }
        KeyType::Endpoint(Family::V6) => {
            let (address, protocol, port) = endpoint(bytes)?;
            Some(Key::V6Endpoint(v6(address)?, protocol, port))
        }
        KeyType::Pair(Family::V4) => {
            let (source, destination) = bytes.split_at_checked(4)?;
            Some(Key::V4Pair(v4(source)?, v4(destination)?))
        }
        KeyType::Pair(Family::V6) => {
            let (source, destination) = bytes.split_at_checked(16)?;
            Some(Key::V6Pair(v6(source)?, v6(destination)?))
        }
        KeyType::Link => LinkName::from_kernel(bytes).map(Key::Link),
        KeyType::Flow(Family::V4) => {
            let (source, rest) = bytes.split_at_checked(4)?;
            let (destination, rest) = rest.split_at_checked(4)?;
            let (protocol, from, to) = protocol_and_ports(rest)?;
            Some(Key::V4Flow(v4(source)?, v4(destination)?, protocol, from, to))
        }
        KeyType::Flow(Family::V6) => {
            let (source, rest) = bytes.split_at_checked(16)?;
            let (destination, rest) = rest.split_at_checked(16)?;
            let (protocol, from, to) = protocol_and_ports(rest)?;
            Some(Key::V6Flow(v6(source)?, v6(destination)?, protocol, from, to))
        }
        KeyType::AddressRange(_) | KeyType::PortRange => None,
    }
}

/// The number that one end of a range is; `None` where the bytes are none of this type.
pub(super) fn decode_bound(key_type: KeyType, bytes: &[u8]) -> Option<u128> {
    match key_type {
        KeyType::AddressRange(Family::V4) => Some(v4(bytes)?.to_bits().into()),
        KeyType::AddressRange(Family::V6) => Some(v6(bytes)?.to_bits()),
        KeyType::PortRange => Some(u16::from_be_bytes(bytes.try_into().ok()?).into()),
        KeyType::Address(_) | KeyType::Endpoint(_) | KeyType::Pair(_) | KeyType::Flow(_) | KeyType::Link => None,
    }
}

/// The range between two numbers of [`decode_bound`]; without `last` it reaches the top.
pub(super) fn range(key_type: KeyType, first: u128, last: Option<u128>) -> Option<Key> {
    match key_type {
        KeyType::AddressRange(Family::V4) => {
            let number = |bits: u128| u32::try_from(bits).ok().map(Ipv4Addr::from_bits);
            Some(Key::V4Range(number(first)?, last.map_or(Some(Ipv4Addr::BROADCAST), number)?))
        }
        KeyType::AddressRange(Family::V6) => {
            Some(Key::V6Range(Ipv6Addr::from_bits(first), Ipv6Addr::from_bits(last.unwrap_or(u128::MAX))))
        }
        KeyType::PortRange => {
            let number = |bits: u128| u16::try_from(bits).ok();
            Some(Key::Ports(PortRange { first: number(first)?, last: last.map_or(Some(u16::MAX), number)? }))
        }
        KeyType::Address(_) | KeyType::Endpoint(_) | KeyType::Pair(_) | KeyType::Flow(_) | KeyType::Link => None,
    }
}

fn v4(bytes: &[u8]) -> Option<Ipv4Addr> {
    Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?))
}

fn v6(bytes: &[u8]) -> Option<Ipv6Addr> {
    Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?))
}

/// Splits `address . protocol . port`, each padded to four bytes with zeros.
fn endpoint(bytes: &[u8]) -> Option<(&[u8], Protocol, u16)> {
    let (address, tail) = bytes.split_at_checked(bytes.len().checked_sub(8)?)?;
    let [number, 0, 0, 0, high, low, 0, 0] = *tail else { return None };
    Some((address, protocol(number)?, u16::from_be_bytes([high, low])))
}

/// Reads `protocol . port . port`, each padded to four bytes with zeros.
fn protocol_and_ports(bytes: &[u8]) -> Option<(Protocol, u16, u16)> {
    let [number, 0, 0, 0, from_high, from_low, 0, 0, to_high, to_low, 0, 0] = *bytes else { return None };
    let port = |high, low| u16::from_be_bytes([high, low]);
    Some((protocol(number)?, port(from_high, from_low), port(to_high, to_low)))
}

fn protocol(number: u8) -> Option<Protocol> {
    Protocol::ALL.into_iter().find(|protocol| protocol.number() == number)
}
