//! A transaction as commands that `nft -f` would take, for the log.

use std::fmt;

use compiler::diff::{Op, Transaction};
use compiler::nft::{Chain, ChainName, ChainPolicy, Comment, Hook, TABLE};

/// Prints a transaction, a command a line.
pub(super) struct Commands<'a>(pub(super) &'a Transaction);

impl fmt::Display for Commands<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.ops().iter().try_for_each(|op| write_op(f, op))
    }
}

fn write_op(f: &mut fmt::Formatter<'_>, op: &Op) -> fmt::Result {
    match op {
        Op::DestroyTable => writeln!(f, "destroy table inet {TABLE}"),
        Op::AddTable => writeln!(f, "add table inet {TABLE}"),
        Op::DeleteMapElements(map, keys) => {
            writeln!(f, "delete element inet {TABLE} {map} {{ {} }}", list(keys.iter()))
        }
        Op::DeleteKeys(set, keys) => writeln!(f, "delete element inet {TABLE} {set} {{ {} }}", list(keys.iter())),
        Op::AddCounter(name) => writeln!(f, "add counter inet {TABLE} {name}"),
        Op::AddSet(name, set) => {
            let flags = if set.key_type.is_interval() { " flags interval;" } else { "" };
            let comment = comment(set.comment.as_ref(), ";");
            writeln!(f, "add set inet {TABLE} {name} {{ type {};{flags}{comment} }}", set.key_type)
        }
        Op::AddMap(name, map) => {
            let comment = comment(map.comment.as_ref(), ";");
            writeln!(f, "add map inet {TABLE} {name} {{ type {} : verdict;{comment} }}", map.key_type)
        }
        Op::AddKeys(set, keys) => writeln!(f, "add element inet {TABLE} {set} {{ {} }}", list(keys.iter())),
        Op::AddChain(name, chain) => write_chain(f, name, chain),
        Op::FlushChain(name) => writeln!(f, "flush chain inet {TABLE} {name}"),
        Op::AddRules(name, chain) => {
            chain.rules.iter().try_for_each(|rule| writeln!(f, "add rule inet {TABLE} {name} {rule}"))
        }
        Op::AddMapElements(map, elements) => {
            let elements = elements
                .iter()
                .map(|(key, element)| format!("{key}{} : {}", comment(element.comment.as_ref(), ""), element.verdict));
            writeln!(f, "add element inet {TABLE} {map} {{ {} }}", list(elements))
        }
        Op::DeleteChain(name) => writeln!(f, "delete chain inet {TABLE} {name}"),
        Op::DeleteSet(name) => writeln!(f, "delete set inet {TABLE} {name}"),
        Op::DeleteMap(name) => writeln!(f, "delete map inet {TABLE} {name}"),
        Op::DeleteCounter(name) => writeln!(f, "delete counter inet {TABLE} {name}"),
    }
}

fn write_chain(f: &mut fmt::Formatter<'_>, name: &ChainName, chain: &Chain) -> fmt::Result {
    let base = chain.base.map_or_else(String::new, |base| {
        let hook = match base.hook {
            Hook::Input => "input",
            Hook::Forward => "forward",
        };
        let policy = match base.policy {
            ChainPolicy::Accept => "accept",
            ChainPolicy::Drop => "drop",
        };
        format!(" type filter hook {hook} priority {}; policy {policy};", base.priority)
    });
    writeln!(f, "add chain inet {TABLE} {name} {{{base}{} }}", comment(chain.comment.as_ref(), ";"))
}

fn comment(comment: Option<&Comment>, end: &str) -> String {
    comment.map_or_else(String::new, |comment| format!(" comment \"{comment}\"{end}"))
}

/// At most so many items that a line of a log stays a line.
fn list<T: fmt::Display>(items: impl ExactSizeIterator<Item = T>) -> String {
    const SHOWN: usize = 50;
    let more = items.len().saturating_sub(SHOWN);
    let mut text = items.take(SHOWN).map(|item| item.to_string()).collect::<Vec<_>>().join(", ");
    if more > 0 {
        text.push_str(&format!(", and {more} more"));
    }
    text
}
