//! Workloads and namespaces as ends: a question about each of their pods.

use std::collections::BTreeSet;

use compiler::api::{PodKey, WorkloadKey};

use super::Live;
use crate::explanation::Explained;
use crate::lookup::why_none;
use crate::model::{EndError, EndKind, Named, Several, nearest};
use crate::probes::Probe;

/// The most flows that an agent is asked about for one question.
const MOST_FLOWS: usize = 1_000;

/// `namespace/name` of what may be a pod, however it is written.
fn bare(end: &str) -> String {
    match Named::read(end) {
        Ok(Named::Plain { namespace, name } | Named::Of { kind: EndKind::Pod, namespace, name, .. }) => {
            format!("{namespace}/{name}")
        }
        Ok(Named::Address(_) | Named::Of { .. }) | Err(_) => end.to_owned(),
    }
}

impl Live {
    /// The answer to a question of which an end is a workload or a namespace; `None` where neither is.
    pub(super) fn between_groups(&mut self, probe: &Probe) -> Result<Option<Explained>, String> {
        let (clients, servers) = (self.group(&probe.src)?, self.group(&probe.dst)?);
        let several = Several { clients: clients.is_some(), servers: servers.is_some() };
        if several == Several::default() {
            return Ok(None);
        }
        let clients = clients.unwrap_or_else(|| vec![probe.src.clone()]);
        let servers = servers.unwrap_or_else(|| vec![probe.dst.clone()]);
        let flows = clients.len() * servers.len();
        if flows > MOST_FLOWS {
            return Err(format!(
                "between {} and {} there are {flows} pairs, and a question to an agent may be about {MOST_FLOWS}; postern \
                 matrix answers for all at once",
                probe.src, probe.dst
            ));
        }
        let pairs = clients.iter().flat_map(|client| servers.iter().map(move |server| (client, server)));
        // A pod always reaches itself, which says nothing about the others.
        let (own, others): (Vec<_>, Vec<_>) = pairs.partition(|(client, server)| bare(client) == bare(server));
        let (mut service, mut parts, mut notes) = (None, Vec::new(), Vec::new());
        let (mut seen, mut failure) = (BTreeSet::new(), None);
        for (client, server) in if others.is_empty() { own } else { others } {
            let of_pair = Probe { src: client.clone(), dst: server.clone(), ..probe.clone() };
            match self.explain_one(&of_pair) {
                Ok(explained) => {
                    parts.extend(explained.parts);
                    service = service.or(explained.answer.service);
                    notes.extend(explained.answer.notes.into_iter().filter(|note| seen.insert(note.clone())));
                }
                // Without one answer the others would look like all.
                Err(reason) => _ = failure.get_or_insert(format!("{client} -> {server}: {reason}")),
            }
        }
        match failure {
            Some(reason) => Err(reason),
            None => Ok(Some(Explained::of_several(probe, several, service, notes, parts))),
        }
    }

    /// The names of the pods that an end stands for; `None` where it is none of a workload or namespace.
    fn group(&mut self, end: &str) -> Result<Option<Vec<String>>, String> {
        let Named::Of { kind, namespace, name, is_short } = Named::read(end).map_err(|error| error.to_string())? else {
            return Ok(None);
        };
        let found = match kind {
            EndKind::Pod | EndKind::Service | EndKind::Node => return Ok(None),
            EndKind::Namespace => self.pods_in(&name),
            EndKind::Workload(kind) => {
                self.pods_of(&WorkloadKey { kind, namespace: namespace.into(), name: name.clone().into() })
            }
        };
        // A namespace may have a kind's word for its name.
        let word = end.split('/').next().unwrap_or_default();
        let key = PodKey { namespace: word.into(), name: name.into() };
        let other = if is_short { self.lookup.pod(&key).ok().flatten() } else { None };
        match (found, other) {
            (Ok(_), Some(_)) => {
                let named = format!("pod/{key}");
                Err(EndError::Ambiguous(end.to_owned(), format!("{kind} {}", key.name), named).to_string())
            }
            (Ok(pods), None) => Ok(Some(pods.iter().map(|pod| format!("pod/{pod}")).collect())),
            (Err(_), Some(pod)) => Ok(Some(vec![format!("pod/{}", pod.key)])),
            (Err(reason), None) => Err(reason),
        }
    }

    fn pods_in(&mut self, namespace: &str) -> Result<Vec<PodKey>, String> {
        let unknown = |missing| format!("the pods of namespace {namespace} cannot be looked up: {missing}");
        let pods = self.lookup.pods(namespace, "").map_err(unknown)?;
        let policed: Vec<PodKey> =
            pods.iter().filter(|(pod, _)| pod.is_policed()).map(|(pod, _)| pod.key.clone()).collect();
        if policed.is_empty() {
            return Err(format!("namespace {namespace} has no pod with a network of its own"));
        }
        Ok(policed)
    }

    fn pods_of(&mut self, workload: &WorkloadKey) -> Result<Vec<PodKey>, String> {
        let unknown = |missing| format!("the pods of {workload} cannot be looked up: {missing}");
        let pods = self.lookup.pods_of(workload).map_err(unknown)?;
        let alive = pods.iter().filter(|pod| !pod.phase.is_finished() && !pod.ips.is_empty());
        let alive: Vec<PodKey> = alive.map(|pod| pod.key.clone()).collect();
        if !alive.is_empty() {
            return Ok(alive);
        }
        let all = self.lookup.workloads(workload.kind, Some(&workload.namespace)).map_err(unknown)?;
        Err(match all.iter().find(|of| of.key == *workload) {
            Some(found) => EndError::NoPods(workload.to_string(), why_none(found).to_owned()).to_string(),
            None => {
                let name = format!("{}/{}", workload.namespace, workload.name);
                let near = nearest(&name, all.iter().map(|of| format!("{}/{}", of.key.namespace, of.key.name)));
                EndError::NoSuch(workload.kind.as_str(), format!("{name}{near}")).to_string()
            }
        })
    }
}
