//! Three judges that share no code: the API's words, the IR, and a packet traced through the compiled table.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

use compiler::nft::{Chain, Deny, Key, MapElement, Match, Rule, Stmt, Verdict, VerdictMap};
use compiler::sim::{Cluster, Compiled, Report, Search};
use serde_json::{Value, json};

/// In the order of the clusters that `make proof` draws with the same seed.
const SEED: u64 = 1;

#[test]
fn judges_agree() {
    let report = Search { clusters: 3_000, packets: 100, seed: SEED }.run();
    println!("{}", report.counts);
    assert!(report.failure.is_none(), "{:?}", report.failure);
    assert_reaches_the_corners(&report);
}

/// What the generated clusters and packets must contain, and at least how often in a thousand of which. Without this,
/// the search could come to judge nothing but packets that everybody lets pass.
#[track_caller]
fn assert_reaches_the_corners(report: &Report) {
    let of_packets = [
        ("packet: neither end isolated", 100),
        ("packet: sender isolated", 30),
        ("packet: receiver isolated", 50),
        ("packet: both ends isolated", 30),
        ("packet: allowed by rules", 30),
        ("packet: allowed, free", 100),
        ("packet: refused", 150),
        ("packet: refused by egress only", 30),
        ("packet: refused by ingress only", 30),
        ("packet: with ports", 500),
        ("packet: ICMP", 50),
        ("packet: IPv4", 200),
        ("packet: IPv6", 200),
        ("packet: refused by the gate", 20),
        ("packet: reply", 10),
        ("packet: to itself", 10),
        ("packet: from a link-local or many's address", 10),
        ("packet: to a link-local or many's address", 10),
        ("packet: an end with several pods", 20),
        ("packet: an end with several pods, isolated", 10),
    ];
    let of_pods = [
        ("pod: host network", 30),
        ("pod: finished", 30),
        ("pod: terminating", 20),
        ("pod: dual stack", 200),
        ("pod: no address", 20),
        ("pod: sidecar", 50),
    ];
    let of_policies = [
        ("policy: first generation", 30),
        ("policy: v1 as a beta", 20),
        ("policy: no spec", 20),
        ("policyTypes: absent", 100),
        ("policyTypes: empty", 30),
        ("policyTypes: Ingress", 50),
        ("policyTypes: Egress", 50),
        ("policyTypes: both", 50),
        ("rule: everything", 10),
        ("rule: null", 20),
        ("peers: absent", 50),
        ("peers: empty", 50),
        ("peers: filled", 500),
        ("ports: absent", 50),
        ("ports: empty", 50),
        ("ports: filled", 500),
        ("ports: many", 100),
        ("peer: ipBlock", 200),
        ("peer: ipBlock with one except", 30),
        ("peer: ipBlock with several excepts", 50),
        ("peer: ipBlock of everything", 30),
        ("peer: ipBlock of one address", 30),
        ("rule: several ipBlocks", 100),
        ("peer: both selectors", 100),
        ("peer: podSelector", 100),
        ("peer: namespaceSelector", 100),
        ("port: protocol only", 50),
        ("port: name", 100),
        ("port: number", 200),
        ("port: range", 100),
        ("port: SCTP", 50),
        ("operator: In", 50),
        ("operator: NotIn", 50),
        ("operator: Exists", 50),
        ("operator: DoesNotExist", 50),
    ];
    let of_sandboxes = [
        ("sandbox: of a former pod", 50),
        ("sandbox: pod finished", 50),
        ("sandbox: before the status", 30),
        ("sandbox: another address", 200),
    ];
    let of_clusters = [
        ("cluster: several nodes", 300),
        ("cluster: no pods", 10),
        ("cluster: ranges of pods", 500),
        ("cluster: shared addresses", 100),
        ("namespace: annotated", 50),
    ];
    let count = |what| report.counts.of(what);
    let clusters = u64::try_from(report.clusters).expect("some thousands");
    let tables: [(&[(&str, u64)], u64); 5] = [
        (&of_packets, count("verdicts")),
        (&of_pods, count("pods")),
        (&of_policies, count("policies")),
        (&of_sandboxes, count("sandboxes")),
        (&of_clusters, clusters),
    ];
    for (table, whole) in tables {
        for (what, least) in table {
            let share = count(what) * 1000 / whole;
            assert!(share >= *least, "{what}: {share} in a thousand, {least} at least are due\n{}", report.counts);
        }
    }
}

/// How many clusters each search below may look at. On an idle core each takes seconds.
const BUDGET: Search = Search { clusters: 3_000, packets: 100, seed: 2 };

/// A rule is broken in front of the compiler or behind it, and the search must find out. These are rules that other
/// implementations got wrong.
#[track_caller]
fn assert_found_out(breaking: impl Fn(&Cluster, Deny) -> BTreeMap<String, Compiled>) {
    let report = BUDGET.against(breaking);
    let failure = report.failure.expect("the search finds the broken rule");
    let objects = failure.cluster.objects.len();
    assert!(objects <= 8, "the search shrinks what it finds to something that can be read at a glance:\n{failure:?}");
}

#[test]
fn finds_except_across_peers() {
    assert_found_out(|cluster, deny| cluster.changed(|object| for_each_rule(object, share_excepts)).compile(deny));
}

#[test]
fn finds_named_port_by_one_number() {
    assert_found_out(|cluster, deny| {
        let mut numbers: BTreeMap<String, Value> = BTreeMap::new();
        let one_number = cluster.changed(|object| {
            for_each_container_port(object, |port| {
                let Some(name) = port["name"].as_str() else { return };
                let number = numbers.entry(name.to_string()).or_insert_with(|| port["containerPort"].clone());
                port["containerPort"] = number.clone();
            });
        });
        one_number.compile(deny)
    });
}

#[test]
fn finds_host_network_as_peer() {
    assert_found_out(|cluster, deny| {
        let as_peers = cluster.changed(|object| {
            if object["kind"] == "Pod" && object["spec"]["hostNetwork"] == true {
                object["spec"]["hostNetwork"] = json!(false);
                // A peer, and selected by nothing.
                object["spec"]["nodeName"] = json!("elsewhere");
            }
        });
        as_peers.compile(deny)
    });
}

#[test]
fn finds_an_isolated_pod_that_another_with_its_address_opens() {
    assert_found_out(|cluster, deny| {
        // As if only the first of several pods had the address.
        let mut known = BTreeSet::new();
        let of_one = cluster.changed(|object| {
            let (node, address) = (object["spec"]["nodeName"].to_string(), object["status"]["podIP"].to_string());
            if object["kind"] == "Pod" && !known.insert((node, address)) {
                object["status"]["podIP"] = Value::Null;
                object["status"]["podIPs"] = Value::Null;
            }
        });
        of_one.compile(deny)
    });
}

#[test]
fn finds_a_shared_address_that_one_isolation_opens() {
    assert_found_out(|cluster, deny| {
        // As if where several isolate, the rules of one were enough.
        let mut nodes = cluster.compile(deny);
        for node in nodes.values_mut() {
            for (name, map) in node.table.maps.clone() {
                let mut map = VerdictMap::clone(&map);
                Arc::make_mut(&mut map.elements).retain(|_, element| {
                    !matches!(&element.verdict, Verdict::Goto(chain) if chain.as_str().starts_with("deny-"))
                });
                node.table.maps.insert(name, Arc::new(map));
            }
        }
        nodes
    });
}

#[test]
fn finds_gate_that_is_missing() {
    assert_found_out(|cluster, deny| {
        let without_ranges = cluster.changed(|object| {
            if object["kind"] == "Node" {
                object["spec"] = Value::Null;
            }
        });
        without_ranges.compile(deny)
    });
}

#[test]
fn finds_gate_where_the_ranges_mean_nothing() {
    assert_found_out(|cluster, deny| {
        // Each node by itself, as if it knew of no pod elsewhere.
        let compile_alone = |name: &str| {
            let mut alone = cluster.clone();
            alone.objects.retain(|object| object["kind"] != "Pod" || object["spec"]["nodeName"] == name);
            alone.compile(deny).remove(name).map(|compiled| (name.to_string(), compiled))
        };
        cluster.node_names().filter_map(compile_alone).collect()
    });
}

#[test]
fn finds_sandboxes_passed_over() {
    assert_found_out(|cluster, deny| {
        let mut by_the_api = cluster.clone();
        by_the_api.objects.retain(|object| object["kind"] != "Sandbox");
        by_the_api.compile(deny)
    });
}

#[test]
fn finds_sandbox_of_a_former_pod() {
    assert_found_out(|cluster, deny| {
        let of_any = cluster.changed(|object| {
            if object["kind"] == "Sandbox" {
                object["uid"] = Value::Null;
            }
        });
        of_any.compile(deny)
    });
}

#[test]
fn finds_finished_pod_as_peer() {
    assert_found_out(|cluster, deny| {
        let as_peers = cluster.changed(|object| {
            if matches!(object["status"]["phase"].as_str(), Some("Succeeded" | "Failed")) {
                object["status"]["phase"] = json!("Running");
                object["spec"]["nodeName"] = json!("elsewhere");
            }
        });
        as_peers.compile(deny)
    });
}

#[test]
fn finds_missing_egress_default() {
    assert_found_out(|cluster, deny| {
        let ingress_only = cluster.changed(|object| {
            if object["kind"] == "NetworkPolicy" && object["spec"]["policyTypes"].as_array().is_none_or(Vec::is_empty) {
                object["spec"]["policyTypes"] = json!(["Ingress"]);
            }
        });
        ingress_only.compile(deny)
    });
}

#[test]
fn finds_neighbour_discovery_policed() {
    assert_found_out(|cluster, deny| {
        with_rules(cluster, deny, |_, chain| {
            chain
                .rules
                .retain(|rule| !rule.stmts.iter().any(|stmt| matches!(stmt, Stmt::Match(Match::Icmpv6Type(133, _)))));
        })
    });
}

/// Changes the rules of every chain.
fn with_rules(cluster: &Cluster, deny: Deny, change: impl Fn(&str, &mut Chain)) -> BTreeMap<String, Compiled> {
    let mut nodes = cluster.compile(deny);
    for node in nodes.values_mut() {
        for (name, chain) in node.table.chains.clone() {
            let mut chain = Chain::clone(&chain);
            change(name.as_str(), &mut chain);
            node.table.chains.insert(name, Arc::new(chain));
        }
    }
    nodes
}

#[test]
fn finds_neighbour_discovery_that_a_router_has_passed_on() {
    assert_found_out(|cluster, deny| {
        with_rules(cluster, deny, |_, chain| {
            for rule in &mut chain.rules {
                rule.stmts.retain(|stmt| !matches!(stmt, Stmt::Match(Match::HopLimit(_))));
            }
        })
    });
}

#[test]
fn finds_errors_that_pass_without_a_flow() {
    // Types 1 to 4 of ICMPv6 are errors (RFC 4443, section 2.1).
    assert_found_out(|cluster, deny| {
        with_rules(cluster, deny, |name, chain| {
            if name == "exempt" {
                let stmts = vec![Stmt::Match(Match::Icmpv6Type(1, 4)), Stmt::Verdict(Verdict::Accept)];
                chain.rules.push(Rule { stmts, comment: None });
            }
        })
    });
}

/// Changes the elements of the maps by peer whose names say that they hold this.
fn with_elements(
    cluster: &Cluster,
    deny: Deny,
    kind: &str,
    change: impl Fn(&mut BTreeMap<Key, MapElement>),
) -> BTreeMap<String, Compiled> {
    let mut nodes = cluster.compile(deny);
    for node in nodes.values_mut() {
        for (name, map) in node.by_peer.maps.clone() {
            if name.as_str().contains(kind) {
                let mut map = VerdictMap::clone(&map);
                change(Arc::make_mut(&mut map.elements));
                node.by_peer.maps.insert(name, Arc::new(map));
            }
        }
    }
    nodes
}

#[test]
fn finds_a_peer_without_element() {
    assert_found_out(|cluster, deny| with_elements(cluster, deny, "-peers-", |elements| drop(elements.pop_first())));
}

#[test]
fn finds_a_peer_led_elsewhere() {
    assert_found_out(|cluster, deny| {
        with_elements(cluster, deny, "-peers-", |elements| {
            let first = elements.values().next().map(|element| element.verdict.clone());
            let others = elements.values_mut().skip(1);
            others.zip(first.into_iter().cycle()).for_each(|(element, first)| element.verdict = first);
        })
    });
}

#[test]
fn finds_a_segment_that_ends_too_early() {
    assert_found_out(|cluster, deny| {
        with_elements(cluster, deny, "-blocks-", |elements| {
            let short = |(key, element): (Key, MapElement)| {
                if let Key::V4Range(first, last) = key
                    && first < last
                {
                    return (Key::V4Range(first, Ipv4Addr::from_bits(last.to_bits() - 1)), element);
                }
                (key, element)
            };
            *elements = std::mem::take(elements).into_iter().map(short).collect();
        })
    });
}

#[test]
fn finds_a_pod_that_is_asked_for_by_peer_only() {
    // As if no policy named everybody.
    assert_found_out(|cluster, deny| {
        let mut nodes = cluster.compile(deny);
        for node in nodes.values_mut() {
            for (name, chain) in node.by_peer.chains.clone() {
                if name.as_str().contains("gress-pods-") {
                    let mut chain = Chain::clone(&chain);
                    chain.rules.retain(|rule| !matches!(rule.stmts[..], [Stmt::Verdict(Verdict::Jump(_))]));
                    node.by_peer.chains.insert(name, Arc::new(chain));
                }
            }
        }
        nodes
    });
}

fn for_each_rule(object: &mut Value, mut change: impl FnMut(&mut Value)) {
    for rules in ["ingress", "egress"] {
        if let Some(rules) = object["spec"].get_mut(rules).and_then(Value::as_array_mut) {
            rules.iter_mut().for_each(&mut change);
        }
    }
}

/// Every `except` of a rule is taken away from all its blocks of which it is a part.
fn share_excepts(rule: &mut Value) {
    for peers in ["from", "to"] {
        let Some(peers) = rule.get_mut(peers).and_then(Value::as_array_mut) else { continue };
        let blocks = peers.iter().filter_map(|peer| peer["ipBlock"]["except"].as_array());
        let all: BTreeSet<String> = blocks.flatten().filter_map(Value::as_str).map(str::to_string).collect();
        for block in peers.iter_mut().filter_map(|peer| peer.get_mut("ipBlock")) {
            let cidr = block["cidr"].as_str().expect("a generated block has a cidr");
            block["except"] = all.iter().filter(|except| is_part(cidr, except)).map(|except| json!(except)).collect();
        }
    }
}

fn is_part(cidr: &str, except: &str) -> bool {
    let network = |text: &str| -> ipnet::IpNet { text.parse().expect("generated CIDRs are well-formed") };
    let (cidr, except) = (network(cidr), network(except));
    cidr.contains(&except) && cidr.trunc() != except.trunc()
}

fn for_each_container_port(object: &mut Value, mut change: impl FnMut(&mut Value)) {
    for containers in ["containers", "initContainers"] {
        let Some(containers) = object["spec"].get_mut(containers).and_then(Value::as_array_mut) else { continue };
        for ports in containers.iter_mut().filter_map(|c| c.get_mut("ports")).filter_map(Value::as_array_mut) {
            ports.iter_mut().for_each(&mut change);
        }
    }
}
