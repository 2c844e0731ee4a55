//! Objects from which a cluster makes Pods.

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
}
