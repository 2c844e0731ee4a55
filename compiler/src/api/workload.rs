//! Objects from which a cluster makes Pods.

use std::fmt;

use super::{Labels, ObjectRef, Pod, Protocol, Selector, Str};

/// An object from which a cluster makes Pods, as far as it says what these are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workload {
    /// Kind, namespace and name.
    pub key: WorkloadKey,
    /// The workload that made this one, and decides about it: the Deployment of a ReplicaSet, the CronJob of a Job.
    pub owner: Option<WorkloadKey>,
    /// How many Pods it has when all is well.
    pub count: PodCount,
    /// `spec.selector`: the Pods without an owner that it takes for its own. `None` for Jobs, which the API server gives a
    /// selector that only their own Pods meet.
    pub selector: Option<Selector>,
    /// What its Pods are like: `spec.template`, with the namespace and name of the workload.
    pub template: Pod,
    /// The ports that the containers of its Pods declare, named or not.
    pub declared_ports: Vec<(Protocol, u16)>,
}

/// How many Pods a workload has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PodCount {
    /// So many, wherever there is room.
    These(u32),
    /// One on each node.
    EachNode,
    /// None now, since `spec.suspend` is set.
    Suspended,
}

/// A workload, by kind, namespace and name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkloadKey {
    /// `kind`
    pub kind: WorkloadKind,
    /// `metadata.namespace`
    pub namespace: Str,
    /// `metadata.name`
    pub name: Str,
}

/// The kind of an object from which a cluster makes Pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WorkloadKind {
    /// `batch/v1` CronJob
    CronJob,
    /// `apps/v1` DaemonSet
    DaemonSet,
    /// `apps/v1` Deployment
    Deployment,
    /// `batch/v1` Job
    Job,
    /// `apps/v1` ReplicaSet
    ReplicaSet,
    /// `v1` ReplicationController
    ReplicationController,
    /// `apps/v1` StatefulSet
    StatefulSet,
}

impl Workload {
    /// `metadata` of its n-th Pod, from 0, by the rules of its controller: the name, which for most kinds ends in letters
    /// by chance and here in the number, and the labels that the controller adds and policies may ask for.
    pub fn pod_identity(&self, nth: u32) -> (Str, Labels) {
        let name = &self.key.name;
        let added: Vec<(&str, String)> = match self.key.kind {
            // https://kubernetes.io/docs/concepts/workloads/controllers/statefulset/#pod-name-label
            WorkloadKind::StatefulSet => vec![
                ("statefulset.kubernetes.io/pod-name", format!("{name}-{nth}")),
                ("apps.kubernetes.io/pod-index", nth.to_string()),
            ],
            // https://kubernetes.io/docs/reference/labels-annotations-taints/#batch-kubernetes-io-job-name
            WorkloadKind::Job => {
                vec![("batch.kubernetes.io/job-name", name.to_string()), ("job-name", name.to_string())]
            }
            WorkloadKind::CronJob
            | WorkloadKind::DaemonSet
            | WorkloadKind::Deployment
            | WorkloadKind::ReplicaSet
            | WorkloadKind::ReplicationController => Vec::new(),
        };
        let own = self.template.labels.iter().map(|(key, value)| (key.clone(), value.clone()));
        let added = added.into_iter().map(|(key, value)| (Str::from(key), Str::from(value)));
        (format!("{name}-{nth}").into(), own.chain(added).collect())
    }
}

impl WorkloadKey {
    /// As findings and notes name it.
    pub fn reference(&self) -> ObjectRef {
        let WorkloadKey { kind, namespace, name } = self;
        ObjectRef { kind: Str::from(kind.as_str()), namespace: Some(namespace.clone()), name: name.clone() }
    }
}

impl fmt::Display for WorkloadKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.kind.as_str(), self.namespace, self.name)
    }
}

impl WorkloadKind {
    /// All of them.
    pub const ALL: [WorkloadKind; 7] = [
        WorkloadKind::CronJob,
        WorkloadKind::DaemonSet,
        WorkloadKind::Deployment,
        WorkloadKind::Job,
        WorkloadKind::ReplicaSet,
        WorkloadKind::ReplicationController,
        WorkloadKind::StatefulSet,
    ];

    /// `kind` of the object.
    pub fn as_str(self) -> &'static str {
        match self {
            WorkloadKind::CronJob => "CronJob",
            WorkloadKind::DaemonSet => "DaemonSet",
            WorkloadKind::Deployment => "Deployment",
            WorkloadKind::Job => "Job",
            WorkloadKind::ReplicaSet => "ReplicaSet",
            WorkloadKind::ReplicationController => "ReplicationController",
            WorkloadKind::StatefulSet => "StatefulSet",
        }
    }

    /// The kind of this name.
    pub fn of(kind: &str) -> Option<WorkloadKind> {
        WorkloadKind::ALL.into_iter().find(|of| of.as_str() == kind)
    }

    /// Whether an `apiVersion` has this kind: those in use, and the ones before them, whose objects look the same.
    pub fn is_in(self, api_version: &str) -> bool {
        let group = api_version.split_once('/').map_or("", |(group, _)| group);
        match self {
            WorkloadKind::Deployment | WorkloadKind::DaemonSet | WorkloadKind::ReplicaSet => {
                matches!(group, "apps" | "extensions")
            }
            WorkloadKind::StatefulSet => group == "apps",
            WorkloadKind::Job | WorkloadKind::CronJob => group == "batch",
            WorkloadKind::ReplicationController => api_version == "v1",
        }
    }
}
