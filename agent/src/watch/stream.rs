//! One list and watch: objects of one kind, followed for ever.
//!
//! ```text
//!            +--> list, streamed or in pages --> Reset --+
//!            |                                           v
//! no version |                                   watch from a version --> Applied, Deleted
//! (expired,  |                                           |
//!  garbage)  |                                           +-- ended in its time: watch on, at once
//!            +---------------- back-off <----------------+-- failed, or ended right after its begin
//! ```
//!
//! A *turn* is one list or one watch. Every turn that fails, in whatever way, is followed by the one back-off, which
//! begins anew only after a watch has lived for [`PROVEN`]; so no answer of a server can make it be asked more often.
//! What is known stays enforced until a complete list, or an event, says otherwise.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use compiler::api::Parsed;
use compiler::cluster::{Change, Event};
use kube::Client;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::access::{Access, Seat};
use super::body::{Bytes, LONGEST_LINE, Line};
use super::failure::Failure;
use super::findings::Findings;
use super::freshness::Pulse;
use super::kind::Kind;
use super::large::{LARGE, LargeLines, Reader};
use super::list::List;
use super::request::{Collection, PAGE, PATIENCE};
use super::told::Told;
use super::version::Floor;
use super::wire::{Page, WatchEvent};
use crate::backoff::{Backoff, random};
use crate::metrics::WatchMetrics;
use crate::readiness::{Guard, Readiness};
use crate::sync::Handle;

/// How long a watch must live before it counts as one that works.
const PROVEN: Duration = Duration::from_secs(5);
/// After how long a watch is asked to end in good order, over HTTP/2: kube allows no more than 294 s.
const LONG_WATCH: Duration = Duration::from_secs(240);
/// The same where a dead connection is not noticed by itself. With the time after it, it is below 30 s.
const SHORT_WATCH: Duration = Duration::from_secs(15);
/// By how much, at most, the first is longer at random, so that the watches of many agents do not end at one moment.
const LONG_JITTER: Duration = Duration::from_secs(50);
/// The same for the second.
const SHORT_JITTER: Duration = Duration::from_secs(5);
/// How much later than asked a watch may end.
const GRACE: Duration = Duration::from_secs(5);
/// Bookmarks come about once a minute. A watch without a word for so long is one of a server that does not know the
/// version from which it is watched, which is to be looked into.
const LONGEST_SILENCE: Duration = Duration::from_secs(150);
/// For how long at most a server is left alone because it asks for it: nothing is enforced anew meanwhile.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(30);
/// How often the same text is logged.
const TELL_AGAIN: Duration = Duration::from_secs(60);
/// How often a list with objects that cannot be read is read anew before it is taken without them.
const LISTS_WITH_HOLES: u32 = 3;
/// How much a page may hold: servers before Kubernetes 1.31 may send the whole list as one.
const LONGEST_PAGE: usize = 1024 * 1024 * 1024;
/// How often in a row a watch may begin and break before it is listed anew: what it meets may be an event at which every
/// watch from that version breaks.
const MOST_BREAKS: u32 = 5;
/// How many pages a list may have; more are a server that goes in circles.
const MOST_PAGES: usize = 4096;

/// What all streams use.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) access: Access,
    pub(super) sync: Handle,
    pub(super) readiness: Readiness,
    pub(super) metrics: WatchMetrics,
    /// Whether the server does streaming lists, as far as is known.
    pub(super) can_stream: Arc<AtomicBool>,
    pub(super) reader: Reader,
}

/// What one stream follows.
pub(super) struct Stream<K: Kind> {
    pub(super) collection: Collection,
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
    seat: Seat,
    pulse: Pulse,
    findings: Findings<K::Key>,
    guard: Option<Guard>,
    /// Where the watch goes on; without it a list is next.
    version: Option<String>,
    floor: Floor,
    /// Large events that are being read. Others that came later may have been passed on before them.
    large: LargeLines<K>,
    /// Whether it is to be asked first if the store is still the one that was seen.
    is_doubtful: bool,
    has_listed: bool,
    /// Whether a streaming list of this stream was not completed.
    is_unfinished: bool,
    /// How many lists in a row had objects that could not be read.
    with_holes: u32,
    /// How many watches in a row began and did not live.
    breaks: u32,
    /// Whether a dead connection is noticed by itself.
    pinged: bool,
    /// Whether the last answer was that the credentials are not taken, or there was none.
    is_refused: bool,
    /// When the server last said how things are: by a list, an event or a bookmark.
    heard: Instant,
    backoff: Backoff,
    /// How many turns have failed since a watch has lived.
    failures: u64,
    failing: Told,
    odd: Told,
}

// === impl Stream ===

impl<K: Kind> Stream<K> {
    /// Follows for ever. Dropping the future ends it.
    pub(super) async fn run(self, shared: Shared) {
        let mut follower = Follower {
            seat: shared.access.seat(),
            pulse: shared.metrics.freshness.pulse(K::KIND, &self.name),
            findings: Findings::new(K::KIND, shared.metrics.clone()),
            guard: Some(shared.readiness.guard_start(format!("the list of {}", self.name))),
            stream: self,
            shared,
            version: None,
            floor: Floor::default(),
            large: LargeLines::new(),
            is_doubtful: false,
            has_listed: false,
            is_unfinished: false,
            with_holes: 0,
            breaks: 0,
            pinged: false,
            is_refused: false,
            heard: Instant::now(),
            // Not longer, since nothing is enforced anew while it waits.
            backoff: Backoff::new(Duration::from_millis(200), Duration::from_secs(15)).with_jitter(),
            failures: 0,
            failing: Told::new(TELL_AGAIN),
            odd: Told::new(TELL_AGAIN),
        };
        loop {
            if let Err(failure) = follower.turn().await {
                let wait = follower.failed(&failure);
                tokio::time::sleep(wait).await;
            }
        }
    }
}

// === impl Follower ===

impl<K: Kind> Follower<K> {
    /// One list or one watch.
    async fn turn(&mut self) -> Result<(), Failure> {
        let client = self.seat.client(self.is_refused).await;
        let client = client.map_err(|error| Failure::Broken(format!("{error:#}")))?;
        if self.is_doubtful || (self.version.is_some() && self.heard.elapsed() >= LONGEST_SILENCE) {
            self.ask_the_store(&client).await?;
        }
        match self.version.clone() {
            Some(version) => self.watch(&client, &version).await,
            None => self.list(&client).await,
        }
    }

    async fn watch(&mut self, client: &Client, version: &str) -> Result<(), Failure> {
        let (time, jitter) = if self.pinged { (LONG_WATCH, LONG_JITTER) } else { (SHORT_WATCH, SHORT_JITTER) };
        let time = time + random(jitter);
        let answer = self.stream.collection.watch(client, version, time).await?;
        self.pinged = answer.pinged;
        self.pulse.open(answer.pinged);
        self.breaks += 1;
        self.read_events(answer.body, time + GRACE).await
    }

    async fn list(&mut self, client: &Client) -> Result<(), Failure> {
        if self.has_listed {
            self.shared.metrics.restarted(K::KIND);
        }
        if self.is_unfinished || !self.shared.can_stream.load(Ordering::Relaxed) {
            return self.list_pages(client).await;
        }
        match self.list_stream(client).await {
            Err(failure) if failure.is_refused_streaming() => {
                if self.shared.can_stream.swap(false, Ordering::Relaxed) {
                    info!("the API server does not do streaming lists, reading lists in pages");
                }
                self.list_pages(client).await
            }
            Err(failure) if failure.is_unfinished_streaming() && self.version.is_none() => {
                self.is_unfinished = true;
                Err(failure)
            }
            result => result,
        }
    }

    /// Reads a list as the begin of a watch, and goes on with that.
    async fn list_stream(&mut self, client: &Client) -> Result<(), Failure> {
        let time = LONG_WATCH + random(LONG_JITTER);
        let answer = self.stream.collection.stream(client, self.floor.parameter().as_deref(), time).await?;
        self.pinged = answer.pinged;
        let mut body = answer.body;
        let mut list = List::default();
        let version = loop {
            let event = match body.line(Instant::now() + PATIENCE).await? {
                Line::Text(line) => self.shared.reader.read(line, WatchEvent::<K>::read).await,
                Line::TooLong => Err(too_long()),
                Line::End => return Err(Failure::Incomplete),
                Line::Nothing => return Err(Failure::Silent { waited_for: "more of a list", time: PATIENCE }),
            };
            self.pulse.word();
            match event {
                Ok(WatchEvent::Applied { object, was_known }) => {
                    if let Some(object) = self.accept(object.parsed) {
                        list.put(object, was_known);
                    }
                }
                Ok(WatchEvent::Deleted(object)) => {
                    if let Some(object) = self.accept(object.parsed) {
                        list.remove(&K::key(&object.value));
                    }
                }
                Ok(WatchEvent::Bookmark { ends_list: true, version }) => break version,
                Ok(WatchEvent::Bookmark { .. }) => {}
                Ok(WatchEvent::Error(status)) => return Err(Failure::Refused { status, retry_after: None }),
                Ok(WatchEvent::Unknown(kind)) => self.tell_unknown(&kind),
                Err(text) => {
                    list.holes += 1;
                    self.tell_odd(&text);
                }
            }
        };
        self.listed(list, version)?;
        if !self.pinged {
            // This watch was given more time than a connection is trusted that is not pinged.
            return Ok(());
        }
        self.pulse.open(true);
        self.read_events(body, time + GRACE).await
    }

    async fn list_pages(&mut self, client: &Client) -> Result<(), Failure> {
        let (mut list, mut version, mut token, mut limit) = (List::default(), None, None, Some(PAGE));
        for _ in 0..MOST_PAGES {
            let has_token = token.is_some();
            let answer = self.stream.collection.page(client, self.floor.parameter(), limit, token.take()).await;
            let mut answer = match answer {
                Err(failure) if failure.is_expired() && has_token && limit.is_some() => {
                    // Pages take longer than the server keeps the version of the first: all at once, then.
                    (list, limit) = (List::default(), None);
                    continue;
                }
                answer => answer?,
            };
            self.pinged = answer.pinged;
            let page = answer.body.all(LONGEST_PAGE).await?;
            let page = self.shared.reader.read(page, Page::<K>::read).await.map_err(Failure::Odd)?;
            self.pulse.word();
            list.holes += page.holes;
            if !has_token {
                version = page.version;
            }
            for object in page.items {
                if let Some(object) = self.accept(object) {
                    list.put(object, false);
                }
            }
            token = page.token;
            if token.is_none() {
                return self.listed(list, version);
            }
        }
        Err(Failure::Odd(format!("a list of more than {MOST_PAGES} pages")))
    }

    /// A list is complete. It is taken unless it lacks what is known; one from which nothing can be watched is a failure
    /// all the same.
    fn listed(&mut self, list: List<K>, version: Option<String>) -> Result<(), Failure> {
        let List { mut objects, findings, holes } = list;
        if holes > 0 {
            let text = format!("a list with {holes} objects that cannot be read");
            if self.has_listed && self.with_holes < LISTS_WITH_HOLES {
                self.with_holes += 1;
                return Err(Failure::Odd(text));
            }
            self.tell_odd(&text);
        }
        self.with_holes = 0;
        if let Some(version) = &version
            && let Err(seen) = self.floor.see(version)
        {
            return Err(Failure::Older { version: version.clone(), seen });
        }
        objects.shrink_to_fit();
        debug!(what = self.stream.name, objects = objects.len(), version, "listed");
        self.version = version.filter(|version| !version.is_empty());
        self.breaks = 0;
        self.findings.reset(findings);
        self.report(Change::Reset(objects));
        self.has_listed = true;
        self.guard = None;
        self.heard = Instant::now();
        self.pulse.listed();
        match self.version {
            Some(_) => Ok(()),
            None => Err(Failure::Odd("the list has no version to watch from".to_owned())),
        }
    }

    /// Takes all events of a watch.
    async fn read_events(&mut self, body: Bytes, ends_within: Duration) -> Result<(), Failure> {
        let result = self.read_lines(body, ends_within).await;
        let finished = self.finish_large().await;
        // What could not be read is not told of again by a watch, however this one has ended.
        finished.and(result)
    }

    /// Takes events until the watch ends. Large ones may still be read then.
    async fn read_lines(&mut self, mut body: Bytes, ends_within: Duration) -> Result<(), Failure> {
        let begun = Instant::now();
        let (mut is_proven, mut last) = (false, begun);
        let silence = ends_within.min(LONGEST_SILENCE);
        loop {
            let silent_at = last + silence;
            let until = if is_proven { silent_at } else { silent_at.min(begun + PROVEN) };
            let line = tokio::select! {
                biased;
                event = self.large.next() => {
                    self.pass_on(event.map_err(Failure::Odd)?)?;
                    continue;
                }
                line = body.line(until), if !self.large.is_full() => line?,
            };
            if !is_proven && begun.elapsed() >= PROVEN {
                is_proven = true;
                self.proven();
            }
            match line {
                Line::Text(line) => {
                    last = Instant::now();
                    self.pulse.word();
                    if line.len() >= LARGE || self.large.concern(&line) {
                        self.large.begin(line, &self.shared.reader);
                        continue;
                    }
                    self.pass_on(WatchEvent::read(&line).map_err(Failure::Odd)?)?;
                }
                Line::Nothing if Instant::now() < silent_at => {}
                Line::Nothing => return Err(Failure::Silent { waited_for: "event or bookmark", time: silence }),
                Line::TooLong => return Err(Failure::Odd(too_long())),
                Line::End if is_proven => return Ok(()),
                Line::End => return Err(Failure::Early),
            }
        }
    }

    /// Waits for the large events that are being read, and takes them over. One that fails leaves none behind, which
    /// would be older than the list that follows.
    async fn finish_large(&mut self) -> Result<(), Failure> {
        let mut result = Ok(());
        while !self.large.is_empty() {
            let event = self.large.next().await.map_err(Failure::Odd);
            result = result.and(event.and_then(|event| self.pass_on(event)));
        }
        result
    }

    /// Takes over an event.
    fn pass_on(&mut self, event: WatchEvent<K>) -> Result<(), Failure> {
        match event {
            WatchEvent::Applied { object, .. } => {
                self.advance(object.version);
                let changed_at = object.changed_at;
                if let Some(Parsed { value, findings }) = self.accept(object.parsed) {
                    self.findings.put(K::key(&value), findings);
                    let event = (self.stream.event)(Change::Applied(value));
                    self.shared.sync.event_of_change(event, changed_at);
                }
            }
            WatchEvent::Deleted(object) => {
                self.advance(object.version);
                if let Some(Parsed { value, .. }) = self.accept(object.parsed) {
                    let key = K::key(&value);
                    self.findings.remove(&key);
                    self.report(Change::Deleted(key));
                }
            }
            WatchEvent::Bookmark { version: Some(version), .. } => match self.floor.see(&version) {
                Ok(()) => {
                    self.version = Some(version);
                    self.heard = Instant::now();
                }
                Err(seen) => return Err(Failure::Older { version, seen }),
            },
            WatchEvent::Bookmark { version: None, .. } => {}
            WatchEvent::Error(status) => return Err(Failure::Refused { status, retry_after: None }),
            WatchEvent::Unknown(kind) => self.tell_unknown(&kind),
        }
        Ok(())
    }

    /// The watch has come to a version. One that is older, or none, is only the object's and no reason to go back.
    fn advance(&mut self, version: Option<String>) {
        self.heard = Instant::now();
        if let Some(version) = version.filter(|version| !version.is_empty())
            && self.floor.see(&version).is_ok()
        {
            self.version = Some(version);
        }
    }

    /// The model as it is kept; `None` for an object without a name, which cannot be told from others.
    fn accept(&mut self, mut parsed: Parsed<K::Model>) -> Option<Parsed<K::Model>> {
        if parsed.findings.iter().any(|finding| finding.field == "metadata.name") {
            self.tell_odd("an object without a name");
            return None;
        }
        (self.stream.trim)(&mut parsed.value);
        Some(parsed)
    }

    fn report(&self, change: Change<K::Model, K::Key>) {
        self.shared.sync.event((self.stream.event)(change));
    }

    /// Asks for the newest version of the store, see [`version`](super::version).
    async fn ask_the_store(&mut self, client: &Client) -> Result<(), Failure> {
        let mut answer = self.stream.collection.page(client, None, Some(1), None).await?;
        let page = answer.body.all(LONGEST_PAGE).await?;
        let page = self.shared.reader.read(page, Page::<K>::read).await.map_err(Failure::Odd)?;
        if let Some(version) = page.version {
            match self.floor.is_another_life(&version, Instant::now()) {
                Ok(false) => {}
                Ok(true) => {
                    let what = &self.stream.name;
                    warn!(what, version, "the cluster was restored to an older state, listing it anew");
                    self.version = None;
                }
                Err(seen) => return Err(Failure::Older { version, seen }),
            }
        }
        self.is_doubtful = false;
        self.heard = Instant::now();
        self.pulse.word();
        Ok(())
    }

    /// The watch works.
    fn proven(&mut self) {
        self.backoff.reset();
        self.pulse.steady();
        self.is_refused = false;
        (self.failures, self.breaks) = (0, 0);
        if self.failing.clear() {
            info!(what = self.stream.name, "watched again");
        }
    }

    /// Tells of a failure, and how long to wait before the next turn.
    fn failed(&mut self, failure: &Failure) -> Duration {
        self.shared.metrics.failed(K::KIND);
        self.failures += 1;
        if failure.is_expired() || failure.needs_list() || self.breaks >= MOST_BREAKS {
            (self.version, self.breaks) = (None, 0);
        }
        self.is_doubtful |= failure.is_doubtful();
        self.is_refused = failure.is_unauthenticated() || matches!(failure, Failure::Broken(_));
        let mut wait = self.backoff.next_wait();
        if let Some(asked) = failure.retry_after() {
            let asked = asked.min(LONGEST_RETRY_AFTER);
            wait = wait.max(asked + random(asked / 4));
        }
        let error = failure.describe();
        if let Some(guard) = &self.guard {
            guard.because(error.clone());
        }
        self.pulse.away(&error);
        let what = &self.stream.name;
        if failure.is_expired() && self.failures == 1 {
            debug!(what, "expired, listing again");
            return wait;
        }
        match self.failing.tell(&error, Instant::now()) {
            Some(times) => warn!(what, error, times, retry_in = ?wait, "not watched; what is known stays enforced"),
            None => debug!(what, error, retry_in = ?wait, "still not watched"),
        }
        wait
    }

    fn tell_unknown(&mut self, kind: &str) {
        self.tell_odd(&format!("an event of type {kind:?}"));
    }

    /// Tells of something that is passed over.
    fn tell_odd(&mut self, error: &str) {
        self.shared.metrics.failed(K::KIND);
        if let Some(times) = self.odd.tell(error, Instant::now()) {
            warn!(what = self.stream.name, error, times, "the API server sent something odd, which is passed over");
        }
    }
}

fn too_long() -> String {
    format!("a line of a watch has more than {LONGEST_LINE} bytes")
}

#[cfg(test)]
mod tests;
