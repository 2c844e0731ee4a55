//! What a probe asks: which packets, once Services are out of the way.

use std::net::IpAddr;

use compiler::api::{NodeName, PodKey, Service};
use compiler::nft::Family;
use compiler::policy::{Packet, PacketProtocol};

use super::named::EndKind;
use super::{Backends, End, EndError, Flow, Model, Named, Wanted, nearest, nobody, wanted};

/// What a probe asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// `namespace/name` of the Service that is asked about.
    pub service: Option<String>,
    /// The flows, one for each endpoint of a Service; at least one.
    pub routes: Vec<Route>,
    /// What is to be said of it besides.
    pub notes: Vec<String>,
}

/// One flow, and where it ends up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// As the client sends it.
    pub flow: Flow,
    /// As policies see it: after the translation of a Service's address.
    pub packet: Packet,
}

/// Whom the name of an end means.
enum Meant {
    /// Somebody, with these addresses.
    One(Vec<IpAddr>),
    /// A Service, by its index, at this address or at any of its own.
    Service(usize, Option<IpAddr>),
}

impl Model {
    /// What a question between two ends is, by their names.
    ///
    /// # Errors
    ///
    /// If an end is not there, or they cannot talk, or the Service leads nowhere.
    pub fn question(&self, source: &str, destination: &str, protocol: PacketProtocol) -> Result<Question, EndError> {
        let mut notes = Vec::new();
        let sources = match self.meant(source, &mut notes)? {
            Meant::One(addresses) => addresses,
            // Its address is nobody's as a source, and so is judged as such.
            Meant::Service(_, Some(address)) => vec![address],
            Meant::Service(index, None) => return Err(EndError::ServiceAsClient(self.service_name(index))),
        };
        match self.meant(destination, &mut notes)? {
            Meant::One(destinations) => {
                let (from, to) = pair(&sources, &destinations)
                    .ok_or_else(|| EndError::NoCommonFamily(source.to_owned(), destination.to_owned()))?;
                Ok(Question { service: None, routes: vec![direct(from, to, protocol)], notes })
            }
            Meant::Service(index, address) => {
                let service = &self.services()[index];
                let (routes, backends) = self.through(service, &sources, address, protocol)?;
                let is_outside = routes.iter().any(|route| self.end(route.flow.source) == End::Outside);
                notes.extend(notes_of(service, address, is_outside, &backends));
                Ok(Question { service: Some(self.service_name(index)), routes, notes })
            }
        }
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

    fn service_name(&self, index: usize) -> String {
        let Service { namespace, name, .. } = &self.services()[index];
        format!("{namespace}/{name}")
    }

    fn meant(&self, text: &str, notes: &mut Vec<String>) -> Result<Meant, EndError> {
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
                    EndKind::Pod | EndKind::Namespace | EndKind::Workload(_) => None,
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
            EndKind::Pod | EndKind::Namespace | EndKind::Workload(_) => Vec::new(),
        };
        let name = full(namespace, name);
        let near = nearest(&name, names.into_iter());
        EndError::NoSuch(kind.as_str(), format!("{name}{near}"))
    }
}

fn full(namespace: &str, name: &str) -> String {
    if namespace.is_empty() { name.to_owned() } else { format!("{namespace}/{name}") }
}

fn direct(source: IpAddr, destination: IpAddr, protocol: PacketProtocol) -> Route {
    Route { flow: Flow { source, destination, protocol }, packet: Packet { source, destination, protocol } }
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
