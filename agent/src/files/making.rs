//! The Pods that a cluster would make of Deployments and the like, so that charts, which hold no Pods, can be asked about.

use std::collections::{BTreeMap, BTreeSet};

use compiler::api::{NodeName, Object, Pod, PodCount, PodKey, Protocol, Workload, WorkloadKey, WorkloadKind};

use super::Note;
use crate::model::{Workloads, owners_of};

/// The most Pods that are made of one workload. They are alike, but for the labels of a StatefulSet's.
const MOST_OF_ONE: u32 = 100;
/// The most that are made in all.
const MOST: usize = 20_000;

/// What comes of workloads.
#[derive(Debug, Default)]
pub(super) struct Made {
    /// The Pods, each with the ports that its containers declare.
    pub(super) pods: Vec<(Pod, Vec<(Protocol, u16)>)>,
    /// Which Pods belong to which workload, also of those that were there before.
    pub(super) workloads: Workloads,
    pub(super) notes: Vec<Note>,
}

/// Makes the Pods of workloads that have none among the objects.
///
/// A workload has the Pods that name it as their owner, and those without an owner that its selector selects, as its
/// controller would take them over. One that is part of another, as a ReplicaSet of a Deployment, leaves it to that one.
pub(super) fn make(
    objects: &[Object],
    owners: &BTreeMap<PodKey, WorkloadKey>,
    workloads: &BTreeMap<WorkloadKey, Workload>,
) -> Made {
    let known: BTreeMap<WorkloadKey, Option<WorkloadKey>> =
        workloads.values().map(|workload| (workload.key.clone(), workload.owner.clone())).collect();
    let mut made = Made::default();
    let (mut names, mut nodes) = (BTreeSet::new(), BTreeSet::new());
    for object in objects {
        match object {
            Object::Pod(pod) => {
                nodes.extend(pod.node.clone());
                names.insert(pod.key.clone());
                let owner = owners.get(&pod.key).or_else(|| adopter(pod, workloads));
                if let Some(owner) = owner {
                    made.workloads.add(&owners_of(owner, &pod.labels, &known), &pod.key);
                }
            }
            Object::Node(node) => _ = nodes.insert(node.name.clone()),
            Object::Namespace(_) | Object::NetworkPolicy(_) | Object::Service(_) | Object::EndpointSlice(_) => {}
        }
    }
    let nodes: Vec<NodeName> = nodes.into_iter().collect();
    // The names of a StatefulSet's Pods are no choice.
    let (first, then): (Vec<_>, Vec<_>) =
        workloads.values().partition(|workload| workload.key.kind == WorkloadKind::StatefulSet);
    for workload in first.into_iter().chain(then) {
        if made.workloads.pods(&workload.key).is_none() {
            made.make_of(workload, workloads, &nodes, &mut names);
        }
    }
    made
}

/// The workload that would take over a Pod without an owner.
fn adopter<'a>(pod: &Pod, workloads: &'a BTreeMap<WorkloadKey, Workload>) -> Option<&'a WorkloadKey> {
    let adopts = |workload: &&Workload| {
        workload.key.namespace == pod.key.namespace
            && workload.selector.as_ref().is_some_and(|selector| selector.matches(&pod.labels))
    };
    workloads.values().find(adopts).map(|workload| &workload.key)
}

impl Made {
    fn make_of(
        &mut self,
        workload: &Workload,
        workloads: &BTreeMap<WorkloadKey, Workload>,
        nodes: &[NodeName],
        names: &mut BTreeSet<PodKey>,
    ) {
        let key = &workload.key;
        if let Some(owner) = workload.owner.as_ref().filter(|owner| workloads.contains_key(owner)) {
            self.workloads.add_without(key.clone(), format!("those of {owner} are made of that"));
            return;
        }
        let due = match workload.count {
            PodCount::These(0) => return self.without(key, reason_of_none(key.kind)),
            PodCount::Suspended => return self.without(key, "it is suspended (spec.suspend)"),
            PodCount::These(count) => count,
            PodCount::EachNode => u32::try_from(nodes.len().max(1)).unwrap_or(u32::MAX),
        };
        let room = u32::try_from(MOST - self.pods.len().min(MOST)).unwrap_or_default();
        let limit = if workload.count == PodCount::EachNode { room } else { room.min(MOST_OF_ONE) };
        if due > limit {
            self.notes.push(Note::FewerPods { workload: key.clone(), due, made: limit });
        }
        for nth in 0..due.min(limit) {
            let (name, labels) = workload.pod_identity(nth);
            let mut pod = PodKey { namespace: key.namespace.clone(), name };
            if !names.insert(pod.clone()) {
                // Another workload of this name has made a Pod of this name; a cluster would draw another one.
                let kind = key.kind.as_str().to_lowercase();
                pod.name = format!("{}-{kind}-{nth}", key.name).into();
                names.insert(pod.clone());
            }
            let nth = usize::try_from(nth).expect("a number of 32 bits fits");
            let node = (!nodes.is_empty()).then(|| nodes[nth % nodes.len()].clone());
            self.workloads.add(std::slice::from_ref(key), &pod);
            let template = workload.template.clone();
            let node = template.node.clone().or(node);
            self.pods.push((Pod { key: pod, labels, node, ..template }, workload.declared_ports.clone()));
        }
    }

    fn without(&mut self, key: &WorkloadKey, reason: &str) {
        self.workloads.add_without(key.clone(), reason.to_owned());
        self.notes.push(Note::NoPods { workload: key.clone(), reason: reason.to_owned() });
    }
}

fn reason_of_none(kind: WorkloadKind) -> &'static str {
    match kind {
        WorkloadKind::Job | WorkloadKind::CronJob => "its parallelism or completions is 0",
        WorkloadKind::DaemonSet
        | WorkloadKind::Deployment
        | WorkloadKind::ReplicaSet
        | WorkloadKind::ReplicationController
        | WorkloadKind::StatefulSet => "its replicas is 0",
    }
}

#[cfg(test)]
mod tests;
