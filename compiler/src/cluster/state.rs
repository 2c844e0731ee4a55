//! The whole state, and how an event changes it.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use super::{Change, Event, Memberships, Namespaces, PodSource, Pods, Policies, PortSelector, Selection};
use crate::api::{
    Direction, Namespace, NetworkPolicy, NodeName, Peer, Peers, Pod, PodKey, PodSelector, PolicyKey, PortMatch, Ports,
    Rule, Str,
};

/// The state of the cluster, seen from one node.
#[derive(Debug, Clone)]
pub struct State {
    node: NodeName,
    namespaces: Namespaces,
    pods: Pods,
    policies: Policies,
    selection: Selection,
    memberships: Memberships,
    versions: Versions,
}

/// Numbers that grow with every change, for whoever remembers what it made of a part of the state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Versions {
    /// Of the local pods, their addresses, and how they are isolated.
    pub local_pods: u64,
    /// Of the policies that select a local pod.
    pub used_policies: u64,
}

/// What a policy needs to have kept while it selects a local pod.
#[derive(Default)]
struct Needs {
    pods: BTreeSet<PodSelector>,
    ports: BTreeSet<PortSelector>,
}

impl State {
    /// An empty cluster, seen from a node.
    pub fn new(node: NodeName) -> State {
        State {
            pods: Pods::new(node.clone()),
            node,
            namespaces: Namespaces::default(),
            policies: Policies::default(),
            selection: Selection::default(),
            memberships: Memberships::default(),
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

    /// How often parts of the state have changed.
    pub fn versions(&self) -> Versions {
        self.versions
    }

    /// Takes over an event, and says whether anything is different afterwards.
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
        }
    }

    fn put_pod(&mut self, source: PodSource, key: &PodKey, pod: Option<Pod>) -> bool {
        let (before, after) = self.pods.put(source, key, pod);
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
        for address in addresses {
            self.memberships.refresh(address, &self.pods, &self.namespaces);
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
        let addresses: BTreeSet<IpAddr> =
            self.pods.in_namespace(name).flat_map(|pod| pod.ips.iter().copied()).collect();
        for address in addresses {
            self.memberships.refresh(address, &self.pods, &self.namespaces);
        }
    }

    fn put_policy(&mut self, key: &PolicyKey, policy: Option<NetworkPolicy>) -> bool {
        if self.policies.get(key).map(|known| &**known) == policy.as_ref() {
            return false;
        }
        let needs_before = self.needs_of_used(key);
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
        let needs_now = self.needs_of_used(key);
        self.exchange(&needs_before, &needs_now);
        true
    }

    fn reset_policies(&mut self, policies: Vec<NetworkPolicy>) -> bool {
        let listed: BTreeSet<PolicyKey> = policies.iter().map(|policy| policy.key.clone()).collect();
        let gone: Vec<PolicyKey> =
            self.policies.iter().map(|policy| policy.key.clone()).filter(|key| !listed.contains(key)).collect();
        let mut changed = false;
        for key in gone {
            changed |= self.put_policy(&key, None);
        }
        for policy in policies {
            changed |= self.put_policy(&policy.key.clone(), Some(policy));
        }
        changed
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
        for key in now.difference(before) {
            let needs = self.needs_of_used(key);
            self.exchange(&Needs::default(), &needs);
        }
        for key in before.difference(&now) {
            let needs = self.policies.get(key).map_or_else(Needs::default, |policy| Needs::of(policy));
            self.exchange(&needs, &Needs::default());
        }
    }

    /// What a policy needs, nothing if it selects no local pod.
    fn needs_of_used(&self, key: &PolicyKey) -> Needs {
        let policy = self.policies.get(key).filter(|_| self.selection.is_used(key));
        policy.map_or_else(Needs::default, |policy| Needs::of(policy))
    }

    /// Acquires before it releases, so that what is needed before and after is not worked out anew.
    fn exchange(&mut self, before: &Needs, now: &Needs) {
        for selector in &now.pods {
            self.memberships.acquire_pods(selector, &self.pods, &self.namespaces);
        }
        for selector in &now.ports {
            self.memberships.acquire_port(selector, &self.pods, &self.namespaces);
        }
        for selector in &before.pods {
            self.memberships.release_pods(selector);
        }
        for selector in &before.ports {
            self.memberships.release_port(selector);
        }
    }
}

impl Needs {
    fn of(policy: &NetworkPolicy) -> Needs {
        let mut needs = Needs::default();
        for direction in Direction::ALL {
            for rule in policy.rules(direction).unwrap_or_default() {
                needs.add(direction, rule);
            }
        }
        needs
    }

    fn add(&mut self, direction: Direction, rule: &Rule) {
        // Each peer with its selector, `None` for one that is found by its address.
        let peers: Vec<Option<&PodSelector>> = match &rule.peers {
            Peers::Any => vec![None],
            Peers::These(peers) => peers.iter().map(Peer::pods).collect(),
        };
        self.pods.extend(peers.iter().flatten().copied().cloned());
        let Ports::These(ports) = &rule.ports else { return };
        for port in ports {
            let PortMatch::Named(name) = &port.port else { continue };
            let selectors = peers.iter().map(|peer| PortSelector::of_rule(direction, *peer, port.protocol, name));
            self.ports.extend(selectors);
        }
    }
}
