//! From the state to the IR.

use std::sync::Arc;

use crate::api::{Direction, NamespaceScope, PodSelector};
use crate::cluster::Event;
use crate::policy::{AddressRange, Ir, Isolation, LocalPod, PeerSet, PortSet, Resolver};
use crate::testing::{
    NODE, PodBuilder, RuleBuilder, block, denying_namespace, ir, pod, pods_of, pods_where, policy, policy_key, rule,
    state,
};

fn web() -> PodBuilder {
    pod("a/web").labels("app=web").ip("10.0.0.1")
}

/// `a/p a/q (Namespace a)`: whose rules open the pod, and the annotation; `-` where it is not isolated.
fn show(isolation: Option<&Isolation>) -> String {
    let Some(Isolation { policies, by_namespace }) = isolation else { return "-".to_owned() };
    let policies = policies.iter().map(ToString::to_string);
    policies.chain(by_namespace.iter().map(|name| format!("(Namespace {name})"))).collect::<Vec<_>>().join(" ")
}

#[test]
fn who_is_isolated_and_by_whom() {
    let old = || policy("a/old").ingress([rule()]).egress([rule()]).first_generation();
    let v1 = || policy("a/v1").ingress([]);
    // What is there, and how the pod is isolated: for ingress, for egress.
    let cases: Vec<(&str, Vec<Event>, &str, &str)> = vec![
        ("no policy", vec![], "-", "-"),
        ("one direction", vec![v1().into()], "a/v1", "-"),
        ("the other", vec![policy("a/v1").egress([]).into()], "-", "a/v1"),
        ("both", vec![policy("a/v1").ingress([]).egress([]).into()], "a/v1", "a/v1"),
        ("neither", vec![policy("a/v1").into()], "-", "-"),
        ("several", vec![v1().into(), policy("a/b").ingress([]).into()], "a/b a/v1", "-"),
        ("the first generation isolates nobody", vec![old().into()], "-", "-"),
        ("it opens what another has isolated", vec![old().into(), v1().into()], "a/old a/v1", "-"),
        ("the annotation isolates for ingress", vec![denying_namespace("a").into()], "(Namespace a)", "-"),
        (
            "and the first generation opens that",
            vec![denying_namespace("a").into(), old().into()],
            "a/old (Namespace a)",
            "-",
        ),
        ("an annotation elsewhere", vec![denying_namespace("b").into()], "-", "-"),
    ];
    for (name, events, ingress, egress) in cases {
        let ir = ir(events.into_iter().chain([web().into()]));
        let [pod] = ir.pods.as_slice() else { panic!("{name}: one pod is local") };
        assert_eq!(show(pod.isolation(Direction::Ingress)), ingress, "{name}: ingress");
        assert_eq!(show(pod.isolation(Direction::Egress)), egress, "{name}: egress");
    }
}

#[test]
fn local_pods_with_the_addresses_that_are_their_own() {
    let ir = ir([
        web().ip("fd00::1").ip("10.0.0.9").created(1).into(),
        pod("a/newer").ip("10.0.0.9").created(2).into(),
        pod("b/there").ip("10.0.0.1").created(3).elsewhere().into(),
        pod("b/host").ip("10.0.0.7").host_network().into(),
    ]);
    let addresses = |pod: &LocalPod| pod.addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    let pods: Vec<String> = ir.pods.iter().map(|pod| format!("{} {}", pod.key, addresses(pod))).collect();
    assert_eq!(pods, ["a/newer 10.0.0.9", "a/web 10.0.0.1 fd00::1"]);
    assert_eq!(&*ir.node.0, NODE);
}

/// How an address is isolated, as [`show`] has it, that `a/web`, which `a/p` isolates, and this other pod claim.
fn shared(other: PodBuilder) -> [String; 2] {
    let ir = ir([
        policy("a/p").selects("app=web").ingress([]).into(),
        policy("b/q").ingress([]).egress([]).into(),
        web().created(1).into(),
        other.ip("10.0.0.1").ip("10.0.0.8").created(2).into(),
    ]);
    let address = crate::testing::ip("10.0.0.1");
    let pod = ir.pods.iter().find(|pod| pod.addresses.contains(&address)).expect("somebody has it");
    [Direction::Ingress, Direction::Egress].map(|direction| {
        let ways = pod.isolations_at(address, direction).iter();
        ways.map(|way| show(Some(way))).collect::<Vec<_>>().join(", ")
    })
}

#[test]
fn none_of_several_pods_with_one_address_opens_another() {
    assert_eq!(shared(pod("c/free")), ["a/p", ""]);
    assert_eq!(shared(pod("c/free").terminating()), ["a/p", ""]);
    assert_eq!(shared(pod("a/same").labels("app=web")), ["a/p", ""]);
    assert_eq!(shared(pod("b/other")), ["b/q, a/p", "b/q"]);
    assert_eq!(shared(pod("b/other").elsewhere()), ["a/p", ""]);
}

#[test]
fn a_name_means_a_port_that_all_pods_with_the_address_call_so() {
    let endpoints = |other: PodBuilder| {
        let http = || policy("a/p").selects("app=web").ingress([rule().ports(&["http/TCP"])]);
        let web = web().port("http", "80/TCP").port("http", "81/TCP");
        let ir = ir([http().into(), web.into(), other.ip("10.0.0.1").created(9).into()]);
        let endpoints = ir.endpoints.values().flat_map(|endpoints| endpoints.iter());
        endpoints.map(|(address, _, number)| format!("{address}:{number}")).collect::<Vec<_>>()
    };
    assert_eq!(endpoints(pod("b/evil").port("http", "22/TCP")), [""; 0]);
    assert_eq!(endpoints(pod("b/evil")), [""; 0]);
    assert_eq!(endpoints(pod("b/evil").port("http", "81/TCP").port("http", "22/TCP")), ["10.0.0.1:81"]);
}

/// What a rule of an ingress policy for the pod resolves to.
#[track_caller]
fn resolved(rule: RuleBuilder) -> (PeerSet, PortSet) {
    let ir = ir([web().into(), policy("a/p").ingress([rule]).into()]);
    let rules = ir.policies[&policy_key("a/p")].rules(Direction::Ingress).expect("the policy is about ingress");
    assert_eq!((rules.len(), rules[0].index), (1, 0));
    (rules[0].peers.clone(), rules[0].ports.clone())
}

#[test]
fn peers_are_sorted_and_blocks_merged() {
    assert_eq!(resolved(rule()).0, PeerSet::Any);
    let cases = [
        ("nobody", rule().peers([]), "", "", ""),
        (
            "selectors, each once",
            rule().peers([pods_of("b", "app=x"), pods_where("", ""), pods_of("a", ""), pods_of("b", "app=x")]),
            "a b {}",
            "",
            "",
        ),
        (
            "an exception is its own block's",
            rule().peers([
                block("10.0.0.0/24", &["10.0.0.0/25"]),
                block("10.0.0.0/31", &[]),
                block("10.0.1.0/24", &[]),
                block("10.0.1.0/24", &[]),
            ]),
            "",
            "10.0.0.0-10.0.0.1 10.0.0.128-10.0.1.255",
            "10.0.0.0/24 except 10.0.0.0/25; 10.0.0.0/31; 10.0.1.0/24",
        ),
    ];
    for (name, rule, pods, blocks, text) in cases {
        let PeerSet::These { pods: of_rule, blocks: ranges, blocks_text } = resolved(rule).0 else {
            panic!("{name}: not everybody");
        };
        let scope = |selector: &PodSelector| match &selector.namespaces {
            NamespaceScope::Named(name) => name.to_string(),
            NamespaceScope::Selected(labels) => format!("{{{labels}}}"),
        };
        let of_rule: Vec<String> = of_rule.iter().flat_map(|peers| peers.selectors()).map(scope).collect();
        assert_eq!(of_rule.join(" "), pods, "{name}");
        let range = |range: &AddressRange| match range {
            AddressRange::V4(first, last) => format!("{first}-{last}"),
            AddressRange::V6(first, last) => format!("{first}-{last}"),
        };
        assert_eq!(ranges.iter().map(range).collect::<Vec<_>>().join(" "), blocks, "{name}");
        assert_eq!(blocks_text, text, "{name}");
    }
}

#[test]
fn ports_are_sorted_by_protocol_and_joined() {
    assert_eq!(resolved(rule()).1, PortSet::Any);
    let cases: Vec<(&str, &[&str], &str, &str)> = vec![
        ("none", &[], "", ""),
        ("a protocol", &["*/UDP"], "UDP 0-65535", ""),
        ("numbers", &["81/TCP", "53/UDP", "80/TCP", "443/TCP"], "TCP 80-81 TCP 443 UDP 53", ""),
        ("a protocol with numbers", &["80/TCP", "*/TCP"], "TCP 0-65535", ""),
        ("names", &["http/TCP", "80/TCP", "dns/UDP", "dns/TCP", "http/TCP"], "TCP 80", "dns/TCP http/TCP dns/UDP"),
    ];
    for (name, ports, numbers, names) in cases {
        let PortSet::These { numbers: by_protocol, names: of_rule } = resolved(rule().ports(ports)).1 else {
            panic!("{name}: not all ports");
        };
        let ranges = by_protocol.iter().flat_map(|(protocol, ranges)| ranges.iter().map(move |r| (protocol, r)));
        let text: Vec<String> = ranges.map(|(protocol, range)| format!("{protocol} {range}")).collect();
        assert_eq!(text.join(" "), numbers, "{name}");
        let text: Vec<String> = of_rule.iter().map(|(protocol, name)| format!("{name}/{protocol}")).collect();
        assert_eq!(text.join(" "), names, "{name}");
    }
}

#[test]
fn only_policies_that_select_a_local_pod() {
    let ir = ir([
        web().into(),
        pod("b/there").ip("10.0.0.2").elsewhere().into(),
        policy("a/p").selects("app=web").ingress([]).into(),
        policy("a/q").selects("app=x").ingress([]).into(),
        policy("b/p").egress([rule().peers([pods_of("b", "")])]).into(),
    ]);
    assert_eq!(ir.policies.keys().map(ToString::to_string).collect::<Vec<_>>(), ["a/p"]);
    assert!(ir.members.is_empty() && ir.endpoints.is_empty());
    let rules = &ir.policies[&policy_key("a/p")];
    assert!(rules.isolates && rules.ingress.as_deref() == Some(&[]) && rules.egress.is_none());
}

#[test]
fn what_has_not_changed_is_the_same_by_reference() {
    let mut state = state([
        web().into(),
        pod("b/there").labels("app=db").ip("10.0.0.2").elsewhere().into(),
        policy("a/p").ingress([rule().peers([pods_of("b", "app=db")])]).into(),
        policy("a/q").ingress([]).into(),
    ]);
    let mut resolver = Resolver::default();
    let start = resolver.resolve(&state);
    let mut step = |before: &Ir, event: Event, same_pods: bool, same_policies: bool, same_members: bool| {
        let name = format!("{event:?}");
        state.apply(event);
        let now = resolver.resolve(&state);
        assert_eq!(Arc::ptr_eq(&before.pods, &now.pods), same_pods, "{name}: pods");
        assert_eq!(before.policies.ptr_eq(&now.policies), same_policies, "{name}: policies");
        assert_eq!(before.members.ptr_eq(&now.members), same_members, "{name}: members");
        let fresh = Resolver::default().resolve(&state);
        assert_eq!((&now.pods, &now.policies, &now.members), (&fresh.pods, &fresh.policies, &fresh.members), "{name}");
        now
    };
    let before = step(&start, pod("b/other").ip("10.0.0.3").elsewhere().into(), true, true, true);
    let before = step(&before, pod("b/other").labels("app=db").ip("10.0.0.3").elsewhere().into(), true, true, false);
    let before = step(&before, pod("a/more").ip("10.0.0.4").into(), false, true, true);
    let before = step(&before, policy("a/q").ingress([rule()]).into(), true, false, true);
    assert!(
        Arc::ptr_eq(&start.policies[&policy_key("a/p")], &before.policies[&policy_key("a/p")]),
        "the other policy is as it was"
    );
    step(&before, policy("a/q").ingress([rule()]).first_generation().into(), false, false, true);
}
