//! Looks at the open flows of the node, on a thread of its own: there may be hundreds of thousands.

use std::io;
use std::sync::mpsc::{self, Sender};
use std::thread;

use compiler::flows::{Review, Reviewed};
use netlink::Error;

use super::Message;
use super::engine::Begin;
use crate::telemetry::Causes;

/// What looks at the open flows, and says what it found.
pub type Look = Box<dyn FnMut(&Review) -> Result<Reviewed, Error> + Send>;

/// Starts the thread. It ends when nobody can ask it any more.
///
/// # Errors
///
/// If the system gives no thread.
pub(super) fn spawn(mut look: Look, inbox: Sender<Message>) -> io::Result<Begin> {
    let (ask, asked) = mpsc::channel::<Review>();
    thread::Builder::new().name("flows".to_owned()).spawn(move || {
        for review in asked {
            let found = look(&review).map_err(|error| Causes(&error).to_string());
            if inbox.send(Message::Reviewed(found)).is_err() {
                return;
            }
        }
    })?;
    Ok(Box::new(move |review| {
        // The thread ends only with the inbox.
        let _ = ask.send(review);
    }))
}
