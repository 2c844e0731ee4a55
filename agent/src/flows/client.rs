//! The questions to an agent.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Asked, JUDGE_PATH, Judged, SCOPE_PATH, Scope, Wanted};

/// How long an agent may take. It takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);

/// A way to the agent of this node.
pub struct Client {
    agent: SocketAddr,
    http: ureq::Agent,
}

impl Client {
    /// Asks the agent that serves here.
    pub fn new(agent: SocketAddr) -> Client {
        let config = ureq::Agent::config_builder().timeout_global(Some(PATIENCE)).http_status_as_error(false).build();
        Client { agent, http: ureq::Agent::new_with_config(config) }
    }

    /// Whose flows are meant.
    ///
    /// # Errors
    ///
    /// If no agent answers, or there is nothing of a name that is wanted.
    pub fn scope(&self, wanted: &Wanted) -> anyhow::Result<Scope> {
        self.ask(SCOPE_PATH, wanted)
    }

    /// What the agent thinks of flows.
    ///
    /// # Errors
    ///
    /// If no agent answers.
    pub fn judge(&self, asked: &Asked) -> anyhow::Result<Vec<Judged>> {
        self.ask(JUDGE_PATH, asked)
    }

    fn ask<T: DeserializeOwned>(&self, path: &str, question: &impl Serialize) -> anyhow::Result<T> {
        let send = || -> anyhow::Result<(u16, String)> {
            let mut response =
                self.http.post(format!("http://{}{path}", self.agent)).send(serde_json::to_string(question)?)?;
            Ok((response.status().as_u16(), response.body_mut().read_to_string()?))
        };
        let cannot = || format!("cannot ask the agent at {}", self.agent);
        let (status, text) = send().with_context(cannot)?;
        match status {
            200 => serde_json::from_str(&text).with_context(cannot),
            // Its own words.
            400 => Err(anyhow::Error::msg(text.trim_end().to_owned())),
            404 => Err(anyhow::anyhow!("it knows no {path}: it is of another version")).with_context(cannot),
            status => Err(anyhow::anyhow!("it answers {status}: {}", text.trim_end())).with_context(cannot),
        }
    }
}
