//! Sets, verdict maps, and their keys.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use super::{Comment, Family, Verdict};
use crate::api::{LinkName, PortRange, Protocol};

/// A named set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    /// The type of all keys.
    pub key_type: KeyType,
    /// Shown by `nft list`: the selector or the list of CIDRs that the set stands for.
    pub comment: Option<Comment>,
    /// The keys, ascending, each once; ranges are disjoint and not adjacent. None where packets fill the set: those are
    /// the kernel's business.
    pub keys: Arc<Vec<Key>>,
    /// Whether packets fill the set, and how far.
    pub filled: Option<Filled>,
}

/// `size 16384; flags dynamic,timeout; timeout 1m`: how far packets may fill a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Filled {
    /// How many keys it holds at most. What comes when it is full is not remembered.
    pub size: u32,
    /// In how many seconds without a packet of its own a key is forgotten.
    pub timeout: u32,
}

impl Set {
    /// Whether the set is declared as another is, whatever the keys.
    pub fn same_header(&self, other: &Set) -> bool {
        self.key_type == other.key_type && self.comment == other.comment && self.filled == other.filled
    }
}

/// A named map from a key to a verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerdictMap {
    /// The type of all keys. Ranges are disjoint; neighbours may touch, since they may lead to different chains.
    pub key_type: KeyType,
    /// Shown by `nft list`.
    pub comment: Option<Comment>,
    /// The elements.
    pub elements: Arc<BTreeMap<Key, MapElement>>,
}

/// What a key of a verdict map leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MapElement {
    /// The verdict.
    pub verdict: Verdict,
    /// Shown by `nft list`: the pod that has the address.
    pub comment: Option<Comment>,
}

/// The type of a key, which is also the kind of set that holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeyType {
    /// `ipv4_addr` or `ipv6_addr`, a hash set.
    Address(Family),
    /// `ipv4_addr` or `ipv6_addr` with `flags interval`.
    AddressRange(Family),
    /// `inet_service` with `flags interval`.
    PortRange,
    /// `ipv4_addr . inet_proto . inet_service`, or with `ipv6_addr`; a hash set.
    Endpoint(Family),
    /// `ipv4_addr . ipv4_addr`, or of `ipv6_addr`; a hash set.
    Pair(Family),
    /// `ipv4_addr . ipv4_addr . inet_proto . inet_service . inet_service`, or of `ipv6_addr`; a hash set.
    Flow(Family),
    /// `ifname`, a hash set.
    Link,
}

/// One key of a set or map. Ranges hold their first and last member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// An IPv4 address.
    V4(Ipv4Addr),
    /// An IPv6 address.
    V6(Ipv6Addr),
    /// IPv4 addresses from first to last, inclusive.
    V4Range(Ipv4Addr, Ipv4Addr),
    /// IPv6 addresses from first to last, inclusive.
    V6Range(Ipv6Addr, Ipv6Addr),
    /// Ports, in host order.
    Ports(PortRange),
    /// An IPv4 address, a protocol and a port in host order.
    V4Endpoint(Ipv4Addr, Protocol, u16),
    /// An IPv6 address, a protocol and a port in host order.
    V6Endpoint(Ipv6Addr, Protocol, u16),
    /// Source and destination.
    V4Pair(Ipv4Addr, Ipv4Addr),
    /// Source and destination.
    V6Pair(Ipv6Addr, Ipv6Addr),
    /// Source and destination, a protocol, and the ports of source and destination in host order.
    V4Flow(Ipv4Addr, Ipv4Addr, Protocol, u16, u16),
    /// Source and destination, a protocol, and the ports of source and destination in host order.
    V6Flow(Ipv6Addr, Ipv6Addr, Protocol, u16, u16),
    /// The name of a link.
    Link(LinkName),
}

impl VerdictMap {
    /// Whether the map is declared as another is, whatever the elements.
    pub fn same_header(&self, other: &VerdictMap) -> bool {
        self.key_type == other.key_type && self.comment == other.comment
    }

    /// The element of a key, or of the range that holds it.
    pub fn find(&self, key: &Key) -> Option<&MapElement> {
        let ranges = match (self.key_type, key) {
            (KeyType::AddressRange(Family::V4), Key::V4(address)) => Key::V4Range(*address, Ipv4Addr::BROADCAST),
            (KeyType::AddressRange(Family::V6), Key::V6(address)) => {
                Key::V6Range(*address, Ipv6Addr::from_bits(u128::MAX))
            }
            (_, _) => return self.elements.get(key),
        };
        // Ranges do not overlap: the only candidate is the last that starts at or below the key.
        let (range, element) = self.elements.range(..=ranges).next_back()?;
        (*key <= range.bounds().1).then_some(element)
    }
}

impl KeyType {
    /// Whether the set holds ranges (`flags interval`).
    pub fn is_interval(self) -> bool {
        matches!(self, KeyType::AddressRange(_) | KeyType::PortRange)
    }
}

impl Key {
    /// An address.
    pub fn address(address: IpAddr) -> Key {
        match address {
            IpAddr::V4(address) => Key::V4(address),
            IpAddr::V6(address) => Key::V6(address),
        }
    }

    /// An address with protocol and port.
    pub fn endpoint(address: IpAddr, protocol: Protocol, port: u16) -> Key {
        match address {
            IpAddr::V4(address) => Key::V4Endpoint(address, protocol, port),
            IpAddr::V6(address) => Key::V6Endpoint(address, protocol, port),
        }
    }

    /// An address as source and as destination.
    pub fn pair(address: IpAddr) -> Key {
        match address {
            IpAddr::V4(address) => Key::V4Pair(address, address),
            IpAddr::V6(address) => Key::V6Pair(address, address),
        }
    }

    /// Source and destination with their ports; `None` where the addresses are not of one family.
    pub fn flow(source: IpAddr, destination: IpAddr, protocol: Protocol, from: u16, to: u16) -> Option<Key> {
        match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => Some(Key::V4Flow(source, destination, protocol, from, to)),
            (IpAddr::V6(source), IpAddr::V6(destination)) => Some(Key::V6Flow(source, destination, protocol, from, to)),
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => None,
        }
    }

    /// The address that the key is; `None` where it is something else.
    pub fn as_address(&self) -> Option<IpAddr> {
        if let Key::V4(address) = *self {
            Some(address.into())
        } else if let Key::V6(address) = *self {
            Some(address.into())
        } else {
            None
        }
    }

    /// The ends of a flow, its protocol, and the ports of both; `None` where it is something else.
    pub fn as_flow(&self) -> Option<(IpAddr, IpAddr, Protocol, u16, u16)> {
        if let Key::V4Flow(source, destination, protocol, from, to) = *self {
            Some((source.into(), destination.into(), protocol, from, to))
        } else if let Key::V6Flow(source, destination, protocol, from, to) = *self {
            Some((source.into(), destination.into(), protocol, from, to))
        } else {
            None
        }
    }

    /// The key of the packets of the same flow that go the other way; `None` where it is no key of a flow.
    pub fn reverse(&self) -> Option<Key> {
        let (source, destination, protocol, from, to) = self.as_flow()?;
        Key::flow(destination, source, protocol, to, from)
    }

    /// The first and the last key that this key of a set stands for.
    pub(crate) fn bounds(&self) -> (Key, Key) {
        match *self {
            Key::V4Range(first, last) => (Key::V4(first), Key::V4(last)),
            Key::V6Range(first, last) => (Key::V6(first), Key::V6(last)),
            Key::Ports(PortRange { first, last }) => {
                (Key::Ports(PortRange::single(first)), Key::Ports(PortRange::single(last)))
            }
            Key::V4(_)
            | Key::V6(_)
            | Key::V4Endpoint(..)
            | Key::V6Endpoint(..)
            | Key::V4Pair(..)
            | Key::V6Pair(..)
            | Key::V4Flow(..)
            | Key::V6Flow(..)
            | Key::Link(_) => (*self, *self),
        }
    }

    /// The type of this key.
    pub fn key_type(&self) -> KeyType {
        match self {
            Key::V4(_) => KeyType::Address(Family::V4),
            Key::V6(_) => KeyType::Address(Family::V6),
            Key::V4Range(..) => KeyType::AddressRange(Family::V4),
            Key::V6Range(..) => KeyType::AddressRange(Family::V6),
            Key::Ports(_) => KeyType::PortRange,
            Key::V4Endpoint(..) => KeyType::Endpoint(Family::V4),
            Key::V6Endpoint(..) => KeyType::Endpoint(Family::V6),
            Key::V4Pair(..) => KeyType::Pair(Family::V4),
            Key::V6Pair(..) => KeyType::Pair(Family::V6),
            Key::V4Flow(..) => KeyType::Flow(Family::V4),
            Key::V6Flow(..) => KeyType::Flow(Family::V6),
            Key::Link(_) => KeyType::Link,
        }
    }
}
