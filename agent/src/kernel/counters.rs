//! The values of the table's counters, for whoever asks.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use compiler::nft::CounterName;
use netlink::{Connection, Count, Error, Ownership};
use tracing::debug;

use crate::telemetry::Causes;

/// Reads counters on a connection of its own, so that whoever asks does not wait for a commit, and no commit for them.
/// It is opened when somebody asks for the first time, and again after an error.
#[derive(Debug, Clone, Default)]
pub struct Counters(Arc<Mutex<Option<Connection>>>);

// === impl Counters ===

impl Counters {
    /// The values now; empty where there is no table, where they cannot be read, and while somebody else reads them.
    pub async fn read(&self) -> BTreeMap<CounterName, Count> {
        let counters = self.clone();
        // The kernel answers at once, but it is the kernel's to say.
        let reading = tokio::task::spawn_blocking(move || counters.read_now());
        reading.await.unwrap_or_default()
    }

    fn read_now(&self) -> BTreeMap<CounterName, Count> {
        let Ok(mut connection) = self.0.try_lock() else { return BTreeMap::new() };
        read_on(&mut connection).unwrap_or_else(|error| {
            debug!(error = %Causes(&error), "the counters cannot be read");
            *connection = None;
            BTreeMap::new()
        })
    }
}

fn read_on(connection: &mut Option<Connection>) -> Result<BTreeMap<CounterName, Count>, Error> {
    let connection = match connection {
        Some(connection) => connection,
        empty @ None => empty.insert(Connection::open(Ownership::Plain)?),
    };
    connection.counters()
}
