//! The agent through its lives, each a process whose log goes through a pipe that can be stalled.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, PipeReader, pipe};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::agent::Agent;
use crate::denials;

/// How much of the log is kept, to be shown when something goes wrong.
const KEPT_LINES: usize = 300;
/// What the log's pipe holds: a page, which is some lines.
const PIPE_SIZE: i32 = 4096;

/// The agent, of which there may be none at the moment.
pub(super) struct Lives {
    kubeconfig: PathBuf,
    agent: Option<Agent>,
    log: Log,
    /// How many there have been.
    pub(super) count: usize,
    /// Transactions that the kernel has taken, as far as the agents of the past have said.
    commits: u64,
}

/// What reads the log.
#[derive(Clone, Default)]
struct Log {
    lines: Arc<Mutex<VecDeque<String>>>,
    is_stalled: Arc<AtomicBool>,
}

// === impl Lives ===

impl Lives {
    /// None so far.
    pub(super) fn new(kubeconfig: PathBuf) -> Lives {
        Lives { kubeconfig, agent: None, log: Log::default(), count: 0, commits: 0 }
    }

    /// Begins the next one.
    ///
    /// # Errors
    ///
    /// If the process cannot be started.
    pub(super) fn begin(&mut self) -> Result<()> {
        let (reader, writer) = pipe()?;
        fcntl(&writer, FcntlArg::F_SETPIPE_SZ(PIPE_SIZE))?;
        self.log.keep(reader)?;
        let kubeconfig = self.kubeconfig.to_str().context("the path is text")?;
        self.agent = Some(Agent::start_with_log(&["--kubeconfig", kubeconfig], writer)?);
        self.count += 1;
        Ok(())
    }

    /// The one that lives.
    ///
    /// # Errors
    ///
    /// If none does.
    pub(super) fn agent(&mut self) -> Result<&mut Agent> {
        self.agent.as_mut().context("no agent runs")
    }

    /// Kills it as the kernel does when memory is short: it can do nothing more.
    ///
    /// # Errors
    ///
    /// If none lives.
    pub(super) async fn kill(&mut self) -> Result<()> {
        self.commits = self.commits().await?;
        // Dropping it kills it.
        self.agent.take().map(drop).context("no agent runs")
    }

    /// Ends it as a rollout does.
    ///
    /// # Errors
    ///
    /// If it does not end, or ends with an error.
    pub(super) async fn terminate(&mut self) -> Result<()> {
        self.commits = self.commits().await?;
        self.agent.take().context("no agent runs")?.terminate()?;
        Ok(())
    }

    /// Sends a signal.
    ///
    /// # Errors
    ///
    /// If none lives.
    pub(super) fn signal(&mut self, signal: Signal) -> Result<()> {
        let id = self.agent()?.id();
        Ok(kill(Pid::from_raw(id.try_into()?), signal)?)
    }

    /// How many transactions the kernel has taken from all of them.
    ///
    /// # Errors
    ///
    /// If the one that lives does not answer.
    pub(super) async fn commits(&mut self) -> Result<u64> {
        let before = self.commits;
        let (_, metrics) = self.agent()?.get("/metrics").await?;
        let of_this = metrics.lines().find_map(|line| line.strip_prefix("postern_commits_total{result=\"ok\"} "));
        Ok(before + of_this.map_or(Ok(0), str::parse)?)
    }

    /// Lets the log pile up, or takes it again.
    pub(super) fn stall_log(&self, is_stalled: bool) {
        self.log.is_stalled.store(is_stalled, Ordering::SeqCst);
    }

    /// What the one that lives was told of refused packets, if one does and answers.
    pub(super) fn denials(&self) -> String {
        let told = self.agent.as_ref().and_then(|agent| denials::run(&agent.socket(), &[]).ok());
        told.map(|(_, told, _)| told).unwrap_or_default()
    }

    /// The end of the log.
    pub(super) fn log(&self) -> String {
        let lines = self.log.lines.lock().expect("nobody panics with the lock held");
        lines.iter().map(String::as_str).collect::<Vec<_>>().join("\n")
    }
}

// === impl Log ===

impl Log {
    /// Keeps the last lines that come, on a thread of its own, until the pipe closes.
    fn keep(&self, reader: PipeReader) -> Result<()> {
        let Log { lines, is_stalled } = self.clone();
        thread::Builder::new().name("log".to_owned()).spawn(move || {
            for line in BufReader::new(reader).lines().map_while(Result::ok) {
                while is_stalled.load(Ordering::SeqCst) {
                    thread::sleep(Duration::from_millis(5));
                }
                let mut lines = lines.lock().expect("nobody panics with the lock held");
                lines.push_back(line);
                let excess = lines.len().saturating_sub(KEPT_LINES);
                lines.drain(..excess);
            }
        })?;
        Ok(())
    }
}
