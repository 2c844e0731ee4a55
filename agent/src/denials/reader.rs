//! Reads what the kernel tells of refused packets, on a thread of its own: nothing that enforces waits for it.

use std::io;
use std::os::unix::net::UnixDatagram;
use std::thread;
use std::time::Duration;

use compiler::nft::{LogGroup, Refusal};
use compiler::policy::Effort;
use jiff::Timestamp;
use netlink::Error;
use netlink::log::{LogReader, Logged};
use rustix::net::netdevice::index_to_name;
use tracing::{debug, info, warn};

use super::answer::nearest;
use super::ledger::Ledger;
use super::naming::{Came, name};
use super::packet;
use crate::backoff::Backoff;
use crate::metrics::DenialMetrics;
use crate::readiness::Readiness;
use crate::sync::Handle;
use crate::telemetry::Causes;

/// How a note on `/readyz` begins where nothing is told.
pub const UNTOLD: &str = "refused packets are counted, but not told of";

/// How many entries of rules are looked at for the nearest to one packet, before its line is written: a millisecond's work
/// at most, for the kernel goes on telling meanwhile.
const MOST_ENTRIES: usize = Effort::OF_A_QUESTION / 20;

/// How what is told is read.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// The group to which the table logs.
    pub group: LogGroup,
    /// Whether each denial is a line of the agent's log.
    pub logs: bool,
}

/// Starts the thread. It lives as long as the process.
///
/// # Errors
///
/// If the system gives no thread.
pub fn follow(
    settings: Settings,
    sync: Handle,
    ledger: Ledger,
    metrics: DenialMetrics,
    readiness: Readiness,
) -> io::Result<()> {
    // Any socket will do to ask for names of links.
    let names = UnixDatagram::unbound()?;
    let reader = Reader { settings, sync, ledger, metrics, names };
    thread::Builder::new().name("denials".to_owned()).spawn(move || reader.run(&readiness))?;
    Ok(())
}

struct Reader {
    settings: Settings,
    sync: Handle,
    ledger: Ledger,
    metrics: DenialMetrics,
    names: UnixDatagram,
}

impl Reader {
    fn run(&self, readiness: &Readiness) {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
        let mut note = None;
        loop {
            let failure = match LogReader::open(self.settings.group) {
                Ok(mut log) => {
                    note = None;
                    backoff.reset();
                    self.read(&mut log)
                }
                Err(error) => error,
            };
            let text = format!("{UNTOLD}: {}", self.why(&failure));
            warn!("{text}");
            note.get_or_insert_with(|| readiness.note(text));
            thread::sleep(backoff.next_wait());
        }
    }

    fn why(&self, error: &Error) -> String {
        if error.is_busy() {
            let LogGroup(group) = self.settings.group;
            return format!("another program listens to group {group} of NFLOG; --denials-group takes another");
        }
        Causes(error).to_string()
    }

    fn read(&self, log: &mut LogReader) -> Error {
        loop {
            match log.read(|packet| self.packet(&packet)) {
                Ok(lost) => self.metrics.lost(lost),
                Err(error) => return error,
            }
        }
    }

    fn packet(&self, logged: &Logged<'_>) {
        let Some(refusal) = Refusal::of_prefix(logged.prefix) else {
            debug!(prefix = logged.prefix, "somebody else logs to this group");
            return;
        };
        self.metrics.told(refusal);
        let Some(header) = packet::read_frame(logged.ether_type, logged.packet) else {
            self.metrics.unreadable();
            return;
        };
        // A link that has gone since has no name.
        let link_name = |index| index_to_name(&self.names, index).ok();
        let came = Came { link: logged.input.and_then(link_name), port: logged.port.and_then(link_name) };
        let snapshot = self.sync.snapshot();
        let (kind, denial) = name(&snapshot, refusal, &header, &came, Timestamp::now());
        if self.settings.logs {
            let what = format!("{} -> {} {}", denial.source, denial.destination, denial.port_and_protocol());
            let isolated_by = denial.isolated_by.join(", ");
            let nearest = nearest(&snapshot, &kind, &denial, &mut Effort::of(MOST_ENTRIES));
            info!(what, direction = denial.direction, reason = denial.reason, isolated_by, nearest, "denied");
        }
        self.ledger.add(kind, denial);
    }
}
