//! The matrix and the changes between two clusters, held against `explain` for every pair of pods and for addresses outside,
//! at the ports that policies name and next to them.

#![allow(clippy::unwrap_used, reason = "what fails in a test is to stop it there")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use compiler::api::{
    Direction, Item, Object, PodKey, PortMatch, Ports as RulePorts, Protocol, WorkloadKey, WorkloadKind, parse,
};
use compiler::nft::{Deny, Family};
use compiler::policy::oracle::Content;
use compiler::policy::{Packet, PacketProtocol};
use compiler::sim::generate::clusters;
use compiler::sim::{Cluster, Dice, Edges};
use ipnet::IpNet;
use postern::matrix::changes::changes;
use postern::matrix::{Filter, Matrix, Open, Party, Reason};
use postern::model::{End, Model, Openings, Workloads};
use postern::probes::SideAnswer;
use serde_json::{Value, json};

const CLUSTERS: usize = 40;

/// The port of a question; `None` is an echo request.
type Asked = Option<(Protocol, u16)>;

/// The model of a cluster. With `in_workloads` the pods of each namespace are those of one Deployment.
fn model(cluster: &Cluster, in_workloads: bool) -> Model {
    let items = cluster.objects.iter().flat_map(|object| parse(&object.into(), "unnamed"));
    let object = |item| if let Item::Object { parsed, .. } = item { Some(parsed.value) } else { None };
    let objects: Vec<Object> = items.filter_map(object).collect();
    let mut workloads = Workloads::default();
    for object in &objects {
        if let (Object::Pod(pod), true) = (object, in_workloads) {
            let namespace = pod.key.namespace.clone();
            let key = WorkloadKey { kind: WorkloadKind::Deployment, namespace, name: "all".into() };
            workloads.add(&[key], &pod.key);
        }
    }
    let none = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    let openings = Openings { without_address: &none.0, reserved: &none.1, unready: &none.2 };
    Model::with(&objects, &openings, workloads, Deny::default())
}

/// The same cluster with a second one of each pod, at an address of its own next to the others.
fn with_twins(mut cluster: Cluster) -> Cluster {
    let is_pod = |object: &&Value| object["kind"] == "Pod" && object["status"]["podIP"].is_string();
    let mut twins: Vec<Value> = cluster.objects.iter().filter(is_pod).cloned().collect();
    for (number, twin) in twins.iter_mut().enumerate() {
        twin["metadata"]["name"] = json!(format!("twin-{number}"));
        twin["metadata"]["uid"] = json!(format!("{:032x}", 1000 + number));
        let own = |family: &Value| {
            let is_v6 = family["ip"].as_str().unwrap().contains(':');
            json!({"ip": if is_v6 { format!("fd00::2:{number:x}") } else { format!("10.0.2.{number}") }})
        };
        let ips: Vec<Value> = twin["status"]["podIPs"].as_array().unwrap().iter().map(own).collect();
        twin["status"]["podIP"] = ips[0]["ip"].clone();
        twin["status"]["podIPs"] = json!(ips);
    }
    cluster.objects.extend(twins);
    cluster
}

/// The ports that policies and pods name, those next to them, and some that nobody does.
fn ports(models: &[&Model]) -> Vec<Asked> {
    let mut ports: BTreeSet<Asked> = [None, Some((Protocol::Tcp, 1)), Some((Protocol::Udp, 65535))].into();
    let policies = models.iter().flat_map(|model| model.policies());
    let rules = policies.flat_map(|policy| [&policy.ingress, &policy.egress]).flatten().flatten();
    let mut add = |protocol: Protocol, first: u16, last: u16| {
        let near = [first.saturating_sub(1), first, last, last.saturating_add(1)];
        ports.extend(near.into_iter().filter(|port| *port > 0).map(|port| Some((protocol, port))));
    };
    for rule in rules {
        let RulePorts::These(of_rule) = &rule.ports else { continue };
        for port in of_rule {
            if let PortMatch::Numbers(range) = &port.port {
                add(port.protocol, range.first, range.last);
            }
        }
    }
    for pod in models.iter().flat_map(|model| model.pods()) {
        pod.ports.iter().for_each(|port| add(port.protocol, port.number, port.number));
    }
    ports.into_iter().collect()
}

fn address(model: &Model, pod: &PodKey, family: Family) -> Option<IpAddr> {
    let own = |address: &&IpAddr| Family::of(**address) == family && model.end(**address) == End::Pod(pod.clone());
    model.pod(pod)?.ips.iter().find(own).copied()
}

/// The place of the smallest CIDR that has an address.
fn stranger(matrix: &Matrix, address: IpAddr) -> Option<usize> {
    let network = |party: &Party| match (&*party.name, &party.namespace) {
        ("outside", None) => Some(0),
        (name, None) => {
            name.parse::<IpNet>().ok().filter(|network| network.contains(&address)).map(|network| network.prefix_len())
        }
        (_, Some(_)) => None,
    };
    let places = matrix.parties.iter().enumerate();
    places.filter_map(|(place, party)| Some((network(party)?, place))).max().map(|(_, place)| place)
}

fn explained(model: &Model, source: IpAddr, destination: IpAddr, port: Asked) -> bool {
    let protocol = port.map_or(PacketProtocol::Echo, |(protocol, port)| PacketProtocol::Port(protocol, port));
    let verdict = model.judge(&Packet { source, destination, protocol });
    assert!(!verdict.disagrees(), "{verdict:?}");
    verdict.allowed()
}

fn is_open(open: &Open, family: Family, port: Asked) -> bool {
    let ports = match family {
        Family::V4 => &open.v4,
        Family::V6 => &open.v6,
    };
    ports.as_ref().is_some_and(|ports| ports.contains(port))
}

/// The party of each pod of a cluster, by its place.
fn parties(matrix: &Matrix, index: usize) -> BTreeMap<PodKey, usize> {
    let of_party =
        |(place, party): (usize, &Party)| party.pods(index).iter().map(|pod| (pod.clone(), place)).collect::<Vec<_>>();
    matrix.parties.iter().enumerate().flat_map(of_party).collect()
}

#[test]
fn the_matrix_says_what_explain_says() {
    let (mut allowed, mut refused, mut outside, mut together) = (0, 0, 0, 0);
    let mut dice = Dice::new(3);
    for (number, cluster) in clusters(11).take(CLUSTERS).enumerate() {
        let cluster = with_twins(cluster);
        let model = model(&cluster, number % 2 == 1);
        let matrix = Matrix::of(&[&model], &Filter::All).unwrap();
        let cells: BTreeMap<(usize, usize), &Open> =
            matrix.cells.iter().map(|cell| ((cell.from, cell.to), &cell.open[0])).collect();
        let (places, ports) = (parties(&matrix, 0), ports(&[&model]));
        together += places.len() - places.values().collect::<BTreeSet<_>>().len();
        for (client, from) in &places {
            for (server, to) in places.iter().filter(|(server, _)| *server != client) {
                for family in Family::ALL {
                    let ends = address(&model, client, family).zip(address(&model, server, family));
                    let Some((source, destination)) = ends else { continue };
                    for port in &ports {
                        let expected = explained(&model, source, destination, *port);
                        let open = cells
                            .get(&(*from, *to))
                            .unwrap_or_else(|| panic!("no cell {client} {server}\n{cluster:?}"));
                        assert_eq!(is_open(open, family, *port), expected, "{client} {server} {port:?}\n{cluster:?}");
                        *(if expected { &mut allowed } else { &mut refused }) += 1;
                    }
                }
            }
        }
        // An address outside is that of the smallest CIDR that has it.
        let edges = Edges::of(&cluster);
        for _ in 0..300 {
            let packet = edges.packet(&mut dice);
            let port = match packet.content {
                Content::Port(_, 0) | Content::Icmp(..) => None,
                Content::Port(protocol, port) => Some((protocol, port)),
            };
            let place = |address: IpAddr| match model.end(address) {
                End::Pod(pod) => self::address(&model, &pod, Family::of(address))
                    .filter(|own| *own == address)
                    .and(places.get(&pod))
                    .copied(),
                End::Outside => stranger(&matrix, address),
                End::Node(_) | End::Service(_) => None,
            };
            let Some(ends) = place(packet.source).zip(place(packet.destination)) else { continue };
            if matrix.parties[ends.0].namespace.is_some() == matrix.parties[ends.1].namespace.is_some() {
                continue;
            }
            let expected = explained(&model, packet.source, packet.destination, port);
            let open = cells.get(&ends).unwrap_or_else(|| panic!("no cell {packet:?}\n{cluster:?}"));
            assert_eq!(is_open(open, Family::of(packet.source), port), expected, "{packet:?}\n{cluster:?}");
            outside += 1;
        }
    }
    assert!(
        allowed > 10_000 && refused > 10_000 && outside > 1_000 && together > 100,
        "{allowed} {refused} {outside} {together}"
    );
}

#[test]
fn reasons_are_those_of_explain() {
    let mut compared = [0; 2];
    for cluster in clusters(13).take(CLUSTERS / 4) {
        let cluster = with_twins(cluster);
        let model = model(&cluster, false);
        let matrix = Matrix::of(&[&model], &Filter::All).unwrap();
        let (places, ports) = (parties(&matrix, 0), ports(&[&model]));
        // One pod of each party, as the matrix is the same for the others.
        let first: BTreeMap<usize, &PodKey> = places.iter().rev().map(|(pod, place)| (*place, pod)).collect();
        for cell in &matrix.cells {
            let (Some(client), Some(server)) = (first.get(&cell.from), first.get(&cell.to)) else { continue };
            if client == server {
                continue;
            }
            let reasons = matrix.reasons(&[&model], cell, false).remove(0);
            for family in Family::ALL {
                let ends = address(&model, client, family).zip(address(&model, server, family));
                let Some((source, destination)) = ends else { continue };
                for port in &ports {
                    let protocol =
                        port.map_or(PacketProtocol::Echo, |(protocol, port)| PacketProtocol::Port(protocol, port));
                    let verdict = model.judge(&Packet { source, destination, protocol });
                    let is_about = |reason: &&Reason| {
                        reason.ports.contains(*port) && reason.family.is_none_or(|own| own == family)
                    };
                    let mut about = reasons.iter().filter(is_about);
                    let (reason, other) = (about.next().expect("every port has a reason"), about.next());
                    assert_eq!(other, None, "every port has one reason");
                    let sides = [(&verdict.egress, Direction::Egress), (&verdict.ingress, Direction::Ingress)];
                    let said = sides.map(|(side, direction)| SideAnswer::of(&side.judgement, direction).reason());
                    assert_eq!(
                        reason.sides.each_ref().map(|why| why.reason.clone()),
                        said,
                        "{client} {server} {port:?}"
                    );
                    assert_eq!(reason.allowed, verdict.allowed());
                    compared[usize::from(reason.allowed)] += 1;
                }
            }
        }
    }
    assert!(compared.iter().all(|count| *count > 2_000), "{compared:?}");
}

#[test]
fn changes_are_where_explain_says_otherwise_after() {
    let (mut same, mut opens, mut closes) = (0, 0, 0);
    let drawn: Vec<Cluster> = clusters(12).take(CLUSTERS).collect();
    for (before, after) in drawn.iter().zip(&drawn[1..]) {
        // The policies of another cluster come to the pods of this one.
        let kinds = |cluster: &Cluster, of_policies: bool| {
            let is_wanted = move |object: &&Value| (object["kind"] == "NetworkPolicy") == of_policies;
            cluster.objects.iter().filter(is_wanted).cloned().collect::<Vec<_>>()
        };
        let after = Cluster { objects: [kinds(before, false), kinds(after, true)].concat() };
        let models = [model(before, false), model(&after, false)];
        let models: Vec<&Model> = models.iter().collect();
        let matrix = Matrix::of(&models, &Filter::All).unwrap();
        let changes = changes(&matrix);
        let (places, ports) = (parties(&matrix, 0), ports(&models));
        assert_eq!(places, parties(&matrix, 1), "pods that are the same have the same place");
        for (client, from) in &places {
            for (server, to) in places.iter().filter(|(server, _)| *server != client) {
                let change = changes.iter().find(|change| (change.from, change.to) == (*from, *to));
                for family in Family::ALL {
                    let ends = address(models[0], client, family).zip(address(models[0], server, family));
                    let Some((source, destination)) = ends else { continue };
                    for port in &ports {
                        let [old, new] =
                            [0, 1].map(|index: usize| explained(models[index], source, destination, *port));
                        let said = change.map_or((false, false), |change| {
                            (is_open(&change.opens, family, *port), is_open(&change.closes, family, *port))
                        });
                        assert_eq!(
                            said,
                            (new && !old, old && !new),
                            "{client} {server} {port:?}\n{before:?}\n{after:?}"
                        );
                        *(if old == new {
                            &mut same
                        } else if new {
                            &mut opens
                        } else {
                            &mut closes
                        }) += 1;
                    }
                }
            }
        }
    }
    assert!(same > 10_000 && opens > 1_000 && closes > 1_000, "{same} {opens} {closes}");
}
