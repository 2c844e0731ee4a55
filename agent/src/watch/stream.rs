//! One list and watch: objects of one kind, followed for ever.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use compiler::api::{Finding, Parsed};
use compiler::cluster::{Change, Event};
use futures::StreamExt;
use kube::Api;
use kube::runtime::watcher::{self, Config, watcher};
use tracing::{debug, info, warn};

use super::failure::{describe, is_expired, is_refused_streaming};
use super::findings::Findings;
use super::kind::{Kind, Watched};
use crate::backoff::Backoff;
use crate::metrics::WatchMetrics;
use crate::readiness::{Guard, Readiness};
use crate::sync::Handle;

/// What all streams use.
#[derive(Debug, Clone)]
pub(super) struct Shared {
    pub(super) sync: Handle,
    pub(super) readiness: Readiness,
    pub(super) metrics: WatchMetrics,
    /// Whether the server does streaming lists, as far as is known.
    pub(super) can_stream: Arc<AtomicBool>,
}

/// What one stream follows.
pub(super) struct Stream<K: Kind> {
    pub(super) api: Api<Watched<K>>,
    /// The field selector.
    pub(super) fields: Option<String>,
    /// What it follows, for people: `Pods of namespace shop`.
    pub(super) name: String,
    /// Takes from an object what is not used of it.
    pub(super) trim: Trim<K>,
    /// Makes an event of a change.
    pub(super) event: ToEvent<K>,
}

/// Makes a model smaller before it is kept.
pub(super) type Trim<K> = Box<dyn FnMut(&mut <K as Kind>::Model) + Send>;

/// Makes an event of a change of one kind.
pub(super) type ToEvent<K> = Box<dyn Fn(Change<<K as Kind>::Model, <K as Kind>::Key>) -> Event + Send>;

/// A stream at work.
struct Follower<K: Kind> {
    stream: Stream<K>,
    shared: Shared,
    findings: Findings<K::Key>,
    /// The list that is being read. What was known before counts until it is complete.
    list: List<K>,
    has_listed: bool,
    guard: Option<Guard>,
    last_error: Option<String>,
    backoff: Backoff,
}

struct List<K: Kind> {
    objects: Vec<K::Model>,
    findings: BTreeMap<K::Key, Vec<Finding>>,
}

// === impl Stream ===

impl<K: Kind> Stream<K> {
    /// Follows for ever. Dropping the future ends it.
    pub(super) async fn run(self, shared: Shared) {
        let mut follower = Follower {
            findings: Findings::new(K::KIND, shared.metrics.clone()),
            guard: Some(shared.readiness.guard_start(format!("the list of {}", self.name))),
            stream: self,
            shared,
            list: List::default(),
            has_listed: false,
            last_error: None,
            // Not longer, since nothing is enforced anew while it waits.
            backoff: Backoff::new(Duration::from_millis(200), Duration::from_secs(15)).with_jitter(),
        };
        loop {
            follower.watch().await;
        }
    }
}

// === impl Follower ===

impl<K: Kind> Follower<K> {
    /// Returns when the server turns out not to do streaming lists; then it is to be called again.
    async fn watch(&mut self) {
        let mut config = Config { field_selector: self.stream.fields.clone(), ..Config::default() };
        let streams = self.shared.can_stream.load(Ordering::Relaxed);
        if streams {
            config = config.streaming_lists();
        }
        let mut events = pin!(watcher(self.stream.api.clone(), config));
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => self.take(event),
                Err(error) if streams && is_refused_streaming(&error) => {
                    if self.shared.can_stream.swap(false, Ordering::Relaxed) {
                        info!("the API server does not do streaming lists, reading lists in pages");
                    }
                    return;
                }
                Err(error) => {
                    let wait = self.failed(&error);
                    tokio::time::sleep(wait).await;
                }
            }
        }
    }

    fn take(&mut self, event: watcher::Event<Watched<K>>) {
        match event {
            // A connection that breaks at once would be tried without a pause if its begin counted as success.
            watcher::Event::Init => {
                self.list = List::default();
                if self.has_listed {
                    self.shared.metrics.restarted(K::KIND);
                }
                return;
            }
            watcher::Event::InitApply(object) => {
                let Parsed { value, findings } = self.parse(object);
                if !findings.is_empty() {
                    self.list.findings.insert(K::key(&value), findings);
                }
                self.list.objects.push(value);
            }
            watcher::Event::InitDone => {
                let List { mut objects, findings } = std::mem::take(&mut self.list);
                objects.shrink_to_fit();
                debug!(what = self.stream.name, objects = objects.len(), "listed");
                self.findings.reset(findings);
                self.report(Change::Reset(objects));
                self.has_listed = true;
                self.guard = None;
            }
            watcher::Event::Apply(object) => {
                let Parsed { value, findings } = self.parse(object);
                self.findings.put(K::key(&value), findings);
                self.report(Change::Applied(value));
            }
            watcher::Event::Delete(object) => {
                let key = K::key(&self.parse(object).value);
                self.findings.remove(&key);
                self.report(Change::Deleted(key));
            }
        }
        self.backoff.reset();
        if self.last_error.take().is_some() {
            info!(what = self.stream.name, "watched again");
        }
    }

    fn parse(&mut self, object: Watched<K>) -> Parsed<K::Model> {
        let mut parsed = K::parse(object.wire);
        (self.stream.trim)(&mut parsed.value);
        parsed
    }

    fn report(&self, change: Change<K::Model, K::Key>) {
        self.shared.sync.event((self.stream.event)(change));
    }

    /// Tells of an error, and how long to wait before the next attempt.
    fn failed(&mut self, error: &watcher::Error) -> Duration {
        if is_expired(error) {
            debug!(what = self.stream.name, "expired, listing again");
            return Duration::ZERO;
        }
        self.shared.metrics.failed(K::KIND);
        let wait = self.backoff.next_wait();
        let text = describe(error);
        if let Some(guard) = &self.guard {
            guard.because(text.clone());
        }
        if self.last_error.as_ref() == Some(&text) {
            debug!(what = self.stream.name, error = text, retry_in = ?wait, "still not watched");
        } else {
            warn!(what = self.stream.name, error = text, retry_in = ?wait, "not watched; what is known stays enforced");
            self.last_error = Some(text);
        }
        wait
    }
}

// === impl List ===

impl<K: Kind> Default for List<K> {
    fn default() -> Self {
        List { objects: Vec::new(), findings: BTreeMap::new() }
    }
}
