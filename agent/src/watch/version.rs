//! How far the state of the cluster has been seen, so that it is never taken back.
//!
//! An API server answers from a cache that may lag behind its peers': a list from it can lack a policy that was enforced
//! a moment ago. So a list is asked to be no older than the newest version that was seen (`NotOlderThan`), and an answer
//! that is older all the same is refused. What is known stays enforced until some server has caught up.
//!
//! There is one case in which older is right: etcd was restored from a backup, and the cluster lives another life from
//! there. Then no version that is seen will come again for a long time. It is told apart by a consistent read, a list
//! without a version, which a server answers with what a quorum of etcd agrees on, or not at all: a server that merely
//! lags cannot answer it with an older version. When these reads say for [`DOUBT`] that the newest version is an older
//! one, what was seen is forgotten and all is listed anew.
//!
//! Versions are compared as numbers, which Kubernetes allows since 1.35 and holds for all servers on etcd. One that is no
//! number is not compared.

use std::time::Duration;

use tokio::time::Instant;

/// For how long consistent reads must be older than what was seen before they are believed.
pub(super) const DOUBT: Duration = Duration::from_secs(60);

/// The newest version that was seen.
#[derive(Debug, Default)]
pub(super) struct Floor {
    seen: Option<u64>,
    /// Since when consistent reads are older.
    older_since: Option<Instant>,
}

// === impl Floor ===

impl Floor {
    /// What a list must not be older than, as a parameter of a request.
    pub(super) fn parameter(&self) -> Option<String> {
        self.seen.map(|seen| seen.to_string())
    }

    /// Notes a version, and says which was seen if this one is older.
    pub(super) fn see(&mut self, version: &str) -> Result<(), u64> {
        let Ok(version) = version.parse::<u64>() else { return Ok(()) };
        match self.seen {
            Some(seen) if version < seen => Err(seen),
            _ => {
                *self = Floor { seen: Some(version), older_since: None };
                Ok(())
            }
        }
    }

    /// What follows from a consistent read: whether the store is another one than that which was seen.
    pub(super) fn is_another_life(&mut self, version: &str, now: Instant) -> Result<bool, u64> {
        // One that is newer is not noted: it is the store's, and what lists and watches say may not have come so far yet.
        let older = |seen: &u64| version.parse::<u64>().is_ok_and(|version| version < *seen);
        let Some(seen) = self.seen.filter(older) else {
            self.older_since = None;
            return Ok(false);
        };
        if now.saturating_duration_since(*self.older_since.get_or_insert(now)) < DOUBT {
            return Err(seen);
        }
        *self = Floor::default();
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_seen_is_not_taken_back() {
        let mut floor = Floor::default();
        assert_eq!(floor.parameter(), None);
        assert_eq!(floor.see("7"), Ok(()));
        assert_eq!(floor.see("9"), Ok(()));
        assert_eq!(floor.see("8"), Err(9));
        assert_eq!(floor.see("no number"), Ok(()));
        assert_eq!(floor.parameter().as_deref(), Some("9"));
    }

    #[test]
    fn another_life_is_believed_after_a_while_and_only_if_nothing_speaks_against_it() {
        let (mut floor, begin) = (Floor::default(), Instant::now());
        floor.see("9").unwrap();
        assert_eq!(floor.is_another_life("3", begin), Err(9));
        assert_eq!(floor.is_another_life("12", begin + DOUBT / 2), Ok(false), "a server that is up to date");
        assert_eq!(floor.parameter().as_deref(), Some("9"), "a list need not be as new as the store");
        assert_eq!(floor.is_another_life("3", begin + DOUBT), Err(9), "the time begins anew");
        assert_eq!(floor.is_another_life("4", begin + 2 * DOUBT), Ok(true));
        assert_eq!(floor.see("4"), Ok(()));
    }
}
