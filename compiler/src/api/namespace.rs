//! Namespaces: their labels, and the isolation annotation of Kubernetes 1.3.

use super::{Labels, Str};

/// A Namespace, as far as policies can see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Namespace {
    /// `metadata.name`
    pub name: Str,
    /// `metadata.labels`
    pub labels: Labels,
    /// Whether the annotation `net.beta.kubernetes.io/network-policy` of Kubernetes 1.3 isolates every pod of
    /// the namespace for ingress. Whoever reads live Namespaces clears this unless asked to keep it.
    pub default_deny_ingress: bool,
}
