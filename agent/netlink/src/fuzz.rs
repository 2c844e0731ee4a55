//! What fuzzers call with bytes of any kind: the ways on which the kernel's bytes come in.
//!
//! No bytes may make these panic, hang or take memory out of proportion. Behind the feature `fuzz`, for the targets in
//! the folder `fuzz`; the tests here replay what fuzzers found worth keeping.

use std::net::Ipv4Addr;
use std::sync::Arc;

use compiler::api::PortRange;
use compiler::diff::{Generation, Limits, Mirror, Op, Transaction, next};
use compiler::nft::{
    Chain, ChainName, Family, Key, KeyType, MapElement, Rule, Set, SetName, Stmt, Table, TableFamily, Verdict,
};

use crate::batch::{Answers, Batch, Buffers};
use crate::connection::answer;
use crate::conntrack;
use crate::encode::{Context, Held, encode};
use crate::message::Messages;
use crate::{Decoded, Decoder, Encoder, Error};

/// Reads bytes as a dump. A table that is found to be ours, and nothing but ours, must be written and read back equal.
pub fn decode(bytes: &[u8]) {
    let mut decoder = Decoder::default();
    decoder.datagram(bytes);
    let Decoded { table: Some(table), foreign, is_torn: false } = decoder.finish() else { return };
    if foreign.is_empty() {
        assert_eq!(written_and_read(&table), Decoded { table: Some(table), foreign, is_torn: false });
    }
}

/// Reads bytes as the kernel's answers to a batch, and names what was refused.
pub fn answers(bytes: &[u8]) {
    let transaction = transaction();
    let mut batch = Batch::begin(Buffers::default(), 1, Some(Generation(1)));
    encode(&mut batch, &transaction, Context { table_flags: 0, held: Held::default() });
    let batch = batch.finalize();
    let mut answers = Answers::default();
    for message in Messages::new(bytes) {
        // A dump ends with the same messages.
        message.end();
        if let Some(ack) = message.ack() {
            batch.answer(ack, &mut answers);
        }
    }
    let refusals = answers.refused.into_iter();
    let refusals = refusals.map(|(slot, errno, at)| answer::refusal(&transaction, slot, errno, at, &batch)).collect();
    assert!(!Error::Refused(refusals).to_string().is_empty());
}

/// Reads bytes as a dump of connection tracking.
pub fn flows(bytes: &[u8]) {
    for message in Messages::new(bytes) {
        std::hint::black_box((conntrack::flow(&message), conntrack::entry(&message)));
    }
}

/// The table as it comes back when it is written by as many transactions as it takes.
fn written_and_read(table: &Table) -> Decoded {
    let mut mirror = Mirror { table: None, generation: Generation(1), foreign: Vec::new() };
    let (mut encoder, mut decoder) = (Encoder::default(), Decoder::default());
    while let Some(transaction) = next(table, &mirror, Limits::default()) {
        let is_first = mirror.table.is_none();
        decoder.datagram(encoder.encode(&transaction, Generation(1)));
        mirror.committed(transaction, Generation(1));
        assert!(is_first || mirror.table.is_some(), "a table that is being made is not taken away");
    }
    decoder.finish()
}

/// A transaction with all that an answer can point at: a rule, an address, one end of a range, an element of a map.
fn transaction() -> Transaction {
    let [set, ports, map] = ["addresses", "ports", "pods"].map(SetName::from_kernel);
    let chain = ChainName::from_kernel("chain");
    let address = |last| Key::V4(Ipv4Addr::new(10, 0, 0, last));
    let range = |first, last| Key::Ports(PortRange { first, last });
    let of_type = |key_type| Arc::new(Set { key_type, comment: None, keys: Arc::default(), filled: None });
    let accept = Rule { stmts: vec![Stmt::Verdict(Verdict::Accept)], comment: None };
    let rules = Chain { rules: vec![accept.clone(), accept], ..Chain::default() };
    let ops = vec![
        Op::AddTable(TableFamily::Inet),
        Op::AddSet(set.clone(), of_type(KeyType::Address(Family::V4))),
        Op::AddSet(ports.clone(), of_type(KeyType::PortRange)),
        Op::AddKeys(set.clone(), (1..9).map(address).collect()),
        Op::AddKeys(ports.clone(), vec![range(80, 90), range(443, 443), range(65000, 65535)]),
        Op::DeleteKeys(ports, vec![range(80, 90)]),
        Op::AddRules(chain.clone(), Arc::new(rules)),
        Op::AddMapElements(map.clone(), vec![(address(1), MapElement { verdict: Verdict::Drop, comment: None })]),
        Op::DeleteMapElements(map, vec![address(1)]),
        Op::DeleteChain(chain),
        Op::DeleteSet(set),
    ];
    Transaction::new(ops, None)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::panic;
    use std::path::{Path, PathBuf};

    /// Calls `target` with every file that is kept for it. A fuzzer leaves what it breaks on in `artifacts`.
    #[track_caller]
    fn replay(name: &str, target: fn(&[u8])) {
        let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
        let kept = fs::read_dir(fuzz.join("corpus").join(name)).unwrap();
        let broken = fs::read_dir(fuzz.join("artifacts").join(name)).into_iter().flatten();
        let paths: Vec<PathBuf> = kept.chain(broken).map(|entry| entry.unwrap().path()).collect();
        assert!(paths.len() >= 10, "only {} files are kept for {name}", paths.len());
        let passes = |path: &Path| panic::catch_unwind(|| target(&fs::read(path).unwrap())).is_ok();
        let failed: Vec<&PathBuf> = paths.iter().filter(|path| !passes(path)).collect();
        assert!(failed.is_empty(), "{failed:?}");
    }

    #[test]
    fn what_is_kept_decodes() {
        replay("decode", super::decode);
    }

    #[test]
    fn what_is_kept_answers() {
        replay("answers", super::answers);
    }

    #[test]
    fn what_is_kept_tells_flows() {
        replay("flows", super::flows);
    }
}
