//! How agents are asked: that of this machine, or those of the nodes on which both ends are.

use super::{Live, NO_COMMON_FAMILY, Who};
use crate::explanation::{Asked, Explanation, stranger};
use crate::probes::Probe;
use crate::remote::Reply;

/// Why there is no answer.
pub(super) enum Unanswered {
    /// Nobody knows such a pod.
    NoSuchPod(String),
    /// In words.
    Reason(String),
}

impl Live {
    /// Asks. A client that the agent of this machine does not know is looked up.
    pub(super) fn ask(&mut self, probe: &Probe) -> Result<Explanation, Unanswered> {
        match self.ask_agent(probe) {
            Err(Unanswered::NoSuchPod(name)) if self.is_here() && is_named(&probe.src, &name) => {
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
        let strangers = self.strangers.iter().filter_map(stranger::told).collect();
        let asked = Asked { probe: Probe { allowed: None, ..probe.clone() }, strangers };
        match &mut self.who {
            Who::Here(here) => here.ask(&asked).into(),
            Who::Everywhere(everywhere) => everywhere.ask(&mut self.lookup, &asked.probe),
        }
    }

    fn is_here(&self) -> bool {
        match self.who {
            Who::Here(_) => true,
            Who::Everywhere(_) => false,
        }
    }
}

impl From<Reply> for Result<Explanation, Unanswered> {
    fn from(reply: Reply) -> Self {
        match reply {
            Reply::Explanation(part) => Ok(*part),
            Reply::NoSuchPod(name) => Err(Unanswered::NoSuchPod(name)),
            Reply::Reason(reason) => Err(Unanswered::Reason(reason)),
        }
    }
}

impl Unanswered {
    pub(super) fn into_words(self) -> String {
        match self {
            Unanswered::NoSuchPod(name) => format!("there is no pod {name}"),
            Unanswered::Reason(reason) => reason,
        }
    }
}

/// Whether a text is the name of this pod.
fn is_named(text: &str, pod: &str) -> bool {
    text == pod || format!("default/{text}") == pod
}
