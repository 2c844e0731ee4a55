//! Which watches bring the pods of which policies speak.
//!
//! The compiler says what is of interest, and which watches would bring just that ([`Interest::plan`]). To follow that to
//! the letter would list anew, at each policy that comes or goes, all the pods that share a watch with its own. So what is
//! missing gets a watch of its own until there are too many, and what is too much is left for a while.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use compiler::cluster::{Interest, MOST_WATCHES, PodQuery};

use super::LINGER;

/// The watches that are wanted.
#[derive(Debug, Default)]
pub(super) struct Plan {
    queries: BTreeSet<PodQuery>,
    /// What they are to bring.
    interest: Arc<Interest>,
    /// Since when they bring pods that are of no interest.
    loose_since: Option<Instant>,
}

/// That the watches are others than before, perhaps.
pub(super) struct Followed {
    /// Since when those have not been wanted that are not among them any more.
    pub(super) unplanned_since: Instant,
}

// === impl Plan ===

impl Plan {
    /// What the watches ask for.
    pub(super) fn queries(&self) -> impl Iterator<Item = &PodQuery> {
        self.queries.iter()
    }

    /// Since when they bring more than is of interest.
    pub(super) fn loose_since(&self) -> Option<Instant> {
        self.loose_since
    }

    /// Whether they bring what a watch would.
    pub(super) fn brings(&self, query: &PodQuery) -> bool {
        query.is_covered_by(self.queries.iter())
    }

    /// Brings the plan in line with what is of interest, `None` where it is already. What runs, though it is not wanted now,
    /// is taken again rather than something new.
    pub(super) fn follow<'a>(
        &mut self,
        interest: &Arc<Interest>,
        running: impl Iterator<Item = &'a PodQuery> + Clone,
        now: Instant,
    ) -> Option<Followed> {
        let loose_for_long = self.loose_since.filter(|since| *since + LINGER <= now);
        if let Some(unplanned_since) = loose_for_long {
            self.queries = interest.plan();
            (self.interest, self.loose_since) = (interest.clone(), None);
            return Some(Followed { unplanned_since });
        }
        if Arc::ptr_eq(interest, &self.interest) || *interest == self.interest {
            return None;
        }
        self.interest = interest.clone();
        self.queries.retain(|query| interest.wants(query));
        let exactly = interest.plan();
        let missing = interest.missing(self.queries.iter());
        let is_narrow = |query: &PodQuery| query.is_covered_by(exactly.iter());
        let again = running.clone().filter(|query| missing.wants(query));
        match again.clone().any(is_narrow) {
            true => self.queries.extend(again.filter(|query| is_narrow(query)).cloned()),
            false => self.queries.extend(again.take(1).cloned()),
        }
        let missing = missing.missing(self.queries.iter());
        self.queries.extend(missing.plan());
        if self.queries.len() > MOST_WATCHES {
            self.queries.clone_from(&exactly);
        }
        let is_loose = !self.queries.iter().all(is_narrow);
        self.loose_since = is_loose.then(|| self.loose_since.unwrap_or(now));
        Some(Followed { unplanned_since: now })
    }
}
