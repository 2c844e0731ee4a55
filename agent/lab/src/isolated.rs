//! Tests that build labs: each in a process and in namespaces of its own.

use std::{
    env,
    process::{Command, Output},
    thread,
};

use nix::sys::{prctl, signal::Signal};
use tokio::runtime;

use super::enter::allow_many_files;

/// Set in the process that is inside, to the name of its test.
const INSIDE: &str = "POSTERN_LAB_TEST";

/// Runs the body of a test inside user and network namespaces of its own, with a runtime.
///
/// To be called as the only statement of a `#[test]`. The test harness has threads, and a process with threads cannot enter
/// a user namespace; so the test binary is started again by `unshare` (util-linux), for this one test. Tests run in parallel as
/// usual, and the host's links and tables are out of reach for all of them, also when the tests are run by root.
///
/// # Panics
/// When the test fails inside, or namespaces are not to be had.
pub fn isolated(test: impl Future<Output = ()>) {
    let current = thread::current();
    let name = current.name().expect("the test harness names a test's thread after the test").to_owned();
    if env::var(INSIDE).is_ok_and(|inside| inside == name) {
        // Dies with the process outside, so that an interrupted run leaves nothing.
        prctl::set_pdeathsig(Signal::SIGKILL).expect("SIGKILL is a signal that a process may ask for");
        allow_many_files();
        let runtime = runtime::Builder::new_multi_thread().enable_all().build();
        runtime.expect("a runtime's threads can be started").block_on(test);
        return;
    }
    let user = ["--user", "--map-root-user", "--net", "--"];
    // Root can do without a user namespace where a container runtime forbids it.
    let first = if is_possible(&user) { user.as_slice() } else { &["--net", "--"] };
    let binary = env::current_exe().expect("a test binary can be found by its process");
    let output = Command::new("unshare")
        .args(first)
        .arg(binary)
        .args([&name, "--exact", "--include-ignored", "--nocapture"])
        .env(INSIDE, &name)
        .output()
        .expect("unshare of util-linux is installed");
    assert_passed(&name, &output);
}

fn is_possible(namespaces: &[&str]) -> bool {
    Command::new("unshare").args(namespaces).arg("true").output().is_ok_and(|output| output.status.success())
}

#[track_caller]
fn assert_passed(name: &str, output: &Output) {
    let text = [output.stdout.as_slice(), &output.stderr].map(String::from_utf8_lossy).concat();
    // A name that matches no test would end well, too.
    let has_run = text.contains("test result: ok. 1 passed");
    assert!(output.status.success() && has_run, "{name} failed inside its namespaces ({}):\n{text}", output.status);
}
