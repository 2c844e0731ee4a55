//! What it costs to tell of refused packets: as a ratio to a table that tells nobody, in one run.
//!
//! Two nodes have the same policy, which lets a pod receive nothing. One tells of what it refuses, and somebody listens;
//! the other does not. What is counted is the time of the sender, in whose context the kernel forwards and refuses: of
//! datagrams to one address, as of a client that tries again and again, and to ever other ones of the node's pods' range,
//! as of a scan.
//!
//! `cargo bench -p integration --bench denials`

#![allow(clippy::unwrap_used, reason = "what fails in a benchmark is to stop it there")]
#![allow(clippy::print_stdout, reason = "what was measured")]

use std::net::{Ipv4Addr, UdpSocket};
use std::thread;

use compiler::Compiler;
use compiler::api::{NodeName, PodWire, parse_network_policy};
use compiler::cluster::{Change, Event, PodSource};
use compiler::diff::{Limits, next};
use compiler::nft::{Deny, LogGroup};
use integration::series::Timings;
use lab::{Attachment, Lab, Node, Pod, Topology, enter};
use netlink::log::LogReader;
use netlink::{Connection, Ownership};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use serde_json::json;

/// Series are measured one after the other, so many times, so that what disturbs one disturbs them all.
const ROUNDS: usize = 400;
/// How many datagrams make one measurement.
const DATAGRAMS: u16 = 500;

/// Datagrams of one kind, and what they took, in nanoseconds each.
struct Series {
    node: usize,
    is_scan: bool,
    socket: UdpSocket,
    measured: Timings,
    sent: u16,
}

fn main() {
    // While there is one thread only.
    enter().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let lab = runtime.block_on(Lab::build(topology())).unwrap();
    let mut series = Vec::new();
    for node in 0..2 {
        let group = (node == 1).then(LogGroup::default);
        lab.node(node).unwrap().run(|| load(node, group)).unwrap();
        for is_scan in [false, true] {
            let netns = lab.pod(&id("jail", node)).unwrap();
            let socket = netns.run(|| UdpSocket::bind((address("jail", node), 0)).unwrap()).unwrap();
            series.push(Series { node, is_scan, socket, measured: Timings::default(), sent: 0 });
        }
    }
    let mut log = lab.node(1).unwrap().run(|| LogReader::open(LogGroup::default()).unwrap()).unwrap();
    thread::spawn(move || while log.read(|_| {}).is_ok() {});
    // One CPU's caches, and no moves between them.
    let mut one = CpuSet::new();
    one.set(0).unwrap();
    sched_setaffinity(Pid::from_raw(0), &one).unwrap();
    for _ in 0..ROUNDS {
        series.iter_mut().for_each(Series::measure);
    }
    for (name, is_scan) in [("to one address", false), ("to ever other ones", true)] {
        let cost =
            |node| series.iter().find(|s| s.node == node && s.is_scan == is_scan).unwrap().measured.undisturbed();
        println!("a refused datagram {name}: {:.0} ns untold, {:.2} times that told", cost(0), cost(1) / cost(0));
    }
}

fn topology() -> Topology {
    let node =
        |index: u8| Node { name: format!("node-{index}"), addresses: vec![Ipv4Addr::new(192, 168, index, 1).into()] };
    let pod =
        |name: &str, index| Pod { id: id(name, index), node: index, addresses: vec![address(name, index).into()] };
    let pods = (0..2).flat_map(|index| ["jail", "free"].map(|name| pod(name, index))).collect();
    Topology { attachment: Attachment::Routed, nodes: vec![node(0), node(1)], pods, outside: Vec::new() }
}

fn id(name: &str, node: usize) -> String {
    format!("{name}-{node}")
}

fn address(name: &str, node: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, u8::try_from(node).unwrap(), if name == "jail" { 1 } else { 2 })
}

/// Commits, in the thread's network namespace, what lets the first pod of a node send nothing.
fn load(node: usize, log: Option<LogGroup>) {
    let mut compiler = Compiler::new(NodeName("here".into()), Deny::Drop).logging(log);
    let pod = json!({"metadata": {"name": "jail", "namespace": "a"}, "spec": {"nodeName": "here"},
        "status": {"phase": "Running", "podIPs": [{"ip": address("jail", node)}]}});
    let pod = serde_json::from_value::<PodWire>(pod).unwrap().parse().value;
    compiler.apply(Event::Pods(PodSource::Cluster, Change::Applied(pod)));
    let policy = json!({"metadata": {"name": "jail", "namespace": "a"},
        "spec": {"podSelector": {}, "policyTypes": ["Egress"]}});
    compiler.apply(Event::Policies(Change::Applied(parse_network_policy(&policy.into()).value)));
    let mut connection = Connection::open(Ownership::Plain).unwrap();
    let mut mirror = connection.dump().unwrap();
    let table = compiler.table();
    while let Some(transaction) = next(&table, &mirror, Limits::default()) {
        let committed = connection.commit(&transaction, mirror.generation).unwrap();
        mirror.committed(transaction, committed.generation);
    }
}

impl Series {
    fn measure(&mut self) {
        let to = |n: u16| {
            let [a, b] = n.to_be_bytes();
            // The node has a route for all of them: its default one.
            if self.is_scan { Ipv4Addr::new(10, 200, a, b) } else { address("free", self.node) }
        };
        let Series { socket, sent, .. } = self;
        self.measured.measure(DATAGRAMS, || {
            *sent = sent.wrapping_add(1);
            socket.send_to(b"?", (to(*sent), 7)).unwrap();
        });
    }
}
