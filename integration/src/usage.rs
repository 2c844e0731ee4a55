//! What a process takes of the machine, from `/proc`.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

/// What a process takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Resident memory, in KiB.
    pub resident: u64,
    /// The most resident memory that it ever had, in KiB.
    pub peak: u64,
    /// Open descriptors.
    pub descriptors: u64,
    /// Threads.
    pub threads: u64,
}

impl Usage {
    /// What a process takes now.
    ///
    /// # Errors
    ///
    /// If there is no such process, or it belongs to somebody else.
    pub fn of(process: u32) -> Result<Usage> {
        let status = fs::read_to_string(format!("/proc/{process}/status"))?;
        let entries = |folder: &str| anyhow::Ok(fs::read_dir(format!("/proc/{process}/{folder}"))?.count() as u64);
        Ok(Usage {
            resident: kibibytes(&status, "VmRSS:")?,
            peak: kibibytes(&status, "VmHWM:")?,
            descriptors: entries("fd")?,
            threads: entries("task")?,
        })
    }
}

/// The CPU time that all threads of a process have used.
///
/// # Errors
///
/// As for [`Usage::of`].
pub fn cpu(process: u32) -> Result<Duration> {
    let mut nanoseconds = 0;
    for thread in fs::read_dir(format!("/proc/{process}/task"))? {
        let text = fs::read_to_string(thread?.path().join("schedstat"))?;
        nanoseconds += text.split(' ').next().context("schedstat has three numbers")?.parse::<u64>()?;
    }
    Ok(Duration::from_nanos(nanoseconds))
}

/// A size from the status of a process.
fn kibibytes(status: &str, field: &str) -> Result<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix(field)).with_context(|| field.to_owned())?;
    Ok(value.trim().trim_end_matches(" kB").parse()?)
}
