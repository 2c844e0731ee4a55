//! The search for a packet on which the judges differ.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use proptest::strategy::{Strategy, ValueTree};
use serde_json::Value;

use super::generate::{NEVER_REJECTS, cluster_with_sandboxes, runner};
use super::judges::Opinions;
use super::{Cluster, Compiled, Dice, Disagreement, Edges, Judges};
use crate::nft::Deny;
use crate::policy::oracle::{self, Content, Packet, Side};

/// What is searched, and how far.
#[derive(Debug, Clone, Copy)]
pub struct Search {
    /// How many clusters.
    pub clusters: usize,
    /// How many packets in each.
    pub packets: usize,
    /// Where the search begins. The same seed finds the same.
    pub seed: u64,
}

/// The smallest cluster that was found on the way from one on which the judges differ.
#[derive(Clone)]
pub struct Failure {
    /// The cluster.
    pub cluster: Cluster,
    /// The packet and what the judges say of it.
    pub disagreement: Disagreement,
    /// Which cluster of the search it came from, from 0.
    pub found_in: usize,
}

/// What a search met on its way.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// How many clusters were judged.
    pub clusters: usize,
    /// How often each thing occurred.
    pub counts: Counts,
    /// Where it ended, if the judges differed.
    pub failure: Option<Failure>,
}

/// How often each thing occurred, by a word for it.
#[derive(Debug, Clone, Default)]
pub struct Counts(BTreeMap<&'static str, u64>);

impl Search {
    /// Searches until the judges differ.
    pub fn run(&self) -> Report {
        self.against(|cluster, deny| cluster.compile(deny))
    }

    /// Searches with something else in the place of the compiler: what a test wants to be found out.
    pub fn against(&self, compile: impl Fn(&Cluster, Deny) -> BTreeMap<String, Compiled>) -> Report {
        let mut report = Report::default();
        let mut runner = runner(self.seed);
        let mut dice = Dice::new(self.seed);
        for found_in in 0..self.clusters {
            let mut tree = cluster_with_sandboxes().new_tree(&mut runner).expect(NEVER_REJECTS);
            let cluster = tree.current();
            let deny = if dice.once_in(4) { Deny::Reject } else { Deny::Drop };
            let judges = Judges::of_another(&cluster, compile(&cluster, deny));
            report.clusters += 1;
            report.counts.cluster(&cluster);
            let edges = Edges::of(&cluster);
            for _ in 0..self.packets {
                let packet = edges.packet(&mut dice);
                let opinions = judges.ask(&packet);
                report.counts.packet(&packet, &opinions);
                report.counts.ends(&cluster, &packet, &opinions);
                if opinions.differ() {
                    let first = Disagreement { packet, opinions };
                    let (cluster, disagreement) = shrink(&mut tree, cluster.clone(), first, |cluster| {
                        Judges::of_another(cluster, compile(cluster, deny)).disagreement(&packet)
                    });
                    report.failure = Some(Failure { cluster, disagreement, found_in });
                    return report;
                }
            }
        }
        report
    }
}

/// Makes the cluster smaller as long as the judges differ on the same packet: any packet can be judged in any cluster.
fn shrink(
    tree: &mut impl ValueTree<Value = Cluster>,
    mut smallest: Cluster,
    mut disagreement: Disagreement,
    differs: impl Fn(&Cluster) -> Option<Disagreement>,
) -> (Cluster, Disagreement) {
    const MOST_STEPS: usize = 20_000;
    let mut goes_on = tree.simplify();
    for _ in 0..MOST_STEPS {
        if !goes_on {
            break;
        }
        let candidate = tree.current();
        goes_on = match differs(&candidate) {
            Some(found) => {
                (smallest, disagreement) = (candidate, found);
                tree.simplify()
            }
            None => tree.complicate(),
        };
    }
    // The addresses of pods go by their place, so that the strategy cannot leave out one before the last.
    for index in (0..smallest.objects.len()).rev() {
        if let Some(candidate) = without(&smallest, index)
            && let Some(found) = differs(&candidate)
        {
            (smallest, disagreement) = (candidate, found);
        }
    }
    (smallest, disagreement)
}

/// The cluster without one object, if nothing there is in it or on it.
fn without(cluster: &Cluster, index: usize) -> Option<Cluster> {
    let name = &cluster.objects[index]["metadata"]["name"];
    let needs = |object: &Value| match cluster.objects[index]["kind"].as_str() {
        Some("Node") => object["spec"]["nodeName"] == *name,
        Some("Namespace") => object["metadata"]["namespace"] == *name,
        _ => false,
    };
    let mut smaller = cluster.clone();
    smaller.objects.remove(index);
    (!smaller.objects.iter().any(needs)).then_some(smaller)
}

impl Counts {
    /// How often.
    pub fn of(&self, what: &str) -> u64 {
        self.0.get(what).copied().unwrap_or(0)
    }

    fn add(&mut self, what: &'static str) {
        *self.0.entry(what).or_default() += 1;
    }

    fn add_if(&mut self, holds: bool, what: &'static str) {
        *self.0.entry(what).or_default() += u64::from(holds);
    }

    fn packet(&mut self, packet: &Packet, opinions: &Opinions) {
        self.add("verdicts");
        self.add(match (opinions.oracle.egress.isolated, opinions.oracle.ingress.isolated) {
            (false, false) => "packet: neither end isolated",
            (true, false) => "packet: sender isolated",
            (false, true) => "packet: receiver isolated",
            (true, true) => "packet: both ends isolated",
        });
        let isolated = opinions.oracle.egress.isolated || opinions.oracle.ingress.isolated;
        self.add(match (opinions.allowed(), isolated) {
            (true, true) => "packet: allowed by rules",
            (true, false) => "packet: allowed, free",
            (false, _) => "packet: refused",
        });
        self.add(match packet.content {
            Content::Port(..) => "packet: with ports",
            Content::Icmp(..) => "packet: ICMP",
        });
        self.add(if packet.source.is_ipv4() { "packet: IPv4" } else { "packet: IPv6" });
        let is_refused_free = |side: Side| !side.isolated && !side.allowed;
        let gated = is_refused_free(opinions.oracle.egress) || is_refused_free(opinions.oracle.ingress);
        self.add_if(gated, "packet: refused by the gate");
        self.add_if(packet.of_known_flow, "packet: reply");
        self.add_if(packet.source == packet.destination, "packet: to itself");
        let is_special = |address: IpAddr| match address {
            IpAddr::V4(address) => address.is_multicast() || address.is_link_local() || address.is_broadcast(),
            IpAddr::V6(address) => address.is_multicast() || address.is_unicast_link_local(),
        };
        self.add_if(is_special(packet.source), "packet: from a link-local or many's address");
        self.add_if(is_special(packet.destination), "packet: to a link-local or many's address");
        self.add_if(
            !opinions.oracle.egress.allowed && opinions.oracle.ingress.allowed,
            "packet: refused by egress only",
        );
        self.add_if(
            opinions.oracle.egress.allowed && !opinions.oracle.ingress.allowed,
            "packet: refused by ingress only",
        );
    }

    fn ends(&mut self, cluster: &Cluster, packet: &Packet, opinions: &Opinions) {
        let sides = [(packet.source, opinions.oracle.egress), (packet.destination, opinions.oracle.ingress)];
        let of_several = sides.into_iter().filter(|(end, _)| oracle::pods_with(&cluster.objects, *end) > 1);
        let of_several: Vec<Side> = of_several.map(|(_, side)| side).collect();
        self.add_if(!of_several.is_empty(), "packet: an end with several pods");
        self.add_if(of_several.iter().any(|side| side.isolated), "packet: an end with several pods, isolated");
    }

    fn cluster(&mut self, cluster: &Cluster) {
        let has_ranges = |node: &Value| node["spec"]["podCIDRs"].is_array();
        self.add_if(cluster.of_kind("Node").any(has_ranges), "cluster: ranges of pods");
        self.add_if(cluster.node_names().count() > 1, "cluster: several nodes");
        self.add_if(cluster.of_kind("Pod").next().is_none(), "cluster: no pods");
        let addresses: Vec<&Value> = cluster.of_kind("Pod").map(|pod| &pod["status"]["podIP"]).collect();
        let is_shared = |(index, address): (usize, &&Value)| !address.is_null() && addresses[..index].contains(address);
        self.add_if(addresses.iter().enumerate().any(is_shared), "cluster: shared addresses");
        for object in &cluster.objects {
            match object["kind"].as_str() {
                Some("Pod") => self.pod(object),
                Some("NetworkPolicy") => self.policy(object),
                Some("Sandbox") => self.sandbox(cluster, object),
                Some("Namespace") => {
                    self.add_if(object["metadata"]["annotations"].is_object(), "namespace: annotated");
                }
                _ => {}
            }
        }
    }

    fn sandbox(&mut self, cluster: &Cluster, sandbox: &Value) {
        self.add("sandboxes");
        let is_of = |pod: &&Value| {
            ["namespace", "name"].iter().all(|field| pod["metadata"][field] == sandbox["metadata"][field])
                && (sandbox["uid"].is_null() || sandbox["uid"] == pod["metadata"]["uid"])
        };
        let Some(pod) = cluster.of_kind("Pod").find(is_of) else { return self.add("sandbox: of a former pod") };
        self.add_if(matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed")), "sandbox: pod finished");
        self.add_if(pod["status"]["podIP"].is_null(), "sandbox: before the status");
        let is_said = sandbox["addresses"].as_array().is_some_and(|list| list.contains(&pod["status"]["podIP"]));
        self.add_if(!is_said && !pod["status"]["podIP"].is_null(), "sandbox: another address");
    }

    fn pod(&mut self, pod: &Value) {
        let (spec, status) = (&pod["spec"], &pod["status"]);
        self.add("pods");
        self.add_if(spec["hostNetwork"] == true, "pod: host network");
        self.add_if(matches!(status["phase"].as_str(), Some("Succeeded" | "Failed")), "pod: finished");
        self.add_if(pod["metadata"]["deletionTimestamp"].is_string(), "pod: terminating");
        self.add_if(status["podIPs"].as_array().is_some_and(|ips| ips.len() == 2), "pod: dual stack");
        self.add_if(status["podIPs"].is_null(), "pod: no address");
        let mut init_containers = spec["initContainers"].as_array().into_iter().flatten();
        self.add_if(
            init_containers.any(|c| c["restartPolicy"] == "Always" && c["ports"][0].is_object()),
            "pod: sidecar",
        );
    }

    fn policy(&mut self, policy: &Value) {
        let spec = &policy["spec"];
        self.add("policies");
        let is_beta = policy["apiVersion"] == "extensions/v1beta1";
        self.add_if(is_beta && spec["policyTypes"].is_null(), "policy: first generation");
        self.add_if(is_beta && !spec["policyTypes"].is_null(), "policy: v1 as a beta");
        self.add_if(spec.is_null(), "policy: no spec");
        self.add(match spec["policyTypes"].as_array().map(Vec::len) {
            None => "policyTypes: absent",
            Some(0) => "policyTypes: empty",
            Some(1) if spec["policyTypes"][0] == "Ingress" => "policyTypes: Ingress",
            Some(1) => "policyTypes: Egress",
            Some(_) => "policyTypes: both",
        });
        for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
            for rule in spec[direction].as_array().into_iter().flatten() {
                self.add_if(rule.as_object().is_some_and(|fields| fields.is_empty()), "rule: everything");
                self.add_if(rule.is_null(), "rule: null");
                let blocks = rule[peers].as_array().into_iter().flatten().filter(|peer| peer["ipBlock"].is_object());
                self.add_if(blocks.count() > 1, "rule: several ipBlocks");
                self.list(&rule[peers], ["peers: absent", "peers: empty", "peers: filled"]);
                self.list(&rule["ports"], ["ports: absent", "ports: empty", "ports: filled"]);
                self.add_if(rule["ports"].as_array().is_some_and(|ports| ports.len() > 5), "ports: many");
                rule[peers].as_array().into_iter().flatten().for_each(|peer| self.peer(peer));
                rule["ports"].as_array().into_iter().flatten().for_each(|port| self.port(port));
            }
        }
        self.operators(spec);
    }

    fn list(&mut self, list: &Value, [absent, empty, filled]: [&'static str; 3]) {
        self.add(match list.as_array().map(Vec::len) {
            None => absent,
            Some(0) => empty,
            Some(_) => filled,
        });
    }

    fn peer(&mut self, peer: &Value) {
        let excepts = peer["ipBlock"]["except"].as_array().map_or(0, Vec::len);
        self.add_if(peer["ipBlock"].is_object(), "peer: ipBlock");
        self.add_if(excepts == 1, "peer: ipBlock with one except");
        self.add_if(excepts > 1, "peer: ipBlock with several excepts");
        let length = peer["ipBlock"]["cidr"].as_str().and_then(|cidr| cidr.split_once('/')).map(|(_, length)| length);
        self.add_if(length == Some("0"), "peer: ipBlock of everything");
        self.add_if(matches!(length, Some("32" | "128")), "peer: ipBlock of one address");
        let (pods, namespaces) = (peer["podSelector"].is_object(), peer["namespaceSelector"].is_object());
        self.add_if(pods && namespaces, "peer: both selectors");
        self.add_if(pods && !namespaces, "peer: podSelector");
        self.add_if(!pods && namespaces, "peer: namespaceSelector");
    }

    fn port(&mut self, port: &Value) {
        self.add(match (&port["port"], &port["endPort"]) {
            (Value::Null, _) => "port: protocol only",
            (Value::String(_), _) => "port: name",
            (_, Value::Null) => "port: number",
            (_, _) => "port: range",
        });
        self.add_if(port["protocol"] == "SCTP", "port: SCTP");
    }

    fn operators(&mut self, value: &Value) {
        for (word, what) in [
            ("In", "operator: In"),
            ("NotIn", "operator: NotIn"),
            ("Exists", "operator: Exists"),
            ("DoesNotExist", "operator: DoesNotExist"),
        ] {
            self.add_if(value["operator"] == word, what);
        }
        value.as_object().into_iter().flatten().for_each(|(_, inner)| self.operators(inner));
        value.as_array().into_iter().flatten().for_each(|inner| self.operators(inner));
    }
}

impl fmt::Display for Counts {
    /// One line each.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(what, count)| writeln!(f, "{count:>10}  {what}"))
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "the judges differ (cluster {} of the search):\n{:?}", self.found_in, self.disagreement)?;
        writeln!(f, "in this cluster:\n{:?}", self.cluster)
    }
}
