//! Many questions to one agent: a program in its pod that answers each line with a line.

use std::time::Duration;

use kube::Client;
use kube::api::AttachedProcess;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader, Lines};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::time::timeout;

use super::{start, unread};
use crate::explanation::{Asked, Explanation};
use crate::lookup::{AgentPod, Missing};

/// How much of what a program says on standard error is kept.
const LONGEST_ASIDE: u64 = 4096;

/// The first line of who answers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hello {
    /// Its version.
    pub(crate) version: String,
    /// What its answers lack.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) note: Option<String>,
}

/// The answer to a question.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Reply {
    /// The probe, judged.
    Explanation(Box<Explanation>),
    /// It knows no such pod.
    NoSuchPod(String),
    /// It says why there is no answer; or there is no agent.
    Reason(String),
}

/// A program that answers questions in an agent's pod. It ends when this is dropped.
pub(crate) struct Conversation {
    hello: Hello,
    questions: Box<dyn AsyncWrite + Send + Unpin>,
    answers: Lines<BufReader<Box<dyn AsyncRead + Send + Unpin>>>,
    /// Dropping it ends the connection.
    _process: AttachedProcess,
}

impl Conversation {
    /// Begins one, within this time.
    ///
    /// # Errors
    ///
    /// In words, if the program does not start, or does not know what is wanted of it.
    pub(crate) async fn begin(client: &Client, agent: &AgentPod, patience: Duration) -> Result<Conversation, String> {
        let begun = async {
            let words = agent.command("answer", &["--admin-address"], []);
            let mut process = start(client, agent, words).await.map_err(|missing| missing.to_string())?;
            let (Some(stdin), Some(stdout), Some(stderr)) = (process.stdin(), process.stdout(), process.stderr())
            else {
                return Err("the program has no streams".to_owned());
            };
            let aside = tokio::spawn(async move {
                let mut said = String::new();
                // What it says is of use where it says nothing else; a broken stream shows there too.
                let _ = stderr.take(LONGEST_ASIDE).read_to_string(&mut said).await;
                said
            });
            let stdout: Box<dyn AsyncRead + Send + Unpin> = Box::new(stdout);
            let mut answers = BufReader::new(stdout).lines();
            let Some(hello) = answers.next_line().await.map_err(|error| unread(&error))? else {
                let said = aside.await.unwrap_or_default();
                let said = said.lines().next().unwrap_or("it ends at once");
                return Err(format!("it is of another version, or no agent: {said}"));
            };
            let hello = serde_json::from_str(&hello).map_err(|_| "it is of another version, or no agent".to_owned())?;
            Ok(Conversation { hello, questions: Box::new(stdin), answers, _process: process })
        };
        timeout(patience, begun).await.unwrap_or_else(|_| Err(Missing::in_time(patience).to_string()))
    }

    /// Who answers.
    pub(crate) fn hello(&self) -> &Hello {
        &self.hello
    }

    /// Asks a question. After an error the next answer may be that to this one.
    ///
    /// # Errors
    ///
    /// In words, if there is no answer in time, or none in our language.
    pub(crate) async fn ask(&mut self, asked: &Asked, patience: Duration) -> Result<Reply, String> {
        let line = serde_json::to_string(asked).map_err(|error| error.to_string())? + "\n";
        let answered = async {
            self.questions.write_all(line.as_bytes()).await?;
            self.questions.flush().await?;
            self.answers.next_line().await
        };
        let answer = timeout(patience, answered).await.map_err(|_| Missing::in_time(patience).to_string())?;
        let answer = answer.map_err(|error| unread(&error))?.ok_or("it ended before it answered")?;
        serde_json::from_str(&answer)
            .map_err(|_| format!("it is of another version ({}), and answers otherwise", self.hello.version))
    }
}
