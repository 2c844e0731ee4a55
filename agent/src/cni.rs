//! What the container runtime says of the networks of this node's pods: from the files of its CNI library to the sync
//! thread.
//!
//! libcni, which containerd and CRI-O work with, writes a file when a network stands, and removes it when the network has
//! ended. That is before the first process of the pod starts, and long before the API knows the pod's address. So
//! addresses come from here, labels from the API, and a file that is missing, broken or left over costs nothing but the
//! head start.
//!
//! Nothing here follows a link out of the folder, waits for a pipe, or reads without end; what is wrong with one file is
//! told by its name, and touches no other.

mod folder;
mod result;
mod standing;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fmt::Write;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use compiler::api::{PodKey, escaped};
use compiler::cluster::{Event, Sandbox};
use notify::{EventKind, RecursiveMode, Watcher};
use tracing::{debug, info, warn};

use crate::readiness::{Guard, Readiness};
use crate::sync::Handle;

use folder::{Folder, Reading};
use standing::Standing;

/// How long after a change further ones are waited for. A file that is read too early is read again.
const QUIET: Duration = Duration::from_millis(2);
/// How often the folder is looked at though nothing was told: nobody tells of a folder that is new, or of a link that is
/// gone.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// To read takes at most one part in so many of the time where something changes, and where nothing does.
const SHARE: u32 = 2;
const IDLE_SHARE: u32 = 100;
/// How many broken files are told of by name.
const MOST_TOLD: usize = 20;
/// How much is shown of a name or a fault. The longest name of a file has 255 bytes.
const LONGEST_SHOWN: usize = 300;

/// Reads the folder, tells the sync thread, and again on every change, on a thread of its own. What is there now is told
/// before this returns.
///
/// # Errors
///
/// If the system gives no thread.
pub fn follow(path: PathBuf, sync: Handle, readiness: &Readiness) -> io::Result<()> {
    let (changed, changes) = mpsc::channel();
    let mut watcher = watcher(changed);
    let mut follower = Follower {
        standing: Standing::new()?,
        folder: Folder::new(path.clone()),
        readiness: readiness.clone(),
        told: None,
        told_faults: BTreeSet::new(),
        unread: None,
        broken: None,
    };
    // Before the folder is read, so that no change is missed; and each time, since it may be another folder by now.
    watch(&mut watcher, &path);
    follower.look(&sync);
    thread::Builder::new().name("cni".to_owned()).spawn(move || {
        loop {
            watch(&mut watcher, &path);
            let begun = Instant::now();
            follower.look(&sync);
            let took = begun.elapsed();
            thread::sleep(took * SHARE);
            match changes.recv_timeout(LOOK_INTERVAL.max(took * IDLE_SHARE)) {
                Ok(()) => {
                    thread::sleep(QUIET);
                    while changes.try_recv().is_ok() {}
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => thread::sleep(LOOK_INTERVAL),
            }
        }
    })?;
    Ok(())
}

/// Something that tells of changes by sending on the channel.
fn watcher(changed: Sender<()>) -> Box<dyn Watcher + Send> {
    let tell = move |event: notify::Result<notify::Event>| {
        // To read a file is an event too, and no change. What is lost in an error may have been one.
        if !event.is_ok_and(|event| matches!(event.kind, EventKind::Access(_))) {
            // The reader is gone when the process ends.
            let _ = changed.send(());
        }
    };
    match notify::recommended_watcher(tell) {
        Ok(watcher) => Box::new(watcher),
        Err(error) => {
            warn!(%error, "the system does not tell of changed files, looking at the results of CNI every second");
            Box::new(notify::NullWatcher)
        }
    }
}

fn watch(watcher: &mut Box<dyn Watcher + Send>, folder: &Path) {
    if let Err(error) = watcher.watch(folder, RecursiveMode::NonRecursive) {
        debug!(folder = %folder.display(), %error, "cannot be watched");
    }
}

struct Follower {
    folder: Folder,
    standing: Standing,
    readiness: Readiness,
    /// What the sync thread has been told last.
    told: Option<Vec<Sandbox>>,
    /// The faults of the last reading, which are not told again.
    told_faults: BTreeSet<String>,
    /// Held while the folder cannot be read.
    unread: Option<Guard>,
    /// Held while files in it cannot be used.
    broken: Option<Guard>,
}

// === impl Follower ===

impl Follower {
    /// Reads the folder and tells what stands.
    fn look(&mut self, sync: &Handle) {
        if let Some(sandboxes) = self.read(SystemTime::now()) {
            debug!(sandboxes = sandboxes.len(), "networks of pods");
            sync.event(Event::Sandboxes(sandboxes.clone()));
            self.told = Some(sandboxes);
        }
    }

    /// The sandboxes that stand, if they are not what was told last.
    fn read(&mut self, now: SystemTime) -> Option<Vec<Sandbox>> {
        let reading = match self.folder.read(now) {
            Ok(reading) => {
                if self.unread.take().is_some() {
                    info!("the results of CNI can be read");
                }
                reading
            }
            Err(error) => {
                self.tell_unread(&error);
                if error.kind() != io::ErrorKind::NotFound {
                    // What was known may still be so.
                    return None;
                }
                Reading::default()
            }
        };
        let (sandboxes, faults) = self.sandboxes(reading);
        self.tell_faults(faults);
        (self.told.as_ref() != Some(&sandboxes)).then_some(sandboxes)
    }

    /// What stands of all that was read, and what is wrong with the rest.
    fn sandboxes(&mut self, reading: Reading) -> (Vec<Sandbox>, Vec<(OsString, String)>) {
        let Reading { recorded, faults } = reading;
        let mut faults: Vec<_> = faults.into_iter().map(|(name, fault)| (name, fault.to_string())).collect();
        self.standing.look_anew();
        let stand = recorded.into_iter().filter(|file| self.standing.has(&file.recorded, file.written));
        let stand: Vec<_> = stand.map(|file| (file.name, file.recorded.sandbox)).collect();
        let mut claims: BTreeMap<_, BTreeSet<PodKey>> = BTreeMap::new();
        for (_, sandbox) in &stand {
            for address in &sandbox.addresses {
                claims.entry(*address).or_default().insert(sandbox.pod.clone());
            }
        }
        let mut sandboxes = Vec::new();
        for (name, mut sandbox) in stand {
            // One of them is wrong, and it is not known which: whose the address is remains for the API to say.
            let is_contested = |address: &_| claims.get(address).is_some_and(|pods| pods.len() > 1);
            if let Some(address) = sandbox.addresses.iter().copied().find(is_contested) {
                faults.push((name, format!("the file of another pod has {address} too")));
                sandbox.addresses.retain(|address| !is_contested(address));
            }
            if !sandbox.addresses.is_empty() {
                sandboxes.push(sandbox);
            }
        }
        sandboxes.sort_unstable();
        sandboxes.dedup();
        (sandboxes, faults)
    }

    fn tell_unread(&mut self, error: &io::Error) {
        if self.unread.is_none() {
            let path = self.folder.path().display();
            let text = format!("no results of CNI in {path} ({error}): new pods are known when their status is");
            info!("{text}");
            self.unread = Some(self.readiness.note(text));
        }
    }

    /// Says what is wrong with which file, once.
    fn tell_faults(&mut self, faults: Vec<(OsString, String)>) {
        let text = |(name, fault): &(OsString, String)| format!("{}: {}", shown(&name.to_string_lossy()), shown(fault));
        let told: BTreeSet<String> = faults.iter().take(MOST_TOLD).map(text).collect();
        for fault in told.difference(&self.told_faults) {
            warn!("result of CNI {fault}");
        }
        let Some(first) = told.first() else {
            (self.broken, self.told_faults) = (None, told);
            return;
        };
        let mut because = format!("{}, such as {first}", faults.len());
        if faults.len() > told.len() {
            let _ = write!(because, "; the first {MOST_TOLD} are in the log");
        }
        self.broken.get_or_insert_with(|| self.readiness.note("results of CNI that cannot be used")).because(because);
        self.told_faults = told;
    }
}

/// Text of whatever bytes and length, in a part of a line.
fn shown(text: &str) -> String {
    let cut: String = text.chars().take(LONGEST_SHOWN).collect();
    escaped(&cut).into_owned()
}

#[cfg(test)]
mod tests;
