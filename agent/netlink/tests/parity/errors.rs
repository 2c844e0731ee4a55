//! Errors: what the kernel refuses, and what is named.

use std::sync::Arc;

use compiler::api::PortRange;
use compiler::diff::{Generation, Op, Transaction};
use compiler::nft::{Key, KeyType, Stmt, Table, Verdict};
use netlink::{At, Connection, Errno, Error, Refusal};

use super::support::{commit_new, give_up_capabilities, nft_load, open};
use super::tables::{base, chain_name, element, everything, rule, set, set_name, v4};

fn started() -> (Connection, Generation) {
    let mut connection = open();
    let generation = commit_new(&mut connection, &everything());
    (connection, generation)
}

#[track_caller]
fn refused(connection: &mut Connection, generation: Generation, ops: Vec<Op>) -> Vec<Refusal> {
    let error = connection.commit(&Transaction::new(ops, None), generation).unwrap_err();
    assert!(!error.is_restart() && !error.is_permission() && !error.is_unknown_result(), "{error}");
    assert_eq!(connection.generation().unwrap(), generation, "nothing landed");
    error.refusals().to_vec()
}

#[track_caller]
fn check(found: &[Refusal], expected: &[(usize, At, Errno)]) {
    let found: Vec<(usize, At, Errno)> = found.iter().map(|refusal| (refusal.op, refusal.at, refusal.errno)).collect();
    assert_eq!(found, expected);
}

pub(crate) fn a_stale_generation_is_a_restart() {
    let (mut connection, generation) = started();
    nft_load("table inet other { }");
    let add = Transaction::new(vec![Op::AddKeys(set_name("v4"), vec![v4(9)])], None);
    let error = connection.commit(&add, generation).unwrap_err();
    assert!(error.is_restart(), "{error}");
    let mirror = connection.dump().unwrap();
    assert_eq!(mirror.table, Some(everything()), "nothing landed");
    connection.commit(&add, mirror.generation).unwrap();
}

pub(crate) fn another_verdict_names_the_key() {
    let (mut connection, generation) = started();
    let elements = [(7, Verdict::Accept), (1, Verdict::Accept), (8, Verdict::Accept)];
    let elements = elements.map(|(key, verdict)| (v4(key), element(verdict, Some("web")))).to_vec();
    let found = refused(&mut connection, generation, vec![Op::AddMapElements(set_name("pods-v4"), elements)]);
    check(&found, &[(0, At::Key(v4(1)), Errno::EXIST)]);
    assert!(found[0].to_string().starts_with("add 3 elements to map pods-v4 at key 10.0.0.1: "), "{}", found[0]);
}

pub(crate) fn a_missing_key_is_named() {
    let (mut connection, generation) = started();
    // So many that the missing one is in the second message of its operation.
    let many: Vec<Key> = (1000..8000).map(v4).collect();
    let add = Transaction::new(vec![Op::AddKeys(set_name("v4"), many.clone())], None);
    let committed = connection.commit(&add, generation).unwrap();
    assert!(committed.messages > 1);
    let mut keys = many;
    keys.insert(6500, v4(900));
    let ops = vec![Op::DeleteKeys(set_name("v4"), keys), Op::AddKeys(set_name("v4-empty"), vec![v4(1)])];
    let found = refused(&mut connection, committed.generation, ops);
    check(&found, &[(0, At::Key(v4(900)), Errno::NOENT)]);
}

pub(crate) fn a_missing_range_is_named() {
    let (mut connection, generation) = started();
    let range = |first, last| Key::Ports(PortRange { first, last });
    let keys = vec![range(80, 90), range(500, 600), range(65000, 65535)];
    let found = refused(&mut connection, generation, vec![Op::DeleteKeys(set_name("ports"), keys)]);
    check(&found, &[(0, At::Key(range(500, 600)), Errno::NOENT)]);
}

pub(crate) fn an_unknown_chain_names_the_rule() {
    let (mut connection, generation) = started();
    let mut chain = base(0);
    chain.rules = [Verdict::Accept, Verdict::Jump(chain_name("nowhere")), Verdict::Drop]
        .map(|verdict| rule(vec![Stmt::Verdict(verdict)]))
        .to_vec();
    let name = chain_name("b-main");
    let found = refused(&mut connection, generation, vec![Op::AddRules(name, Arc::new(chain.clone()))]);
    check(&found, &[(0, At::Rule(1), Errno::NOENT)]);
    let found = refused(&mut connection, generation, vec![Op::AddRules(chain_name("nowhere"), Arc::new(chain))]);
    let nowhere = |rule| (0, At::Rule(rule), Errno::NOENT);
    check(&found, &[nowhere(0), nowhere(1), nowhere(2)]);
    let found = refused(&mut connection, generation, vec![Op::DeleteSet(set_name("v4"))]);
    check(&found, &[(0, At::Whole, Errno::BUSY)]);
}

pub(crate) fn what_is_there_already_is_drift() {
    let (mut connection, generation) = started();
    let all = everything();
    let exists = |at| [(0, at, Errno::EXIST)];
    let ops = [
        (Op::AddKeys(set_name("v4"), vec![v4(9), v4(1)]), exists(At::Key(v4(1)))),
        (Op::AddSet(set_name("v4"), Arc::clone(&all.sets[&set_name("v4")])), exists(At::Whole)),
        (Op::AddMap(set_name("pairs"), Arc::clone(&all.maps[&set_name("pairs")])), exists(At::Whole)),
        (Op::AddChain(chain_name("b-main"), Arc::clone(&all.chains[&chain_name("b-main")])), exists(At::Whole)),
        (Op::AddCounter(all.counters.first().unwrap().clone()), exists(At::Whole)),
    ];
    for (op, expected) in ops {
        check(&refused(&mut connection, generation, vec![op]), &expected);
    }
}

pub(crate) fn a_refused_batch_changes_nothing() {
    let (mut connection, generation) = started();
    let added = Arc::new(set(KeyType::PortRange, vec![]));
    let ops = vec![
        Op::AddSet(set_name("new"), added),
        Op::DeleteKeys(set_name("v4"), vec![v4(1)]),
        Op::DeleteChain(chain_name("nowhere")),
        Op::DeleteCounter(compiler::nft::CounterName::from_kernel("nothing")),
    ];
    let found = refused(&mut connection, generation, ops);
    check(&found, &[(2, At::Whole, Errno::NOENT), (3, At::Whole, Errno::NOENT)]);
    assert_eq!(connection.dump().unwrap().table, Some(everything()));
    let error = Error::Refused(found).to_string();
    assert!(error.contains("delete chain nowhere: ") && error.contains("; delete counter nothing: "), "{error}");
}

pub(crate) fn what_answers_do_not_fit_is_a_refusal_all_the_same() {
    let (mut connection, generation) = started();
    rustix::net::sockopt::set_socket_recv_buffer_size(&connection, 1).unwrap();
    let nowhere = (0..1000).map(|n| Op::DeleteChain(chain_name(&format!("nowhere-{n}")))).collect();
    let error = connection.commit(&Transaction::new(nowhere, None), generation).unwrap_err();
    // The buffer holds a few answers, and then none (ENOBUFS).
    assert!((1..1000).contains(&error.refusals().len()), "{}", error.refusals().len());
    assert!(matches!(connection.generation(), Ok(now) if now == generation), "nothing has landed");
    let add = Transaction::new(vec![Op::AddKeys(set_name("v4"), vec![v4(9)])], None);
    connection.commit(&add, generation).unwrap();
    assert!(connection.dump().unwrap().table.is_some());
}

pub(crate) fn without_the_capability_all_is_refused() {
    let (mut connection, generation) = started();
    give_up_capabilities();
    let add = Transaction::new(vec![Op::AddKeys(set_name("v4"), vec![v4(9)])], None);
    let mut unprivileged = open();
    for connection in [&mut connection, &mut unprivileged] {
        let error = connection.commit(&add, generation).unwrap_err();
        assert!(error.is_permission() && !error.is_owned_by_other() && !error.is_unsupported(), "{error:?}");
    }
    let error = unprivileged.dump().unwrap_err();
    assert!(error.is_permission(), "{error:?}");
}

pub(crate) fn nothing_to_do_is_proven_too() {
    let mut connection = open();
    let generation = connection.generation().unwrap();
    let nothing = Transaction::new(vec![], Some(Table::default()));
    let committed = connection.commit(&nothing, generation).unwrap();
    assert_eq!((committed.generation, committed.messages), (generation, 0));
    nft_load("table inet other { }");
    assert!(connection.commit(&nothing, generation).unwrap_err().is_restart());
}

pub(crate) fn an_unsure_change_is_never_called_current() {
    let (mut connection, generation) = started();
    // An empty chain: the kernel counts no change, and the generation stays.
    let flush = |name| Transaction::new(vec![Op::FlushChain(chain_name(name))], None);
    let committed = connection.commit(&flush("a-leaf"), generation).unwrap();
    assert_eq!((committed.generation, connection.generation().unwrap()), (generation, generation));
    // A chain with rules: it moves, which the next commit finds out.
    let committed = connection.commit(&flush("b-main"), generation).unwrap();
    assert_ne!(committed.generation, connection.generation().unwrap());
    assert!(connection.commit(&flush("b-main"), committed.generation).unwrap_err().is_restart());
}
