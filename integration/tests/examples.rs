//! The examples through `postern try`: real packets do what each folder's probes expect, and what `postern explain` says.
//!
//! And the exit statuses of `try`, which scripts stand on.

#![allow(clippy::unwrap_used, reason = "a test that cannot set up its world has failed")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use integration::agent;
use integration::answers::without_nearest;
use integration::examples::{self, Example};
use serde_json::Value;
use tempfile::TempDir;

/// How many clusters are tried at a time. Most of the time each waits for what does not come.
const AT_A_TIME: usize = 6;
const EXAMPLE: &str = "13-three-tiers";

fn postern(arguments: &[&str]) -> Command {
    let mut command = Command::new(agent::binary().unwrap());
    command.args(arguments).stdin(Stdio::null());
    command
}

/// Runs a command to its end: exit status, standard output, standard error.
fn run(arguments: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } = postern(arguments).output().unwrap();
    let status = status.code().unwrap_or_else(|| panic!("{arguments:?} was killed: {status}"));
    (status, String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn example(name: &str) -> Example {
    examples::all().unwrap().into_iter().find(|example| example.name == name).unwrap()
}

/// A folder with one file.
fn folder(name: &str, text: &str) -> (TempDir, PathBuf) {
    let folder = TempDir::with_prefix("postern-examples-").unwrap();
    let file = folder.path().join(name);
    fs::write(&file, text).unwrap();
    (folder, file)
}

/// What is wrong with an example: nothing, if real packets, the expectations and `explain` are of one mind.
fn complaints(example: &Example, attachment: &str) -> Vec<String> {
    let (folder, probes) = (example.folder.clone(), example.probes_file());
    let asked = ["-f", path(&folder), "--probes", path(&probes), "-o", "json"];
    let (status, tried, said) = run(&[&["try", "--attachment", attachment], &asked[..]].concat());
    let mut complaints = Vec::new();
    if status != 0 {
        complaints.push(format!("try exits {status} and says\n{said}"));
    }
    let (status, explained, said) = run(&[&["explain"], &asked[..]].concat());
    if status != 0 {
        complaints.push(format!("explain exits {status} and says\n{said}"));
    }
    if tried.lines().count() != example.probes.len() || explained.lines().count() != example.probes.len() {
        complaints.push(format!("not an answer for each of {} probes:\n{tried}\n{explained}", example.probes.len()));
    }
    for ((probe, tried), explained) in example.probes.iter().zip(tried.lines()).zip(explained.lines()) {
        let answer: Value = serde_json::from_str(tried).unwrap();
        if answer != without_nearest(explained).unwrap() || answer["allowed"].as_bool() != probe.allowed {
            complaints.push(format!("{probe}, expected {:?}: tried\n{tried}\nexplained\n{explained}", probe.allowed));
        }
    }
    complaints
}

/// Tries all examples, some at a time.
fn try_all(attachment: &str) {
    let rest = Mutex::new(examples::all().unwrap());
    let wrong = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                loop {
                    let Some(example) = rest.lock().unwrap().pop() else { return };
                    for complaint in complaints(&example, attachment) {
                        wrong.lock().unwrap().push(format!("{}: {complaint}", example.name));
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn packets_do_what_the_examples_expect_when_pods_are_routed() {
    try_all("routed");
}

#[test]
fn packets_do_what_the_examples_expect_when_pods_are_bridged() {
    try_all("bridged");
}

#[test]
fn the_matrix_is_plain_text_in_a_pipe() {
    let example = example(EXAMPLE);
    let (status, text, said) = run(&["try", "-f", path(&example.folder)]);
    assert_eq!(status, 0, "{said}");
    assert!(!text.contains('\u{1b}'), "colour codes in\n{text}");
    let row = |client: &str| {
        let line = text.lines().find(|line| line.trim_start().starts_with(client));
        let line = line.unwrap_or_else(|| panic!("no row of {client} in\n{text}"));
        line.split_whitespace().skip(1).map(str::to_owned).collect::<Vec<_>>()
    };
    // To the proxy on its node, the three tiers, the client, the Service by TCP and UDP, and the pod behind it.
    let of = |words: &str| words.split(' ').map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(row("production/frontend"), of("egress ok both . egress egress ok egress ok"), "{text}");
    assert_eq!(row("production/backend"), of("egress . ok egress egress egress egress egress egress"), "{text}");
    assert_eq!(row("outside"), of("ok ingress ingress ok ok . . ok ok"), "{text}");
    let reasons = "production/frontend is isolated for egress by production/frontend-policy";
    assert!(text.lines().any(|line| line == reasons), "{text}");
    assert!(!text.contains('!'), "something was unexpected:\n{text}");
}

#[test]
fn an_expectation_that_fails_exits_1() {
    let example = example(EXAMPLE);
    let flipped = fs::read_to_string(example.probes_file()).unwrap();
    let flipped = flipped.lines().next().unwrap().replace("\"allowed\":true", "\"allowed\":false");
    let (_folder, probes) = folder("probes.jsonl", &flipped);
    let (status, answer, said) = run(&["try", "-f", path(&example.folder), "--probes", path(&probes), "-o", "json"]);
    assert_eq!(status, 1, "{said}");
    assert!(said.contains("unexpected: staging/client -> production/frontend TCP 80"), "{said}");
    assert!(answer.contains("\"allowed\":true"), "what happened is printed all the same: {answer}");
}

#[test]
fn a_pod_that_does_not_exist_exits_2_and_the_others_are_tried() {
    let example = example(EXAMPLE);
    let (_folder, probes) = folder(
        "probes.jsonl",
        "{\"src\":\"staging/nobody\",\"dst\":\"production/frontend\",\"protocol\":\"TCP\",\"port\":80}\n\
         {\"src\":\"staging/client\",\"dst\":\"production/frontend\",\"protocol\":\"TCP\",\"port\":80}\n",
    );
    let (status, answers, said) = run(&["try", "-f", path(&example.folder), "--probes", path(&probes), "-o", "json"]);
    assert_eq!(status, 2, "{said}");
    assert!(said.contains("there is no pod staging/nobody"), "{said}");
    let [nobody, client] = answers.lines().collect::<Vec<_>>()[..] else { panic!("a line a probe: {answers}") };
    assert!(nobody.contains("\"error\":\"there is no pod staging/nobody"), "{nobody}");
    assert!(client.contains("\"allowed\":true"), "{client}");
}

#[test]
fn text_that_is_no_yaml_exits_2_with_its_place() {
    let (_folder, file) = folder("cluster.yaml", "apiVersion: v1\nkind: Namespace\nmetadata: {name: a\n---\n");
    let (status, _, said) = run(&["try", "-f", path(&file)]);
    assert_eq!(status, 2, "{said}");
    assert!(said.contains(&format!("{}:3:", path(&file))), "file and line are not in {said}");
}

/// A pod, and a policy of which a part is broken.
const FINDING: &str = "
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop}
spec: {containers: [{name: main, image: example.test/main, ports: [{containerPort: 80}]}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: broken, namespace: shop}
spec:
  podSelector: {}
  ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/99}}]}]
";

#[test]
fn a_finding_exits_0_and_2_if_strict() {
    let (_folder, file) = folder("cluster.yaml", FINDING);
    let (status, _, said) = run(&["try", "-f", path(&file), "--timeout", "300"]);
    assert_eq!(status, 0, "{said}");
    let finding = said.lines().find(|line| line.starts_with("finding: ")).unwrap();
    assert!(finding.contains("shop/broken") && finding.contains("cidr"), "{finding}");
    let (status, matrix, said) = run(&["try", "-f", path(&file), "--strict"]);
    assert_eq!((status, matrix.as_str()), (2, ""), "{said}");
}

/// A process that is killed at the end of the test, however it ends.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// How many network namespaces a process holds by file descriptors.
fn namespaces_of(process: u32) -> usize {
    let descriptors = fs::read_dir(format!("/proc/{process}/fd")).into_iter().flatten().flatten();
    let targets = descriptors.filter_map(|descriptor| fs::read_link(descriptor.path()).ok());
    targets.filter(|target| target.to_string_lossy().starts_with("net:[")).count()
}

/// Which processes belong to a process group.
fn group(leader: u32) -> Vec<String> {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let stats = processes.filter_map(|process| fs::read_to_string(process.path().join("stat")).ok());
    // Behind the name, which may hold anything: state, parent, process group.
    let group_of = |stat: &str| stat.rsplit_once(')')?.1.split_whitespace().nth(2)?.parse::<u32>().ok();
    stats.filter(|stat| group_of(stat) == Some(leader)).collect()
}

/// A user namespace that may hold so many network namespaces, and `postern try` in it with `$@`.
const LIMITED: &str = "echo \"$1\" > /proc/sys/user/max_net_namespaces && shift && exec \"$@\"";

#[test]
fn a_killed_try_leaves_nothing() {
    use std::os::unix::process::CommandExt;

    let example = example("09-allow-frontend");
    let (_folder, probes) = folder("probes.jsonl", &{
        let text = fs::read_to_string(example.probes_file()).unwrap();
        text.lines().find(|line| line.contains("\"allowed\":false")).unwrap().to_owned()
    });
    // The shell waits for its limited children, and holds the user namespace whose count of namespaces is looked at.
    let shell = Command::new("unshare")
        .args(["--user", "--map-root-user", "--", "sleep", "600"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let holder = Running(shell);
    let in_limits = |limit: usize, timeout: &str| {
        let mut command = Command::new("nsenter");
        command.args(["--user", "--preserve-credentials", "--target", &holder.0.id().to_string(), "--", "sh", "-c"]);
        command.args([LIMITED, "sh", &limit.to_string()]).arg(agent::binary().unwrap());
        command.args(["try", "-f", path(&example.folder), "--probes", path(&probes), "--timeout", timeout]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    wait_until("the user namespace is there", || {
        let of = |process: &str| fs::read_link(format!("/proc/{process}/ns/user")).ok();
        let map = fs::read_to_string(format!("/proc/{}/uid_map", holder.0.id())).unwrap_or_default();
        of(&holder.0.id().to_string()) != of("self") && !map.trim().is_empty()
    });

    // It waits a minute for the answer that does not come, so it is killed while everything stands.
    let mut running = Running(in_limits(1_000, "60000").process_group(0).spawn().unwrap());
    let id = running.0.id();
    let mut held = 0;
    wait_until("the cluster stands", || {
        let before = std::mem::replace(&mut held, namespaces_of(id));
        held > 4 && held == before
    });
    // So few that there are not enough while the first cluster has its own.
    let limit = held + held / 2;
    let try_again = || in_limits(limit, "50").status().unwrap();
    assert!(!try_again().success(), "{limit} network namespaces are enough for two clusters");
    running.0.kill().unwrap();
    running.0.wait().unwrap();
    assert_eq!(group(id), Vec::<String>::new(), "processes are left");
    wait_until("the namespaces are free again", || try_again().success());
}

/// Waits until something is so, for as long as a loaded machine may need.
fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(30), "not so: {what}");
        thread::sleep(Duration::from_millis(100));
    }
}
