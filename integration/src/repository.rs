//! Where the checkout keeps what the tests use, and the programs that they build in it.
//!
//! Each program has one script in `.ci/`, which people and `make` run too. A build holds a lock, so that tests in
//! parallel wait for one build and do not start several.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::SystemTime;

use anyhow::{Context, Result, ensure};

/// The top folder of the checkout.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the integration crate is a folder of the checkout")
}

/// The folder that cargo builds into, and everything else that the tests build.
pub fn target() -> PathBuf {
    // A relative value counts from the top folder, where the scripts of `.ci/` run.
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |folder| root().join(folder))
}

/// The API server of the tests, built if it is missing or older than its source.
///
/// # Errors
///
/// If it has to be built and that fails; the error says which command to run.
pub fn control_plane() -> Result<PathBuf> {
    go_program("control-plane")
}

/// What serves `exec` for the API server of the tests, as kubelet does, built if need be.
///
/// # Errors
///
/// As for [`control_plane`].
pub fn kubelet() -> Result<PathBuf> {
    go_program("kubelet")
}

/// What `kubectl kustomize` would print for a folder.
///
/// # Errors
///
/// If the renderer cannot be built, or refuses the folder.
pub fn render(folder: &Path) -> Result<String> {
    let output = Command::new(go_program("render")?).arg(folder).output().context("the renderer does not start")?;
    ensure!(output.status.success(), "{}: {}", folder.display(), String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).context("the renderer printed something that is not UTF-8")
}

/// What makes networks of pods by the CNI library of container runtimes, built as the API server is.
///
/// # Errors
///
/// As for [`control_plane`].
pub fn sandbox() -> Result<PathBuf> {
    go_program("sandbox")
}

fn go_program(name: &str) -> Result<PathBuf> {
    let program = target().join("control-plane").join(name);
    locked("control-plane.lock", || {
        if is_stale(&program, &root().join("integration/control-plane"))? {
            run(".ci/control-plane")?;
        }
        Ok(())
    })?;
    Ok(program)
}

/// Runs a script of `.ci/` and returns what it printed.
pub(crate) fn run(script: &str) -> Result<String> {
    let script = root().join(script);
    let output = Command::new(&script).env("CARGO_TARGET_DIR", target()).stdin(Stdio::null()).output()?;
    let log = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "`{}` fails; run it by hand. It says\n{log}", script.display());
    Ok(String::from_utf8(output.stdout)?)
}

/// Does something in the target folder while no other process does the same.
pub(crate) fn locked<T>(name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    fs::create_dir_all(target())?;
    let lock = File::create(target().join(name))?;
    lock.lock()?;
    work()
}

/// Tells whether the program is missing, or older than a file of its source folder.
fn is_stale(program: &Path, sources: &Path) -> Result<bool> {
    let Ok(built) = program.metadata().and_then(|metadata| metadata.modified()) else { return Ok(true) };
    Ok(newest(sources)? > built)
}

/// When the newest file below the folder was changed.
fn newest(folder: &Path) -> Result<SystemTime> {
    let mut newest = SystemTime::UNIX_EPOCH;
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        let changed = if metadata.is_dir() { self::newest(&entry.path())? } else { metadata.modified()? };
        newest = newest.max(changed);
    }
    Ok(newest)
}
