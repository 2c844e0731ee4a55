//! What the look through the open flows costs that follows a narrowing change, on a node with very many of them.
//!
//! The kernel of a node tracks 200,000 flows to a pod. They are looked through as the agent does it: where none of them
//! is refused, and where all are, of which as many are cut as may be. Beside them the same entries are only read, so that
//! it shows what is the kernel's, and only their number is looked at in the end. Memory is what the process has grown by.
//!
//! `cargo bench -p integration --bench open_flows`

#![allow(clippy::unwrap_used, reason = "what fails in a benchmark is to stop it there")]
#![allow(clippy::print_stdout, reason = "what was measured")]

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use compiler::Compiler;
use compiler::api::{NodeName, PodWire, parse_network_policy};
use compiler::cluster::{Change, Event, PodSource};
use compiler::diff::{Limits, next};
use compiler::flows::MOST_CUT;
use compiler::nft::Deny;
use integration::usage::Usage;
use lab::{Attachment, Lab, Node, Pod, Topology, enter};
use netlink::{Connection, Ownership, conntrack};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::{TimeVal, TimeValLike};
use postern::kernel::look;
use serde_json::json;

/// From so many ports of the client, to so many of the server.
const CLIENTS: u16 = 4;
const SERVERS: u16 = 50_000;
/// How often each is measured.
const ROUNDS: usize = 9;

const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);

fn main() {
    // While there is one thread only.
    enter().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let lab = runtime.block_on(Lab::build(topology())).unwrap();
    let node = lab.node(0).unwrap();
    let mut compiler = compiler();
    // The rules make the kernel track connections.
    node.run(|| load(&mut compiler)).unwrap();
    let sockets: Vec<UdpSocket> = (0..CLIENTS)
        .map(|client| lab.pod("client").unwrap().run(|| UdpSocket::bind((CLIENT, 10_000 + client)).unwrap()).unwrap())
        .collect();
    for (what, ports) in [("none is refused", None), ("all are refused", Some(1))] {
        let policy = ports.map_or_else(|| json!([{}]), |port: u16| json!([{"ports": [{"port": port}]}]));
        let policy = json!({"metadata": {"name": "web", "namespace": "a"},
            "spec": {"podSelector": {}, "policyTypes": ["Ingress"], "ingress": policy}});
        compiler.apply(Event::Policies(Change::Applied(parse_network_policy(&policy.into()).value)));
        compiler.table();
        let review = compiler.flows_mut().unwrap().review().unwrap();
        // They are forgotten after half a minute.
        open(&sockets);
        let before = Usage::of(std::process::id()).unwrap();
        let (mut found, mut refused) = (0, 0);
        let read = measure(|| {
            found = 0;
            node.run(|| conntrack::flows(|_| found += 1).unwrap()).unwrap();
        });
        let looked = measure(|| refused = node.run(|| look(&review).unwrap()).unwrap().refused());
        let after = Usage::of(std::process::id()).unwrap();
        println!(
            "{found} flows, {what}: read in {:.0} ms, looked through in {:.0} ms ({:.2} times that), of which CPU {:.0} ms; \
             {refused} of at most {MOST_CUT} to be cut; {} KiB more memory at most",
            milliseconds(read.0),
            milliseconds(looked.0),
            looked.0.as_secs_f64() / read.0.as_secs_f64(),
            milliseconds(looked.1),
            after.peak.saturating_sub(before.resident),
        );
    }
}

fn topology() -> Topology {
    let pod = |id: &str, address: Ipv4Addr| Pod { id: id.into(), node: 0, addresses: vec![address.into()] };
    let node = Node { name: "node".into(), addresses: vec![Ipv4Addr::new(192, 168, 0, 1).into()] };
    let pods = vec![pod("client", CLIENT), pod("server", SERVER)];
    Topology { attachment: Attachment::Routed, nodes: vec![node], pods, outside: Vec::new() }
}

/// What enforces the policies of the server.
fn compiler() -> Compiler {
    let mut compiler = Compiler::new(NodeName("here".into()), Deny::Drop).cutting_flows();
    let pod = json!({"metadata": {"name": "web", "namespace": "a"}, "spec": {"nodeName": "here"},
        "status": {"phase": "Running", "podIPs": [{"ip": SERVER}]}});
    let pod = serde_json::from_value::<PodWire>(pod).unwrap().parse().value;
    compiler.apply(Event::Pods(PodSource::Cluster, Change::Applied(pod)));
    compiler
}

/// Commits the table in the thread's network namespace.
fn load(compiler: &mut Compiler) {
    let table = compiler.table();
    let mut connection = Connection::open(Ownership::Plain).unwrap();
    let mut mirror = connection.dump().unwrap();
    while let Some(transaction) = next(&table, &mirror, Limits::default()) {
        let committed = connection.commit(&transaction, mirror.generation).unwrap();
        mirror.committed(transaction, committed.generation);
    }
}

/// Sends a datagram in each flow.
fn open(sockets: &[UdpSocket]) {
    for port in 1..=SERVERS {
        for socket in sockets {
            // Nobody listens, and the kernel says so now and then.
            _ = socket.send_to(b"?", SocketAddr::new(IpAddr::V4(SERVER), port));
        }
    }
}

/// The median of the time that something takes, and of the CPU time.
fn measure(mut one: impl FnMut()) -> (Duration, Duration) {
    let (mut times, mut cpus) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let (begun, used) = (Instant::now(), cpu());
        one();
        times.push(begun.elapsed());
        cpus.push(cpu() - used);
    }
    times.sort_unstable();
    cpus.sort_unstable();
    (times[ROUNDS / 2], cpus[ROUNDS / 2])
}

/// What this process has used, with its threads that are gone.
fn cpu() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_SELF).unwrap();
    let times = [usage.user_time(), usage.system_time()];
    let time = |time: TimeVal| Duration::from_micros(u64::try_from(time.num_microseconds()).unwrap());
    times.map(time).iter().sum()
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
