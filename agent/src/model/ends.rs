//! The ends of a probe.

use std::net::IpAddr;

use compiler::api::{NodeName, PodKey, Service};
use compiler::nft::Family;

use super::Model;

/// One end of a probe, as policies see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// A pod with a network of its own.
    Pod(PodKey),
    /// A node, or a pod on its node's network.
    Node(NodeName),
    /// A Service, by its index in the list of the model; only as a destination.
    Service(usize),
    /// Any other address.
    Outside,
}

/// The most pairs of pods that one question may be about.
pub const MOST_PAIRS: usize = 10_000;

/// Why a text names no end, or two ends cannot be probed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EndError {
    /// Not a name of an end.
    #[error("{0:?} is neither an address nor namespace/pod, nor svc/NAME, node/NAME and the like")]
    Malformed(String),
    /// It may mean two things; the second name is that of the pod.
    #[error("{0} is ambiguous: {1}, or the pod that {2} names")]
    Ambiguous(String, String, String),
    /// There is nothing of this kind and name.
    #[error("there is no {0} {1}")]
    NoSuch(&'static str, String),
    /// A Service sends nothing.
    #[error("Service {0} is no client; the pods behind it are")]
    ServiceAsClient(String),
    /// The Service is a name for a name.
    #[error("Service {0} is of type ExternalName, a name for {1}; ask about an address which that has")]
    ExternalName(String, String),
    /// The Service has no such port; which it has.
    #[error("Service {0} has no port {1}; {2}")]
    NoServicePort(String, String, String),
    /// ICMP was asked.
    #[error("Service {0} passes on no ICMP; ask about a port, or the pods behind it")]
    NoEcho(String),
    /// There is no such pod.
    #[error("there is no pod {0}")]
    NoSuchPod(String),
    /// The pod is there and has no address.
    #[error("pod {0} has no address")]
    NoAddress(String),
    /// The ends have no family in common.
    #[error("{0} and {1} have no address family in common")]
    NoCommonFamily(String, String),
    /// A workload or a namespace without pods, and why it has none.
    #[error("{0} has no pods: {1}")]
    NoPods(String, String),
    /// A question about so many pairs of pods.
    #[error(
        "between {0} and {1} there are {2} pairs of pods, and a question may be about {MOST_PAIRS}; postern matrix answers for \
         all at once"
    )]
    TooMany(String, String, usize),
    /// Nobody gets the Service's traffic, for a reason.
    #[error("Service {0} has no endpoint for this: {1}; its traffic goes nowhere")]
    NoEndpoint(String, String),
}

impl Model {
    /// The addresses that a text means, the primary one first: `ns/pod` all of the pod's, an address itself. A name
    /// without a slash is a pod of namespace `default`.
    pub fn addresses(&self, text: &str) -> Result<Vec<IpAddr>, EndError> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(vec![address]);
        }
        let (namespace, name) = text.split_once('/').unwrap_or(("default", text));
        if name.is_empty() || name.contains('/') || namespace.is_empty() {
            return Err(EndError::Malformed(text.to_string()));
        }
        let key = PodKey { namespace: namespace.into(), name: name.into() };
        let pod = self.pod(&key).ok_or_else(|| EndError::NoSuchPod(key.to_string()))?;
        if pod.ips.is_empty() {
            return Err(EndError::NoAddress(key.to_string()));
        }
        Ok(pod.ips.clone())
    }

    /// The first pair of addresses of one family that two texts mean.
    pub fn pair(&self, source: &str, destination: &str) -> Result<(IpAddr, IpAddr), EndError> {
        let (sources, destinations) = (self.addresses(source)?, self.addresses(destination)?);
        let pairs = sources.iter().flat_map(|s| destinations.iter().map(move |d| (*s, *d)));
        let mut of_one_family = pairs.filter(|(s, d)| Family::of(*s) == Family::of(*d));
        let none = || EndError::NoCommonFamily(source.to_string(), destination.to_string());
        of_one_family.next().ok_or_else(none)
    }

    /// Whose an address is.
    pub fn end(&self, address: IpAddr) -> End {
        if let Some(pod) = self.pods.owner(address) {
            return End::Pod(pod.key.clone());
        }
        if let Some(node) = self.node_of(address) {
            return End::Node(node.clone());
        }
        match self.services.index_at(address) {
            Some(index) => End::Service(index),
            None => End::Outside,
        }
    }

    /// The name of an end, for people.
    pub fn describe(&self, address: IpAddr) -> String {
        match self.end(address) {
            End::Pod(key) => format!("{key} ({address})"),
            End::Node(name) => format!("node {name} ({address})"),
            End::Service(index) => {
                let Service { namespace, name, .. } = &self.services()[index];
                format!("Service {namespace}/{name} ({address})")
            }
            End::Outside => address.to_string(),
        }
    }
}
