//! What it costs that packets are judged by where they come from, and not by their address alone: as a ratio to a table that
//! knows nothing of links, in one run.
//!
//! Each node has the same policy, which lets a pod receive datagrams from another one. Of those where links lead to pods, one
//! knows nothing besides; one checks the sources of what begins a flow; and one has the gate, too. Of those with a bridge, one
//! has no table for it; one has, with the pods behind its ports as they were heard; and one as the container runtime names them,
//! so that each packet has to have their source. What is counted is the time of the sender, in whose context the kernel
//! forwards.
//!
//! `cargo bench -p integration --bench guards`

#![allow(clippy::unwrap_used, reason = "what fails in a benchmark is to stop it there")]
#![allow(clippy::print_stdout, reason = "what was measured")]

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::thread;
use std::time::Duration;

use compiler::Compiler;
use compiler::api::{LinkName, NodeName, PodKey, PodWire, parse_network_policy};
use compiler::cluster::{Change, Event, Link, PodSource, Sandbox};
use compiler::diff::{Limits, next};
use compiler::nft::Deny;
use compiler::policy::OwnAddresses;
use integration::datagrams::check;
use integration::series::Timings;
use lab::{Attachment, Lab, Node, Pod, Topology, enter};
use netlink::{Connection, Ownership};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use serde_json::json;
use tokio::runtime::Runtime;

/// Series are measured one after the other, so many times, so that what disturbs one disturbs them all.
const ROUNDS: usize = 300;
/// How many datagrams make one measurement.
const DATAGRAMS: u16 = 500;
const PORT: u16 = 7;
/// What the nodes know, the least first.
const ROUTED: [&str; 3] = ["addresses", "links", "links and gate"];
const BRIDGED: [&str; 3] = ["addresses", "ports as heard", "ports as named"];

/// Datagrams of one kind at one node, and what they took, in nanoseconds each.
struct Series {
    node: usize,
    is_new: bool,
    socket: UdpSocket,
    measured: Timings,
}

fn main() {
    // While there is one thread only.
    enter().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let all = [("routed", Attachment::Routed, ROUTED), ("on a bridge", Attachment::Bridged, BRIDGED)];
    let labs = all.map(|(_, attachment, _)| runtime.block_on(Lab::build(topology(attachment))).unwrap());
    let mut kinds: Vec<Vec<Series>> = Vec::new();
    // They are held, and not read: what comes after the first few is dropped at the socket.
    let mut receivers = Vec::new();
    for (lab, (kind, ..)) in labs.iter().zip(&all) {
        let mut series = Vec::new();
        for node in 0..3 {
            let receiver = bind(lab, "web", node, PORT);
            let sockets = [true, false].map(|is_new| (is_new, bind(lab, "pod", node, 10_000 + u16::from(is_new))));
            for (_, socket) in &sockets {
                socket.connect(SocketAddr::new(address("web", node).into(), PORT)).unwrap();
            }
            check(&sockets[1].1, &receiver, true);
            prepare(&runtime, lab, node, *kind == "on a bridge");
            for (is_new, socket) in sockets {
                check(&socket, &receiver, !is_new);
                series.push(Series { node, is_new, socket, measured: Timings::default() });
            }
            receivers.push(receiver);
        }
        kinds.push(series);
    }
    // One CPU's caches, and no moves between them.
    let mut one = CpuSet::new();
    one.set(0).unwrap();
    sched_setaffinity(Pid::from_raw(0), &one).unwrap();
    for _ in 0..ROUNDS {
        kinds.iter_mut().flatten().for_each(Series::measure);
    }
    for (series, (kind, _, known)) in kinds.iter().zip(&all) {
        let cost = |node, is_new| {
            let found = series.iter().find(|series| series.node == node && series.is_new == is_new);
            found.unwrap().measured.undisturbed()
        };
        println!("{kind}, by addresses alone: {:.0} ns new, {:.0} ns established", cost(0, true), cost(0, false));
        for (node, name) in known.iter().enumerate().skip(1) {
            let [new, established] = [true, false].map(|is_new| cost(node, is_new) / cost(0, is_new));
            println!("  {name}: {new:.2} times that new, {established:.2} established");
        }
    }
}

fn topology(attachment: Attachment) -> Topology {
    let node =
        |index: u8| Node { name: format!("node-{index}"), addresses: vec![Ipv4Addr::new(192, 168, index, 1).into()] };
    let pod =
        |name: &str, index| Pod { id: id(name, index), node: index, addresses: vec![address(name, index).into()] };
    let pods = (0..3).flat_map(|index| ["web", "pod"].map(|name| pod(name, index))).collect();
    Topology { attachment, nodes: (0..3).map(node).collect(), pods, outside: Vec::new() }
}

fn id(name: &str, node: usize) -> String {
    format!("{name}-{node}")
}

fn address(name: &str, node: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, u8::try_from(node).unwrap(), if name == "web" { 10 } else { 11 })
}

/// Tells the compiler what this node is to know, and commits what it makes of that.
fn prepare(runtime: &Runtime, lab: &Lab, index: usize, is_bridged: bool) {
    let node = lab.node(index).unwrap();
    let checks = if index == 0 { OwnAddresses::Off } else { OwnAddresses::All { except: BTreeSet::new() } };
    let mut compiler = Compiler::new(NodeName("here".into()), Deny::Drop).checking(checks);
    for name in ["web", "pod"] {
        let pod = json!({"metadata": {"name": name, "namespace": "a", "labels": {"app": name}},
            "spec": {"nodeName": "here"}, "status": {"phase": "Running", "podIPs": [{"ip": address(name, index)}]}});
        let pod = serde_json::from_value::<PodWire>(pod).unwrap().parse().value;
        compiler.apply(Event::Pods(PodSource::Cluster, Change::Applied(pod)));
    }
    let policy = json!({"metadata": {"name": "web", "namespace": "a"}, "spec": {"podSelector": {"matchLabels": {"app": "web"}},
        "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "pod"}}}],
            "ports": [{"port": PORT, "protocol": "UDP"}]}]}});
    compiler.apply(Event::Policies(Change::Applied(parse_network_policy(&policy.into()).value)));
    if index > 0 {
        let links = node.run(|| links(runtime, index, is_bridged)).unwrap();
        if is_bridged && index == 2 {
            compiler.apply(Event::Sandboxes(["web", "pod"].map(|name| sandbox(&links, name, index)).to_vec()));
        }
        compiler.apply(Event::Links(links));
        if !is_bridged && index == 2 {
            compiler.apply(Event::PodRanges(vec![format!("10.0.{index}.0/24").parse().unwrap()]));
        }
    }
    let table = compiler.table();
    let has = |word: &str| table.chains.keys().any(|name| name.as_str() == word);
    let due = [(!is_bridged && index > 0, "own-source"), (!is_bridged && index == 2, "gate-egress")];
    due.iter().for_each(|(is_due, chain)| assert_eq!(has(chain), *is_due, "{chain}: node {index}"));
    assert_eq!(has("from-port"), is_bridged && index > 0, "node {index}");
    node.run(|| {
        let mut connection = Connection::open(Ownership::Plain).unwrap();
        let mut mirror = connection.dump().unwrap();
        while let Some(transaction) = next(&table, &mirror, Limits::default()) {
            let committed = connection.commit(&transaction, mirror.generation).unwrap();
            mirror.committed(transaction, committed.generation);
        }
    })
    .unwrap();
}

/// The links of the thread's network namespace; of a bridge with the pods behind its ports, as the node hears of them when it
/// speaks to them.
fn links(runtime: &Runtime, node: usize, is_bridged: bool) -> Vec<Link> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    loop {
        ["web", "pod"].iter().for_each(|name| _ = socket.send_to(b"?", (address(name, node), 9)));
        thread::sleep(Duration::from_millis(20));
        let links = runtime.block_on(postern::links::read()).unwrap();
        let heard = links.iter().flat_map(|link| &link.ports).filter(|port| !port.addresses.is_empty()).count();
        if !is_bridged || heard == 2 {
            return links;
        }
    }
}

/// What the container runtime would say of a pod: by the port at which it was heard.
fn sandbox(links: &[Link], name: &str, node: usize) -> Sandbox {
    let address = address(name, node).into();
    let mut ports = links.iter().flat_map(|link| &link.ports);
    let link: LinkName = ports.find(|port| port.addresses.contains(&address)).expect("it was heard").name;
    let pod = PodKey { namespace: "a".into(), name: name.into() };
    Sandbox { pod, uid: None, addresses: vec![address], link: Some(link) }
}

fn bind(lab: &Lab, name: &str, node: usize, port: u16) -> UdpSocket {
    let netns = lab.pod(&id(name, node)).unwrap();
    netns.run(|| UdpSocket::bind((address(name, node), port)).unwrap()).unwrap()
}

impl Series {
    fn measure(&mut self) {
        self.measured.measure(DATAGRAMS, || {
            self.socket.send(b"?").unwrap();
        });
    }
}
