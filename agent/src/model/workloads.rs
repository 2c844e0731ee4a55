//! Which pods belong to which workload.

use std::collections::{BTreeMap, BTreeSet};

use compiler::api::{Labels, PodKey, WorkloadKey, WorkloadKind};

/// The label by which a Deployment tells the ReplicaSets of its templates apart, and with which their names end.
const TEMPLATE_HASH: &str = "pod-template-hash";
/// How many owners an owner can have above it, so that objects that own each other come to an end.
const MOST_OWNERS: usize = 4;

/// The workloads of a cluster with their pods.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Workloads {
    pods: BTreeMap<WorkloadKey, BTreeSet<PodKey>>,
    of_pod: BTreeMap<PodKey, WorkloadKey>,
    without: BTreeMap<WorkloadKey, String>,
}

impl Workloads {
    /// Adds a pod to its workload and to those above, which stand after it.
    pub fn add(&mut self, owners: &[WorkloadKey], pod: &PodKey) {
        for owner in owners {
            self.pods.entry(owner.clone()).or_default().insert(pod.clone());
        }
        if let Some(top) = owners.last() {
            self.of_pod.insert(pod.clone(), top.clone());
        }
    }

    /// Adds a workload that has no pods, with the reason.
    pub fn add_without(&mut self, workload: WorkloadKey, reason: String) {
        self.without.insert(workload, reason);
    }

    /// The pods of a workload, if it has any.
    pub fn pods(&self, workload: &WorkloadKey) -> Option<&BTreeSet<PodKey>> {
        self.pods.get(workload)
    }

    /// Why a workload that is known has no pods.
    pub fn why_none(&self, workload: &WorkloadKey) -> Option<&str> {
        self.without.get(workload).map(String::as_str)
    }

    /// The workload that a pod belongs to in the end: the Deployment, and not its ReplicaSet.
    pub fn of_pod(&self, pod: &PodKey) -> Option<&WorkloadKey> {
        self.of_pod.get(pod)
    }

    /// All workloads that a pod is of, the nearest and those above.
    pub fn owners(&self, pod: &PodKey) -> Vec<&WorkloadKey> {
        self.pods.iter().filter(|(_, pods)| pods.contains(pod)).map(|(workload, _)| workload).collect()
    }

    /// The same as far as it is about these pods.
    pub fn only(&self, pods: &BTreeSet<PodKey>) -> Workloads {
        let mut left = Workloads { without: self.without.clone(), ..Workloads::default() };
        for (workload, of_workload) in &self.pods {
            let of_workload: BTreeSet<PodKey> = of_workload.intersection(pods).cloned().collect();
            if !of_workload.is_empty() {
                left.pods.insert(workload.clone(), of_workload);
            }
        }
        left.of_pod =
            self.of_pod.iter().filter(|(pod, _)| pods.contains(*pod)).map(|(p, w)| (p.clone(), w.clone())).collect();
        left
    }

    /// The same and others, which count where both have something to say.
    pub fn with(mut self, others: &Workloads) -> Workloads {
        self.pods.extend(others.pods.clone());
        self.of_pod.extend(others.of_pod.clone());
        self.without.extend(others.without.clone());
        self
    }

    /// All workloads that are known.
    pub fn keys(&self) -> impl Iterator<Item = &WorkloadKey> {
        self.pods.keys().chain(self.without.keys())
    }
}

/// The owners of a pod, the nearest first: its own, the owner of that, and so on. `known` holds workloads with their
/// owners. Of those that are not among them the names tell what they are part of, as their controllers choose them.
pub fn owners_of(
    owner: &WorkloadKey,
    labels: &Labels,
    known: &BTreeMap<WorkloadKey, Option<WorkloadKey>>,
) -> Vec<WorkloadKey> {
    let mut owners = vec![owner.clone()];
    while let Some(last) = owners.last().filter(|_| owners.len() < MOST_OWNERS) {
        let above = known.get(last).cloned().unwrap_or_else(|| by_name(last, labels));
        match above {
            Some(above) if !owners.contains(&above) => owners.push(above),
            Some(_) | None => break,
        }
    }
    owners
}

/// What a ReplicaSet or a Job is part of, by its name: `web-5d4f8c7b9` of a pod with the hash `5d4f8c7b9`, and
/// `nightly-29400000`, which has the minute in which the Job was due (`getJobName` of the CronJob controller).
fn by_name(workload: &WorkloadKey, labels: &Labels) -> Option<WorkloadKey> {
    let (name, kind) = match workload.kind {
        WorkloadKind::ReplicaSet => {
            let hash = labels.get(TEMPLATE_HASH).filter(|hash| !hash.is_empty())?;
            (workload.name.strip_suffix(&**hash)?.strip_suffix('-')?, WorkloadKind::Deployment)
        }
        WorkloadKind::Job => {
            let (name, minute) = workload.name.rsplit_once('-')?;
            let is_minute = minute.len() >= 8 && minute.bytes().all(|digit| digit.is_ascii_digit());
            (Some(name).filter(|_| is_minute)?, WorkloadKind::CronJob)
        }
        WorkloadKind::CronJob
        | WorkloadKind::DaemonSet
        | WorkloadKind::Deployment
        | WorkloadKind::ReplicationController
        | WorkloadKind::StatefulSet => return None,
    };
    Some(WorkloadKey { kind, namespace: workload.namespace.clone(), name: name.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(kind: WorkloadKind, name: &str) -> WorkloadKey {
        WorkloadKey { kind, namespace: "shop".into(), name: name.into() }
    }

    #[test]
    fn owners_are_followed_to_the_top() {
        let hash = |hash: &str| [("pod-template-hash".into(), hash.into())].into_iter().collect::<Labels>();
        let owners = |owner: WorkloadKey, labels: &Labels, known: &[(WorkloadKey, Option<WorkloadKey>)]| {
            let known = known.iter().cloned().collect();
            owners_of(&owner, labels, &known).iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let (set, job) = (key(WorkloadKind::ReplicaSet, "web-5d4f"), key(WorkloadKind::Job, "nightly-29400000"));
        assert_eq!(owners(set.clone(), &hash("5d4f"), &[]), ["ReplicaSet shop/web-5d4f", "Deployment shop/web"]);
        // The labels and name of a set that nobody owns do not make it one of a Deployment, if it is known.
        assert_eq!(owners(set.clone(), &hash("5d4f"), &[(set.clone(), None)]), ["ReplicaSet shop/web-5d4f"]);
        assert_eq!(owners(set.clone(), &hash("other"), &[]), ["ReplicaSet shop/web-5d4f"]);
        assert_eq!(owners(job.clone(), &hash(""), &[]), ["Job shop/nightly-29400000", "CronJob shop/nightly"]);
        assert_eq!(owners(key(WorkloadKind::Job, "load-2024"), &hash(""), &[]), ["Job shop/load-2024"]);
        let circle = [(set.clone(), Some(job.clone())), (job, Some(set.clone()))];
        assert_eq!(owners(set, &hash(""), &circle).len(), 2);
    }
}
