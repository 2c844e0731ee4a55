//! The agent of this machine, asked over loopback, and held against the table that the kernel holds.

use std::net::SocketAddr;

use anyhow::Context as _;
use compiler::nft::Table;
use netlink::{Connection, Ownership};

use crate::explanation::{self, Asked};
use crate::remote::Reply;

/// The agent of this machine.
pub(crate) struct Here {
    agent: SocketAddr,
    /// What the kernel of this machine holds, if it can be read.
    table: Option<Table>,
    /// Why the agent is not asked any more.
    failure: Option<String>,
}

impl Here {
    pub(crate) fn new(agent: SocketAddr, table: Option<Table>) -> Here {
        Here { agent, table, failure: None }
    }

    /// Asks the agent, and holds what it says against the table.
    pub(crate) fn ask(&mut self, asked: &Asked) -> Reply {
        // An agent that does not answer once is not asked again, but what is left of the probes has its lines.
        if let Some(failure) = &self.failure {
            return Reply::Reason(failure.clone());
        }
        let answer = explanation::ask(self.agent, asked)
            .with_context(|| format!("cannot ask the agent at {} (give -f to explain manifests)", self.agent));
        let mut part = match answer {
            Ok(Ok(part)) => part,
            Ok(Err(reason)) => {
                let missing = reason.strip_prefix("there is no pod ").and_then(|rest| rest.split(';').next());
                return missing.map(|missing| Reply::NoSuchPod(missing.to_owned())).unwrap_or(Reply::Reason(reason));
            }
            Err(error) => {
                let text = format!("{error:#}");
                self.failure = Some(text.clone());
                return Reply::Reason(text);
            }
        };
        if let Some(table) = &self.table {
            let sides = [&part.answer.egress, &part.answer.ingress].map(|side| side.allowed);
            part.disagrees |= sides.into_iter().zip(part.passes(table)).any(|(side, kernel)| kernel != Some(side));
        }
        Reply::Explanation(Box::new(part))
    }
}

/// What the kernel of this machine holds, to hold answers against.
///
/// # Errors
///
/// In words, what hinders that.
pub fn kernels_table() -> Result<Option<Table>, String> {
    match Connection::open(Ownership::Plain).and_then(|mut connection| connection.dump()) {
        Ok(mirror) => Ok(mirror.table),
        Err(error) => Err(format!("the kernel's table is not compared: {:#}", anyhow::Error::from(error))),
    }
}
