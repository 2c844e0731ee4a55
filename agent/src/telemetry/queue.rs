//! Lines on their way to a stream that may stall or be closed: whoever logs never waits for whoever reads.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How many bytes of lines wait at most. A longer line waits only alone.
const CAPACITY: usize = 1 << 20;
/// When a stream that says "not now" is asked again.
const NOT_NOW: Duration = Duration::from_millis(10);

/// Lines that wait to be written. What does not fit is dropped and counted.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    changed: Condvar,
    dropped: AtomicU64,
}

#[derive(Debug, Default)]
struct Waiting {
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
    is_writing: bool,
    /// Lines that were dropped and that no line has told of yet.
    untold: u64,
}

// === impl Queue ===

impl Queue {
    /// Puts a line at the end, or drops it.
    pub(super) fn push(&self, line: Vec<u8>) {
        let mut waiting = self.lock();
        if !waiting.lines.is_empty() && waiting.bytes + line.len() > CAPACITY {
            self.drop_one(&mut waiting);
            return;
        }
        waiting.bytes += line.len();
        waiting.lines.push_back(line);
        self.changed.notify_all();
    }

    /// How many lines were dropped since the start.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Waits until all lines are written, or so long.
    pub(super) fn flush(&self, patience: Duration) {
        let has_some = |waiting: &mut Waiting| waiting.is_writing || !waiting.lines.is_empty();
        // A time-out and the end are the same to whoever is about to end.
        drop(self.changed.wait_timeout_while(self.lock(), patience, has_some));
    }

    /// Writes the oldest line, for which it waits until `deadline` if there is one. After a line that could be written
    /// it returns how many others were dropped before, each of them once.
    pub(super) fn write_next(&self, out: &mut impl Write, deadline: Option<Instant>) -> Option<u64> {
        let line = self.next(deadline)?;
        let written = write_line(out, &line);
        let mut waiting = self.lock();
        waiting.is_writing = false;
        if written.is_err() {
            self.drop_one(&mut waiting);
        }
        // To tell of it while there is no room would only be one more to drop.
        let may_tell = written.is_ok() && waiting.bytes <= CAPACITY / 2;
        let told = if may_tell { std::mem::take(&mut waiting.untold) } else { 0 };
        self.changed.notify_all();
        Some(told)
    }

    fn next(&self, deadline: Option<Instant>) -> Option<Vec<u8>> {
        let mut waiting = self.lock();
        loop {
            if let Some(line) = waiting.lines.pop_front() {
                waiting.bytes -= line.len();
                waiting.is_writing = true;
                return Some(line);
            }
            waiting = match deadline {
                None => self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return None;
                    }
                    self.changed.wait_timeout(waiting, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    fn drop_one(&self, waiting: &mut Waiting) {
        waiting.untold += 1;
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // No thread leaves it half changed, and a panic is logged here.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes a whole line, also to a stream that somebody has made non-blocking.
fn write_line(out: &mut impl Write, mut line: &[u8]) -> io::Result<()> {
    while !line.is_empty() {
        match out.write(line) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(written) => line = &line[written..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(NOT_NOW),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    /// A stream that takes a line when the test says so.
    struct Stalled {
        turns: Receiver<io::Result<()>>,
        lines: Sender<Vec<u8>>,
    }

    impl Write for Stalled {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            self.turns.recv().expect("the test holds the other end")?;
            self.lines.send(line.to_vec()).expect("the test holds the other end");
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_does_not_fit_is_dropped_and_told_once_when_there_is_room() {
        let queue = Arc::new(Queue::default());
        let (turn, turns) = channel();
        let (sender, lines) = channel();
        let line = vec![b'x'; CAPACITY / 4];
        let writer = thread::spawn({
            let queue = queue.clone();
            move || {
                let mut out = Stalled { turns, lines: sender };
                (0..6).map(|_| queue.write_next(&mut out, None)).collect::<Vec<_>>()
            }
        });
        // Four wait behind the one that is being written, or four in all; none of these calls blocks.
        (0..10).for_each(|_| queue.push(line.clone()));
        let dropped = queue.dropped();
        assert!((5..=6).contains(&dropped), "{dropped}");
        queue.flush(Duration::from_millis(1));
        let kept = 10 - usize::try_from(dropped).unwrap();
        for _ in 0..kept {
            turn.send(Ok(())).unwrap();
            lines.recv().unwrap();
        }
        (kept..6).for_each(|_| queue.push(b"more".to_vec()));
        (kept..6).for_each(|_| turn.send(Ok(())).unwrap());
        let told: Vec<u64> = writer.join().unwrap().into_iter().map(|told| told.unwrap()).collect();
        assert_eq!(told.iter().sum::<u64>(), dropped, "{told:?}");
        assert_eq!(told.iter().filter(|told| **told > 0).count(), 1, "{told:?}");
        assert_eq!(queue.dropped(), dropped);
    }

    #[test]
    fn a_line_that_cannot_be_written_is_dropped_and_the_next_one_tried() {
        let queue = Queue::default();
        let (turn, turns) = channel();
        let (sender, lines) = channel();
        let mut out = Stalled { turns, lines: sender };
        queue.push(b"first".to_vec());
        queue.push(b"second".to_vec());
        turn.send(Err(ErrorKind::BrokenPipe.into())).unwrap();
        assert_eq!(queue.write_next(&mut out, None), Some(0));
        turn.send(Err(ErrorKind::WouldBlock.into())).unwrap();
        turn.send(Ok(())).unwrap();
        assert_eq!(queue.write_next(&mut out, None), Some(1));
        assert_eq!(lines.recv().unwrap(), b"second");
        assert_eq!(queue.dropped(), 1);
        assert_eq!(queue.write_next(&mut out, Some(Instant::now())), None);
    }
}
