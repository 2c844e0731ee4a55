//! Where the engine stands with the kernel, and when it is to look again.

use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use compiler::nft::Table;
use netlink::Error;

use super::PATIENCE;
use crate::readiness::Guard;
use crate::sync::sources::Sources;
use crate::telemetry::Causes;

/// The shortest wait before what failed is tried again, whatever news has come.
pub(super) const FIRST_RETRY: Duration = Duration::from_millis(100);
/// How long the first commit waits for the pods of peers where the rules of an earlier life still hold.
const LONGEST_START: Duration = Duration::from_secs(10);

/// Where the engine stands with the kernel.
#[derive(Debug)]
pub(super) enum State {
    /// Nothing may be written yet, until this at the latest, or, where there is no such time, for lists without which
    /// it is not known who is isolated.
    Waiting {
        /// When the first commit waits no longer.
        until: Option<Instant>,
    },
    /// The kernel is to be brought to what the compiler wants, now.
    Behind,
    /// The kernel holds what the compiler wants.
    InForce,
    /// The kernel cannot be brought there.
    Failing(Failing),
}

/// What keeps the kernel from holding what it should, and the agent from being ready.
#[derive(Debug)]
pub(super) struct Failing {
    since: Instant,
    because: String,
    /// When it is tried again though nothing has changed.
    retry_at: Instant,
    /// When it was last tried.
    tried_at: Instant,
    /// The table that the kernel would not become; `None` where it did not come to that.
    refused: Option<Arc<Table>>,
    /// Whether something has come since then that may lead to another table.
    has_news: bool,
    /// Whether the last transaction failed, so that it is better to see what the kernel holds.
    must_reread: bool,
    guard: Guard,
}

/// What may be done of a failure's work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    /// Nothing.
    Nothing,
    /// To try again, because the time has come.
    Retry,
    /// To try again if what is desired is not what was refused.
    News,
}

/// What is only there before the first commit.
#[derive(Debug)]
pub(super) struct Start {
    /// Keeps the agent from being ready.
    _guard: Guard,
    /// When it was known who is isolated.
    since: Option<Instant>,
    /// Whether the first commit has been allowed to go ahead. It is not held back again.
    is_open: bool,
}

// === impl State ===

impl State {
    /// What is desired may be something else now.
    pub(super) fn desired_changed(&mut self) {
        match self {
            State::InForce => *self = State::Behind,
            State::Failing(failing) => failing.has_news = true,
            State::Waiting { .. } | State::Behind => {}
        }
    }

    /// When there is something to do for the kernel: `checks_at` is when it is to be looked at though it holds what it
    /// should.
    pub(super) fn due_at(&self, now: Instant, checks_at: Instant) -> Option<Instant> {
        match self {
            State::Waiting { until } => *until,
            State::Behind => Some(now),
            State::InForce => Some(checks_at),
            State::Failing(failing) => Some(failing.due_at()),
        }
    }
}

// === impl Failing ===

impl Failing {
    /// From now on, because of an error.
    pub(super) fn new(because: String, guard: Guard, now: Instant) -> Failing {
        let failing = Failing {
            since: now,
            because,
            retry_at: now,
            tried_at: now,
            refused: None,
            has_news: false,
            must_reread: false,
            guard,
        };
        failing.tell(now);
        failing
    }

    /// It failed, once more or for the first time, and is tried again after a while. Says whether the reason is news.
    pub(super) fn again(&mut self, because: String, refused: Option<Arc<Table>>, now: Instant, wait: Duration) -> bool {
        (self.tried_at, self.retry_at) = (now, now + wait);
        (self.refused, self.has_news, self.must_reread) = (refused, false, true);
        let is_news = self.because != because;
        self.because = because;
        self.tell(now);
        is_news
    }

    /// A part of the work was done, and the rest can be done at once.
    pub(super) fn progressed(&mut self, now: Instant) {
        self.retry_at = now;
        self.must_reread = false;
    }

    /// Says since when and why.
    pub(super) fn tell(&self, now: Instant) {
        let seconds = now.saturating_duration_since(self.since).as_secs();
        self.guard.because(format!("{}; for {seconds} s", self.because));
    }

    /// What may be done now. News is a reason to try again before the time has come, since it may take away what the
    /// kernel refuses, but not more often than after the shortest wait.
    pub(super) fn due(&self, now: Instant) -> Due {
        if self.retry_at <= now {
            Due::Retry
        } else if self.due_at() <= now {
            Due::News
        } else {
            Due::Nothing
        }
    }

    fn due_at(&self) -> Instant {
        let may_help = self.has_news && self.refused.is_some();
        if may_help { self.retry_at.min(self.tried_at + FIRST_RETRY) } else { self.retry_at }
    }

    /// Whether news has led to another table than the one that was refused. If not, it is none.
    pub(super) fn is_another(&mut self, desired: &Table) -> bool {
        self.has_news = false;
        self.refused.as_ref().is_none_or(|refused| **refused != *desired)
    }

    /// Whether the kernel is to be read before it is tried again. What it holds is known where news alone is the reason.
    pub(super) fn must_reread(&self, now: Instant) -> bool {
        self.must_reread && self.retry_at <= now
    }

    /// How long it is until it is tried again, where that time has not come.
    pub(super) fn left(&self, now: Instant) -> Option<Duration> {
        (self.retry_at > now).then(|| self.retry_at - now)
    }
}

/// An error, with what to do about it.
pub(super) fn describe(error: &Error) -> String {
    let mut text = Causes(error).to_string();
    if error.is_unsupported() {
        text.push_str("; the kernel has no nf_tables (CONFIG_NF_TABLES, CONFIG_NF_TABLES_INET)");
    } else if error.is_owned_by_other() {
        text.push_str("; another agent runs on this node");
    } else if let Some(expression) = error.missing_expression() {
        let _ =
            write!(text, "; the kernel lacks the expression {expression}, which the module nft_{expression} brings");
    }
    text
}

// === impl Start ===

impl Start {
    pub(super) fn new(guard: Guard) -> Start {
        Start { _guard: guard, since: None, is_open: false }
    }

    /// Whether the first commit may go ahead; where not, why. Who is isolated must be known. The pods of peers come
    /// soon, or later: what isolates does not wait for them long, unless rules of an earlier life hold until then.
    pub(super) fn wait(&mut self, sources: &Sources, has_old_rules: bool, now: Instant) -> Option<State> {
        if self.is_open {
            return None;
        }
        if !sources.has_base() {
            return Some(State::Waiting { until: None });
        }
        let since = *self.since.get_or_insert(now);
        let until = since + if has_old_rules { LONGEST_START } else { PATIENCE };
        self.is_open = sources.are_in_sync() || until <= now;
        (!self.is_open).then_some(State::Waiting { until: Some(until) })
    }
}
