//! `postern kubectl`, and so `kubectl postern`: what the other commands say of one node, said of the cluster.
//!
//! It is the same binary, so that there is one version to compare with, and a file less to install: it runs in the agents'
//! pods what it is itself.

mod doctor;
mod each;
mod fleet;
mod status;
mod traffic;

use super::{Exit, diff, explain, matrix};
use crate::args::{FleetDiffArgs, KubectlArgs, KubectlCommand};
use crate::live::{Everywhere, Live};
use fleet::Fleet;

pub(super) fn run(args: KubectlArgs) -> anyhow::Result<Exit> {
    let KubectlArgs { agents, command } = args;
    match command {
        KubectlCommand::Explain(question) => explain::ask(question, || {
            let Fleet { mut lookup, agents, patience } = Fleet::find(&agents)?;
            let everywhere = Everywhere::new(&mut lookup, agents, patience).map_err(anyhow::Error::msg)?;
            Ok(Live::everywhere(everywhere, lookup))
        }),
        KubectlCommand::Denials(filter) => each::denials(&mut Fleet::find(&agents)?, &filter),
        KubectlCommand::Flows(filter) => each::flows(&mut Fleet::find(&agents)?, &filter),
        KubectlCommand::Doctor { output } => doctor::run(&mut Fleet::find(&agents)?, output),
        KubectlCommand::Status(args) => status::run(&mut Fleet::find(&agents)?, &args),
        KubectlCommand::Matrix(args) => matrix::run(args, Some(agents.way())),
        KubectlCommand::Diff(FleetDiffArgs { diff: args, traffic }) => {
            let mut ask = || traffic::traffic(&mut Fleet::find(&agents)?);
            diff::run(args, Some(agents.way()), if traffic { Some(&mut ask) } else { None })
        }
    }
}
