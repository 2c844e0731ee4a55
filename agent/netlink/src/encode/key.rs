//! Keys as the bytes that the kernel compares with those of a packet.
//!
//! Everything is big endian, as on the wire. A part of a concatenation is padded to four bytes; a key of one part is
//! not.

use std::net::IpAddr;

use compiler::nft::Key;

/// The bytes of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KeyBytes {
    bytes: [u8; KeyBytes::MAX],
    len: usize,
}

/// The elements that stand for a key: its first value, and for a range that does not reach the top the value behind
/// its last, which is stored with `NFT_SET_ELEM_INTERVAL_END`.
pub(crate) fn elements_of(key: &Key) -> (KeyBytes, Option<KeyBytes>) {
    match key {
        Key::V4(address) => (KeyBytes::single(&address.octets()), None),
        Key::V6(address) => (KeyBytes::single(&address.octets()), None),
        Key::V4Range(first, last) => {
            let end = last.to_bits().checked_add(1).map(|end| KeyBytes::single(&end.to_be_bytes()));
            (KeyBytes::single(&first.octets()), end)
        }
        Key::V6Range(first, last) => {
            let end = last.to_bits().checked_add(1).map(|end| KeyBytes::single(&end.to_be_bytes()));
            (KeyBytes::single(&first.octets()), end)
        }
        Key::Ports(ports) => {
            let end = ports.last.checked_add(1).map(|end| KeyBytes::single(&end.to_be_bytes()));
            (KeyBytes::single(&ports.first.to_be_bytes()), end)
        }
        Key::V4Endpoint(address, protocol, port) => {
            (KeyBytes::endpoint((*address).into(), protocol.number(), *port), None)
        }
        Key::V6Endpoint(address, protocol, port) => {
            (KeyBytes::endpoint((*address).into(), protocol.number(), *port), None)
        }
        Key::V4Pair(source, destination) => (KeyBytes::EMPTY.part(&source.octets()).part(&destination.octets()), None),
        Key::V6Pair(source, destination) => (KeyBytes::EMPTY.part(&source.octets()).part(&destination.octets()), None),
        Key::Link(name) => (KeyBytes::single(name.as_bytes()), None),
        Key::V4Flow(source, destination, protocol, from, to) => {
            let ends = KeyBytes::EMPTY.part(&source.octets()).part(&destination.octets());
            (ends.part(&[protocol.number()]).part(&from.to_be_bytes()).part(&to.to_be_bytes()), None)
        }
        Key::V6Flow(source, destination, protocol, from, to) => {
            let ends = KeyBytes::EMPTY.part(&source.octets()).part(&destination.octets());
            (ends.part(&[protocol.number()]).part(&from.to_be_bytes()).part(&to.to_be_bytes()), None)
        }
    }
}

impl KeyBytes {
    /// The longest key is that of two IPv6 addresses, a protocol and two ports.
    const MAX: usize = 44;
    const EMPTY: KeyBytes = KeyBytes { bytes: [0; KeyBytes::MAX], len: 0 };

    fn single(value: &[u8]) -> KeyBytes {
        let mut key = KeyBytes::EMPTY.part(value);
        key.len = value.len();
        key
    }

    fn endpoint(address: IpAddr, protocol: u8, port: u16) -> KeyBytes {
        let key = match address {
            IpAddr::V4(address) => KeyBytes::EMPTY.part(&address.octets()),
            IpAddr::V6(address) => KeyBytes::EMPTY.part(&address.octets()),
        };
        key.part(&[protocol]).part(&port.to_be_bytes())
    }

    fn part(mut self, value: &[u8]) -> KeyBytes {
        self.bytes[self.len..self.len + value.len()].copy_from_slice(value);
        self.len = (self.len + value.len()).next_multiple_of(4);
        self
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use compiler::api::{PortRange, Protocol};

    #[track_caller]
    fn check(key: Key, start: &[u8], end: Option<&[u8]>) {
        let (found_start, found_end) = elements_of(&key);
        assert_eq!(found_start.as_slice(), start, "{key:?}");
        assert_eq!(found_end.as_ref().map(KeyBytes::as_slice), end, "{key:?}");
    }

    #[test]
    fn keys_are_what_a_packet_holds() {
        let v4 = |text: &str| text.parse().unwrap();
        check(Key::V4(v4("10.0.0.1")), &[10, 0, 0, 1], None);
        check(Key::V4Range(v4("10.0.0.0"), v4("10.0.0.255")), &[10, 0, 0, 0], Some(&[10, 0, 1, 0]));
        check(Key::V4Range(v4("0.0.0.0"), v4("255.255.255.255")), &[0; 4], None);
        check(
            Key::V6Range("::".parse().unwrap(), "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff".parse().unwrap()),
            &[0; 16],
            None,
        );
        check(Key::Ports(PortRange { first: 80, last: 90 }), &[0, 80], Some(&[0, 91]));
        check(Key::Ports(PortRange::single(65535)), &[255, 255], None);
        check(Key::Ports(PortRange::single(65534)), &[255, 254], Some(&[255, 255]));
        check(Key::V4Endpoint(v4("10.0.0.1"), Protocol::Sctp, 80), &[10, 0, 0, 1, 132, 0, 0, 0, 0, 80, 0, 0], None);
        check(Key::V4Pair(v4("10.0.0.1"), v4("10.0.0.2")), &[10, 0, 0, 1, 10, 0, 0, 2], None);
        let pair = elements_of(&Key::V6Pair("::1".parse().unwrap(), "::2".parse().unwrap())).0;
        assert_eq!((pair.as_slice().len(), pair.as_slice()[15], pair.as_slice()[31]), (32, 1, 2));
        let flow = Key::V4Flow(v4("10.0.0.1"), v4("10.0.0.2"), Protocol::Tcp, 258, 80);
        check(flow, &[10, 0, 0, 1, 10, 0, 0, 2, 6, 0, 0, 0, 1, 2, 0, 0, 0, 80, 0, 0], None);
        let flow = Key::V6Flow("::1".parse().unwrap(), "::2".parse().unwrap(), Protocol::Udp, 1, 2);
        assert_eq!(elements_of(&flow).0.as_slice()[28..], [0, 0, 0, 2, 17, 0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0]);
    }
}
