//! The structure of the workspace: which crate may depend on which, and on what else it may not; that what
//! docs/operating.md says is tested has a test, and that links between pages lead somewhere.

#![allow(clippy::unwrap_used, reason = "a test that cannot set up its world has failed")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use integration::repository;
use serde_json::Value;

/// Each crate with the crates of the workspace that it may depend on.
const MAY_DEPEND_ON: [(&str, &[&str]); 5] = [
    ("compiler", &[]),
    ("netlink", &["compiler"]),
    ("lab", &[]),
    ("postern", &["compiler", "lab", "netlink"]),
    ("integration", &["compiler", "lab", "netlink", "postern"]),
];
/// What must not be known so far down: I/O, async, Kubernetes clients, logs.
const NOT_IN_COMPILER: [&str; 9] =
    ["tokio", "kube", "tracing", "libc", "nix", "rustix", "netlink-sys", "futures", "k8s-openapi"];
const NOT_IN_NETLINK: [&str; 4] = ["tokio", "kube", "tracing", "futures"];
/// Peers to be held against: under licences that the product must not link.
const ONLY_IN_TESTS: [&str; 2] = ["nftnl", "rustables"];

/// The dependencies of each package of the workspace that are not for its tests only.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml");
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1", "--manifest-path", manifest])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap().iter();
    packages
        .map(|package| {
            let dependencies = package["dependencies"].as_array().unwrap().iter();
            let names = dependencies.filter(|d| d["kind"].as_str() != Some("dev")).map(|d| d["name"].as_str().unwrap());
            (package["name"].as_str().unwrap().to_string(), names.map(str::to_string).collect())
        })
        .collect()
}

#[test]
fn crates_depend_on_each_other_in_one_direction() {
    let dependencies = dependencies();
    let crates: BTreeSet<&str> = dependencies.keys().map(String::as_str).collect();
    assert_eq!(crates, MAY_DEPEND_ON.iter().map(|(name, _)| *name).collect());
    for (name, allowed) in MAY_DEPEND_ON {
        let ours = dependencies[name].iter().map(String::as_str).filter(|d| crates.contains(d));
        let others: Vec<_> = ours.filter(|dependency| !allowed.contains(dependency)).collect();
        assert!(others.is_empty(), "{name} must not depend on {others:?}");
    }
}

/// The rows of the table below a heading of docs/operating.md, without its head, as cells.
fn rows(heading: &str) -> Vec<Vec<String>> {
    let text = fs::read_to_string(repository::root().join("docs/operating.md")).unwrap();
    let (_, below) = text.split_once(&format!("\n## {heading}\n")).unwrap();
    let table = below.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    let cells = |line: &str| line.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect();
    table.skip(2).map(cells).collect()
}

#[test]
fn every_path_has_its_hook_its_judge_and_a_test_that_exists() {
    let rows = rows("Paths");
    assert!(rows.len() > 10, "{rows:?}");
    for row in rows {
        let [path, hook, judge, tests] = &row[..] else { panic!("{row:?} has not four columns") };
        assert!(!path.is_empty() && !hook.is_empty() && !judge.is_empty(), "{row:?}");
        let named: Vec<&str> = tests.split('`').skip(1).step_by(2).collect();
        assert_eq!(named.is_empty(), tests == "-", "{path}: {tests} names no test, and `-` says that there is none");
        for test in named {
            let folders = ["agent/tests", "compiler/tests", "integration/tests"];
            let is_there = |folder| repository::root().join(folder).join(format!("{test}.rs")).exists();
            assert!(folders.into_iter().any(is_there), "{path}: there is no test {test}");
        }
    }
}

/// How GitHub names the place of a heading.
fn anchor(heading: &str) -> String {
    let kept = heading.to_lowercase();
    let kept = kept.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[test]
fn pages_lead_to_each_other() {
    let root = repository::root();
    let docs = fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let docs: Vec<PathBuf> = docs.filter(|path| path.extension().is_some_and(|extension| extension == "md")).collect();
    let readme = fs::read_to_string(root.join("README.md")).unwrap();
    for path in &docs {
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(readme.contains(&format!("(docs/{name})")), "the README does not lead to {name}");
    }
    for path in docs.iter().chain(&[root.join("README.md")]) {
        let text = fs::read_to_string(path).unwrap();
        let links = text.split("](").skip(1).map(|rest| rest.split(')').next().unwrap());
        for link in links.filter(|link| !link.starts_with("http")) {
            let (file, place) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { path.clone() } else { path.parent().unwrap().join(file) };
            let target_text = fs::read_to_string(&target).unwrap_or_else(|_| panic!("{path:?} leads to {link}"));
            let headings = target_text.lines().filter_map(|line| line.strip_prefix('#'));
            let mut anchors = headings.map(|heading| anchor(heading.trim_start_matches('#').trim_start()));
            assert!(place.is_empty() || anchors.any(|anchor| anchor == place), "{path:?} leads to {link}");
        }
    }
}

#[test]
fn effects_stay_in_the_crates_that_are_for_them() {
    let dependencies = dependencies();
    for (name, forbidden) in [("compiler", &NOT_IN_COMPILER[..]), ("netlink", &NOT_IN_NETLINK)] {
        for dependency in forbidden {
            assert!(!dependencies[name].contains(*dependency), "{name} must not depend on {dependency}");
        }
    }
    for (name, dependencies) in &dependencies {
        for peer in ONLY_IN_TESTS {
            assert!(!dependencies.contains(peer), "{name} must not link {peer}");
        }
    }
}
