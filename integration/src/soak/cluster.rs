//! The cluster that changes: what there is, and what happens to it next.
//!
//! How much there is stays about the same, so that what the agent takes can be compared over time.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use fastrand::Rng;

use super::change::{Change, Name};
use super::spec::{self, APPS, TEAMS};

/// The namespaces whose pods, policies and labels change. The pods of the node that do are in the first.
pub(super) const NAMESPACES: [&str; 3] = ["churn", "red", "green"];
/// The pods of the node that come and go by their labels, and have real addresses.
pub(super) const MEMBERS: [&str; 4] = ["member-0", "member-1", "member-2", "member-3"];
/// About how many pods and policies there are that come and go.
const PODS: usize = 60;
const POLICIES: usize = 25;
/// The most objects of one burst.
const BURST: usize = 40;

/// What there is.
pub(super) struct Cluster {
    rng: Rng,
    next_id: u32,
    /// The pods that come and go, with their addresses.
    pods: BTreeMap<Name, Vec<IpAddr>>,
    policies: Vec<Name>,
    /// A policy that costs too much, if there is one.
    bomb: Option<Name>,
    /// Addresses that a pod has left.
    free: Vec<Vec<IpAddr>>,
}

// === impl Cluster ===

impl Cluster {
    pub(super) fn new(rng: Rng) -> Cluster {
        Cluster { rng, next_id: 0, pods: BTreeMap::new(), policies: Vec::new(), bomb: None, free: Vec::new() }
    }

    /// What happens next: one change, or a burst of changes of different objects, which may be told in any order.
    pub(super) fn next(&mut self) -> Vec<Change> {
        match self.rng.u32(..1_000) {
            0..10 => self.burst(),
            10..16 => vec![self.bomb()],
            16..40 => vec![self.odd_policy()],
            40..250 => vec![self.policy()],
            250..300 => vec![self.namespace()],
            300..420 => {
                let pod = Name::new(NAMESPACES[0], *self.rng.choice(&MEMBERS).expect("there are members"));
                vec![Change::PodLabelled { pod, app: self.app() }]
            }
            420..570 => vec![self.pod_labelled()],
            570..720 => vec![self.pod_moves()],
            720..760 => vec![self.pod_finishes()],
            _ => vec![self.pod_comes_or_goes()],
        }
    }

    fn burst(&mut self) -> Vec<Change> {
        let size = self.rng.usize(10..=BURST);
        match self.rng.u8(..3) {
            0 => (0..size).map(|_| self.pod_comes()).collect(),
            1 => {
                let size = size.min(self.pods.len() / 2);
                (0..size).map(|_| self.pod_goes()).collect()
            }
            _ => {
                let pods: Vec<Name> = self.pods.keys().take(size).cloned().collect();
                pods.into_iter().map(|pod| self.moved(pod)).collect()
            }
        }
    }

    fn pod_comes_or_goes(&mut self) -> Change {
        // The more there are, the likelier it is that one goes.
        if self.rng.usize(..2 * PODS) < self.pods.len() { self.pod_goes() } else { self.pod_comes() }
    }

    fn pod_comes(&mut self) -> Change {
        let (id, addresses) = (self.id(), self.addresses());
        let is_local = self.rng.u8(..10) == 0;
        let namespace = if is_local { NAMESPACES[0] } else { self.namespace_name() };
        let node = if is_local { "node-1" } else { "node-2" };
        // A name of another length has its named port elsewhere.
        let pod = Name::new(namespace, format!("pod{}-{id}", "x".repeat(self.rng.usize(..3))));
        self.pods.insert(pod.clone(), addresses.clone());
        Change::PodComes { pod, node, app: self.app(), addresses }
    }

    fn pod_goes(&mut self) -> Change {
        match self.any_pod() {
            Some(pod) => {
                self.free.extend(self.pods.remove(&pod));
                Change::PodGoes { pod }
            }
            None => self.pod_comes(),
        }
    }

    fn pod_moves(&mut self) -> Change {
        match self.any_pod() {
            Some(pod) => self.moved(pod),
            None => self.pod_comes(),
        }
    }

    fn moved(&mut self, pod: Name) -> Change {
        let addresses = self.addresses();
        self.free.extend(self.pods.insert(pod.clone(), addresses.clone()));
        Change::PodMoves { pod, addresses }
    }

    fn pod_labelled(&mut self) -> Change {
        match self.any_pod() {
            Some(pod) => Change::PodLabelled { pod, app: self.app() },
            None => self.pod_comes(),
        }
    }

    fn pod_finishes(&mut self) -> Change {
        match self.any_pod() {
            Some(pod) => Change::PodFinishes { pod },
            None => self.pod_comes(),
        }
    }

    fn policy(&mut self) -> Change {
        let at = self.rng.usize(..2 * POLICIES);
        if at >= self.policies.len() {
            // Most are where the pods of the node are.
            let namespace = if self.rng.u8(..5) > 0 { NAMESPACES[0] } else { self.namespace_name() };
            let policy = Name::new(namespace, format!("policy-{}", self.id()));
            self.policies.push(policy.clone());
            Change::PolicyComes { policy, spec: spec::policy(&mut self.rng) }
        } else if self.rng.bool() {
            Change::PolicyChanges { policy: self.policies[at].clone(), spec: spec::policy(&mut self.rng) }
        } else {
            Change::PolicyGoes { policy: self.policies.swap_remove(at) }
        }
    }

    fn odd_policy(&mut self) -> Change {
        match self.rng.choice(&self.policies) {
            Some(policy) => Change::PolicyChanges { policy: policy.clone(), spec: spec::odd(&mut self.rng) },
            None => self.policy(),
        }
    }

    /// There is one bomb at most, and it goes when the next one is due.
    fn bomb(&mut self) -> Change {
        match self.bomb.take() {
            Some(policy) => Change::PolicyGoes { policy },
            None => {
                let policy = Name::new(NAMESPACES[0], format!("bomb-{}", self.id()));
                self.bomb = Some(policy.clone());
                Change::PolicyComes { policy, spec: spec::bomb(&mut self.rng) }
            }
        }
    }

    fn namespace(&mut self) -> Change {
        let team = if self.rng.u8(..4) == 0 { None } else { self.rng.choice(TEAMS) };
        Change::NamespaceLabelled { namespace: self.namespace_name(), team }
    }

    /// New ones, those that another pod has left, or now and then those that another one has.
    fn addresses(&mut self) -> Vec<IpAddr> {
        let taken = match self.rng.u8(..20) {
            0..4 if !self.free.is_empty() => Some(self.free.swap_remove(self.rng.usize(..self.free.len()))),
            4 => self.any_pod().map(|pod| self.pods[&pod].clone()),
            _ => None,
        };
        self.free.truncate(PODS);
        taken.unwrap_or_else(|| {
            let id = self.id();
            let v4 = IpAddr::V4(Ipv4Addr::from(0x0a_32_00_00 + id % 0x1_0000));
            let v6 = IpAddr::V6(Ipv6Addr::from((0xfd00_0050_u128 << 96) + u128::from(id)));
            if self.rng.u8(..3) == 0 { vec![v4] } else { vec![v4, v6] }
        })
    }

    fn any_pod(&mut self) -> Option<Name> {
        let at = self.rng.usize(..self.pods.len().max(1));
        self.pods.keys().nth(at).cloned()
    }

    fn app(&mut self) -> &'static str {
        self.rng.choice(APPS).expect("there are apps")
    }

    fn namespace_name(&mut self) -> &'static str {
        self.rng.choice(NAMESPACES).expect("there are namespaces")
    }

    fn id(&mut self) -> u32 {
        self.next_id += 1;
        self.next_id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_changes_and_the_size_stays() {
        let [mut one, mut other] = [7, 7].map(|seed| Cluster::new(Rng::with_seed(seed)));
        let mut kinds = BTreeMap::<_, usize>::new();
        for _ in 0..5_000 {
            let changes = one.next();
            assert_eq!(changes, other.next());
            changes.iter().for_each(|change| *kinds.entry(change.kind()).or_default() += 1);
            assert!(one.pods.len() <= 2 * PODS + BURST && one.policies.len() <= 2 * POLICIES);
        }
        assert_eq!(kinds.len(), 9, "{kinds:?}");
        assert!(one.pods.len() > PODS / 2 && one.policies.len() > POLICIES / 2);
        let changes: Vec<_> = (0..100).map(|_| Cluster::new(Rng::with_seed(8)).next()).collect();
        assert_ne!(changes, (0..100).map(|_| one.next()).collect::<Vec<_>>());
    }
}
