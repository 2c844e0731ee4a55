//! What surrounds the agent as a process, and must not end or stop it: whoever reads its log, its terminal, and whoever
//! connects to its admin address.

#![allow(clippy::unwrap_used, reason = "a test that cannot set up its world has failed")]

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, PipeReader, PipeWriter, pipe};
use std::path::Path;
use std::time::Duration;

use integration::agent::{Agent, loopback_up};
use lab::isolated;
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

const POD: &str = "
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}}
spec: {nodeName: node-1}
status: {phase: Running, podIPs: [{ip: 10.0.0.1}]}
";

fn policy(cidr: &str) -> String {
    format!(
        "---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: web, namespace: shop}}
spec:
  podSelector: {{}}
  ingress: [{{from: [{{ipBlock: {{cidr: {cidr}}}}}]}}]
"
    )
}

/// As editors and ConfigMaps do it: another file takes the place of the first.
fn put(folder: &Path, text: &str) {
    let new = folder.join("all.new");
    fs::write(&new, text).expect("the test's folder can be written");
    fs::rename(new, folder.join("all.yaml")).expect("both are in one folder");
}

fn start(log: impl Into<std::process::Stdio>) -> (Agent, TempDir) {
    loopback_up().unwrap();
    let folder = tempfile::tempdir().unwrap();
    put(folder.path(), POD);
    let path = folder.path().to_str().expect("a temporary folder has a plain name");
    let agent = Agent::start_with_log(&["-f", path, "--log-level", "debug"], log).expect("the agent builds and starts");
    (agent, folder)
}

/// A pipe that holds a page, which is some lines.
fn small_pipe() -> (PipeReader, PipeWriter) {
    let (reader, writer) = pipe().unwrap();
    fcntl(&writer, FcntlArg::F_SETPIPE_SZ(4096)).unwrap();
    (reader, writer)
}

/// Changes the policy often enough to fill any pipe with what is logged, and waits for each change in the table.
async fn change_often(agent: &Agent, folder: &Path, times: u8) {
    for n in 0..times {
        let cidr = format!("192.0.{n}.0/24");
        put(folder, &format!("{POD}{}", policy(&cidr)));
        agent.until_table(|table| table.contains(&cidr)).await.unwrap();
    }
}

#[test]
fn a_stalled_log_does_not_delay_the_end() {
    isolated(async {
        let (_reader, writer) = small_pipe();
        let (mut agent, folder) = start(writer);
        agent.ready().await.unwrap();
        change_often(&agent, folder.path(), 20).await;
        let took = agent.terminate().unwrap();
        assert!(took.as_secs() < 2, "the end took {took:?}");
    });
}

#[test]
fn a_log_that_cannot_be_written_ends_nothing() {
    isolated(async {
        let (reader, writer) = small_pipe();
        let (mut agent, folder) = start(writer);
        agent.ready().await.unwrap();
        drop(reader);
        change_often(&agent, folder.path(), 3).await;
        assert!(agent.metric("postern_log_lines_dropped_total").await.unwrap() > 0.0);
        agent.terminate().unwrap();

        let full = File::options().write(true).open("/dev/full").unwrap();
        let (mut agent, folder) = start(full);
        agent.ready().await.unwrap();
        change_often(&agent, folder.path(), 3).await;
        agent.terminate().unwrap();
    });
}

/// A policy of many rules, all of which are in the line that tells of the commit.
fn long_policy(n: u8) -> String {
    let rule = |i: u8| {
        format!("{{from: [{{ipBlock: {{cidr: 10.{n}.{i}.0/24}}}}], ports: [{{port: {}}}]}}", 1000 + u16::from(i))
    };
    let rules: Vec<String> = (0..200).map(rule).collect();
    policy("192.0.2.0/24").replace("{from: [{ipBlock: {cidr: 192.0.2.0/24}}]}", &rules.join(", "))
}

#[test]
fn what_a_stalled_log_lost_is_counted_and_told_when_it_goes_on() {
    const DROPPED: &str = "postern_log_lines_dropped_total";
    isolated(async {
        let (reader, writer) = small_pipe();
        let (mut agent, folder) = start(writer);
        agent.ready().await.unwrap();
        let mut n: u8 = 0;
        while agent.metric(DROPPED).await.unwrap() == 0.0 {
            n = n.checked_add(1).expect("lines that nobody reads are kept without end");
            put(folder.path(), &format!("{POD}{}", long_policy(n)));
            agent.until_table(|table| table.contains(&format!("10.{n}.199.0/24"))).await.unwrap();
        }
        let told = tokio::task::spawn_blocking(move || {
            let told = |line: String| {
                let (before, _) = line.split_once(" lines were dropped: whoever reads the log was too slow")?;
                before.rsplit(' ').next()?.parse::<f64>().ok()
            };
            let mut lines = BufReader::new(reader).lines().map_while(Result::ok);
            let number = lines.by_ref().find_map(told);
            // Whoever reads goes on to the end.
            std::thread::spawn(move || lines.count());
            number
        });
        let told = tokio::time::timeout(Duration::from_secs(20), told).await.expect("it is told").unwrap();
        assert_eq!(told, Some(agent.metric(DROPPED).await.unwrap()));
        agent.terminate().unwrap();
    });
}

#[test]
fn a_terminal_that_is_closed_ends_nothing() {
    isolated(async {
        let (mut agent, folder) = start(std::process::Stdio::null());
        agent.ready().await.unwrap();
        kill(Pid::from_raw(agent.id().try_into().unwrap()), Signal::SIGHUP).unwrap();
        change_often(&agent, folder.path(), 1).await;
        agent.terminate().unwrap();
    });
}
