//! When the kernel has got the rules of a pod.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::Result;
use compiler::nft::Key;
use netlink::{Connection, Ownership};

/// Between two looks: a generation is asked in some microseconds, and the table dumped where it is another one.
const TICK: Duration = Duration::from_micros(500);
/// The maps that have an element for each pod that is isolated for ingress.
const MAPS: [&str; 2] = ["ingress-pods-v4", "ingress-pods-v6"];

/// Looks at the table without pause. Dropping it ends that.
pub(super) struct Commits {
    since: Arc<Mutex<BTreeMap<Key, Instant>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

// === impl Commits ===

impl Commits {
    /// Begins to look at the table of the network namespace of the calling thread.
    ///
    /// # Errors
    ///
    /// If the kernel gives no connection.
    pub(super) fn watch() -> Result<Commits> {
        let mut kernel = Connection::open(Ownership::Plain)?;
        let since = Arc::new(Mutex::new(BTreeMap::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let (seen, is_over) = (since.clone(), stop.clone());
        let thread = thread::Builder::new().name("commits".to_owned()).spawn(move || {
            let mut last = None;
            while !is_over.load(Ordering::Relaxed) {
                let generation = kernel.generation().ok();
                if generation.is_some() && generation != last {
                    last = look(&mut kernel, &seen).then_some(generation).flatten();
                }
                thread::sleep(TICK);
            }
        })?;
        Ok(Commits { since, stop, thread: Some(thread) })
    }

    /// Waits until an address is isolated, and says since when it has been.
    pub(super) fn of(&self, address: IpAddr, patience: Duration) -> Option<Instant> {
        let (key, begun) = (Key::address(address), Instant::now());
        loop {
            let since = self.since.lock().expect("nobody panics with the lock held").get(&key).copied();
            if since.is_some() || begun.elapsed() >= patience {
                return since;
            }
            thread::sleep(TICK);
        }
    }
}

impl Drop for Commits {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic has been printed.
            let _ = thread.join();
        }
    }
}

/// Notes which elements have come and which have gone, and says whether the table could be read.
fn look(kernel: &mut Connection, seen: &Mutex<BTreeMap<Key, Instant>>) -> bool {
    // A table that changes while it is dumped is dumped again.
    let Ok(Some(table)) = kernel.dump().map(|mirror| mirror.table) else { return false };
    let now = Instant::now();
    let maps = table.maps.iter().filter(|(name, _)| MAPS.contains(&name.as_str()));
    let there: Vec<Key> = maps.flat_map(|(_, map)| map.elements.keys().cloned()).collect();
    let mut seen = seen.lock().expect("nobody panics with the lock held");
    seen.retain(|key, _| there.contains(key));
    for key in there {
        seen.entry(key).or_insert(now);
    }
    true
}
