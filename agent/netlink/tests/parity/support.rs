//! Namespaces, `nft`, and transactions from tables.

use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::Arc;

use compiler::diff::{Generation, Op, Transaction};
use compiler::nft::{Key, MapElement, Table, TableFamily};
use netlink::{Connection, Ownership};
use nix::sched::{CloneFlags, unshare};

/// Makes the process root of a new user namespace.
pub(crate) fn enter_user_namespace() {
    let (uid, gid) = (nix::unistd::getuid(), nix::unistd::getgid());
    unshare(CloneFlags::CLONE_NEWUSER).expect("user namespaces are allowed (see kernel.unprivileged_userns_clone)");
    std::fs::write("/proc/self/setgroups", "deny").unwrap();
    std::fs::write("/proc/self/uid_map", format!("0 {uid} 1")).unwrap();
    std::fs::write("/proc/self/gid_map", format!("0 {gid} 1")).unwrap();
    // The child processes find nft where root would.
    assert!(Command::new(NFT).arg("--version").output().is_ok(), "nft is not installed");
}

/// Gives the calling thread an empty network namespace.
pub(crate) fn enter_network_namespace() {
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
}

/// Takes the calling thread's capabilities away. They do not come back: it is to end with the test.
pub(crate) fn give_up_capabilities() {
    let capabilities = rustix::thread::capabilities(None).unwrap();
    let none = rustix::thread::CapabilitySets { effective: rustix::thread::CapabilitySet::empty(), ..capabilities };
    rustix::thread::set_capabilities(None, none).unwrap();
}

/// Major and minor number of the running kernel.
pub(crate) fn kernel() -> (u32, u32) {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().unwrap());
    (numbers.next().unwrap(), numbers.next().unwrap())
}

const NFT: &str = "/usr/sbin/nft";

/// Runs `nft` in the thread's network namespace and gives what it prints.
#[track_caller]
pub(crate) fn nft(arguments: &[&str]) -> String {
    let output = Command::new(NFT).args(arguments).output().unwrap();
    assert!(output.status.success(), "nft {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Runs `ip` in the thread's network namespace.
#[track_caller]
pub(crate) fn ip(arguments: &[&str]) {
    let status = Command::new("ip").args(arguments).status().unwrap();
    assert!(status.success(), "ip {arguments:?}: {status}");
}

/// Whether `nft` succeeds.
pub(crate) fn nft_succeeds(arguments: &[&str]) -> bool {
    Command::new(NFT).args(arguments).output().unwrap().status.success()
}

/// Loads a text with `nft -f`.
#[track_caller]
pub(crate) fn nft_load(text: &str) {
    let mut child = Command::new(NFT).args(["-f", "-"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "nft refuses: {}\n{text}", String::from_utf8_lossy(&output.stderr));
}

pub(crate) fn open() -> Connection {
    Connection::open(Ownership::Plain).unwrap()
}

/// The transaction that makes a table where there is none.
pub(crate) fn create(table: &Table) -> Transaction {
    let mut ops = vec![Op::AddTable(TableFamily::Inet)];
    if table.has_bridge() {
        ops.push(Op::AddTable(TableFamily::Bridge));
    }
    ops.extend(table.counters.iter().cloned().map(Op::AddCounter));
    for (name, set) in &table.sets {
        ops.push(Op::AddSet(name.clone(), Arc::clone(set)));
        ops.push(Op::AddKeys(name.clone(), set.keys.to_vec()));
    }
    for (name, map) in &table.maps {
        ops.push(Op::AddMap(name.clone(), Arc::clone(map)));
        let elements: Vec<(Key, MapElement)> = map.elements.iter().map(|(k, e)| (*k, e.clone())).collect();
        ops.push(Op::AddMapElements(name.clone(), elements));
    }
    for (name, chain) in &table.chains {
        ops.push(Op::AddChain(name.clone(), Arc::clone(chain)));
        ops.push(Op::AddRules(name.clone(), Arc::clone(chain)));
    }
    Transaction::new(ops, Some(table.clone()))
}

/// Makes the table in the thread's network namespace, where there is none.
#[track_caller]
pub(crate) fn commit_new(connection: &mut Connection, table: &Table) -> Generation {
    let generation = connection.generation().unwrap();
    let committed = connection.commit(&create(table), generation).unwrap();
    assert_eq!(committed.generation, connection.generation().unwrap(), "the generation is known without asking");
    committed.generation
}
