//! From an object of the table back to the policies that it was made for.

use std::collections::BTreeSet;

use super::Op;
use crate::api::{Direction, PolicyKey};
use crate::nft::{ChainName, SetName, Table, sets_of};

/// The policies for which an operation is done: whose chain it touches, or whose rules look into the set that it
/// touches, in either of the tables before and after. None where it is about what every table has.
pub fn policies_behind<'a>(
    op: &Op,
    tables: &[&Table],
    policies: impl IntoIterator<Item = &'a PolicyKey>,
) -> BTreeSet<&'a PolicyKey> {
    let object = match Object::of(op) {
        Some(object) => object,
        None => return BTreeSet::new(),
    };
    let is_behind = |key: &&PolicyKey| {
        Direction::ALL.iter().any(|direction| {
            let chain = ChainName::of_policy(*direction, key);
            match object {
                Object::Chain(name) => *name == chain,
                Object::Set(name) => {
                    let versions = tables.iter().filter_map(|table| table.chains.get(&chain));
                    versions.into_iter().any(|chain| sets_of(chain).any(|set| set == name))
                }
            }
        })
    };
    policies.into_iter().filter(is_behind).collect()
}

/// What an operation touches.
#[derive(Clone, Copy)]
enum Object<'a> {
    Chain(&'a ChainName),
    Set(&'a SetName),
}

impl Object<'_> {
    fn of(op: &Op) -> Option<Object<'_>> {
        match op {
            Op::AddChain(name, _) | Op::FlushChain(name) | Op::AddRules(name, _) | Op::DeleteChain(name) => {
                Some(Object::Chain(name))
            }
            Op::AddSet(name, _) | Op::AddKeys(name, _) | Op::DeleteKeys(name, _) | Op::DeleteSet(name) => {
                Some(Object::Set(name))
            }
            Op::DestroyTables
            | Op::AddTable(_)
            | Op::DeleteTable(_)
            | Op::AddCounter(_)
            | Op::DeleteCounter(_)
            | Op::AddMap(..)
            | Op::DeleteMap(_)
            | Op::AddMapElements(..)
            | Op::DeleteMapElements(..) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nft::{Deny, TableFamily, lower};
    use crate::testing::{block, ir, pod, pods_of, policy, rule};

    #[test]
    fn an_operation_leads_to_the_policies_that_want_it() {
        let naming = |key: &str, peer| policy(key).ingress([rule().peers([pods_of("a", ""), peer])]);
        let ir = ir([
            pod("a/web").ip("10.0.0.1").into(),
            naming("a/p", block("10.0.0.0/8", &[])).into(),
            naming("a/q", block("192.168.0.0/16", &[])).into(),
        ]);
        let table = lower(&ir, Deny::Drop);
        let behind = |op: &Op| {
            let keys = policies_behind(op, &[&table], ir.policies.keys());
            keys.into_iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
        };
        for (name, chain) in &table.chains {
            let of_policy = name.as_str().split_once("-np-").map(|(_, rest)| rest[17..].to_owned());
            let op = Op::AddRules(name.clone(), chain.clone());
            assert_eq!(behind(&op), of_policy.unwrap_or_default(), "{name}");
        }
        for (name, set) in &table.sets {
            let comment = set.comment.as_ref().map(ToString::to_string).unwrap_or_default();
            let expected = match comment.as_str() {
                "10.0.0.0/8" => "a/p",
                "192.168.0.0/16" => "a/q",
                "ns=a pods{}" => "a/p a/q",
                _ => "",
            };
            assert_eq!(behind(&Op::AddSet(name.clone(), set.clone())), expected, "{name}");
        }
        assert_eq!(behind(&Op::AddTable(TableFamily::Inet)), "");
    }
}
