//! What became of the packets of pods that started.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use anyhow::{Result, ensure};

/// How many packets a failure shows.
const SHOWN: usize = 20;

/// What a run has seen.
#[derive(Debug, Clone, Default)]
pub struct Record {
    /// How many pods have started and ended.
    pub starts: usize,
    /// How many forbidden packets were sent, and those of them that arrived.
    pub forbidden: u64,
    /// Who sent them, and who received them.
    pub passed: Vec<String>,
    /// How many allowed packets were sent once a container could start.
    pub allowed: usize,
    /// Those that did not arrive, though the kernel had the pod's rules when they were sent.
    pub refused: Vec<String>,
    /// Those that did not arrive because it had not: the agent, or the machine, was too slow.
    pub late: Vec<String>,
    /// From the file of the runtime to the commit with the pod's rules, of each start.
    pub commits: Vec<Duration>,
}

// === impl Record ===

impl Record {
    /// From file to commit, of the slowest but so many percent. Zero without any start.
    #[must_use]
    pub fn percentile(&self, percent: usize) -> Duration {
        let mut times = self.commits.clone();
        times.sort_unstable();
        times.get(times.len() * percent / 100).or(times.last()).copied().unwrap_or_default()
    }

    /// Checks that no packet went wrong, however slow the machine is.
    ///
    /// # Errors
    ///
    /// The packets that did.
    pub fn is_right(&self) -> Result<()> {
        let is_right = self.passed.is_empty() && self.refused.is_empty();
        ensure!(is_right, "{self}; passed:\n{}\nrefused:\n{}", shown(&self.passed), shown(&self.refused));
        Ok(())
    }
}

/// Packets with how often each was seen, the first of them.
fn shown(packets: &[String]) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for packet in packets {
        *counts.entry(packet).or_default() += 1;
    }
    let lines = counts.iter().take(SHOWN).map(|(packet, count)| format!("{count}x {packet}"));
    lines.collect::<Vec<_>>().join("\n")
}

impl fmt::Display for Record {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{} starts; of {} forbidden packets {} passed; of {} allowed {} were refused, and {} came before the rules; \
             from file to commit: median {:.1?}, p99 {:.1?}",
            self.starts,
            self.forbidden,
            self.passed.len(),
            self.allowed,
            self.refused.len(),
            self.late.len(),
            self.percentile(50),
            self.percentile(99),
        )
    }
}
