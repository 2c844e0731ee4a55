//! The table of family `bridge` beside that of `inet`.

use std::collections::BTreeMap;
use std::sync::Arc;

use compiler::api::{LinkName, PortRange, Protocol};
use compiler::diff::{Limits, Mirror, next};
use compiler::nft::{
    BaseChain, Chain, ChainName, ChainPolicy, CounterName, EtherType, Family, Field, Hook, Key, KeyType, Match, Rule,
    SetName, Stmt, Table, TableFamily, Verdict, VerdictMap,
};
use netlink::{Claim, Connection, Ownership};

use super::listing::{assert_same, json, same_listing};
use super::support::{commit_new, enter_network_namespace, kernel, nft, nft_load, open};
use super::tables::{element, everything, rule, set, v4};

const LIST: [&str; 2] = ["list", "ruleset"];

fn set_name(name: &str) -> SetName {
    SetName::in_table(TableFamily::Bridge, name)
}

fn chain_name(name: &str) -> ChainName {
    ChainName::in_table(TableFamily::Bridge, name)
}

/// A table `inet` with one of everything, and a table `bridge` with all that only stands there, under names that the other
/// has too.
fn both() -> Table {
    let mut table = everything();
    let counter = CounterName::in_table(TableFamily::Bridge, "denied-ingress");
    table.counters.insert(counter.clone());
    let link = |name| Key::Link(LinkName::new(name).unwrap());
    table.sets.insert(set_name("links"), Arc::new(set(KeyType::Link, vec![link("veth0"), link("veth123456789ab")])));
    table.sets.insert(set_name("v4"), Arc::new(set(KeyType::Address(Family::V4), vec![v4(1)])));
    table.sets.insert(set_name("v6"), Arc::new(set(KeyType::Address(Family::V6), vec![])));
    let ports = set(KeyType::PortRange, vec![Key::Ports(PortRange { first: 80, last: 90 })]);
    table.sets.insert(set_name("ports"), Arc::new(ports));
    let elements = BTreeMap::from([(link("veth0"), element(Verdict::Goto(chain_name("a-leaf")), Some("prod/web")))]);
    let map = VerdictMap { key_type: KeyType::Link, comment: None, elements: Arc::new(elements) };
    table.maps.insert(set_name("ports-of-pods"), Arc::new(map));
    let of = |kind| Stmt::Match(Match::EtherType(kind));
    let matching =
        |conditions: Vec<Match>, end: Stmt| rule(conditions.into_iter().map(Stmt::Match).chain([end]).collect());
    let accept = || Stmt::Verdict(Verdict::Accept);
    let (ip, ip6) = (Match::EtherType(EtherType::V4), Match::EtherType(EtherType::V6));
    let port = Match::Port(Protocol::Udp, PortRange::single(68));
    let mut rules: Vec<Rule> = EtherType::ALL.into_iter().map(|kind| rule(vec![of(kind), accept()])).collect();
    rules.extend([
        matching(vec![ip.clone(), Match::In(Field::Destination(Family::V4), set_name("v4"))], accept()),
        matching(vec![ip6.clone(), Match::In(Field::Destination(Family::V6), set_name("v6"))], accept()),
        matching(vec![ip.clone(), port], accept()),
        matching(vec![ip.clone(), Match::Protocol(Protocol::Tcp)], accept()),
        matching(vec![ip, Match::PortIn(Protocol::Tcp, set_name("ports"))], accept()),
        matching(vec![ip6, Match::HopLimit(255), Match::Icmpv6Type(133, 137)], accept()),
        rule(vec![of(EtherType::CustomerTag), Stmt::CounterName(counter), Stmt::Verdict(Verdict::Drop)]),
    ]);
    table.chains.insert(chain_name("a-leaf"), Arc::new(Chain { rules, ..Chain::default() }));
    let base = |hook, priority, rules| {
        let base = Some(BaseChain { hook, priority, policy: ChainPolicy::Accept });
        Arc::new(Chain { base, comment: None, rules })
    };
    let from = Match::In(Field::InputLink, set_name("links"));
    let tag = Match::EtherType(EtherType::ServiceTag);
    let drop = || Stmt::Verdict(Verdict::Drop);
    table.chains.insert(chain_name("e-from"), base(Hook::Prerouting, -300, vec![matching(vec![tag, from], drop())]));
    let to = rule(vec![Stmt::VerdictMap(Field::OutputLink, set_name("ports-of-pods"))]);
    table.chains.insert(chain_name("f-to"), base(Hook::Forward, -200, vec![to]));
    table
}

pub(crate) fn nft_lists_both_tables_as_its_own() {
    assert!(open().supports_bridge_tables().unwrap(), "nothing to test");
    let table = both();
    nft_load(&table.to_string());
    let (theirs, their_json) = (nft(&LIST), json());
    let mirror = open().dump().unwrap();
    assert_eq!(mirror.foreign, Vec::<String>::new());
    assert_same(&mirror.table.unwrap(), &table);
    enter_network_namespace();
    commit_new(&mut open(), &table);
    same_listing(&nft(&LIST), &theirs);
    assert_eq!(json(), their_json);
}

/// Commits what leads to a table, and reads it back.
#[track_caller]
fn lead(connection: &mut Connection, mirror: &mut Mirror, table: &Table) {
    while let Some(transaction) = next(table, mirror, Limits::default()) {
        let committed = connection.commit(&transaction, mirror.generation).unwrap();
        mirror.committed(transaction, committed.generation);
    }
    let found = connection.dump().unwrap();
    assert_eq!(found.foreign, Vec::<String>::new());
    assert_same(&found.table.unwrap(), table);
}

pub(crate) fn the_table_of_bridges_comes_and_goes() {
    let mut connection = open();
    let mut mirror = connection.dump().unwrap();
    let tables = || nft(&["list", "tables"]);
    for (table, listed) in [
        (everything(), "table inet postern\n"),
        (both(), "table inet postern\ntable bridge postern\n"),
        (everything(), "table inet postern\n"),
    ] {
        lead(&mut connection, &mut mirror, &table);
        assert_eq!(tables(), listed);
    }
    // One that stands there with nothing of ours in it, or alone, is drift.
    nft(&["add", "table", "bridge", "postern"]);
    let mut found = connection.dump().unwrap();
    assert_eq!(found.foreign, ["postern"]);
    lead(&mut connection, &mut found, &everything());
    assert_eq!(tables(), "table inet postern\n");
    lead(&mut connection, &mut found, &both());
    nft(&["delete", "table", "inet", "postern"]);
    let mut found = connection.dump().unwrap();
    assert_eq!(found.foreign, ["postern"]);
    lead(&mut connection, &mut found, &both());
}

pub(crate) fn both_tables_are_owned_and_inherited() {
    if kernel() < (6, 9) {
        return;
    }
    let own = || Connection::open(Ownership::OwnerPersist).unwrap();
    let mut first = own();
    let mut mirror = first.dump().unwrap();
    lead(&mut first, &mut mirror, &both());
    assert_eq!(first.adopt().unwrap(), Claim::Owned);
    assert!(own().adopt().unwrap_err().is_owned_by_other());
    drop(first);
    let mut second = own();
    assert_eq!(second.adopt().unwrap(), Claim::Owned);
    assert_same(&second.dump().unwrap().table.unwrap(), &both());
    // Nobody else can edit either of them.
    nft(&["flush", "ruleset"]);
    assert_same(&second.dump().unwrap().table.unwrap(), &both());
    let mut mirror = second.dump().unwrap();
    lead(&mut second, &mut mirror, &everything());
    lead(&mut second, &mut mirror, &both());
    assert_eq!(second.adopt().unwrap(), Claim::Owned);
}
