//! Agents of other nodes, asked by a program in their pods: what `kubectl exec` does, with the same rights and no port open.

mod conversation;

use std::fmt::Display;
use std::io;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use kube::api::{AttachParams, AttachedProcess};
use kube::{Api, Client};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, BufReader};
use tokio::time::timeout;

use crate::lookup::{AgentPod, Missing};

pub(crate) use conversation::{Conversation, Hello, Reply};

/// How much of a stream may wait to be read.
const BUFFER: usize = 64 * 1024;
/// The most that is read of a program that ends by itself: the flows of a large node.
const LONGEST: u64 = 256 * 1024 * 1024;

/// What a program says while it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Said {
    /// A line for its user.
    Line(String),
    /// A line on standard error.
    Aside(String),
    /// The exit status, or why there is none.
    End(Result<i32, String>),
}

/// Runs a program in an agent's pod, and tells what it says, to the end. Without `patience` for its end it may go on for
/// ever, and has that time to begin.
pub(crate) async fn run(
    client: Client,
    agent: AgentPod,
    words: Vec<String>,
    patience: Duration,
    is_endless: bool,
    told: impl Fn(Said),
) {
    let ended = if is_endless {
        match timeout(patience, start(&client, &agent, words)).await {
            Ok(Ok(process)) => listen(process, u64::MAX, &told).await,
            Ok(Err(missing)) => Err(missing.to_string()),
            Err(_) => Err(Missing::in_time(patience).to_string()),
        }
    } else {
        let whole = async {
            let process = start(&client, &agent, words).await.map_err(|missing| missing.to_string())?;
            listen(process, LONGEST, &told).await
        };
        timeout(patience, whole).await.unwrap_or_else(|_| Err(Missing::in_time(patience).to_string()))
    };
    told(Said::End(ended));
}

/// Starts a program in an agent's pod. Its standard input stays open as long as the process is held, and it may end itself
/// when that closes: a container runtime ends no program whose caller has gone.
async fn start(client: &Client, agent: &AgentPod, words: Vec<String>) -> Result<AttachedProcess, Missing> {
    let streams = AttachParams::default().container(&agent.container).stdin(true).stdout(true).stderr(true);
    let streams = streams.max_stdin_buf_size(BUFFER).max_stdout_buf_size(BUFFER).max_stderr_buf_size(BUFFER);
    let pods: Api<Pod> = Api::namespaced(client.clone(), &agent.namespace);
    pods.exec(&agent.name, words, &streams).await.map_err(|error| Missing::of_exec(&error, &agent.namespace))
}

/// Reads both streams, as a program that is not read waits, and returns the exit status.
async fn listen(mut process: AttachedProcess, longest: u64, told: &impl Fn(Said)) -> Result<i32, String> {
    let status = process.take_status();
    let (stdout, stderr) = (process.stdout(), process.stderr());
    let lines = each_line(stdout, longest, |line| told(Said::Line(line)));
    let asides = each_line(stderr, longest, |line| told(Said::Aside(line)));
    let (lines, asides) = futures::join!(lines, asides);
    lines.and(asides).map_err(|error| unread(&error))?;
    let status = match status {
        Some(status) => status.await,
        None => None,
    };
    status.as_ref().map_or_else(|| Err("the connection ended before the program did".to_owned()), code)
}

async fn each_line(stream: Option<impl AsyncRead + Unpin>, longest: u64, told: impl Fn(String)) -> io::Result<()> {
    let Some(stream) = stream else { return Ok(()) };
    let mut lines = BufReader::new(stream.take(longest)).lines();
    while let Some(line) = lines.next_line().await? {
        told(line);
    }
    Ok(())
}

/// The exit status in what kubelet says of a program's end.
fn code(status: &Status) -> Result<i32, String> {
    if status.status.as_deref() == Some("Success") {
        return Ok(0);
    }
    let causes = status.details.iter().flat_map(|details| details.causes.iter().flatten());
    let mut codes = causes.filter(|cause| cause.reason.as_deref() == Some("ExitCode"));
    let code = codes.find_map(|cause| cause.message.as_ref()?.parse().ok());
    code.ok_or_else(|| status.message.clone().unwrap_or_else(|| "it ended, and nobody says how".to_owned()))
}

fn unread(error: &impl Display) -> String {
    format!("the connection broke: {error}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(status: serde_json::Value) -> Result<i32, String> {
        code(&serde_json::from_value(status).unwrap())
    }

    #[test]
    fn a_status_is_an_exit_status() {
        assert_eq!(of(json!({"status": "Success"})), Ok(0));
        let failed = json!({"status": "Failure", "reason": "NonZeroExitCode", "message": "command terminated",
            "details": {"causes": [{"reason": "ExitCode", "message": "3"}]}});
        assert_eq!(of(failed), Ok(3));
        let missing = json!({"status": "Failure", "reason": "InternalError", "message": "no such file"});
        assert_eq!(of(missing), Err("no such file".to_owned()));
    }
}
