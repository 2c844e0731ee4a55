//! Whether the kernel holds the table that the agent enforces.

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

/// The first place where the one is not as the other: a rule counts in its chain, and by its place there.
fn difference(due: &str, found: &str) -> Option<String> {
    let lines = |text: &str| text.lines().map(|line| line.trim().to_owned()).collect::<Vec<_>>();
    let (due, found) = (lines(due), lines(found));
    let at = due.iter().zip(&found).position(|(due, found)| due != found).unwrap_or(due.len().min(found.len()));
    let short = |line: &String| line.chars().take(LONGEST).collect::<String>();
    // The chain, set or map in which that is.
    let block = due[..at].iter().rfind(|line| line.ends_with('{')).map(|line| line.trim_end_matches([' ', '{']));
    let place = block.map_or_else(String::new, |block| format!("in {block}: "));
    match (due.get(at), found.get(at)) {
        (None, None) => None,
        (Some(line), None) => Some(format!("{place}not in the kernel: {}", short(line))),
        (None, Some(line)) => Some(format!("{place}only in the kernel: {}", short(line))),
        // Where the other goes on as if the line were not there, it is one too many.
        (Some(line), Some(other)) if found.get(at + 1) == Some(line) => {
            Some(format!("{place}only in the kernel: {}", short(other)))
        }
        (Some(line), Some(other)) if due.get(at + 1) == Some(other) => {
            Some(format!("{place}not in the kernel: {}", short(line)))
        }
        (Some(line), Some(other)) => {
            Some(format!("{place}the kernel has {} where {} is due", short(other), short(line)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::difference;

    #[test]
    fn the_first_place_that_differs_is_told() {
        let chain = |name: &str, rules: &[&str]| format!("chain {name} {{\n    {}\n}}\n", rules.join("\n    "));
        let told = |found: &[String]| {
            difference(&[chain("a", &["x", "deny"]), chain("b", &["y", "deny"])].concat(), &found.concat())
        };
        assert_eq!(told(&[chain("a", &["x", "deny"]), chain("b", &["y", "deny"])]), None);
        // The same rule stands elsewhere.
        let due = Some("in chain a: not in the kernel: deny");
        assert_eq!(told(&[chain("a", &["x"]), chain("b", &["y", "deny"])]).as_deref(), due);
        let due = Some("in chain b: the kernel has z where y is due");
        assert_eq!(told(&[chain("a", &["x", "deny"]), chain("b", &["z", "deny"])]).as_deref(), due);
        let due = Some("in chain a: only in the kernel: x");
        assert_eq!(told(&[chain("a", &["x", "deny", "x"]), chain("b", &["y", "deny"])]).as_deref(), due);
        assert_eq!(difference("a\n", "a\nx\n").as_deref(), Some("only in the kernel: x"));
        assert_eq!(difference("a\nx\n", "a\n").as_deref(), Some("not in the kernel: x"));
    }
}
