//! Changes while packets flow: each is in force as soon as the agent has taken it, and disturbs nothing else.

#![allow(clippy::unwrap_used, reason = "a test that cannot set up its world has failed")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use compiler::nft::Family;
use integration::agent::nft;
use integration::live::{Echo, Hammer, Live, Protection};
use integration::scene::{pod, policy};
use lab::{Attachment, Flow, Netns, Outcome, Probe, Protocol, isolated};
use postern::kernel;

/// For what must come: a loaded machine may be slow.
const PATIENCE: Duration = Duration::from_secs(20);
const BOTH: [Attachment; 2] = [Attachment::Routed, Attachment::Bridged];
/// How many changes the tests of atomicity make.
const CHANGES: usize = 200;

fn namespace(name: &str, labels: &str) -> String {
    format!("---\napiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}, labels: {{{labels}}}}}\n")
}

/// A web server with clients near and far, and a visitor from another namespace.
fn cluster() -> String {
    namespace("shop", "")
        + &namespace("other", "team: a")
        + &pod("shop/web", "node-1", "app: web", "")
        + &pod("shop/client", "node-1", "app: client", "")
        + &pod("shop/far", "node-2", "app: client", "")
        + &pod("other/visitor", "node-2", "app: visitor", "")
}

async fn start(yaml: &str, attachment: Attachment) -> Live {
    Live::start(yaml, attachment, Protection::Owned).await.unwrap()
}

/// Ingress to the web server from one app, on one port.
fn from(app: &str, port: u16) -> String {
    let peers = format!("[{{podSelector: {{matchLabels: {{app: {app}}}}}}}]");
    let spec = format!(
        "{{podSelector: {{matchLabels: {{app: web}}}}, ingress: [{{from: {peers}, ports: [{{port: {port}}}, {{port: {port}, protocol: UDP}}]}}]}}"
    );
    policy("shop/web", &spec)
}

#[test]
fn policies_come_change_and_go() {
    isolated(async {
        for attachment in BOTH {
            let mut live = start(&cluster(), attachment).await;
            let open = ["shop/client -> shop/web 80/TCP: allowed", "other/visitor -> shop/web 81/UDP: allowed"];
            live.check(&open).await.unwrap();

            live.apply(&from("client", 80)).unwrap();
            live.settled().await.unwrap();
            let first = [
                "shop/client -> shop/web 80/TCP: allowed",
                "shop/far -> shop/web 80/TCP: allowed",
                "shop/far -> shop/web 81/TCP: refused",
                "other/visitor -> shop/web 80/TCP: refused",
                "shop/web -> other/visitor 80/TCP: allowed",
            ];
            live.check(&first).await.unwrap();

            live.apply(&from("client", 81)).unwrap();
            live.settled().await.unwrap();
            live.check(&["shop/far -> shop/web 80/TCP: refused", "shop/far -> shop/web 81/TCP: allowed"])
                .await
                .unwrap();

            // A second one adds to what is allowed.
            live.apply(&policy("shop/also", "{podSelector: {}, ingress: [{ports: [{port: 80}]}]}")).unwrap();
            live.settled().await.unwrap();
            live.check(&["other/visitor -> shop/web 80/TCP: allowed", "shop/far -> shop/web 81/TCP: allowed"])
                .await
                .unwrap();
            live.check(&["shop/far -> shop/client 81/TCP: refused"]).await.unwrap();

            live.delete_policy("shop/web");
            live.settled().await.unwrap();
            live.check(&["shop/far -> shop/web 81/TCP: refused", "shop/far -> shop/web 80/TCP: allowed"])
                .await
                .unwrap();
            live.delete_policy("shop/also");
            live.settled().await.unwrap();
            live.check(&open).await.unwrap();
        }
    });
}

#[test]
fn labels_move_pods_and_namespaces_in_and_out() {
    isolated(async {
        for attachment in BOTH {
            let peers = "[{podSelector: {matchLabels: {app: client}}}, {namespaceSelector: {matchLabels: {team: b}}}]";
            let spec = format!("{{podSelector: {{matchLabels: {{app: web}}}}, ingress: [{{from: {peers}}}]}}");
            let mut live = start(&(cluster() + &policy("shop/web", &spec)), attachment).await;
            let before = [
                "shop/far -> shop/web 80/TCP: allowed",
                "other/visitor -> shop/web 80/TCP: refused",
                "other/visitor -> shop/client 80/TCP: allowed",
            ];
            live.check(&before).await.unwrap();

            // Out of the peers, and back.
            live.apply(&pod("shop/far", "node-2", "app: former-client", "")).unwrap();
            live.settled().await.unwrap();
            live.check(&["shop/far -> shop/web 80/TCP: refused", "shop/client -> shop/web 80/TCP: allowed"])
                .await
                .unwrap();
            live.apply(&pod("shop/far", "node-2", "app: client", "")).unwrap();
            live.settled().await.unwrap();
            live.check(&before).await.unwrap();

            // Into isolation, and out of it.
            live.apply(&pod("shop/client", "node-1", "app: web", "")).unwrap();
            live.settled().await.unwrap();
            live.check(&["other/visitor -> shop/client 80/TCP: refused", "shop/client -> shop/web 80/TCP: refused"])
                .await
                .unwrap();
            live.apply(&pod("shop/web", "node-1", "app: free", "")).unwrap();
            live.settled().await.unwrap();
            live.check(&["other/visitor -> shop/web 80/TCP: allowed"]).await.unwrap();
            live.apply(&pod("shop/web", "node-1", "app: web", "")).unwrap();
            live.apply(&pod("shop/client", "node-1", "app: client", "")).unwrap();
            live.settled().await.unwrap();
            live.check(&before).await.unwrap();

            // The namespace of a peer.
            live.apply(&namespace("other", "team: b")).unwrap();
            live.settled().await.unwrap();
            live.check(&["other/visitor -> shop/web 80/TCP: allowed"]).await.unwrap();
            live.apply(&namespace("other", "team: c")).unwrap();
            live.settled().await.unwrap();
            live.check(&before).await.unwrap();
        }
    });
}

/// A pod with addresses of its own choice.
fn addressed(name: &str, labels: &str, number: u8, created: &str) -> String {
    let metadata = format!("metadata: {{creationTimestamp: '{created}', ");
    let status = format!(
        "status: {{phase: Running, podIP: 10.244.0.{number}, podIPs: [{{ip: 10.244.0.{number}}}, {{ip: 'fd00:10:244::{number:x}'}}]}}\n"
    );
    pod(name, "node-1", labels, "").replace("metadata: {", &metadata) + &status
}

#[test]
fn a_new_pod_is_isolated_before_its_first_packet() {
    isolated(async {
        for attachment in BOTH {
            let deny =
                policy("shop/deny-all", "{podSelector: {matchLabels: {app: closed}}, policyTypes: [Ingress, Egress]}");
            let mut live = start(&(cluster() + &deny), attachment).await;
            live.apply(&addressed("shop/late", "app: closed", 77, "2026-01-01T00:00:00Z")).unwrap();
            live.settled().await.unwrap();
            live.attach("shop/late").await.unwrap();
            let late = live.endpoint("shop/late", Family::V4).unwrap();
            let echo = Echo::start(&late, 9).unwrap();
            let client = live.endpoint("shop/client", Family::V4).unwrap();
            let hammer = Hammer::refused(&client, SocketAddr::new(late.address, 9)).unwrap();
            live.check(&["shop/client -> shop/late 80/TCP: refused", "shop/late -> shop/far 80/TCP: refused"])
                .await
                .unwrap();
            let (sent, _) = hammer.stop();
            assert!(sent > 0);
            assert_eq!(echo.received_from(client.address), 0, "of {sent}");
        }
    });
}

#[test]
fn an_address_goes_from_pod_to_pod() {
    isolated(async {
        for attachment in BOTH {
            let deny =
                policy("shop/deny", "{podSelector: {matchLabels: {app: closed}}, policyTypes: [Ingress, Egress]}");
            let mut live = start(&(cluster() + &deny), attachment).await;
            let (early, late) = ("2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z");
            live.apply(&addressed("shop/first", "app: closed", 88, early)).unwrap();
            live.attach("shop/first").await.unwrap();
            live.settled().await.unwrap();
            live.check(&["shop/client -> shop/first 80/TCP: refused"]).await.unwrap();

            // Told in order: the old one is gone, then the new one comes.
            live.detach("shop/first").await.unwrap();
            live.delete_pod("shop/first");
            live.apply(&addressed("shop/second", "app: open", 88, early)).unwrap();
            live.attach("shop/second").await.unwrap();
            live.settled().await.unwrap();
            live.check(&["shop/client -> shop/second 80/TCP: allowed", "shop/second -> shop/far 80/TCP: allowed"])
                .await
                .unwrap();

            // Told out of order: the new one is there before the old one is known to be gone.
            live.detach("shop/second").await.unwrap();
            live.apply(&addressed("shop/third", "app: closed", 88, late)).unwrap();
            live.attach("shop/third").await.unwrap();
            live.settled().await.unwrap();
            live.check(&["shop/client -> shop/third 80/TCP: refused"]).await.unwrap();
            live.delete_pod("shop/second");
            live.settled().await.unwrap();
            live.check(&["shop/client -> shop/third 80/TCP: refused", "shop/third -> shop/far 80/TCP: refused"])
                .await
                .unwrap();
        }
    });
}

/// Flows from a client near and one far to the web server, by TCP and UDP, in both families.
async fn flows(live: &Live) -> Vec<Flow> {
    let mut flows = Vec::new();
    for family in Family::ALL {
        // A port for each, for each listens by itself.
        for (client, port) in [("shop/client", 82), ("shop/far", 83)] {
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                let (from, to) = (live.endpoint(client, family).unwrap(), live.endpoint("shop/web", family).unwrap());
                let probe = Probe::new(from, to, protocol, port);
                let opened = Flow::open(&probe, PATIENCE).await;
                flows.push(opened.unwrap_or_else(|outcome| panic!("{client} {family} {protocol:?}: {outcome}")));
            }
        }
    }
    flows
}

async fn exchange(flows: &mut [Flow]) {
    for flow in flows {
        assert_eq!(flow.exchange(64, PATIENCE).await, Outcome::Allowed);
    }
}

/// Clients that must always get through to the web server, near and far, and visitors who never must.
struct Traffic {
    echoes: Vec<Echo>,
    allowed: Vec<Hammer>,
    refused: Vec<(Hammer, std::net::IpAddr)>,
}

impl Traffic {
    fn start(live: &Live) -> Traffic {
        let mut traffic = Traffic { echoes: Vec::new(), allowed: Vec::new(), refused: Vec::new() };
        for family in Family::ALL {
            let web = live.endpoint("shop/web", family).unwrap();
            let to = SocketAddr::new(web.address, 81);
            traffic.echoes.push(Echo::start(&web, 81).unwrap());
            for client in ["shop/client", "shop/far"] {
                traffic.allowed.push(Hammer::allowed(&live.endpoint(client, family).unwrap(), to).unwrap());
            }
            let visitor = live.endpoint("other/visitor", family).unwrap();
            traffic.refused.push((Hammer::refused(&visitor, to).unwrap(), visitor.address));
        }
        traffic
    }

    /// Waits until each client has sent a few more.
    async fn goes_on(&self) {
        let all = || self.allowed.iter().chain(self.refused.iter().map(|(hammer, _)| hammer));
        let before: Vec<u64> = all().map(Hammer::sent).collect();
        until(|| all().zip(&before).all(|(hammer, before)| hammer.sent() >= before + 5)).await;
    }

    /// Ends it: each answer has come, and nothing has passed that must not.
    fn finish(self) {
        for hammer in self.allowed {
            let (sent, answered) = hammer.stop();
            assert!(sent > 0);
            assert_eq!(answered, sent, "what is allowed was refused for a moment");
        }
        for (hammer, visitor) in self.refused {
            let (sent, _) = hammer.stop();
            assert!(sent > 0);
            let passed: u64 = self.echoes.iter().map(|echo| echo.received_from(visitor)).sum();
            assert_eq!(passed, 0, "of {sent} that are refused, some passed for a moment");
        }
    }
}

/// The web server is open to clients on ports 80 to 83, whatever else `more` opens.
fn web_policy(more: &str) -> String {
    let ports =
        "[{port: 80}, {port: 81, protocol: UDP}, {port: 82, endPort: 83}, {protocol: UDP, port: 82, endPort: 83}]";
    let spec = format!(
        "{{podSelector: {{matchLabels: {{app: web}}}}, ingress: [{more}{{from: [{{podSelector: {{matchLabels: {{app: client}}}}}}], ports: {ports}}}]}}"
    );
    policy("shop/web", &spec)
}

/// The handles of the chains, by name: a chain that is made anew has another.
fn chain_handles(netns: &Netns) -> BTreeMap<String, String> {
    let listed = netns.run(|| nft(&["-a", "list", "table", "inet", "postern"])).unwrap().unwrap();
    let chain = |line: &str| {
        let (name, handle) = line.trim().strip_prefix("chain ")?.split_once(" { # handle ")?;
        Some((name.to_owned(), handle.to_owned()))
    };
    listed.lines().filter_map(chain).collect()
}

#[test]
fn a_hammer_notices_a_moment() {
    isolated(async {
        let mut live = start(&(cluster() + &web_policy("")), Attachment::Routed).await;
        let [web, client, visitor] =
            ["shop/web", "shop/client", "other/visitor"].map(|name| live.endpoint(name, Family::V4).unwrap());
        let to = SocketAddr::new(web.address, 81);
        let echo = Echo::start(&web, 81).unwrap();
        let refused = Hammer::refused(&visitor, to).unwrap();
        let allowed = Hammer::allowed(&client, to).unwrap();
        live.check(&["other/visitor -> shop/web 80/TCP: refused"]).await.unwrap();
        assert_eq!(echo.received_from(visitor.address), 0);

        // Open to everybody for a moment, then to nobody for another.
        live.apply(&web_policy("{}, ")).unwrap();
        live.settled().await.unwrap();
        until(|| echo.received_from(visitor.address) > 0).await;
        live.apply(&policy("shop/web", "{podSelector: {matchLabels: {app: web}}}")).unwrap();
        live.settled().await.unwrap();
        let before = allowed.sent();
        until(|| allowed.sent() > before).await;
        live.apply(&web_policy("")).unwrap();
        live.settled().await.unwrap();
        assert!(refused.stop().0 > 0);
        let (sent, answered) = allowed.stop();
        assert!(answered > 0 && answered < sent, "{answered} of {sent}");
    });
}

/// Waits until something is so.
async fn until(is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "it does not come to pass");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[test]
fn unrelated_changes_disturb_no_flow() {
    isolated(async {
        for attachment in BOTH {
            let mut live = start(&(cluster() + &web_policy("")), attachment).await;
            let mut flows = flows(&live).await;
            let traffic = Traffic::start(&live);
            for change in 0..CHANGES {
                match change % 4 {
                    0 => {
                        live.apply(&policy("other/some", "{podSelector: {}, policyTypes: [Ingress, Egress]}")).unwrap()
                    }
                    1 => live.apply(&addressed("other/new", "app: new", 99, "2026-01-01T00:00:00Z")).unwrap(),
                    2 => live.delete_policy("other/some"),
                    _ => live.delete_pod("other/new"),
                }
                live.settled().await.unwrap();
                exchange(&mut flows[change % 8..=change % 8]).await;
            }
            traffic.goes_on().await;
            exchange(&mut flows).await;
            traffic.finish();
        }
    });
}

#[test]
fn an_update_is_in_force_as_a_whole_or_not_at_all() {
    isolated(async {
        for attachment in BOTH {
            let mut live = start(&(cluster() + &web_policy("")), attachment).await;
            let traffic = Traffic::start(&live);
            traffic.goes_on().await;
            for change in 0..CHANGES {
                // The same clients stay allowed, and the visitor refused; the rules, sets and chains do not stay.
                let block = format!("{{from: [{{ipBlock: {{cidr: 172.16.{change}.0/24}}}}]}}, ");
                let other_app = format!("{{from: [{{podSelector: {{matchLabels: {{app: nobody-{change}}}}}}}]}}, ");
                match change % 4 {
                    0 => live.apply(&web_policy(&block)).unwrap(),
                    1 => live.apply(&web_policy(&other_app)).unwrap(),
                    2 => live
                        .apply(&policy("shop/second", "{podSelector: {}, ingress: [{ports: [{port: 9}]}]}"))
                        .unwrap(),
                    _ => live.delete_policy("shop/second"),
                }
                live.settled().await.unwrap();
            }
            traffic.goes_on().await;
            traffic.finish();
        }
    });
}

#[test]
fn a_restart_of_the_agent_lets_nothing_pass_and_cuts_nothing() {
    isolated(async {
        for attachment in BOTH {
            let mut live = start(&(cluster() + &web_policy("")), attachment).await;
            let mut flows = flows(&live).await;
            let traffic = Traffic::start(&live);
            traffic.goes_on().await;
            let node = live.netns(0);
            let before = chain_handles(&node);
            assert!(before.len() > 5, "{before:?}");
            for _ in 0..3 {
                live.stop_agent(0).await.unwrap();
                traffic.goes_on().await;
                exchange(&mut flows).await;
                live.start_agent(0).await.unwrap();
                live.settled().await.unwrap();
                traffic.goes_on().await;
                exchange(&mut flows).await;
                assert_eq!(chain_handles(&node), before);
            }

            // What has happened in between is made up for.
            live.stop_agent(0).await.unwrap();
            live.apply(&policy("shop/web", "{podSelector: {matchLabels: {app: web}}}")).unwrap();
            traffic.goes_on().await;
            traffic.finish();
            live.check(&["shop/client -> shop/web 80/TCP: allowed"]).await.unwrap();
            live.start_agent(0).await.unwrap();
            live.check(&["shop/client -> shop/web 80/TCP: refused"]).await.unwrap();
        }
    });
}

#[test]
fn a_foreigner_cannot_remove_a_table_that_has_an_owner() {
    isolated(async {
        let live = start(&(cluster() + &web_policy("")), Attachment::Routed).await;
        let node = live.netns(0);
        let list = || node.run(|| nft(&["-a", "list", "table", "inet", "postern"])).unwrap().unwrap();
        let without_counts = |table: &str| {
            table.lines().filter(|line| !line.contains("packets ")).map(str::to_owned).collect::<Vec<_>>()
        };
        let before = list();
        if kernel::is_before((6, 9)) {
            // What happens then is the next test's to show.
            assert!(!before.contains("flags owner"), "before 6.9 a table ends with its owner:\n{before}");
            return;
        }
        assert!(before.contains("flags owner"), "6.9 and later can protect a table:\n{before}");
        let traffic = Traffic::start(&live);
        for command in
            [&["flush", "ruleset"][..], &["delete", "table", "inet", "postern"], &["flush", "table", "inet", "postern"]]
        {
            traffic.goes_on().await;
            let answer = node.run(|| nft(command)).unwrap();
            // A flush of everything passes over what belongs to others; the rest names the table and is refused.
            assert_eq!(answer.is_ok(), command == ["flush", "ruleset"], "{command:?}: {answer:?}");
            assert_eq!(without_counts(&list()), without_counts(&before), "after {command:?}");
        }
        traffic.goes_on().await;
        traffic.finish();
    });
}

#[test]
fn without_an_owner_a_removed_table_is_back_at_once() {
    isolated(async {
        let yaml = cluster() + &web_policy("");
        let live = Live::start(&yaml, Attachment::Routed, Protection::Plain).await.unwrap();
        let node = live.netns(0);
        let mut flows = flows(&live).await;
        let refused = ["other/visitor -> shop/web 81/UDP: refused", "other/visitor -> shop/web 80/TCP: refused"];
        let commands = [
            "flush ruleset",
            "delete table inet postern",
            "flush table inet postern",
            "flush map inet postern ingress-pods-v4",
            "add rule inet postern deny-ingress accept",
            "insert rule inet postern ingress accept",
        ];
        for command in commands {
            live.check(&refused).await.unwrap();
            node.run(|| nft(&[command])).unwrap().unwrap();
            live.until(&refused).await.unwrap_or_else(|wrong| panic!("after {command}:\n{wrong}"));
            exchange(&mut flows).await;
        }
    });
}
