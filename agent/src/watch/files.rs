//! Objects from files, read again whenever a file changes.
//!
//! All files are read on every change, and reported as lists: what a list says already changes nothing, so only what
//! differs reaches the kernel.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};
use std::{io, thread};

use compiler::api::{Finding, Object, ObjectRef};
use compiler::cluster::{Change, Event, PodSource};
use notify::{EventKind, PollWatcher, RecursiveMode, Watcher};
use tracing::{debug, info, warn};

use super::findings::Findings;
use crate::files::{self, Loaded};
use crate::metrics::WatchMetrics;
use crate::sync::Handle;

/// Files are written in several steps; it is quiet for so long when all are done.
const QUIET: Duration = Duration::from_millis(20);
/// How long to wait for that at most.
const MOST_NOISE: Duration = Duration::from_millis(500);
/// How often files are looked at where the system does not tell of changes.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// Reads the files, reports them to the sync thread, and again on every change, on a thread of its own.
///
/// Standard input (`-`) can be read once only; with it among the paths nothing is read again.
///
/// # Errors
///
/// If the system gives no thread.
pub fn follow(paths: Vec<PathBuf>, sync: Handle, metrics: WatchMetrics) -> io::Result<()> {
    let mut reader =
        Reader { paths, sync, findings: KINDS.map(|kind| Findings::new(kind, metrics.clone())), told: BTreeSet::new() };
    thread::Builder::new().name("files".to_owned()).spawn(move || {
        if reader.paths.iter().any(|path| path == Path::new("-")) {
            info!("reading standard input, which ends: files are not watched for changes");
            reader.read();
            return;
        }
        let (changed, changes) = mpsc::channel();
        let mut watcher = watch(&changed);
        loop {
            // Before reading, so that no change is missed; and each time, for folders that came or were replaced.
            for folder in folders(&reader.paths) {
                if let Err(error) = watcher.watch(&folder, RecursiveMode::NonRecursive) {
                    debug!(folder = %folder.display(), %error, "cannot be watched");
                }
            }
            reader.read();
            if !wait(&changes) {
                return;
            }
        }
    })?;
    Ok(())
}

/// The kinds whose findings are counted, by place in [`Reader::findings`].
const KINDS: [&str; 3] = ["Namespace", "NetworkPolicy", "Pod"];

struct Reader {
    paths: Vec<PathBuf>,
    sync: Handle,
    findings: [Findings<ObjectRef>; 3],
    /// The errors and notes of the last reading, which are not told again.
    told: BTreeSet<String>,
}

/// Something that tells of changes by sending on the channel.
fn watch(changed: &Sender<()>) -> Box<dyn Watcher> {
    let tell = |changed: Sender<()>| {
        move |event: notify::Result<notify::Event>| {
            // Reading a file is an event too, and no change. What is lost in an error may have been one.
            if event.is_ok_and(|event| matches!(event.kind, EventKind::Access(_))) {
                return;
            }
            // The reader is gone when the process ends.
            let _ = changed.send(());
        }
    };
    match notify::recommended_watcher(tell(changed.clone())) {
        Ok(watcher) => Box::new(watcher),
        Err(error) => {
            warn!(%error, "the system does not tell of changed files, looking at them every second");
            let config = notify::Config::default().with_poll_interval(POLL_INTERVAL);
            match PollWatcher::new(tell(changed.clone()), config) {
                Ok(watcher) => Box::new(watcher),
                Err(error) => {
                    warn!(%error, "files are not watched for changes");
                    Box::new(notify::NullWatcher)
                }
            }
        }
    }
}

/// The folders in which changes matter: the given ones, and those in which the given paths are, because most programs
/// replace a file by another of its name.
fn folders(paths: &[PathBuf]) -> BTreeSet<PathBuf> {
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

/// Waits for a change and then for quiet. Says whether there was one: without a watcher there never is.
fn wait(changes: &Receiver<()>) -> bool {
    if changes.recv().is_err() {
        return false;
    }
    let begun = Instant::now();
    while begun.elapsed() < MOST_NOISE && changes.recv_timeout(QUIET).is_ok() {}
    true
}

// === impl Reader ===

impl Reader {
    fn read(&mut self) {
        let Loaded { objects, findings, errors, notes, .. } = files::load(&self.paths);
        let errors: BTreeSet<String> = errors.iter().map(ToString::to_string).collect();
        let notes: BTreeSet<String> = notes.iter().map(ToString::to_string).collect();
        errors.difference(&self.told).for_each(|error| warn!("{error}"));
        notes.difference(&self.told).for_each(|note| info!("{note}"));
        self.told = errors.into_iter().chain(notes).collect();
        self.tell(findings);

        let (mut pods, mut namespaces, mut policies) = (Vec::new(), Vec::new(), Vec::new());
        for object in objects {
            match object {
                Object::Pod(pod) => pods.push(pod),
                Object::Namespace(namespace) => namespaces.push(namespace),
                Object::NetworkPolicy(policy) => policies.push(policy),
                Object::Service(_) | Object::Node(_) => {}
            }
        }
        debug!(pods = pods.len(), namespaces = namespaces.len(), policies = policies.len(), "files read");
        self.sync.event(Event::Namespaces(Change::Reset(namespaces)));
        self.sync.event(Event::Policies(Change::Reset(policies)));
        self.sync.event(Event::Pods(PodSource::Cluster, Change::Reset(pods)));
    }

    fn tell(&mut self, findings: Vec<Finding>) {
        let mut by_kind = KINDS.map(|_| BTreeMap::new());
        for finding in findings {
            if let Some(place) = KINDS.iter().position(|kind| **kind == *finding.object.kind) {
                let object = finding.object.clone();
                by_kind[place].entry(object).or_insert_with(Vec::new).push(finding);
            }
        }
        for (findings, now) in self.findings.iter_mut().zip(by_kind) {
            findings.reset(now);
        }
    }
}
