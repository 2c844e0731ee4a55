//! What policies need to know of other nodes' pods, and which watches bring it.

use std::ops::Range;

use super::*;
use crate::api::{Operator, Requirement, Str};
use crate::cluster::Event;
use crate::sim::Dice;
use crate::testing::{PolicyBuilder, block, namespace, pod, pods_of, pods_where, policy, rule, selector, state};

const ALL: &[&str] = &["Pods of the other nodes"];

fn show(queries: &BTreeSet<PodQuery>) -> Vec<String> {
    queries.iter().map(ToString::to_string).collect()
}

/// Namespaces `a` and `b` of team x, `c` of team y, and seventeen others of one label; and a local pod `a/web`.
fn common() -> Vec<Event> {
    let seventeen = (0..17).map(|i| namespace(&format!("n{i:02}"), "many=1"));
    let few = [namespace("a", "team=x"), namespace("b", "team=x"), namespace("c", "team=y")];
    let web = pod("a/web").labels("app=web").ip("10.0.0.1");
    few.into_iter().chain(seventeen).map(Event::from).chain([web.into()]).collect()
}

/// The watches of a policy; that it needs the same before the state holds it is asserted.
#[track_caller]
fn watches(name: &str, policy: PolicyBuilder) -> Vec<String> {
    let alone = Interest::of_policy(&policy.clone().build(), state(common()).namespaces());
    let interest = Interest::of(&state(common().into_iter().chain([policy.into()])));
    assert_eq!(alone, interest, "{name}");
    show(&interest.plan())
}

#[test]
fn watches_ask_for_what_policies_mean() {
    let from = |peers: Vec<Peer>| policy("a/p").ingress([rule().peers(peers)]);
    let http = || rule().ports(&["http/TCP"]);
    let cases: Vec<(&str, PolicyBuilder, &[&str])> = vec![
        ("no peers", policy("a/p").ingress([rule()]).egress([rule()]), &[]),
        ("nobody", policy("a/p").ingress([]).egress([]), &[]),
        ("a block", from(vec![block("10.0.0.0/8", &[])]), &[]),
        ("own named ports", policy("a/p").ingress([http()]), &[]),
        ("a namespace", from(vec![pods_of("b", "")]), &["Pods of namespace b"]),
        ("one that is not there", from(vec![pods_of("x", "")]), &["Pods of namespace x"]),
        ("some pods of one", from(vec![pods_of("b", "app=db")]), &["Pods of namespace b with app=db"]),
        (
            "values of one label",
            from(vec![pods_of("b", "app=db"), pods_of("b", "app=web"), pods_of("b", "app=db,tier=1")]),
            &["Pods of namespace b with app in (db,web)"],
        ),
        (
            "values of one label beside the same others",
            from(vec![pods_of("b", "app=db,tier=1"), pods_of("b", "app=web,tier=1"), pods_of("b", "app=web,tier=2")]),
            &["Pods of namespace b with app in (db,web),tier=1", "Pods of namespace b with app=web,tier=2"],
        ),
        (
            "other labels",
            from(vec![pods_of("b", "app=db"), pods_of("b", "tier"), pods_of("b", "!old")]),
            &["Pods of namespace b with app=db", "Pods of namespace b with !old", "Pods of namespace b with tier"],
        ),
        (
            "namespaces by label",
            from(vec![pods_where("team=x", "app=db")]),
            &["Pods of namespace a with app=db", "Pods of namespace b with app=db"],
        ),
        ("and whole", from(vec![pods_where("team=x", "")]), &["Pods of namespace a", "Pods of namespace b"]),
        ("too many of them", from(vec![pods_where("many=1", "app=db")]), &["Pods with app=db"]),
        ("too many, whole", from(vec![pods_where("many=1", "")]), ALL),
        ("all namespaces", from(vec![pods_where("", "k8s-app=kube-dns")]), &["Pods with k8s-app=kube-dns"]),
        ("everybody", from(vec![pods_where("", ""), pods_of("b", "app=db")]), ALL),
        (
            "what others bring",
            from(vec![pods_where("", "app=db"), pods_of("b", "app=db,tier=1"), pods_of("c", ""), pods_of("c", "x")]),
            &["Pods with app=db", "Pods of namespace c"],
        ),
        (
            "both directions",
            from(vec![pods_of("b", "x=1")]).egress([rule().peers([pods_of("b", "x=2")])]),
            &["Pods of namespace b with x in (1,2)"],
        ),
        ("named ports of anybody", policy("a/p").egress([http()]), ALL),
        ("of a block", policy("a/p").egress([http().peers([block("10.0.0.0/8", &[])])]), ALL),
        (
            "of peers",
            policy("a/p").egress([http().peers([pods_of("b", "app=db")])]),
            &["Pods of namespace b with app=db"],
        ),
    ];
    for (name, policy, expected) in cases {
        assert_eq!(watches(name, policy), expected, "{name}");
    }
    let of_nobody_here = policy("b/p").ingress([rule().peers([pods_of("b", "")])]);
    assert!(Interest::of(&state(common().into_iter().chain([of_nobody_here.into()]))).is_empty());
}

#[test]
fn watches_stay_few() {
    let from = |peers: Vec<Peer>| policy("a/p").ingress([rule().peers(peers)]);
    let each = |range: Range<usize>, peer: &dyn Fn(usize) -> Peer| from(range.map(peer).collect());
    // One label more than there may be watches, in a few namespaces.
    let keys = each(0..33, &|i| pods_of(if i % 2 == 0 { "b" } else { "c" }, &format!("k{i}=1")));
    assert_eq!(watches("many labels", keys), ["Pods of namespace b", "Pods of namespace c"]);
    let values = each(0..500, &|i| pods_of("b", &format!("app=v{i}")));
    assert!(watches("many values", values)[0].starts_with("Pods of namespace b with app in (v0,v1,v10,"));
    let pairs = each(0..33, &|i| pods_of("b", &format!("app=v{i},tier=t{i}")));
    let united: Vec<String> = (0..33).map(|i| format!("v{i}")).collect::<BTreeSet<_>>().into_iter().collect();
    assert_eq!(watches("many pairs", pairs), [format!("Pods of namespace b with app in ({})", united.join(","))]);
    let namespaces = |pods: &'static str| each(0..33, &move |i| pods_of(&format!("n{i}"), pods));
    assert_eq!(watches("one label in many namespaces", namespaces("app=db")), ["Pods with app=db"]);
    assert_eq!(watches("many namespaces", namespaces("")), ALL);
    assert_eq!(watches("as many as may be", each(0..32, &|i| pods_of(&format!("n{i}"), ""))).len(), 32);
    assert_eq!(watches("many labels anywhere", each(0..33, &|i| pods_where("", &format!("k{i}=1")))), ALL);
    let without_end = each(0..3_000, &|i| pods_of(&format!("n{}", i % 3), &format!("k{i}=1")));
    assert_eq!(watches("without end", without_end).len(), 3);
    assert_eq!(watches("namespaces without end", each(0..600, &|i| pods_of(&format!("n{i}"), "app=db"))), ALL);
    assert_eq!(watches("values without end", each(0..5_000, &|i| pods_where("", &format!("app=v{i}")))), ALL);
}

fn requirement(key: &str, operator: Operator) -> Requirement {
    Requirement { key: key.into(), operator }
}

fn numbered(count: usize, name: impl Fn(usize) -> String) -> BTreeSet<Str> {
    (0..count).map(|i| Str::from(name(i))).collect()
}

fn planned(requirements: Vec<Requirement>) -> BTreeSet<PodQuery> {
    let query = PodQuery { namespace: Some("b".into()), labels: requirements.into_iter().collect() };
    let interest: Interest = [query].into_iter().collect();
    let plan = interest.plan();
    assert!(interest.missing(plan.iter()).is_empty(), "{interest:?} is not brought by {plan:?}");
    plan
}

#[test]
fn a_request_says_no_more_than_it_can() {
    let long = |i| format!("{}{i:03}", "v".repeat(60));
    let texts: Vec<String> = planned(vec![requirement("app", Operator::In(numbered(200, long)))])
        .iter()
        .map(|q| q.labels.to_string())
        .collect();
    assert!(texts.len() > 4 && texts.iter().all(|text| text.len() <= 3072), "{texts:?}");
    // What is left out makes it more pods, and never less.
    let without = Operator::NotIn(numbered(200, long));
    let tier = || requirement("tier", Operator::Exists);
    assert_eq!(show(&planned(vec![requirement("app", without), tier()])), ["Pods of namespace b with tier"]);
    let many = (0..100).map(|i| requirement(&format!("{}{i}", "k".repeat(50)), Operator::DoesNotExist));
    let some = planned(many.collect());
    assert!(
        some.iter().all(|query| !query.labels.is_everything() && query.labels.to_string().len() < 1024),
        "{some:?}"
    );
    // The grammar of selectors takes these keys for operators.
    for key in ["in", "notin"] {
        assert_eq!(show(&planned(vec![requirement(key, Operator::Exists)])), ["Pods of namespace b"]);
        let one = Operator::In(numbered(1, |_| "x".to_owned()));
        assert_eq!(show(&planned(vec![requirement(key, one), tier()])), ["Pods of namespace b with tier"]);
    }
}

/// A query of few labels, so that they meet.
fn drawn(dice: &mut Dice) -> PodQuery {
    let namespace = dice.pick(&[None, Some("a"), Some("b")]).map(Str::from);
    let requirements = (0..dice.below(3)).map(|_| {
        let values = (0..=dice.below(2)).map(|_| Str::from(*dice.pick(&["1", "2", "3", ""]))).collect();
        let key = *dice.pick(&["x", "y", "in"]);
        let operator = match dice.below(4) {
            0 => Operator::NotIn(values),
            1 => Operator::Exists,
            2 => Operator::DoesNotExist,
            _ => Operator::In(values),
        };
        requirement(key, operator)
    });
    PodQuery { namespace, labels: requirements.collect::<Vec<_>>().into_iter().collect() }
}

fn all_pods() -> Vec<crate::api::Pod> {
    let values =
        |key: &'static str| [None, Some("1"), Some("2"), Some("3"), Some("")].map(|v| v.map(|v| format!("{key}={v}")));
    let mut pods = Vec::new();
    for name in ["a/p", "b/p"] {
        for x in values("x") {
            for y in values("y") {
                let labels: Vec<String> = x.iter().chain(&y).cloned().collect();
                pods.push(pod(name).labels(&labels.join(",")).build());
            }
        }
    }
    pods
}

#[test]
fn a_query_that_covers_another_has_its_pods() {
    let (mut dice, pods) = (Dice::new(1), all_pods());
    let mut covered = 0;
    for _ in 0..20_000 {
        let (one, other) = (drawn(&mut dice), drawn(&mut dice));
        if one.covers(&other) {
            covered += 1;
            assert!(pods.iter().all(|pod| one.has(pod) || !other.has(pod)), "{one} does not cover {other}");
        }
        assert!(one.covers(&one) && PodQuery::of_all().covers(&one));
    }
    assert!(covered > 1_000, "{covered}");
}

#[test]
fn any_plan_brings_what_is_of_interest() {
    let (mut dice, pods) = (Dice::new(2), all_pods());
    let mut exact = 0;
    for _ in 0..3_000 {
        let asked: Vec<PodQuery> = (0..dice.below(9)).map(|_| drawn(&mut dice)).collect();
        let interest: Interest = asked.iter().cloned().collect();
        let plan = interest.plan();
        assert!(interest.missing(plan.iter()).is_empty(), "{asked:?} by {plan:?}");
        assert!(plan.iter().all(|query| interest.wants(query)), "{asked:?} by {plan:?}");
        let plan: Vec<PodQuery> = plan.into_iter().collect();
        let brings = |queries: &[PodQuery], pod| queries.iter().any(|query| query.has(pod));
        for pod in &pods {
            let (is_asked, is_brought) = (brings(&asked, pod), brings(&plan, pod));
            assert!(is_brought || !is_asked, "{pod:?} is of {asked:?} and not of {plan:?}");
        }
        let is_sayable = !asked.iter().any(|query| query.labels.requirements().any(|of| &*of.key == "in"));
        if is_sayable && !asked.is_empty() {
            exact += 1;
            let more = pods.iter().find(|pod| brings(&plan, pod) && !brings(&asked, pod));
            assert!(more.is_none(), "{more:?} is of {plan:?} and not of {asked:?}");
        }
    }
    assert!(exact > 100, "{exact}");
}

#[test]
fn parts_of_one_question_bring_it_together() {
    let query = |text: &str| PodQuery { namespace: None, labels: selector(text) };
    let both = [requirement("app", Operator::In(numbered(2, |i| i.to_string())))];
    let both = PodQuery { namespace: Some("b".into()), labels: both.into_iter().collect() };
    let interest: Interest = [both].into_iter().collect();
    let parts = [query("app=0"), query("app=1")];
    assert!(interest.missing(parts.iter()).is_empty());
    assert_eq!(interest.missing(parts[..1].iter()), interest);
    assert!(parts.iter().all(|part| interest.wants(part)) && !interest.wants(&query("app=2")));
}

#[test]
fn two_interests_are_one() {
    let of = |policy: PolicyBuilder| Interest::of_policy(&policy.build(), state(common()).namespaces());
    let named = |range: Range<usize>| {
        of(policy("a/p").ingress([rule().peers(range.map(|i| pods_of(&format!("n{i}"), "x=1")))]))
    };
    assert_eq!(named(0..3).and([named(2..5), named(4..6)].iter()), named(0..6));
    let all = of(policy("a/p").ingress([rule().peers([pods_where("", "")])]));
    assert_eq!(named(0..3).and([&all].into_iter()), all);
    assert_eq!(all.and([named(0..3)].iter()), all);
}
