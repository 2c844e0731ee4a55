//! What is open between two parties.

use std::net::IpAddr;

use compiler::api::{Direction, Protocol};
use compiler::nft::Family;
use compiler::policy::{Ir, Isolation, LocalPod, Packet, PacketProtocol, PortSet, judge_pod};

use super::parties::Member;
use super::{Party, Ports};
use crate::model::Model;

/// The open ports between two parties, in each family that both have.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Open {
    /// By IPv4.
    pub v4: Option<Ports>,
    /// By IPv6.
    pub v6: Option<Ports>,
}

impl Open {
    /// What is open in both families, where they do not differ, or in the only one.
    pub fn alike(&self) -> Option<&Ports> {
        match (&self.v4, &self.v6) {
            (Some(v4), Some(v6)) => (v4 == v6).then_some(v4),
            (v4, v6) => v4.as_ref().or(v6.as_ref()),
        }
    }

    /// Whether nothing is open.
    pub fn is_none(&self) -> bool {
        [&self.v4, &self.v6].into_iter().flatten().all(Ports::is_none)
    }

    /// The same in those families that the other has too, if there are any. Pods of files have both, those of a running
    /// cluster may have one, and that is no change of what policies say.
    pub fn of_families_of(&self, other: &Open) -> Open {
        let common = Open {
            v4: self.v4.clone().filter(|_| other.v4.is_some()),
            v6: self.v6.clone().filter(|_| other.v6.is_some()),
        };
        if common == Open::default() { self.clone() } else { common }
    }

    /// What is open here and not there.
    pub fn minus(&self, other: &Open) -> Open {
        let minus = |own: &Option<Ports>, others: &Option<Ports>| {
            own.as_ref().map(|own| others.as_ref().map_or(own.clone(), |others| own.minus(others)))
        };
        Open { v4: minus(&self.v4, &other.v4), v6: minus(&self.v6, &other.v6) }
    }
}

/// What is open from one party to another in the cluster with this place. `None` where one is not there, where it is the
/// same single pod, which always reaches itself, or where they have no family in common.
pub(super) fn open(model: &Model, index: usize, from: &Party, to: &Party, is_same: bool) -> Option<Open> {
    let (from, to) = (from.members[index].as_ref()?, to.members[index].as_ref()?);
    let client = from.some.first()?;
    let server = if is_same { to.some.get(1)? } else { to.some.first()? };
    let of = |family: Family| {
        let of_family = |member: &Member| member.addresses.iter().copied().find(|own| Family::of(*own) == family);
        Some(between(model, client, of_family(client)?, server, of_family(server)?))
    };
    let open = Open { v4: of(Family::V4), v6: of(Family::V6) };
    (open.v4.is_some() || open.v6.is_some()).then_some(open)
}

fn between(model: &Model, client: &Member, source: IpAddr, server: &Member, destination: IpAddr) -> Ports {
    let pod = |member: &Member| model.local(member.pod.as_ref()?);
    // The name of a port is looked up in the server, whichever side's rule has it.
    let server_pod = server.pod.as_ref().and_then(|key| model.pod(key));
    let named = || server_pod.iter().flat_map(|pod| &pod.ports).map(|port| (port.protocol, port.number));
    let of = |direction: Direction, (ir, pod): (&Ir, &LocalPod)| {
        let own = if direction == Direction::Egress { source } else { destination };
        let mut cuts = cuts(ir, pod.isolations_at(own, direction), direction)?;
        cuts.extend(named().flat_map(|(protocol, port)| around(protocol, port, port)));
        Some(Ports::of(&cuts, |port| {
            let protocol = port.map_or(PacketProtocol::Echo, |(protocol, port)| PacketProtocol::Port(protocol, port));
            judge_pod(ir, Some(pod), direction, &Packet { source, destination, protocol }).allowed
        }))
    };
    let egress = pod(client).and_then(|pod| of(Direction::Egress, pod));
    let ingress = pod(server).and_then(|pod| of(Direction::Ingress, pod));
    match (egress, ingress) {
        (Some(egress), Some(ingress)) => egress.and(&ingress),
        (Some(one), None) | (None, Some(one)) => one,
        (None, None) => Ports::all(),
    }
}

/// Where the rules about an end begin and end to mean ports; `None` where it is not isolated, and so all are open.
fn cuts(ir: &Ir, isolations: &[Isolation], direction: Direction) -> Option<Vec<(Protocol, u16)>> {
    if isolations.is_empty() {
        return None;
    }
    let policies = isolations.iter().flat_map(|isolation| isolation.policies.iter());
    let rules = policies.filter_map(|key| ir.policies.get(key)?.rules(direction)).flatten();
    let mut cuts = Vec::new();
    for rule in rules {
        if let PortSet::These { numbers, names: _ } = &rule.ports {
            let ranges = numbers.iter().flat_map(|(protocol, ranges)| ranges.iter().map(|range| (*protocol, *range)));
            cuts.extend(ranges.flat_map(|(protocol, range)| around(protocol, range.first, range.last)));
        }
    }
    Some(cuts)
}

/// The first port of a range, and the first after it.
fn around(protocol: Protocol, first: u16, last: u16) -> impl Iterator<Item = (Protocol, u16)> {
    [Some(first), last.checked_add(1)].into_iter().flatten().map(move |port| (protocol, port))
}
