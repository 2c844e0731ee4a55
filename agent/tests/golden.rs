//! Goldens: one folder a case, with the table that each node gets and the verdicts of the probes.
//!
//! A case is `golden/<case>/cluster.yaml`, or, by the same name, a folder of `manifests/examples`. Its `probes.jsonl`
//! states what must pass and what must not, `expected.nft` (`expected.<node>.nft` where there are several nodes) what
//! enforces it. `UPDATE_EXPECT=1 cargo test -p postern --test golden` rewrites the tables; review reads the difference.

#![allow(clippy::unwrap_used, reason = "a test that cannot set up its world has failed")]

use std::collections::BTreeSet;
use std::fs;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::Command;

use compiler::nft::Deny;
use postern::files::{self, Loaded};
use postern::model::Model;
use postern::probes;

/// A case by name, with the folder of its manifests and the folder of its tables.
struct Case {
    name: String,
    manifests: PathBuf,
    expected: PathBuf,
}

fn cases() -> Vec<Case> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden");
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests/examples");
    let mut cases: Vec<Case> = names(&examples)
        .into_iter()
        .map(|name| Case { manifests: examples.join(&name), expected: own.join(&name), name })
        .collect();
    let with_cluster = names(&own).into_iter().filter(|name| own.join(name).join("cluster.yaml").exists());
    cases.extend(with_cluster.map(|name| Case { manifests: own.join(&name), expected: own.join(&name), name }));
    cases
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let mut names: Vec<String> =
        entries.filter(|entry| entry.path().is_dir()).map(|e| e.file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

impl Case {
    fn load(&self) -> Loaded {
        let loaded = files::load(std::slice::from_ref(&self.manifests));
        assert!(loaded.errors.is_empty(), "{}: {:?}", self.name, loaded.errors);
        loaded
    }

    /// The nft text of each node, by the name of its file.
    fn tables(&self, loaded: &Loaded) -> Vec<(String, String)> {
        let model = Model::new(&loaded.objects, Deny::default());
        let only = model.nodes().len() == 1;
        let file = |node: &str| if only { "expected.nft".to_string() } else { format!("expected.{node}.nft") };
        model.nodes().iter().map(|(name, node)| (file(&name.0), node.table.to_string())).collect()
    }
}

#[test]
fn tables_are_as_expected() {
    let update = std::env::var_os("UPDATE_EXPECT").is_some();
    let mut wrong = Vec::new();
    for case in cases() {
        let tables = case.tables(&case.load());
        if update {
            fs::create_dir_all(&case.expected).unwrap();
            for name in stale(&case, &tables) {
                fs::remove_file(case.expected.join(name)).unwrap();
            }
        } else if let Some(name) = stale(&case, &tables).first() {
            wrong.push(format!("{}: {name} belongs to no node", case.name));
        }
        for (file, text) in tables {
            let path = case.expected.join(&file);
            if update {
                fs::write(&path, &text).unwrap();
            }
            let expected = fs::read_to_string(&path).unwrap_or_default();
            if expected != text {
                let line = expected.lines().zip(text.lines()).position(|(a, b)| a != b);
                let line = line.unwrap_or_else(|| expected.lines().count().min(text.lines().count()));
                wrong.push(format!(
                    "{}/{file}:{}: expected {:?}, compiled {:?}",
                    case.name,
                    line + 1,
                    expected.lines().nth(line).unwrap_or("the end"),
                    text.lines().nth(line).unwrap_or("the end"),
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "rewrite with UPDATE_EXPECT=1 and review:\n{}", wrong.join("\n"));
}

fn stale(case: &Case, tables: &[(String, String)]) -> Vec<String> {
    let known: BTreeSet<&str> = tables.iter().map(|(file, _)| file.as_str()).collect();
    let Ok(entries) = fs::read_dir(&case.expected) else { return Vec::new() };
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.ends_with(".nft") && !known.contains(name.as_str())).collect()
}

#[test]
fn the_order_of_objects_does_not_matter() {
    for case in cases() {
        let mut loaded = case.load();
        let tables = case.tables(&loaded);
        loaded.objects.reverse();
        assert_eq!(case.tables(&loaded), tables, "{}", case.name);
    }
}

#[test]
fn nft_accepts_every_table() {
    for case in cases() {
        for (file, text) in case.tables(&case.load()) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join(&file);
            fs::write(&path, text).unwrap();
            let check = Command::new("unshare").args(["-rn", "nft", "-c", "-f"]).arg(&path).output().unwrap();
            let errors = String::from_utf8_lossy(&check.stderr);
            assert!(check.status.success(), "{}/{file}: {errors}", case.name);
        }
    }
}

#[test]
fn probes_come_out_as_stated() {
    let mut judged = 0;
    for case in cases() {
        let model = Model::new(&case.load().objects, Deny::default());
        let file = fs::File::open(case.manifests.join("probes.jsonl")).expect("every case states its probes");
        for probe in probes::read(BufReader::new(file)).unwrap() {
            let expected = probe.allowed.expect("every probe of a golden states what it expects");
            for route in probe.question(&model).unwrap().routes {
                let verdict = model.judge(&route.packet);
                assert_eq!(verdict.allowed(), expected, "{}: {probe}: {verdict:#?}", case.name);
                assert!(!verdict.disagrees(), "{}: {probe}: {verdict:#?}", case.name);
            }
            judged += 1;
        }
    }
    assert!(judged >= 100, "only {judged} probes were judged");
}
