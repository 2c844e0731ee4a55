//! The corners of NetworkPolicy with real packets: in both families, on one node and two, with routed and bridged pods.

#![allow(clippy::unwrap_used, reason = "a test that cannot set up its world has failed")]

use compiler::nft::{Deny, Family};
use integration::agent::nft;
use integration::scene::{Scene, Shape, node, pod, policy};
use lab::{Attachment, Netns, isolated};

const ROUTED: Shape = Shape::ALL[1];

/// Builds the cluster in each shape, and checks the same lines in each.
async fn check_in(shapes: &[Shape], yaml: &str, lines: &[&str]) {
    for shape in shapes {
        let scene = Scene::start(yaml, &["203.0.113.5", "2001:db8::5"], *shape, Deny::Drop).await.unwrap();
        scene.check(lines).await.unwrap_or_else(|wrong| panic!("{shape:?}:\n{wrong:?}"));
    }
}

fn ip(netns: &Netns, arguments: &str) -> String {
    let run = || std::process::Command::new("ip").args(arguments.split(' ')).output().unwrap();
    let output = netns.run(run).unwrap();
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// What `nft list` prints of the agent's table in a node.
fn listing(scene: &Scene, node: &str) -> String {
    scene.netns(node).unwrap().run(|| nft(&["list", "table", "inet", "postern"])).unwrap().unwrap()
}

/// The packets that a counter of the agent's table has counted.
fn counted(scene: &Scene, node: &str, counter: &str) -> u64 {
    let text = listing(scene, node);
    let mut lines = text.lines().skip_while(|line| line.trim() != format!("counter {counter} {{"));
    let value = lines.nth(1).and_then(|line| line.trim().strip_prefix("packets ")?.split(' ').next()?.parse().ok());
    value.unwrap_or_else(|| panic!("no counter {counter} in\n{text}"))
}

const DENY_ALL: &str = "{podSelector: {}, policyTypes: [Ingress, Egress]}";

#[test]
fn a_node_reaches_its_own_pods_and_their_replies_come_back() {
    isolated(async {
        let yaml = pod("shop/web", "node-1", "app: web", "") + &policy("shop/deny-all", DENY_ALL);
        let allowed = ["80/TCP", "53/UDP", "9/SCTP", "ICMP"].map(|p| format!("node/node-1 -> shop/web {p}: allowed"));
        let lines = allowed.each_ref().map(String::as_str);
        for attachment in [Attachment::Routed, Attachment::Bridged] {
            check_in(&[Shape { attachment, one_node: true }], &yaml, &lines).await;
        }
    });
}

#[test]
fn a_pod_to_its_own_node_is_policed_on_egress() {
    isolated(async {
        let to_node = "{podSelector: {matchLabels: {app: kubelet-reader}}, policyTypes: [Egress], egress: [{to: [
             {ipBlock: {cidr: 10.213.0.2/32}}, {ipBlock: {cidr: 'fd00:10:213::2/128'}}], ports: [{port: 10250}]}]}";
        let yaml = node("node-1", &["10.213.0.2", "fd00:10:213::2"])
            + &pod("shop/web", "node-1", "app: web", "")
            + &pod("shop/reader", "node-1", "app: kubelet-reader", "")
            + &pod("open/any", "node-1", "", "")
            + &policy("shop/deny-all", DENY_ALL)
            + &policy("shop/to-node", to_node);
        let lines = [
            "shop/web -> node/node-1 80/TCP: refused",
            "shop/web -> node/node-1 53/UDP: refused",
            "shop/web -> node/node-1 9/SCTP: refused",
            "shop/web -> node/node-1 ICMP: refused",
            "shop/reader -> node/node-1 10250/TCP: allowed",
            "shop/reader -> node/node-1 10251/TCP: refused",
            "shop/reader -> node/node-1 10250/UDP: refused",
            "open/any -> node/node-1 80/TCP: allowed",
            "open/any -> node/node-1 ICMP: allowed",
        ];
        for attachment in [Attachment::Routed, Attachment::Bridged] {
            check_in(&[Shape { attachment, one_node: true }], &yaml, &lines).await;
        }
    });
}

#[test]
fn neighbours_are_found_though_everything_is_denied() {
    isolated(async {
        let allow = |peer: &str, own: &str| {
            let peer = format!("[{{podSelector: {{matchLabels: {{app: {peer}}}}}}}]");
            policy(
                &format!("shop/{own}"),
                &format!(
                    "{{podSelector: {{matchLabels: {{app: {own}}}}}, policyTypes: [Ingress, Egress], \
                     ingress: [{{from: {peer}}}], egress: [{{to: {peer}}}]}}"
                ),
            )
        };
        let yaml = pod("shop/a", "node-1", "app: a", "")
            + &pod("shop/b", "node-1", "app: b", "")
            + &pod("shop/c", "node-2", "app: c", "")
            + &policy("shop/deny-all", DENY_ALL)
            + &allow("b", "a")
            + &allow("a", "b");
        for shape in Shape::TWO_NODES {
            let scene = Scene::start(&yaml, &[], shape, Deny::Drop).await.unwrap();
            let netns =
                ["shop/a", "shop/b", "shop/c", "node/node-1", "node/node-2"].map(|end| scene.netns(end).unwrap());
            // Twice: from the beginning, and when everybody has to ask again.
            for _ in 0..2 {
                netns.iter().for_each(|netns| drop(ip(netns, "neigh flush all")));
                scene
                    .check(&[
                        "shop/a -> shop/b 80/TCP: allowed",
                        "shop/b -> shop/a ICMP: allowed",
                        "shop/a -> shop/c 80/TCP: refused",
                        "node/node-1 -> shop/a 80/TCP: allowed",
                        "node/node-2 -> shop/c ICMP: allowed",
                    ])
                    .await
                    .unwrap_or_else(|wrong| panic!("{shape:?}:\n{wrong:?}"));
            }
        }
    });
}

#[test]
fn another_node_is_a_stranger() {
    isolated(async {
        let from_node = "{podSelector: {matchLabels: {app: open}}, ingress: [{from: [
             {ipBlock: {cidr: 10.213.0.3/32}}, {ipBlock: {cidr: 'fd00:10:213::3/128'}}], ports: [{port: 80}]}]}";
        let yaml = node("node-2", &["10.213.0.3", "fd00:10:213::3"])
            + &pod("shop/web", "node-1", "app: web", "")
            + &pod("shop/open", "node-1", "app: open", "")
            + &pod("shop/there", "node-2", "app: there", "")
            + &policy("shop/deny-all", DENY_ALL)
            + &policy("shop/from-node", from_node);
        let lines = [
            "node/node-2 -> shop/web 80/TCP: refused",
            "node/node-2 -> shop/web ICMP: refused",
            "node/node-2 -> shop/open 80/TCP: allowed",
            "node/node-2 -> shop/open 81/TCP: refused",
            "node/node-1 -> shop/web 80/TCP: allowed",
            // To a node that is not its own, a pod's packets are forwarded.
            "shop/web -> node/node-2 80/TCP: refused",
        ];
        check_in(&Shape::TWO_NODES, &yaml, &lines).await;
    });
}

#[test]
fn host_network_pods_are_neither_selected_nor_peers() {
    isolated(async {
        let host =
            |name: &str, node: &str| pod(name, node, "app: web", "").replace("spec: {", "spec: {hostNetwork: true, ");
        let from_all_pods = "{podSelector: {matchLabels: {app: open}}, ingress: [{from: [{namespaceSelector: {}}]}]}";
        let yaml = pod("shop/web", "node-1", "app: web", "")
            + &pod("shop/open", "node-1", "app: open", "")
            + &pod("other/client", "node-2", "", "")
            + &host("shop/host-1", "node-1")
            + &host("shop/host-2", "node-2")
            + &policy("shop/deny-all", DENY_ALL)
            + &policy("shop/from-all-pods", from_all_pods);
        let lines = [
            "other/client -> shop/host-1 80/TCP: allowed",
            "other/client -> shop/host-2 80/TCP: allowed",
            "shop/host-2 -> other/client 80/TCP: allowed",
            "shop/host-2 -> shop/web 80/TCP: refused",
            "shop/host-2 -> shop/open 80/TCP: refused",
            "other/client -> shop/open 80/TCP: allowed",
            // On the same node it is the node.
            "shop/host-1 -> shop/web 80/TCP: allowed",
        ];
        check_in(&Shape::TWO_NODES, &yaml, &lines).await;
    });
}

/// A Service of both families with a named target port.
fn service(name: &str, number: u8, app: &str, port: u16, target: &str) -> String {
    let (namespace, name) = name.split_once('/').unwrap();
    format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
         spec: {{clusterIP: 10.96.0.{number}, clusterIPs: [10.96.0.{number}, 'fd00:10:96::{number:x}'], \
         selector: {{app: {app}}}, ports: [{{protocol: TCP, port: {port}, targetPort: {target}}}]}}\n"
    )
}

#[test]
fn a_pod_reaches_itself_also_through_a_service() {
    isolated(async {
        let yaml = pod("shop/web", "node-1", "app: web", "{name: http, containerPort: 8080}")
            + &pod("shop/other", "node-1", "app: other", "")
            + &service("shop/web", 7, "web", 80, "http")
            + &policy("shop/deny-all", DENY_ALL);
        let lines = [
            "shop/web -> shop/web 8080/TCP: allowed",
            "shop/web -> shop/web ICMP: allowed",
            "shop/web -> service/shop/web 80/TCP: allowed",
            "shop/other -> service/shop/web 80/TCP: refused",
        ];
        check_in(&[Shape::ALL[0], Shape::ALL[2]], &yaml, &lines).await;
    });
}

#[test]
fn services_are_judged_by_the_endpoint_and_the_client_itself() {
    isolated(async {
        let ingress =
            "{podSelector: {matchLabels: {app: web}}, ingress: [{from: [{podSelector: {matchLabels: {app: client}}}],
             ports: [{port: 8080}]}]}";
        let egress = "{podSelector: {matchLabels: {app: limited}}, policyTypes: [Egress],
             egress: [{to: [{podSelector: {matchLabels: {app: db}}}], ports: [{port: 5432}]}]}";
        // Who names the Service's own address and port names nothing that a packet has after its translation.
        let by_address = "{podSelector: {matchLabels: {app: by-address}}, policyTypes: [Egress],
             egress: [{to: [{ipBlock: {cidr: 10.96.0.9/32}}, {ipBlock: {cidr: 'fd00:10:96::9/128'}}]}]}";
        let yaml = pod("shop/client", "node-1", "app: client", "")
            + &pod("shop/stranger", "node-1", "app: stranger", "")
            + &pod("shop/limited", "node-1", "app: limited", "")
            + &pod("shop/by-address", "node-1", "app: by-address", "")
            + &pod("shop/web", "node-2", "app: web", "{name: http, containerPort: 8080}")
            + &pod("shop/db", "node-2", "app: db", "{name: sql, containerPort: 5432}")
            + &service("shop/web", 8, "web", 80, "http")
            + &service("shop/db", 9, "db", 15432, "sql")
            + &policy("shop/ingress", ingress)
            + &policy("shop/egress", egress)
            + &policy("shop/by-address", by_address);
        let lines = [
            "shop/client -> service/shop/web 80/TCP: allowed",
            "shop/stranger -> service/shop/web 80/TCP: refused",
            "shop/limited -> service/shop/db 15432/TCP: allowed",
            "shop/limited -> service/shop/web 80/TCP: refused",
            "shop/by-address -> service/shop/db 15432/TCP: refused",
        ];
        check_in(&Shape::ALL, &yaml, &lines).await;
    });
}

#[test]
fn a_named_port_is_each_pods_own() {
    isolated(async {
        let ingress = "{podSelector: {matchLabels: {app: web}}, ingress: [{ports: [{port: http}]}]}";
        let egress = "{podSelector: {matchLabels: {app: client}}, policyTypes: [Egress],
             egress: [{ports: [{port: http}, {port: dns, protocol: UDP}]}]}";
        let yaml = pod("shop/one", "node-1", "app: web", "{name: http, containerPort: 8001}")
            + &pod("shop/two", "node-2", "app: web", "{name: http, containerPort: 8002}")
            + &pod("shop/none", "node-2", "app: web", "{name: metrics, containerPort: 8001}")
            + &pod("shop/dns", "node-2", "app: dns", "{name: dns, containerPort: 53, protocol: UDP}")
            + &pod("shop/client", "node-1", "app: client", "")
            + &pod("shop/free", "node-2", "", "")
            + &policy("shop/ingress", ingress)
            + &policy("shop/egress", egress);
        let lines = [
            "shop/free -> shop/one 8001/TCP: allowed",
            "shop/free -> shop/one 8002/TCP: refused",
            "shop/free -> shop/two 8002/TCP: allowed",
            "shop/free -> shop/two 8001/TCP: refused",
            "shop/free -> shop/none 8001/TCP: refused",
            "shop/client -> shop/one 8001/TCP: allowed",
            "shop/client -> shop/two 8002/TCP: allowed",
            "shop/client -> shop/two 8001/TCP: refused",
            "shop/client -> shop/dns 53/UDP: allowed",
            "shop/client -> shop/dns 53/TCP: refused",
            "shop/client -> 203.0.113.5 8001/TCP: refused",
            "203.0.113.5 -> shop/one 8001/TCP: allowed",
            "2001:db8::5 -> shop/two 8001/TCP: refused",
        ];
        check_in(&Shape::ALL, &yaml, &lines).await;
    });
}

#[test]
fn ports_end_where_they_end() {
    isolated(async {
        let ranges = "{podSelector: {matchLabels: {app: web}}, ingress: [{ports: [
             {port: 8000, endPort: 8010}, {protocol: UDP, port: 65535}, {protocol: SCTP, port: 1, endPort: 2}]}]}";
        let every = "{podSelector: {matchLabels: {app: tcp}}, ingress: [{ports: [{protocol: TCP}]}]}";
        let yaml = pod("shop/web", "node-1", "app: web", "")
            + &pod("shop/tcp", "node-1", "app: tcp", "")
            + &pod("shop/client", "node-2", "", "")
            + &policy("shop/ranges", ranges)
            + &policy("shop/every-tcp-port", every);
        let lines = [
            "shop/client -> shop/web 7999/TCP: refused",
            "shop/client -> shop/web 8000/TCP: allowed",
            "shop/client -> shop/web 8010/TCP: allowed",
            "shop/client -> shop/web 8011/TCP: refused",
            "shop/client -> shop/web 8000/UDP: refused",
            "shop/client -> shop/web 8000/SCTP: refused",
            "shop/client -> shop/web 65535/UDP: allowed",
            "shop/client -> shop/web 65534/UDP: refused",
            "shop/client -> shop/web 1/SCTP: allowed",
            "shop/client -> shop/web 2/SCTP: allowed",
            "shop/client -> shop/web 3/SCTP: refused",
            "shop/client -> shop/tcp 1/TCP: allowed",
            "shop/client -> shop/tcp 65535/TCP: allowed",
            "shop/client -> shop/tcp 1/UDP: refused",
            "shop/client -> shop/tcp ICMP: refused",
        ];
        check_in(&Shape::ALL, &yaml, &lines).await;
    });
}

#[test]
fn icmp_passes_only_where_everything_does() {
    isolated(async {
        let from = |app: &str, ports: &str| {
            let spec = format!(
                "{{podSelector: {{matchLabels: {{app: {app}}}}}, \
                 ingress: [{{from: [{{podSelector: {{matchLabels: {{app: client}}}}}}]{ports}}}]}}"
            );
            policy(&format!("shop/{app}"), &spec)
        };
        let yaml = pod("shop/all", "node-1", "app: all", "")
            + &pod("shop/ports", "node-1", "app: ports", "")
            + &pod("shop/client", "node-2", "app: client", "")
            + &pod("shop/other", "node-2", "", "")
            + &from("all", "")
            + &from("ports", ", ports: [{protocol: TCP}, {protocol: UDP}, {protocol: SCTP}]");
        let lines = [
            "shop/client -> shop/all ICMP: allowed",
            "shop/client -> shop/ports ICMP: refused",
            "shop/client -> shop/ports 80/UDP: allowed",
            "shop/other -> shop/all ICMP: refused",
            // Nobody isolates these for ingress, and replies come back.
            "shop/all -> shop/other ICMP: allowed",
            "shop/ports -> 203.0.113.5 ICMP: allowed",
            "shop/ports -> 2001:db8::5 ICMP: allowed",
        ];
        check_in(&Shape::ALL, &yaml, &lines).await;
    });
}

#[test]
fn replies_pass_where_the_other_direction_is_closed() {
    isolated(async {
        // The client takes nothing in, the server sends nothing out.
        let yaml = pod("shop/client", "node-1", "app: client", "")
            + &pod("shop/server", "node-2", "app: server", "")
            + &policy("shop/client", "{podSelector: {matchLabels: {app: client}}}")
            + &policy("shop/server", "{podSelector: {matchLabels: {app: server}}, policyTypes: [Egress]}");
        let lines = [
            "shop/client -> shop/server 80/TCP: allowed",
            "shop/client -> shop/server 53/UDP: allowed",
            "shop/client -> shop/server 9/SCTP: allowed",
            "shop/client -> shop/server ICMP: allowed",
            "shop/server -> shop/client 80/TCP: refused",
            "shop/server -> shop/client 53/UDP: refused",
            "shop/server -> shop/client 9/SCTP: refused",
            "shop/server -> shop/client ICMP: refused",
            "203.0.113.5 -> shop/server 80/TCP: allowed",
            "2001:db8::5 -> shop/client 80/TCP: refused",
        ];
        check_in(&Shape::ALL, &yaml, &lines).await;
    });
}

#[test]
fn of_two_pods_with_one_address_none_opens_the_other() {
    isolated(async {
        let with = |name: &str, label: &str, address: &str, phase: &str, created: &str| {
            pod(&format!("shop/{name}"), "node-1", &format!("app: {label}"), "")
                .replace("metadata: {", &format!("metadata: {{creationTimestamp: '{created}', "))
                + &format!(
                    "status: {{phase: {phase}, podIP: 10.244.9.{address}, podIPs: [{{ip: 10.244.9.{address}}}, \
                     {{ip: 'fd00:9::{address}'}}]}}\n"
                )
        };
        let (early, late) = ("2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z");
        let yaml = with("finished", "closed", "11", "Succeeded", late)
            + &with("follower", "open", "11", "Running", early)
            + &with("older", "closed", "12", "Running", early)
            + &with("newer", "open", "12", "Running", late)
            + &with("older-open", "open", "13", "Running", early)
            + &with("newer-closed", "closed", "13", "Running", late)
            + &with("one-way", "ajar", "14", "Running", early)
            + &with("another-way", "wide", "14", "Running", late)
            + &with("alike", "ajar", "15", "Running", early)
            + &with("alike-too", "ajar", "15", "Running", late)
            + &pod("other/client", "node-2", "", "")
            + &policy("shop/closed", "{podSelector: {matchLabels: {app: closed}}}")
            + &policy("shop/ajar", "{podSelector: {matchLabels: {app: ajar}}, ingress: [{ports: [{port: 80}]}]}")
            + &policy("shop/wide", "{podSelector: {matchLabels: {app: wide}}, ingress: [{}]}");
        let lines = [
            "other/client -> 10.244.9.11 80/TCP: allowed",
            "other/client -> fd00:9::11 80/TCP: allowed",
            "other/client -> 10.244.9.12 80/TCP: refused",
            "other/client -> fd00:9::12 80/TCP: refused",
            "other/client -> 10.244.9.13 80/TCP: refused",
            "other/client -> fd00:9::13 80/TCP: refused",
            "other/client -> 10.244.9.14 80/TCP: refused",
            "other/client -> fd00:9::14 80/TCP: refused",
            "other/client -> 10.244.9.15 80/TCP: allowed",
            "other/client -> 10.244.9.15 81/TCP: refused",
        ];
        check_in(&[ROUTED], &yaml, &lines).await;
    });
}

#[test]
fn a_person_reads_the_table() {
    isolated(async {
        let spec = "{podSelector: {matchLabels: {app: web}}, policyTypes: [Ingress, Egress], ingress: [
             {from: [{podSelector: {matchLabels: {app: client}}}], ports: [{port: 80}]},
             {from: [{ipBlock: {cidr: 172.17.0.0/16, except: [172.17.1.0/24]}}]}]}";
        let yaml = pod("shop/web", "node-1", "app: web", "")
            + &pod("shop/client", "node-2", "app: client", "")
            + &pod("shop/stranger", "node-2", "", "")
            + &policy("shop/web-from-client", spec);
        let scene = Scene::start(&yaml, &[], ROUTED, Deny::Drop).await.unwrap();
        let text = listing(&scene, "node/node-1");
        let web = scene.address("shop/web", Family::V4).unwrap();
        for expected in [
            "comment \"NetworkPolicy shop/web-from-client\"",
            "comment \"ingress[0]\"",
            "comment \"ingress[1]\"",
            "comment \"ns=shop pods{app=client}\"",
            "comment \"172.17.0.0/16 except 172.17.1.0/24\"",
            "172.17.0.0/24, 172.17.2.0-172.17.255.255",
            &format!("{web} comment \"shop/web\" : goto "),
        ] {
            assert!(text.contains(expected), "{expected} is not in\n{text}");
        }

        // Each refused packet is counted where it was refused.
        let counters = || {
            [("node/node-1", "denied-ingress"), ("node/node-1", "denied-egress")]
                .map(|(node, counter)| counted(&scene, node, counter))
        };
        assert_eq!(counters(), [0, 0]);
        scene.check(&["shop/client -> shop/web 80/TCP: allowed"]).await.unwrap();
        assert_eq!(counters(), [0, 0]);
        scene.check(&["shop/stranger -> shop/web 80/TCP: refused"]).await.unwrap();
        let [ingress, egress] = counters();
        assert!(ingress >= 2 && egress == 0, "{ingress} {egress}");
        scene
            .check(&["shop/web -> shop/stranger 80/TCP: refused", "shop/web -> node/node-1 80/UDP: refused"])
            .await
            .unwrap();
        assert!(counters()[1] >= 4, "{:?}", counters());
        assert_eq!(counters()[0], ingress);
    });
}
