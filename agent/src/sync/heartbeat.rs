//! Whether the sync thread is alive.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// When the sync thread last showed that it is alive. Counted in milliseconds from an instant of its own, so that one
/// atomic holds it.
#[derive(Debug)]
pub struct Heartbeat {
    start: Instant,
    last: AtomicU64,
}

// === impl Heartbeat ===

impl Heartbeat {
    /// Alive now.
    #[allow(clippy::new_without_default, reason = "reads the clock")]
    pub fn new() -> Heartbeat {
        Heartbeat { start: Instant::now(), last: AtomicU64::new(0) }
    }

    /// Alive now.
    pub fn beat(&self) {
        let since_start = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(since_start, Ordering::Relaxed);
    }

    /// How long ago that was.
    pub fn age(&self) -> Duration {
        self.start.elapsed().saturating_sub(Duration::from_millis(self.last.load(Ordering::Relaxed)))
    }
}
