//! How long to wait before something that failed is tried again.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// Waits that double from a shortest to a longest.
///
/// With jitter a wait is shortened at random by up to a half, so that the agents of a cluster, which all lose one API
/// server at one moment, do not come back at one moment.
#[derive(Debug, Clone)]
pub struct Backoff {
    shortest: Duration,
    longest: Duration,
    next: Duration,
    jitter: bool,
}

impl Backoff {
    /// Waits of exactly these lengths.
    pub fn new(shortest: Duration, longest: Duration) -> Backoff {
        Backoff { shortest, longest, next: shortest, jitter: false }
    }

    /// The same waits, each shortened at random.
    pub fn with_jitter(self) -> Backoff {
        Backoff { jitter: true, ..self }
    }

    /// The next wait.
    pub fn next_wait(&mut self) -> Duration {
        let wait = self.next;
        self.next = (wait * 2).min(self.longest);
        if !self.jitter {
            return wait;
        }
        wait - random(wait / 2)
    }

    /// Starts from the shortest wait again.
    pub fn reset(&mut self) {
        self.next = self.shortest;
    }
}

/// A random time below another, so that many agents do not do one thing at one moment.
pub fn random(below: Duration) -> Duration {
    // A hasher with fresh keys is all the randomness that this needs.
    let thousandth = RandomState::new().hash_one(below) % 1000;
    below.mul_f64(f64::from(u16::try_from(thousandth).unwrap_or(0)) / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn waits_double_up_to_the_longest() {
        let mut backoff = Backoff::new(100 * MS, 500 * MS);
        assert_eq!([100, 200, 400, 500, 500].map(|ms| ms * MS), std::array::from_fn(|_| backoff.next_wait()));
        backoff.reset();
        assert_eq!(backoff.next_wait(), 100 * MS);
    }

    #[test]
    fn jitter_takes_away_no_more_than_a_half() {
        let mut backoff = Backoff::new(100 * MS, 100 * MS).with_jitter();
        let waits: Vec<_> = (0..100).map(|_| backoff.next_wait()).collect();
        assert!(waits.iter().all(|wait| (50 * MS..=100 * MS).contains(wait)), "{waits:?}");
        assert!(waits.iter().any(|wait| *wait != waits[0]), "{waits:?}");
    }
}
