//! `postern man`: the pages of the manual, a file for each command.

use std::fs;
use std::path::Path;

use anyhow::Context as _;
use clap::CommandFactory as _;

use super::Exit;
use crate::args::Cli;

pub(super) fn run(folder: &Path) -> anyhow::Result<Exit> {
    let write = || {
        fs::create_dir_all(folder)?;
        clap_mangen::generate_to(Cli::command(), folder)
    };
    write().with_context(|| format!("cannot write the pages to {}", folder.display()))?;
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::Command;

    use super::*;

    /// The names of the pages of a command and of those below it.
    fn pages(command: &Command, name: &str, into: &mut BTreeSet<String>) {
        into.insert(format!("{name}.1"));
        for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
            pages(below, &format!("{name}-{}", below.get_name()), into);
        }
    }

    #[test]
    fn every_command_has_its_page() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("man1");
        run(&folder).unwrap();
        let written: BTreeSet<String> =
            fs::read_dir(&folder).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
        let mut expected = BTreeSet::new();
        pages(&Cli::command(), "postern", &mut expected);
        assert_eq!(written, expected);
        assert!(written.contains("postern-kubectl-explain.1") && !written.contains("postern-answer.1"));
        let explain = fs::read_to_string(folder.join("postern-explain.1")).unwrap();
        for part in [r"\-\-trace", "Examples:", "shop/web svc/shop/db 5432/TCP", "yaml"] {
            assert!(explain.contains(part), "{part}: {explain}");
        }
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = run(file.path()).unwrap_err();
        assert!(format!("{error:#}").contains("cannot write the pages to"), "{error:#}");
    }
}
