//! The beginning of a packet, read with distrust: whoever sent it chose every byte.

use std::net::IpAddr;

use compiler::nft::EtherType;
use etherparse::{IpNumber, LaxIpSlice};

/// What a packet says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    pub(super) payload: Payload,
}

/// What is in a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Payload {
    /// TCP, UDP or SCTP by the number of the protocol, with the ports of sender and receiver.
    Ports {
        /// The protocol's number in the header of IP.
        protocol: u8,
        /// The port of the sender.
        from: u16,
        /// The port of the receiver.
        to: u16,
    },
    /// ICMP or ICMPv6 by the number of the protocol, with type and code.
    Icmp {
        /// The protocol's number in the header of IP.
        protocol: u8,
        /// The type.
        kind: u8,
        /// The code.
        code: u8,
    },
    /// Another protocol by its number; or one of the above, of which this packet shows nothing: a later fragment.
    Other {
        /// The protocol's number in the header of IP.
        protocol: u8,
    },
}

/// How many tags of a frame are passed over; the kernel has taken one more off.
const MOST_TAGS: usize = 2;

/// Reads the beginning of a packet, of which a frame says what it is; `None` where it is neither IPv4 nor IPv6.
pub(super) fn read_frame(mut ether_type: u16, mut bytes: &[u8]) -> Option<Header> {
    let is = |kind: EtherType, number: u16| kind as u16 == number;
    let is_tag = |number| is(EtherType::CustomerTag, number) || is(EtherType::ServiceTag, number);
    for _ in 0..MOST_TAGS {
        if let (true, [_, _, high, low, rest @ ..]) = (is_tag(ether_type), bytes) {
            (ether_type, bytes) = (u16::from_be_bytes([*high, *low]), rest);
        }
    }
    if is(EtherType::V4, ether_type) || is(EtherType::V6, ether_type) { read(bytes) } else { None }
}

fn read(bytes: &[u8]) -> Option<Header> {
    // What stopped the reader half way, such as an extension that is cut, leaves what was read until then.
    let (ip, _) = LaxIpSlice::from_slice(bytes).ok()?;
    let (source, destination): (IpAddr, IpAddr) = match &ip {
        LaxIpSlice::Ipv4(v4) => (v4.header().source_addr().into(), v4.header().destination_addr().into()),
        LaxIpSlice::Ipv6(v6) => (v6.header().source_addr().into(), v6.header().destination_addr().into()),
    };
    let inner = ip.payload();
    let is_later = match &ip {
        LaxIpSlice::Ipv4(v4) => v4.header().fragments_offset().value() > 0,
        // The reader shows no ports of what is a fragment, the first one neither.
        LaxIpSlice::Ipv6(_) => inner.fragmented,
    };
    let protocol = inner.ip_number.0;
    let payload = match (inner.ip_number, inner.payload) {
        (IpNumber::TCP | IpNumber::UDP | IpNumber::SCTP, [a, b, c, d, ..]) if !is_later => {
            Payload::Ports { protocol, from: u16::from_be_bytes([*a, *b]), to: u16::from_be_bytes([*c, *d]) }
        }
        (IpNumber::ICMP | IpNumber::IPV6_ICMP, [kind, code, ..]) if !is_later => {
            Payload::Icmp { protocol, kind: *kind, code: *code }
        }
        (_, _) => Payload::Other { protocol },
    };
    Some(Header { source, destination, payload })
}

impl Payload {
    /// `TCP`, `UDP`, `SCTP`, `ICMP`, `ICMPv6`, or the number of another protocol.
    pub(super) fn protocol(self) -> String {
        let (Payload::Ports { protocol, .. } | Payload::Icmp { protocol, .. } | Payload::Other { protocol }) = self;
        match IpNumber(protocol) {
            IpNumber::TCP => "TCP".to_owned(),
            IpNumber::UDP => "UDP".to_owned(),
            IpNumber::SCTP => "SCTP".to_owned(),
            IpNumber::ICMP => "ICMP".to_owned(),
            IpNumber::IPV6_ICMP => "ICMPv6".to_owned(),
            IpNumber(number) => number.to_string(),
        }
    }

    /// The same without what differs between flows that are refused alike: the port of the sender.
    pub(super) fn without_sender(self) -> Payload {
        match self {
            Payload::Ports { protocol, from: _, to } => Payload::Ports { protocol, from: 0, to },
            Payload::Icmp { .. } | Payload::Other { .. } => self,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(protocol: u8, fragment: u16, payload: &[u8]) -> Vec<u8> {
        let len = u16::try_from(20 + payload.len()).unwrap().to_be_bytes();
        let [f0, f1] = fragment.to_be_bytes();
        let mut bytes = vec![0x45, 0, len[0], len[1], 0, 0, f0, f1, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
        bytes.extend_from_slice(payload);
        bytes
    }

    fn v6(next: u8, payload: &[u8]) -> Vec<u8> {
        let len = u16::try_from(payload.len()).unwrap().to_be_bytes();
        let mut bytes = vec![0x60, 0, 0, 0, len[0], len[1], next, 64];
        for last in [1, 2] {
            bytes.extend_from_slice(&[0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]);
        }
        bytes.extend_from_slice(payload);
        bytes
    }

    #[test]
    fn ports_and_types_are_read() {
        let ports = |protocol| Payload::Ports { protocol, from: 258, to: 80 };
        for protocol in [6, 17, 132] {
            assert_eq!(read(&v4(protocol, 0, &[1, 2, 0, 80])).unwrap().payload, ports(protocol));
            assert_eq!(read(&v6(protocol, &[1, 2, 0, 80])).unwrap().payload, ports(protocol));
        }
        assert_eq!(read(&v4(1, 0, &[8, 0])).unwrap().payload, Payload::Icmp { protocol: 1, kind: 8, code: 0 });
        assert_eq!(read(&v6(58, &[128, 0])).unwrap().payload, Payload::Icmp { protocol: 58, kind: 128, code: 0 });
        assert_eq!(read(&v4(47, 0, &[0; 8])).unwrap().payload, Payload::Other { protocol: 47 });
        // A header of options in front of UDP.
        let options = [17, 0, 1, 4, 0, 0, 0, 0, 1, 2, 0, 80];
        let header = read(&v6(60, &options)).unwrap();
        assert_eq!(header.payload, ports(17));
        assert_eq!((header.source.to_string(), header.destination.to_string()), ("fd00::1".into(), "fd00::2".into()));
    }

    #[test]
    fn tags_are_passed_over() {
        let plain = v4(17, 0, &[1, 2, 0, 80]);
        let tagged = |tags: &[u8]| [tags, &plain].concat();
        let expected = read(&plain);
        assert!(expected.is_some());
        assert_eq!(read_frame(0x800, &plain), expected);
        assert_eq!(read_frame(0x8100, &tagged(&[0x40, 1, 8, 0])), expected);
        assert_eq!(read_frame(0x88a8, &tagged(&[0, 1, 0x81, 0, 0, 2, 8, 0])), expected);
        assert_eq!(read_frame(0x8100, &tagged(&[0, 1, 0x81, 0, 0, 2, 0x81, 0, 0, 3, 8, 0])), None);
        assert_eq!(read_frame(0x806, &plain), None, "neighbours that are looked for");
        assert_eq!(read_frame(0x8100, &[0, 1, 8]), None);
    }

    #[test]
    fn a_later_fragment_has_no_ports() {
        assert_eq!(read(&v4(6, 0x2000, &[1, 2, 0, 80])).unwrap().payload.protocol(), "TCP");
        assert_eq!(read(&v4(17, 3, &[1, 2, 0, 80])).unwrap().payload, Payload::Other { protocol: 17 });
    }

    #[test]
    fn what_is_cut_or_no_packet_is_survived() {
        assert_eq!(read(&[]), None);
        assert_eq!(read(&[0x00; 60]), None);
        assert_eq!(read(&v4(6, 0, &[1, 2, 0])).unwrap().payload, Payload::Other { protocol: 6 });
        let whole = v6(60, &[17, 0, 1, 4, 0, 0, 0, 0, 1, 2, 0, 80, 0, 0, 0, 0]);
        for len in 0..whole.len() {
            assert_eq!(read(&whole[..len]).is_some(), len >= 40, "{len}");
        }
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let mut dice = fastrand::Rng::with_seed(7);
        let good = [v4(6, 0, &[1; 40]), v6(60, &[6, 0, 1, 4, 0, 0, 0, 0, 1, 2, 0, 80]), v6(44, &[6; 20])];
        for _ in 0..200_000 {
            let mut bytes = dice.choice(&good).unwrap().clone();
            for _ in 0..dice.usize(1..6) {
                let at = dice.usize(..bytes.len());
                bytes[at] = dice.u8(..);
            }
            bytes.truncate(dice.usize(..=bytes.len()));
            read(&bytes);
        }
    }
}
