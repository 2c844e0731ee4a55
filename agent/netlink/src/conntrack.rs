//! Connection tracking: the flows that the kernel keeps in mind.
//!
//! It judges a packet by the flow that it belongs to, so that the rules see a flow as these entries tell it. They are
//! read by `nf_conntrack_netlink` (`linux/netfilter/nfnetlink_conntrack.h`); nothing is changed.

mod entry;
mod events;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rustix::io::Errno;

use crate::Error;
use crate::attr::AttrReader;
use crate::constants::{ct_msg, cta, nfnl, nfproto, nl};
use crate::message::{self, Header, Message};
use crate::socket::NetlinkSocket;

#[cfg(any(test, feature = "fuzz"))]
pub(crate) use entry::entry;
pub use entry::{Count, Entry, entries};
pub use events::{Change, Events, Heard};

/// One entry of connection tracking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flow {
    /// The protocol's number in the IP header, such as 6 for TCP.
    pub protocol: u8,
    /// The packets of whoever began the flow, as they came in.
    pub original: Tuple,
    /// The packets that answer them, as they come in: where addresses are translated, this is not the original turned
    /// round.
    pub reply: Tuple,
    /// The zone (`CTA_ZONE`): only flows of one zone are told apart by their tuples. 0 is that of everything to which no
    /// rule gives another; where one direction alone has another (`CTA_TUPLE_ZONE`), it is that one.
    pub zone: u16,
    /// What TCP is at, as `enum tcp_conntrack` of `linux/netfilter/nf_conntrack_tcp.h` numbers it (3 is established);
    /// `None` for every other protocol.
    pub tcp_state: Option<u8>,
}

/// What the packets of one direction of a flow have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tuple {
    /// Where they come from.
    pub source: IpAddr,
    /// Where they go to.
    pub destination: IpAddr,
    /// Their source and destination port; `None` for protocols without ports, such as ICMP. Of GRE they are its keys.
    pub ports: Option<(u16, u16)>,
}

/// Shows `on_flow` every flow of the network namespace of the calling thread, of both address families, in no order;
/// `false` where the kernel says that the dump was disturbed, so that some may be missing.
///
/// Each is shown as it is read, so that the memory that this takes does not grow with their number. The table goes on
/// changing meanwhile: a flow that begins or ends while this runs may be shown or not, and one may be shown twice. An
/// entry that lacks an address or a protocol is passed over.
///
/// This blocks, for about as long as the kernel takes to walk its table. Every call has a socket of its own.
///
/// # Errors
/// [`Error::is_permission`] without CAP_NET_ADMIN in the user namespace that owns the network namespace;
/// [`Error::is_unsupported`] where the kernel has no `nf_conntrack_netlink`; [`Error::Socket`] where the answer was cut or
/// some of it was lost. The flows that were shown until then are true, but not all.
pub fn flows(mut on_flow: impl FnMut(Flow)) -> Result<bool, Error> {
    walk(|message| {
        if let Some(flow) = flow(message) {
            on_flow(flow);
        }
    })
}

/// Shows `on_message` the messages of a dump, as [`flows`] says.
fn walk(on_message: impl FnMut(&Message<'_>)) -> Result<bool, Error> {
    let kind = message::of(nfnl::SUBSYS_CTNETLINK, ct_msg::GET);
    let header = Header { kind, flags: nl::F_DUMP, sequence: 1, family: nfproto::UNSPEC, resource: 0 };
    match NetlinkSocket::open()?.ask("the flows that it tracks", header, |_| {}, on_message) {
        Err(Error::Query { source: Errno::INTR, .. }) => Ok(false),
        result => result,
    }
}

/// Reads one entry; `None` for messages of other types, and where something is missing.
pub(crate) fn flow(message: &Message<'_>) -> Option<Flow> {
    if message.of(nfnl::SUBSYS_CTNETLINK)? == ct_msg::NEW { described(message.attributes()) } else { None }
}

/// Reads what an entry says of its flow.
fn described(attributes: AttrReader<'_>) -> Option<Flow> {
    let (original, reply) = (attributes.nested(cta::TUPLE_ORIG)?, attributes.nested(cta::TUPLE_REPLY)?);
    let of_direction = |tuple: AttrReader<'_>| tuple.be16(cta::TUPLE_ZONE);
    let zone = attributes.be16(cta::ZONE).or_else(|| of_direction(original)).or_else(|| of_direction(reply));
    let tcp = attributes.nested(cta::PROTOINFO).and_then(|info| info.nested(cta::PROTOINFO_TCP));
    Some(Flow {
        protocol: original.nested(cta::TUPLE_PROTO)?.byte(cta::PROTO_NUM)?,
        original: tuple(original)?,
        reply: tuple(reply)?,
        zone: zone.unwrap_or(0),
        tcp_state: tcp.and_then(|tcp| tcp.byte(cta::PROTOINFO_TCP_STATE)),
    })
}

fn tuple(attributes: AttrReader<'_>) -> Option<Tuple> {
    let ip = attributes.nested(cta::TUPLE_IP)?;
    let protocol = attributes.nested(cta::TUPLE_PROTO)?;
    Some(Tuple {
        source: address(ip, cta::IP_V4_SRC, cta::IP_V6_SRC)?,
        destination: address(ip, cta::IP_V4_DST, cta::IP_V6_DST)?,
        ports: protocol.be16(cta::PROTO_SRC_PORT).zip(protocol.be16(cta::PROTO_DST_PORT)),
    })
}

/// The address of one of two attributes, by its family.
fn address(ip: AttrReader<'_>, v4: u16, v6: u16) -> Option<IpAddr> {
    if let Some(bytes) = ip.get(v4) {
        return Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).into());
    }
    Some(Ipv6Addr::from(<[u8; 16]>::try_from(ip.get(v6)?).ok()?).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attr::AttrWriter;
    use crate::message::Messages;

    /// An entry of the kernel's, as `attributes` fills it.
    fn entry(attributes: impl FnOnce(&mut AttrWriter<'_>)) -> Vec<u8> {
        let mut bytes = Vec::new();
        let kind = message::of(nfnl::SUBSYS_CTNETLINK, ct_msg::NEW);
        let header = Header { kind, flags: 0, sequence: 1, family: nfproto::IPV4, resource: 0 };
        message::write(&mut bytes, header, attributes);
        bytes
    }

    fn read(bytes: &[u8]) -> Option<Flow> {
        flow(&Messages::new(bytes).next()?)
    }

    fn put_tuple(w: &mut AttrWriter<'_>, kind: u16, protocol: u8, tuple: Tuple, zone: Option<u16>) {
        w.nest(kind, |w| {
            w.nest(cta::TUPLE_IP, |w| {
                put_address(w, [cta::IP_V4_SRC, cta::IP_V6_SRC], tuple.source);
                put_address(w, [cta::IP_V4_DST, cta::IP_V6_DST], tuple.destination);
            });
            w.nest(cta::TUPLE_PROTO, |w| {
                w.bytes(cta::PROTO_NUM, &[protocol]);
                if let Some((source, destination)) = tuple.ports {
                    w.bytes(cta::PROTO_SRC_PORT, &source.to_be_bytes());
                    w.bytes(cta::PROTO_DST_PORT, &destination.to_be_bytes());
                }
            });
            if let Some(zone) = zone {
                w.bytes(cta::TUPLE_ZONE, &zone.to_be_bytes());
            }
        });
    }

    fn put_address(w: &mut AttrWriter<'_>, [v4, v6]: [u16; 2], address: IpAddr) {
        match address {
            IpAddr::V4(address) => w.bytes(v4, &address.octets()),
            IpAddr::V6(address) => w.bytes(v6, &address.octets()),
        }
    }

    fn tuple_of(source: &str, destination: &str, ports: Option<(u16, u16)>) -> Tuple {
        Tuple { source: source.parse().unwrap(), destination: destination.parse().unwrap(), ports }
    }

    /// A connection to a Service, as conntrack sees it.
    fn translated() -> Flow {
        Flow {
            protocol: 6,
            original: tuple_of("10.0.0.1", "10.96.0.10", Some((40000, 443))),
            reply: tuple_of("10.0.0.2", "10.0.0.1", Some((8443, 40000))),
            zone: 7,
            tcp_state: Some(3),
        }
    }

    fn written(flow: Flow) -> Vec<u8> {
        entry(|w| {
            put_tuple(w, cta::TUPLE_ORIG, flow.protocol, flow.original, None);
            put_tuple(w, cta::TUPLE_REPLY, flow.protocol, flow.reply, None);
            w.be32(3, 0x18e);
            w.nest(cta::PROTOINFO, |w| {
                if let Some(state) = flow.tcp_state {
                    w.nest(cta::PROTOINFO_TCP, |w| w.bytes(cta::PROTOINFO_TCP_STATE, &[state]));
                }
            });
            if flow.zone != 0 {
                w.bytes(cta::ZONE, &flow.zone.to_be_bytes());
            }
        })
    }

    #[test]
    fn an_entry_tells_both_directions_zone_and_state() {
        assert_eq!(read(&written(translated())), Some(translated()));
        let v6 = Flow {
            protocol: 17,
            original: tuple_of("fd00::1", "fd00::2", Some((5000, 53))),
            reply: tuple_of("fd00::2", "fd00::1", Some((53, 5000))),
            zone: 0,
            tcp_state: None,
        };
        assert_eq!(read(&written(v6)), Some(v6));
        let echo = Flow {
            protocol: 1,
            original: tuple_of("10.0.0.1", "10.0.0.2", None),
            reply: tuple_of("10.0.0.2", "10.0.0.1", None),
            ..v6
        };
        assert_eq!(read(&written(echo)), Some(echo));
    }

    #[test]
    fn the_zone_of_one_direction_is_the_flows() {
        let Flow { protocol, original, reply, .. } = translated();
        for zones in [[Some(5), None], [None, Some(5)]] {
            let bytes = entry(|w| {
                put_tuple(w, cta::TUPLE_ORIG, protocol, original, zones[0]);
                put_tuple(w, cta::TUPLE_REPLY, protocol, reply, zones[1]);
            });
            assert_eq!(read(&bytes).unwrap().zone, 5, "{zones:?}");
        }
    }

    #[test]
    fn other_messages_are_no_entry() {
        let mut bytes = written(translated());
        for kind in [message::of(nfnl::SUBSYS_CTNETLINK, ct_msg::GET), message::nftables(ct_msg::NEW), nl::MSG_DONE] {
            bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
            assert_eq!(read(&bytes), None, "{kind:#x}");
        }
    }

    #[test]
    fn entries_that_lack_something_are_passed_over() {
        let Flow { protocol, original, reply, .. } = translated();
        let ip = |w: &mut AttrWriter<'_>, kinds: &[(u16, &[u8])]| {
            w.nest(cta::TUPLE_IP, |w| kinds.iter().for_each(|(kind, value)| w.bytes(*kind, value)));
        };
        let numbered = |w: &mut AttrWriter<'_>| w.nest(cta::TUPLE_PROTO, |w| w.bytes(cta::PROTO_NUM, &[6]));
        let with_original = |tuple: &dyn Fn(&mut AttrWriter<'_>)| {
            entry(|w| {
                w.nest(cta::TUPLE_ORIG, tuple);
                put_tuple(w, cta::TUPLE_REPLY, protocol, reply, None);
            })
        };
        let (source, destination) = ((cta::IP_V4_SRC, &[10, 0, 0, 1][..]), (cta::IP_V4_DST, &[10, 0, 0, 2][..]));
        let whole = with_original(&|w| {
            ip(w, &[source, destination]);
            numbered(w);
        });
        assert!(read(&whole).is_some(), "what is left out below is all that it takes");
        let lacking = [
            entry(|_| {}),
            entry(|w| put_tuple(w, cta::TUPLE_ORIG, protocol, original, None)),
            entry(|w| put_tuple(w, cta::TUPLE_REPLY, protocol, reply, None)),
            with_original(&|_| {}),
            with_original(&|w| ip(w, &[source, destination])),
            with_original(&numbered),
            with_original(&|w| {
                ip(w, &[source]);
                numbered(w);
            }),
            with_original(&|w| {
                ip(w, &[source, (cta::IP_V4_DST, &[10, 0, 0])]);
                numbered(w);
            }),
            with_original(&|w| {
                ip(w, &[source, (cta::IP_V6_DST, &[0; 15])]);
                numbered(w);
            }),
            with_original(&|w| {
                ip(w, &[source, destination]);
                w.nest(cta::TUPLE_PROTO, |w| w.bytes(cta::PROTO_SRC_PORT, &[0, 80]));
            }),
        ];
        for (place, bytes) in lacking.iter().enumerate() {
            assert_eq!(read(bytes), None, "entry {place}");
        }
    }

    #[test]
    fn one_port_alone_is_no_ports() {
        let Flow { protocol, original, reply, .. } = translated();
        let portless = Tuple { ports: None, ..original };
        let bytes = entry(|w| {
            w.nest(cta::TUPLE_ORIG, |w| {
                w.nest(cta::TUPLE_IP, |w| {
                    put_address(w, [cta::IP_V4_SRC, cta::IP_V6_SRC], original.source);
                    put_address(w, [cta::IP_V4_DST, cta::IP_V6_DST], original.destination);
                });
                w.nest(cta::TUPLE_PROTO, |w| {
                    w.bytes(cta::PROTO_NUM, &[protocol]);
                    w.bytes(cta::PROTO_SRC_PORT, &[1, 0]);
                    w.bytes(cta::PROTO_DST_PORT, &[1]);
                });
            });
            put_tuple(w, cta::TUPLE_REPLY, protocol, reply, None);
        });
        assert_eq!(read(&bytes).unwrap().original, portless);
    }

    /// Damaged bytes give a flow or none; nothing panics.
    #[test]
    fn damaged_entries_never_panic() {
        let whole = written(translated());
        for at in 0..whole.len() {
            assert_eq!(read(&whole[..at]), None, "{at} bytes of {}", whole.len());
            for value in [0, 1, 3, 4, 0x7f, 0x80, 0xff] {
                let mut bytes = whole.clone();
                bytes[at] = value;
                read(&bytes);
            }
        }
    }
}
