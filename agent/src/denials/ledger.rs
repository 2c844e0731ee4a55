//! What is kept of denials: those that are alike once, with a count, and not more than fit.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use compiler::nft::Refusal;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::packet::Payload;

/// How many there are at most.
const MOST: usize = 10_000;
/// How many bytes they may take together. Most take some hundred each, and the longest names make it some thousand.
const MOST_BYTES: usize = 16 << 20;
/// What one takes without its texts.
const BYTES_BESIDES: usize = 2 * size_of::<Denial>() + size_of::<Kind>();

/// What was refused, as often as it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Denial {
    /// When it was told of for the first time.
    pub first: Timestamp,
    /// When it was told of last.
    pub last: Timestamp,
    /// How many packets were told of; there may have been more, see [`Refusal`].
    pub count: u64,
    /// `egress` or `ingress`.
    pub direction: String,
    /// `policy`, `quarantine`, `gate`, `source`, `destination`, `link-local` or `tag`.
    pub reason: String,
    /// Who sent it.
    pub source: Who,
    /// For whom it was.
    pub destination: Who,
    /// `TCP`, `UDP`, `SCTP`, `ICMP`, `ICMPv6`, or the number of another protocol.
    pub protocol: String,
    /// The port of the receiver, where the protocol has ports and the packet shows them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The type of an ICMP message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icmp_type: Option<u8>,
    /// Who isolates the pod, where that is the reason, as of the last packet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub isolated_by: Vec<String>,
    /// Which of these are in quarantine, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub quarantined: Vec<String>,
    /// The link or port by which it came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
    /// Whether policies and gate would let a first packet of this kind pass by now. Left out where they are not the reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed_now: Option<bool>,
    /// The rule that comes nearest to allowing it by now, and what it fails by, in a line. Left out where policies are not
    /// the reason, or allow it by now, and past what one answer may look at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nearest: Option<String>,
}

/// An end of what was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Who {
    /// `namespace/name`, where it is a pod that was known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// The address in the packet; of several, the last.
    pub address: IpAddr,
}

/// By what denials are told apart.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Kind {
    pub(super) refusal: Refusal,
    /// A pod by its name, whatever addresses it has or pretends to have; anybody else by the address.
    pub(super) ends: [String; 2],
    /// Without the sender's port.
    pub(super) payload: Payload,
}

/// What was refused lately. Clones are the same one.
#[derive(Debug, Clone, Default)]
pub struct Ledger(Arc<Mutex<Book>>);

#[derive(Debug, Default)]
struct Book {
    /// With the number of the last change.
    by_kind: HashMap<Arc<Kind>, (u64, Denial)>,
    /// The one that was touched last is the last.
    by_number: BTreeMap<u64, Arc<Kind>>,
    last_number: u64,
    forgotten: u64,
    /// How many bytes all take.
    bytes: usize,
}

impl Ledger {
    /// Takes one down, or counts it where one of its kind is known. Where there is no room, the one goes that has waited
    /// longest for another.
    pub(super) fn add(&self, kind: Kind, denial: Denial) {
        let mut book = self.book();
        book.last_number += 1;
        let number = book.last_number;
        let (mut kind, mut denial) = (Arc::new(kind), denial);
        if let Some((same, (before, known))) = book.by_kind.remove_entry(&kind) {
            book.by_number.remove(&before);
            book.bytes -= bytes(&same, &known);
            kind = same;
            denial.first = known.first;
            denial.count += known.count;
        }
        book.bytes += bytes(&kind, &denial);
        while (book.by_kind.len() >= MOST || book.bytes > MOST_BYTES)
            && let Some((_, oldest)) = book.by_number.pop_first()
        {
            if let Some((_, gone)) = book.by_kind.remove(&oldest) {
                book.bytes -= bytes(&oldest, &gone);
            }
            book.forgotten += 1;
        }
        book.by_number.insert(number, kind.clone());
        book.by_kind.insert(kind, (number, denial));
    }

    /// Those that were told of since a time, and after a change, in the order of their last change; with the number of the
    /// last change of all.
    pub(super) fn since(&self, time: Timestamp, after: u64) -> (u64, Vec<(Arc<Kind>, Denial)>) {
        let book = self.book();
        let changed = book.by_number.range(after.saturating_add(1)..);
        let known = changed.filter_map(|(_, kind)| Some((kind, &book.by_kind.get(kind)?.1)));
        let found =
            known.filter(|(_, denial)| denial.last >= time).map(|(kind, denial)| (kind.clone(), denial.clone()));
        (book.last_number, found.collect())
    }

    /// How many had to go because there was no room.
    pub(crate) fn forgotten(&self) -> u64 {
        self.book().forgotten
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// About how many bytes are kept of a denial.
fn bytes(kind: &Kind, denial: &Denial) -> usize {
    let names = denial.isolated_by.iter().chain(&denial.quarantined).chain(&kind.ends);
    let pods = [&denial.source.pod, &denial.destination.pod].into_iter().flatten();
    let texts = names.chain(pods).map(|text| size_of::<String>() + text.len());
    BYTES_BESIDES + texts.sum::<usize>()
}

impl Denial {
    /// `5432/TCP`, `ICMP type 8`, or the protocol alone.
    pub fn port_and_protocol(&self) -> String {
        match (self.port, self.icmp_type) {
            (Some(port), _) => format!("{port}/{}", self.protocol),
            (None, Some(kind)) => format!("{} type {kind}", self.protocol),
            (None, None) => self.protocol.clone(),
        }
    }
}

impl fmt::Display for Who {
    /// `shop/web (10.0.0.1)`, or the address.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.pod {
            Some(pod) => write!(f, "{pod} ({})", self.address),
            None => self.address.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use compiler::api::Direction;

    fn kind(source: &str, to: u16) -> Kind {
        Kind {
            refusal: Refusal::Policy(Direction::Ingress),
            ends: [source.to_owned(), "shop/db".to_owned()],
            payload: Payload::Ports { protocol: 6, from: 0, to },
        }
    }

    fn denial(at: i64) -> Denial {
        let at = Timestamp::from_second(at).unwrap();
        let who = || Who { pod: None, address: [10, 0, 0, 1].into() };
        Denial {
            first: at,
            last: at,
            count: 1,
            direction: "ingress".into(),
            reason: "policy".into(),
            source: who(),
            destination: who(),
            protocol: "TCP".into(),
            port: Some(80),
            icmp_type: None,
            isolated_by: Vec::new(),
            quarantined: Vec::new(),
            link: None,
            allowed_now: None,
            nearest: None,
        }
    }

    #[test]
    fn what_is_alike_is_one_with_a_count() {
        let ledger = Ledger::default();
        ledger.add(kind("a", 80), denial(1));
        ledger.add(kind("b", 80), denial(2));
        ledger.add(kind("a", 80), denial(3));
        ledger.add(kind("a", 81), denial(3));
        let (last, all) = ledger.since(Timestamp::UNIX_EPOCH, 0);
        let shown: Vec<_> = all.iter().map(|(kind, d)| (kind.ends[0].as_str(), d.count, d.first.as_second())).collect();
        assert_eq!((last, shown), (4, vec![("b", 1, 2), ("a", 2, 1), ("a", 1, 3)]));
        assert_eq!(ledger.since(Timestamp::from_second(3).unwrap(), 0).1.len(), 2);
        assert_eq!(ledger.since(Timestamp::UNIX_EPOCH, 3).1.len(), 1);
        assert_eq!(ledger.since(Timestamp::UNIX_EPOCH, u64::MAX).1.len(), 0);
    }

    #[test]
    fn what_the_longest_names_take_is_bounded() {
        let ledger = Ledger::default();
        let long = Denial { isolated_by: vec!["n".repeat(317); 10], ..denial(1) };
        for n in 0..MOST {
            ledger.add(kind(&n.to_string(), 80), long.clone());
            // One that is told of again takes nothing more.
            ledger.add(kind(&n.to_string(), 80), long.clone());
        }
        let (_, all) = ledger.since(Timestamp::UNIX_EPOCH, 0);
        let taken: usize = all.iter().map(|(kind, denial)| bytes(kind, denial)).sum();
        assert!((MOST_BYTES - 10_000..=MOST_BYTES).contains(&taken), "{taken} of {}", all.len());
        assert_eq!(ledger.forgotten(), (MOST - all.len()) as u64);
    }

    #[test]
    fn a_flood_of_kinds_is_bounded_and_what_goes_on_stays() {
        let ledger = Ledger::default();
        for n in 0..3 * MOST {
            ledger.add(kind(&n.to_string(), 80), denial(1));
            if n % 100 == 0 {
                ledger.add(kind("steady", 80), denial(1));
            }
        }
        let (_, all) = ledger.since(Timestamp::UNIX_EPOCH, 0);
        assert_eq!(all.len(), MOST);
        assert!(all.iter().any(|(kind, denial)| kind.ends[0] == "steady" && denial.count == 300));
        assert_eq!(ledger.forgotten(), 2 * MOST as u64 + 1);
    }
}
