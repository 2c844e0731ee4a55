//! Address blocks that overlap, as segments that do not.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::super::{Family, Key};
use crate::policy::AddressRange;

/// A range, and the number of a policy with a rule that names it.
pub(super) type Named = (usize, AddressRange);

/// The places where ranges of one family begin, and those behind their ends: between two of them, all addresses are named
/// by the same policies.
struct Cuts {
    family: Family,
    at: Vec<u128>,
}

/// Adds to each policy's count how many segments its ranges take, were all these ranges cut at each other's ends.
pub(super) fn count(ranges: &[Named], counts: &mut [usize]) {
    for family in Family::ALL {
        let cuts = Cuts::of(ranges, family);
        for (policy, from, to) in cuts.spans(ranges) {
            counts[policy] += to - from;
        }
    }
}

/// The segments of one family, ascending and disjoint, each with the policies that name it. Neighbours that the same
/// policies name are one.
pub(super) fn of(ranges: &[Named], family: Family) -> Vec<(Key, Vec<usize>)> {
    let cuts = Cuts::of(ranges, family);
    let mut named_by: Vec<Vec<usize>> = vec![Vec::new(); cuts.at.len()];
    for (policy, from, to) in cuts.spans(ranges) {
        named_by[from..to].iter_mut().for_each(|policies| policies.push(policy));
    }
    for policies in &mut named_by {
        policies.sort_unstable();
        policies.dedup();
    }
    let mut segments: Vec<(Key, Vec<usize>)> = Vec::new();
    let mut from = 0;
    for same in named_by.chunk_by(|one, other| one == other) {
        let to = from + same.len();
        if let Some(policies) = same.first().filter(|policies| !policies.is_empty()) {
            segments.push((cuts.key(from, to), policies.clone()));
        }
        from = to;
    }
    segments
}

// === impl Cuts ===

impl Cuts {
    fn of(ranges: &[Named], family: Family) -> Cuts {
        let bounds = ranges.iter().filter_map(|(_, range)| bounds(range, family));
        let mut at: Vec<u128> = bounds.flat_map(|(first, last)| [Some(first), last.checked_add(1)]).flatten().collect();
        at.sort_unstable();
        at.dedup();
        Cuts { family, at }
    }

    /// The policy of each range, with the place of its first segment and the one behind its last.
    fn spans(&self, ranges: &[Named]) -> impl Iterator<Item = (usize, usize, usize)> {
        ranges.iter().filter_map(|(policy, range)| {
            let (first, last) = bounds(range, self.family)?;
            // Nothing is behind the highest address of IPv6.
            let to = last.checked_add(1).map_or(self.at.len(), |end| self.place(end));
            Some((*policy, self.place(first), to))
        })
    }

    fn place(&self, cut: u128) -> usize {
        self.at.partition_point(|known| *known < cut)
    }

    /// The addresses from one cut to another.
    fn key(&self, from: usize, to: usize) -> Key {
        let (first, last) = (self.at[from], self.at.get(to).map_or(u128::MAX, |end| end - 1));
        match self.family {
            Family::V4 => Key::V4Range(v4(first), v4(last)),
            Family::V6 => Key::V6Range(Ipv6Addr::from_bits(first), Ipv6Addr::from_bits(last)),
        }
    }
}

fn bounds(range: &AddressRange, family: Family) -> Option<(u128, u128)> {
    match (range, family) {
        (AddressRange::V4(first, last), Family::V4) => Some((first.to_bits().into(), last.to_bits().into())),
        (AddressRange::V6(first, last), Family::V6) => Some((first.to_bits(), last.to_bits())),
        (AddressRange::V4(..), Family::V6) | (AddressRange::V6(..), Family::V4) => None,
    }
}

fn v4(bits: u128) -> Ipv4Addr {
    Ipv4Addr::from_bits(u32::try_from(bits).expect("a segment of IPv4 ends where a range does"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(ranges: &[(usize, &str)], family: Family, expected: &[&str]) {
        let ranges: Vec<Named> = ranges.iter().map(|(policy, text)| (*policy, range(text))).collect();
        let segments = of(&ranges, family);
        let text: Vec<String> = segments.iter().map(|(key, policies)| format!("{key} {policies:?}")).collect();
        assert_eq!(text, expected);
        let mut counts = vec![0; 8];
        count(&ranges, &mut counts);
        for (policy, counted) in counts.iter().enumerate() {
            let found = segments.iter().filter(|(_, policies)| policies.contains(&policy)).count();
            assert!(found <= *counted, "policy {policy} has {found} segments, and {counted} were counted");
        }
    }

    fn range(text: &str) -> AddressRange {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        match first.parse() {
            Ok(first) => AddressRange::V4(first, last.parse().unwrap()),
            Err(_) => AddressRange::V6(first.parse().unwrap(), last.parse().unwrap()),
        }
    }

    #[test]
    fn segments_are_cut_where_ranges_begin_and_end() {
        let ranges = [(0, "10.0.0.0-10.0.0.255"), (1, "10.0.0.16-10.0.0.31"), (2, "10.0.0.255-10.0.1.0")];
        check(
            &ranges,
            Family::V4,
            &[
                "10.0.0.0-10.0.0.15 [0]",
                "10.0.0.16-10.0.0.31 [0, 1]",
                "10.0.0.32-10.0.0.254 [0]",
                "10.0.0.255 [0, 2]",
                "10.0.1.0 [2]",
            ],
        );
        check(&ranges, Family::V6, &[]);
    }

    #[test]
    fn neighbours_of_the_same_policies_are_one() {
        check(&[(0, "10.0.0.0-10.0.0.9"), (0, "10.0.0.10-10.0.0.20")], Family::V4, &["10.0.0.0-10.0.0.20 [0]"]);
        check(&[(0, "10.0.0.0-10.0.0.9"), (0, "10.0.0.5-10.0.0.20")], Family::V4, &["10.0.0.0-10.0.0.20 [0]"]);
        check(
            &[(0, "10.0.0.0-10.0.0.9"), (1, "10.0.0.10-10.0.0.20")],
            Family::V4,
            &["10.0.0.0-10.0.0.9 [0]", "10.0.0.10-10.0.0.20 [1]"],
        );
        check(&[(0, "10.0.0.1"), (0, "10.0.0.3")], Family::V4, &["10.0.0.1 [0]", "10.0.0.3 [0]"]);
    }

    #[test]
    fn the_ends_of_the_space() {
        let all = [(0, "0.0.0.0-255.255.255.255"), (1, "255.255.255.255"), (1, "0.0.0.0")];
        check(&all, Family::V4, &["0.0.0.0 [0, 1]", "0.0.0.1-255.255.255.254 [0]", "255.255.255.255 [0, 1]"]);
        let top = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
        let all = [(0, format!("::-{top}")), (3, top.to_owned())];
        let all: Vec<(usize, &str)> = all.iter().map(|(policy, text)| (*policy, text.as_str())).collect();
        let below = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe";
        check(&all, Family::V6, &[&format!("::-{below} [0]"), &format!("{top} [0, 3]")]);
    }
}
