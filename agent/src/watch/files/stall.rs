//! Tells when a reading does not end: a file may be on a machine that does not answer, and then the call that reads it
//! does not return, nor can it be broken off.

use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::Duration;
use std::{io, thread};

use tracing::{info, warn};

use crate::readiness::Readiness;

/// The other end of a thread that waits for the end of a reading.
pub(super) struct Stall(Sender<Step>);

enum Step {
    Begin,
    End,
}

// === impl Stall ===

impl Stall {
    /// Starts the thread. While a reading lasts longer than `patience` the agent is not ready.
    pub(super) fn spawn(patience: Duration, readiness: Readiness) -> io::Result<Stall> {
        let (steps, seen) = mpsc::channel();
        thread::Builder::new().name("files-stall".to_owned()).spawn(move || look_after(&seen, patience, &readiness))?;
        Ok(Stall(steps))
    }

    /// A reading begins.
    pub(super) fn begin(&self) {
        // The thread lives as long as this.
        let _ = self.0.send(Step::Begin);
    }

    /// It has ended.
    pub(super) fn end(&self) {
        let _ = self.0.send(Step::End);
    }
}

fn look_after(steps: &Receiver<Step>, patience: Duration, readiness: &Readiness) {
    while steps.recv().is_ok() {
        if !matches!(steps.recv_timeout(patience), Err(RecvTimeoutError::Timeout)) {
            continue;
        }
        let text = format!("the files, which have been read for more than {} s", patience.as_secs());
        warn!("{text}; what was read before stays in force (is a file system of another machine away?)");
        let _not_ready = readiness.guard(text);
        if steps.recv().is_err() {
            return;
        }
        info!("the files can be read again");
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_reading_that_does_not_end_is_told() {
        let readiness = Readiness::new();
        let stall = Stall::spawn(Duration::ZERO, readiness.clone()).unwrap();
        let until = |is_ready: bool| {
            let begun = Instant::now();
            while readiness.status().is_ready() != is_ready {
                assert!(begun.elapsed() < Duration::from_secs(20), "{}", readiness.status());
                thread::yield_now();
            }
        };
        stall.begin();
        until(false);
        assert!(readiness.status().waiting_for[0].starts_with("the files"), "{}", readiness.status());
        stall.end();
        until(true);
    }
}
