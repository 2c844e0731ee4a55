//! Sets of ports, of all protocols that policies know.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;

use compiler::api::{PortRange, Protocol};

/// Where a protocol's ports begin and end. Port 0 is nobody's.
const FIRST: u16 = 1;
const LAST: u16 = u16::MAX;

/// Ports by protocol, and whether echo requests, which have none, are among them.
///
/// Prints as `all`, `nothing`, `53/UDP, 8000-8100/TCP, ICMP`, or `all but 53/UDP`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Ports {
    /// Of each of [`Protocol::ALL`], ascending, disjoint and not adjacent.
    ranges: [Vec<PortRange>; 3],
    echo: bool,
}

impl Ports {
    /// No port.
    pub fn none() -> Ports {
        Ports::default()
    }

    /// Every port, and echo requests.
    pub fn all() -> Ports {
        Ports { ranges: [(); 3].map(|()| vec![PortRange { first: FIRST, last: LAST }]), echo: true }
    }

    /// Those for which something holds that changes at the given ports only, and for which it is enough to ask once between
    /// two of them. `None` asks about echo requests.
    pub fn of(cuts: &[(Protocol, u16)], holds: impl Fn(Option<(Protocol, u16)>) -> bool) -> Ports {
        let mut ports = Ports { echo: holds(None), ..Ports::default() };
        for (protocol, ranges) in Protocol::ALL.into_iter().zip(&mut ports.ranges) {
            let mut begins: Vec<u16> = cuts.iter().filter(|(of, _)| *of == protocol).map(|(_, port)| *port).collect();
            begins.push(FIRST);
            begins.retain(|begin| *begin >= FIRST);
            begins.sort_unstable();
            begins.dedup();
            let ends = begins.iter().skip(1).map(|next| next - 1).chain([LAST]);
            for (first, last) in begins.iter().copied().zip(ends) {
                if holds(Some((protocol, first))) {
                    push(ranges, PortRange { first, last });
                }
            }
        }
        ports
    }

    /// Each answer to a question that changes at the given ports only, with the ports that have it, in the order in which the
    /// answers come. `None` asks about echo requests.
    pub fn by<T: PartialEq>(cuts: &[(Protocol, u16)], asked: impl Fn(Option<(Protocol, u16)>) -> T) -> Vec<(T, Ports)> {
        let answers: RefCell<Vec<T>> = RefCell::default();
        let places: RefCell<BTreeMap<Option<(Protocol, u16)>, usize>> = RefCell::default();
        // Asked once for each part, and looked up for each answer.
        Ports::of(cuts, |port| {
            let answer = asked(port);
            let mut answers = answers.borrow_mut();
            let place = answers.iter().position(|other| *other == answer).unwrap_or_else(|| {
                answers.push(answer);
                answers.len() - 1
            });
            places.borrow_mut().insert(port, place);
            false
        });
        let places = places.into_inner();
        let ports = |place: usize| Ports::of(cuts, |port| places.get(&port) == Some(&place));
        answers.into_inner().into_iter().enumerate().map(|(place, answer)| (answer, ports(place))).collect()
    }

    /// Whether there is none.
    pub fn is_none(&self) -> bool {
        *self == Ports::none()
    }

    /// Whether a port is among them; `None` means echo requests.
    pub fn contains(&self, port: Option<(Protocol, u16)>) -> bool {
        let Some((protocol, port)) = port else { return self.echo };
        let of = Protocol::ALL.into_iter().zip(&self.ranges).filter(|(of, _)| *of == protocol);
        of.flat_map(|(_, ranges)| ranges).any(|range| range.first <= port && port <= range.last)
    }

    /// Those that are in both.
    pub fn and(&self, other: &Ports) -> Ports {
        self.combined(other, |own, others| own && others)
    }

    /// Those that are not in the other.
    pub fn minus(&self, other: &Ports) -> Ports {
        self.combined(other, |own, others| own && !others)
    }

    fn combined(&self, other: &Ports, holds: impl Fn(bool, bool) -> bool) -> Ports {
        let edges = |of: &Ports| {
            let by_protocol = Protocol::ALL.into_iter().zip(of.ranges.clone());
            let edges = by_protocol.flat_map(|(protocol, ranges)| {
                ranges.into_iter().flat_map(move |range| {
                    [Some(range.first), range.last.checked_add(1)]
                        .into_iter()
                        .flatten()
                        .map(move |port| (protocol, port))
                })
            });
            edges.collect::<Vec<_>>()
        };
        Ports::of(&[edges(self), edges(other)].concat(), |port| holds(self.contains(port), other.contains(port)))
    }

    /// Whether there are others than echo requests.
    pub fn has_ports(&self) -> bool {
        self.ranges.iter().any(|ranges| !ranges.is_empty())
    }

    /// One of them, as questions name it: `80/TCP`, `ICMP`; empty where there is none.
    pub fn first(&self) -> String {
        let by_protocol = Protocol::ALL.into_iter().zip(&self.ranges);
        let mut firsts = by_protocol.filter_map(|(protocol, ranges)| Some((ranges.first()?.first, protocol)));
        let first = firsts.next().map(|(port, protocol)| format!("{port}/{protocol}"));
        first.or(self.echo.then(|| "ICMP".to_owned())).unwrap_or_default()
    }

    /// The parts, each as it is printed: `53/UDP`, `8000-8100/TCP`, `TCP` for all of a protocol, `ICMP`.
    pub fn parts(&self) -> Vec<String> {
        let mut parts = Vec::new();
        for (protocol, ranges) in Protocol::ALL.into_iter().zip(&self.ranges) {
            parts.extend(ranges.iter().map(|range| match (range.first, range.last) {
                (FIRST, LAST) => protocol.to_string(),
                (first, last) if first == last => format!("{first}/{protocol}"),
                (first, last) => format!("{first}-{last}/{protocol}"),
            }));
        }
        parts.extend(self.echo.then(|| "ICMP".to_owned()));
        parts
    }
}

/// Adds a range after the others, to the last one if it follows that without a gap.
fn push(ranges: &mut Vec<PortRange>, range: PortRange) {
    match ranges.last_mut() {
        Some(last) if last.last.checked_add(1) == Some(range.first) => last.last = range.last,
        Some(_) | None => ranges.push(range),
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (parts, others) = (self.parts(), Ports::all().minus(self).parts());
        match (parts.len(), others.len()) {
            (0, _) => f.write_str("nothing"),
            (_, 0) => f.write_str("all"),
            (own, others_len) if others_len < own => write!(f, "all but {}", others.join(", ")),
            (_, _) => f.write_str(&parts.join(", ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports(tcp: &[(u16, u16)], echo: bool) -> Ports {
        let range = |(first, last): &(u16, u16)| PortRange { first: *first, last: *last };
        Ports { ranges: [tcp.iter().map(range).collect(), Vec::new(), Vec::new()], echo }
    }

    #[test]
    fn sets_of_ports() {
        let (a, b) = (ports(&[(80, 90), (443, 443)], true), ports(&[(85, 85), (443, 65535)], false));
        assert_eq!(a.and(&b), ports(&[(85, 85), (443, 443)], false));
        assert_eq!(a.minus(&b), ports(&[(80, 84), (86, 90)], true));
        assert_eq!(b.minus(&a), ports(&[(444, 65535)], false));
        assert_eq!(a.minus(&a), Ports::none());
        assert_eq!(a.and(&Ports::all()), a);
        assert!(a.contains(None) && a.contains(Some((Protocol::Tcp, 80))) && !a.contains(Some((Protocol::Udp, 80))));
        let odd = Ports::of(&[(Protocol::Tcp, 0), (Protocol::Tcp, 7), (Protocol::Tcp, 8)], |port| {
            port.is_some_and(|(protocol, port)| protocol == Protocol::Tcp && port < 8)
        });
        assert_eq!(odd, ports(&[(1, 7)], false));
    }

    #[test]
    fn ports_by_what_is_said_of_them() {
        let cuts = [(Protocol::Tcp, 80), (Protocol::Tcp, 81)];
        let by = Ports::by(&cuts, |port| port == Some((Protocol::Tcp, 80)));
        let only = ports(&[(80, 80)], false);
        assert_eq!(by, [(false, Ports::all().minus(&only)), (true, only)]);
        assert_eq!(Ports::by(&cuts, |_| 7), [(7, Ports::all())]);
    }

    #[test]
    fn prints_the_shorter_way() {
        assert_eq!(Ports::all().to_string(), "all");
        assert_eq!(Ports::none().to_string(), "nothing");
        assert_eq!(ports(&[(80, 80), (8000, 8100)], true).to_string(), "80/TCP, 8000-8100/TCP, ICMP");
        assert_eq!(Ports::all().minus(&ports(&[(53, 53)], false)).to_string(), "all but 53/TCP");
        assert_eq!(ports(&[(1, 65535)], false).to_string(), "TCP");
    }
}
