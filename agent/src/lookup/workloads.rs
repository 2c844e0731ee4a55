//! The pods of workloads and namespaces of a running cluster.

use std::collections::BTreeMap;

use compiler::api::{Item, Object, Pod, PodCount, Workload, WorkloadKey, WorkloadKind};
use kube::api::ListParams;

use super::{Collection, Lookup, Missing};
use crate::model::owners_of;

/// A workload with its owner, if it has one.
type Owners = BTreeMap<WorkloadKey, Option<WorkloadKey>>;

impl Lookup {
    /// The pods of a workload, by what their `ownerReferences` say.
    ///
    /// # Errors
    ///
    /// If pods cannot be listed, or for a CronJob its Jobs.
    pub fn pods_of(&mut self, workload: &WorkloadKey) -> Result<Vec<Pod>, Missing> {
        let namespace = Some(&*workload.namespace);
        let known = match workload.kind {
            WorkloadKind::CronJob => self.owners(WorkloadKind::Job, namespace)?,
            WorkloadKind::DaemonSet
            | WorkloadKind::Deployment
            | WorkloadKind::Job
            | WorkloadKind::ReplicaSet
            | WorkloadKind::ReplicationController
            | WorkloadKind::StatefulSet => Owners::new(),
        };
        let pods = self.pods_with_owners(namespace)?;
        let is_its = |(pod, owners): (Pod, Vec<WorkloadKey>)| owners.contains(workload).then_some(pod);
        let owned = pods.into_iter().map(|(pod, owner)| {
            let owners = owner.map(|owner| owners_of(&owner, &pod.labels, &known)).unwrap_or_default();
            (pod, owners)
        });
        Ok(owned.filter_map(is_its).collect())
    }

    /// All pods of a namespace, or of all, each with the workload that made it.
    pub(super) fn pods_with_owners(
        &mut self,
        namespace: Option<&str>,
    ) -> Result<Vec<(Pod, Option<WorkloadKey>)>, Missing> {
        let pods = Collection { group: "", version: "v1", plural: "pods", namespace };
        let pod = |item| {
            let Item::Object { parsed, owner, .. } = item else { return None };
            if let Object::Pod(pod) = parsed.value { Some((pod, owner)) } else { None }
        };
        Ok(self.items(&pods, ListParams::default())?.into_iter().filter_map(pod).collect())
    }

    /// Workloads of a kind with their owners.
    pub(super) fn owners(&mut self, kind: WorkloadKind, namespace: Option<&str>) -> Result<Owners, Missing> {
        let workloads = self.workloads(kind, namespace)?;
        Ok(workloads.into_iter().map(|workload| (workload.key, workload.owner)).collect())
    }

    /// The workloads of a kind.
    pub fn workloads(&mut self, kind: WorkloadKind, namespace: Option<&str>) -> Result<Vec<Workload>, Missing> {
        let (group, plural) = match kind {
            WorkloadKind::CronJob => ("batch", "cronjobs"),
            WorkloadKind::DaemonSet => ("apps", "daemonsets"),
            WorkloadKind::Deployment => ("apps", "deployments"),
            WorkloadKind::Job => ("batch", "jobs"),
            WorkloadKind::ReplicaSet => ("apps", "replicasets"),
            WorkloadKind::ReplicationController => ("", "replicationcontrollers"),
            WorkloadKind::StatefulSet => ("apps", "statefulsets"),
        };
        let collection = Collection { group, version: "v1", plural, namespace };
        let workload = |item| if let Item::Workload(parsed) = item { Some(parsed.value) } else { None };
        Ok(self.items(&collection, ListParams::default())?.into_iter().filter_map(workload).collect())
    }
}

/// Why a workload that is there has no pods.
pub fn why_none(workload: &Workload) -> &'static str {
    match (workload.count, workload.key.kind) {
        (PodCount::Suspended, _) => "it is suspended (spec.suspend)",
        (PodCount::These(0), WorkloadKind::Job | WorkloadKind::CronJob) => "its parallelism or completions is 0",
        (PodCount::These(0), _) => "its replicas is 0",
        (PodCount::These(_), WorkloadKind::CronJob) => "none of its Jobs runs now",
        (PodCount::These(_) | PodCount::EachNode, _) => "none has started yet, or all have ended",
    }
}
