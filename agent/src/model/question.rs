//! What a probe asks: which packets, once Services are out of the way.

use std::collections::BTreeSet;
use std::net::IpAddr;

use compiler::api::{NodeName, Service};
use compiler::nft::Family;
use compiler::policy::{Packet, PacketProtocol};

use super::meant::Meant;
use super::{Backends, End, EndError, Flow, MOST_PAIRS, Model, Wanted, nobody, wanted};

/// What a probe asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// `namespace/name` of the Service that is asked about.
    pub service: Option<String>,
    /// Which end is a name for several pods.
    pub several: Several,
    /// The flows, one for each pair of pods, or of a pod and an endpoint of a Service; at least one.
    pub routes: Vec<Route>,
    /// What is to be said of it besides.
    pub notes: Vec<String>,
}

/// Which ends of a question are workloads or namespaces, whose pods are asked about one by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Several {
    /// The client.
    pub clients: bool,
    /// The server.
    pub servers: bool,
}

/// One flow, and where it ends up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// As the client sends it.
    pub flow: Flow,
    /// As policies see it: after the translation of a Service's address.
    pub packet: Packet,
}

impl Model {
    /// What a question between two ends is, by their names. Between pods of workloads and namespaces it is one about each
    /// pair of them, but for a pod to itself.
    ///
    /// # Errors
    ///
    /// If an end is not there, or they cannot talk, or the Service leads nowhere.
    pub fn question(&self, source: &str, destination: &str, protocol: PacketProtocol) -> Result<Question, EndError> {
        let mut notes = Vec::new();
        let (sources, clients) = match self.meant(source, &mut notes)? {
            Meant::One(addresses) => (vec![addresses], false),
            Meant::Many(pods) => (pods, true),
            // Its address is nobody's as a source, and so is judged as such.
            Meant::Service(_, Some(address)) => (vec![vec![address]], false),
            Meant::Service(index, None) => return Err(EndError::ServiceAsClient(self.service_name(index))),
        };
        let (destinations, servers) = match self.meant(destination, &mut notes)? {
            Meant::One(addresses) => (vec![addresses], false),
            Meant::Many(pods) => (pods, true),
            Meant::Service(index, address) => {
                let service = &self.services()[index];
                // All clients meet about as many endpoints as the first of them.
                let of_one = sources.first().and_then(|client| self.through(service, client, address, protocol).ok());
                let pairs = of_one.map_or(0, |(routes, _)| routes.len()) * sources.len();
                if pairs > MOST_PAIRS {
                    return Err(EndError::TooMany(source.to_owned(), destination.to_owned(), pairs));
                }
                let ways = sources.iter().map(|client| self.through(service, client, address, protocol));
                let (routes, backends) = all(ways, &mut notes)?;
                let is_outside = routes.iter().any(|route| self.end(route.flow.source) == End::Outside);
                notes.extend(backends.iter().flat_map(|of_client| notes_of(service, address, is_outside, of_client)));
                let mut seen = BTreeSet::new();
                notes.retain(|note| seen.insert(note.clone()));
                return Ok(Question {
                    service: Some(self.service_name(index)),
                    several: Several { clients, servers: false },
                    routes,
                    notes,
                });
            }
        };
        let pairs = sources.len() * destinations.len();
        if pairs > MOST_PAIRS {
            return Err(EndError::TooMany(source.to_owned(), destination.to_owned(), pairs));
        }
        let pairs = sources.iter().flat_map(|client| destinations.iter().map(move |server| (client, server)));
        // A pod always reaches itself, which says nothing about the others.
        let (own, others): (Vec<_>, Vec<_>) = pairs.partition(|(client, server)| client == server);
        let pairs = if others.is_empty() { own } else { others };
        let none = || EndError::NoCommonFamily(source.to_owned(), destination.to_owned());
        let ways = pairs.into_iter().map(|(client, server)| {
            let (from, to) = pair(client, server).ok_or_else(none)?;
            Ok((vec![direct(from, to, protocol)], ()))
        });
        let (routes, _) = all(ways, &mut notes)?;
        Ok(Question { service: None, several: Several { clients, servers }, routes, notes })
    }

    /// The packets that a flow between two addresses may become: one, or one for each endpoint of a Service.
    ///
    /// # Errors
    ///
    /// If the destination is a Service's and leads nowhere.
    pub fn routes(&self, flow: &Flow) -> Result<Vec<Route>, EndError> {
        match self.services.index_at(flow.destination) {
            Some(index) if matches!(self.end(flow.destination), End::Service(_)) => {
                let service = &self.services()[index];
                self.through(service, &[flow.source], Some(flow.destination), flow.protocol).map(|(routes, _)| routes)
            }
            Some(_) | None => Ok(vec![direct(flow.source, flow.destination, flow.protocol)]),
        }
    }

    /// The ways through a Service, in the first family in which there are any.
    fn through(
        &self,
        service: &Service,
        sources: &[IpAddr],
        address: Option<IpAddr>,
        protocol: PacketProtocol,
    ) -> Result<(Vec<Route>, Backends), EndError> {
        let asked = match protocol {
            PacketProtocol::Port(protocol, port) => Some((protocol, port)),
            PacketProtocol::Echo => None,
        };
        let wanted = wanted(service, asked)?;
        let of_service =
            || address.into_iter().chain(service.cluster_ips.iter().copied().filter(|_| address.is_none()));
        let mut failure = None;
        for family in sources.iter().map(|source| Family::of(*source)) {
            let Some(source) = sources.iter().find(|source| Family::of(**source) == family) else { continue };
            let own = of_service().find(|own| Family::of(*own) == family);
            let is_direct = matches!(wanted, Wanted::Same(_));
            if own.is_none() && !is_direct {
                continue;
            }
            let mut backends = self.services.backends(service, wanted, family, self.pods());
            let all = backends.usable.len();
            if let Some(node) = self.only_node(service, own, *source) {
                backends.usable.retain(|backend| backend.node.as_ref() == Some(node));
                if backends.usable.is_empty() && all > 0 {
                    let reason =
                        format!("none of its {all} endpoints is on node {node}, and internalTrafficPolicy is Local");
                    return Err(EndError::NoEndpoint(format!("{}/{}", service.namespace, service.name), reason));
                }
            }
            let routes: Vec<Route> = backends
                .usable
                .iter()
                .map(|backend| {
                    let PacketProtocol::Port(transport, _) = protocol else {
                        return direct(*source, backend.address, protocol);
                    };
                    let target = PacketProtocol::Port(transport, backend.target);
                    let packet = Packet { source: *source, destination: backend.address, protocol: target };
                    let destination = own.filter(|_| !is_direct).unwrap_or(backend.address);
                    Route { flow: Flow { source: *source, destination, protocol }, packet }
                })
                .collect();
            if !routes.is_empty() {
                return Ok((routes, backends));
            }
            failure.get_or_insert_with(|| nobody(service, &backends, family));
        }
        let name = format!("{}/{}", service.namespace, service.name);
        let source = sources.first().map(ToString::to_string).unwrap_or_default();
        Err(failure.unwrap_or(EndError::NoCommonFamily(source, format!("Service {name}"))))
    }

    /// The node on which traffic of a client to a Service stays, if it has to.
    fn only_node(&self, service: &Service, own: Option<IpAddr>, source: IpAddr) -> Option<&NodeName> {
        let is_inside = own.is_some_and(|own| service.cluster_ips.contains(&own));
        if !service.internal_local || !is_inside {
            return None;
        }
        match self.end(source) {
            End::Pod(key) => self.pod(&key).and_then(|pod| pod.node.as_ref()),
            End::Node(name) => self.nodes.keys().find(|node| **node == name),
            End::Service(_) | End::Outside => None,
        }
    }
}

fn direct(source: IpAddr, destination: IpAddr, protocol: PacketProtocol) -> Route {
    Route { flow: Flow { source, destination, protocol }, packet: Packet { source, destination, protocol } }
}

/// The routes of all ways that lead anywhere, with what else comes of them; or why the first does not, where none does.
/// Those that lead nowhere beside others are told, since what is said of the others is not said of them.
fn all<T>(
    ways: impl Iterator<Item = Result<(Vec<Route>, T), EndError>>,
    notes: &mut Vec<String>,
) -> Result<(Vec<Route>, Vec<T>), EndError> {
    let (mut routes, mut rest, mut failures) = (Vec::new(), Vec::new(), Vec::new());
    for way in ways {
        match way {
            Ok((of_way, with_it)) => {
                routes.extend(of_way);
                rest.push(with_it);
            }
            Err(error) => failures.push(error),
        }
    }
    let all = routes.len() + failures.len();
    let failed = failures.len();
    match failures.into_iter().next() {
        Some(error) if routes.is_empty() => return Err(error),
        Some(error) => notes.push(format!("{failed} of {all} are not answered, and may not pass: {error}")),
        None => {}
    }
    Ok((routes, rest))
}

/// The first pair of addresses of one family.
fn pair(sources: &[IpAddr], destinations: &[IpAddr]) -> Option<(IpAddr, IpAddr)> {
    let mut pairs = sources.iter().flat_map(|source| destinations.iter().map(move |to| (*source, *to)));
    pairs.find(|(source, to)| Family::of(*source) == Family::of(*to))
}

/// What is to be said of a question to a Service besides its endpoints. `address` is the one that is asked, if one is.
pub fn notes_of(service: &Service, address: Option<IpAddr>, is_outside: bool, backends: &Backends) -> Vec<String> {
    let mut notes = Vec::new();
    let is_external = address.is_some_and(|address| !service.cluster_ips.contains(&address));
    if service.headless {
        notes.push("it is headless: its name leads to the pods themselves, on the port that is asked".to_owned());
    } else if is_outside && !is_external {
        notes.push(
            "a client outside of the cluster reaches no ClusterIP; through a NodePort or a LoadBalancer it may come to \
             the same endpoints"
                .to_owned(),
        );
    }
    let through_balancer = is_external || is_outside && service.ports.iter().any(|port| port.node_port.is_some());
    if is_outside && through_balancer && !service.external_local && !service.headless {
        notes.push(
            "externalTrafficPolicy is Cluster: the node that takes the packet may put its own address in place of the \
             client's, and then policies see the node"
                .to_owned(),
        );
    }
    match backends.unready {
        0 => {}
        1 => notes.push("1 endpoint is not ready and gets no traffic".to_owned()),
        unready => notes.push(format!("{unready} endpoints are not ready and get no traffic")),
    }
    notes
}
