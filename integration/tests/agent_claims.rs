//! Who owns the table when the agent starts: what somebody else has made there is replaced, and what somebody else owns
//! is told.

#![allow(clippy::unwrap_used, reason = "a test that cannot set up its world has failed")]

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use compiler::diff::{Op, Transaction};
use compiler::nft::{Family, TableFamily};
use integration::agent::{Agent, loopback_up, nft};
use integration::live::{Echo, Hammer, Live, Protection};
use integration::scene::{pod, policy};
use lab::{Attachment, Netns, isolated};
use netlink::{Connection, Ownership};
use postern::kernel;

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
    fs::write(folder.join("all.yaml"), format!("{POD}---{POLICY}")).unwrap();
    Agent::start(&["-f", folder.to_str().expect("a temporary folder has a plain name")]).unwrap()
}

fn list() -> String {
    nft(&["list", "table", "inet", "postern"]).unwrap()
}

/// The table as a text that makes it again, with other flags.
fn with_flags(table: &str, flags: &str) -> String {
    let lines = table.lines().filter(|line| !line.starts_with("\tflags ") && !line.starts_with("table inet postern"));
    format!("table inet postern {{\n{flags}\n{}\n", lines.collect::<Vec<_>>().join("\n"))
}

/// Puts a copy of the table in its place, as one that nobody owns.
fn copy(folder: &Path, table: &str, flags: &str) {
    let path = folder.join("copy.nft");
    fs::write(&path, format!("delete table inet postern\n{}", with_flags(table, flags))).unwrap();
    nft(&["-f", path.to_str().unwrap()]).unwrap();
}

/// What is in the table, without who owns it and what was counted.
fn contents(table: &str) -> Vec<&str> {
    let is_content = |line: &&str| {
        !line.starts_with("table ") && !line.starts_with("\tflags ") && !line.contains("packets ") && !line.is_empty()
    };
    table.lines().filter(is_content).collect()
}

#[test]
fn a_copy_that_nobody_owns_is_replaced() {
    isolated(async {
        if kernel::is_before((6, 9)) {
            // No table has an owner there.
            return;
        }
        loopback_up().unwrap();
        let (folder, texts) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut agent = start(folder.path());
        agent.ready().await.unwrap();
        agent.terminate().unwrap();
        let ours = list();
        for flags in ["", "flags dormant;"] {
            copy(texts.path(), &ours, flags);
            assert_eq!(contents(&list()), contents(&ours));
            let mut agent = start(folder.path());
            agent.ready().await.unwrap();
            let now = list();
            assert!(now.contains("flags owner") && !now.contains("dormant"), "{flags:?}:\n{now}");
            assert_eq!(contents(&now), contents(&ours));
            let log = agent.log().unwrap();
            assert!(log.contains("somebody else made or changed table inet postern"), "{log}");
            // One that replaces it, and one when the open flows have been reviewed: the copy may have enforced nothing.
            assert_eq!(agent.metric("postern_commits_total{result=\"ok\"}").await.unwrap(), 2.0);
            agent.terminate().unwrap();
        }
    });
}

#[test]
fn nothing_passes_while_a_copy_is_replaced() {
    isolated(async {
        if kernel::is_before((6, 9)) {
            return;
        }
        let yaml = "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n".to_owned()
            + &pod("shop/web", "node-1", "app: web", "")
            + &pod("shop/visitor", "node-1", "app: visitor", "")
            + &policy("shop/web", "{podSelector: {matchLabels: {app: web}}}");
        let mut live = Live::start(&yaml, Attachment::Routed, Protection::Owned).await.unwrap();
        let texts = tempfile::tempdir().unwrap();
        let node: Netns = live.netns(0);
        let [web, visitor] = ["shop/web", "shop/visitor"].map(|name| live.endpoint(name, Family::V4).unwrap());
        let echo = Echo::start(&web, 81).unwrap();
        let hammer = Hammer::refused(&visitor, SocketAddr::new(web.address, 81)).unwrap();
        for _ in 0..5 {
            live.stop_agent(0).await.unwrap();
            node.run(|| copy(texts.path(), &list(), "")).unwrap();
            let before = hammer.sent();
            live.start_agent(0).await.unwrap();
            live.settled().await.unwrap();
            assert!(node.run(list).unwrap().contains("flags owner"));
            while hammer.sent() < before + 5 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        let (sent, _) = hammer.stop();
        assert_eq!(echo.received_from(visitor.address), 0, "of {sent}");
    });
}

#[test]
fn an_owner_that_is_somebody_else_is_told_and_succeeded() {
    isolated(async {
        if kernel::is_before((6, 9)) {
            return;
        }
        loopback_up().unwrap();
        let mut owner = Connection::open(Ownership::OwnerPersist).unwrap();
        owner.commit(&Transaction::new(vec![Op::AddTable(TableFamily::Inet)], None), None).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let mut agent = start(folder.path());
        let is_told = |code, text: &str| code == 503 && text.contains("another agent runs on this node");
        agent.until_readyz(is_told).await.unwrap();
        assert_eq!(agent.metric("postern_commit_failing").await.unwrap(), 1.0);
        let log = agent.log().unwrap();
        let told =
            log.lines().filter(|line| line.contains("ERROR") && line.contains("another agent runs on this node"));
        assert_eq!(told.count(), 1, "{log}");
        drop(owner);
        agent.ready().await.unwrap();
        assert!(list().contains("shop/web") && list().contains("flags owner"), "{}", list());
        assert!(agent.log().unwrap().contains("the kernel holds what it should again"));
    });
}
