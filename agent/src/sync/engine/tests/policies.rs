//! Policies that speak of pods which are not known yet.

use super::*;

const CLIENT: &str = "
apiVersion: v1
kind: Pod
metadata: {name: client, namespace: clients}
spec: {nodeName: node-2}
status: {phase: Running, podIPs: [{ip: 10.0.1.1}]}
";

/// In force, with a policy that lets everybody in.
fn open() -> Bench {
    let mut bench = in_force_of_api();
    bench.apply(&PodSource::Node, &policy("web", "[{}]"));
    bench.step();
    assert_eq!(bench.world().commits.len(), 2);
    bench
}

/// Whether everybody is let in.
fn is_open(bench: &Bench) -> bool {
    bench.world().table.as_ref().unwrap().to_string().contains("counter accept comment \"ingress[0]\"")
        && !knows(bench, "@pods-")
}

/// Whether the kernel's table has something.
fn knows(bench: &Bench, text: &str) -> bool {
    bench.world().table.as_ref().unwrap().to_string().contains(text)
}

#[test]
fn a_new_policy_isolates_at_once() {
    let mut bench = in_force_of_api();
    bench.apply(&PodSource::Node, &from_clients("clients"));
    bench.step();
    assert_eq!(bench.world().commits.len(), 3, "its chain, and what leads there; its peers come later");
    assert_eq!(bench.subscribed(), [PodSource::Node, clients()]);
    bench.list_pods(&clients());
    bench.apply(&clients(), CLIENT);
    bench.step();
    assert!(knows(&bench, "10.0.1.1"));
}

#[test]
fn a_new_version_waits_for_its_peers_and_holds_nobody_else() {
    let mut bench = open();
    bench.apply(&PodSource::Node, &from_clients("web"));
    bench.step();
    assert_eq!(bench.subscribed(), [PodSource::Node, clients()], "it is asked for what it waits for");
    assert!(is_open(&bench), "the old version stays");
    bench.apply(&PodSource::Node, SECOND_POD);
    bench.step();
    assert!(knows(&bench, "10.0.0.2"), "what others do is committed at once");
    assert!(is_open(&bench));
    bench.list_pods(&clients());
    bench.apply(&clients(), CLIENT);
    bench.step();
    assert!(!is_open(&bench) && knows(&bench, "10.0.1.1"), "both come together");
    assert_eq!(bench.world().commits.len(), 4);
}

#[test]
fn a_version_that_isolates_more_waits_for_nothing() {
    let mut bench = open();
    bench.apply(&PodSource::Node, &SECOND_POD.replace("app: web", "app: other"));
    bench.step();
    assert!(!knows(&bench, "10.0.0.2"));
    let of_all = from_clients("web").replace("{matchLabels: {app: web}}", "{}");
    bench.apply(&PodSource::Node, &of_all);
    bench.step();
    assert!(knows(&bench, "10.0.0.2"), "another pod is selected");

    let mut bench = open();
    bench.apply(&PodSource::Node, &from_clients("web").replace("ingress:", "policyTypes: [Ingress, Egress], ingress:"));
    bench.step();
    assert!(!is_open(&bench), "another direction is isolated");
}

#[test]
fn a_new_version_does_not_wait_for_ever() {
    let mut bench = open();
    bench.apply(&PodSource::Node, &from_clients("web"));
    assert_eq!(bench.turn(), SECOND);
    // Versions that follow on each other.
    for port in 1..=9 {
        bench.wait(SECOND / 10);
        let version = from_clients("web").replace("{from:", &format!("{{ports: [{{port: {port}}}], from:"));
        bench.apply(&PodSource::Node, &version);
        bench.step();
        assert!(is_open(&bench));
    }
    bench.wait(SECOND / 10);
    assert!(!is_open(&bench) && knows(&bench, "tcp dport 9"), "the last one takes effect without its peers");
}

#[test]
fn a_version_that_need_not_wait_takes_effect_at_once() {
    let mut bench = open();
    bench.apply(&PodSource::Node, &from_clients("web"));
    bench.step();
    bench.apply(&PodSource::Node, &policy("web", "[]"));
    bench.step();
    assert!(!knows(&bench, "ingress[0]"));
    bench.wait(2 * SECOND);
    assert!(!knows(&bench, "ingress[0]"), "the version that waited is forgotten");
}

#[test]
fn a_policy_that_is_deleted_does_not_come_back() {
    let mut bench = open();
    bench.apply(&PodSource::Node, &from_clients("web"));
    bench.step();
    bench.delete_policy("web");
    bench.step();
    assert!(!knows(&bench, "10.0.0.1"), "nobody is isolated");
    bench.wait(2 * SECOND);
    assert!(!knows(&bench, "10.0.0.1"));
}

#[test]
fn a_list_holds_back_what_single_events_would() {
    let mut bench = open();
    let items = objects(&(from_clients("web") + "---" + &policy("new", "[]")));
    let listed = items.into_iter().filter_map(|object| match object {
        Object::NetworkPolicy(policy) => Some(policy),
        Object::Pod(_) | Object::Namespace(_) | Object::Service(_) | Object::EndpointSlice(_) | Object::Node(_) => None,
    });
    let listed: Vec<_> = listed.collect();
    bench.report(Event::Policies(Change::Reset(listed)));
    bench.step();
    assert!(is_open(&bench) && knows(&bench, "shop/new"), "the new one is there, and the old version stays");
    bench.report(Event::Policies(Change::Reset(Vec::new())));
    bench.wait(2 * SECOND);
    assert!(!knows(&bench, "10.0.0.1"), "what is not listed is gone, also what waited");
}

#[test]
fn a_subscription_that_is_not_needed_lingers() {
    let mut bench = Bench::new(Origin::Api);
    bench.reset(&PodSource::Node, &format!("{CLUSTER}---{CLIENTS}---{}", from_clients("clients")));
    bench.step();
    bench.list_pods(&clients());
    bench.apply(&clients(), CLIENT);
    bench.step();
    let known = |bench: &Bench, pods: usize| bench.snapshot().objects.contains(&("Pod", pods));
    let id = bench.subscriptions.borrow()[&clients()];
    assert!(known(&bench, 2));

    bench.delete_policy("clients");
    bench.step();
    bench.wait(60 * SECOND);
    bench.apply(&clients(), &CLIENT.replace("name: client,", "name: late,").replace("10.0.1.1", "10.0.1.2"));
    bench.step();
    assert!(known(&bench, 3), "its events count");
    bench.apply(&PodSource::Node, &from_clients("clients"));
    bench.step();
    assert!(knows(&bench, "10.0.1.2"), "whoever needs it again has its pods at once");
    assert_eq!(bench.subscriptions.borrow()[&clients()], id);

    bench.delete_policy("clients");
    bench.step();
    bench.live(301 * SECOND);
    assert_eq!(bench.subscribed(), [PodSource::Node]);
    assert!(known(&bench, 1), "its pods are forgotten");
}

#[test]
fn a_subscription_that_comes_again_begins_with_a_list() {
    let mut bench = Bench::new(Origin::Api);
    bench.reset(&PodSource::Node, &format!("{CLUSTER}---{CLIENTS}---{}", from_clients("clients")));
    bench.step();
    bench.list_pods(&clients());
    bench.apply(&clients(), CLIENT);
    bench.step();
    let first = bench.subscriptions.borrow()[&clients()];
    bench.delete_policy("clients");
    bench.step();
    // It ends and is needed again between two looks of whoever runs subscriptions.
    bench.wait(301 * SECOND);
    bench.apply(&PodSource::Node, &from_clients("clients"));
    bench.step();
    assert_ne!(bench.subscriptions.borrow()[&clients()], first);
    let late = Event::Pods(clients(), Change::Reset(Vec::new()));
    bench.engine.admit(late, Some(first), Arrival { received: bench.now(), changed: None });
    assert!(!bench.engine.sources.are_in_sync(), "what the old one had sent does not count");
    bench.list_pods(&clients());
    assert!(bench.engine.sources.are_in_sync());
}
