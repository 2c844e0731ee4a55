//! The agent from files, against the real kernel.

#![allow(clippy::unwrap_used, reason = "a test that cannot set up its world has failed")]

use std::fs;
use std::path::Path;
use std::time::Duration;

use integration::agent::{Agent, loopback_up, nft};
use lab::isolated;

const POD: &str = "
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}}
spec: {nodeName: node-1}
status: {phase: Running, podIPs: [{ip: 10.0.0.1}]}
";

const POLICY: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web, namespace: shop}
spec:
  podSelector: {}
  ingress: [{from: [{ipBlock: {cidr: 192.0.2.0/24}}]}]
";

fn start(folder: &Path) -> Agent {
    let folder = folder.to_str().expect("a temporary folder has a plain name");
    Agent::start(&["-f", folder, "--verify-interval", "1"]).expect("the agent builds and starts")
}

/// As editors and ConfigMaps do it: another file takes the place of the first.
fn replace(path: &Path, text: &str) {
    let new = path.with_extension("new");
    fs::write(&new, text).expect("the test's folder can be written");
    fs::rename(new, path).expect("both are in one folder");
}

#[test]
fn every_change_of_a_file_reaches_the_table() {
    isolated(async {
        loopback_up().unwrap();
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("pod.yaml"), POD).unwrap();
        let mut agent = start(folder.path());
        agent.ready().await.unwrap();
        assert!(!nft(&["list", "table", "inet", "postern"]).unwrap().contains("shop/web"));

        let policy = folder.path().join("policy.yaml");
        fs::write(&policy, POLICY).unwrap();
        agent.until_table(|table| table.contains("192.0.2.0/24") && table.contains("shop/web")).await.unwrap();
        replace(&policy, &POLICY.replace("192.0.2.0/24", "198.51.100.0/24"));
        agent.until_table(|table| table.contains("198.51.100.0/24") && !table.contains("192.0.2.0")).await.unwrap();

        // A file that breaks holds up no other.
        fs::write(folder.path().join("broken.yaml"), "kind: [").unwrap();
        replace(&policy, POLICY);
        agent.until_table(|table| table.contains("192.0.2.0/24")).await.unwrap();
        assert_eq!(agent.log().unwrap().matches("broken.yaml:1:").count(), 1, "{}", agent.log().unwrap());
        fs::remove_file(policy).unwrap();
        agent.until_table(|table| !table.contains("shop/web")).await.unwrap();
    });
}

#[test]
fn what_cannot_be_understood_is_told_once_and_counted_while_it_is_there() {
    isolated(async {
        loopback_up().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("all.yaml");
        let odd = POLICY.replace("192.0.2.0/24", "192.0.2.300/24");
        fs::write(&path, format!("{POD}---{odd}")).unwrap();
        let mut agent = start(folder.path());
        agent.ready().await.unwrap();
        agent.until_table(|table| table.contains("shop/web")).await.unwrap();
        let invalid = "postern_invalid_objects{kind=\"NetworkPolicy\"}";
        assert_eq!(agent.metric(invalid).await.unwrap(), 1.0);
        replace(&path, &format!("{POD}---{odd}---{}", odd.replace("name: web", "name: other")));
        agent.until_table(|table| table.contains("shop/other")).await.unwrap();
        assert_eq!(agent.metric(invalid).await.unwrap(), 2.0);
        let log = agent.log().unwrap();
        let told = log.lines().filter(|line| line.contains("shop/web") && line.contains("192.0.2.300/24"));
        assert_eq!(told.count(), 1, "{log}");

        replace(&path, POD);
        agent.until_table(|table| !table.contains("shop/")).await.unwrap();
        assert_eq!(agent.metric(invalid).await.unwrap(), 0.0);
    });
}

#[test]
fn a_policy_stays_in_force_until_its_file_can_be_read_again() {
    isolated(async {
        loopback_up().unwrap();
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("pod.yaml"), POD).unwrap();
        let policy = folder.path().join("policy.yaml");
        fs::write(&policy, POLICY).unwrap();
        let mut agent = start(folder.path());
        agent.ready().await.unwrap();
        replace(&policy, "kind: [");
        // What is written after it has been read after it.
        fs::write(folder.path().join("more.yaml"), POLICY.replace("name: web", "name: more").replace(".2.0", ".3.0"))
            .unwrap();
        agent.until_table(|table| table.contains("192.0.3.0/24")).await.unwrap();
        assert!(nft(&["list", "table", "inet", "postern"]).unwrap().contains("192.0.2.0/24"));
        assert!(agent.log().unwrap().contains("policy.yaml:1:7: unclosed bracket '['; what it said last stays"));
        replace(&policy, &POLICY.replace("192.0.2.0/24", "198.51.100.0/24"));
        agent.until_table(|table| table.contains("198.51.100.0/24") && !table.contains("192.0.2.0/24")).await.unwrap();
        agent.ready().await.unwrap();
    });
}

#[test]
fn nobody_else_can_take_the_rules_away() {
    isolated(async {
        loopback_up().unwrap();
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("all.yaml"), format!("{POD}---{POLICY}")).unwrap();
        let mut agent = start(folder.path());
        agent.ready().await.unwrap();
        // A kernel before 6.9 cannot protect the table; then it is put back.
        let _ = nft(&["flush", "ruleset"]);
        let _ = nft(&["delete", "table", "inet", "postern"]);
        agent.until_table(|table| table.contains("shop/web") && table.contains("192.0.2.0/24")).await.unwrap();
        // Tables of others are theirs, and a commit in one is no reason to fail.
        nft(&["add", "table", "inet", "other"]).unwrap();
        fs::write(folder.path().join("all.yaml"), format!("{POD}---{}", POLICY.replace("192", "198"))).unwrap();
        agent.until_table(|table| table.contains("198.0.2.0/24")).await.unwrap();
        assert!(nft(&["list", "tables"]).unwrap().contains("inet other"));
    });
}

#[test]
fn the_end_is_fast_and_leaves_the_rules() {
    isolated(async {
        loopback_up().unwrap();
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("all.yaml"), format!("{POD}---{POLICY}")).unwrap();
        let mut agent = start(folder.path());
        agent.ready().await.unwrap();
        let took = agent.terminate().unwrap();
        assert!(took < Duration::from_secs(1), "the end took {took:?}");
        assert!(nft(&["list", "table", "inet", "postern"]).unwrap().contains("shop/web"));
    });
}
