//! At most one line a second of one kind: a failure that comes a thousand times a second must not fill the disk, nor
//! hide what else is said.

use std::cell::Cell;
use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::fmt::{self, Debug, Write};
use std::hash::Hasher;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::callsite::Identifier;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber, warn};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

/// How long lines of one kind are counted together.
pub(super) const WINDOW: Duration = Duration::from_secs(1);
/// How many lines of one call pass in that time, if each is about something else.
const MOST_OF_A_CALL: usize = 20;
/// How much is shown of the last line that was left out.
const LONGEST: usize = 300;
/// The target of what the limiter itself says, which is limited already.
const TARGET: &str = "postern::telemetry::limit";

thread_local! {
    /// How many lines were left out before the one that this thread is about to write.
    static LEFT_OUT: Cell<u64> = const { Cell::new(0) };
}

/// Lets the first line of a kind pass in each second, and counts the others. A kind is the call that logs, and what
/// the line is about. DEBUG and TRACE always pass: whoever asks for them wants all.
#[derive(Debug, Clone, Default)]
pub(super) struct Limiter(Arc<Mutex<HashMap<Identifier, Window>>>);

/// What one call has logged lately.
#[derive(Debug)]
struct Window {
    since: Instant,
    /// What passed was about these.
    passed: Vec<u64>,
    left_out: u64,
    /// The last of them, which says how things are by now.
    last: String,
}

/// What an event is about, as a hash: its `object` or `what`, else its message where it has nothing else.
#[derive(Default)]
struct About {
    named: Option<u64>,
    message: u64,
    has_fields: bool,
}

/// The beginning of an event's line: the message and the fields.
#[derive(Default)]
struct Beginning(String);

#[derive(Default)]
struct Hashing(DefaultHasher);

/// How many lines like the one that this thread is about to write were left out before it.
pub(super) fn take_left_out() -> u64 {
    LEFT_OUT.take()
}

// === impl Limiter ===

impl Limiter {
    /// Tells of lines that were left out, if no line like them has come since to tell of it.
    pub(super) fn tell(&self, now: Instant) {
        for (left_out, last) in self.overdue(now) {
            warn!(target: TARGET, suppressed = left_out, "there were more lines, the last: {last}");
        }
    }

    fn overdue(&self, now: Instant) -> Vec<(u64, String)> {
        let mut windows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_overdue = |window: &&mut Window| window.left_out > 0 && window.since + 2 * WINDOW <= now;
        let overdue = windows.values_mut().filter(is_overdue);
        overdue.map(|window| (std::mem::take(&mut window.left_out), std::mem::take(&mut window.last))).collect()
    }

    /// Whether a line may pass, and if so how many were left out before it. `line` is asked for one that is left out.
    fn admit(&self, call: Identifier, about: u64, now: Instant, line: impl FnOnce() -> String) -> Option<u64> {
        let mut windows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = || Window { since: now, passed: Vec::new(), left_out: 0, last: String::new() };
        let window = windows.entry(call).or_insert_with(fresh);
        if window.since + WINDOW <= now {
            window.since = now;
            window.passed.clear();
        }
        if window.passed.contains(&about) || window.passed.len() == MOST_OF_A_CALL {
            window.left_out += 1;
            window.last = line();
            return None;
        }
        window.passed.push(about);
        Some(std::mem::take(&mut window.left_out))
    }
}

impl<S: Subscriber> Layer<S> for Limiter {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        let metadata = event.metadata();
        if *metadata.level() > Level::INFO || metadata.target() == TARGET {
            return true;
        }
        let mut about = About::default();
        event.record(&mut about);
        let line = || {
            let mut beginning = Beginning::default();
            event.record(&mut beginning);
            beginning.0
        };
        let admitted = self.admit(metadata.callsite(), about.hash(), Instant::now(), line);
        LEFT_OUT.set(admitted.unwrap_or(0));
        admitted.is_some()
    }
}

// === impl About ===

impl About {
    fn hash(&self) -> u64 {
        match self.named {
            Some(named) => named,
            None if self.has_fields => 0,
            None => self.message,
        }
    }
}

impl Visit for About {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        match field.name() {
            "object" | "what" => self.named = Some(Hashing::of(value)),
            "message" => self.message = Hashing::of(value),
            _ => self.has_fields = true,
        }
    }
}

// === impl Beginning ===

impl Visit for Beginning {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let room = LONGEST.saturating_sub(self.0.chars().count());
        let text = match field.name() {
            // It is the first of an event's fields.
            "message" => format!("{value:?}"),
            name => format!(" {name}={value:?}"),
        };
        self.0.extend(text.chars().take(room));
    }
}

// === impl Hashing ===

impl Hashing {
    fn of(value: &dyn Debug) -> u64 {
        let mut hashing = Hashing::default();
        write!(hashing, "{value:?}").expect("a hash takes all text");
        hashing.0.finish()
    }
}

impl Write for Hashing {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.write(text.as_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tracing::{debug, info};
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    /// Keeps the lines that pass, each with the number of those before it.
    #[derive(Clone, Default)]
    struct Passed(Arc<Mutex<Vec<(String, u64)>>>);

    impl<S: Subscriber> Layer<S> for Passed {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            let mut beginning = Beginning::default();
            event.record(&mut beginning);
            self.0.lock().unwrap().push((beginning.0, take_left_out()));
        }
    }

    fn passed(log: impl FnOnce(&Limiter)) -> Vec<(String, u64)> {
        let (limiter, passed) = (Limiter::default(), Passed::default());
        let subscriber = tracing_subscriber::registry().with(limiter.clone()).with(passed.clone());
        tracing::subscriber::with_default(subscriber, || log(&limiter));
        std::mem::take(&mut *passed.0.lock().unwrap())
    }

    /// Moves all windows into the past, as if so much time had gone by.
    fn pass_time(limiter: &Limiter, time: Duration) {
        limiter.0.lock().unwrap().values_mut().for_each(|window| window.since -= time);
    }

    #[test]
    fn the_first_of_a_kind_passes_and_the_next_one_tells_of_the_others() {
        let passed = passed(|limiter| {
            for round in 0..2 {
                (0..1000).for_each(|n| info!(n, "failed {round}"));
                pass_time(limiter, WINDOW);
            }
        });
        assert_eq!(passed, [("failed 0 n=0".to_owned(), 0), ("failed 1 n=0".to_owned(), 999)]);
    }

    #[test]
    fn what_is_about_something_else_passes_up_to_a_bound() {
        let objects = passed(|_| (0..100).for_each(|n| info!(object = n / 2, n, "odd")));
        assert_eq!(objects.len(), MOST_OF_A_CALL);
        let texts = passed(|_| (0..10).for_each(|n| info!("file {} is broken", n / 2)));
        assert_eq!(texts.len(), 5);
    }

    #[test]
    fn a_burst_that_ends_is_told_of_once() {
        let passed = passed(|limiter| {
            (0..3).for_each(|n| info!(n, "failed"));
            limiter.tell(Instant::now());
            pass_time(limiter, 2 * WINDOW);
            limiter.tell(Instant::now());
            limiter.tell(Instant::now());
        });
        let lines: Vec<&str> = passed.iter().map(|(line, _)| line.as_str()).collect();
        assert_eq!(lines, ["failed n=0", "there were more lines, the last: failed n=2 suppressed=2"]);
    }

    #[test]
    fn details_are_not_limited() {
        assert_eq!(passed(|_| (0..100).for_each(|n| debug!(n, "detail"))).len(), 100);
    }
}
