//! The `postern` command.

use std::process::ExitCode;

use postern::args::Cli;
use postern::command::{self, Exit};
use postern::telemetry;

fn main() -> ExitCode {
    let cli = Cli::read(std::env::args_os()).unwrap_or_else(|error| error.exit());
    match command::run(cli) {
        Ok(exit) => exit.into(),
        // Whoever reads our output has read enough, as `head` does.
        Err(error) if is_broken_pipe(&error) => Exit::Done.into(),
        Err(error) => {
            telemetry::last_words(&format!("error: {error:#}"));
            Exit::BadInput.into()
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.downcast_ref::<std::io::Error>().is_some_and(|cause| cause.kind() == std::io::ErrorKind::BrokenPipe)
    })
}
