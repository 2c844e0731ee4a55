//! Entries with all that people ask about them.

use super::{Flow, described, walk};
use crate::Error;
use crate::attr::AttrReader;
use crate::constants::{ct_msg, cta, ips, nfnl};
use crate::message::Message;

/// TCP and SCTP, by their numbers in the IP header.
const TCP: u8 = 6;
const SCTP: u8 = 132;
/// `enum tcp_conntrack` of `linux/netfilter/nf_conntrack_tcp.h`, by number.
const TCP_STATES: [&str; 10] = [
    "NONE",
    "SYN_SENT",
    "SYN_RECV",
    "ESTABLISHED",
    "FIN_WAIT",
    "CLOSE_WAIT",
    "LAST_ACK",
    "TIME_WAIT",
    "CLOSE",
    "SYN_SENT2",
];
/// `enum sctp_conntrack` of `linux/netfilter/nf_conntrack_sctp.h`, by number.
const SCTP_STATES: [&str; 10] = [
    "NONE",
    "CLOSED",
    "COOKIE_WAIT",
    "COOKIE_ECHOED",
    "ESTABLISHED",
    "SHUTDOWN_SENT",
    "SHUTDOWN_RECD",
    "SHUTDOWN_ACK_SENT",
    "HEARTBEAT_SENT",
    "HEARTBEAT_ACKED",
];

/// One entry of connection tracking, with what a review of flows has no use for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// The flow.
    pub flow: Flow,
    /// What the protocol is at, by the kernel's word for it, such as `ESTABLISHED`; `None` for all but TCP and SCTP.
    pub state: Option<&'static str>,
    /// Whether an answer was seen (`IPS_SEEN_REPLY`).
    pub is_replied: bool,
    /// Whether the entry outlives a table that is full, as there was traffic enough both ways (`IPS_ASSURED`).
    pub is_assured: bool,
    /// What was counted of both directions, the original one first; `None` where the kernel did not count when the flow
    /// began (`net.netfilter.nf_conntrack_acct`).
    pub counts: Option<[Count; 2]>,
    /// When the flow began, in nanoseconds since 1970; `None` where the kernel did not note it
    /// (`net.netfilter.nf_conntrack_timestamp`).
    pub began: Option<u64>,
    /// After how many seconds without a packet the entry ends; `None` of one that has ended.
    pub timeout: Option<u32>,
}

/// What was counted of one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count {
    /// Packets.
    pub packets: u64,
    /// Their bytes, with IP headers.
    pub bytes: u64,
}

/// Shows `on_entry` every entry. All that [`flows`](super::flows) says holds.
///
/// # Errors
/// Those of [`flows`](super::flows).
pub fn entries(mut on_entry: impl FnMut(Entry)) -> Result<bool, Error> {
    walk(|message| {
        if let Some(entry) = entry(message) {
            on_entry(entry);
        }
    })
}

/// Reads one entry; `None` for messages of other types, and where the flow lacks something.
pub(crate) fn entry(message: &Message<'_>) -> Option<Entry> {
    match message.of(nfnl::SUBSYS_CTNETLINK)? {
        ct_msg::NEW | ct_msg::DELETE => whole(message.attributes()),
        _ => None,
    }
}

fn whole(attributes: AttrReader<'_>) -> Option<Entry> {
    let flow = described(attributes)?;
    let status = attributes.be32(cta::STATUS).unwrap_or(0);
    let count = |kind| {
        let counters = attributes.nested(kind)?;
        Some(Count { packets: counters.be64(cta::COUNTERS_PACKETS)?, bytes: counters.be64(cta::COUNTERS_BYTES)? })
    };
    let counts = count(cta::COUNTERS_ORIG).zip(count(cta::COUNTERS_REPLY));
    Some(Entry {
        flow,
        state: state(&flow, attributes),
        is_replied: status & ips::SEEN_REPLY != 0,
        is_assured: status & ips::ASSURED != 0,
        counts: counts.map(|(original, reply)| [original, reply]),
        began: attributes.nested(cta::TIMESTAMP).and_then(|times| times.be64(cta::TIMESTAMP_START)),
        timeout: attributes.be32(cta::TIMEOUT),
    })
}

fn state(flow: &Flow, attributes: AttrReader<'_>) -> Option<&'static str> {
    let (names, number) = match flow.protocol {
        TCP => (TCP_STATES, flow.tcp_state?),
        SCTP => {
            let sctp = attributes.nested(cta::PROTOINFO)?.nested(cta::PROTOINFO_SCTP)?;
            (SCTP_STATES, sctp.byte(cta::PROTOINFO_SCTP_STATE)?)
        }
        _ => return None,
    };
    names.get(usize::from(number)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attr::AttrWriter;
    use crate::constants::nfproto;
    use crate::message::{self, Header, Messages};

    fn written(kind: u16, protocol: u8, attributes: impl FnOnce(&mut AttrWriter<'_>)) -> Vec<u8> {
        let mut bytes = Vec::new();
        let kind = message::of(nfnl::SUBSYS_CTNETLINK, kind);
        let header = Header { kind, flags: 0, sequence: 1, family: nfproto::IPV4, resource: 0 };
        message::write(&mut bytes, header, |w| {
            for (kind, [source, destination]) in [(cta::TUPLE_ORIG, [1, 2]), (cta::TUPLE_REPLY, [2, 1])] {
                w.nest(kind, |w| {
                    w.nest(cta::TUPLE_IP, |w| {
                        w.bytes(cta::IP_V4_SRC, &[10, 0, 0, source]);
                        w.bytes(cta::IP_V4_DST, &[10, 0, 0, destination]);
                    });
                    w.nest(cta::TUPLE_PROTO, |w| w.bytes(cta::PROTO_NUM, &[protocol]));
                });
            }
            attributes(w);
        });
        bytes
    }

    fn read(bytes: &[u8]) -> Option<Entry> {
        entry(&Messages::new(bytes).next()?)
    }

    fn full(w: &mut AttrWriter<'_>) {
        w.be32(cta::STATUS, 0x18e);
        w.be32(cta::TIMEOUT, 431_999);
        for (kind, packets) in [(cta::COUNTERS_ORIG, 3), (cta::COUNTERS_REPLY, 2)] {
            w.nest(kind, |w| {
                w.be64(cta::COUNTERS_PACKETS, packets);
                w.be64(cta::COUNTERS_BYTES, packets * 60);
            });
        }
        w.nest(cta::PROTOINFO, |w| {
            w.nest(cta::PROTOINFO_TCP, |w| w.bytes(cta::PROTOINFO_TCP_STATE, &[3]));
        });
        w.nest(cta::TIMESTAMP, |w| w.be64(cta::TIMESTAMP_START, 1_700_000_000_000_000_000));
    }

    #[test]
    fn an_entry_tells_state_counts_and_times() {
        for kind in [ct_msg::NEW, ct_msg::DELETE] {
            let entry = read(&written(kind, TCP, full)).unwrap();
            assert_eq!((entry.state, entry.is_replied, entry.is_assured), (Some("ESTABLISHED"), true, true));
            let counts = [Count { packets: 3, bytes: 180 }, Count { packets: 2, bytes: 120 }];
            assert_eq!((entry.counts, entry.timeout), (Some(counts), Some(431_999)));
            assert_eq!(entry.began, Some(1_700_000_000_000_000_000));
        }
        assert_eq!(read(&written(ct_msg::GET, TCP, full)), None);
    }

    #[test]
    fn what_the_kernel_does_not_tell_is_none() {
        let entry = read(&written(ct_msg::NEW, TCP, |_| {})).unwrap();
        assert_eq!((entry.state, entry.is_replied, entry.is_assured), (None, false, false));
        assert_eq!((entry.counts, entry.began, entry.timeout), (None, None, None));
        // Of one direction alone there is nothing to say.
        let half = |w: &mut AttrWriter<'_>| {
            w.nest(cta::COUNTERS_ORIG, |w| {
                w.be64(cta::COUNTERS_PACKETS, 1);
                w.be64(cta::COUNTERS_BYTES, 60);
            });
        };
        assert_eq!(read(&written(ct_msg::NEW, TCP, half)).unwrap().counts, None);
    }

    #[test]
    fn states_have_the_kernels_names() {
        let sctp = |number: u8| {
            let bytes = written(ct_msg::NEW, SCTP, |w| {
                w.nest(cta::PROTOINFO, |w| {
                    w.nest(cta::PROTOINFO_SCTP, |w| w.bytes(cta::PROTOINFO_SCTP_STATE, &[number]));
                });
            });
            read(&bytes).unwrap().state
        };
        assert_eq!([4, 9, 10, 255].map(sctp), [Some("ESTABLISHED"), Some("HEARTBEAT_ACKED"), None, None]);
        assert_eq!(read(&written(ct_msg::NEW, 17, full)).unwrap().state, None, "datagrams have none");
    }

    #[test]
    fn damaged_entries_never_panic() {
        let whole = written(ct_msg::NEW, TCP, full);
        for at in 0..whole.len() {
            for value in [0, 1, 3, 4, 0x7f, 0x80, 0xff] {
                let mut bytes = whole.clone();
                bytes[at] = value;
                read(&bytes);
            }
        }
    }
}
