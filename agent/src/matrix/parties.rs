//! Who is asked about: pods that are alike to policies as one, and the addresses outside that policies tell apart.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use compiler::api::{ContainerPort, Peer, Peers, Pod, PodKey, Str, WorkloadKey};
use ipnet::IpNet;

use super::blocks;
use crate::model::{End, EndKind, Model};

/// The most CIDRs that are parties of their own.
const MOST_BLOCKS: usize = 200;
/// The party of all addresses that no other has.
pub(super) const OUTSIDE: &str = "outside";

/// A client, or a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Party {
    /// How questions name it: `deploy/shop/web`, and of a workload whose pods are not alike, or where there is none, the
    /// first of the pods that are, `pod/shop/web-0`; `outside`, or a CIDR for the addresses of it that are in no smaller one.
    pub name: String,
    /// The namespace of its pods; `None` outside.
    pub namespace: Option<Str>,
    /// The workload that its pods are of.
    pub workload: Option<WorkloadKey>,
    /// What it is in each of the clusters that are looked at; `None` where it is not there.
    pub(super) members: Vec<Option<Members>>,
}

/// What a party is in one cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Members {
    /// All its pods.
    pub(super) pods: Vec<PodKey>,
    /// One or two of them, who stand for all; two, so that the one can be asked about the other.
    pub(super) some: Vec<Member>,
}

/// Somebody with addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Member {
    /// The pod, if it is one.
    pub(super) pod: Option<PodKey>,
    /// The addresses.
    pub(super) addresses: Vec<IpAddr>,
}

impl Party {
    /// How `explain` is asked about it: by its name, or outside by an address that stands for it.
    pub fn asked(&self) -> String {
        let address = || self.members.iter().flatten().flat_map(|members| &members.some).next()?.addresses.first();
        match (&self.namespace, address()) {
            (None, Some(address)) => address.to_string(),
            (Some(_), _) | (None, None) => self.name.clone(),
        }
    }

    /// Its pods in the cluster with this place.
    pub fn pods(&self, index: usize) -> &[PodKey] {
        self.members.get(index).and_then(Option::as_ref).map_or(&[], |members| &members.pods)
    }
}

/// What policies tell pods and addresses apart by.
struct Terms {
    labels: BTreeSet<Str>,
    blocks: BTreeSet<IpNet>,
    /// Those of the blocks that are parties of their own.
    rows: BTreeSet<IpNet>,
}

/// All that policies can tell a pod from another of its namespace by: labels, ports, and addresses.
type Signature = (Vec<(Str, Str)>, Vec<ContainerPort>, Vec<AddressSignature>);

/// Whether an address is one of IPv6, the innermost CIDR that has it, and with whom it is shared: what isolates them then
/// holds for its pod too.
type AddressSignature = (bool, Option<IpNet>, Option<Vec<PodKey>>);

/// Pods by their namespace and workload, and among these by what they are to policies.
type Groups<'a> = BTreeMap<(Str, Option<WorkloadKey>), Alike<'a>>;

/// The pods of a workload, or of none, by what they are to policies.
type Alike<'a> = BTreeMap<Signature, Vec<&'a Pod>>;

/// Who there is in several clusters.
pub(super) struct Everybody {
    /// Those in namespaces first.
    pub(super) parties: Vec<Party>,
    /// How many CIDRs are no parties, for there are too many.
    pub(super) left_out: usize,
    /// What is to be said of who is none.
    pub(super) notes: Vec<String>,
}

/// The parties of several clusters.
pub(super) fn everybody(models: &[&Model]) -> Everybody {
    let mut notes = Vec::new();
    let terms = Terms::of(models, &mut notes);
    let groups: Vec<Groups<'_>> = models.iter().map(|model| terms.groups(model)).collect();
    let workloads: BTreeSet<&(Str, Option<WorkloadKey>)> = groups.iter().flat_map(Groups::keys).collect();
    let mut parties = Vec::new();
    for of in workloads {
        let of_models: Vec<Option<&Alike<'_>>> = groups.iter().map(|groups| groups.get(of)).collect();
        let is_whole = of_models.iter().flatten().all(|alike| alike.len() == 1);
        let parts = match &of.1 {
            Some(workload) if is_whole => vec![(name_of(workload), whole(models, &of_models))],
            Some(_) | None => split(models, &of_models),
        };
        let party = |(name, members)| Party { name, namespace: Some(of.0.clone()), workload: of.1.clone(), members };
        parties.extend(parts.into_iter().map(party));
    }
    parties.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
    let mut by_network: BTreeMap<String, Vec<Option<Members>>> = BTreeMap::new();
    for (index, model) in models.iter().enumerate() {
        for (name, addresses) in outside(model, &terms) {
            let members = Members { pods: Vec::new(), some: vec![Member { pod: None, addresses }] };
            by_network.entry(name).or_insert_with(|| vec![None; models.len()])[index] = Some(members);
        }
    }
    let of_network = |(name, members)| Party { name, namespace: None, workload: None, members };
    parties.extend(by_network.into_iter().map(of_network));
    notes.extend(on_host_network(models));
    Everybody { parties, left_out: terms.left_out(), notes }
}

/// All pods of a workload that are alike in each cluster.
fn whole(models: &[&Model], of_models: &[Option<&Alike<'_>>]) -> Vec<Option<Members>> {
    let members = |(model, alike): (&&Model, &Option<&Alike<'_>>)| {
        let pods: Vec<&Pod> = alike.iter().flat_map(|alike| alike.values()).flatten().copied().collect();
        (!pods.is_empty()).then(|| of_pods(model, &pods))
    };
    models.iter().zip(of_models).map(members).collect()
}

/// The pods that are alike to each other in every cluster, and go by the first of them. A pod that is in one cluster only is
/// not together with those that stay, so that they keep their name.
fn split(models: &[&Model], of_models: &[Option<&Alike<'_>>]) -> Vec<(String, Vec<Option<Members>>)> {
    let mut signatures: BTreeMap<&PodKey, Vec<Option<&Signature>>> = BTreeMap::new();
    for (index, alike) in of_models.iter().enumerate() {
        for (signature, pods) in alike.iter().flat_map(|alike| alike.iter()) {
            for pod in pods {
                signatures.entry(&pod.key).or_insert_with(|| vec![None; models.len()])[index] = Some(signature);
            }
        }
    }
    let mut parts: BTreeMap<Vec<Option<&Signature>>, Vec<&PodKey>> = BTreeMap::new();
    for (key, signature) in signatures {
        parts.entry(signature).or_default().push(key);
    }
    let part = |(signature, keys): (Vec<Option<&Signature>>, Vec<&PodKey>)| {
        let members = |(model, signature): (&&Model, Option<&Signature>)| {
            signature?;
            let pods: Vec<&Pod> = keys.iter().filter_map(|key| model.pod(key)).collect();
            Some(of_pods(model, &pods))
        };
        (format!("pod/{}", keys[0]), models.iter().zip(signature).map(members).collect())
    };
    parts.into_iter().map(part).collect()
}

/// How questions name a workload.
fn name_of(workload: &WorkloadKey) -> String {
    format!("{}/{}/{}", EndKind::Workload(workload.kind).word(), workload.namespace, workload.name)
}

fn of_pods(model: &Model, pods: &[&Pod]) -> Members {
    let member = |pod: &&Pod| Member { pod: Some(pod.key.clone()), addresses: own_addresses(model, pod).collect() };
    Members { pods: pods.iter().map(|pod| pod.key.clone()).collect(), some: pods.iter().take(2).map(member).collect() }
}

/// The addresses of a pod that no other has the better claim to.
fn own_addresses<'a>(model: &'a Model, pod: &'a Pod) -> impl Iterator<Item = IpAddr> + 'a {
    pod.ips.iter().copied().filter(|address| model.end(*address) == End::Pod(pod.key.clone()))
}

/// The addresses that stand for everybody outside, and for each CIDR.
fn outside(model: &Model, terms: &Terms) -> BTreeMap<String, Vec<IpAddr>> {
    let mut outside: BTreeMap<String, Vec<IpAddr>> = BTreeMap::new();
    let is_taken = |address| model.end(address) != End::Outside;
    for (network, address) in blocks::representatives(&terms.rows, &terms.blocks, is_taken) {
        let name = if network.prefix_len() == 0 { OUTSIDE.to_owned() } else { network.to_string() };
        outside.entry(name).or_default().push(address);
    }
    outside
}

fn on_host_network(models: &[&Model]) -> Option<String> {
    let on_host = models.iter().flat_map(|model| model.pods()).filter(|pod| pod.host_network);
    let on_host: BTreeSet<&PodKey> = on_host.map(|pod| &pod.key).collect();
    let first = on_host.first()?;
    let (many, verb) = if on_host.len() == 1 { ("pod", "is") } else { ("pods", "are") };
    let all = on_host.len();
    Some(format!(
        "{all} {many} on the host network {verb} left out, such as {first}: policies see the node in their place"
    ))
}

impl Terms {
    fn of(models: &[&Model], notes: &mut Vec<String>) -> Terms {
        let policies = || models.iter().flat_map(|model| model.policies());
        let peers = policies().flat_map(|policy| [&policy.ingress, &policy.egress]).flatten().flatten();
        let peers = peers.flat_map(|rule| match &rule.peers {
            Peers::These(peers) => &peers[..],
            Peers::Any => &[],
        });
        let mut labels: BTreeSet<Str> = policies().flat_map(|policy| policy.pod_selector.keys().cloned()).collect();
        for selector in peers.filter_map(Peer::pods) {
            // Labels of namespaces tell no pods of one namespace apart.
            labels.extend(selector.pods.keys().cloned());
        }
        let blocks: BTreeSet<IpNet> = models.iter().flat_map(|model| blocks::named(model.policies())).collect();
        let mut rows: Vec<IpNet> = blocks.iter().copied().collect();
        rows.sort_by_key(|network| (network.prefix_len(), network.network()));
        if let Some(others) = rows.len().checked_sub(MOST_BLOCKS).filter(|others| *others > 0) {
            notes.push(format!("the {MOST_BLOCKS} largest CIDRs have rows of their own; {others} others have none"));
            rows.truncate(MOST_BLOCKS);
        }
        Terms { labels, blocks, rows: rows.into_iter().collect() }
    }

    /// How many CIDRs are no parties.
    fn left_out(&self) -> usize {
        self.blocks.len() - self.rows.len()
    }

    fn groups<'a>(&self, model: &'a Model) -> Groups<'a> {
        let mut groups = Groups::new();
        for pod in model.pods().filter(|pod| pod.is_policed() && own_addresses(model, pod).next().is_some()) {
            let of = (pod.key.namespace.clone(), model.workloads().of_pod(&pod.key).cloned());
            groups.entry(of).or_default().entry(self.signature(model, pod)).or_default().push(pod);
        }
        groups
    }

    fn signature(&self, model: &Model, pod: &Pod) -> Signature {
        let named = pod.labels.iter().filter(|(key, _)| self.labels.contains(*key));
        let mut ports = pod.ports.clone();
        ports.sort();
        let local = model.local(&pod.key).map(|(_, local)| local);
        let addresses = own_addresses(model, pod).map(|address| {
            let shared = local.and_then(|local| local.shared_at(address));
            let shared = shared.map(|shared| shared.pods.clone());
            (address.is_ipv6(), blocks::innermost(&self.blocks, address), shared)
        });
        (named.map(|(key, value)| (key.clone(), value.clone())).collect(), ports, addresses.collect())
    }
}
