//! Timings of the same thing, again and again, on machines where others work too.

use std::thread;
use std::time::Instant;

/// Of so many measurements the fastest counts.
const FASTEST_OF: usize = 10;

/// What one thing took, in nanoseconds each.
#[derive(Debug, Default)]
pub struct Timings(Vec<f64>);

impl Timings {
    /// Measures doing it so often.
    pub fn measure(&mut self, times: u16, mut one: impl FnMut()) {
        let start = Instant::now();
        for _ in 0..times {
            one();
        }
        self.0.push(start.elapsed().as_secs_f64() * 1e9 / f64::from(times));
        // Whoever else is at work here does it now, and not amid the next series.
        thread::yield_now();
    }

    /// What it takes where nothing disturbs. There has to be a measurement.
    pub fn undisturbed(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted[sorted.len() / FASTEST_OF]
    }
}
