//! A transaction as commands that `nft -f` would take, for people: long lists of elements are cut short.

use std::fmt;

use super::{Op, Transaction};
use crate::nft::{Chain, ChainName, Comment, KeyType, TABLE, TableFamily};

impl fmt::Display for Transaction {
    /// A command a line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.ops().iter().try_for_each(|op| write_op(f, op))
    }
}

fn write_op(f: &mut fmt::Formatter<'_>, op: &Op) -> fmt::Result {
    match op {
        Op::DestroyTables => {
            TableFamily::ALL.iter().try_for_each(|family| writeln!(f, "destroy table {family} {TABLE}"))
        }
        Op::AddTable(family) => writeln!(f, "add table {family} {TABLE}"),
        Op::DeleteTable(family) => writeln!(f, "delete table {family} {TABLE}"),
        Op::DeleteMapElements(map, keys) => {
            writeln!(f, "delete element {} {TABLE} {map} {{ {} }}", map.family(), list(keys.iter()))
        }
        Op::DeleteKeys(set, keys) => {
            writeln!(f, "delete element {} {TABLE} {set} {{ {} }}", set.family(), list(keys.iter()))
        }
        Op::AddCounter(name) => writeln!(f, "add counter {} {TABLE} {name}", name.family()),
        Op::AddSet(name, set) => {
            let flags = interval(set.key_type);
            let comment = comment(set.comment.as_ref(), ";");
            writeln!(f, "add set {} {TABLE} {name} {{ type {};{flags}{comment} }}", name.family(), set.key_type)
        }
        Op::AddMap(name, map) => {
            let flags = interval(map.key_type);
            let comment = comment(map.comment.as_ref(), ";");
            writeln!(
                f,
                "add map {} {TABLE} {name} {{ type {} : verdict;{flags}{comment} }}",
                name.family(),
                map.key_type
            )
        }
        Op::AddKeys(set, keys) => writeln!(f, "add element {} {TABLE} {set} {{ {} }}", set.family(), list(keys.iter())),
        Op::AddChain(name, chain) => write_chain(f, name, chain),
        Op::FlushChain(name) => writeln!(f, "flush chain {} {TABLE} {name}", name.family()),
        Op::AddRules(name, chain) => {
            chain.rules.iter().try_for_each(|rule| writeln!(f, "add rule {} {TABLE} {name} {rule}", name.family()))
        }
        Op::AddMapElements(map, elements) => {
            let elements = elements
                .iter()
                .map(|(key, element)| format!("{key}{} : {}", comment(element.comment.as_ref(), ""), element.verdict));
            writeln!(f, "add element {} {TABLE} {map} {{ {} }}", map.family(), list(elements))
        }
        Op::DeleteChain(name) => writeln!(f, "delete chain {} {TABLE} {name}", name.family()),
        Op::DeleteSet(name) => writeln!(f, "delete set {} {TABLE} {name}", name.family()),
        Op::DeleteMap(name) => writeln!(f, "delete map {} {TABLE} {name}", name.family()),
        Op::DeleteCounter(name) => writeln!(f, "delete counter {} {TABLE} {name}", name.family()),
    }
}

fn interval(key_type: KeyType) -> &'static str {
    if key_type.is_interval() { " flags interval;" } else { "" }
}

fn write_chain(f: &mut fmt::Formatter<'_>, name: &ChainName, chain: &Chain) -> fmt::Result {
    let base = chain.base.map_or_else(String::new, |base| format!(" {base}"));
    writeln!(f, "add chain {} {TABLE} {name} {{{base}{} }}", name.family(), comment(chain.comment.as_ref(), ";"))
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

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::sync::Arc;

    use super::*;
    use crate::nft::{BaseChain, ChainPolicy, Family, Hook, Key, Rule, Set, SetName, Stmt, Verdict};

    #[test]
    fn commands_are_those_of_nft() {
        let set = |last: u8| {
            let keys = (1..=last).map(|last| Key::V4(Ipv4Addr::new(10, 0, 0, last))).collect();
            let comment = Some(Comment::new("ns=shop"));
            Arc::new(Set { key_type: KeyType::Address(Family::V4), comment, keys: Arc::new(keys), filled: None })
        };
        let base = Some(BaseChain { hook: Hook::Forward, priority: 1, policy: ChainPolicy::Accept });
        let rules = vec![Rule { stmts: vec![Stmt::Counter, Stmt::Verdict(Verdict::Drop)], comment: None }];
        let chain = Arc::new(Chain { base, rules, ..Chain::default() });
        let (set_name, chain_name) = (SetName::from_kernel("s"), ChainName::from_kernel("c"));
        let ops = vec![
            Op::AddTable(TableFamily::Inet),
            Op::AddSet(set_name.clone(), set(2)),
            Op::AddKeys(set_name.clone(), set(2).keys.to_vec()),
            Op::AddChain(chain_name.clone(), chain.clone()),
            Op::AddRules(chain_name, chain),
        ];
        let expected = "\
add table inet postern
add set inet postern s { type ipv4_addr; comment \"ns=shop\"; }
add element inet postern s { 10.0.0.1, 10.0.0.2 }
add chain inet postern c { type filter hook forward priority 1; policy accept; }
add rule inet postern c counter drop
";
        assert_eq!(Transaction::new(ops, None).to_string(), expected);
        let many = Transaction::new(vec![Op::DeleteKeys(set_name, set(60).keys.to_vec())], None);
        assert!(many.to_string().ends_with("10.0.0.50, and 10 more }\n"), "{many}");
    }
}
