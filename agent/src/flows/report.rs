//! The way of the entries that passed the filter: to the agent, and into lines.

use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use netlink::conntrack::{Change, Entry};

use super::line::Line;
use super::{Asked, Client, MOST_ASKED, Names};
use crate::args::OutputArg;
use crate::kernel::as_policies_see;
use crate::record::record;

/// Prints flows, some hundred at a time.
pub struct Report<'a, W> {
    client: &'a Client,
    names: &'a mut Names,
    out: W,
    format: OutputArg,
    /// What the agent is asked, and the entries that it is asked about.
    asked: Asked,
    entries: Vec<(Option<Change>, Entry)>,
    /// Why nothing is printed any more.
    failure: Option<anyhow::Error>,
    has_shown: bool,
    has_counts: bool,
    has_times: bool,
}

impl<'a, W: Write> Report<'a, W> {
    /// A report of flows at an end of which a policy isolates, if one is given, and of those that are refused, if only
    /// these are wanted.
    pub fn new(
        client: &'a Client,
        names: &'a mut Names,
        out: W,
        format: OutputArg,
        policy: Option<String>,
        refused: bool,
    ) -> Report<'a, W> {
        let asked = Asked { flows: Vec::with_capacity(MOST_ASKED), policy, refused };
        let entries = Vec::with_capacity(MOST_ASKED);
        let (has_shown, has_counts, has_times) = (false, false, false);
        Report { client, names, out, format, asked, entries, failure: None, has_shown, has_counts, has_times }
    }

    /// Where names come from.
    pub fn names(&mut self) -> &mut Names {
        self.names
    }

    /// Takes a flow in. If that fails, [`Report::flush`] says so.
    pub fn add(&mut self, change: Option<Change>, entry: &Entry) {
        if self.failure.is_some() {
            return;
        }
        self.asked.flows.push(as_policies_see(&entry.flow).into());
        self.entries.push((change, *entry));
        if self.asked.flows.len() == MOST_ASKED {
            self.failure = self.print().err();
        }
    }

    /// Prints what was taken in.
    ///
    /// # Errors
    ///
    /// If the agent does not answer, or nobody reads.
    pub fn flush(&mut self) -> anyhow::Result<()> {
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        self.print()?;
        Ok(self.out.flush()?)
    }

    fn print(&mut self) -> anyhow::Result<()> {
        if self.entries.is_empty() {
            return Ok(());
        }
        let judged = self.client.judge(&self.asked)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        for judged in judged {
            let (change, entry) =
                self.entries.get(judged.index).context("the agent answers about what it was not asked")?;
            self.has_shown = true;
            self.has_counts |= entry.counts.is_some();
            self.has_times |= entry.began.is_some();
            let line = Line::new(*change, entry, judged, self.names, now);
            match self.format.notation() {
                Some(notation) => record(&mut self.out, notation, &line)?,
                None => writeln!(self.out, "{line}")?,
            }
        }
        self.asked.flows.clear();
        self.entries.clear();
        Ok(())
    }

    /// What is missing from the lines so far, and why.
    pub fn notes(&mut self) -> Vec<String> {
        let mut notes = self.names.notes();
        if self.has_shown && !self.has_counts {
            notes.push("the kernel did not count packets and bytes: net.netfilter.nf_conntrack_acct is off".to_owned());
        }
        if self.has_shown && !self.has_times {
            notes.push(
                "the kernel did not note when flows began: net.netfilter.nf_conntrack_timestamp is off".to_owned(),
            );
        }
        notes
    }
}
