//! Manifests and probes, read for a command; what is wrong with them goes to standard error.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::BufReader;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use compiler::api::{Object, escaped};
use compiler::nft::Deny;

use crate::args::{FoldersArgs, ReadingArgs};
use crate::files::{self, Loaded, Reach};
use crate::model::{Model, Openings};
use crate::probes::{self, LineError, Probe};

/// A line of a list of probes.
pub(super) type Asked = Result<Probe, LineError>;

/// Loads manifests and prints notes, findings and errors. `None` where the input is bad: a file that cannot be read or
/// parsed, or, if `strict`, any finding.
pub(super) fn manifests(paths: &[PathBuf], reading: ReadingArgs) -> Option<Loaded> {
    let ReadingArgs { folders: FoldersArgs { recursive }, strict } = reading;
    let loaded = files::load_as(paths, Reach { recursive, pipes: true });
    for note in &loaded.notes {
        eprintln!("note: {note}");
    }
    for finding in &loaded.findings {
        eprintln!("finding: {}", escaped(&finding.to_string()));
    }
    for error in &loaded.errors {
        eprintln!("error: {error}");
    }
    let bad = !loaded.errors.is_empty() || strict && !loaded.findings.is_empty();
    (!bad).then_some(loaded)
}

/// Whether there is a Pod among the objects, or something of which one was made. If not, it is said.
pub(super) fn has_pods(loaded: &Loaded, weight: &str) -> bool {
    let has = loaded.objects.iter().any(|object| matches!(object, Object::Pod(_)));
    if !has {
        eprintln!(
            "{weight}: there is no Pod in the manifests, nor a Deployment or the like that makes one, so nobody whom \
             policies are about"
        );
    }
    has
}

/// The cluster of manifests, in which no pod without an address gets one that a probe means somebody else by.
pub(super) fn model(loaded: &Loaded, probes: &[Asked], deny: Deny) -> Model {
    let ends = probes.iter().flatten().flat_map(|probe| [&probe.src, &probe.dst]);
    let reserved: BTreeSet<IpAddr> = ends.filter_map(|end| end.parse().ok()).collect();
    let Loaded { without_address, unready, workloads, .. } = loaded;
    Model::with(&loaded.objects, &Openings { without_address, reserved: &reserved, unready }, workloads.clone(), deny)
}

/// Reads probes from a file, or from standard input where the path is `-`.
pub(super) fn probes(path: &Path) -> anyhow::Result<Vec<Asked>> {
    if path == Path::new("-") {
        return Ok(probes::read_each(std::io::stdin().lock())?);
    }
    let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    probes::read_each(BufReader::new(file)).with_context(|| path.display().to_string())
}
