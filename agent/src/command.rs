//! The commands, one module each, and what they share.

pub mod agent;
mod answer;
mod cleanup;
mod compile;
mod completions;
mod denials;
mod diff;
mod doctor;
mod explain;
mod flows;
mod groups;
mod input;
mod kubectl;
mod man;
mod matrix;
mod output;
mod status;
mod tether;
mod try_;

use std::process::ExitCode;

use crate::args::{Cli, Command};

/// How a command ended; the same numbers for all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Exit {
    /// Done.
    Done,
    /// A probe or a check came out other than expected.
    Unexpected,
    /// Bad input or usage.
    BadInput,
    /// The policy IR and the compiled table, or the kernel's, give different answers: a fault of postern.
    Disagreement,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(match exit {
            Exit::Done => 0,
            Exit::Unexpected => 1,
            Exit::BadInput => 2,
            Exit::Disagreement => 3,
        })
    }
}

/// Runs a command.
///
/// # Errors
/// What could not be done at all; the exit status is then 2.
pub fn run(cli: Cli) -> anyhow::Result<Exit> {
    match cli.command {
        Command::Agent(args) => agent::run(args.into()).map(|()| Exit::Done),
        Command::Try(args) => try_::run(args),
        Command::Compile(args) => compile::run(args),
        Command::Explain(args) => explain::run(args),
        Command::Matrix(args) => matrix::run(args, None),
        Command::Diff(args) => diff::run(args, None, None),
        Command::Denials(args) => denials::run(args),
        Command::Flows(args) => flows::run(args),
        Command::Doctor(args) => doctor::run(args),
        Command::Status(args) => status::run(args),
        Command::Kubectl(args) => kubectl::run(args),
        Command::Answer { admin_address } => answer::run(admin_address),
        Command::Cleanup => cleanup::run(),
        Command::Version => output::version(),
        Command::Completions { shell } => completions::run(shell),
        Command::Man { folder } => man::run(&folder),
    }
}
