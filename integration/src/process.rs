//! What the kernel says of a process.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

/// The CPU time that all threads of a process have used.
///
/// # Errors
///
/// If there is no such process.
pub fn cpu(process: u32) -> Result<Duration> {
    let mut nanoseconds = 0;
    for thread in fs::read_dir(format!("/proc/{process}/task"))? {
        let text = fs::read_to_string(thread?.path().join("schedstat"))?;
        nanoseconds += text.split(' ').next().context("schedstat has three numbers")?.parse::<u64>()?;
    }
    Ok(Duration::from_nanos(nanoseconds))
}

/// A size from the status of a process, such as `VmRSS:`, in kB.
///
/// # Errors
///
/// If there is no such process, or no such field.
pub fn memory(process: u32, field: &str) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let value = status.lines().find_map(|line| line.strip_prefix(field)).with_context(|| field.to_owned())?;
    Ok(value.trim().trim_end_matches(" kB").parse()?)
}
