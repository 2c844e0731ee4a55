//! Pods, as far as policies can see them.

use std::net::IpAddr;

use super::{Labels, NodeName, PodKey, PodUid, Protocol, Str};

/// A Pod, as far as policies can see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// Namespace and name.
    pub key: PodKey,
    /// `metadata.uid`, and of the image of a static pod the id by which its kubelet knows it; `None` where it is not known.
    pub uid: Option<PodUid>,
    /// `metadata.resourceVersion`, by which the newer of two reports is told; 0 where it is no number. It is of the report
    /// and not of the pod: in what is known of a pod it is 0.
    pub version: u64,
    /// `metadata.labels`
    pub labels: Labels,
    /// `spec.nodeName`; `None` before the pod is scheduled.
    pub node: Option<NodeName>,
    /// `spec.hostNetwork`: the pod has its node's addresses, is selected by no policy and is nobody's peer.
    pub host_network: bool,
    /// `status.phase`
    pub phase: Phase,
    /// Whether `metadata.deletionTimestamp` is set. The pod keeps its policies until it is gone.
    pub terminating: bool,
    /// Whether nothing is left of it but its network, for which its policies still hold. It is nobody's peer.
    pub lingering: bool,
    /// `metadata.creationTimestamp`, in seconds since 1970; 0 where the object has none.
    pub created: i64,
    /// `status.podIPs`, and `status.podIP` where that list is absent; each address once, in the object's order.
    /// Those of the pod's sandbox come first.
    pub ips: Vec<IpAddr>,
    /// How many of the first of them are known from the pod's [`Sandbox`](crate::cluster::Sandbox).
    pub held: u16,
    /// `status.hostIPs` and `status.hostIP`: the addresses of the pod's node, each once.
    pub host_ips: Vec<IpAddr>,
    /// The named ports of its containers, and of init containers that keep running (`restartPolicy: Always`).
    pub ports: Vec<ContainerPort>,
}

impl Pod {
    /// Whether the pod counts in the eyes of a policy: it has a network of its own and has not finished.
    pub fn is_policed(&self) -> bool {
        !self.host_network && !self.phase.is_finished() && !self.ips.is_empty()
    }

    /// Whether the pod has an address by its sandbox, and not only by its status.
    pub fn holds(&self, address: IpAddr) -> bool {
        self.ips.iter().take(self.held.into()).any(|held| *held == address)
    }
}

/// One entry of `ports` of a container, if it has a name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ContainerPort {
    /// `name`
    pub name: Str,
    /// `protocol`, TCP where absent.
    pub protocol: Protocol,
    /// `containerPort`
    pub number: u16,
}

/// `status.phase` of a Pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Phase {
    /// Accepted, not all containers have started.
    Pending,
    /// Bound to a node, at least one container runs.
    #[default]
    Running,
    /// All containers ended well, for good. The address may belong to somebody else by now.
    Succeeded,
    /// All containers ended, for good, at least one badly.
    Failed,
    /// The node does not answer.
    Unknown,
}

impl Phase {
    /// Whether the pod has ended for good.
    pub fn is_finished(self) -> bool {
        match self {
            Phase::Succeeded | Phase::Failed => true,
            Phase::Pending | Phase::Running | Phase::Unknown => false,
        }
    }
}
