//! Who can talk to whom, as a table: a row a client (a pod, or a workload whose pods are alike), a column a server's port, in each cell what became of the packets
//! and, where they were refused, which end refused.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::IpAddr;

use comfy_table::{Cell, Color, Table, presets};
use compiler::api::{Direction, PodKey, Protocol};
use compiler::nft::Family;
use compiler::policy::PacketProtocol;

use crate::matrix::to_be_tried;
use crate::model::{End, Flow, Model, Verdict};
use lab::Outcome;

/// An address of each family that no manifest has: the client outside of the cluster (RFC 5737, RFC 3849).
const OUTSIDE: [IpAddr; 2] = [
    IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 1)),
    IpAddr::V6(std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
];
/// The port that is probed of a pod that declares none.
const STAND_IN: (Protocol, u16) = (Protocol::Tcp, 80);

/// One flow of the matrix and where it stands in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The row.
    pub client: String,
    /// The column.
    pub server: String,
    /// The flow; a pair of dual-stack ends has one of each family.
    pub flow: Flow,
    /// `namespace/name` of the Service, if the server is one.
    pub service: Option<String>,
}

/// One flow with what came of it; of an entry that is a Service's, one for each endpoint.
#[derive(Debug, Clone)]
pub struct Tried {
    /// Where it stands.
    pub entry: Entry,
    /// What the policies say.
    pub verdict: Verdict,
    /// What the network did.
    pub outcome: Outcome,
}

/// A row of the matrix.
struct Client {
    name: String,
    addresses: Vec<IpAddr>,
    /// Whether Services are there for it: their addresses mean nothing outside of the cluster.
    is_inside: bool,
}

/// A column of the matrix.
struct Server {
    name: String,
    addresses: Vec<IpAddr>,
    protocol: Protocol,
    port: u16,
    service: Option<String>,
}

/// The flows of all pairs of those who [have to be tried](to_be_tried): from each and from outside to every declared port of
/// each, and from each to every port of every Service, in both families.
pub fn entries(model: &Model, declared: &BTreeMap<PodKey, Vec<(Protocol, u16)>>) -> Vec<Entry> {
    let servers = servers(model, declared);
    let mut entries = Vec::new();
    for client in clients(model) {
        for server in servers.iter().filter(|server| client.is_inside || server.service.is_none()) {
            for (source, destination) in one_pair_a_family(&client.addresses, &server.addresses) {
                if source == destination {
                    continue;
                }
                let protocol = PacketProtocol::Port(server.protocol, server.port);
                let flow = Flow { source, destination, protocol };
                let service = server.service.clone();
                entries.push(Entry { client: client.name.clone(), server: server.name.clone(), flow, service });
            }
        }
    }
    entries
}

/// The pods that are tried: what each is called, and the addresses that are its own.
fn pods(model: &Model) -> Vec<(String, PodKey, Vec<IpAddr>)> {
    let tried = to_be_tried(model).into_iter().filter_map(|(name, key)| {
        let own = |address: &IpAddr| model.end(*address) == End::Pod(key.clone());
        let addresses = model.pod(&key)?.ips.iter().copied().filter(own).collect();
        Some((name, key, addresses))
    });
    tried.collect()
}

fn clients(model: &Model) -> Vec<Client> {
    let inside = pods(model).into_iter().map(|(name, _, addresses)| Client { name, addresses, is_inside: true });
    let outside = Client { name: "outside".to_string(), addresses: OUTSIDE.to_vec(), is_inside: false };
    inside.chain([outside]).collect()
}

fn servers(model: &Model, declared: &BTreeMap<PodKey, Vec<(Protocol, u16)>>) -> Vec<Server> {
    let mut servers = Vec::new();
    for (client, key, addresses) in pods(model) {
        let ports = declared.get(&key).filter(|ports| !ports.is_empty());
        for (protocol, port) in ports.map_or(&[STAND_IN][..], Vec::as_slice).iter().copied() {
            let name = format!("{client} {port}/{protocol}");
            servers.push(Server { name, addresses: addresses.clone(), protocol, port, service: None });
        }
    }
    let mut services: BTreeMap<String, Server> = BTreeMap::new();
    for endpoint in model.endpoints() {
        let End::Service(index) = model.end(endpoint.service) else { continue };
        let service = &model.services()[index];
        let (protocol, port) = (endpoint.protocol, endpoint.port);
        let service = format!("{}/{}", service.namespace, service.name);
        let name = format!("Service {service} {port}/{protocol}");
        let server = Server { name: name.clone(), addresses: Vec::new(), protocol, port, service: Some(service) };
        let addresses = &mut services.entry(name).or_insert(server).addresses;
        if !addresses.contains(&endpoint.service) {
            addresses.push(endpoint.service);
        }
    }
    servers.extend(services.into_values());
    servers
}

fn one_pair_a_family(sources: &[IpAddr], destinations: &[IpAddr]) -> Vec<(IpAddr, IpAddr)> {
    let first = |of: &[IpAddr], family| of.iter().copied().find(|address| Family::of(*address) == family);
    Family::ALL.into_iter().filter_map(|family| Some((first(sources, family)?, first(destinations, family)?))).collect()
}

/// Whether the network did what the policies say.
pub fn is_as_expected(outcome: &Outcome, verdict: &Verdict) -> bool {
    match outcome {
        Outcome::Allowed => verdict.allowed(),
        Outcome::Refused | Outcome::Rejected => !verdict.allowed(),
        Outcome::Error(_) => false,
    }
}

/// The matrix, and under it who isolates each end that refused something.
pub fn print(model: &Model, results: &[Tried], colour: bool) -> String {
    let servers = in_order(results.iter().map(|result| &result.entry.server));
    let clients = in_order(results.iter().map(|result| &result.entry.client));
    let mut cells: BTreeMap<(&str, &str), Vec<&Tried>> = BTreeMap::new();
    for result in results {
        cells.entry((&result.entry.client, &result.entry.server)).or_default().push(result);
    }
    let mut table = Table::new();
    // A column is as wide as its longest word, so names stand in several lines.
    let header = servers.iter().map(|server| server.replace(' ', "\n").replace('/', "/\n"));
    table.load_style(presets::NOTHING).set_header([String::from("from \\ to")].into_iter().chain(header));
    if colour {
        table.enforce_styling();
    }
    for client in &clients {
        let of_client = servers.iter().map(|server| match cells.get(&(*client, *server)) {
            Some(results) => cell(results, colour),
            None => Cell::new("."),
        });
        table.add_row([Cell::new(client)].into_iter().chain(of_client));
    }
    let mut text = table.trim_fmt() + "\n";
    for line in refusals(model, results) {
        writeln!(text, "{line}").expect("writing to a String does not fail");
    }
    text
}

fn in_order<'a>(names: impl Iterator<Item = &'a String>) -> Vec<&'a str> {
    let mut seen = BTreeSet::new();
    names.map(String::as_str).filter(|name| seen.insert(*name)).collect()
}

/// `ok`, or who refused; one word where both families agree, and how often each where endpoints of a Service do not.
/// What the policies did not expect is marked with `!`.
fn cell(results: &[&Tried], colour: bool) -> Cell {
    let of_family = |family: Family| {
        let of_family = results.iter().filter(|result| Family::of(result.entry.flow.destination) == family);
        counted(of_family.map(|result| word(result)).collect())
    };
    let text = match Family::ALL.map(of_family) {
        [Some(v4), Some(v6)] if v4 != v6 => format!("v4 {v4}, v6 {v6}"),
        [v4, v6] => v4.or(v6).unwrap_or_default(),
    };
    let cell = Cell::new(&text);
    if !colour {
        return cell;
    }
    let expected = results.iter().all(|result| is_as_expected(&result.outcome, &result.verdict));
    let allowed = results.iter().all(|result| result.outcome == Outcome::Allowed);
    cell.fg(match (expected, allowed) {
        (false, _) => Color::Yellow,
        (true, true) => Color::Green,
        (true, false) => Color::Red,
    })
}

/// `ok` where all words are that, else `2 ok, 1 ingress`; `None` without any.
fn counted(words: Vec<String>) -> Option<String> {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for word in words {
        *counts.entry(word).or_default() += 1;
    }
    if counts.len() == 1 {
        return counts.into_keys().next();
    }
    // What passes comes first.
    let mut counted: Vec<_> = counts.into_iter().collect();
    counted.sort_by_key(|(word, _)| word != "ok");
    let counted: Vec<_> = counted.into_iter().map(|(word, count)| format!("{count} {word}")).collect();
    (!counted.is_empty()).then(|| counted.join(", "))
}

fn word(result: &Tried) -> String {
    let verdict = &result.verdict;
    let by = match (verdict.egress.judgement.allowed, verdict.ingress.judgement.allowed) {
        (true, true) => "refused",
        (false, true) => "egress",
        (true, false) => "ingress",
        (false, false) => "both",
    };
    let mark = if is_as_expected(&result.outcome, verdict) { "" } else { "!" };
    match &result.outcome {
        Outcome::Allowed => format!("{mark}ok"),
        Outcome::Refused | Outcome::Rejected => format!("{mark}{by}"),
        Outcome::Error(reason) => format!("{mark}{reason}"),
    }
}

/// One line for each end that refused something: who isolates it.
fn refusals(model: &Model, results: &[Tried]) -> BTreeSet<String> {
    let mut lines = BTreeSet::new();
    for Tried { verdict, .. } in results {
        let sides = [
            (Direction::Egress, &verdict.egress, verdict.packet.source),
            (Direction::Ingress, &verdict.ingress, verdict.packet.destination),
        ];
        for (direction, side, address) in sides {
            if side.judgement.allowed {
                continue;
            }
            let end = match model.end(address) {
                End::Pod(key) => key.to_string(),
                End::Node(_) | End::Service(_) | End::Outside => address.to_string(),
            };
            lines.insert(format!("{end} is isolated for {} by {}", direction.as_str(), side.isolated_by().join(", ")));
        }
    }
    lines
}
