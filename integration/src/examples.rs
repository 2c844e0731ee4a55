//! The folders of `manifests/examples`, each a small cluster with probes that say what is expected of it.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use postern::probes::{self, Probe};

use crate::repository;

/// One folder.
#[derive(Debug, Clone)]
pub struct Example {
    /// The folder's name, such as `05-test-network-policy`.
    pub name: String,
    /// Where it is.
    pub folder: PathBuf,
    /// What is expected; every probe says `allowed`.
    pub probes: Vec<Probe>,
}

/// All of them, in the order of their names.
///
/// # Errors
///
/// If a folder cannot be read, or one of its probes expects nothing.
pub fn all() -> Result<Vec<Example>> {
    let top = repository::root().join("manifests/examples");
    let mut examples = Vec::new();
    for entry in fs::read_dir(&top).with_context(|| top.display().to_string())? {
        let entry = entry?;
        examples.push(read(entry.path()).with_context(|| entry.path().display().to_string())?);
    }
    examples.sort_by(|a, b| a.name.cmp(&b.name));
    ensure!(!examples.is_empty(), "{} is empty", top.display());
    Ok(examples)
}

fn read(folder: PathBuf) -> Result<Example> {
    let name = folder.file_name().context("a folder has a name")?.to_string_lossy().into_owned();
    let example = Example { probes: probes::read(fs::read(folder.join("probes.jsonl"))?.as_slice())?, name, folder };
    ensure!(!example.probes.is_empty(), "there are no probes");
    ensure!(example.probes.iter().all(|probe| probe.allowed.is_some()), "a probe does not say what is expected");
    Ok(example)
}

impl Example {
    /// The file of its probes.
    pub fn probes_file(&self) -> PathBuf {
        self.folder.join("probes.jsonl")
    }
}
