//! The codec without a kernel: what is written is read back equal, and so is what a kernel once answered.

#![allow(clippy::unwrap_used, reason = "what fails in a test is to stop it there")]

#[path = "parity/tables.rs"]
mod tables;

use std::fs;
use std::path::Path;

use compiler::diff::{Generation, Limits, Mirror, next};
use compiler::nft::{Deny, Table};
use compiler::sim::generate::clusters_with_sandboxes;
use netlink::{Decoded, Decoder, Encoder};
use proptest::prelude::*;

/// Writes a table where there is none, by as many transactions as the agent takes, and reads those bytes.
fn written_and_read(table: &Table, limits: Limits) -> Decoded {
    let mut mirror = Mirror { table: None, generation: Generation(1), foreign: Vec::new() };
    let (mut encoder, mut decoder) = (Encoder::default(), Decoder::default());
    while let Some(transaction) = next(table, &mirror, limits) {
        decoder.datagram(encoder.encode(&transaction, mirror.generation));
        mirror.committed(transaction, Generation(1));
    }
    decoder.finish()
}

#[track_caller]
fn assert_comes_back(table: &Table, limits: Limits) {
    let Decoded { table: found, foreign, is_torn } = written_and_read(table, limits);
    assert_eq!((foreign, is_torn), (vec![], false), "{table}");
    assert!(found.as_ref() == Some(table), "{table}\n{}", found.unwrap_or_default());
}

#[test]
fn everything_comes_back() {
    for weight in [1, 10_000] {
        assert_comes_back(&tables::everything(), Limits { weight, ..Limits::default() });
    }
}

#[test]
fn compiled_tables_come_back() {
    let mut bytes = 0;
    for (cluster, deny) in clusters_with_sandboxes(12).take(300).zip([Deny::Drop, Deny::Reject].into_iter().cycle()) {
        for compiled in cluster.compile(deny).into_values() {
            assert_comes_back(&compiled.table, Limits::default());
            bytes += compiled.table.to_string().len();
        }
    }
    assert!(bytes > 1_000_000, "only {bytes} bytes of nft text were tried");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn tables_of_any_shape_come_back(
        (sets, keys, chains) in (0u8..6, 0u16..700, 0u8..8),
        picks in prop::collection::vec(any::<u16>(), 0..40),
    ) {
        assert_comes_back(&tables::shaped(sets, keys, chains, &picks), Limits::default());
    }
}

/// The dumps are of Linux 6.18 on a machine with the same byte order. How they are taken: see `kept_dumps_are_of_this_kernel`.
#[test]
#[cfg(target_endian = "little")]
fn dumps_of_a_kernel_are_read() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dumps");
    let mut count = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "bin") {
            let expected = fs::read_to_string(path.with_extension("txt")).unwrap();
            assert_eq!(tables::read(&fs::read(&path).unwrap()), expected, "{}", path.display());
            count += 1;
        }
    }
    assert!(count >= 4, "only {count} dumps");
}
