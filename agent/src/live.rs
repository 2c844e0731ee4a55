//! Questions to a running cluster: what the agent of one node enforces, and of the API what the agent does not watch.
//!
//! The agent knows pods and addresses. Services are taken apart here, and the agent is asked about each endpoint.

mod agent;
mod everywhere;
mod groups;
mod here;
mod services;

use std::net::IpAddr;

use compiler::api::{NodeName, Pod, PodKey, Service};

use crate::explanation::{Explained, Explanation};
use crate::lookup::{Lookup, Missing};
use crate::model::{EndKind, Named, nearest};
use crate::probes::Probe;

use agent::Unanswered;
pub(crate) use everywhere::Everywhere;
pub(crate) use here::Here;
pub use here::kernels_table;

/// What is said where an end has no address of the other's family, see [`EndError`](crate::model::EndError).
const NO_COMMON_FAMILY: &str = "have no address family in common";

/// Somebody who answers questions about a running cluster.
pub struct Live {
    who: Who,
    lookup: Lookup,
    /// The pods that were looked up for the present question.
    strangers: Vec<Pod>,
}

/// Who is asked.
enum Who {
    /// The agent of this machine, which decides one side.
    Here(Here),
    /// The agents of both ends.
    Everywhere(Box<Everywhere>),
}

impl Live {
    /// Asks the agent of this machine, and the API.
    pub(crate) fn here(here: Here, lookup: Lookup) -> Live {
        Live { who: Who::Here(here), lookup, strangers: Vec::new() }
    }

    /// Asks the agents of both ends, and the API.
    pub(crate) fn everywhere(everywhere: Everywhere, lookup: Lookup) -> Live {
        Live { who: Who::Everywhere(Box::new(everywhere)), lookup, strangers: Vec::new() }
    }

    /// What is to be said of the agents that were asked, besides their answers.
    pub fn remarks(&self) -> Vec<String> {
        match &self.who {
            Who::Here(_) => Vec::new(),
            Who::Everywhere(everywhere) => everywhere.remarks().map(str::to_owned).collect(),
        }
    }

    /// Answers a probe.
    ///
    /// # Errors
    ///
    /// In words, if there is no answer.
    pub fn explain(&mut self, probe: &Probe) -> Result<Explained, String> {
        if let Some(answer) = self.between_groups(probe)? {
            return Ok(answer);
        }
        self.explain_one(probe)
    }

    /// The same, where neither end is a workload or a namespace.
    fn explain_one(&mut self, probe: &Probe) -> Result<Explained, String> {
        self.strangers.clear();
        let mut asked = probe.clone();
        asked.src = self.client(&probe.src)?;
        match Named::read(&probe.dst).map_err(|error| error.to_string())? {
            Named::Address(address) => self.at_address(probe, &asked, address),
            Named::Plain { namespace, name } => match self.ask(&asked) {
                Ok(part) => Ok(Explained::of(probe, None, Vec::new(), vec![part])),
                Err(Unanswered::Reason(reason)) => Err(reason),
                Err(Unanswered::NoSuchPod(_)) => self.by_name(probe, &asked, &namespace, &name),
            },
            Named::Of { kind: EndKind::Pod, namespace, name, .. } => {
                asked.dst = format!("{namespace}/{name}");
                match self.ask(&asked) {
                    Ok(part) => Ok(Explained::of(probe, None, Vec::new(), vec![part])),
                    Err(Unanswered::Reason(reason)) => Err(reason),
                    Err(Unanswered::NoSuchPod(_)) => self.at_pod(probe, &asked, &namespace, &name, &[]),
                }
            }
            Named::Of { kind: EndKind::Service, namespace, name, is_short } => {
                let service = match self.service(&namespace, &name) {
                    Ok(service) => service,
                    Err(reason) if is_short => {
                        // A namespace may have a kind's word for its name.
                        return self
                            .ask(&asked)
                            .map_or(Err(reason), |part| Ok(Explained::of(probe, None, Vec::new(), vec![part])));
                    }
                    Err(reason) => return Err(reason),
                };
                self.through(probe, &asked, &service, None)
            }
            Named::Of { kind: EndKind::Node, name, .. } => {
                let addresses = self.node(&name)?;
                let mut part = self.any(&asked, &addresses)?;
                part.ends[1] = format!("node {name} ({})", part.addresses[1]);
                Ok(Explained::of(probe, None, Vec::new(), vec![part]))
            }
            Named::Of { kind, .. } => Err(format!("a {kind} is no end of a question to an agent")),
        }
    }

    /// How the agent is told who the client is: a pod by its name, as the agent may know it; anybody else by an address.
    fn client(&mut self, name: &str) -> Result<String, String> {
        match Named::read(name).map_err(|error| error.to_string())? {
            Named::Address(_) | Named::Plain { .. } => Ok(name.to_owned()),
            Named::Of { kind: EndKind::Pod, namespace, name, .. } => Ok(format!("{namespace}/{name}")),
            Named::Of { kind: EndKind::Node, name, .. } => {
                let addresses = self.node(&name)?;
                addresses.first().map(ToString::to_string).ok_or_else(|| format!("node {name} has no InternalIP"))
            }
            Named::Of { kind: EndKind::Service, namespace, name, .. } => {
                Err(crate::model::EndError::ServiceAsClient(format!("{namespace}/{name}")).to_string())
            }
            Named::Of { kind, .. } => Err(format!("a {kind} is no end of a question to an agent")),
        }
    }

    /// A question about an address: that of a Service, if the agent knows nobody who has it.
    fn at_address(&mut self, probe: &Probe, asked: &Probe, address: IpAddr) -> Result<Explained, String> {
        let part = self.ask(asked).map_err(Unanswered::into_words)?;
        let mut notes = Vec::new();
        if part.ends[1] == address.to_string() {
            let at = |services: &[Service]| {
                services.iter().find(|service| service.addresses().any(|own| own == address)).cloned()
            };
            match self.lookup.services(None).map(at) {
                Ok(Some(service)) => return self.through(probe, asked, &service, Some(address)),
                Ok(None) => {}
                Err(missing) => {
                    notes.push(format!(
                        "no pod or node that this agent knows has {address}. It may be a Service's, and then its endpoints \
                         decide; Services cannot be read: {missing}"
                    ));
                    let mut explained = Explained::of(probe, None, notes, vec![part]);
                    explained.answer.doubt = Some(format!("unless {address} is a Service's"));
                    return Ok(explained);
                }
            }
        }
        Ok(Explained::of(probe, None, notes, vec![part]))
    }

    /// A question about a name that is no pod's as far as the agent knows: a Service's, or a pod's on another node.
    fn by_name(&mut self, probe: &Probe, asked: &Probe, namespace: &str, name: &str) -> Result<Explained, String> {
        let services = match self.lookup.services(Some(namespace)) {
            Ok(services) => services.to_vec(),
            Err(missing) => {
                return self
                    .at_pod(probe, asked, namespace, name, &[])
                    .map_err(|reason| format!("{reason}; whether it is a Service cannot be told: {missing}"));
            }
        };
        let names: Vec<String> = services.iter().map(|s| format!("svc/{}/{}", s.namespace, s.name)).collect();
        match self.at_pod(probe, asked, namespace, name, &names) {
            Ok(explained) => Ok(explained),
            Err(reason) => match services.iter().find(|service| &*service.name == name) {
                Some(service) => self.through(probe, asked, service, None),
                None => Err(reason),
            },
        }
    }

    /// A question about a pod that the agent does not know.
    fn at_pod(
        &mut self,
        probe: &Probe,
        asked: &Probe,
        namespace: &str,
        name: &str,
        others: &[String],
    ) -> Result<Explained, String> {
        let (addresses, node) = self.pod(namespace, name, others)?;
        let mut part = self.any(asked, &addresses)?;
        part.ends[1] = format!("{namespace}/{name} ({})", part.addresses[1]);
        part.elsewhere(node.as_ref(), 1);
        Ok(Explained::of(probe, None, Vec::new(), vec![part]))
    }

    /// The addresses of a pod by the API, and its node.
    fn pod(
        &mut self,
        namespace: &str,
        name: &str,
        others: &[String],
    ) -> Result<(Vec<IpAddr>, Option<NodeName>), String> {
        let key = PodKey { namespace: namespace.into(), name: name.into() };
        let unknown = |missing: Missing| format!("the agent of this node knows no pod {key}, and of others: {missing}");
        let Some(pod) = self.lookup.pod(&key).map_err(unknown)? else {
            let pods = self.lookup.pods(namespace, "").unwrap_or_default().into_iter();
            let names = pods.map(|(pod, _)| pod.key.to_string()).chain(others.iter().cloned());
            return Err(format!("there is no pod {key}{}", nearest(&key.to_string(), names)));
        };
        if pod.ips.is_empty() || pod.phase.is_finished() {
            return Err(format!("pod {key} has no address"));
        }
        let known = (pod.ips.clone(), pod.node.clone());
        self.strangers.push(pod);
        Ok(known)
    }

    fn node(&mut self, name: &str) -> Result<Vec<IpAddr>, String> {
        let nodes = self.lookup.nodes().map_err(|missing| format!("node {name} cannot be looked up: {missing}"))?;
        match nodes.iter().find(|node| &*node.name.0 == name) {
            Some(node) if node.addresses.is_empty() => Err(format!("node {name} has no InternalIP")),
            Some(node) => Ok(node.addresses.clone()),
            None => {
                let near = nearest(name, nodes.iter().map(|node| node.name.to_string()));
                Err(format!("there is no node {name}{near}"))
            }
        }
    }

    fn service(&mut self, namespace: &str, name: &str) -> Result<Service, String> {
        let unknown = |missing: Missing| format!("Service {namespace}/{name} cannot be looked up: {missing}");
        let services = self.lookup.services(Some(namespace)).map_err(unknown)?;
        let names = services.iter().map(|service| format!("{}/{}", service.namespace, service.name));
        let found = services.iter().find(|service| &*service.name == name).cloned();
        found.ok_or_else(|| {
            let missing = format!("{namespace}/{name}");
            format!("there is no Service {missing}{}", nearest(&missing, names))
        })
    }

    /// The answer about the first address that has the client's family.
    fn any(&mut self, asked: &Probe, addresses: &[IpAddr]) -> Result<Explanation, String> {
        let mut last = String::new();
        for address in addresses {
            match self.ask(&Probe { dst: address.to_string(), ..asked.clone() }) {
                Ok(part) => return Ok(part),
                Err(failure) => last = failure.into_words(),
            }
            if !last.contains(NO_COMMON_FAMILY) {
                break;
            }
        }
        Err(last)
    }
}

impl Explanation {
    /// Remembers that a side is decided on another node, whose agent was not asked: 0 for egress, 1 for ingress.
    pub(super) fn elsewhere(&mut self, node: Option<&NodeName>, side: usize) {
        let was_judged = self.base_chains[side].is_some();
        let side = if side == 0 { &mut self.answer.egress } else { &mut self.answer.ingress };
        if let (Some(node), false, None) = (node, was_judged, &side.elsewhere) {
            side.elsewhere = Some(node.to_string());
        }
    }
}
