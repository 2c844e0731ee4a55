//! `make soak`: see [`integration::soak`]. Takes how many events, and the seed.

use std::io::{self, Write};
use std::sync::mpsc;
use std::time::Instant;

use anyhow::{Context, Result};
use integration::agent::loopback_up;
use integration::node::Node;
use integration::soak::{Fault, Growth, Plan, Record, run};

/// Between two lines of a report.
const CHECKPOINTS: usize = 10;
/// What a life may grow by after its first fifth. How much there is in the cluster goes up and down, and large policies
/// leave holes. In the last life of 100,000 events a leak of some 60 bytes an event is more than that.
const MOST: Growth = Growth { resident: 4 * 1024, descriptors: 4, threads: 1 };

fn main() -> Result<()> {
    lab::enter()?;
    let mut arguments = std::env::args().skip(1);
    let mut number = |default: u64| arguments.next().map_or(Ok(default), |text| text.parse().context(text));
    let (events, seed) = (usize::try_from(number(100_000)?)?, number(1)?);
    let plan =
        Plan { seed, events, deck: Fault::deck().to_vec(), between: 300, during: 20..=200, last_life: events / 3 };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let (sender, result) = mpsc::channel();
    let begun = Instant::now();
    let soak = async move |node| {
        let progress = |record: &Record| {
            if record.checkpoints.is_multiple_of(CHECKPOINTS) {
                tell(&line(record, begun));
            }
        };
        // Whoever waits for it is there.
        let _ = sender.send(run(&plan, node, progress).await);
    };
    runtime.block_on(async {
        loopback_up()?;
        Node::run(soak).await
    })?;
    let record = result.recv().context("the run has no result")??;
    tell(&record.to_string());
    record.is_flat(MOST)
}

fn line(record: &Record, begun: Instant) -> String {
    let events: usize = record.events.values().sum();
    let faults: usize = record.faults.values().sum();
    let taken = record.samples.last().map(|sample| sample.usage);
    let (resident, descriptors) = taken.map_or((0, 0), |usage| (usage.resident, usage.descriptors));
    let (seconds, packets) = (begun.elapsed().as_secs(), record.packets);
    format!("{seconds} s: {events} events, {faults} faults; {packets}; {resident} KiB, {descriptors} descriptors\n")
}

fn tell(text: &str) {
    // A terminal that is closed does not end the run.
    let _ = io::stdout().write_all(text.as_bytes());
}
