//! Who the ends of questions are, by the API: which pod, on which node.

use std::collections::BTreeMap;
use std::net::IpAddr;

use compiler::api::{Pod, PodKey};

use super::super::agent::Unanswered;
use crate::lookup::{Lookup, Missing};
use crate::model::{EndKind, Named};

/// An end of a question.
#[derive(Debug, Clone)]
pub(super) struct End {
    /// As its own node is asked about it: `namespace/name`, or the address.
    pub(super) text: String,
    /// The pod, if it is one.
    pub(super) pod: Option<Pod>,
    /// Its addresses.
    pub(super) addresses: Vec<IpAddr>,
    /// The node whose agent decides what it may send and receive; `None` where no agent does.
    pub(super) node: Option<String>,
}

/// The ends that were looked up, each once.
#[derive(Debug, Default)]
pub(super) struct Ends {
    by_name: BTreeMap<String, End>,
    /// The pods that are known to have addresses.
    owners: BTreeMap<IpAddr, PodKey>,
    /// The addresses of nodes and Services, which are no pod's.
    others: Option<Vec<IpAddr>>,
}

impl Ends {
    pub(super) fn know(&mut self, address: IpAddr, pod: &PodKey) {
        self.owners.insert(address, pod.clone());
    }

    /// The end of this name.
    pub(super) fn find(&mut self, lookup: &mut Lookup, name: &str) -> Result<End, Unanswered> {
        if let Some(end) = self.by_name.get(name) {
            return Ok(end.clone());
        }
        let end = match Named::read(name).map_err(|error| Unanswered::Reason(error.to_string()))? {
            Named::Address(address) => self.at(lookup, address)?,
            Named::Plain { namespace, name } | Named::Of { kind: EndKind::Pod, namespace, name, .. } => {
                let key = PodKey { namespace: namespace.into(), name: name.into() };
                let pod = lookup.pod(&key).map_err(|missing| unknown(&key.to_string(), &missing))?;
                let pod = pod.ok_or_else(|| Unanswered::NoSuchPod(key.to_string()))?;
                if pod.phase.is_finished() {
                    return Err(Unanswered::Reason(format!("pod {key} has finished")));
                }
                End::of(key.to_string(), pod)
            }
            Named::Of { kind, .. } => {
                return Err(Unanswered::Reason(format!("a {kind} is no end of a question to an agent")));
            }
        };
        self.by_name.insert(name.to_owned(), end.clone());
        Ok(end)
    }

    fn at(&mut self, lookup: &mut Lookup, address: IpAddr) -> Result<End, Unanswered> {
        let nobody = End { text: address.to_string(), pod: None, addresses: vec![address], node: None };
        let pod = match self.owners.get(&address).cloned() {
            Some(key) => lookup.pod(&key),
            None if self.others(lookup).contains(&address) => Ok(None),
            None => lookup.pod_at(address),
        };
        let pod = pod.map_err(|missing| unknown(&nobody.text, &missing))?;
        // It is asked about by this address, which is not the first perhaps.
        Ok(pod.map_or(nobody, |pod| End { addresses: vec![address], ..End::of(address.to_string(), pod) }))
    }

    /// What cannot be read is taken for pods', and looked for among these.
    fn others(&mut self, lookup: &mut Lookup) -> &[IpAddr] {
        self.others.get_or_insert_with(|| {
            let nodes = lookup.nodes().unwrap_or_default().into_iter().flat_map(|node| node.addresses);
            let mut others: Vec<IpAddr> = nodes.collect();
            others.extend(lookup.services(None).unwrap_or_default().iter().flat_map(|service| service.addresses()));
            others
        })
    }
}

impl End {
    fn of(text: String, pod: Pod) -> End {
        let node = pod.node.as_ref().filter(|_| !pod.host_network).map(ToString::to_string);
        End { text, addresses: pod.ips.clone(), node, pod: Some(pod) }
    }
}

fn unknown(end: &str, missing: &Missing) -> Unanswered {
    Unanswered::Reason(format!("who {end} is cannot be looked up: {missing}"))
}
