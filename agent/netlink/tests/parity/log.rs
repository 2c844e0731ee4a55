//! What the kernel tells of refused packets: by compiled tables, on loopback.

use std::collections::BTreeMap;
use std::net::{IpAddr, UdpSocket};
use std::sync::Arc;

use compiler::nft::{CounterName, Deny, Filled, LogGroup, Refusal, Set, Table, TableFamily, unlogged_counter};
use compiler::sim::Cluster;
use netlink::log::LogReader;
use serde_json::json;

use super::support::{commit_new, give_up_capabilities, ip, nft, open};

/// A node whose two pods may send nothing; their addresses are the node's here.
fn table() -> Table {
    let pod = |name: &str, addresses: &[&str]| {
        let ips: Vec<_> = addresses.iter().map(|ip| json!({"ip": ip})).collect();
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "a"},
            "spec": {"nodeName": "n"}, "status": {"phase": "Running", "podIPs": ips}})
    };
    let policy = json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": "shut", "namespace": "a"}, "spec": {"podSelector": {}, "policyTypes": ["Egress"]}});
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}});
    let objects = vec![node, pod("noisy", &["10.1.0.2", "fd00::2"]), pod("quiet", &["10.1.0.3"]), policy];
    let mut compiled = Cluster { objects }.compile(Deny::Drop);
    compiled.remove("n").unwrap().table
}

fn send(from: &str, to: &str, port: u16) {
    let (from, to): (IpAddr, IpAddr) = (from.parse().unwrap(), to.parse().unwrap());
    let socket = UdpSocket::bind((from, 0)).unwrap();
    socket.send_to(b"x", (to, port)).unwrap();
}

fn up() {
    ip(&["link", "set", "lo", "up"]);
    for address in ["10.1.0.2/32", "10.1.0.3/32", "fd00::2/128"] {
        ip(&["address", "add", address, "dev", "lo"]);
    }
}

fn packets(counter: &CounterName) -> u64 {
    open().counters().unwrap()[counter].packets
}

/// Reads packets until one is to this last byte of an address, and counts them by source and destination.
fn told(log: &mut LogReader, last: u8) -> BTreeMap<(u8, u8), usize> {
    let mut found = BTreeMap::new();
    while !found.keys().any(|(_, to)| *to == last) {
        let before: usize = found.values().sum();
        let lost = log.read(|logged| {
            assert_eq!(logged.prefix, "postern: policy egress");
            assert!(logged.input.is_some() && logged.port.is_none());
            let (source, destination) = match logged.packet[0] >> 4 {
                4 => (logged.packet[15], logged.packet[19]),
                _ => (logged.packet[23], logged.packet[39]),
            };
            *found.entry((source, destination)).or_default() += 1;
        });
        assert_eq!(lost.unwrap(), 0);
        assert!(found.values().sum::<usize>() > before, "nothing more comes: {found:?}");
    }
    found
}

pub(crate) fn a_flood_hides_nobody_and_is_counted() {
    up();
    commit_new(&mut open(), &table());
    let mut log = LogReader::open(LogGroup::default()).unwrap();
    // To many ports of one address, to more addresses than an end may bring in, and what others send.
    for port in 1..=200 {
        send("10.1.0.2", "127.0.0.10", port);
    }
    for to in 20..=120 {
        send("10.1.0.2", &format!("127.0.0.{to}"), 9);
    }
    send("fd00::2", "::1", 9);
    send("10.1.0.3", "127.0.0.250", 9);
    let found = told(&mut log, 250);
    assert_eq!(found[&(3, 250)], 1, "{found:?}");
    assert_eq!(found[&(2, 1)], 1, "{found:?}");
    // A token or two more come while this runs.
    assert!((10..20).contains(&found[&(2, 10)]), "{found:?}");
    let new = found.keys().filter(|(from, to)| *from == 2 && *to >= 20).count();
    assert!((29..40).contains(&new), "{found:?}");
    let all: usize = found.values().sum();
    assert_eq!(packets(&unlogged_counter(TableFamily::Inet)), 303 - all as u64);
    assert_eq!(packets(&Refusal::Policy(compiler::api::Direction::Egress).counter()), 303);
}

pub(crate) fn what_finds_no_room_is_refused_all_the_same() {
    up();
    let mut table = table();
    for (name, set) in table.sets.clone() {
        if let Some(filled) = set.filled {
            let filled = Some(Filled { size: 1, ..filled });
            table.sets.insert(name, Arc::new(Set { filled, ..Set::clone(&set) }));
        }
    }
    commit_new(&mut open(), &table);
    let mut log = LogReader::open(LogGroup::default()).unwrap();
    let receiver = UdpSocket::bind("0.0.0.0:9").unwrap();
    receiver.set_nonblocking(true).unwrap();
    for to in 20..=80 {
        send("10.1.0.2", &format!("127.0.0.{to}"), 9);
        send("10.1.0.3", &format!("127.0.0.{to}"), 9);
    }
    // That a set is full is all that keeps the others from being told of.
    assert_eq!(told(&mut log, 20).len(), 1);
    assert_eq!(packets(&Refusal::Policy(compiler::api::Direction::Egress).counter()), 122);
    assert_eq!(packets(&unlogged_counter(TableFamily::Inet)), 121);
    assert!(receiver.recv(&mut [0]).is_err(), "nothing came through");
}

pub(crate) fn what_packets_fill_is_no_drift() {
    up();
    let table = table();
    commit_new(&mut open(), &table);
    for to in 20..=30 {
        send("10.1.0.2", &format!("127.0.0.{to}"), 9);
    }
    assert!(nft(&["list", "set", "inet", "postern", "denials-v4"]).contains("10.1.0.2 . 127.0.0.20"));
    let mirror = open().dump().unwrap();
    assert_eq!((mirror.table, mirror.foreign), (Some(table), vec![]));
}

pub(crate) fn one_socket_listens_to_a_group() {
    let first = LogReader::open(LogGroup(77)).unwrap();
    assert!(LogReader::open(LogGroup(77)).unwrap_err().is_busy());
    LogReader::open(LogGroup(78)).unwrap();
    drop(first);
    LogReader::open(LogGroup(77)).unwrap();
    give_up_capabilities();
    let error = LogReader::open(LogGroup(79)).unwrap_err();
    assert!(error.is_permission() && !error.is_busy(), "{error:?}");
}
