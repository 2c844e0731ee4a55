//! From an object of the table back to the policies that it was made for.

use std::collections::BTreeSet;

use super::Op;
use super::ahead::{chain_of, chains_of};
use crate::api::{Direction, PolicyKey};
use crate::nft::{ChainName, Key, MapElement, SetName, Table, sets_of};

/// The policies for which an operation is done: whose chain it touches, or whose rules look into the set that it
/// touches, or to whose chain the elements and lists lead that it touches, in either of the tables before and after. None
/// where it is about what every table has.
pub fn policies_behind<'a>(
    op: &Op,
    tables: &[&Table],
    policies: impl IntoIterator<Item = &'a PolicyKey>,
) -> BTreeSet<&'a PolicyKey> {
    let object = match Object::of(op) {
        Some(object) => object,
        None => return BTreeSet::new(),
    };
    let led_to = object.leads_to(tables);
    let is_behind = |key: &&PolicyKey| {
        Direction::ALL.iter().any(|direction| {
            let chain = ChainName::of_policy(*direction, key);
            match object {
                Object::Chain(_) | Object::Elements(_) | Object::Map(_) => led_to.contains(&chain),
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
    Map(&'a SetName),
    Elements(&'a [(Key, MapElement)]),
}

impl<'o> Object<'o> {
    fn of(op: &'o Op) -> Option<Object<'o>> {
        match op {
            Op::AddChain(name, _) | Op::FlushChain(name) | Op::AddRules(name, _) | Op::DeleteChain(name) => {
                Some(Object::Chain(name))
            }
            Op::AddSet(name, _) | Op::AddKeys(name, _) | Op::DeleteKeys(name, _) | Op::DeleteSet(name) => {
                Some(Object::Set(name))
            }
            Op::AddMap(name, _) | Op::DeleteMap(name) | Op::DeleteMapElements(name, _) => Some(Object::Map(name)),
            Op::AddMapElements(_, elements) => Some(Object::Elements(elements)),
            Op::DestroyTables | Op::AddTable(_) | Op::DeleteTable(_) | Op::AddCounter(_) | Op::DeleteCounter(_) => None,
        }
    }

    /// The chain itself, or those to which elements lead, and all to which lists among them lead.
    fn leads_to<'a>(&self, tables: &[&'a Table]) -> BTreeSet<&'a ChainName>
    where
        'o: 'a,
    {
        let mut chains: BTreeSet<&'a ChainName> = match *self {
            Object::Chain(name) => BTreeSet::from([name]),
            Object::Set(_) => BTreeSet::new(),
            Object::Map(name) => {
                let maps = tables.iter().filter_map(|table| table.maps.get(name));
                maps.flat_map(|map| map.elements.values()).filter_map(|element| chain_of(&element.verdict)).collect()
            }
            Object::Elements(elements) => {
                elements.iter().filter_map(|(_, element)| chain_of(&element.verdict)).collect()
            }
        };
        let lists: Vec<&ChainName> = chains.iter().copied().filter(|chain| chain.is_of_list()).collect();
        for table in tables {
            chains.extend(lists.iter().filter_map(|list| table.chains.get(*list)).flat_map(|list| chains_of(list)));
        }
        chains
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nft::{Deny, Lowerer, TableFamily, lower};
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

    #[test]
    fn what_leads_to_policies_is_theirs() {
        let naming = |key: &str, peers| policy(key).ingress([rule().peers(peers)]);
        let ir = ir([
            pod("a/web").labels("app=web").ip("10.0.0.1").into(),
            pod("a/db").labels("app=db").ip("10.0.0.2").into(),
            naming("a/p", vec![pods_of("a", "app=web")]).into(),
            naming("a/q", vec![pods_of("a", "")]).into(),
            naming("a/r", vec![block("10.0.0.0/8", &[])]).into(),
        ]);
        let table = Lowerer::new(Deny::Drop).with_most_jumps(0).lower(&ir);
        let behind = |op: &Op| {
            let keys = policies_behind(op, &[&table], ir.policies.keys());
            keys.into_iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
        };
        let list = table.chains.iter().find(|(name, _)| name.is_of_list()).expect("two policies name one pod");
        assert_eq!(behind(&Op::AddRules(list.0.clone(), list.1.clone())), "a/p a/q");
        let mut seen = BTreeSet::new();
        for (name, map) in &table.maps {
            let kind = name.as_str().split('-').nth(1).expect("names have parts");
            let whole = match kind {
                "peers" => "a/p a/q",
                "blocks" => "a/r",
                _ => "",
            };
            seen.insert(kind);
            assert_eq!(behind(&Op::AddMap(name.clone(), map.clone())), whole, "{name}");
            for (key, element) in map.elements.iter().filter(|_| kind == "peers") {
                let expected = if key.to_string() == "10.0.0.1" { "a/p a/q" } else { "a/q" };
                let op = Op::AddMapElements(name.clone(), vec![(*key, element.clone())]);
                assert_eq!(behind(&op), expected, "{name} {key}");
            }
        }
        assert_eq!(seen, BTreeSet::from(["blocks", "peers", "pods"]));
    }
}
