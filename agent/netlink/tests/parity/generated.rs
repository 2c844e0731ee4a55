//! Tables that were compiled: from generated clusters, and the goldens.

use std::fs;
use std::path::{Path, PathBuf};

use compiler::diff::{Limits, next};
use compiler::nft::{Deny, Table};
use compiler::sim::Cluster;
use compiler::sim::generate::{clusters, clusters_with_sandboxes};
use netlink::Connection;

use super::listing::{assert_same, json};
use super::support::{commit_new, enter_network_namespace, nft_load, open};
use super::tables::{everything, read};

/// How many tables are listed.
const TABLES: usize = 200;

/// The tables of generated clusters, of both ways to deny, and to lead to policies.
fn tables(clusters: impl Iterator<Item = Cluster>) -> impl Iterator<Item = Table> {
    let by_deny = clusters.zip([Deny::Drop, Deny::Reject].into_iter().cycle());
    by_deny.flat_map(|(cluster, deny)| {
        cluster.compile(deny).into_values().flat_map(|compiled| [compiled.table, compiled.by_peer])
    })
}

/// Commits a table as the agent does, and looks after each commit.
#[track_caller]
fn commit(connection: &mut Connection, table: &Table) {
    let mut mirror = connection.dump().unwrap();
    while let Some(transaction) = next(table, &mirror, Limits::default()) {
        let committed = connection.commit(&transaction, mirror.generation).unwrap();
        let found = connection.dump().unwrap();
        assert_eq!((found.generation, found.foreign), (committed.generation, vec![]));
        assert_same(&found.table.unwrap(), transaction.result().unwrap());
        mirror.committed(transaction, committed.generation);
    }
    assert_same(&mirror.table.unwrap(), table);
}

pub(crate) fn nft_lists_ours_as_its_own() {
    let mut rules = 0;
    for table in tables(clusters_with_sandboxes(8)).take(TABLES) {
        enter_network_namespace();
        nft_load(&table.to_string());
        let theirs = json();
        let mirror = open().dump().unwrap();
        assert_eq!(mirror.foreign, Vec::<String>::new());
        assert_same(&mirror.table.unwrap(), &table);
        enter_network_namespace();
        commit(&mut open(), &table);
        assert_eq!(json(), theirs, "{table}");
        rules += table.chains.values().map(|chain| chain.rules.len()).sum::<usize>();
    }
    assert!(rules > 20 * TABLES, "only {rules} rules in {TABLES} tables");
}

/// What a golden says is loaded by nft, read back, said again, committed, and listed.
pub(crate) fn goldens_list_the_same() {
    let goldens = Path::new(env!("CARGO_MANIFEST_DIR")).join("../golden");
    let mut count = 0;
    for case in fs::read_dir(goldens).unwrap() {
        for file in fs::read_dir(case.unwrap().path()).unwrap() {
            let path = file.unwrap().path();
            if path.extension().is_none_or(|extension| extension != "nft") {
                continue;
            }
            let text = fs::read_to_string(&path).unwrap();
            enter_network_namespace();
            nft_load(&text);
            let theirs = json();
            let mirror = open().dump().unwrap();
            assert_eq!(mirror.foreign, Vec::<String>::new(), "{}", path.display());
            let table = mirror.table.unwrap();
            assert_eq!(table.to_string(), text, "{}", path.display());
            enter_network_namespace();
            commit(&mut open(), &table);
            assert_eq!(json(), theirs, "{}", path.display());
            count += 1;
        }
    }
    assert!(count >= 30, "only {count} goldens");
}

/// The dumps that are replayed without a kernel say what this kernel says of the same tables.
///
/// `UPDATE_EXPECT=1` writes them anew.
pub(crate) fn kept_dumps_are_of_this_kernel() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dumps");
    let mut kept: Vec<(PathBuf, Table, Option<&str>)> = vec![
        (folder.join("nothing"), Table::default(), None),
        (folder.join("everything"), everything(), None),
        (folder.join("with-strangers"), everything(), Some(STRANGERS)),
    ];
    let generated = tables(clusters(9)).find(|table| (13..17).contains(&table.chains.len()) && table.sets.len() > 2);
    kept.push((folder.join("generated"), generated.unwrap(), None));
    for (path, table, strangers) in kept {
        enter_network_namespace();
        let mut connection = open();
        commit_new(&mut connection, &table);
        strangers.into_iter().for_each(nft_load);
        let dump = connection.dump_bytes().unwrap();
        let (bytes, text) = (path.with_extension("bin"), path.with_extension("txt"));
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            fs::create_dir_all(&folder).unwrap();
            fs::write(&bytes, &dump).unwrap();
            fs::write(&text, read(&dump)).unwrap();
        }
        assert_eq!(read(&dump), fs::read_to_string(&text).unwrap(), "{}", path.display());
    }
}

/// Things that are not ours, in our table.
const STRANGERS: &str = "table inet postern {
    set marks { type mark; }
    set slow { type ipv4_addr; timeout 5s; }
    map numbers { type ipv4_addr : inet_service; }
    quota much { over 1 mbytes; }
    chain nat { type nat hook prerouting priority 0; }
    chain b-main { tcp sport 80 accept; }
}
";
