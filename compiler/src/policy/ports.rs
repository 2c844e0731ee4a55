//! Port arithmetic.

use crate::api::PortRange;

/// Sorts ranges of ports and joins those that overlap or touch.
pub fn merge_ports(mut ranges: Vec<PortRange>) -> Vec<PortRange> {
    ranges.sort_unstable();
    let mut merged: Vec<PortRange> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match merged.last_mut() {
            Some(before) if range.first <= before.last.saturating_add(1) => before.last = before.last.max(range.last),
            Some(_) | None => merged.push(range),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_joined_where_they_touch() {
        let range = |first, last| PortRange { first, last };
        let merged = merge_ports(vec![
            range(443, 443),
            range(80, 90),
            range(85, 100),
            range(101, 101),
            range(65535, 65535),
            range(0, 0),
        ]);
        assert_eq!(merged, [range(0, 0), range(80, 101), range(443, 443), range(65535, 65535)]);
    }
}
