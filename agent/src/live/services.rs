//! Questions to a Service: one to each endpoint.

use std::net::IpAddr;

use compiler::api::{Pod, Service};
use compiler::nft::Family;
use compiler::policy::PacketProtocol;

use super::{Live, NO_COMMON_FAMILY, Unanswered, Who};
use crate::explanation::{Explained, Explanation};
use crate::model::{Backend, Backends, Services, nobody, notes_of, wanted};
use crate::probes::Probe;

/// How many endpoints that the agent does not know are looked up, where it refuses what is for them.
const MOST_LOOKED_UP: usize = 10;

impl Live {
    /// A question to a Service: one to each endpoint.
    pub(super) fn through(
        &mut self,
        probe: &Probe,
        asked: &Probe,
        service: &Service,
        address: Option<IpAddr>,
    ) -> Result<Explained, String> {
        let port = match asked.packet_protocol()? {
            PacketProtocol::Port(protocol, port) => Some((protocol, port)),
            PacketProtocol::Echo => None,
        };
        let wanted = wanted(service, port).map_err(|error| error.to_string())?;
        let name = format!("{}/{}", service.namespace, service.name);
        let (services, pods, mut notes) = self.behind(service)?;
        let families: Vec<Family> = match address {
            Some(address) => vec![Family::of(address)],
            None if service.cluster_ips.is_empty() => Family::ALL.to_vec(),
            None => service.cluster_ips.iter().map(|own| Family::of(*own)).collect(),
        };
        let mut failure = None;
        for family in families {
            let backends = services.backends(service, wanted, family, pods.iter());
            if backends.usable.is_empty() {
                failure.get_or_insert_with(|| nobody(service, &backends, family).to_string());
                continue;
            }
            match self.endpoints(asked, &backends) {
                Ok(parts) => {
                    let is_outside = parts.iter().any(|part| part.ends[0] == part.addresses[0].to_string());
                    notes.extend(notes_of(service, address, is_outside, &backends));
                    if service.internal_local && address.is_none_or(|own| service.cluster_ips.contains(&own)) {
                        notes.push(
                            "internalTrafficPolicy is Local: of these, only endpoints on the client's node get its traffic"
                                .to_owned(),
                        );
                    }
                    return Ok(Explained::of(probe, Some(name), notes, parts));
                }
                Err(reason) if reason.contains(NO_COMMON_FAMILY) => _ = failure.get_or_insert(reason),
                Err(reason) => return Err(reason),
            }
        }
        Err(failure.unwrap_or_else(|| format!("Service {name} has no address")))
    }

    /// What is known of who is behind a Service: by its EndpointSlices, or by its selector where these cannot be read.
    #[allow(clippy::type_complexity, reason = "three things that are used once, together")]
    fn behind(&mut self, service: &Service) -> Result<(Services, Vec<Pod>, Vec<String>), String> {
        let (namespace, name) = (&*service.namespace, &*service.name);
        let mut services = Services { services: vec![service.clone()], ..Services::default() };
        let missing = match self.lookup.slices(namespace, name) {
            Ok(slices) => {
                // A Service whose slices are gone has no endpoints, whatever its selector says.
                services.services[0].selector = None;
                services.slices = slices;
                return Ok((services, Vec::new(), Vec::new()));
            }
            Err(missing) => missing,
        };
        let failure = format!("the endpoints of Service {namespace}/{name} cannot be read: {missing}");
        let Some(selector) = &service.selector else { return Err(failure) };
        let labels: Vec<String> = selector.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let pods = self.lookup.pods(namespace, &labels.join(",")).map_err(|of_pods| {
            format!("{failure}; nor the pods that it selects: {of_pods}. Ask about its pods one by one")
        })?;
        services.unready = pods.iter().filter(|(_, unready)| *unready).map(|(pod, _)| pod.key.clone()).collect();
        let note = format!("by the pods that it selects, since its EndpointSlices cannot be read: {missing}");
        Ok((services, pods.into_iter().map(|(pod, _)| pod).collect(), vec![note]))
    }

    fn endpoints(&mut self, asked: &Probe, backends: &Backends) -> Result<Vec<Explanation>, String> {
        let mut parts = Vec::new();
        let mut looked_up = 0;
        for Backend { pod, address, target, node } in &backends.usable {
            let of_endpoint = Probe { dst: address.to_string(), port: Some(*target), ..asked.clone() };
            if let (Who::Everywhere(everywhere), Some(pod)) = (&mut self.who, pod) {
                everywhere.know(*address, pod);
            }
            let mut part = self.ask(&of_endpoint).map_err(Unanswered::into_words)?;
            if let (Some(pod), false, true) = (pod, part.answer.egress.allowed, part.ends[1] == address.to_string())
                && looked_up < MOST_LOOKED_UP
                && let Ok(Some(stranger)) = self.lookup.pod(pod)
            {
                // Which rule comes nearest depends on its labels.
                looked_up += 1;
                self.strangers.push(stranger);
                part = self.ask(&of_endpoint).map_err(Unanswered::into_words)?;
                self.strangers.pop();
            }
            if let (Some(pod), true) = (pod, part.ends[1] == address.to_string()) {
                part.ends[1] = format!("{pod} ({address})");
                part.elsewhere(node.as_ref(), 1);
            }
            parts.push(part);
        }
        Ok(parts)
    }
}
