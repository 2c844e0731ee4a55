//! Which entries of connection tracking are asked about.

use std::collections::BTreeSet;
use std::net::IpAddr;

use compiler::api::PodKey;
use netlink::conntrack::Entry;

use super::answer::{on_host_network, split};
use super::{Client, Names, ProtocolFilter, Wanted};
use crate::kernel::as_policies_see;
use crate::model::nearest;

/// What can be told of an entry by itself. There may be hundreds of thousands, so this is cheap and comes first.
#[derive(Debug, Default)]
pub struct Filter {
    /// The addresses of the node's own pods.
    local: BTreeSet<IpAddr>,
    /// Sets in each of which one of the ends must be.
    ends: Vec<BTreeSet<IpAddr>>,
    /// The addresses of the wanted pod, where the API was asked for them.
    elsewhere: Option<Vec<IpAddr>>,
    /// The server's port, or the one that the client sends to.
    port: Option<u16>,
    protocol: Option<ProtocolFilter>,
}

impl Filter {
    /// Flows to a port of the server or of the Service that was asked, by a protocol, if these are given. Nothing passes
    /// before the filter has been [aimed](Filter::aim).
    pub fn new(port: Option<u16>, protocol: Option<ProtocolFilter>) -> Filter {
        Filter { port, protocol, ..Filter::default() }
    }

    /// Asks the agent which addresses matter now. A pod that it does not know is looked up by the API.
    ///
    /// # Errors
    ///
    /// If no agent answers, or there is nothing of a name that is wanted.
    pub fn aim(&mut self, client: &Client, names: &mut Names, wanted: &Wanted) -> anyhow::Result<()> {
        let mut scope = client.scope(wanted)?;
        if let (Some(near), Some(pod)) = (&scope.unknown_pod, &wanted.pod) {
            let addresses = match self.elsewhere.take() {
                Some(addresses) => addresses,
                None => elsewhere(names, pod, near).map_err(anyhow::Error::msg)?,
            };
            scope.ends.push(self.elsewhere.insert(addresses).clone());
        }
        self.local = scope.local.into_iter().collect();
        self.ends = scope.ends.into_iter().map(|ends| ends.into_iter().collect()).collect();
        Ok(())
    }

    /// Whether an entry is to be asked about.
    pub fn passes(&self, entry: &Entry) -> bool {
        let flow = as_policies_see(&entry.flow);
        let has_end_in = |set: &BTreeSet<IpAddr>| set.contains(&flow.client) || set.contains(&flow.server);
        let has_port = |port: u16| {
            let sent_to = entry.flow.original.ports.map(|(_, to)| to);
            sent_to == Some(port) || flow.ports.is_some_and(|(_, server)| server == port)
        };
        has_end_in(&self.local)
            && self.protocol.is_none_or(|protocol| protocol.is(flow.protocol))
            && self.port.is_none_or(has_port)
            && self.ends.iter().all(has_end_in)
    }
}

/// The addresses of a pod that the agent does not know; `near` says which names it knows.
fn elsewhere(names: &mut Names, name: &str, near: &str) -> Result<Vec<IpAddr>, String> {
    let (namespace, pod) = split(name, "pod")?;
    let key = PodKey { namespace: namespace.into(), name: pod.into() };
    let lookup = names.lookup();
    match lookup.pod(&key) {
        Ok(Some(pod)) if pod.host_network => Err(on_host_network(name)),
        Ok(Some(pod)) if pod.ips.is_empty() || pod.phase.is_finished() => Err(format!("pod {name} has no address")),
        Ok(Some(pod)) => Ok(pod.ips),
        Ok(None) => {
            let others = lookup.pods(namespace, "").unwrap_or_default();
            let near = match nearest(name, others.into_iter().map(|(pod, _)| pod.key.to_string())) {
                none if none.is_empty() => near.to_owned(),
                near => near,
            };
            Err(format!("there is no pod {name}{near}"))
        }
        Err(missing) => Err(format!("the agent of this node knows no pod {name}{near}; of others: {missing}")),
    }
}

#[cfg(test)]
mod tests {
    use netlink::conntrack::{Flow, Tuple};

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// `client` sends to a Service on port 80, behind which `server` has port 8080.
    fn entry(client: &str, server: &str) -> Entry {
        let flow = Flow {
            protocol: 6,
            original: Tuple { source: ip(client), destination: ip("10.96.0.1"), ports: Some((4000, 80)) },
            reply: Tuple { source: ip(server), destination: ip(client), ports: Some((8080, 4000)) },
            zone: 0,
            tcp_state: Some(3),
        };
        Entry { flow, state: None, is_replied: true, is_assured: true, counts: None, began: None, timeout: None }
    }

    #[test]
    fn an_end_is_a_pod_of_this_node_and_what_is_wanted_is_another_or_the_same() {
        let set = |addresses: &[&str]| addresses.iter().map(|address| ip(address)).collect::<BTreeSet<_>>();
        let mut filter = Filter { local: set(&["10.0.0.1", "10.0.0.2"]), ..Filter::default() };
        let all =
            [("10.0.0.1", "10.0.1.1"), ("10.0.1.1", "10.0.0.2"), ("10.0.1.1", "10.0.1.2"), ("10.0.0.1", "10.0.0.2")];
        let passing = |filter: &Filter| all.map(|(client, server)| filter.passes(&entry(client, server)));
        assert_eq!(passing(&filter), [true, true, false, true]);
        filter.ends = vec![set(&["10.0.1.1"])];
        assert_eq!(passing(&filter), [true, true, false, false]);
        filter.ends.push(set(&["10.0.0.1"]));
        assert_eq!(passing(&filter), [true, false, false, false]);
        filter.ends.push(set(&[]));
        assert_eq!(passing(&filter), [false; 4]);
    }

    #[test]
    fn a_port_is_that_of_the_server_or_of_the_service() {
        let by = |port, protocol: Option<&str>| {
            let protocol = protocol.map(|text| text.parse().unwrap());
            let filter = Filter { local: BTreeSet::from([ip("10.0.0.1")]), port, protocol, ..Filter::default() };
            filter.passes(&entry("10.0.0.1", "10.0.1.1"))
        };
        assert_eq!([80, 8080, 4000, 81].map(|port| by(Some(port), None)), [true, true, false, false]);
        assert_eq!(["tcp", "6", "UDP", "icmp"].map(|name| by(None, Some(name))), [true, true, false, false]);
    }
}
