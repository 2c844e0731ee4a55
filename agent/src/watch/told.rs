//! What was logged already, so that the same text does not fill the log.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

/// How many different texts are remembered. A server that says something new each time is logged at the pace of the
/// back-off.
const MANY: usize = 16;

/// Texts, when each was last logged, and how often it has come up since.
#[derive(Debug)]
pub(super) struct Told {
    every: Duration,
    by_text: BTreeMap<String, (Instant, u64)>,
}

// === impl Told ===

impl Told {
    /// Lets the same text pass once in so long.
    pub(super) fn new(every: Duration) -> Told {
        Told { every, by_text: BTreeMap::new() }
    }

    /// Whether to log a text now, and then for how many times.
    pub(super) fn tell(&mut self, text: &str, now: Instant) -> Option<u64> {
        if let Some((last, times)) = self.by_text.get_mut(text) {
            *times += 1;
            if now.saturating_duration_since(*last) < self.every {
                return None;
            }
            *last = now;
            return Some(std::mem::take(times));
        }
        if self.by_text.len() >= MANY {
            self.by_text.clear();
        }
        self.by_text.insert(text.to_owned(), (now, 0));
        Some(1)
    }

    /// Forgets all, and says whether there was something.
    pub(super) fn clear(&mut self) -> bool {
        !std::mem::take(&mut self.by_text).is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_text_is_told_again_after_a_while_with_its_count() {
        let (mut told, begin) = (Told::new(Duration::from_secs(60)), Instant::now());
        assert_eq!(told.tell("refused", begin), Some(1));
        for second in 1..60 {
            assert_eq!(told.tell("refused", begin + Duration::from_secs(second)), None);
        }
        assert_eq!(told.tell("silent", begin), Some(1));
        assert_eq!(told.tell("refused", begin + Duration::from_secs(60)), Some(60));
        assert!(told.clear());
        assert!(!told.clear());
        assert_eq!(told.tell("refused", begin + Duration::from_secs(61)), Some(1));
    }
}
