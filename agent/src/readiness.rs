//! What the agent still waits for, by name.
//!
//! Whoever must do something before the agent is ready holds a [`Guard`] and drops it when it is done. `/readyz` prints
//! the guards that are left, so it always says what is missing.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use tokio::sync::watch;

use crate::telemetry::Escaped;

/// Whether the agent is ready, and why not.
#[derive(Debug, Clone)]
pub struct Readiness(Arc<watch::Sender<Entries>>);

/// Something that is not done yet, or not as it should be. Dropping it says that it is.
#[derive(Debug)]
pub struct Guard {
    readiness: Readiness,
    id: u64,
}

/// What the agent waits for and what it has to tell, as one text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// What it waits for; empty when it is ready.
    pub waiting_for: Vec<String>,
    /// What does not keep it from being ready, but should be known.
    pub notes: Vec<String>,
}

#[derive(Debug, Default)]
struct Entries {
    next_id: u64,
    by_id: BTreeMap<u64, Entry>,
    /// Whether the rules have been in force at some time.
    has_started: bool,
}

#[derive(Debug)]
struct Entry {
    name: String,
    /// Why it takes long.
    detail: Option<String>,
    weight: Weight,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Weight {
    Blocks,
    /// Until the rules are in force.
    BlocksStart,
    Informs,
}

// === impl Readiness ===

impl Readiness {
    /// Ready, until the first guard is made.
    #[allow(clippy::new_without_default, reason = "being ready without a guard is nothing to come by unseen")]
    pub fn new() -> Readiness {
        Readiness(Arc::new(watch::Sender::new(Entries::default())))
    }

    /// The agent is not ready while the guard is held.
    pub fn guard(&self, name: impl Into<String>) -> Guard {
        self.insert(name.into(), |_| Weight::Blocks)
    }

    /// The same until the rules are in force; after that only a note. For what comes and goes while the agent runs, such
    /// as a watch of one more namespace.
    pub fn guard_start(&self, name: impl Into<String>) -> Guard {
        self.insert(name.into(), |entries| if entries.has_started { Weight::Informs } else { Weight::BlocksStart })
    }

    /// The rules are in force. What the start still waits for, such as the pods of a peer, is only a note from now on.
    pub fn started(&self) {
        self.0.send_modify(|entries| {
            entries.has_started = true;
            let of_start = entries.by_id.values_mut().filter(|entry| entry.weight == Weight::BlocksStart);
            of_start.for_each(|entry| entry.weight = Weight::Informs);
        });
    }

    /// The agent is ready all the same.
    pub fn note(&self, name: impl Into<String>) -> Guard {
        self.insert(name.into(), |_| Weight::Informs)
    }

    /// What it waits for now.
    pub fn status(&self) -> Status {
        let entries = self.0.borrow();
        let (notes, blocks): (Vec<_>, Vec<_>) = entries.by_id.values().partition(|e| e.weight == Weight::Informs);
        let texts = |entries: Vec<&Entry>| entries.into_iter().map(ToString::to_string).collect();
        Status { waiting_for: texts(blocks), notes: texts(notes) }
    }

    /// Waits until the agent is ready.
    pub async fn ready(&self) {
        let mut entries = self.0.subscribe();
        // The sender lives as long as `self`.
        let _ = entries.wait_for(Entries::is_ready).await;
    }

    fn insert(&self, name: String, weight: impl FnOnce(&Entries) -> Weight) -> Guard {
        let mut id = 0;
        self.0.send_modify(|entries| {
            id = entries.next_id;
            entries.next_id += 1;
            let weight = weight(entries);
            entries.by_id.insert(id, Entry { name, detail: None, weight });
        });
        Guard { readiness: self.clone(), id }
    }
}

// === impl Guard ===

impl Guard {
    /// Says why it takes long: the last error.
    pub fn because(&self, detail: impl Into<String>) {
        self.readiness.0.send_modify(|entries| {
            if let Some(entry) = entries.by_id.get_mut(&self.id) {
                entry.detail = Some(detail.into());
            }
        });
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.readiness.0.send_modify(|entries| {
            entries.by_id.remove(&self.id);
        });
    }
}

// === impl Status ===

impl Status {
    /// Whether the agent is ready.
    pub fn is_ready(&self) -> bool {
        self.waiting_for.is_empty()
    }
}

impl fmt::Display for Status {
    /// One line for each: `waiting for the list of NetworkPolicies (403 Forbidden: ...)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_ready() {
            writeln!(f, "ready")?;
        }
        for name in &self.waiting_for {
            writeln!(f, "waiting for {}", Escaped(name))?;
        }
        for name in &self.notes {
            writeln!(f, "note: {}", Escaped(name))?;
        }
        Ok(())
    }
}

// === impl Entries ===

impl Entries {
    fn is_ready(&self) -> bool {
        self.by_id.values().all(|entry| entry.weight == Weight::Informs)
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.detail {
            Some(detail) => write!(f, "{} ({detail})", self.name),
            None => f.write_str(&self.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_is_missing_until_nothing_is() {
        let readiness = Readiness::new();
        let list = readiness.guard_start("the list of Pods");
        let commit = readiness.guard("the first commit");
        list.because("connection\nrefused");
        let expected = "waiting for the list of Pods (connection\\nrefused)\nwaiting for the first commit\n";
        assert_eq!(readiness.status().to_string(), expected);
        drop(list);
        assert_eq!(readiness.status().waiting_for, ["the first commit"]);
        drop(commit);
        assert_eq!(readiness.status().to_string(), "ready\n");
    }

    #[test]
    fn a_watch_that_starts_late_or_lags_is_only_a_note() {
        let readiness = Readiness::new();
        let first = readiness.guard("the first commit");
        let _lags = readiness.guard_start("the list of Pods of namespace a");
        assert_eq!(readiness.status().waiting_for.len(), 2);
        drop(first);
        assert_eq!(readiness.status().waiting_for, ["the list of Pods of namespace a"]);
        readiness.started();
        let _late = readiness.guard_start("the list of Pods of namespace b");
        let notes = "note: the list of Pods of namespace a\nnote: the list of Pods of namespace b\n";
        assert_eq!(readiness.status().to_string(), format!("ready\n{notes}"));
        let failing = readiness.guard("a commit");
        assert!(!readiness.status().is_ready());
        drop(failing);
        assert!(readiness.status().is_ready());
    }

    #[tokio::test]
    async fn can_be_waited_for() {
        let readiness = Readiness::new();
        let guard = readiness.guard("the first commit");
        let waiting = tokio::spawn({
            let readiness = readiness.clone();
            async move { readiness.ready().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(guard);
        waiting.await.unwrap();
    }
}
