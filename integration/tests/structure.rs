//! The structure of the workspace: which crate may depend on which, and on what else it may not.

#![allow(clippy::unwrap_used, reason = "a test that cannot set up its world has failed")]

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

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
