//! The codec without a kernel: one change, and ten thousand keys both ways.

use std::hint::black_box;
use std::net::Ipv4Addr;
use std::sync::Arc;

use compiler::diff::{Generation, Op, Transaction};
use compiler::nft::{Family, Key, KeyType, Set, SetName, Table, TableFamily};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use netlink::{Decoder, Encoder};

const KEYS: u32 = 10_000;

fn keys() -> Vec<Key> {
    (0..KEYS).map(|key| Key::V4(Ipv4Addr::from_bits(0x0a00_0000 + key))).collect()
}

fn one_change(criterion: &mut Criterion) {
    let transaction = Transaction::new(vec![Op::AddKeys(SetName::from_kernel("pods-v4"), keys()[..1].to_vec())], None);
    let mut encoder = Encoder::default();
    criterion.bench_function("encode one key", |bencher| {
        bencher.iter(|| encoder.encode(black_box(&transaction), Generation(1)).len());
    });
}

fn ten_thousand_keys(criterion: &mut Criterion) {
    let name = SetName::from_kernel("pods-v4");
    let set = Set { key_type: KeyType::Address(Family::V4), comment: None, keys: Arc::new(keys()), filled: None };
    let mut table = Table::default();
    table.sets.insert(name.clone(), Arc::new(set.clone()));
    let ops = vec![Op::AddTable(TableFamily::Inet), Op::AddSet(name.clone(), Arc::new(set)), Op::AddKeys(name, keys())];
    let transaction = Transaction::new(ops, Some(table));

    let mut group = criterion.benchmark_group("ten thousand keys");
    group.throughput(Throughput::Elements(KEYS.into()));
    let mut encoder = Encoder::default();
    group.bench_function("encode", |bencher| {
        bencher.iter(|| encoder.encode(black_box(&transaction), Generation(1)).len());
    });
    // A batch holds the same messages as a dump.
    let bytes = encoder.encode(&transaction, Generation(1)).to_vec();
    group.bench_function("decode", |bencher| {
        bencher.iter(|| {
            let mut decoder = Decoder::default();
            decoder.datagram(black_box(&bytes));
            decoder.finish()
        });
    });
    group.finish();
}

criterion_group!(benches, one_change, ten_thousand_keys);
criterion_main!(benches);
