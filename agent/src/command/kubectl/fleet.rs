//! The agents that are asked, all at once.

use std::cell::RefCell;
use std::time::Duration;

use anyhow::{Result, ensure};
use futures::StreamExt as _;
use futures::stream;
use tokio::sync::Notify;

use crate::args::AgentsArgs;
use crate::lookup::{AgentPod, Agents, Lookup};
use crate::model::nearest;
use crate::remote::{self, Said};

/// How many agents are asked at the same time, of programs that end.
const AT_ONCE: usize = 64;

/// The agents that are asked, and the way to them.
pub(super) struct Fleet {
    pub(super) lookup: Lookup,
    pub(super) agents: Agents,
    pub(super) patience: Duration,
}

impl Fleet {
    /// Finds them.
    pub(super) fn find(args: &AgentsArgs) -> Result<Fleet> {
        let mut lookup = Lookup::by(args.way())?;
        let found = lookup.agents(&args.agent_namespace);
        let mut agents = found.map_err(|missing| anyhow::anyhow!("the agents cannot be found: {missing}"))?;
        for node in &args.nodes {
            let near = || nearest(node, agents.keys().cloned());
            ensure!(agents.contains_key(node), "there is no node {node}{}", near());
        }
        agents.retain(|node, _| args.nodes.is_empty() || args.nodes.contains(node));
        Ok(Fleet { lookup, agents, patience: Duration::from_secs(args.timeout) })
    }

    /// How wide a column of their nodes is.
    pub(super) fn width(&self) -> usize {
        self.agents.keys().map(String::len).max().unwrap_or_default()
    }

    /// Runs a program in each agent's pod, and hears what they say as it comes. The last word of each node is
    /// [`Said::End`], also where nothing can be run.
    pub(super) fn each(
        &mut self,
        words: impl Fn(&AgentPod) -> Vec<String>,
        is_endless: bool,
        heard: impl FnMut(&str, Said) -> Result<()>,
    ) -> Result<()> {
        let Fleet { lookup, agents, patience } = self;
        let (runtime, client) =
            lookup.streaming().map_err(|missing| anyhow::anyhow!("the agents cannot be asked: {missing}"))?;
        // All that is heard is heard on this thread.
        let (heard, failure, stop) = (RefCell::new(heard), RefCell::new(None), Notify::new());
        let hear = |node: &str, said| {
            if let Err(error) = (heard.borrow_mut())(node, said) {
                failure.borrow_mut().get_or_insert(error);
                stop.notify_one();
            }
        };
        let asking =
            stream::iter(agents.iter()).for_each_concurrent((!is_endless).then_some(AT_ONCE), |(node, agent)| {
                let (client, hear, patience) = (client.clone(), &hear, *patience);
                let asked = agent.as_ref().map(|agent| (agent.clone(), words(agent)));
                async move {
                    match asked {
                        Ok((agent, words)) => {
                            remote::run(client, agent, words, patience, is_endless, |said| hear(node, said)).await;
                        }
                        Err(reason) => hear(node, Said::End(Err(reason.clone()))),
                    }
                }
            });
        runtime.block_on(async {
            tokio::select! {
                () = asking => {}
                // Nobody listens any more.
                () = stop.notified() => {}
            }
        });
        failure.into_inner().map_or(Ok(()), Err)
    }
}
