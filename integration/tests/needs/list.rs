//! Reads `.ci/needs`.

use std::collections::BTreeSet;
use std::fs;

use integration::repository;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Program,
    File,
    Tool,
}

/// One thing that is needed.
pub(crate) struct Need {
    pub(crate) purpose: String,
    pub(crate) kind: Kind,
    pub(crate) what: String,
    /// The names of its package in Debian, Fedora and Arch, where they have one.
    pub(crate) packages: [Option<String>; 3],
}

pub(crate) fn read() -> Vec<Need> {
    let text = fs::read_to_string(repository::root().join(".ci/needs")).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.flat_map(needs).collect()
}

fn needs(line: &str) -> Vec<Need> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let [purpose, kind, all, debian, fedora, arch] = fields[..] else { panic!("{line:?} has not six columns") };
    assert!(["test", "kernels", "fuzz"].contains(&purpose), "{line:?} is for nothing known");
    let kind = match kind {
        "program" => Kind::Program,
        "file" => Kind::File,
        "tool" => Kind::Tool,
        kind => panic!("{kind} is no kind of thing"),
    };
    let packages = [debian, fedora, arch].map(|package| (package != "-").then(|| package.to_owned()));
    all.split(',')
        .map(|what| Need { purpose: purpose.to_owned(), kind, what: what.to_owned(), packages: packages.clone() })
        .collect()
}

/// The packages as CONTRIBUTING.md shows them: a row for each distribution.
pub(crate) fn table(needs: &[Need]) -> String {
    let packages = |purpose: &str, distribution: usize| {
        let needs = needs.iter().filter(|need| need.purpose == purpose && need.kind != Kind::Tool);
        let packages: BTreeSet<&str> = needs.filter_map(|need| need.packages[distribution].as_deref()).collect();
        packages.into_iter().collect::<Vec<_>>().join(" ")
    };
    let rows = ["Debian", "Fedora", "Arch"].iter().enumerate();
    let rows: String = rows
        .map(|(index, name)| format!("| {name} | {} | {} |\n", packages("test", index), packages("kernels", index)))
        .collect();
    format!("| | `make test` | `make kernels` besides |\n|---|---|---|\n{rows}")
}
