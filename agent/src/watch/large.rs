//! Large objects, which are read beside the watches that bring them.
//!
//! A policy may have as much as 1.5 MiB, and reading one of that size takes tens of milliseconds, for which no change of
//! another object should wait: all watches share one thread. So lines from [`LARGE`] on are read on another thread, and
//! the events that come after one are passed on before it. Those of one object keep their order: an event about an object
//! that is being read is put behind it.

use std::collections::VecDeque;
use std::sync::Arc;

use serde::Deserialize;
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, spawn_blocking};

use super::kind::Kind;
use super::wire::WatchEvent;

/// The size in bytes from which a line is a large one: below it reading takes about a millisecond.
pub(super) const LARGE: usize = 32 << 10;
/// How many bytes the lines of one watch may have that are being read, the last one aside. What comes after them waits, so
/// that memory has a bound: so much is some five policies of the largest size, which an API server takes a second to store.
pub(super) const MOST: usize = 8 << 20;

/// Reads what is large, one after the other, for all watches.
#[derive(Debug, Clone)]
pub(super) struct Reader(Arc<Semaphore>);

/// The large lines of one watch that are being read, and those of the same objects that came after them, in their order.
pub(super) struct LargeLines<K: Kind>(VecDeque<LargeLine<K>>);

struct LargeLine<K: Kind> {
    bytes: usize,
    name: Option<Name>,
    event: JoinHandle<Result<WatchEvent<K>, String>>,
}

/// Which object of its kind an event is about.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct Name {
    namespace: String,
    name: String,
}

// === impl Reader ===

impl Reader {
    pub(super) fn new() -> Reader {
        Reader(Arc::new(Semaphore::new(1)))
    }

    /// What a text says. Only who asks waits for a large one.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        text: Vec<u8>,
        read: fn(&[u8]) -> Result<T, String>,
    ) -> Result<T, String> {
        if text.len() < LARGE {
            return read(&text);
        }
        let _turn = self.0.acquire().await;
        spawn_blocking(move || read(&text)).await.unwrap_or_else(|error| Err(format!("reading failed: {error}")))
    }

    /// Reads nothing that is large until what this gives is dropped.
    #[cfg(test)]
    pub(super) async fn hold(&self) -> tokio::sync::OwnedSemaphorePermit {
        self.0.clone().acquire_owned().await.expect("it is never closed")
    }
}

// === impl LargeLines ===

impl<K: Kind> LargeLines<K> {
    /// None.
    pub(super) fn new() -> LargeLines<K> {
        LargeLines(VecDeque::new())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.0.iter().map(|line| line.bytes).sum::<usize>() >= MOST
    }

    /// Begins to read a line.
    pub(super) fn begin(&mut self, line: Vec<u8>, reader: &Reader) {
        let (bytes, name, reader) = (line.len(), Name::of(&line), reader.clone());
        let event = tokio::spawn(async move { reader.read(line, WatchEvent::read).await });
        self.0.push_back(LargeLine { bytes, name, event });
    }

    /// Whether a line may be about an object that is being read. One that is about none, as a bookmark, is not.
    pub(super) fn concern(&self, line: &[u8]) -> bool {
        !self.0.is_empty()
            && Name::of(line)
                .is_some_and(|name| self.0.iter().any(|large| large.name.as_ref().is_none_or(|of| *of == name)))
    }

    /// What the first of them says, once it has been read; there is no end to this without any. It may be dropped
    /// meanwhile, and loses nothing.
    pub(super) async fn next(&mut self) -> Result<WatchEvent<K>, String> {
        let Some(LargeLine { event, .. }) = self.0.front_mut() else { return std::future::pending().await };
        let event = event.await.unwrap_or_else(|error| Err(format!("reading failed: {error}")));
        self.0.pop_front();
        event
    }
}

// === impl Name ===

impl Name {
    /// The name in a line of a watch; `None` if it cannot be told, as of a bookmark.
    fn of(line: &[u8]) -> Option<Name> {
        #[derive(Deserialize)]
        struct Event {
            object: Object,
        }
        #[derive(Deserialize)]
        struct Object {
            metadata: Name,
        }
        let Event { object: Object { metadata } } = serde_json::from_slice(line).ok()?;
        (!metadata.name.is_empty()).then_some(metadata)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_which_object_it_is_about() {
        let of = |line: &str| Name::of(line.as_bytes()).map(|name| (name.namespace, name.name));
        let line =
            |metadata: &str| format!(r#"{{"type":"ADDED","object":{{"spec":{{"a":[{{}}]}},"metadata":{metadata}}}}}"#);
        let pair = |namespace: &str, name: &str| Some((namespace.to_owned(), name.to_owned()));
        assert_eq!(of(&line(r#"{"namespace":"shop","uid":"7","name":"w\u0065b"}"#)), pair("shop", "web"));
        assert_eq!(of(&line(r#"{"name":"shop"}"#)), pair("", "shop"));
        for unknown in ["{}", "7", r#"{"name":7}"#, r#"{"name":""}"#, r#"{"namespace":"shop"}"#] {
            assert_eq!(of(&line(unknown)), None, "{unknown}");
        }
        assert_eq!(of("garbage"), None);
    }
}
