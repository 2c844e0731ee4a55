//! Replays what the fuzzers of the readers found worth keeping, and what they broke on.

#![allow(clippy::unwrap_used, reason = "what fails in a test is to stop it there")]

#[path = "../netlink/fuzz/src/readers.rs"]
mod readers;

use std::fs;
use std::panic;
use std::path::{Path, PathBuf};

/// Calls `target` with every file that is kept for it. A fuzzer leaves what it breaks on in `artifacts`.
#[track_caller]
fn replay(name: &str, target: fn(&[u8])) {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("netlink/fuzz");
    let kept = fs::read_dir(fuzz.join("corpus").join(name)).unwrap();
    let broken = fs::read_dir(fuzz.join("artifacts").join(name)).into_iter().flatten();
    let paths: Vec<PathBuf> = kept.chain(broken).map(|entry| entry.unwrap().path()).collect();
    assert!(paths.len() >= 10, "only {} files are kept for {name}", paths.len());
    let passes = |path: &Path| panic::catch_unwind(|| target(&fs::read(path).unwrap())).is_ok();
    let failed: Vec<&PathBuf> = paths.iter().filter(|path| !passes(path)).collect();
    assert!(failed.is_empty(), "{failed:?}");
}

#[test]
fn kept_manifests_are_read() {
    replay("manifests", readers::manifests);
}

#[test]
fn kept_objects_are_read() {
    replay("objects", readers::objects);
}

#[test]
fn kept_objects_of_watches_are_read() {
    replay("watched", readers::watched);
}
