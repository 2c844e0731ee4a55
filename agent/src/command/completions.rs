//! `postern completions`: what a shell needs to complete our command line.

use std::io;

use clap::CommandFactory as _;

use super::Exit;
use crate::args::Cli;

pub(super) fn run(shell: clap_complete::Shell) -> anyhow::Result<Exit> {
    clap_complete::generate(shell, &mut Cli::command(), "postern", &mut io::stdout());
    Ok(Exit::Done)
}
