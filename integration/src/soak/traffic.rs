//! Packets that flow all the time, of which it is known from the beginning what becomes of each.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::control_plane::ControlPlane;
use crate::live::{Echo, Hammer};
use crate::node::Node;
use crate::scene::{pod, policy};

use super::cluster::{MEMBERS, NAMESPACES};

/// The port that all of them go to. No policy that is drawn speaks of it.
pub(super) const PORT: u16 = 81;
/// Between two datagrams of a client. The kernel remembers each for a while, and has room for so many.
const PAUSE: Duration = Duration::from_millis(5);
/// How long a packet may take on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// The pods between which they flow, with their label `app`. Those of `guard` and `open` are left alone by what happens,
/// `anvil` is not: policies that select it come and go, and its namespace's labels do.
const PODS: [(&str, &str); 7] = [
    ("guard/closed", "closed"),
    ("guard/friend", "friend"),
    ("guard/stranger", "stranger"),
    ("guard/caged", "caged"),
    ("open/a", "a"),
    ("open/b", "b"),
    ("churn/anvil", "anvil"),
];
/// Client, server, and whether it is allowed.
const PAIRS: [(&str, &str, bool); 6] = [
    ("guard/stranger", "guard/closed", false),
    ("guard/stranger", "churn/anvil", false),
    ("guard/caged", "open/a", false),
    ("guard/friend", "guard/closed", true),
    ("guard/friend", "churn/anvil", true),
    ("open/a", "open/b", true),
];

/// The clients and servers at work.
pub(super) struct Traffic {
    pairs: Vec<Pair>,
    echoes: BTreeMap<IpAddr, Echo>,
}

struct Pair {
    is_allowed: bool,
    client: IpAddr,
    server: IpAddr,
    hammer: Hammer,
}

/// What has come of the packets so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Packets {
    /// Sent by clients that are refused.
    pub forbidden: u64,
    /// Of these, those that arrived.
    pub leaked: u64,
    /// Sent by clients that are let in, or that nobody polices.
    pub allowed: u64,
    /// Of these, those that were not answered.
    pub lost: u64,
}

/// Creates the pods that have real addresses, and the policies that are always there, and waits for nothing.
///
/// # Errors
///
/// If the API or the kernel refuses.
pub(super) async fn populate(node: &mut Node) -> Result<()> {
    let api = &node.api;
    for namespace in NAMESPACES.into_iter().chain(["guard", "open"]) {
        api.create_namespace(namespace, &[]).await?;
    }
    let members = MEMBERS.map(|name| format!("{}/{name}", NAMESPACES[0]));
    let pods = PODS.into_iter().chain(members.iter().map(|name| (name.as_str(), "api")));
    let pods: Vec<(&str, &str)> = pods.collect();
    api.apply(&pods.iter().map(|(name, app)| pod(name, "node-1", &format!("app: {app}"), "")).collect::<String>())
        .await?;
    for (number, (name, _)) in pods.iter().enumerate() {
        let last = number + 10;
        node.attach(name, &[format!("10.244.0.{last}").parse()?, format!("fd00:244::{last:x}").parse()?]).await?;
        node.report(name).await?;
    }
    always(&node.api).await
}

/// The policies that are always there.
async fn always(api: &ControlPlane) -> Result<()> {
    let friend = "{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: guard}}, podSelector: {matchLabels: {app: friend}}}";
    let only_friend = |app: &str| {
        format!(
            "{{podSelector: {{matchLabels: {{app: {app}}}}}, ingress: [{{from: [{friend}], ports: [{{port: {PORT}, protocol: UDP}}]}}]}}"
        )
    };
    let caged = "{podSelector: {matchLabels: {app: caged}}, policyTypes: [Egress]}";
    let policies = [
        policy("guard/closed", &only_friend("closed")),
        policy("churn/anvil", &only_friend("anvil")),
        policy("guard/caged", caged),
    ];
    api.apply(&policies.concat()).await
}

// === impl Traffic ===

impl Traffic {
    /// Begins. The rules are to be in force by now.
    ///
    /// # Errors
    ///
    /// If a socket cannot be had.
    pub(super) fn start(node: &Node) -> Result<Traffic> {
        // Each datagram is to be judged, and not to be taken for one of a flow that another has begun.
        let netns = node.lab.node(0).context("the lab has a node")?;
        netns.set_sysctl("net/netfilter/nf_conntrack_udp_timeout", "1")?;
        let (mut pairs, mut echoes) = (Vec::new(), BTreeMap::new());
        for (client, server, is_allowed) in PAIRS {
            for family in 0..2 {
                let end = |name| {
                    let address = node.addresses(name)?[family];
                    node.lab.endpoint(address).with_context(|| format!("nobody has {address}"))
                };
                let (from, to) = (end(client)?, end(server)?);
                if let Entry::Vacant(entry) = echoes.entry(to.address) {
                    entry.insert(Echo::start(&to, PORT)?);
                }
                let hammer = Hammer::steady(&from, SocketAddr::new(to.address, PORT), is_allowed, PAUSE)?;
                pairs.push(Pair { is_allowed, client: from.address, server: to.address, hammer });
            }
        }
        Ok(Traffic { pairs, echoes })
    }

    /// Waits until each client has sent a few more.
    ///
    /// # Errors
    ///
    /// If one does not.
    pub(super) async fn goes_on(&self) -> Result<()> {
        let begun = Instant::now();
        let before: Vec<u64> = self.pairs.iter().map(|pair| pair.hammer.sent()).collect();
        while self.pairs.iter().zip(&before).any(|(pair, before)| pair.hammer.sent() < before + 20) {
            ensure!(begun.elapsed() < PATIENCE, "a client does not send any more: {}", self.packets());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    /// What has come of the packets so far. One that is under way is not taken for lost.
    pub(super) fn packets(&self) -> Packets {
        let mut packets = Packets::default();
        for pair in &self.pairs {
            let sent = pair.hammer.sent();
            if pair.is_allowed {
                packets.allowed += sent;
                packets.lost += sent.saturating_sub(pair.hammer.answered() + 1);
            } else {
                packets.forbidden += sent;
                packets.leaked += self.arrived(pair);
            }
        }
        packets
    }

    /// Whose packets came out otherwise than they had to, a line a pair.
    pub(super) fn wrong(&self) -> String {
        let wrong = |pair: &Pair| {
            let Pair { is_allowed, client, server, hammer } = pair;
            let (sent, answered, arrived) = (hammer.sent(), hammer.answered(), self.arrived(pair));
            let is_wrong = if *is_allowed { sent > answered + 1 } else { arrived > 0 };
            is_wrong.then(|| format!("{client} -> {server}: {sent} sent, {arrived} arrived, {answered} answered\n"))
        };
        self.pairs.iter().filter_map(wrong).collect()
    }

    /// Ends, and says what has come of all of them.
    pub(super) fn finish(mut self) -> Packets {
        let mut packets = Packets::default();
        for pair in std::mem::take(&mut self.pairs) {
            let Pair { is_allowed, client, server, hammer } = pair;
            let (sent, answered) = hammer.stop();
            // After the last one was sent.
            let arrived = self.echoes[&server].received_from(client);
            if is_allowed {
                packets.allowed += sent;
                packets.lost += sent - answered;
            } else {
                packets.forbidden += sent;
                packets.leaked += arrived;
            }
        }
        packets
    }

    fn arrived(&self, pair: &Pair) -> u64 {
        self.echoes[&pair.server].received_from(pair.client)
    }
}

// === impl Packets ===

impl Packets {
    /// How many came out otherwise than they had to.
    pub fn wrong(&self) -> u64 {
        self.leaked + self.lost
    }
}

impl fmt::Display for Packets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Packets { forbidden, leaked, allowed, lost } = self;
        write!(f, "{forbidden} forbidden packets, {leaked} arrived; {allowed} allowed ones, {lost} were lost")
    }
}
