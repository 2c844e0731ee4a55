//! `flags owner, persist`, on kernels that have them, and what there is instead on those that do not.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use compiler::diff::{Op, Transaction};
use netlink::{Claim, Connection, Errno, Error, Ownership};

use super::support::{commit_new, create, nft, nft_succeeds, open};
use super::tables::{everything, set_name, v4};

fn owner() -> Connection {
    let mut connection = Connection::open(Ownership::OwnerPersist).unwrap();
    let generation = connection.generation().unwrap();
    assert!(connection.supports_ownership().unwrap(), "Linux 6.9 and later can");
    assert_eq!(connection.generation().unwrap(), generation, "asking changes nothing");
    assert_eq!(connection.dump().unwrap().table, None);
    connection
}

/// Ends an owner, and waits until its table is an orphan: a child process that another test starts at this moment has
/// the socket too, until it runs its program.
fn end(owner: Connection) {
    drop(owner);
    let mut plain = open();
    let begun = Instant::now();
    while let Err(error) = plain.adopt() {
        assert!(error.is_owned_by_other() && begun.elapsed() < Duration::from_secs(60), "{error:?}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

pub(crate) fn others_are_kept_out_while_the_owner_lives() {
    let mut owner = owner();
    assert_eq!(owner.adopt().unwrap(), Claim::Absent);
    let generation = commit_new(&mut owner, &everything());
    assert_eq!(owner.adopt().unwrap(), Claim::Owned);

    let mut other = Connection::open(Ownership::OwnerPersist).unwrap();
    let error = other.adopt().unwrap_err();
    assert!(error.is_owned_by_other() && !error.is_permission(), "{error:?}");
    let add = Transaction::new(vec![Op::AddKeys(set_name("v4"), vec![v4(9)])], None);
    for transaction in [&add, &Transaction::cleanup()] {
        let error = other.commit(transaction, generation).unwrap_err();
        assert!(error.is_owned_by_other() && !error.is_permission(), "{error:?}");
        assert!(matches!(&error, Error::Refused(refusals) if refusals[0].errno == Errno::PERM), "{error:?}");
    }
    assert!(!nft_succeeds(&["delete", "table", "inet", "postern"]));
    nft(&["flush", "ruleset"]);
    assert_eq!(other.dump().unwrap().table, Some(everything()), "anybody may read");
    owner.commit(&add, owner_generation(&mut other)).unwrap();
}

fn owner_generation(connection: &mut Connection) -> compiler::diff::Generation {
    connection.generation().unwrap()
}

pub(crate) fn an_orphan_is_adopted_with_its_content() {
    let mut first = owner();
    commit_new(&mut first, &everything());
    end(first);
    assert_eq!(open().adopt().unwrap(), Claim::Plain, "a connection that owns nothing leaves the orphan");

    let mut second = Connection::open(Ownership::OwnerPersist).unwrap();
    assert_eq!(second.adopt().unwrap(), Claim::Owned);
    assert_eq!(second.adopt().unwrap(), Claim::Owned, "again");
    let mirror = second.dump().unwrap();
    assert_eq!((mirror.table, mirror.foreign), (Some(everything()), vec![]));
    let add = Transaction::new(vec![Op::AddKeys(set_name("v4"), vec![v4(9)])], None);
    second.commit(&add, mirror.generation).unwrap();
    assert!(open().adopt().unwrap_err().is_owned_by_other());
}

/// The kernel takes a table from its owner when a socket with the owner's address ends, and it tells of an end after the
/// address is free again: a socket that has the address of one that just ended would lose its table at once.
pub(crate) fn the_end_of_another_socket_orphans_nothing() {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    drop(open());
                }
            });
        }
        let mut kept = 0;
        for _ in 0..300 {
            let mut owner = Connection::open(Ownership::OwnerPersist).unwrap();
            commit_new(&mut owner, &everything());
            // What has been under way is told by then.
            drop(open());
            kept += usize::from(open().adopt().is_err_and(|error| error.is_owned_by_other()));
            let generation = owner.generation().unwrap();
            owner.commit(&Transaction::cleanup(), generation).ok();
            end_of_table(owner);
        }
        stop.store(true, Ordering::Relaxed);
        assert_eq!(kept, 300, "tables that still had their owner");
    });
}

/// Ends an owner, and removes what it may have left.
fn end_of_table(owner: Connection) {
    end(owner);
    let mut plain = open();
    let generation = plain.generation().unwrap();
    plain.commit(&Transaction::cleanup(), generation).ok();
}

pub(crate) fn a_table_without_an_owner_is_foreign() {
    // Who makes plain tables takes one for its own, unless it stands still.
    commit_new(&mut open(), &everything());
    assert_eq!(open().adopt().unwrap(), Claim::Plain);
    assert_eq!(open().dump().unwrap().foreign, [""; 0]);
    // Who owns tables believes nothing of it, though all of it reads as ours.
    let mut connection = Connection::open(Ownership::OwnerPersist).unwrap();
    for flags in ["", "{ flags dormant; }"] {
        nft(&["add table inet postern", flags]);
        assert_eq!(connection.adopt().unwrap(), Claim::Foreign);
        let mirror = connection.dump().unwrap();
        assert_eq!((mirror.table, mirror.foreign), (Some(everything()), vec!["postern".to_owned()]));
    }
    assert_eq!(open().adopt().unwrap(), Claim::Foreign);
    // It can be replaced by an owned one in one transaction.
    let mut ops = vec![Op::DestroyTables];
    ops.extend(create(&everything()).ops().iter().cloned());
    let generation = connection.generation().unwrap();
    connection.commit(&Transaction::new(ops, Some(everything())), generation).unwrap();
    assert_eq!(connection.adopt().unwrap(), Claim::Owned);
    let mirror = connection.dump().unwrap();
    assert_eq!((mirror.table, mirror.foreign), (Some(everything()), vec![]));
    assert!(!nft(&["list", "table", "inet", "postern"]).contains("dormant"));
}

pub(crate) fn an_owned_table_can_be_replaced() {
    let mut owner = owner();
    let generation = commit_new(&mut owner, &everything());
    let mut ops = vec![Op::DestroyTables];
    ops.extend(create(&everything()).ops().iter().cloned());
    let committed = owner.commit(&Transaction::new(ops, Some(everything())), generation).unwrap();
    assert_eq!(owner.adopt().unwrap(), Claim::Owned);
    end(owner);
    // An orphan is removed by anybody.
    let mut plain = open();
    let generation = plain.generation().unwrap();
    assert_eq!(generation, committed.generation, "the end of the owner is no commit");
    plain.commit(&Transaction::cleanup(), generation).unwrap();
    assert_eq!(plain.adopt().unwrap(), Claim::Absent);
}

pub(crate) fn before_6_9_nobody_is_kept_out() {
    let mut connection = Connection::open(Ownership::OwnerPersist).unwrap();
    let generation = connection.generation().unwrap();
    assert!(!connection.supports_ownership().unwrap());
    assert_eq!(connection.generation().unwrap(), generation, "asking changes nothing");
    // Who did not ask is refused: the table would end with its owner.
    let error = connection.commit(&create(&everything()), generation).unwrap_err();
    assert!(!error.is_permission() && !error.is_owned_by_other() && !error.is_unsupported(), "{error:?}");
    assert_eq!(connection.dump().unwrap().table, None);

    let mut plain = open();
    assert_eq!(plain.adopt().unwrap(), Claim::Absent);
    commit_new(&mut plain, &everything());
    assert_eq!(plain.adopt().unwrap(), Claim::Plain);
    assert_eq!(connection.adopt().unwrap(), Claim::Plain);
    let mirror = connection.dump().unwrap();
    let add = Transaction::new(vec![Op::AddKeys(set_name("v4"), vec![v4(9)])], None);
    connection.commit(&add, mirror.generation).unwrap();
    nft(&["flush", "ruleset"]);
    assert_eq!(plain.dump().unwrap().table, None);
}
