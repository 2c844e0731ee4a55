//! What is not enforced yet, for the time that it takes.

use std::time::Instant;

/// How many times are told apart. While the kernel refuses, events come without end.
const MOST_GROUPS: usize = 1024;

/// When events came, or the changes were made of which they tell: so many at a time, or shortly after it.
#[derive(Debug, Default)]
pub(super) struct Unenforced {
    groups: Vec<(Instant, usize)>,
    count: usize,
}

// === impl Unenforced ===

impl Unenforced {
    /// One more event. Where there are too many, neighbours are counted as if all were as old as the oldest of them: the
    /// time is never made out shorter than it was, and no event is forgotten.
    pub(super) fn push(&mut self, since: Instant) {
        if self.groups.len() == MOST_GROUPS {
            let pairs = self.groups.chunks(2);
            let oldest =
                |pair: &[(Instant, usize)]| pair.iter().fold(pair[0].0, |oldest, (since, _)| oldest.min(*since));
            self.groups = pairs.map(|pair| (oldest(pair), pair.iter().map(|(_, count)| count).sum())).collect();
        }
        self.groups.push((since, 1));
        self.count += 1;
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// All of them, each with since when.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Instant> {
        let groups = std::mem::take(self).groups;
        groups.into_iter().flat_map(|(since, count)| std::iter::repeat_n(since, count))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn many_are_counted_in_bounded_space() {
        let begin = Instant::now();
        let at = |millis: u64| begin + Duration::from_millis(millis);
        let mut unenforced = Unenforced::default();
        (0..100_000).for_each(|millis| unenforced.push(at(millis)));
        assert!(unenforced.groups.len() <= MOST_GROUPS && unenforced.groups.capacity() <= 2 * MOST_GROUPS);
        assert_eq!(unenforced.count(), 100_000);
        let drained: Vec<Instant> = unenforced.drain().collect();
        assert_eq!((drained.len(), drained[0]), (100_000, at(0)), "each once, and the oldest as it is");
        assert!(drained.iter().zip(0..).all(|(received, millis)| *received <= at(millis)), "none too late");
        assert_eq!(unenforced.drain().count(), 0);

        // Changes do not come in the order in which they were made.
        (0..1025).rev().for_each(|millis| unenforced.push(at(millis)));
        let drained: Vec<Instant> = unenforced.drain().collect();
        assert!(drained.iter().zip((0..1025).rev()).all(|(since, millis)| *since <= at(millis)), "none too late");
    }
}
