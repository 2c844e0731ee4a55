//! When each watch was last known to be alive, for `/readyz` and a metric.
//!
//! A *word* of the API server is a complete list, an event, a bookmark, or the begin of a watch. Idle watches have a
//! word about once a minute, by a bookmark. What shows that they live in between is the connection: over HTTP/2 it is
//! closed when a ping is not answered, so an open watch is never thought older than [`LIVENESS`]; over HTTP/1.1 each
//! watch ends, and begins anew, sooner than that. A watch that is open is therefore fresh, and one whose server has gone
//! is not open for longer than that.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::time::Instant;

use super::connect::LIVENESS;

/// From which age on `/readyz` notes that a watch that is not open has no word. Shorter gaps are in the course of things.
const WORTH_A_NOTE: Duration = Duration::from_secs(5);

/// How many failures in a row are worth a note though there are words in between.
const UNSTEADY: u64 = 3;

/// The watches that run, and when the API server last had a word for each.
#[derive(Debug, Clone, Default)]
pub struct Freshness(Arc<Mutex<Entries>>);

/// One watch. Dropping it says that it is not wanted any more.
#[derive(Debug)]
pub(super) struct Pulse {
    freshness: Freshness,
    id: u64,
}

#[derive(Debug, Default)]
struct Entries {
    next_id: u64,
    by_id: BTreeMap<u64, Entry>,
}

#[derive(Debug)]
struct Entry {
    kind: &'static str,
    name: String,
    /// Whether it has delivered its list. Before that it is for the guard of the list to say what is missing.
    has_listed: bool,
    last_word: Instant,
    state: State,
    /// How often in a row it has failed without having lived for a while in between, and why it did last.
    failures: u64,
    reason: String,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    /// The watch is open; `pinged` if its connection would be closed when it were dead.
    Open { pinged: bool },
    /// It is not.
    Away,
}

// === impl Freshness ===

impl Freshness {
    /// One more watch.
    pub(super) fn pulse(&self, kind: &'static str, name: &str) -> Pulse {
        let mut entries = self.lock();
        let id = entries.next_id;
        entries.next_id += 1;
        let entry = Entry {
            kind,
            name: name.to_owned(),
            has_listed: false,
            last_word: Instant::now(),
            state: State::Away,
            failures: 0,
            reason: "not asked yet".to_owned(),
        };
        entries.by_id.insert(id, entry);
        Pulse { freshness: self.clone(), id }
    }

    /// The greatest age of a watch of each kind.
    pub(crate) fn ages(&self) -> BTreeMap<&'static str, Duration> {
        let now = Instant::now();
        let mut ages = BTreeMap::new();
        for entry in self.lock().by_id.values() {
            let age: &mut Duration = ages.entry(entry.kind).or_default();
            *age = entry.age(now).max(*age);
        }
        ages
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.0.lock().expect("nothing panics while it holds this lock")
    }
}

impl fmt::Display for Freshness {
    /// A line for each watch that has delivered its list, and before these a note for each that is away.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let now = Instant::now();
        let entries = self.lock();
        let listed = || entries.by_id.values().filter(|entry| entry.has_listed);
        for entry in listed() {
            let age = entry.age(now);
            let Entry { name, reason, failures, .. } = entry;
            if entry.state == State::Away && age >= WORTH_A_NOTE {
                let age = age.as_secs();
                writeln!(
                    f,
                    "note: {name}: no word from the API server for {age} s ({reason}); what is known stays enforced"
                )?;
            } else if *failures >= UNSTEADY {
                writeln!(f, "note: {name}: interrupted {failures} times in a row ({reason}); changes may come late")?;
            }
        }
        for entry in listed() {
            writeln!(f, "watch: {}: last word {} s ago", entry.name, entry.age(now).as_secs())?;
        }
        Ok(())
    }
}

// === impl Pulse ===

impl Pulse {
    /// The API server said something.
    pub(super) fn word(&self) {
        self.change(|entry| entry.last_word = Instant::now());
    }

    /// The list is there.
    pub(super) fn listed(&self) {
        self.change(|entry| {
            entry.has_listed = true;
            entry.last_word = Instant::now();
        });
    }

    /// The watch is open.
    pub(super) fn open(&self, pinged: bool) {
        self.change(|entry| {
            entry.last_word = Instant::now();
            entry.state = State::Open { pinged };
        });
    }

    /// The watch is not open.
    pub(super) fn away(&self, reason: &str) {
        self.change(|entry| {
            let now = Instant::now();
            // Up to now its connection was alive.
            entry.last_word = now.checked_sub(entry.age(now)).unwrap_or(entry.last_word);
            entry.state = State::Away;
            entry.failures += 1;
            reason.clone_into(&mut entry.reason);
        });
    }

    /// The watch has lived for a while.
    pub(super) fn steady(&self) {
        self.change(|entry| entry.failures = 0);
    }

    fn change(&self, change: impl FnOnce(&mut Entry)) {
        if let Some(entry) = self.freshness.lock().by_id.get_mut(&self.id) {
            change(entry);
        }
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        self.freshness.lock().by_id.remove(&self.id);
    }
}

// === impl Entry ===

impl Entry {
    fn age(&self, now: Instant) -> Duration {
        let silence = now.saturating_duration_since(self.last_word);
        match self.state {
            State::Open { pinged: true } => silence.min(LIVENESS),
            State::Open { pinged: false } | State::Away => silence,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn an_idle_watch_is_fresh_and_one_that_is_away_is_told() {
        let freshness = Freshness::default();
        let pulse = freshness.pulse("Pod", "Pods of node n1");
        pulse.open(true);
        assert_eq!(freshness.to_string(), "", "the list is waited for by its guard");
        pulse.listed();
        tokio::time::advance(55 * SECOND).await;
        assert_eq!(freshness.to_string(), "watch: Pods of node n1: last word 20 s ago\n");
        pulse.away("connection refused");
        tokio::time::advance(22 * SECOND).await;
        assert_eq!(
            freshness.to_string(),
            "note: Pods of node n1: no word from the API server for 42 s (connection refused); what is known stays \
             enforced\nwatch: Pods of node n1: last word 42 s ago\n"
        );
        assert_eq!(freshness.ages(), BTreeMap::from([("Pod", 42 * SECOND)]));
        pulse.open(false);
        tokio::time::advance(31 * SECOND).await;
        assert_eq!(freshness.to_string(), "watch: Pods of node n1: last word 31 s ago\n");
        for _ in 0..UNSTEADY {
            pulse.away("cut");
            pulse.open(true);
        }
        let text = freshness.to_string();
        assert!(text.starts_with("note: Pods of node n1: interrupted 4 times in a row (cut); "), "{text}");
        pulse.steady();
        assert_eq!(freshness.to_string(), "watch: Pods of node n1: last word 0 s ago\n");
        drop(pulse);
        assert_eq!((freshness.to_string(), freshness.ages().len()), (String::new(), 0));
    }
}
