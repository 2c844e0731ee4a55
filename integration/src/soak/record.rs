//! What is recorded on the way, and whether it stays flat.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::{Result, ensure};

use super::{Fault, Packets};
use crate::usage::Usage;

/// What an agent took at a checkpoint.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// The events so far.
    pub event: usize,
    /// Which life of the agent it is.
    pub life: usize,
    /// What it took.
    pub usage: Usage,
}

/// How much more an agent may take after its first time than in it.
#[derive(Debug, Clone, Copy)]
pub struct Growth {
    /// Resident memory, in KiB.
    pub resident: u64,
    /// Descriptors.
    pub descriptors: u64,
    /// Threads.
    pub threads: u64,
}

/// Its name, where it is found, and by how much it may grow.
type Quantity = (&'static str, fn(&Usage) -> u64, u64);

/// What has happened.
#[derive(Debug, Default)]
pub struct Record {
    /// By kind.
    pub events: BTreeMap<&'static str, usize>,
    /// By kind.
    pub faults: BTreeMap<Fault, usize>,
    /// What has come of the packets.
    pub packets: Packets,
    /// Transactions that the kernel took. Those of an agent that was killed are counted up to just before that.
    pub commits: u64,
    /// How often the kernel's table was held against a fresh compile.
    pub checkpoints: usize,
    /// The most policies that were in quarantine at a checkpoint.
    pub most_quarantined: usize,
    /// One a checkpoint.
    pub samples: Vec<Sample>,
}

impl Record {
    /// Fails where a life of the agent took more later than in its first fifth. A life of a few checkpoints says nothing.
    ///
    /// # Errors
    ///
    /// What has grown.
    pub fn is_flat(&self, most: Growth) -> Result<()> {
        for life in self.samples.chunk_by(|one, next| one.life == next.life) {
            let (warm_up, rest) = life.split_at(life.len().div_ceil(5).max(3).min(life.len()));
            let greatest = |samples: &[Sample], what: fn(&Usage) -> u64| samples.iter().map(|s| what(&s.usage)).max();
            let quantities: [Quantity; 3] = [
                ("KiB of memory", |usage| usage.resident, most.resident),
                ("descriptors", |usage| usage.descriptors, most.descriptors),
                ("threads", |usage| usage.threads, most.threads),
            ];
            for (name, what, most) in quantities {
                let (Some(first), Some(later)) = (greatest(warm_up, what), greatest(rest, what)) else { continue };
                let number = life[0].life;
                ensure!(later <= first + most, "life {number} of the agent went from {first} to {later} {name}");
            }
        }
        Ok(())
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut row = |name: &dyn fmt::Display, value: &dyn fmt::Display| writeln!(f, "| {name} | {value} |");
        row(&"what", &"how often, or how much")?;
        row(&"---", &"---")?;
        for (kind, count) in &self.events {
            row(kind, count)?;
        }
        row(&"events", &self.events.values().sum::<usize>())?;
        for (fault, count) in &self.faults {
            row(fault, count)?;
        }
        row(&"commits", &self.commits)?;
        row(&"comparisons of the kernel's table", &self.checkpoints)?;
        row(&"policies in quarantine at once", &self.most_quarantined)?;
        row(&"forbidden packets sent", &self.packets.forbidden)?;
        row(&"of these arrived", &self.packets.leaked)?;
        row(&"allowed packets sent", &self.packets.allowed)?;
        row(&"of these lost", &self.packets.lost)?;
        let Some(last) = self.samples.last() else { return Ok(()) };
        row(&"lives of the agent", &last.life)?;
        let of_last: Vec<&Sample> = self.samples.iter().filter(|sample| sample.life == last.life).collect();
        let series = |what: fn(&Usage) -> u64| {
            let values = || of_last.iter().map(|sample| what(&sample.usage));
            let ends = (values().next().unwrap_or_default(), values().next_back().unwrap_or_default());
            format!("{}, {}, {}", ends.0, ends.1, values().max().unwrap_or_default())
        };
        row(&"events of the last life", &(last.event - of_last[0].event))?;
        row(&"its memory in KiB (first, last, most)", &series(|usage| usage.resident))?;
        row(&"its descriptors (first, last, most)", &series(|usage| usage.descriptors))?;
        row(&"its threads (first, last, most)", &series(|usage| usage.threads))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROWTH: Growth = Growth { resident: 100, descriptors: 2, threads: 0 };

    fn record(usages: impl IntoIterator<Item = (usize, u64, u64)>) -> Record {
        let sample = |(event, (life, resident, descriptors))| Sample {
            event,
            life,
            usage: Usage { resident, peak: resident, descriptors, threads: 4 },
        };
        Record { samples: usages.into_iter().enumerate().map(sample).collect(), ..Record::default() }
    }

    #[test]
    fn what_grows_after_the_warm_up_is_told() {
        let grown = |step: u64| record((0..50).map(|n| (1, 5_000 + step * n, 12))).is_flat(GROWTH);
        assert!(grown(0).is_ok() && grown(2).is_ok());
        assert_eq!(grown(4).unwrap_err().to_string(), "life 1 of the agent went from 5036 to 5196 KiB of memory");
        let descriptors = record((0..50).map(|n| (1, 5_000, if n == 40 { 15 } else { 12 })));
        assert_eq!(
            descriptors.is_flat(GROWTH).unwrap_err().to_string(),
            "life 1 of the agent went from 12 to 15 descriptors"
        );
    }

    #[test]
    fn each_life_is_judged_by_itself() {
        assert!(record((0..50).map(|n| (n / 10, 5_000 + 1_000 * (n as u64 / 10), 12))).is_flat(GROWTH).is_ok());
    }
}
