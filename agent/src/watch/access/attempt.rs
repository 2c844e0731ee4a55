//! Something that may hang, tried on a thread of its own.
//!
//! That is neither a task, which would hold up all others of its thread, nor one of the runtime's blocking threads: the
//! end of the process waits for none of these. Who waits for it gives up in time, and it goes on.

use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use anyhow::{Result, anyhow};
use tokio::runtime::Handle;
use tokio::sync::watch::{self, Receiver};
use tokio::time::{Instant, timeout_at};

/// An attempt, for a purpose of type `P`. Clones are the same one.
#[derive(Debug, Clone)]
pub(super) struct Attempt<P> {
    purpose: P,
    begun: Instant,
    /// The name of what it waits for, once it does.
    waits_for: Arc<OnceLock<String>>,
    /// How it has ended; closed and empty where it never will.
    end: Receiver<Option<Result<(), String>>>,
}

impl<P: PartialEq> Attempt<P> {
    /// Begins an attempt, on a thread that belongs to the runtime of the caller. `work` is given a place for the name of
    /// what it is about to wait for.
    pub(super) fn begin(
        purpose: P,
        work: impl FnOnce(&OnceLock<String>) -> Result<(), String> + Send + 'static,
    ) -> Attempt<P> {
        let (sender, end) = watch::channel(None);
        let waits_for = Arc::new(OnceLock::new());
        let (runtime, place) = (Handle::current(), Arc::clone(&waits_for));
        let run = move || {
            let _entered = runtime.enter();
            sender.send_replace(Some(work(&place)));
        };
        // Without a thread the sender is dropped, which ends the attempt, as a panic does.
        let _ = thread::Builder::new().name("attempt".to_owned()).spawn(run);
        Attempt { purpose, begun: Instant::now(), waits_for, end }
    }

    pub(super) fn is_for(&self, purpose: &P) -> bool {
        self.purpose == *purpose
    }

    pub(super) fn is_under_way(&self) -> bool {
        self.end.borrow().is_none() && self.end.has_changed().is_ok()
    }

    /// Waits for the end, until `patience` after the begin: for one that has hung for longer, not at all.
    pub(super) async fn end(&self, patience: Duration) -> Result<()> {
        let mut end = self.end.clone();
        let Ok(ended) = timeout_at(self.begun + patience, end.wait_for(Option::is_some)).await else {
            // The text is the same for who waits for less, so that it is told once.
            let who = self.waits_for.get().map_or("what a client is made of", String::as_str);
            return Err(anyhow!("{who} does not answer"));
        };
        match ended.as_deref() {
            Ok(Some(Ok(()))) => Ok(()),
            Ok(Some(Err(text))) => Err(anyhow!("{text}")),
            Ok(None) | Err(_) => Err(anyhow!("the thread that was to make a client has ended without one")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use futures::FutureExt;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn everybody_learns_how_it_ends() {
        let ended = Attempt::begin(1, |_| Ok(()));
        ended.end(LONG).await.unwrap();
        ended.end(LONG).await.unwrap();
        assert!(!ended.is_under_way() && ended.is_for(&1) && !ended.is_for(&2));
        let failed = Attempt::begin(1, |_| Err("no such file".to_owned()));
        assert_eq!(failed.end(LONG).await.unwrap_err().to_string(), "no such file");
        assert!(!failed.is_under_way());
        let panicked = Attempt::begin(1, |_| panic!("of the test"));
        assert!(panicked.end(LONG).await.unwrap_err().to_string().contains("without one"));
        assert!(!panicked.is_under_way());
    }

    #[tokio::test]
    async fn what_hangs_is_waited_for_in_bounds_and_named() {
        let (answer, answered) = mpsc::channel::<()>();
        let hanging = Attempt::begin(1, move |waits_for| {
            waits_for.set("plugin x".to_owned()).unwrap();
            answered.recv().map_err(|error| error.to_string())
        });
        let patience = Duration::from_millis(50);
        while hanging.waits_for.get().is_none() {
            tokio::task::yield_now().await;
        }
        assert_eq!(hanging.end(patience).await.unwrap_err().to_string(), "plugin x does not answer");
        assert!(hanging.is_under_way());
        let again = hanging.end(patience).now_or_never();
        assert!(again.is_some_and(|ended| ended.is_err()), "who comes later does not wait again");
        answer.send(()).unwrap();
        hanging.end(LONG).await.unwrap();
        assert!(!hanging.is_under_way());
    }
}
