//! What it takes to read the table of connection tracking, by how many flows are in it.
//!
//! The flows are datagrams over loopback in namespaces of the benchmark's own.

#![allow(clippy::unwrap_used, reason = "what fails in a benchmark is to stop it there")]

use std::fs;
use std::net::{Ipv4Addr, UdpSocket};
use std::process::Command;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group};
use netlink::conntrack::flows;
use netlink::expr::{CtKey, Expr, Register};
use netlink::{ChainKind, Connection, Ownership, RawBase, RawBatch, RawHook};
use nix::sched::{CloneFlags, unshare};

/// Makes the process root of namespaces of its own, in which the kernel tracks connections and forgets none.
fn enter_namespaces() {
    let (uid, gid) = (nix::unistd::getuid(), nix::unistd::getgid());
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET).unwrap();
    fs::write("/proc/self/setgroups", "deny").unwrap();
    fs::write("/proc/self/uid_map", format!("0 {uid} 1")).unwrap();
    fs::write("/proc/self/gid_map", format!("0 {gid} 1")).unwrap();
    assert!(Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap().success());
    let base = RawBase { kind: ChainKind::Filter, hook: RawHook::Output, priority: 0 };
    let looks = vec![Expr::Ct { key: CtKey::State, dreg: Register::R1 }];
    let track = RawBatch::new("track").add_table().add_chain("output", Some(base)).add_rule("output", looks, None);
    Connection::open(Ownership::Plain).unwrap().commit_raw(&track).unwrap();
    fs::write("/proc/sys/net/netfilter/nf_conntrack_udp_timeout", "86400").unwrap();
}

fn count() -> u32 {
    let mut count = 0;
    assert!(flows(|_| count += 1).unwrap());
    count
}

fn dump(criterion: &mut Criterion) {
    let (server, client) = (UdpSocket::bind("0.0.0.0:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
    let port = server.local_addr().unwrap().port();
    let mut group = criterion.benchmark_group("flows");
    group.sample_size(20);
    let mut sent = 0;
    for size in [0, 10_000, 100_000] {
        for last in sent..size {
            client.send_to(b"?", (Ipv4Addr::from_bits(0x7f01_0000 + last), port)).unwrap();
        }
        sent = size;
        assert_eq!(count(), size);
        group.throughput(Throughput::Elements(size.into()));
        group.bench_function(BenchmarkId::from_parameter(size), |bencher| bencher.iter(count));
    }
    group.finish();
}

criterion_group!(benches, dump);

fn main() {
    // While there is one thread only.
    enter_namespaces();
    benches();
    Criterion::default().configure_from_args().final_summary();
}
