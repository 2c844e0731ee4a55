//! What a change means for the traffic that there is: the flows that are open, and what was refused lately.

use std::collections::BTreeMap;
use std::net::IpAddr;

use compiler::api::Protocol;
use compiler::nft::Family;
use ipnet::IpNet;

use super::changes::Change;
use super::parties::OUTSIDE;
use super::{Matrix, Open};

/// A flow that is open, or packets that were refused alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The client and the server.
    pub ends: [SeenEnd; 2],
    /// The server's port; `None` for what has no ports, which policies see as they see echo requests.
    pub port: Option<(Protocol, u16)>,
    /// How many: one flow, or so many packets.
    pub count: u64,
}

/// An end of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenEnd {
    /// `namespace/name` of the pod, if it is one.
    pub pod: Option<String>,
    /// Its address.
    pub address: IpAddr,
}

/// What was seen on the nodes.
#[derive(Debug, Clone, Default)]
pub struct Traffic {
    /// The flows that are open.
    pub flows: Vec<Seen>,
    /// What policies refused lately.
    pub refused: Vec<Seen>,
}

/// Traffic between two parties to one port, that a change cuts or lets pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Affected {
    /// The client's place among the parties.
    pub from: usize,
    /// The server's.
    pub to: usize,
    /// As in questions: `5432/TCP`, `ICMP`.
    pub port: String,
    /// How many flows, or packets.
    pub count: u64,
    /// The first of it.
    pub such_as: [SeenEnd; 2],
}

/// By what traffic is told apart: the places of client and server, and the port.
type Kind = (usize, usize, Option<(Protocol, u16)>);

/// The open flows that changes would cut, by client, server and port.
pub fn cut(matrix: &Matrix, changes: &[Change], traffic: &Traffic) -> Vec<Affected> {
    affected(matrix, changes, &traffic.flows, |change| &change.closes)
}

/// What was refused lately, and would pass after them.
pub fn healed(matrix: &Matrix, changes: &[Change], traffic: &Traffic) -> Vec<Affected> {
    affected(matrix, changes, &traffic.refused, |change| &change.opens)
}

fn affected(matrix: &Matrix, changes: &[Change], seen: &[Seen], of: fn(&Change) -> &Open) -> Vec<Affected> {
    let parties = Places::of(matrix);
    let by_pair: BTreeMap<(usize, usize), &Change> =
        changes.iter().map(|change| ((change.from, change.to), change)).collect();
    let mut found: BTreeMap<Kind, Affected> = BTreeMap::new();
    for seen in seen {
        let [Some(from), Some(to)] = seen.ends.each_ref().map(|end| parties.place(end)) else { continue };
        let Some(change) = by_pair.get(&(from, to)) else { continue };
        let open = of(change);
        let ports = match Family::of(seen.ends[0].address) {
            Family::V4 => &open.v4,
            Family::V6 => &open.v6,
        };
        if !ports.as_ref().is_some_and(|ports| ports.contains(seen.port)) {
            continue;
        }
        let port = seen.port.map_or("ICMP".to_owned(), |(protocol, port)| format!("{port}/{protocol}"));
        let first = || Affected { from, to, port, count: 0, such_as: seen.ends.clone() };
        found.entry((from, to, seen.port)).or_insert_with(first).count += seen.count;
    }
    found.into_values().collect()
}

/// Which party somebody is, as the first cluster has it.
struct Places {
    pods: BTreeMap<String, usize>,
    networks: Vec<(IpNet, usize)>,
    outside: Option<usize>,
}

impl Places {
    fn of(matrix: &Matrix) -> Places {
        let mut places = Places { pods: BTreeMap::new(), networks: Vec::new(), outside: None };
        for (place, party) in matrix.parties.iter().enumerate() {
            places.pods.extend(party.pods(0).iter().map(|pod| (pod.to_string(), place)));
            match (&party.namespace, party.name.parse()) {
                (None, Ok(network)) => places.networks.push((network, place)),
                (None, Err(_)) if party.name == OUTSIDE => places.outside = Some(place),
                (_, _) => {}
            }
        }
        places
    }

    fn place(&self, end: &SeenEnd) -> Option<usize> {
        if let Some(pod) = &end.pod {
            return self.pods.get(pod).copied();
        }
        let with = self.networks.iter().filter(|(network, _)| network.contains(&end.address));
        with.max_by_key(|(network, _)| network.prefix_len()).map(|(_, place)| *place).or(self.outside)
    }
}

#[cfg(test)]
mod tests {
    use super::super::changes::changes;
    use super::super::tests::{CLOSED, SHOP, model};
    use super::*;
    use crate::matrix::Filter;

    #[test]
    fn flows_are_cut_by_what_closes_and_refusals_healed_by_what_opens() {
        let (open, closed) = (model(SHOP), model(&format!("{SHOP}{CLOSED}")));
        let matrix = Matrix::of(&[&open, &closed], &Filter::All).unwrap();
        let pod = |name: &str| {
            let party = matrix.parties.iter().find(|party| party.name == name).unwrap();
            SeenEnd { pod: Some(party.pods(0)[0].to_string()), address: [10, 0, 0, 1].into() }
        };
        let outside = |last| SeenEnd { pod: None, address: [192, 0, 2, last].into() };
        let nobody = SeenEnd { pod: Some("shop/gone".to_owned()), address: [10, 0, 0, 9].into() };
        let [api, web, db] = ["deploy/shop/api", "deploy/shop/web", "sts/shop/db"].map(pod);
        let seen = |from: &SeenEnd, to: &SeenEnd, port| Seen {
            ends: [from.clone(), to.clone()],
            port: Some((Protocol::Tcp, port)),
            count: 1,
        };
        let all = vec![
            seen(&web, &db, 5432),
            seen(&web, &db, 5432),
            seen(&api, &db, 5432),
            seen(&api, &db, 22),
            Seen { port: None, ..seen(&api, &db, 0) },
            seen(&db, &web, 80),
            // The block that may come, an address of no block, and a pod that has gone.
            seen(&outside(7), &db, 22),
            seen(&SeenEnd { pod: None, address: [198, 51, 100, 7].into() }, &db, 22),
            seen(&nobody, &db, 22),
        ];
        let traffic = Traffic { flows: all.clone(), refused: all };
        let changes = changes(&matrix);
        let said = |affected: Vec<Affected>| {
            let line = |of: Affected| {
                let [from, to] = [of.from, of.to].map(|place| &*matrix.parties[place].name);
                format!("{} {from} -> {to} {}", of.count, of.port)
            };
            affected.into_iter().map(line).collect::<Vec<_>>()
        };
        let expected = [
            "1 deploy/shop/api -> sts/shop/db ICMP",
            "1 deploy/shop/api -> sts/shop/db 22/TCP",
            "2 deploy/shop/web -> sts/shop/db 5432/TCP",
            "1 outside -> sts/shop/db 22/TCP",
        ];
        assert_eq!(said(cut(&matrix, &changes, &traffic)), expected);
        assert_eq!(said(healed(&matrix, &changes, &traffic)), Vec::<String>::new());
        // The other way round the same would pass again.
        let matrix = Matrix::of(&[&closed, &open], &Filter::All).unwrap();
        let changes = super::super::changes::changes(&matrix);
        assert_eq!(healed(&matrix, &changes, &traffic).len(), expected.len());
        assert_eq!(cut(&matrix, &changes, &traffic), []);
    }
}
