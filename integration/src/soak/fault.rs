//! What goes wrong around the agent, or with it.
//!
//! A fault begins, lasts for a while in which the cluster goes on changing, and ends.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result, bail, ensure};
use fastrand::Rng;
use netlink::{Connection, Ownership, RawBatch};
use nix::sys::signal::Signal;
use postern::kernel;

use crate::agent::nft;

use super::Soak;

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// The agent is killed, and for a while there is none.
    Kill,
    /// The agent ends as it is told to, and for a while there is none.
    Terminate,
    /// The agent gets no CPU.
    Freeze,
    /// The API server ends, and begins again.
    Outage,
    /// The same, and the agent is killed and begins while it is away.
    OutageAndKill,
    /// Somebody else edits the agent's table.
    Edit,
    /// Somebody else commits to another table, as fast as it can.
    Writer,
    /// Nobody reads the agent's log.
    LogStall,
}

/// A fault that has begun.
pub(super) enum Ongoing {
    NoAgent,
    Frozen,
    LogStalled,
    Writer(Writer),
    /// It has been over in a moment.
    Over,
}

/// Commits to a table of its own until it is dropped.
pub(super) struct Writer {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<u64>>>,
}

impl Fault {
    /// Each as often as it is drawn, of as many as there are.
    const DECK: [Fault; 16] = [
        Fault::Kill,
        Fault::Kill,
        Fault::Kill,
        Fault::Terminate,
        Fault::Terminate,
        Fault::Freeze,
        Fault::Freeze,
        Fault::Freeze,
        Fault::Outage,
        Fault::OutageAndKill,
        Fault::Edit,
        Fault::Edit,
        Fault::Writer,
        Fault::Writer,
        Fault::LogStall,
        Fault::LogStall,
    ];

    /// Each once.
    pub const ALL: [Fault; 8] = [
        Fault::Kill,
        Fault::Terminate,
        Fault::Freeze,
        Fault::Outage,
        Fault::OutageAndKill,
        Fault::Edit,
        Fault::Writer,
        Fault::LogStall,
    ];

    /// Whether the agent lives on.
    pub(super) fn spares_agent(self) -> bool {
        !matches!(self, Fault::Kill | Fault::Terminate | Fault::OutageAndKill)
    }

    /// The order of the next faults, from a deck.
    pub(super) fn shuffled(deck: &[Fault], rng: &mut Rng) -> Vec<Fault> {
        let mut deck = deck.to_vec();
        rng.shuffle(&mut deck);
        deck
    }

    /// The deck of a long run.
    pub fn deck() -> &'static [Fault] {
        &Fault::DECK
    }

    pub(super) async fn begin(self, soak: &mut Soak) -> Result<Ongoing> {
        match self {
            Fault::Kill => {
                soak.lives.kill().await?;
                // A table that nobody owns anybody may edit. What a stranger adds harms nobody, and has to go.
                if soak.rng.bool() {
                    add_something()?;
                }
                Ok(Ongoing::NoAgent)
            }
            Fault::Terminate => {
                soak.lives.terminate().await?;
                Ok(Ongoing::NoAgent)
            }
            Fault::Freeze => {
                soak.lives.signal(Signal::SIGSTOP)?;
                Ok(Ongoing::Frozen)
            }
            Fault::Outage | Fault::OutageAndKill => {
                soak.api.stop();
                soak.traffic.goes_on().await?;
                if !self.spares_agent() {
                    soak.lives.kill().await?;
                    soak.traffic.goes_on().await?;
                    soak.lives.begin()?;
                    soak.traffic.goes_on().await?;
                }
                soak.api.restart().await?;
                Ok(Ongoing::Over)
            }
            Fault::Edit => {
                // Before 6.9 whoever has the rights may open what is shut, and the agent mends it after the fact.
                if kernel::is_before((6, 9)) {
                    add_something()?
                } else {
                    are_refused(&mut soak.rng)?
                }
                Ok(Ongoing::Over)
            }
            Fault::Writer => Ok(Ongoing::Writer(Writer::start()?)),
            Fault::LogStall => {
                soak.lives.stall_log(true);
                Ok(Ongoing::LogStalled)
            }
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Fault::Kill => "agent killed",
            Fault::Terminate => "agent terminated",
            Fault::Freeze => "agent frozen",
            Fault::Outage => "API server restarted",
            Fault::OutageAndKill => "API server restarted, agent killed meanwhile",
            Fault::Edit => "table edited by another",
            Fault::Writer => "another table committed all the time",
            Fault::LogStall => "log stalled",
        })
    }
}

impl Ongoing {
    pub(super) async fn end(self, soak: &mut Soak) -> Result<()> {
        match self {
            Ongoing::NoAgent => soak.lives.begin(),
            Ongoing::Frozen => soak.lives.signal(Signal::SIGCONT),
            Ongoing::LogStalled => {
                // It works on as if nothing were.
                soak.settled().await?;
                soak.lives.stall_log(false);
                Ok(())
            }
            Ongoing::Writer(writer) => {
                let commits = writer.finish()?;
                ensure!(commits > 0, "the other writer has not come to write");
                Ok(())
            }
            Ongoing::Over => Ok(()),
        }
    }
}

/// Adds to the table what no packet meets.
fn add_something() -> Result<()> {
    nft(&["add set inet postern stranger { type ipv4_addr; }; add chain inet postern strange"]).map(drop)
}

/// Tries what would open the table, which the kernel refuses while the agent lives.
fn are_refused(rng: &mut Rng) -> Result<()> {
    let mut commands = [
        "delete table inet postern",
        "flush table inet postern",
        "flush chain inet postern ingress",
        "flush map inet postern ingress-pods-v4",
        "insert rule inet postern ingress accept",
        "add chain inet postern strange",
    ];
    rng.shuffle(&mut commands);
    for command in commands {
        if nft(&[command]).is_ok() {
            bail!("`nft {command}` edited a table that has an owner");
        }
    }
    // That passes over what belongs to others.
    nft(&["flush ruleset"]).map(drop)
}

// === impl Writer ===

impl Writer {
    fn start() -> Result<Writer> {
        let mut connection = Connection::open(Ownership::Plain)?;
        let stop = Arc::new(AtomicBool::new(false));
        let is_over = stop.clone();
        let thread = thread::Builder::new().name("writer".to_owned()).spawn(move || {
            let mut commits = 0;
            let table = || RawBatch::new("neighbour");
            while !is_over.load(Ordering::SeqCst) {
                connection.commit_raw(&table().add_table().add_chain("a", None).add_chain("b", None))?;
                connection.commit_raw(&table().delete_table())?;
                commits += 2;
            }
            Ok(commits)
        })?;
        Ok(Writer { stop, thread: Some(thread) })
    }

    fn finish(mut self) -> Result<u64> {
        self.stop.store(true, Ordering::SeqCst);
        let thread = self.thread.take().context("a writer ends once")?;
        thread.join().map_err(|_| anyhow::anyhow!("the other writer has panicked"))?
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}
