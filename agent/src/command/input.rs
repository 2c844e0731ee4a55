//! Manifests and probes, read for a command; what is wrong with them goes to standard error.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::files::{self, Loaded};
use crate::probes::{self, Probe};

/// Loads manifests and prints notes, findings and errors. `None` where the input is bad: a file that cannot be read or
/// parsed, or, if `strict`, any finding.
pub(super) fn manifests(paths: &[PathBuf], strict: bool) -> Option<Loaded> {
    let loaded = files::load(paths);
    for note in &loaded.notes {
        eprintln!("note: {note}");
    }
    for finding in &loaded.findings {
        eprintln!("finding: {finding}");
    }
    for error in &loaded.errors {
        eprintln!("error: {error}");
    }
    let bad = !loaded.errors.is_empty() || strict && !loaded.findings.is_empty();
    (!bad).then_some(loaded)
}

/// Reads probes from a file, or from standard input where the path is `-`.
pub(super) fn probes(path: &Path) -> anyhow::Result<Vec<Probe>> {
    if path == Path::new("-") {
        return Ok(probes::read(std::io::stdin().lock())?);
    }
    let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    probes::read(BufReader::new(file)).with_context(|| path.display().to_string())
}
