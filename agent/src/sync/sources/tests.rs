//! Which subscriptions run, and for how long.

use compiler::api::{Operator, Requirement, Str};
use tokio::sync::watch::{Receiver, channel};

use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// Sources whose base is there, what they tell, and what time it is.
struct Bench {
    sources: Sources,
    told: Receiver<Subscriptions>,
    now: Instant,
}

impl Bench {
    fn new() -> Bench {
        let (sender, told) = channel(Subscriptions::new());
        let mut sources = Sources::new(Origin::Api, sender);
        sources.admit(&Event::Namespaces(Change::Reset(Vec::new())), None);
        sources.admit(&Event::Policies(Change::Reset(Vec::new())), None);
        let mut bench = Bench { sources, told, now: Instant::now() };
        bench.list(&PodSource::Node, None);
        bench
    }

    /// Says what is of interest, and gives back what ends.
    fn want(&mut self, interest: &[PodQuery]) -> Vec<String> {
        let interest = Arc::new(interest.iter().cloned().collect());
        names(self.sources.subscribe(&interest, self.now))
    }

    /// The list of a source comes.
    fn list(&mut self, source: &PodSource, id: Option<SubscriptionId>) -> bool {
        self.sources.admit(&Event::Pods(source.clone(), Change::Reset(Vec::new())), id)
    }

    /// The lists of all come.
    fn list_all(&mut self) {
        let running = self.told.borrow().clone();
        running.iter().for_each(|(source, id)| assert!(self.list(source, Some(*id))));
        assert!(self.sources.are_in_sync());
    }

    fn id(&self, query: &PodQuery) -> Option<SubscriptionId> {
        self.told.borrow().get(&PodSource::from(query.clone())).copied()
    }

    /// What runs, the node's pods aside.
    fn running(&self) -> Vec<String> {
        let running: Vec<PodSource> = self.told.borrow().keys().cloned().collect();
        names(running.into_iter().filter(|source| *source != PodSource::Node))
    }

    fn covers(&self, query: &PodQuery) -> bool {
        self.sources.cover(&[query.clone()].into_iter().collect())
    }
}

fn names(sources: impl IntoIterator<Item = PodSource>) -> Vec<String> {
    sources.into_iter().filter_map(|source| Some(source.query()?.to_string())).collect()
}

fn namespace(name: &str) -> PodQuery {
    PodQuery::of_namespace(name.into())
}

/// Pods of all namespaces by the values of one label.
fn labelled(key: &str, values: &[&str]) -> PodQuery {
    let values = values.iter().map(|value| Str::from(*value)).collect();
    let labels = [Requirement { key: key.into(), operator: Operator::In(values) }].into_iter().collect();
    PodQuery { namespace: None, labels }
}

fn app(value: &str) -> PodQuery {
    labelled("app", &[value])
}

#[test]
fn what_is_wanted_again_begins_with_a_list() {
    let mut bench = Bench::new();
    let a = namespace("a");
    let source = PodSource::from(a.clone());
    bench.want(std::slice::from_ref(&a));
    let first = bench.id(&a);
    assert!(bench.list(&source, first));
    bench.want(&[]);
    // It ends and is wanted again before anybody looks at what is told.
    bench.now += LINGER;
    assert_eq!(bench.want(&[]), ["Pods of namespace a"]);
    bench.want(std::slice::from_ref(&a));
    assert!(bench.id(&a).is_some() && bench.id(&a) != first, "whoever runs subscriptions sees that it is another");
    assert!(!bench.sources.are_in_sync());
    assert!(!bench.list(&source, first), "what the first one had sent does not count");
    assert!(!bench.list(&source, None), "nor what comes from nowhere");
    assert!(!bench.sources.are_in_sync());
    assert!(bench.list(&source, bench.id(&a)));
    assert!(bench.sources.are_in_sync());
}

#[test]
fn what_is_not_needed_lingers() {
    let mut bench = Bench::new();
    let a = app("a");
    bench.want(std::slice::from_ref(&a));
    let id = bench.id(&a);
    bench.list_all();
    for _ in 1..10 {
        bench.now += 60 * SECOND;
        assert!(bench.want(&[]).is_empty());
        assert_eq!(bench.sources.ends_at(), Some(bench.now + LINGER));
        assert!(bench.list(&a.clone().into(), id), "its events count");
        bench.now += SECOND;
        assert!(bench.want(std::slice::from_ref(&a)).is_empty());
        assert!(bench.sources.are_in_sync(), "it is there at once");
        assert_eq!((bench.id(&a), bench.sources.ends_at()), (id, None));
    }
}

#[test]
fn nothing_ends_for_its_age_while_a_list_is_under_way() {
    let mut bench = Bench::new();
    bench.want(&[namespace("a")]);
    bench.list_all();
    bench.want(&[namespace("b")]);
    bench.now += LINGER;
    assert!(bench.want(&[namespace("b")]).is_empty());
    assert_eq!(bench.sources.ends_at(), None);
    bench.list_all();
    assert_eq!(bench.want(&[namespace("b")]), ["Pods of namespace a"]);
}

#[test]
fn so_many_linger_and_no_more() {
    let mut bench = Bench::new();
    let mut ended = Vec::new();
    for n in 0..40 {
        bench.now += SECOND;
        ended.extend(bench.want(&[namespace(&format!("n{n:02}"))]));
    }
    let expected: Vec<_> = (0..7).map(|n| format!("Pods of namespace n{n:02}")).collect();
    assert_eq!(ended, expected, "the oldest end");
    // Beside those that linger there is the needed one.
    assert_eq!(bench.running().len(), MOST_LINGERING + 1);
}

#[test]
fn all_pods_are_also_those_of_a_namespace_and_of_a_label() {
    let mut bench = Bench::new();
    bench.want(&[PodQuery::of_all()]);
    assert!(!bench.covers(&namespace("a")) && !bench.covers(&PodQuery::of_all()));
    bench.list_all();
    assert!(bench.covers(&namespace("a")) && bench.covers(&PodQuery::of_all()) && bench.covers(&app("a")));
}

#[test]
fn what_is_missing_is_asked_for_and_nothing_else_anew() {
    let mut bench = Bench::new();
    bench.want(&[app("a"), app("b"), namespace("x")]);
    assert_eq!(bench.running(), ["Pods with app in (a,b)", "Pods of namespace x"], "at once they are one");
    bench.list_all();
    let id = bench.id(&labelled("app", &["a", "b"]));
    bench.want(&[app("a"), app("b"), app("c"), namespace("x")]);
    assert_eq!(bench.running(), ["Pods with app in (a,b)", "Pods with app=c", "Pods of namespace x"]);
    assert_eq!(bench.id(&labelled("app", &["a", "b"])), id);
    assert!(!bench.sources.are_in_sync() && bench.covers(&app("a")) && !bench.covers(&app("c")));
    bench.list_all();
    assert!(bench.covers(&labelled("app", &["b", "c"])), "each brings a share");
    bench.want(&[labelled("app", &["b", "c"])]);
    assert!(bench.sources.are_in_sync(), "there is nothing to ask for");
}

#[test]
fn too_many_become_one_and_end_when_it_has_listed() {
    let mut bench = Bench::new();
    let all: Vec<PodQuery> = (0..33).map(|n| app(&format!("v{n:02}"))).collect();
    for n in 1..=32 {
        bench.want(&all[..n]);
        bench.list_all();
    }
    assert_eq!(bench.running().len(), 32);
    assert!(bench.want(&all).is_empty(), "they may know the same pods");
    assert_eq!(bench.running().len(), 33);
    assert!(bench.covers(&all[0]) && !bench.covers(&all[32]));
    bench.list_all();
    assert_eq!(bench.want(&all).len(), 32);
    assert_eq!(bench.running().len(), 1, "{:?}", bench.running());
    bench.want(&[all.clone(), vec![app("w")]].concat());
    assert_eq!(bench.running().len(), 2, "and what comes then is asked for by itself");
}

#[test]
fn what_is_too_much_is_left_for_a_while() {
    let mut bench = Bench::new();
    let many: Vec<PodQuery> = (0..33).map(|n| labelled(&format!("k{n:02}"), &["1"])).collect();
    bench.want(&many);
    assert_eq!(bench.running(), ["Pods of the other nodes"]);
    bench.list_all();
    // It goes back and forth over the bound, and nothing is asked for.
    for _ in 0..20 {
        bench.now += 60 * SECOND;
        bench.want(&many[..32]);
        bench.now += 60 * SECOND;
        bench.want(&many);
        assert_eq!(bench.running(), ["Pods of the other nodes"]);
    }
    let few = &many[..2];
    bench.want(few);
    assert_eq!(bench.sources.ends_at(), Some(bench.now + LINGER));
    bench.now += LINGER - SECOND;
    bench.want(few);
    assert_eq!(bench.running().len(), 1);
    bench.now += SECOND;
    assert!(bench.want(few).is_empty(), "until the lists are there");
    assert_eq!(bench.running().len(), 3);
    bench.list_all();
    assert_eq!(bench.want(few), ["Pods of the other nodes"]);
    assert_eq!(bench.running(), ["Pods with k00=1", "Pods with k01=1"]);
    assert_eq!(bench.sources.ends_at(), None);
}

#[test]
fn what_lingers_is_taken_again_before_something_new() {
    let mut bench = Bench::new();
    bench.want(&[app("a"), app("b")]);
    bench.list_all();
    bench.want(&[namespace("x")]);
    bench.list_all();
    bench.want(&[namespace("x"), app("a")]);
    assert!(bench.sources.are_in_sync(), "{:?}", bench.running());
    // It brings more than is wanted, which it may for a while.
    bench.now += LINGER;
    bench.want(&[namespace("x"), app("a")]);
    bench.list_all();
    bench.want(&[namespace("x"), app("a")]);
    assert_eq!(bench.running(), ["Pods with app=a", "Pods of namespace x"]);
}
