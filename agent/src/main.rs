//! The `postern` command.

use std::process::ExitCode;

use clap::Parser as _;
use postern::args::Cli;
use postern::command::{self, Exit};

fn main() -> ExitCode {
    match command::run(Cli::parse()) {
        Ok(exit) => exit.into(),
        Err(error) => {
            eprintln!("error: {error:#}");
            Exit::BadInput.into()
        }
    }
}
