//! The whole state, and how an event changes it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use imbl::OrdMap;
use ipnet::IpNet;

use super::admission::{Admission, Keeper};
use super::budget::{Budget, Quarantine};
use super::links;
use super::{Change, Event, Links, Memberships, Namespaces, PodSource, Pods, Policies, Sandbox, Selection};
use crate::api::{Namespace, NetworkPolicy, NodeName, Pod, PodKey, PolicyKey, Str};

/// How many policies of a namespace are taken over one by one. Beyond that its pods are looked at anew: a policy that comes
/// copies the list of each pod that it selects.
const FEW: usize = 16;

/// The state of the cluster, seen from one node.
#[derive(Debug, Clone)]
pub struct State {
    node: NodeName,
    namespaces: Namespaces,
    pods: Pods,
    policies: Policies,
    selection: Selection,
    memberships: Memberships,
    admission: Admission,
    links: Links,
    /// `None` where nobody has told of any, or of none.
    pod_ranges: Option<Vec<IpNet>>,
    versions: Versions,
}

/// Numbers that grow with every change, for whoever remembers what it made of a part of the state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Versions {
    /// Of the local pods, their addresses, how they are isolated, the links of the node, and the ranges of their addresses.
    pub local_pods: u64,
    /// Of the policies that select a local pod.
    pub used_policies: u64,
    /// Of the pod peers and named ports that these name, whatever they mean.
    pub selectors: u64,
    /// Of the labels of the Namespaces.
    pub namespaces: u64,
}

impl State {
    /// An empty cluster, seen from a node, with the budget that is the default.
    pub fn new(node: NodeName) -> State {
        State::with_budget(node, Budget::default())
    }

    /// An empty cluster, seen from a node, where policies may cost so much.
    pub fn with_budget(node: NodeName, budget: Budget) -> State {
        State {
            pods: Pods::new(node.clone()),
            node,
            namespaces: Namespaces::default(),
            policies: Policies::default(),
            selection: Selection::default(),
            memberships: Memberships::default(),
            admission: Admission::new(budget),
            links: Links::default(),
            pod_ranges: None,
            versions: Versions::default(),
        }
    }

    /// The node from which the cluster is seen.
    pub fn node(&self) -> &NodeName {
        &self.node
    }

    /// The Namespaces.
    pub fn namespaces(&self) -> &Namespaces {
        &self.namespaces
    }

    /// The Pods.
    pub fn pods(&self) -> &Pods {
        &self.pods
    }

    /// The NetworkPolicies.
    pub fn policies(&self) -> &Policies {
        &self.policies
    }

    /// Which policies select which local pod.
    pub fn selection(&self) -> &Selection {
        &self.selection
    }

    /// Which addresses the selectors in use mean.
    pub fn memberships(&self) -> &Memberships {
        &self.memberships
    }

    /// The links of the node that may lead to pods.
    pub fn links(&self) -> &Links {
        &self.links
    }

    /// The ranges from which this node gives its pods addresses, ascending, joined where they touch.
    pub fn pod_ranges(&self) -> &[IpNet] {
        self.pod_ranges.as_deref().unwrap_or_default()
    }

    /// Takes over ranges that were known before, unless somebody has told of some, or of none, by now.
    pub fn adopt_pod_ranges(&mut self, ranges: Vec<IpNet>) {
        if self.pod_ranges.is_none() && !ranges.is_empty() {
            self.put_pod_ranges(ranges);
        }
    }

    /// The policies that select a local pod.
    pub fn used_policies(&self) -> &OrdMap<PolicyKey, Arc<NetworkPolicy>> {
        self.admission.policies()
    }

    /// The policies in use that are not enforced as they are written, and why.
    pub fn quarantined(&self) -> &OrdMap<PolicyKey, Quarantine> {
        self.admission.quarantined()
    }

    /// Quarantines a policy in use, because the kernel refuses what it becomes, until it changes.
    pub fn refuse(&mut self, policy: &PolicyKey, reason: String) {
        self.admission.refuse(policy, reason);
        self.versions.used_policies += 1;
    }

    /// Takes [`State::refuse`] back for these policies.
    pub fn pardon(&mut self, policies: &[PolicyKey]) {
        self.admission.pardon(policies);
        self.versions.used_policies += 1;
    }

    /// Gives every policy in quarantine another chance, as if it were new.
    pub fn reconsider(&mut self) {
        self.decide();
        if !self.admission.quarantined().is_empty() {
            let (admission, keeper) = self.admission();
            admission.reconsider(keeper);
            self.versions.used_policies += 1;
        }
    }

    /// How often parts of the state have changed.
    pub fn versions(&self) -> Versions {
        Versions { selectors: self.memberships.version(), ..self.versions }
    }

    /// Decides which policies do not fit into their budgets, after any number of events.
    pub fn decide(&mut self) {
        let other_lists = self.selection.take_grown();
        let (admission, keeper) = self.admission();
        if admission.decide(other_lists, keeper) {
            self.versions.used_policies += 1;
            // The pods are not led to policies that are left out.
            self.versions.local_pods += 1;
        }
    }

    /// Takes over an event, and says whether anything is different afterwards. What that means for policies that do not
    /// fit into their budgets is decided by [`State::decide`].
    pub fn apply(&mut self, event: Event) -> bool {
        match event {
            Event::Pods(source, Change::Applied(pod)) => self.put_pod(source, &pod.key.clone(), Some(pod)),
            Event::Pods(source, Change::Deleted(key)) => self.put_pod(source, &key, None),
            Event::Pods(source, Change::Reset(pods)) => self.reset_pods(&source, pods),
            Event::Namespaces(Change::Applied(namespace)) => self.put_namespace(namespace),
            Event::Namespaces(Change::Deleted(name)) => self.remove_namespace(&name),
            Event::Namespaces(Change::Reset(namespaces)) => self.reset_namespaces(namespaces),
            Event::Policies(Change::Applied(policy)) => self.put_policy(&policy.key.clone(), Some(policy)),
            Event::Policies(Change::Deleted(key)) => self.put_policy(&key, None),
            Event::Policies(Change::Reset(policies)) => self.reset_policies(policies),
            Event::Links(links) if *self.links == links => false,
            Event::Links(links) => {
                self.links = Links::new(links);
                self.versions.local_pods += 1;
                self.release_lingering();
                true
            }
            Event::Sandboxes(sandboxes) => self.put_sandboxes(sandboxes),
            Event::PodRanges(ranges) => self.put_pod_ranges(ranges),
        }
    }

    /// Takes over what a watch says of a pod. One whose network still runs stays as it was, though it is gone or has
    /// finished by that: a pod that is deleted by force, or whose containers have ended, may still send. One that has a
    /// sandbox and is reported as finished lingers also if it has not been known before.
    fn put_pod(&mut self, source: PodSource, key: &PodKey, pod: Option<Pod>) -> bool {
        let before = self.pods.get(key).cloned();
        let mut changed = self.put_copy(source, key, pod);
        if self.stays(key) {
            changed |= self.put_copy(PodSource::Lingering, key, None);
            return changed;
        }
        let was_here = before.filter(|pod| self.pods.is_local(pod));
        let is_here = self.pods.get(key).is_some_and(|pod| self.pods.is_local(pod));
        if let Some(pod) = was_here.filter(|pod| !is_here && self.has_network(pod)) {
            let lingering = Pod { terminating: true, lingering: true, held: 0, ..Pod::clone(&pod) };
            self.put_copy(PodSource::Lingering, key, Some(lingering));
        }
        changed
    }

    /// Takes over the sandboxes of the node.
    fn put_sandboxes(&mut self, sandboxes: Vec<Sandbox>) -> bool {
        let changed = self.pods.put_sandboxes(sandboxes);
        // Links may lead to others than before, though no pod has changed.
        self.versions.local_pods += u64::from(!changed.is_empty());
        for key in &changed {
            let (before, after) = self.pods.complete(key);
            self.follow_pod(key, before, after);
            if self.stays(key) {
                self.put_copy(PodSource::Lingering, key, None);
            }
        }
        self.release_lingering();
        !changed.is_empty()
    }

    /// Takes over the ranges of the node's pods.
    fn put_pod_ranges(&mut self, ranges: Vec<IpNet>) -> bool {
        let ranges = IpNet::aggregate(&ranges.iter().map(IpNet::trunc).collect());
        let changed = self.pod_ranges() != ranges;
        self.pod_ranges = Some(ranges);
        if changed {
            self.versions.local_pods += 1;
        }
        changed
    }

    /// Whether a pod of this name is reported that counts, so that none lingers under it.
    fn stays(&self, key: &PodKey) -> bool {
        self.pods.reported(key).is_some_and(|pod| pod.is_policed() && !pod.lingering)
    }

    /// Whether the network of a pod of this node is known to run.
    fn has_network(&self, pod: &Pod) -> bool {
        self.pods.has_sandbox(pod) || links::lead_to(&self.links, &pod.ips)
    }

    /// Lets go of the pods whose networks have ended.
    fn release_lingering(&mut self) {
        let has_ended = |pod: &&Arc<Pod>| pod.lingering && !self.has_network(pod);
        let ended: Vec<PodKey> = self.pods.local().filter(has_ended).map(|pod| pod.key.clone()).collect();
        for key in ended {
            self.put_copy(PodSource::Lingering, &key, None);
        }
    }

    fn put_copy(&mut self, source: PodSource, key: &PodKey, pod: Option<Pod>) -> bool {
        let (before, after) = self.pods.put(source, key, pod);
        self.follow_pod(key, before, after)
    }

    /// Brings everything in line with what is believed of a pod, and says whether that is not what it was.
    fn follow_pod(&mut self, key: &PodKey, before: Option<Arc<Pod>>, after: Option<Arc<Pod>>) -> bool {
        if before == after {
            return false;
        }
        let local = after.as_deref().filter(|pod| self.pods.is_local(pod));
        if local.is_some() || before.as_deref().is_some_and(|pod| self.pods.is_local(pod)) {
            self.versions.local_pods += 1;
            let used_before = self.used_in(&key.namespace);
            self.selection.put_pod(key, local, self.policies.in_namespace(&key.namespace));
            self.follow_use(&key.namespace, &used_before);
        }
        let addresses: BTreeSet<IpAddr> = before.iter().chain(&after).flat_map(|pod| pod.ips.iter().copied()).collect();
        // What pods elsewhere have of the node's ranges says whether these mean anything.
        if addresses.iter().any(|address| self.pod_ranges().iter().any(|range| range.contains(address))) {
            self.versions.local_pods += 1;
        }
        for address in addresses {
            self.memberships.refresh(address, before.iter().chain(&after), &self.pods, &self.namespaces);
        }
        true
    }

    fn reset_pods(&mut self, source: &PodSource, pods: Vec<Pod>) -> bool {
        let listed: BTreeSet<PodKey> = pods.iter().map(|pod| pod.key.clone()).collect();
        let gone: Vec<_> = self.pods.of_source(source).into_iter().filter(|key| !listed.contains(key)).collect();
        let mut changed = false;
        for key in gone {
            changed |= self.put_pod(source.clone(), &key, None);
        }
        for pod in pods {
            changed |= self.put_pod(source.clone(), &pod.key.clone(), Some(pod));
        }
        changed
    }

    fn put_namespace(&mut self, namespace: Namespace) -> bool {
        let name = namespace.name.clone();
        let now = namespace.clone();
        let before = self.namespaces.put(namespace);
        if before.as_ref() == Some(&now) {
            return false;
        }
        if before.as_ref().is_some_and(|before| before.default_deny_ingress) != now.default_deny_ingress {
            self.versions.local_pods += 1;
        }
        if before.is_none_or(|before| before.labels != now.labels) {
            self.refresh_namespace(&name);
        }
        true
    }

    fn remove_namespace(&mut self, name: &str) -> bool {
        let Some(removed) = self.namespaces.remove(name) else { return false };
        if removed.default_deny_ingress {
            self.versions.local_pods += 1;
        }
        self.refresh_namespace(name);
        true
    }

    fn reset_namespaces(&mut self, namespaces: Vec<Namespace>) -> bool {
        let listed: BTreeSet<Str> = namespaces.iter().map(|namespace| namespace.name.clone()).collect();
        let gone: Vec<Str> =
            self.namespaces.iter().map(|n| n.name.clone()).filter(|name| !listed.contains(name)).collect();
        let mut changed = false;
        for name in gone {
            changed |= self.remove_namespace(&name);
        }
        for namespace in namespaces {
            changed |= self.put_namespace(namespace);
        }
        changed
    }

    /// Brings the memberships in line with the labels of a namespace.
    fn refresh_namespace(&mut self, name: &str) {
        self.versions.namespaces += 1;
        let addresses: BTreeSet<IpAddr> =
            self.pods.in_namespace(name).flat_map(|pod| pod.ips.iter().copied()).collect();
        for address in addresses {
            self.memberships.refresh(address, std::iter::empty(), &self.pods, &self.namespaces);
        }
    }

    fn put_policy(&mut self, key: &PolicyKey, policy: Option<NetworkPolicy>) -> bool {
        if self.policies.get(key).map(|known| &**known) == policy.as_ref() {
            return false;
        }
        let used_before = self.selection.is_used(key);
        let policy = policy.map(Arc::new);
        let before = match &policy {
            Some(policy) => self.policies.put(policy.clone()),
            None => self.policies.remove(key),
        };
        let local_pods = self.pods.local().filter(|pod| pod.key.namespace == key.namespace);
        let selects_others = self.selection.put_policy(key, policy.as_deref(), local_pods);
        if used_before || self.selection.is_used(key) {
            self.versions.used_policies += 1;
            let generation = |policy: &Option<Arc<NetworkPolicy>>| policy.as_ref().map(|policy| policy.api);
            if selects_others || generation(&before) != generation(&policy) {
                self.versions.local_pods += 1;
            }
        }
        let now = policy.filter(|_| self.selection.is_used(key));
        if used_before || now.is_some() {
            let (admission, keeper) = self.admission();
            admission.put(key, now.as_ref(), keeper);
        }
        true
    }

    fn reset_policies(&mut self, policies: Vec<NetworkPolicy>) -> bool {
        let listed: BTreeSet<PolicyKey> = policies.iter().map(|policy| policy.key.clone()).collect();
        let gone: Vec<PolicyKey> =
            self.policies.iter().map(|policy| policy.key.clone()).filter(|key| !listed.contains(key)).collect();
        let gone = gone.into_iter().map(|key| (key, None));
        let listed = policies.into_iter().map(|policy| (policy.key.clone(), Some(policy)));
        let mut by_namespace: BTreeMap<Str, Vec<(PolicyKey, Option<NetworkPolicy>)>> = BTreeMap::new();
        for (key, policy) in gone.chain(listed) {
            if self.policies.get(&key).map(|known| &**known) != policy.as_ref() {
                by_namespace.entry(key.namespace.clone()).or_default().push((key, policy));
            }
        }
        let changed = !by_namespace.is_empty();
        for (namespace, changes) in by_namespace {
            if changes.len() > FEW {
                self.put_policies(&namespace, changes);
            } else {
                for (key, policy) in changes {
                    self.put_policy(&key, policy);
                }
            }
        }
        changed
    }

    /// Takes over many changes of policies of a namespace: the lists of its pods are made anew once, and not once for each.
    fn put_policies(&mut self, namespace: &Str, changes: Vec<(PolicyKey, Option<NetworkPolicy>)>) {
        let used_before = self.used_in(namespace);
        let changes: Vec<_> = changes.into_iter().map(|(key, policy)| (key, policy.map(Arc::new))).collect();
        for (key, policy) in &changes {
            match policy {
                Some(policy) => drop(self.policies.put(policy.clone())),
                None => drop(self.policies.remove(key)),
            }
        }
        for pod in self.pods.local().filter(|pod| pod.key.namespace == *namespace) {
            self.selection.put_pod(&pod.key, Some(pod), self.policies.in_namespace(namespace));
        }
        self.versions.used_policies += 1;
        self.versions.local_pods += 1;
        for (key, policy) in changes {
            let now = policy.filter(|_| self.selection.is_used(&key));
            if now.is_some() || used_before.contains(&key) {
                let (admission, keeper) = self.admission();
                admission.put(&key, now.as_ref(), keeper);
            }
        }
    }

    /// The policies of a namespace that select a local pod.
    fn used_in(&self, namespace: &str) -> BTreeSet<PolicyKey> {
        let keys = self.policies.in_namespace(namespace).map(|policy| &policy.key);
        keys.filter(|key| self.selection.is_used(key)).cloned().collect()
    }

    /// Starts and ends memberships as policies of a namespace begin or cease to select a local pod.
    fn follow_use(&mut self, namespace: &str, before: &BTreeSet<PolicyKey>) {
        let now = self.used_in(namespace);
        if now != *before {
            self.versions.used_policies += 1;
        }
        for key in now.symmetric_difference(before) {
            let policy = self.policies.get(key).filter(|_| now.contains(key)).cloned();
            let (admission, keeper) = self.admission();
            admission.put(key, policy.as_ref(), keeper);
        }
    }

    /// What decides which policies are enforced, and what it works with.
    fn admission(&mut self) -> (&mut Admission, Keeper<'_>) {
        let State { selection, memberships, pods, namespaces, admission, .. } = self;
        (admission, Keeper { selection, memberships, pods, namespaces })
    }
}
