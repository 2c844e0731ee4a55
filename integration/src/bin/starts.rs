//! `make starts`: see [`integration::starts`]. Takes the plugin, `ptp` or `bridge`, and how many pods start.

use std::io::{self, Write};

use anyhow::{Context, Result, bail, ensure};
use integration::starts::{Network, Plan, run};

/// How many pods are there at the same time.
const AT_ONCE: usize = 4;

fn main() -> Result<()> {
    lab::enter()?;
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [plugin, starts] = &arguments[..] else { bail!("usage: starts ptp|bridge NUMBER") };
    let network = match plugin.as_str() {
        "ptp" => Network::Routed,
        "bridge" => Network::Bridged,
        other => bail!("{other} is neither ptp nor bridge"),
    };
    let starts = starts.parse().with_context(|| format!("{starts} is no number"))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let record = runtime.block_on(run(Plan { network, starts, at_once: AT_ONCE }))?;
    // A terminal that is closed does not end the run.
    let _ = writeln!(io::stdout(), "{plugin}: {record}");
    record.is_right()?;
    ensure!(record.late.is_empty(), "packets of containers came before the rules:\n{}", record.late.join("\n"));
    Ok(())
}
