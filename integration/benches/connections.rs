//! What a new connection costs, by how many policies its pod has: as a ratio to chains without rules, in one run.
//!
//! Each row has two nodes with the same policies: one asks them in turn, the other leads to them by peer, as the agent does
//! past a handful. A pod of each node receives datagrams that nobody answers, so that each is judged as the first of its
//! flow, from the pod that the last policy names by a selector, and from one that it names by a block. What is counted is
//! the time of the sender, in whose context the kernel forwards the packet between two veth pairs.
//!
//! `cargo bench -p integration --bench connections`

#![allow(clippy::unwrap_used, reason = "what fails in a benchmark is to stop it there")]
#![allow(clippy::print_stdout, reason = "the table that was measured")]

use std::iter;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;

use compiler::Compiler;
use compiler::api::{NodeName, PodWire, parse_network_policy};
use compiler::cluster::{Change, Event, PodSource};
use compiler::diff::{Limits, next};
use compiler::nft::{Chain, ChainName, Deny, Table};
use integration::datagrams::check;
use integration::series::Timings;
use lab::{Attachment, Lab, Netns, Node, Pod, Topology, enter};
use netlink::{Connection, Ownership};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use serde_json::json;

/// How many policies the pod has.
const POLICIES: [u32; 8] = [0, 1, 2, 3, 4, 10, 100, 1_000];
/// Series are measured one after the other, so many times, so that what disturbs one disturbs them all.
const ROUNDS: usize = 200;
/// How many datagrams make one measurement.
const DATAGRAMS: u16 = 500;
const PORT: u16 = 7;

/// How the table of a node leads to policies.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    /// The chains have no rules.
    Empty,
    InTurn,
    ByPeer,
}

/// What is measured at a node.
struct Place {
    policies: u32,
    way: Way,
}

/// Datagrams of one kind, and what they took, in nanoseconds each.
struct Series {
    place: usize,
    name: &'static str,
    socket: UdpSocket,
    measured: Timings,
}

fn main() {
    // While there is one thread only.
    enter().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let ways = [Way::InTurn, Way::ByPeer];
    let of_policies = POLICIES.into_iter().flat_map(|policies| ways.map(|way| Place { policies, way }));
    let places: Vec<Place> = iter::once(Place { policies: 0, way: Way::Empty }).chain(of_policies).collect();
    let lab = runtime.block_on(Lab::build(topology(places.len()))).unwrap();
    let mut series = Vec::new();
    // They are held, and not read: what comes after the first few is dropped at the socket.
    let mut receivers = Vec::new();
    for (place, Place { policies, way }) in places.iter().enumerate() {
        let table = table(place, *policies, *way);
        let node = lab.node(place).unwrap();
        node.run(|| load(&table)).unwrap();
        let receiver = bind(&lab, "web", place, PORT);
        for name in ["pod", "block", "established"] {
            let from = if name == "block" { "block" } else { "pod" };
            let socket = bind(&lab, from, place, if name == "established" { 1 } else { 2 });
            socket.connect(SocketAddr::new(address("web", place), PORT)).unwrap();
            check(&socket, &receiver, name == "established");
            series.push(Series { place, name, socket, measured: Timings::default() });
        }
        receivers.push(receiver);
    }
    // One CPU's caches, and no moves between them.
    let mut one = CpuSet::new();
    one.set(0).unwrap();
    sched_setaffinity(Pid::from_raw(0), &one).unwrap();
    for _ in 0..ROUNDS {
        series.iter_mut().for_each(Series::measure);
    }
    print(&places, &series);
}

fn topology(nodes: usize) -> Topology {
    let node = |index: usize| Node {
        name: format!("node-{index}"),
        addresses: vec![Ipv4Addr::new(192, 168, u8::try_from(index).unwrap(), 1).into()],
    };
    let pod = |name: &str, index| Pod { id: id(name, index), node: index, addresses: vec![address(name, index)] };
    let pods = (0..nodes).flat_map(|index| ["web", "pod", "block"].map(|name| pod(name, index)));
    let nodes_of_lab = (0..nodes).map(node).collect();
    Topology { attachment: Attachment::Routed, nodes: nodes_of_lab, pods: pods.collect(), outside: Vec::new() }
}

fn id(name: &str, place: usize) -> String {
    format!("{name}-{place}")
}

/// The address of a pod. Those named `block` are in the block that the last policy names.
fn address(name: &str, place: usize) -> IpAddr {
    let place = u8::try_from(place).unwrap();
    match name {
        "web" => Ipv4Addr::new(10, 0, place, 1).into(),
        "pod" => Ipv4Addr::new(10, 0, place, 2).into(),
        _ => Ipv4Addr::new(172, 16, place, 3).into(),
    }
}

/// What the node enforces. Each policy names a pod and a block of its own; the last one those that send.
fn table(place: usize, policies: u32, way: Way) -> Table {
    let mut compiler = Compiler::new(NodeName("here".into()), Deny::Drop);
    compiler = match way {
        Way::Empty => compiler,
        Way::InTurn => compiler.with_most_jumps(usize::MAX),
        Way::ByPeer => compiler.with_most_jumps(0),
    };
    let pod = |name: &str, node: &str, address: IpAddr| {
        let pod = json!({"metadata": {"name": name, "namespace": "a", "labels": {"app": name}}, "spec": {"nodeName": node},
            "status": {"phase": "Running", "podIPs": [{"ip": address}]}});
        let pod = serde_json::from_value::<PodWire>(pod).unwrap().parse().value;
        Event::Pods(PodSource::Cluster, Change::Applied(pod))
    };
    compiler.apply(pod("web", "here", address("web", place)));
    for index in 1..=policies {
        let is_last = index == policies;
        let (high, low) = (index / 256, index % 256);
        let peer = if is_last { address("pod", place) } else { format!("10.9.{high}.{low}").parse().unwrap() };
        let cidr = if is_last { format!("172.16.{place}.0/24") } else { format!("172.{}.{low}.0/24", 20 + high) };
        compiler.apply(pod(&format!("peer-{index}"), "elsewhere", peer));
        let from =
            json!([{"podSelector": {"matchLabels": {"app": format!("peer-{index}")}}}, {"ipBlock": {"cidr": cidr}}]);
        let policy = json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"name": format!("policy-{index:04}"), "namespace": "a"},
            "spec": {"podSelector": {"matchLabels": {"app": "web"}},
                "ingress": [{"from": from, "ports": [{"port": PORT, "protocol": "UDP"}]}]}});
        compiler.apply(Event::Policies(Change::Applied(parse_network_policy(&policy.into()).value)));
    }
    let mut table = compiler.table();
    if way == Way::Empty {
        // The chain on the input hook keeps its rules: because of them the kernel tracks connections.
        for name in ["egress", "ingress"].map(ChainName::from_kernel) {
            let chain = Chain::clone(&table.chains[&name]);
            table.chains.insert(name, Arc::new(Chain { rules: Vec::new(), ..chain }));
        }
    }
    table
}

/// Commits a table in the thread's network namespace.
fn load(table: &Table) {
    let mut connection = Connection::open(Ownership::Plain).unwrap();
    let mut mirror = connection.dump().unwrap();
    while let Some(transaction) = next(table, &mirror, Limits::default()) {
        let committed = connection.commit(&transaction, mirror.generation).unwrap();
        mirror.committed(transaction, committed.generation);
    }
}

/// A socket of a pod. Those with different `salt` have different ports.
fn bind(lab: &Lab, name: &str, place: usize, salt: u16) -> UdpSocket {
    let netns: &Netns = lab.pod(&id(name, place)).unwrap();
    let port = if name == "web" { salt } else { 10_000 + salt };
    netns.run(|| UdpSocket::bind((address(name, place), port)).unwrap()).unwrap()
}

impl Series {
    fn measure(&mut self) {
        self.measured.measure(DATAGRAMS, || {
            self.socket.send(b"?").unwrap();
        });
    }
}

fn print(places: &[Place], series: &[Series]) {
    let cost = |policies: u32, way: Way, name: &str| {
        let is_here = |place: &Place| place.policies == policies && place.way == way;
        series
            .iter()
            .find(|series| is_here(&places[series.place]) && series.name == name)
            .unwrap()
            .measured
            .undisturbed()
    };
    println!("a datagram between chains without rules: {:.0} ns", cost(0, Way::Empty, "pod"));
    println!("         | new, asked in turn | new, led by peer   |");
    println!("policies | from pod from block | from pod from block | established");
    for policies in POLICIES {
        let ratio = |way, name| cost(policies, way, name) / cost(0, Way::Empty, name);
        let [turn, peer] = [Way::InTurn, Way::ByPeer].map(|way| [ratio(way, "pod"), ratio(way, "block")]);
        let established = ratio(Way::ByPeer, "established");
        println!(
            "{policies:>8} | {:>8.2} {:>10.2} | {:>8.2} {:>10.2} | {established:>11.2}",
            turn[0], turn[1], peer[0], peer[1]
        );
    }
}
