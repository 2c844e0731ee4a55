//! How the agent of this machine is asked, and held against the table that the kernel holds.

use anyhow::Context as _;
use compiler::nft::Table;
use netlink::{Connection, Ownership};

use super::{Live, NO_COMMON_FAMILY, Unanswered};
use crate::explanation::{self, Asked, Explanation, stranger};
use crate::probes::Probe;

impl Live {
    /// Asks the agent, and holds what it says against the table that the kernel holds. A client that the agent does not
    /// know is looked up.
    pub(super) fn ask(&mut self, probe: &Probe) -> Result<Explanation, Unanswered> {
        match self.ask_agent(probe) {
            Err(Unanswered::NoSuchPod(name)) if is_named(&probe.src, &name) => {
                let (namespace, pod) = name.split_once('/').unwrap_or(("default", &name));
                let (addresses, node) = self.pod(namespace, pod, &[]).map_err(Unanswered::Reason)?;
                let mut last = Unanswered::Reason(format!("pod {name} has no address"));
                for address in addresses {
                    match self.ask_agent(&Probe { src: address.to_string(), ..probe.clone() }) {
                        Ok(mut part) => {
                            part.answer.src.clone_from(&probe.src);
                            part.ends[0] = format!("{name} ({address})");
                            part.elsewhere(node.as_ref(), 0);
                            return Ok(part);
                        }
                        Err(Unanswered::Reason(reason)) if reason.contains(NO_COMMON_FAMILY) => {
                            last = Unanswered::Reason(reason);
                        }
                        Err(other) => return Err(other),
                    }
                }
                Err(last)
            }
            answer => answer,
        }
    }

    fn ask_agent(&mut self, probe: &Probe) -> Result<Explanation, Unanswered> {
        // An agent that does not answer once is not asked again, but what is left of the probes has its lines.
        if let Some(failure) = &self.failure {
            return Err(Unanswered::Reason(failure.clone()));
        }
        let strangers = self.strangers.iter().filter_map(stranger::told).collect();
        let asked = Asked { probe: Probe { allowed: None, ..probe.clone() }, strangers };
        let answer = explanation::ask(self.agent, &asked)
            .with_context(|| format!("cannot ask the agent at {} (give -f to explain manifests)", self.agent));
        let mut part = match answer {
            Ok(Ok(part)) => part,
            Ok(Err(reason)) => {
                let missing = reason.strip_prefix("there is no pod ").and_then(|rest| rest.split(';').next());
                return Err(missing.map_or_else(
                    || Unanswered::Reason(reason.clone()),
                    |missing| Unanswered::NoSuchPod(missing.to_owned()),
                ));
            }
            Err(error) => {
                let text = format!("{error:#}");
                self.failure = Some(text.clone());
                return Err(Unanswered::Reason(text));
            }
        };
        if let Some(table) = &self.table {
            let sides = [&part.answer.egress, &part.answer.ingress].map(|side| side.allowed);
            part.disagrees |= sides.into_iter().zip(part.passes(table)).any(|(side, kernel)| kernel != Some(side));
        }
        Ok(part)
    }
}

/// What the kernel of this machine holds, to hold answers against; what hinders that is said on standard error.
pub fn kernels_table() -> Option<Table> {
    match Connection::open(Ownership::Plain).and_then(|mut connection| connection.dump()) {
        Ok(mirror) => mirror.table,
        Err(error) => {
            eprintln!("note: the kernel's table is not compared: {:#}", anyhow::Error::from(error));
            None
        }
    }
}

/// Whether a text is the name of this pod.
fn is_named(text: &str, pod: &str) -> bool {
    text == pod || format!("default/{text}") == pod
}
