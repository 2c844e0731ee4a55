//! Big tables.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use compiler::diff::{Op, Transaction};
use compiler::nft::{Chain, Family, Key, KeyType, Stmt, Table, TableFamily, Verdict, VerdictMap};

use netlink::Connection;

use super::support::{commit_new, open};
use super::tables::{chain_name, element, everything, rule, set, set_name, v4};

const MANY: u32 = 100_000;

fn big() -> Table {
    let mut table = Table::default();
    table.sets.insert(set_name("big"), Arc::new(set(KeyType::Address(Family::V4), (0..MANY).map(v4).collect())));
    table
}

/// Without the two tables in the message.
#[track_caller]
fn check(connection: &mut Connection, expected: &Table) {
    let found = connection.dump().unwrap();
    assert!(found.foreign.is_empty() && found.table.as_ref() == Some(expected), "the table is not what was committed");
}

pub(crate) fn a_hundred_thousand_keys_in_one_batch() {
    let mut connection = open();
    commit_new(&mut connection, &big());
    check(&mut connection, &big());
}

pub(crate) fn a_hundred_thousand_keys_in_chunks() {
    let mut connection = open();
    let table = big();
    let set = &table.sets[&set_name("big")];
    let generation = connection.generation().unwrap();
    let begin =
        Transaction::new(vec![Op::AddTable(TableFamily::Inet), Op::AddSet(set_name("big"), Arc::clone(set))], None);
    let mut generation = connection.commit(&begin, generation).unwrap().generation;
    for keys in set.keys.chunks(10_000) {
        let add = Transaction::new(vec![Op::AddKeys(set_name("big"), keys.to_vec())], None);
        generation = connection.commit(&add, generation).unwrap().generation;
    }
    check(&mut connection, &table);
}

pub(crate) fn thousands_of_rules_and_elements() {
    let mut table = everything();
    let mut elements = BTreeMap::new();
    for pod in 0..2000 {
        let name = chain_name(&format!("pod-{pod}-{}", "x".repeat(200)));
        let rules = table.chains[&chain_name("b-main")].rules.iter().take(4).cloned();
        let mut chain = Chain { rules: rules.collect(), ..Chain::default() };
        chain.rules.push(rule(vec![Stmt::Verdict(Verdict::Drop)]));
        table.chains.insert(name.clone(), Arc::new(chain));
        // The longest elements: a long name beside the longest comment.
        elements.insert(v4(pod), element(Verdict::Goto(name), Some(&"c".repeat(127))));
    }
    let map = VerdictMap { key_type: KeyType::Address(Family::V4), comment: None, elements: Arc::new(elements) };
    table.maps.insert(set_name("pods-v4"), Arc::new(map));
    let mut connection = open();
    commit_new(&mut connection, &table);
    check(&mut connection, &table);
}

/// Ends the writer also where the reader fails: the scope waits for it.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A dump is of one generation, whoever writes meanwhile: the writer only ever holds one key of two.
pub(crate) fn dumps_hold_together_beside_a_writer() {
    let mut writer = open();
    let mut reader = open();
    let mut table = everything();
    let keys: Vec<Key> = (100..3000).map(v4).collect();
    table.sets.insert(set_name("moving"), Arc::new(set(KeyType::Address(Family::V4), keys.clone())));
    let mut generation = commit_new(&mut writer, &table);
    // So seldom that a dump fits in between, however slow the machine is.
    let begun = Instant::now();
    reader.dump().unwrap();
    let pause = (8 * begun.elapsed()).max(Duration::from_millis(40));
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _stop = StopOnDrop(&stop);
        scope.spawn(|| {
            let (mut from, mut to) = (keys[0], v4(5000));
            while !stop.load(Ordering::Relaxed) {
                let moved =
                    vec![Op::DeleteKeys(set_name("moving"), vec![from]), Op::AddKeys(set_name("moving"), vec![to])];
                generation = writer.commit(&Transaction::new(moved, None), generation).unwrap().generation;
                (from, to) = (to, from);
                std::thread::sleep(pause);
            }
        });
        for _ in 0..20 {
            let mirror = reader.dump().unwrap();
            let found = Arc::clone(&mirror.table.unwrap().sets[&set_name("moving")].keys);
            assert_eq!(found.len(), keys.len(), "each key once, and none missing");
            let moved = found.iter().filter(|key| **key == keys[0] || **key == v4(5000)).count();
            assert_eq!(moved, 1);
        }
    });
}
