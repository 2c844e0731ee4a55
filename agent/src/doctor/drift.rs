//! Whether the kernel holds the table that the agent enforces.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::thread::sleep;
use std::time::Duration;

use netlink::{Connection, Ownership};

use super::Check;
use crate::status::{self, Status};

/// How often both are read where they differ: a commit may come in between.
const ATTEMPTS: u32 = 4;
const PAUSE: Duration = Duration::from_millis(300);
/// How many characters of a line are shown.
const LONGEST: usize = 120;
const WHY: &str = "packets are judged by the kernel's table, and it is another than the policies make";

pub(super) fn checks(agent: SocketAddr, status: Option<&Status>) -> Vec<Check> {
    if status.is_none_or(|status| status.generation.is_none()) {
        return Vec::new();
    }
    let mut difference = None;
    for attempt in 0..ATTEMPTS {
        if attempt > 0 {
            sleep(PAUSE);
        }
        match compare(agent) {
            Ok(None) => return vec![Check::ok("table", "the kernel holds what the agent enforces")],
            Ok(found) => difference = found,
            Err(error) => {
                return vec![Check::note(
                    "table",
                    format!("not compared: {error:#}"),
                    WHY,
                    "run this with CAP_NET_ADMIN in the node's network namespace: as root of the node, or in the agent's pod",
                )];
            }
        }
    }
    let remedy =
        "the agent repairs it within about a second, if it is not kept from it: see its log for who owns or edits it";
    difference.map(|found| Check::wrong("table", found, WHY, remedy)).into_iter().collect()
}

/// What the two differ in first, if they do.
fn compare(agent: SocketAddr) -> anyhow::Result<Option<String>> {
    let due = status::table(agent)?;
    let mirror = Connection::open(Ownership::Plain)?.dump()?;
    let Some(table) = mirror.table else { return Ok(Some("there is no table postern in the kernel".to_owned())) };
    if let Some(name) = mirror.foreign.first() {
        return Ok(Some(format!("{name} in table postern is none of the agent's")));
    }
    Ok(difference(&due, &table.to_string()))
}

/// The first line that is in one and not in the other.
fn difference(due: &str, found: &str) -> Option<String> {
    let lines = |text: &str| text.lines().map(|line| line.trim().to_owned()).collect::<BTreeSet<_>>();
    let (due, found) = (lines(due), lines(found));
    let short = |line: &String| line.chars().take(LONGEST).collect::<String>();
    let missing = due.difference(&found).next().map(|line| format!("not in the kernel: {}", short(line)));
    missing.or_else(|| found.difference(&due).next().map(|line| format!("only in the kernel: {}", short(line))))
}

#[cfg(test)]
mod tests {
    use super::difference;

    #[test]
    fn the_first_line_that_differs_is_told() {
        assert_eq!(difference("a\n  b\n", "a\nb\n"), None);
        assert_eq!(difference("a\nb\nc\n", "a\nc\n").as_deref(), Some("not in the kernel: b"));
        assert_eq!(difference("a\n", "a\nx\n").as_deref(), Some("only in the kernel: x"));
    }
}
