//! Pods that start and end by a real CNI library and real plugins, and send both ways from their first moment on.
//!
//! Each pod may ask one port of its friend, and be asked on one port by it; all else is forbidden, and is sent without
//! pause, from before the pod's network stands until after it has ended. What is allowed is sent once, at the moment at
//! which a container could start.

mod commits;
mod end;
mod record;
mod runtime;

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use lab::Netns;
use serde_json::json;
use tempfile::TempDir;

use crate::agent::{Agent, loopback_up};
use crate::scene::policy;
use commits::Commits;
use end::{End, Ledger, OPEN, SHUT, Target};
use runtime::{Runtime, Standing, uid};

pub use record::Record;
pub use runtime::Network;

/// The ranges of the pods, and of what is outside of the cluster.
const PODS: [&str; 2] = ["10.1.0.0/24", "fd01::/64"];
const OUTSIDE: [&str; 2] = ["203.0.113.0/24", "2001:db8::/64"];
/// The node, as its pods see it.
const NODE: [&str; 2] = ["10.1.0.1", "fd01::1"];
/// From the result file to the first container, at the least (containerd with a real kubelet).
const CONTAINER_STARTS: Duration = Duration::from_millis(180);
/// How long an allowed packet is waited for: a neighbour may have to be asked for three times.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a pod goes on after that.
const LIFE: Duration = Duration::from_millis(100);
/// How often a plugin is tried: `ptp` sometimes gives an IPv6 route before the address that it is from.
const TRIES: usize = 5;
/// How many addresses around the newest one are sent to, before and after anybody has them.
const AROUND: i16 = 6;

/// What is to be done.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// How pods are joined to the node.
    pub network: Network,
    /// How many pods start, one after the other.
    pub starts: usize,
    /// How many of them are there at the same time.
    pub at_once: usize,
}

/// A node with an agent and two pods, and a host outside, in the network namespace of the thread that makes it.
struct Stage {
    folder: TempDir,
    runtime: Runtime,
    ledger: Arc<Ledger>,
    commits: Commits,
    /// Whom the policies name, and who sends only what is allowed.
    friend: End,
    friend_addresses: Vec<IpAddr>,
    /// Whom they do not: a pod, and a host outside.
    strangers: [End; 2],
    /// What the new pods must not reach.
    forbidden: Vec<Target>,
    /// The pods that are there all the time.
    residents: Vec<IpAddr>,
    record: Mutex<Record>,
}

/// Starts pods as planned, and says what became of their packets. To be called inside namespaces of the caller's own.
///
/// # Errors
///
/// If the world cannot be built: a plugin is missing or refuses, the agent does not start.
pub async fn run(plan: Plan) -> Result<Record> {
    loopback_up()?;
    let here = Netns::of_this_thread()?;
    // `ptp` does not wait until the kernel has made sure that the node's end has an address of its own. Until then nobody
    // answers there, and what a pod sends is lost for a second, whoever judges it.
    here.set_sysctl("net/ipv6/conf/default/accept_dad", "0")?;
    let folder = TempDir::with_prefix("postern-starts-")?;
    let (objects, cache) = (folder.path().join("objects"), folder.path().join("cni"));
    let results = cache.join("results");
    fs::create_dir(&objects)?;
    fs::create_dir_all(&results)?;
    let egress = format!("egress: [{{to: [{FRIEND}], ports: [{OPEN_PORT}]}}]");
    let ingress = format!("ingress: [{{from: [{FRIEND}], ports: [{OPEN_PORT}]}}]");
    let spec =
        format!("{{podSelector: {{matchLabels: {{app: new}}}}, {ingress}, {egress}, policyTypes: [Ingress, Egress]}}");
    write(&objects, "policy", &policy("shop/new", &spec))?;
    let networks = [("pods", plan.network, PODS), ("outside", Network::Routed, OUTSIDE)];
    let [runtime, outside] =
        networks.map(|(name, network, ranges)| Runtime::start(name, network, ranges, folder.path(), &cache));
    let (runtime, outside) = (runtime?, outside?);

    let ledger = Arc::new(Ledger::default());
    let mut ends = BTreeMap::new();
    for (name, pod) in [("friend", Some("shop/friend")), ("stranger", Some("shop/stranger")), ("outside", None)] {
        if let Some(pod) = pod {
            write(&objects, name, &object(pod, name, name))?;
        }
        let netns = Netns::new()?;
        let by = if pod.is_some() { &runtime } else { &outside };
        let standing = by.add(name, &netns, pod)?;
        ends.insert(name, (End::start(name, &netns, Vec::new(), &ledger)?, standing.addresses));
    }
    let _node = End::start("node", &here, Vec::new(), &ledger)?;
    let [objects, results] = [&objects, &results].map(|path| path.to_str().context("the path is text"));
    let ranges = format!("--pod-ranges={}", PODS.join(","));
    let mut agent = Agent::start(&["-f", objects?, "--cni-results", results?, &ranges])?;
    agent.ready().await?;

    let mut take = |name| ends.remove(name).context("it was made above");
    let ((friend, friend_addresses), (stranger, stranger_addresses)) = (take("friend")?, take("stranger")?);
    let (outside_end, outside_addresses) = take("outside")?;
    let node = NODE.iter().map(|address| Ok(address.parse()?)).collect::<Result<Vec<IpAddr>>>()?;
    let mut forbidden = vec![Target::AllNodes, Target::Broadcast];
    for (addresses, port) in
        [(&friend_addresses, SHUT), (&stranger_addresses, OPEN), (&outside_addresses, OPEN), (&node, OPEN)]
    {
        forbidden.extend(addresses.iter().map(|address| Target::To((*address, port).into())));
    }
    let residents = [&friend_addresses[..], &stranger_addresses, &node].concat();
    let stage = Stage {
        folder,
        runtime,
        ledger,
        commits: Commits::watch()?,
        friend,
        friend_addresses,
        strangers: [stranger, outside_end],
        forbidden,
        residents,
        record: Mutex::default(),
    };
    tokio::task::block_in_place(|| stage.start_all(plan))
}

const FRIEND: &str = "{podSelector: {matchLabels: {app: friend}}}";
const OPEN_PORT: &str = "{port: 80, protocol: UDP}";

/// A pod as the API has it before its network stands.
fn object(pod: &str, app: &str, id: &str) -> String {
    let (namespace, name) = pod.split_once('/').unwrap_or(("default", pod));
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": namespace, "name": name, "uid": uid(id), "labels": {"app": app}},
        "spec": {"nodeName": "node-1", "containers": [{"name": "main", "image": "example.test/main"}]},
        "status": {"phase": "Pending"},
    });
    pod.to_string()
}

fn write(objects: &Path, name: &str, text: &str) -> Result<()> {
    let new = objects.with_extension(format!("{name}.new"));
    fs::write(&new, text)?;
    Ok(fs::rename(new, objects.join(format!("{name}.yaml")))?)
}

// === impl Stage ===

impl Stage {
    fn start_all(&self, plan: Plan) -> Result<Record> {
        let next = AtomicUsize::new(0);
        thread::scope(|scope| {
            let lane = || {
                while let number = next.fetch_add(1, Ordering::Relaxed)
                    && number < plan.starts
                {
                    self.start(number).with_context(|| format!("start {number}"))?;
                }
                anyhow::Ok(())
            };
            let lanes: Vec<_> = (0..plan.at_once).map(|_| scope.spawn(lane)).collect();
            lanes.into_iter().try_for_each(|lane| match lane.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            })
        })?;
        let mut record = self.record.lock().expect("nobody panics with the lock held").clone();
        (record.forbidden, record.passed) = self.ledger.forbidden();
        Ok(record)
    }

    /// The life of one pod.
    fn start(&self, number: usize) -> Result<()> {
        let id = format!("new-{number}");
        let (pod, netns) = (format!("shop/{id}"), Netns::new()?);
        let objects = self.folder.path().join("objects");
        write(&objects, &id, &object(&pod, "new", &id))?;
        let end = End::start(&id, &netns, self.forbidden.clone(), &self.ledger)?;
        let standing = self.attach(&id, &netns, &pod)?;
        self.aim(&standing.addresses);
        let starts = standing.since + CONTAINER_STARTS;
        thread::sleep(starts.saturating_duration_since(Instant::now()));

        let sent = self.send(&id, &end, &standing.addresses);
        let refused: Vec<String> =
            sent.into_iter().filter(|(number, _)| !self.ledger.has(*number, PATIENCE)).map(|(_, text)| text).collect();
        let commits = standing.addresses.iter().map(|address| self.commits.of(*address, PATIENCE));
        let commits: Option<Vec<Instant>> = commits.collect();
        let commit =
            commits.and_then(|commits| commits.into_iter().max()).with_context(|| format!("{id} is not isolated"))?;
        {
            let mut record = self.record.lock().expect("nobody panics with the lock held");
            record.starts += 1;
            record.allowed += 2 * standing.addresses.len();
            record.commits.push(commit.saturating_duration_since(standing.since));
            if commit > starts { &mut record.late } else { &mut record.refused }.extend(refused);
        }
        thread::sleep(LIFE);
        // It goes on to send while its network ends.
        self.runtime.delete(&id, &netns, Some(&pod))?;
        drop(end);
        fs::remove_file(objects.join(format!("{id}.yaml")))?;
        Ok(())
    }

    /// Makes the network of a pod; where a plugin fails it is tried again, as by kubelet.
    fn attach(&self, id: &str, netns: &Netns, pod: &str) -> Result<Standing> {
        let mut tries = 1..TRIES;
        loop {
            match self.runtime.add(id, netns, Some(pod)) {
                Err(_) if tries.next().is_some() => self.runtime.delete(id, netns, Some(pod))?,
                done => return done,
            }
        }
    }

    /// Sends what is allowed, both ways: the numbers of the packets, and what they are.
    fn send(&self, id: &str, end: &End, addresses: &[IpAddr]) -> Vec<(u64, String)> {
        let mut sent = Vec::new();
        for address in addresses {
            let same_family = self.friend_addresses.iter().filter(|friend| friend.is_ipv4() == address.is_ipv4());
            for friend in same_family {
                let [out, back] = [self.ledger.number(), self.ledger.number()];
                end.send(SocketAddr::new(*friend, OPEN), out);
                self.friend.send(SocketAddr::new(*address, OPEN), back);
                sent.push((out, format!("{id} ({address}) -> friend")));
                sent.push((back, format!("friend -> {id} ({address})")));
            }
        }
        sent
    }

    /// Lets the strangers send to the addresses around the newest ones, those that nobody has yet among them.
    fn aim(&self, newest: &[IpAddr]) {
        let around = newest.iter().flat_map(|address| (-AROUND..=AROUND).map(|by| beside(*address, by)));
        let around = around.filter(|address| !self.residents.contains(address));
        let targets: Vec<Target> = around.map(|address| Target::To((address, OPEN).into())).collect();
        for stranger in &self.strangers {
            stranger.aim(targets.clone());
        }
    }
}

/// The address that is so many after another one, in its range.
fn beside(address: IpAddr, by: i16) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, c, last] = v4.octets();
            let low = (i16::from(last) - 2 + by).rem_euclid(253) + 2;
            [a, b, c, u8::try_from(low).expect("2 to 254")].into()
        }
        IpAddr::V6(v6) => {
            // What is before the first is the address of all routers.
            let [.., low] = v6.segments();
            let by = if low.saturating_add_signed(by) < 2 { 0 } else { by };
            IpAddr::V6(v6.to_bits().wrapping_add_signed(by.into()).into())
        }
    }
}
