use serde_json::json;

use super::*;
use crate::api::Protocol;
use crate::cluster::{Event, State};
use crate::policy::{PacketProtocol, Resolver};
use crate::testing::{
    PodBuilder, RuleBuilder, block, denying_namespace, ip, namespace, pod, pods_of, pods_where, policy, rule, state,
};
use crate::yaml::value_to_yaml;

const WEB: &str = "10.0.0.1";
const OUTSIDE: &str = "192.0.2.7";

fn db() -> PodBuilder {
    pod("shop/db").labels("app=db,pod-template-hash=5f").ip("10.0.0.9").port("sql", "5432/TCP")
}

/// A client in namespace `front`, and whom it wants to reach.
fn ends() -> Vec<Event> {
    let web = pod("front/web").labels("app=web").ip(WEB).elsewhere();
    vec![
        namespace("shop", "kubernetes.io/metadata.name=shop").into(),
        namespace("front", "kubernetes.io/metadata.name=front,team=x").into(),
        web.into(),
        db().into(),
    ]
}

fn known(state: &State) -> Known<'_> {
    Known { pods: state.pods(), namespaces: state.namespaces(), strangers: &[] }
}

fn tcp(source: &str, port: u16) -> Packet {
    Packet { source: ip(source), destination: ip("10.0.0.9"), protocol: PacketProtocol::Port(Protocol::Tcp, port) }
}

fn ask(state: &State, packet: &Packet, effort: &mut Effort) -> Option<Nearest> {
    nearest(&Resolver::default().resolve(state), &known(state), Direction::Ingress, packet, effort)
}

/// What is said of a packet to the database, which these rules are about.
#[track_caller]
fn nearest_of(packet: &Packet, rules: impl IntoIterator<Item = RuleBuilder>) -> Nearest {
    let policy = policy("shop/db").selects("app=db").ingress(rules);
    let state = state(ends().into_iter().chain([policy.into()]));
    ask(&state, packet, &mut Effort::default()).expect("it is refused by policies")
}

fn words(nearest: &Nearest) -> String {
    let rule = nearest.rule.as_ref().map_or("none".to_owned(), |(policy, index)| format!("{policy}[{index}]"));
    let misses = nearest.misses.iter().map(|miss| format!("; {}: {}", miss.part.as_str(), miss.why));
    rule + &misses.collect::<String>()
}

fn yaml(nearest: &Nearest) -> String {
    value_to_yaml(nearest.change.as_ref().expect("there is a change").manifest())
}

#[test]
fn each_part_by_which_a_rule_may_fail() {
    let web = || pods_where("team=x", "app=web");
    for (source, rule, words_due, path, value) in [
        (
            WEB,
            rule().peers([web()]).ports(&["80/TCP", "1-9/UDP", "sql/UDP", "*/SCTP", "81/TCP"]),
            "ports: it has 80/TCP, 1-9/UDP, sql/UDP, all of SCTP and 1 more",
            "ports",
            json!({"protocol": "TCP", "port": 5432}),
        ),
        (
            WEB,
            rule().peers([pods_where("team=x", "app=api,!old")]),
            "podSelector: app=api is wanted, and it has app=web",
            "from",
            json!({
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "front"}},
                "podSelector": {"matchLabels": {"app": "web"}},
            }),
        ),
        (
            WEB,
            rule().peers([pods_of("shop", "app=web")]),
            "namespaceSelector: there is none, so that pods of namespace shop are meant, and this one is in front",
            "from",
            json!({
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "front"}},
                "podSelector": {"matchLabels": {"app": "web"}},
            }),
        ),
        (
            OUTSIDE,
            rule().peers([block("198.51.100.0/24", &[]), block("192.0.2.0/24", &["192.0.2.0/29"])]),
            "ipBlock: 192.0.2.7 is in except 192.0.2.0/29 of 192.0.2.0/24",
            "from",
            json!({"ipBlock": {"cidr": "192.0.2.7/32"}}),
        ),
        (
            OUTSIDE,
            rule().peers([web()]),
            "podSelector: it means pods, and 192.0.2.7 is none that is known",
            "from",
            json!({"ipBlock": {"cidr": "192.0.2.7/32"}}),
        ),
    ] {
        let near = nearest_of(&tcp(source, 5432), [rule]);
        assert_eq!(words(&near), format!("shop/db[0]; {words_due}"));
        let Some(Change::Patch { policy, operations }) = &near.change else { panic!("no patch: {near:?}") };
        let path = format!("/spec/ingress/0/{path}/-");
        assert_eq!(
            (policy.to_string(), operations),
            ("shop/db".into(), &json!([{"op": "add", "path": path, "value": value}]))
        );
    }
}

#[test]
fn fewest_parts_then_the_policy_then_the_index() {
    let far = || rule().peers([pods_where("team=y", "app=api")]).ports(&["80/TCP"]);
    let by_two = || rule().peers([pods_where("team=y", "app=api")]);
    let by_one = || rule().peers([pods_where("team=x", "app=web")]).ports(&["80/TCP"]);
    assert_eq!(nearest_of(&tcp(WEB, 5432), [far(), by_two(), by_one(), by_one()]).rule.unwrap().1, 2);
    assert_eq!(nearest_of(&tcp(WEB, 5432), [far(), by_two(), by_two()]).rule.unwrap().1, 1);
    let of = |name, rule| policy(name).selects("app=db").ingress([rule]).into();
    let state =
        state(ends().into_iter().chain([of("shop/a", by_two()), of("shop/c", by_one()), of("shop/b", by_one())]));
    let near = ask(&state, &tcp(WEB, 5432), &mut Effort::default()).unwrap();
    assert_eq!(near.rule.unwrap().0.to_string(), "shop/b");
    // A block and a pod differ in more than a label does.
    let near = nearest_of(
        &tcp(WEB, 5432),
        [rule().peers([block("192.0.2.0/24", &[])]), rule().peers([pods_where("", "app=api")])],
    );
    assert_eq!(words(&near), "shop/db[1]; podSelector: app=api is wanted, and it has app=web");
}

#[test]
fn without_a_rule_that_is_near_a_policy_is_made() {
    let near = nearest_of(&tcp(WEB, 5432), []);
    assert_eq!(words(&near), "none");
    let expected = "\
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: allow-to-db, namespace: shop}
spec:
  ingress:
    - from:
        - namespaceSelector:
            matchLabels: {kubernetes.io/metadata.name: front}
          podSelector:
            matchLabels: {app: web}
      ports:
        - {port: 5432, protocol: TCP}
  podSelector:
    matchLabels: {app: db}
  policyTypes: [Ingress]
";
    assert_eq!(yaml(&near), expected);
    // So it is where peers and ports both fail: to add both would open each to what the other has already.
    let near = nearest_of(&tcp(WEB, 5432), [rule().peers([pods_of("shop", "")]).ports(&["80/TCP"])]);
    assert_eq!(yaml(&near), expected);
}

#[test]
fn icmp_needs_a_rule_without_ports() {
    let packet = Packet { protocol: PacketProtocol::Echo, ..tcp(WEB, 0) };
    let near = nearest_of(&packet, [rule().ports(&["80/TCP"])]);
    assert_eq!(words(&near), "shop/db[0]; ports: it has 80/TCP, and only a rule without ports allows ICMP");
    let Some(Change::Create(object)) = &near.change else { panic!("{near:?}") };
    assert_eq!(object["spec"]["ingress"][0].as_object().unwrap().keys().collect::<Vec<_>>(), ["from"]);
}

#[test]
fn a_policy_that_is_made_isolates_nobody_else() {
    // What the isolating policy requires of labels that the pod has not, or that pass, is required again.
    let shut = policy("shop/shut").selects("!trusted,pod-template-hash").ingress([]);
    let state = state(ends().into_iter().chain([shut.into()]));
    let near = ask(&state, &tcp(WEB, 5432), &mut Effort::default()).unwrap();
    let Some(Change::Create(object)) = &near.change else { panic!("{near:?}") };
    assert_eq!(
        object["spec"]["podSelector"],
        json!({
            "matchLabels": {"app": "db"},
            "matchExpressions": [
                {"key": "pod-template-hash", "operator": "Exists"},
                {"key": "trusted", "operator": "DoesNotExist"},
            ],
        })
    );
}

#[test]
fn what_no_policy_refuses_has_no_nearest_rule() {
    let open = state(ends());
    assert_eq!(ask(&open, &tcp(WEB, 5432), &mut Effort::default()), None, "not isolated");
    let allowing = policy("shop/db").ingress([rule()]);
    let allowed = state(ends().into_iter().chain([allowing.into()]));
    assert_eq!(ask(&allowed, &tcp(WEB, 5432), &mut Effort::default()), None, "allowed");
    let nobody = Packet { destination: ip("10.0.0.77"), ..tcp(WEB, 80) };
    assert_eq!(ask(&allowed, &nobody, &mut Effort::default()), None, "no pod of this node");
}

#[test]
fn the_annotation_of_a_namespace_isolates_without_a_policy() {
    let mut events = ends();
    events.push(denying_namespace("shop").into());
    let near = ask(&state(events), &tcp(WEB, 5432), &mut Effort::default()).unwrap();
    assert_eq!(words(&near), "none");
    assert!(matches!(near.change, Some(Change::Create(_))), "{near:?}");
}

#[test]
fn a_pod_that_the_node_does_not_know_can_be_told() {
    let policy = policy("shop/db").ingress([rule().peers([pods_where("", "app=api")])]);
    let mut events = ends();
    events.remove(2);
    events.push(policy.into());
    let state = state(events);
    let ir = Resolver::default().resolve(&state);
    let strangers = [Arc::new(pod("front/web").labels("app=web").ip(WEB).elsewhere().build())];
    let told = Known { strangers: &strangers, ..known(&state) };
    let say = |known| words(&nearest(&ir, &known, Direction::Ingress, &tcp(WEB, 80), &mut Effort::default()).unwrap());
    assert_eq!(say(known(&state)), "shop/db[0]; podSelector: it means pods, and 10.0.0.1 is none that is known");
    assert_eq!(say(told), "shop/db[0]; podSelector: app=api is wanted, and it has app=web");
}

/// Two thousand policies on a pod, of which the last one in order is the nearest.
#[test]
fn many_policies_cost_what_they_have_and_a_bomb_no_more_than_allowed() {
    let peers = |count: usize| (0..count).map(|i| pods_where("team=y", &format!("app=other-{i}")));
    let many =
        (0..2_000).map(|i| policy(&format!("shop/p{i:04}")).ingress([rule().peers(peers(5)).ports(&["80/TCP"])]));
    let last = policy("shop/q").ingress([rule().peers([pods_where("", "")]).ports(&["80/TCP"])]);
    let events: Vec<Event> = ends().into_iter().chain(many.map(Event::from)).chain([last.into()]).collect();
    let crowded = state(events);
    let mut effort = Effort::default();
    let near = ask(&crowded, &tcp(WEB, 5432), &mut effort).unwrap();
    assert_eq!((near.rule.unwrap().0.to_string(), near.partial), ("shop/q".to_owned(), false));
    assert_eq!(effort.used(), 2_000 * 7 + 3, "each entry is looked at once");

    let bomb = (0..30).map(|i| policy(&format!("shop/p{i:04}")).ingress([rule().peers(peers(5_000))]));
    let bombed = state(ends().into_iter().chain(bomb.map(Event::from)));
    let mut effort = Effort::default();
    let near = ask(&bombed, &tcp(WEB, 5432), &mut effort).unwrap();
    assert!(near.partial && near.rule.is_some() && near.change.is_some());
    assert!(effort.used() <= Effort::OF_A_QUESTION && effort.is_spent());
}
