//! When open flows are reviewed.

use std::time::{Duration, Instant};

use compiler::flows::{Need, Review, Reviewed};
use tracing::{debug, info, warn};

use crate::readiness::{Guard, Readiness};

/// What has open flows reviewed by somebody else, who tells [`super::Engine::reviewed`] what was found.
pub(crate) type Begin = Box<dyn FnMut(Review) + Send>;

/// How often it is looked whether flows that were found are still there.
const AGAIN_INTERVAL: Duration = Duration::from_secs(10);
/// When it is tried again after flows could not be looked at.
const RETRY: Duration = Duration::from_secs(30);
/// A review takes at most one part in so many of the time of a processor: it looks at every flow of the node.
const SHARE: u32 = 20;

pub(super) struct Reviews {
    begin: Begin,
    /// Since when one is under way.
    begun: Option<Instant>,
    /// When the next one may begin.
    not_before: Instant,
    /// When the next one begins though there is no news.
    again_at: Instant,
    /// Shown on `/readyz` while flows cannot be looked at.
    problem: Option<(String, Guard)>,
}

// === impl Reviews ===

impl Reviews {
    pub(super) fn new(begin: Begin, now: Instant) -> Reviews {
        Reviews { begin, begun: None, not_before: now, again_at: now, problem: None }
    }

    /// When the next one is due.
    pub(super) fn due_at(&self, need: Need) -> Option<Instant> {
        match need {
            _ if self.begun.is_some() => None,
            Need::Nothing => None,
            Need::News => Some(self.not_before),
            Need::Again => Some(self.again_at.max(self.not_before)),
        }
    }

    pub(super) fn begin(&mut self, review: Review, now: Instant) {
        self.begun = Some(now);
        (self.begin)(review);
    }

    /// One has ended. Says what it found.
    pub(super) fn ended(
        &mut self,
        found: Result<Reviewed, String>,
        now: Instant,
        readiness: &Readiness,
    ) -> Option<Reviewed> {
        let took = self.begun.take().map_or(Duration::ZERO, |begun| now.saturating_duration_since(begun));
        self.not_before = now + took * SHARE;
        match found {
            Ok(found) => {
                self.again_at = now + AGAIN_INTERVAL;
                self.problem = None;
                match found.refused() {
                    0 => debug!(?took, "open flows reviewed"),
                    cut => info!(cut, ?took, "open flows that are not allowed any more are cut"),
                }
                Some(found)
            }
            Err(error) => {
                self.not_before = now + RETRY;
                if self.problem.as_ref().is_none_or(|(before, _)| *before != error) {
                    let text = format!(
                        "open flows cannot be looked at: what is not allowed any more is refused one way only, and \
                         costs more: {error}"
                    );
                    warn!("{text}");
                    self.problem = Some((error, readiness.note(text)));
                }
                None
            }
        }
    }
}
