//! Objects from files, read again whenever a file changes.
//!
//! On every change the files that are not as they were are read, large ones beside the others, and all is reported as
//! lists: what a list says already changes nothing, so only what differs reaches the kernel. What cannot be read stays as it was, see [`files::memory`]; it is told, and while it is so
//! the agent is not ready. An agent that starts beside files that cannot be read reports nothing at all as long as the
//! kernel holds rules from before.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};
use std::{io, thread};

use compiler::api::{Finding, NodeName, Object, ObjectRef};
use compiler::cluster::{Change, Event, PodSource};
use netlink::{Connection, Ownership};
use notify::{EventKind, PollWatcher, RecursiveMode, Watcher};
use tracing::{debug, info, warn};

use super::findings::Findings;
use crate::files::memory::{InForce, Memory};
use crate::files::{self, Loaded, Reach, Stamp, Step};
use crate::metrics::WatchMetrics;
use crate::readiness::{Guard, Readiness};
use crate::sync::Handle;

mod stall;

use stall::Stall;

/// Files are written in several steps; it is quiet for so long when all are done.
const QUIET: Duration = Duration::from_millis(20);
/// How long to wait for that at most.
const MOST_NOISE: Duration = Duration::from_millis(500);
/// How often files are looked at without being told of a change: nobody tells of a file system that is mounted over
/// them, of what a link leads to, or of files on another machine.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// How long a reading may take until it is told that it does.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why there is something to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum News {
    /// A file has changed, and more of it may be written soon.
    Changed,
    /// A large file has been read, whose content is there to be taken over.
    Read,
}

/// Reads the files, reports them to the sync thread, and again on every change, on a thread of its own.
///
/// With a Node, also the ranges of its pods are reported.
///
/// Standard input (`-`) can be read once only; with it among the paths nothing is read again.
///
/// # Errors
///
/// If the system gives no thread.
pub fn follow(
    paths: Vec<PathBuf>,
    recursive: bool,
    ranges_of: Option<NodeName>,
    sync: Handle,
    readiness: &Readiness,
    metrics: WatchMetrics,
) -> io::Result<()> {
    let [stall, stall_of_large] = [(); 2].map(|()| Stall::spawn(PATIENCE, readiness.clone()));
    let (tell, news) = mpsc::channel();
    let mut reader = Reader {
        paths,
        reach: Reach { recursive, pipes: false },
        ranges_of,
        sync,
        memory: Memory::default(),
        has_begun: false,
        findings: KINDS.map(|kind| Findings::new(kind, metrics.clone())),
        told: BTreeSet::new(),
        readiness: readiness.clone(),
        unread: None,
        stall: stall?,
        beside: Some((stall_of_large?, tell.clone())),
    };
    thread::Builder::new().name("files".to_owned()).spawn(move || {
        if reader.paths.iter().any(|path| path == Path::new("-")) {
            info!("reading standard input, which ends: files are not watched for changes");
            reader.read();
            // What is told and counted stays true.
            loop {
                thread::park();
            }
        }
        let mut watcher = watcher(&tell);
        let mut folders = around(&reader.paths);
        loop {
            // Before reading, so that no change is missed; and each time, for folders that came or were replaced.
            for folder in &folders {
                if let Err(error) = watcher.watch(folder, RecursiveMode::NonRecursive) {
                    debug!(folder = %folder.display(), %error, "cannot be watched");
                }
            }
            let stamps = reader.read();
            let known = folders.len();
            folders = around(&reader.paths);
            folders.extend(stamps.keys().filter(|path| path.is_dir()).cloned());
            // In a folder that has just been found a file may have come before it is watched: read again.
            if folders.len() <= known && has_changed(&news, || reader.unread.is_some() || have_changed(&stamps)) {
                wait_for_quiet(&news);
            }
        }
    })?;
    Ok(())
}

/// The kinds whose findings are counted, by place in [`Reader::findings`].
const KINDS: [&str; 3] = ["Namespace", "NetworkPolicy", "Pod"];

struct Reader {
    paths: Vec<PathBuf>,
    reach: Reach,
    /// The Node whose ranges of pods are told, if any's are.
    ranges_of: Option<NodeName>,
    sync: Handle,
    memory: Memory,
    /// Whether the sync thread has been told anything.
    has_begun: bool,
    findings: [Findings<ObjectRef>; 3],
    /// The faults and notes of the last reading, which are not told again.
    told: BTreeSet<String>,
    readiness: Readiness,
    /// Held while something cannot be read.
    unread: Option<Guard>,
    stall: Stall,
    /// What the thread of large files tells, until it is started.
    beside: Option<(Stall, Sender<News>)>,
}

/// Something that tells of changes by sending on the channel.
fn watcher(news: &Sender<News>) -> Box<dyn Watcher> {
    let tell = |news: Sender<News>| {
        move |event: notify::Result<notify::Event>| {
            // Reading a file is an event too, and no change. What is lost in an error may have been one.
            if event.is_ok_and(|event| matches!(event.kind, EventKind::Access(_))) {
                return;
            }
            // The reader is gone when the process ends.
            let _ = news.send(News::Changed);
        }
    };
    match notify::recommended_watcher(tell(news.clone())) {
        Ok(watcher) => Box::new(watcher),
        Err(error) => {
            warn!(%error, "the system does not tell of changed files, looking at them every second");
            let config = notify::Config::default().with_poll_interval(LOOK_INTERVAL);
            match PollWatcher::new(tell(news.clone()), config) {
                Ok(watcher) => Box::new(watcher),
                Err(error) => {
                    warn!(%error, "files are not watched for changes");
                    Box::new(notify::NullWatcher)
                }
            }
        }
    }
}

/// The folders around the given paths, because most programs replace a file by another of its name; and the paths
/// themselves that are folders.
fn around(paths: &[PathBuf]) -> BTreeSet<PathBuf> {
    let mut folders = BTreeSet::new();
    for path in paths {
        if path.is_dir() {
            folders.insert(path.clone());
        }
        // What a link leads to changes elsewhere.
        for path in [Some(path.clone()), path.canonicalize().ok()].into_iter().flatten() {
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
            folders.insert(parent.unwrap_or(Path::new(".")).to_owned());
        }
    }
    folders
}

/// Whether any path is found otherwise than it was.
fn have_changed(stamps: &BTreeMap<PathBuf, Option<Stamp>>) -> bool {
    stamps.iter().any(|(path, stamp)| files::stamp_of(path) != *stamp)
}

/// Waits until there is a reason to read again: a change, a large file that has been read, or what a look now and then
/// says. Gives whether a file has changed, which may be half written.
fn has_changed(news: &Receiver<News>, look: impl Fn() -> bool) -> bool {
    loop {
        match news.recv_timeout(LOOK_INTERVAL) {
            Ok(News::Changed) => return true,
            Ok(News::Read) => return news.try_iter().any(|news| news == News::Changed),
            Err(RecvTimeoutError::Timeout) if look() => return false,
            Err(RecvTimeoutError::Timeout) => {}
            // Without a watcher there is the look.
            Err(RecvTimeoutError::Disconnected) => thread::sleep(LOOK_INTERVAL),
        }
    }
}

/// Waits until no file changes any more. That one has been read says nothing of that.
fn wait_for_quiet(news: &Receiver<News>) {
    let begun = Instant::now();
    let mut quiet_at = begun + QUIET;
    while Instant::now() < quiet_at.min(begun + MOST_NOISE) {
        match news.recv_timeout(quiet_at.saturating_duration_since(Instant::now())) {
            Ok(News::Changed) => quiet_at = Instant::now() + QUIET,
            Ok(News::Read) => {}
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// Whether the kernel holds rules of an agent before this one. If it does not say, it may.
fn has_rules() -> bool {
    let dumped = Connection::open(Ownership::Plain).and_then(|mut connection| connection.dump());
    dumped.map_or(true, |mirror| mirror.table.is_some())
}

// === impl Reader ===

impl Reader {
    /// Reads the files and reports what is in force. Returns how they were found.
    fn read(&mut self) -> BTreeMap<PathBuf, Option<Stamp>> {
        self.stall.begin();
        let in_force = self.memory.read(&self.paths, self.reach);
        self.stall.end();
        let may_begin = self.has_begun || in_force.may_begin(has_rules);
        let InForce { loaded, faults, stamps } = in_force;
        self.tell_files(&faults, &loaded, may_begin);
        if may_begin {
            self.has_begun = true;
            self.report(loaded);
            self.read_large_beside();
        }
        stamps
    }

    /// From now on large files do not hold up the others. Not earlier: an agent that starts is to know all files before it
    /// replaces what the kernel holds.
    fn read_large_beside(&mut self) {
        let Some((stall, news)) = self.beside.take() else { return };
        let tell = move |step| match step {
            Step::Begin => stall.begin(),
            Step::End => {
                stall.end();
                // The reader is gone when the process ends.
                let _ = news.send(News::Read);
            }
        };
        if let Err(error) = self.memory.read_large_beside(tell) {
            warn!(%error, "large files are read with the others, which wait for them");
        }
    }

    /// Says what cannot be read, once, and that the agent is not ready meanwhile.
    fn tell_files(&mut self, faults: &[String], loaded: &Loaded, may_begin: bool) {
        let notes: BTreeSet<String> = loaded.notes.iter().map(ToString::to_string).collect();
        let others = loaded.findings.iter().filter(|finding| place_of(finding).is_none()).map(ToString::to_string);
        let others: BTreeSet<String> = others.collect();
        let new = |text: &&String| !self.told.contains(*text);
        for fault in faults.iter().filter(new) {
            warn!("{fault}; what it said last stays in force");
        }
        others.iter().filter(new).for_each(|finding| warn!("{finding}"));
        notes.iter().filter(new).for_each(|note| info!("{note}"));

        let held = "nothing is in force before all can be read; the rules of before stay in the kernel";
        if !may_begin && !self.told.contains(held) {
            warn!("{held}");
        }
        self.told = faults.iter().cloned().chain(others).chain(notes).collect();
        let reason = match faults {
            [] if may_begin => {
                if self.unread.take().is_some() {
                    info!("all files can be read again");
                }
                return;
            }
            [] => {
                "there is nothing at all in them, and the kernel holds rules of before; postern cleanup removes those"
                    .to_owned()
            }
            [only] => only.clone(),
            [first, rest @ ..] => format!("{first}; and {} more", rest.len()),
        };
        let guard = self.unread.get_or_insert_with(|| self.readiness.guard("files that cannot be read"));
        guard.because(if may_begin { reason } else { format!("{reason}; {held}") });
        if !may_begin {
            self.told.insert(held.to_owned());
        }
    }

    fn report(&mut self, loaded: Loaded) {
        let Loaded { objects, findings, .. } = loaded;
        self.tell_findings(findings);
        let (mut pods, mut namespaces, mut policies, mut ranges) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for object in objects {
            match object {
                Object::Pod(pod) => pods.push(pod),
                Object::Namespace(namespace) => namespaces.push(namespace),
                Object::NetworkPolicy(policy) => policies.push(policy),
                Object::Node(node) if self.ranges_of.as_ref() == Some(&node.name) => ranges.extend(node.pod_ranges),
                Object::Service(_) | Object::EndpointSlice(_) | Object::Node(_) => {}
            }
        }
        if self.ranges_of.is_some() {
            self.sync.event(Event::PodRanges(ranges));
        }
        debug!(pods = pods.len(), namespaces = namespaces.len(), policies = policies.len(), "files read");
        self.sync.event(Event::Namespaces(Change::Reset(namespaces)));
        self.sync.event(Event::Policies(Change::Reset(policies)));
        self.sync.event(Event::Pods(PodSource::Cluster, Change::Reset(pods)));
    }

    fn tell_findings(&mut self, findings: Vec<Finding>) {
        let mut by_kind = KINDS.map(|_| BTreeMap::new());
        for finding in findings {
            if let Some(place) = place_of(&finding) {
                let object = finding.object.clone();
                by_kind[place].entry(object).or_insert_with(Vec::new).push(finding);
            }
        }
        for (findings, now) in self.findings.iter_mut().zip(by_kind) {
            findings.reset(now);
        }
    }
}

/// Where the findings of an object are counted; none of what is no object of a kind that matters.
fn place_of(finding: &Finding) -> Option<usize> {
    KINDS.iter().position(|kind| **kind == *finding.object.kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_change_asks_for_quiet() {
        for (told, is_change) in [
            (&[News::Read][..], false),
            (&[News::Read, News::Read], false),
            (&[News::Changed], true),
            (&[News::Read, News::Changed], true),
        ] {
            let (tell, news) = mpsc::channel();
            for news in told {
                tell.send(*news).expect("the receiver is there");
            }
            assert_eq!(has_changed(&news, || false), is_change, "{told:?}");
        }
    }

    #[test]
    fn one_reading_is_for_all_that_comes_until_it_is_quiet() {
        let (tell, news) = mpsc::channel();
        for told in [News::Changed, News::Read, News::Changed] {
            tell.send(told).expect("the receiver is there");
        }
        wait_for_quiet(&news);
        assert_eq!(news.try_recv(), Err(mpsc::TryRecvError::Empty));
    }
}
