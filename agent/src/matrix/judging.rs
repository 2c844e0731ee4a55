//! What is open between two parties.

use std::net::IpAddr;

use compiler::api::{Direction, Protocol};
use compiler::nft::Family;
use compiler::policy::{Ir, Isolation, Judgement, LocalPod, Packet, PacketProtocol, PortSet, judge_pod};

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

/// Two ends of a flow, each a party's pod or address, of one family.
pub(super) struct Pair<'a> {
    client: &'a Member,
    server: &'a Member,
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
}

/// Who stands for two parties in the cluster with this place, by each family that both have. None where one is not there,
/// or where it is the same single pod, which always reaches itself.
pub(super) fn pairs<'a>(index: usize, from: &'a Party, to: &'a Party, is_same: bool) -> [Option<Pair<'a>>; 2] {
    let members = || {
        let (from, to) = (from.members[index].as_ref()?, to.members[index].as_ref()?);
        Some((from.some.first()?, if is_same { to.some.get(1)? } else { to.some.first()? }))
    };
    let Some((client, server)) = members() else { return [None, None] };
    [Family::V4, Family::V6].map(|family| {
        let of_family = |member: &Member| member.addresses.iter().copied().find(|own| Family::of(*own) == family);
        Some(Pair { client, server, source: of_family(client)?, destination: of_family(server)? })
    })
}

/// What is open from one party to another in the cluster with this place. `None` where there are no two ends, or where they
/// have no family in common.
pub(super) fn open(model: &Model, index: usize, from: &Party, to: &Party, is_same: bool) -> Option<Open> {
    let [v4, v6] = pairs(index, from, to, is_same).map(|pair| pair.map(|pair| between(model, &pair)));
    let open = Open { v4, v6 };
    (open.v4.is_some() || open.v6.is_some()).then_some(open)
}

fn between(model: &Model, pair: &Pair<'_>) -> Ports {
    let of = |direction: Direction| {
        let cuts = pair.cuts(model, direction)?;
        Some(Ports::of(&cuts, |port| pair.judged(model, direction, port).allowed))
    };
    match (of(Direction::Egress), of(Direction::Ingress)) {
        (Some(egress), Some(ingress)) => egress.and(&ingress),
        (Some(one), None) | (None, Some(one)) => one,
        (None, None) => Ports::all(),
    }
}

impl Pair<'_> {
    /// The pod that policies of a direction are about, if it is one, as its node polices it.
    fn own<'a>(&self, model: &'a Model, direction: Direction) -> Option<(&'a Ir, &'a LocalPod)> {
        let member = match direction {
            Direction::Egress => self.client,
            Direction::Ingress => self.server,
        };
        model.local(member.pod.as_ref()?)
    }

    /// What is in force on the node of that pod.
    pub(super) fn own_ir<'a>(&self, model: &'a Model, direction: Direction) -> Option<&'a Ir> {
        self.own(model, direction).map(|(ir, _)| ir)
    }

    /// Where what policies say of a direction may change from a port to the next; `None` where they say nothing.
    pub(super) fn cuts(&self, model: &Model, direction: Direction) -> Option<Vec<(Protocol, u16)>> {
        let (ir, pod) = self.own(model, direction)?;
        let own = match direction {
            Direction::Egress => self.source,
            Direction::Ingress => self.destination,
        };
        let mut cuts = cuts(ir, pod.isolations_at(own, direction), direction)?;
        cuts.extend(self.named(model).flat_map(|(protocol, port)| around(protocol, port, port)));
        Some(cuts)
    }

    /// The ports that the server names: the name is looked up there, whichever side's rule has it.
    pub(super) fn named<'a>(&self, model: &'a Model) -> impl Iterator<Item = (Protocol, u16)> + use<'a> {
        let server = self.server.pod.as_ref().and_then(|key| model.pod(key));
        server.into_iter().flat_map(|pod| &pod.ports).map(|port| (port.protocol, port.number))
    }

    /// The first packet to a port; `None` is an echo request.
    pub(super) fn packet(&self, port: Option<(Protocol, u16)>) -> Packet {
        let protocol = port.map_or(PacketProtocol::Echo, |(protocol, port)| PacketProtocol::Port(protocol, port));
        Packet { source: self.source, destination: self.destination, protocol }
    }

    /// What the policies of a direction say of it.
    pub(super) fn judged(&self, model: &Model, direction: Direction, port: Option<(Protocol, u16)>) -> Judgement {
        match self.own(model, direction) {
            Some((ir, pod)) => judge_pod(ir, Some(pod), direction, &self.packet(port)),
            None => Judgement::free(),
        }
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
