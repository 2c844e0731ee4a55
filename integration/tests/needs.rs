//! What a machine must have: `.ci/needs` against what the code, the scripts and the Makefile run, and `.ci/setup` on a
//! machine that has nothing.

#![allow(clippy::unwrap_used, reason = "a test that cannot set up its world has failed")]

#[path = "needs/list.rs"]
mod list;
#[path = "needs/shell.rs"]
mod shell;
#[path = "needs/source.rs"]
mod source;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use integration::repository;
use list::{Kind, Need};

/// Run by cargo and by people, and, busybox, by the emulated machine.
const RUN_BY_OTHERS: [&str; 6] = ["busybox", "cargo-clippy", "cargo-fmt", "cc", "make", "pkg-config"];
/// What .ci/setup is made of.
const OF_THE_SCRIPTS: [&str; 7] = ["bash", "dirname", "env", "head", "id", "sed", "sort"];

/// A program that a file runs.
struct Use {
    file: String,
    program: String,
    /// The purposes for which the file is there, as the list calls them.
    purposes: &'static [&'static str],
}

fn uses() -> Vec<Use> {
    let root = repository::root();
    let mut uses = Vec::new();
    let mut add = |path: &Path, programs: Vec<String>, purposes| {
        let file = path.strip_prefix(root).unwrap().display().to_string();
        uses.extend(programs.into_iter().map(|program| Use { file: file.clone(), program, purposes }));
    };
    for folder in ["agent", "compiler", "integration"] {
        for path in files_below(&root.join(folder)) {
            let programs = match path.extension().and_then(|extension| extension.to_str()) {
                Some("rs") => source::run_by_rust(&path.display().to_string(), &fs::read_to_string(&path).unwrap()),
                Some("go") => source::run_by_go(&path.display().to_string(), &fs::read_to_string(&path).unwrap()),
                _ => continue,
            };
            add(&path, programs, &["test"]);
        }
    }
    for path in files_below(&root.join(".ci")) {
        let purposes: &[&str] = match path.file_name().unwrap().to_str().unwrap() {
            "needs" => continue,
            "boot" | "guest" | "kernels" => &["test", "kernels"],
            _ => &["test"],
        };
        add(&path, shell::run_by_script(&fs::read_to_string(&path).unwrap()), purposes);
    }
    let makefile = root.join("Makefile");
    let recipes = shell::recipes(&fs::read_to_string(&makefile).unwrap());
    add(&makefile, shell::run_by_script(&recipes), &["test", "kernels", "fuzz"]);
    uses
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true if path.ends_with("target") => {}
            true => files.extend(files_below(&path)),
            false => files.push(path),
        }
    }
    files
}

#[test]
fn every_program_that_is_run_is_listed() {
    let needs = list::read();
    let is_listed = |used: &Use| {
        needs.iter().any(|need| {
            need.kind != Kind::File && need.what == used.program && used.purposes.contains(&need.purpose.as_str())
        })
    };
    let unlisted: Vec<_> = uses()
        .iter()
        .filter(|used| !is_listed(used))
        .map(|used| format!("{} runs {}", used.file, used.program))
        .collect();
    assert!(unlisted.is_empty(), ".ci/needs does not list for its purpose what\n{}", unlisted.join("\n"));
}

#[test]
fn every_program_that_is_listed_is_run() {
    let used: BTreeSet<String> = uses().into_iter().map(|used| used.program).collect();
    let needs = list::read();
    let programs = needs.iter().filter(|need| need.kind != Kind::File).map(|need| need.what.as_str());
    let idle: Vec<&str> =
        programs.filter(|program| !used.contains(*program) && !RUN_BY_OTHERS.contains(program)).collect();
    assert!(idle.is_empty(), "nothing runs {idle:?} of .ci/needs");
}

#[test]
fn contributing_names_the_packages_of_each_distribution() {
    let text = fs::read_to_string(repository::root().join("CONTRIBUTING.md")).unwrap();
    let table = list::table(&list::read());
    assert!(text.contains(&table), "CONTRIBUTING.md does not have the packages of .ci/needs:\n{table}");
}

/// Runs `.ci/setup` with a path on which is only what the scripts themselves are made of, and a package manager if there
/// is to be one. Gives what it says.
fn setup_without_programs(package_manager: Option<&str>) -> String {
    let path = tempfile::tempdir().unwrap();
    let folders = std::env::var_os("PATH").unwrap();
    for program in OF_THE_SCRIPTS {
        let found = std::env::split_paths(&folders).map(|folder| folder.join(program)).find(|file| file.exists());
        symlink(found.unwrap(), path.path().join(program)).unwrap();
    }
    if let Some(script) = package_manager {
        for program in ["apt-get", "sudo"] {
            fs::write(path.path().join(program), script).unwrap();
            fs::set_permissions(path.path().join(program), fs::Permissions::from_mode(0o755)).unwrap();
        }
    }
    let output = Command::new(repository::root().join(".ci/setup"))
        .env("PATH", path.path())
        .env("CARGO_TARGET_DIR", path.path().join("target"))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(!output.status.success());
    assert!(!path.path().join("target").exists(), "it builds although something is missing");
    String::from_utf8(output.stderr).unwrap()
}

/// The programs for the tests that only the path leads to.
fn programs(needs: &[Need]) -> impl Iterator<Item = &Need> {
    let needs = needs.iter().filter(|need| need.purpose == "test" && need.kind != Kind::File);
    needs.filter(|need| !Path::new("/usr/sbin").join(&need.what).exists())
}

#[test]
fn all_that_is_missing_is_named_at_once_before_anything_is_built() {
    let said = setup_without_programs(None);
    let needs = list::read();
    for need in programs(&needs) {
        let is_there = OF_THE_SCRIPTS.contains(&need.what.as_str());
        assert_eq!(said.contains(&format!("setup:   {} (", need.what)), !is_there, "{}:\n{said}", need.what);
    }
    assert!(said.contains("setup:   cargo (") && said.contains("setup:   go ("), "{said}");
}

#[test]
fn packages_that_cannot_be_installed_are_named_with_the_rest() {
    let without_network = "#!/usr/bin/env bash\necho \"$0 fails\" >&2\nexit 100\n";
    let said = setup_without_programs(Some(without_network));
    assert!(said.contains("apt-get fails") || said.contains("sudo fails"), "nothing was to be installed:\n{said}");
    assert!(said.contains("setup:   make (") && said.contains("setup:   cargo ("), "{said}");
}
