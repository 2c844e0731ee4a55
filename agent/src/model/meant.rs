//! Whom the names of ends mean.

use std::collections::BTreeSet;
use std::net::IpAddr;

use compiler::api::{NodeName, Pod, PodKey, Service, WorkloadKey, WorkloadKind};

use super::named::EndKind;
use super::{End, EndError, Model, Named, nearest};

/// Whom the name of an end means.
pub(super) enum Meant {
    /// Somebody, with these addresses.
    One(Vec<IpAddr>),
    /// The pods of a workload or a namespace, each with its addresses; at least one.
    Many(Vec<Vec<IpAddr>>),
    /// A Service, by its index, at this address or at any of its own.
    Service(usize, Option<IpAddr>),
}

impl Model {
    /// Whom a name means.
    pub(super) fn meant(&self, text: &str, notes: &mut Vec<String>) -> Result<Meant, EndError> {
        let service_at = |namespace: &str, name: &str| {
            self.services().iter().position(|s| &*s.namespace == namespace && &*s.name == name)
        };
        let pod_at = |namespace: &str, name: &str| {
            let key = PodKey { namespace: namespace.into(), name: name.into() };
            self.pod(&key).map(|pod| (key, pod.ips.clone()))
        };
        let addressed = |(key, ips): (PodKey, Vec<IpAddr>)| {
            if ips.is_empty() { Err(EndError::NoAddress(key.to_string())) } else { Ok(Meant::One(ips)) }
        };
        match Named::read(text)? {
            Named::Address(address) => Ok(match self.end(address) {
                End::Service(index) => Meant::Service(index, Some(address)),
                End::Pod(_) | End::Node(_) | End::Outside => Meant::One(vec![address]),
            }),
            Named::Plain { namespace, name } => match (pod_at(&namespace, &name), service_at(&namespace, &name)) {
                (Some(pod), service) => {
                    if service.is_some() {
                        notes.push(format!(
                            "{namespace}/{name} is a pod and a Service; this is the pod, svc/{namespace}/{name} the Service"
                        ));
                    }
                    addressed(pod)
                }
                (None, Some(index)) => Ok(Meant::Service(index, None)),
                (None, None) => {
                    let key = format!("{namespace}/{name}");
                    let pods = self.pods().map(|pod| pod.key.to_string());
                    let services = (0..self.services().len()).map(|index| format!("svc/{}", self.service_name(index)));
                    let near = nearest(&key, pods.chain(services));
                    Err(EndError::NoSuchPod(format!("{key}{near}")))
                }
            },
            Named::Of { kind: EndKind::Pod, namespace, name, .. } => {
                let key = format!("{namespace}/{name}");
                let near = || nearest(&key, self.pods().map(|pod| pod.key.to_string()));
                addressed(pod_at(&namespace, &name).ok_or_else(|| EndError::NoSuchPod(format!("{key}{}", near())))?)
            }
            Named::Of { kind, namespace, name, is_short } => {
                // A namespace may have a kind's word for its name.
                let word = text.split('/').next().unwrap_or_default();
                let other = if is_short { pod_at(word, &name) } else { None };
                let found = match kind {
                    EndKind::Service => service_at(&namespace, &name).map(|index| Meant::Service(index, None)),
                    EndKind::Node => self.node_named(&name).map(|addresses| Meant::One(addresses.to_vec())),
                    EndKind::Namespace => self.pods_in(&name)?,
                    EndKind::Workload(kind) => self.pods_of(kind, &namespace, &name)?,
                    EndKind::Pod => None,
                };
                match (found, other) {
                    (Some(_), Some(_)) => Err(EndError::Ambiguous(
                        text.to_owned(),
                        format!("{kind} {}", full(&namespace, &name)),
                        format!("pod/{word}/{name}"),
                    )),
                    (Some(found), None) => Ok(found),
                    (None, Some(pod)) => addressed(pod),
                    (None, None) => Err(self.no_such(kind, &namespace, &name)),
                }
            }
        }
    }

    fn node_named(&self, name: &str) -> Option<&[IpAddr]> {
        self.nodes.get(&NodeName(name.into())).map(|node| &node.addresses[..])
    }

    fn no_such(&self, kind: EndKind, namespace: &str, name: &str) -> EndError {
        let names: Vec<String> = match kind {
            EndKind::Node => self.nodes.keys().map(ToString::to_string).collect(),
            EndKind::Service => (0..self.services().len()).map(|index| self.service_name(index)).collect(),
            EndKind::Namespace => self.pods().map(|pod| pod.key.namespace.to_string()).collect(),
            EndKind::Workload(kind) => {
                let of_kind = self.workloads.keys().filter(|workload| workload.kind == kind);
                of_kind.map(|workload| full(&workload.namespace, &workload.name)).collect()
            }
            EndKind::Pod => Vec::new(),
        };
        let name = full(namespace, name);
        let near = nearest(&name, names.into_iter());
        EndError::NoSuch(kind.as_str(), format!("{name}{near}"))
    }
}

impl Model {
    /// The pods of a namespace; `None` where there is no pod in it.
    fn pods_in(&self, namespace: &str) -> Result<Option<Meant>, EndError> {
        let mut pods = self.pods().filter(|pod| &*pod.key.namespace == namespace).peekable();
        if pods.peek().is_none() {
            return Ok(None);
        }
        let name = format!("namespace {namespace}");
        many(pods.filter(|pod| !pod.host_network), name, "all have ended, are on the host network, or have no address")
    }

    /// The pods of a workload; `None` where there is no such workload.
    fn pods_of(&self, kind: WorkloadKind, namespace: &str, name: &str) -> Result<Option<Meant>, EndError> {
        let key = WorkloadKey { kind, namespace: namespace.into(), name: name.into() };
        match (self.workloads.pods(&key), self.workloads.why_none(&key)) {
            (Some(pods), _) => {
                let pods = pods.iter().filter_map(|pod| self.pod(pod));
                many(pods, key.to_string(), "all have ended, or have no address")
            }
            (None, Some(reason)) => Err(EndError::NoPods(key.to_string(), reason.to_owned())),
            (None, None) => Ok(None),
        }
    }

    /// `namespace/name` of a Service.
    pub(super) fn service_name(&self, index: usize) -> String {
        let Service { namespace, name, .. } = &self.services()[index];
        format!("{namespace}/{name}")
    }
}

/// The pods that have an address, each once: those on the host network share their node's.
fn many<'a>(pods: impl Iterator<Item = &'a Pod>, name: String, reason: &str) -> Result<Option<Meant>, EndError> {
    let with_address = pods.filter(|pod| !pod.phase.is_finished() && !pod.ips.is_empty());
    let mut seen = BTreeSet::new();
    let pods: Vec<Vec<IpAddr>> =
        with_address.map(|pod| pod.ips.clone()).filter(|addresses| seen.insert(addresses.clone())).collect();
    if pods.is_empty() { Err(EndError::NoPods(name, reason.to_owned())) } else { Ok(Some(Meant::Many(pods))) }
}

fn full(namespace: &str, name: &str) -> String {
    if namespace.is_empty() { name.to_owned() } else { format!("{namespace}/{name}") }
}
