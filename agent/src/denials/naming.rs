//! Whose a refused packet is, and why it was refused: by what is known and enforced as it is told of.

use compiler::api::{Direction, LinkName, PodKey, PolicyKey};
use compiler::nft::Refusal;
use compiler::policy::{Ir, Isolation};
use jiff::Timestamp;

use super::ledger::{Denial, Kind, Who};
use super::packet::{Header, Payload};
use crate::sync::Snapshot;

/// How many policies are named: a tenant may have thousands, and what is kept of a denial is bounded.
const MOST_NAMES: usize = 10;

/// The link and the port by which a packet came, by name.
#[derive(Debug, Clone, Default)]
pub(super) struct Came {
    pub(super) link: Option<String>,
    pub(super) port: Option<String>,
}

/// What is taken down of a packet.
pub(super) fn name(
    snapshot: &Snapshot,
    refusal: Refusal,
    header: &Header,
    came: &Came,
    at: Timestamp,
) -> (Kind, Denial) {
    let ir = snapshot.enforced.as_ref().map(|enforced| &enforced.ir);
    let source = match source_by_link(refusal, header) {
        true => ir.and_then(|ir| behind(snapshot, ir, came)),
        false => owner(snapshot, header.source, refusal.direction() == Direction::Egress),
    };
    let destination = owner(snapshot, header.destination, refusal.direction() == Direction::Ingress);
    let (local, address) = match refusal.direction() {
        Direction::Egress => (&source, header.source),
        Direction::Ingress => (&destination, header.destination),
    };
    let (mut isolated_by, mut quarantined) = (Vec::new(), Vec::new());
    if let (Refusal::Policy(direction), Some(ir), Some(key)) = (refusal, ir, local)
        && let Some(pod) = ir.pods.iter().find(|pod| pod.key == *key)
    {
        (isolated_by, quarantined) = isolation(ir, pod.isolations_at(address, direction));
    }
    let who = |pod: &Option<PodKey>, address| Who { pod: pod.as_ref().map(PodKey::to_string), address };
    let (source, destination) = (who(&source, header.source), who(&destination, header.destination));
    let ends = [&source, &destination].map(|end| end.pod.clone().unwrap_or_else(|| end.address.to_string()));
    let denial = Denial {
        first: at,
        last: at,
        count: 1,
        direction: refusal.direction().as_str().to_owned(),
        reason: if quarantined.is_empty() { refusal.reason() } else { "quarantine" }.to_owned(),
        source,
        destination,
        protocol: header.payload.protocol(),
        port: match header.payload {
            Payload::Ports { to, .. } => Some(to),
            Payload::Icmp { .. } | Payload::Other { .. } => None,
        },
        icmp_type: match header.payload {
            Payload::Icmp { kind, .. } => Some(kind),
            Payload::Ports { .. } | Payload::Other { .. } => None,
        },
        isolated_by,
        quarantined,
        link: came.port.clone().or_else(|| came.link.clone()),
        allowed_now: None,
        nearest: None,
    };
    (Kind { refusal, ends, payload: header.payload.without_sender() }, denial)
}

/// Whether the address of the source does not say who sent it.
fn source_by_link(refusal: Refusal, header: &Header) -> bool {
    let is_link_local = match header.source {
        std::net::IpAddr::V4(_) => false,
        std::net::IpAddr::V6(source) => source.is_unicast_link_local(),
    };
    match refusal {
        Refusal::Source | Refusal::PortSource | Refusal::LinkLocal | Refusal::Tag => true,
        Refusal::Policy(_) | Refusal::Gate(_) | Refusal::Destination => is_link_local,
    }
}

/// The pod that has an address: of this node's, if it is an end that this node polices.
fn owner(snapshot: &Snapshot, address: std::net::IpAddr, is_local: bool) -> Option<PodKey> {
    let local = if is_local { snapshot.pods.local_owner(address) } else { None };
    local.or_else(|| snapshot.pods.owner(address)).map(|pod| pod.key.clone())
}

/// The pod behind a port or a link, if there is only one.
fn behind(snapshot: &Snapshot, ir: &Ir, came: &Came) -> Option<PodKey> {
    let link = |name: &Option<String>| name.as_deref().and_then(LinkName::new);
    let by_port = link(&came.port).and_then(|port| {
        let address = ir.links.sources.get(&port)?.first()?;
        owner(snapshot, *address, true)
    });
    by_port.or_else(|| link(&came.link).and_then(|link| ir.links.own.get(&link).cloned()))
}

/// Who isolates an address, and who of them is in quarantine.
fn isolation(ir: &Ir, isolations: &[Isolation]) -> (Vec<String>, Vec<String>) {
    let rules = |key: &PolicyKey| ir.policies.get(key);
    let speaking = isolations.iter().flat_map(|isolation| isolation.policies.iter());
    let isolating: Vec<&PolicyKey> = speaking.filter(|key| rules(key).is_some_and(|rules| rules.isolates)).collect();
    let namespaces = isolations.iter().filter_map(|isolation| isolation.by_namespace.as_ref());
    let namespace = namespaces.map(|name| format!("Namespace {name}"));
    let reason = |key: &&PolicyKey| {
        let quarantine = rules(key)?.quarantine.as_ref()?;
        Some(format!("{key} allows nothing: {quarantine}"))
    };
    let quarantined = isolating.iter().filter_map(reason).take(MOST_NAMES).collect();
    let mut names: Vec<String> = namespace.chain(isolating.iter().map(ToString::to_string)).take(MOST_NAMES).collect();
    let more = isolating.len().saturating_sub(MOST_NAMES);
    if more > 0 {
        names.push(format!("{more} more"));
    }
    (names, quarantined)
}
