//! The turns of one stream, in a time that is not waited for, against a server that answers as each test says.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Mutex;

use axum::body::Body;
use futures::{StreamExt, stream};
use http::{Request, Response, Version};
use serde_json::{Value, json};

use super::super::kind::Namespaces;
use super::super::large;
use super::super::tests::without_kernel;
use super::*;
use crate::metrics::Metrics;
use crate::sync::Snapshot;

const SECOND: Duration = Duration::from_secs(1);

/// A stream of Namespaces that runs, and what came of it.
struct Run {
    requests: Arc<Mutex<Vec<(Duration, String)>>>,
    changes: Arc<Mutex<Vec<String>>>,
    metrics: Metrics,
    /// What the sync thread has given away by then.
    snapshot: Arc<Snapshot>,
    readiness: Readiness,
    /// What `/readyz` had to say of the watch at the end.
    told: String,
}

impl Run {
    /// Lets a stream ask a server for so long. The server is given the number of the request, from 0, and its query.
    async fn of(time: Duration, answer: impl Fn(usize, &str) -> Response<Body> + Send + Sync + 'static) -> Run {
        Run::reading_with(Reader::new(), time, answer).await
    }

    async fn reading_with(
        reader: Reader,
        time: Duration,
        answer: impl Fn(usize, &str) -> Response<Body> + Send + Sync + 'static,
    ) -> Run {
        let (requests, changes) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(Vec::new())));
        let (metrics, readiness, begun) = (Metrics::new(), Readiness::new(), Instant::now());
        let server = tower::service_fn({
            let (requests, answer) = (requests.clone(), Arc::new(answer));
            move |request: Request<kube::client::Body>| {
                let query = request.uri().query().unwrap_or_default().to_owned();
                let mut requests = requests.lock().unwrap();
                let answer = answer(requests.len(), &query);
                requests.push((begun.elapsed(), query));
                std::future::ready(Ok::<_, Infallible>(answer))
            }
        });
        let sync = without_kernel(&readiness, &metrics);
        let shared = Shared {
            access: Access::fixed(Client::new(server, "default")),
            sync: sync.clone(),
            readiness: readiness.clone(),
            metrics: metrics.watch.clone(),
            can_stream: Arc::new(AtomicBool::new(true)),
            reader,
        };
        let stream = Stream::<Namespaces> {
            collection: Collection { path: Namespaces::path(None), fields: None, labels: None },
            name: "Namespaces".to_owned(),
            trim: Box::new(|_| {}),
            event: Box::new({
                let changes = changes.clone();
                move |change| {
                    changes.lock().unwrap().push(match &change {
                        Change::Applied(namespace) => format!("+{}", namespace.name),
                        Change::Deleted(name) => format!("-{name}"),
                        Change::Reset(all) => {
                            format!("={}", all.iter().map(|one| &*one.name).collect::<Vec<_>>().join(","))
                        }
                    });
                    Event::Namespaces(change)
                }
            }),
        };
        let freshness = metrics.watch.freshness().clone();
        let told = tokio::select! {
            () = stream.run(shared) => panic!("a stream does not end"),
            told = async { tokio::time::sleep(time).await; freshness.to_string() } => told,
        };
        Run { requests, changes, metrics, snapshot: sync.snapshot(), readiness, told }
    }

    /// What `/metrics` shows at the end.
    fn metrics(&self) -> String {
        self.metrics.encode(&self.snapshot, &BTreeMap::new())
    }

    fn changes(&self) -> Vec<String> {
        self.changes.lock().unwrap().clone()
    }

    fn queries(&self) -> Vec<String> {
        self.requests.lock().unwrap().iter().map(|(_, query)| query.clone()).collect()
    }

    fn times(&self) -> Vec<Duration> {
        self.requests.lock().unwrap().iter().map(|(time, _)| *time).collect()
    }
}

fn object(name: &str, version: u32) -> Value {
    json!({"metadata": {"name": name, "resourceVersion": version.to_string()}})
}

fn event(kind: &str, name: &str, version: u32) -> String {
    json!({"type": kind, "object": object(name, version)}).to_string()
}

fn bookmark(version: u32, ends_list: bool) -> String {
    let annotations = if ends_list { json!({"k8s.io/initial-events-end": "true"}) } else { json!({}) };
    let metadata = json!({"resourceVersion": version.to_string(), "annotations": annotations});
    json!({"type": "BOOKMARK", "object": {"kind": "Namespace", "metadata": metadata}}).to_string()
}

/// What follows the lines of an answer.
enum Then {
    End,
    Silence,
    /// The end, after a time.
    EndAfter(Duration),
}

/// Lines over HTTP/2.
fn lines(lines: &[String], then: Then) -> Response<Body> {
    let lines: Vec<_> = lines.iter().map(|line| Ok::<_, Infallible>(format!("{line}\n"))).collect();
    let rest = async move {
        match then {
            Then::End => {}
            Then::Silence => std::future::pending().await,
            Then::EndAfter(time) => tokio::time::sleep(time).await,
        }
        Ok(String::new())
    };
    let body = Body::from_stream(stream::iter(lines).chain(stream::once(rest)));
    Response::builder().version(Version::HTTP_2).body(body).unwrap()
}

/// A streaming list of names as of a version.
fn list(names: &[&str], version: u32, then: Then) -> Response<Body> {
    let objects = names.iter().map(|name| event("ADDED", name, 1));
    lines(&objects.chain([bookmark(version, true)]).collect::<Vec<_>>(), then)
}

fn page(names: &[&str], version: u32, token: &str) -> Response<Body> {
    let items: Vec<_> = names.iter().map(|name| object(name, 1)).collect();
    let metadata = json!({"resourceVersion": version.to_string(), "continue": token});
    Response::new(Body::from(json!({"kind": "NamespaceList", "metadata": metadata, "items": items}).to_string()))
}

fn refusal(code: u16, reason: &str, message: &str) -> Response<Body> {
    let status = json!({"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": message});
    Response::builder().status(code).body(Body::from(status.to_string())).unwrap()
}

fn is_list(query: &str) -> bool {
    query.contains("sendInitialEvents=true")
}

fn is_watch(query: &str) -> bool {
    query.contains("watch=true")
}

fn gone() -> Response<Body> {
    let status = json!({"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"});
    lines(&[json!({"type": "ERROR", "object": status}).to_string()], Then::End)
}

fn with_header(code: u16, name: &str, value: &str) -> Response<Body> {
    Response::builder().status(code).header(name, value).body(Body::empty()).unwrap()
}

/// The end of a streamed list, of a server that does not say of which version.
fn bookmark_without_version() -> String {
    let annotations = json!({"k8s.io/initial-events-end": "true"});
    json!({"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "", "annotations": annotations}}}).to_string()
}

/// Seen: 820 requests a second where watches are cut, 2,300 on 410, 46,000 on a redirect, and none of it told.
#[tokio::test(start_paused = true)]
async fn no_way_to_fail_is_tried_without_a_pause() {
    type Answer = fn(&str) -> Response<Body>;
    let faults: [(&str, &str, Answer); 11] = [
        ("a list without a version", "no version to watch from", |query| match is_list(query) {
            true => lines(&[event("ADDED", "a", 1), bookmark_without_version()], Then::Silence),
            false => gone(),
        }),
        ("cut after the begin", "ends the watch right after", |query| match is_list(query) {
            true => list(&["a"], 5, Then::End),
            false => lines(&[], Then::End),
        }),
        ("cut after an event", "ends the watch right after", |query| match is_list(query) {
            true => list(&["a"], 6, Then::End),
            false => lines(&[event("MODIFIED", "a", 6)], Then::End),
        }),
        ("410 as an event", "note: Namespaces: ", |query| match is_list(query) {
            true => list(&["a"], 5, Then::End),
            false => gone(),
        }),
        ("410 as a status", "410 Expired", |_| refusal(410, "Expired", "too old")),
        ("a redirect", "redirected to http://elsewhere/, which", |_| {
            with_header(302, "location", "http://elsewhere/?seconds=7")
        }),
        ("no content", "204 No Content", |_| with_header(204, "x", "y")),
        ("a list that is cut", "cannot be read", |query| match is_list(query) {
            true => lines(&[event("ADDED", "b", 1)], Then::End),
            false if is_watch(query) => refusal(410, "Expired", "too old"),
            false => Response::new(Body::from("{")),
        }),
        ("the page of a proxy", "note: Namespaces: ", |query| match is_list(query) {
            true => list(&["a"], 5, Then::End),
            false => lines(&["<html>".to_owned()], Then::End),
        }),
        ("an error", "500 InternalError: etcd", |_| refusal(500, "InternalError", "etcd")),
        ("a status in place of a list", "in place of a list", |query| match is_watch(query) {
            true => refusal(422, "Invalid", "sendInitialEvents: Forbidden"),
            false => Response::new(Body::from(json!({"kind": "Status", "metadata": {}}).to_string())),
        }),
    ];
    for (name, said, answer) in faults {
        let run = Run::of(120 * SECOND, move |n, query| match n {
            0 => list(&["a"], 5, Then::EndAfter(6 * SECOND)),
            _ => answer(query),
        });
        let run = run.await;
        let count = run.queries().len();
        assert!((8..=45).contains(&count), "{name}: {count} requests in 120 s");
        let changes = run.changes();
        assert!(changes.iter().all(|change| change == "=a" || change == "+a"), "{name}: {changes:?}");
        let metrics = run.metrics();
        assert!(metrics.contains("postern_watch_errors_total{kind=\"Namespace\"}"), "{name}: {metrics}");
        assert!(run.told.contains(said), "{name}: {}", run.told);
    }
}

/// As where a server's cache is broken, or something on the way does not let an event pass.
#[tokio::test(start_paused = true)]
async fn where_every_watch_breaks_it_is_listed_anew() {
    let broken = json!({"type": "ERROR", "object": {"kind": "Status", "code": 500, "message": "broken"}}).to_string();
    for last in [broken, "{\"type\":".to_owned()] {
        let run = Run::of(60 * SECOND, move |n, query| match is_list(query) {
            true if n == 0 => list(&["a"], 5, Then::End),
            true => list(&["a", "b"], 9, Then::Silence),
            false => lines(std::slice::from_ref(&last), Then::End),
        });
        assert_eq!(run.await.changes(), ["=a", "=a,b"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_ends_in_its_time_is_watched_on_at_once() {
    let run = Run::of(100 * SECOND, |n, _| match n {
        0 => list(&["a"], 5, Then::EndAfter(10 * SECOND)),
        1 => lines(&[event("ADDED", "b", 7), bookmark(8, false)], Then::EndAfter(10 * SECOND)),
        _ => lines(&[], Then::Silence),
    });
    let run = run.await;
    assert_eq!(run.times(), [Duration::ZERO, 10 * SECOND, 20 * SECOND]);
    let queries = run.queries();
    assert!(queries[0].contains("resourceVersionMatch=NotOlderThan") && queries[0].ends_with("&resourceVersion="));
    assert!(queries[1].ends_with("resourceVersion=5") && queries[2].ends_with("resourceVersion=8"), "{queries:?}");
    assert_eq!(run.changes(), ["=a", "+b"]);
    assert!(!run.metrics().contains("postern_watch_errors_total{"));
}

#[tokio::test(start_paused = true)]
async fn what_happens_during_the_list_is_part_of_it() {
    let run = Run::of(SECOND, |_, _| {
        let events = [
            event("ADDED", "a", 1),
            event("ADDED", "b", 2),
            event("DELETED", "a", 6),
            event("MODIFIED", "b", 7),
            event("ADDED", "c", 8),
            bookmark(8, true),
            event("DELETED", "c", 9),
        ];
        lines(&events, Then::Silence)
    });
    assert_eq!(run.await.changes(), ["=b,c", "-c"]);
}

#[tokio::test(start_paused = true)]
async fn the_server_is_left_alone_for_as_long_as_it_asks_within_reason() {
    let run = Run::of(100 * SECOND, |n, _| match n {
        0 => with_header(429, "retry-after", "7"),
        1 => with_header(503, "retry-after", "3600"),
        2 => {
            let status = json!({"code": 429, "message": "later", "details": {"retryAfterSeconds": 9}});
            lines(&[json!({"type": "ERROR", "object": status}).to_string()], Then::End)
        }
        _ => list(&["a"], 5, Then::Silence),
    });
    let run = run.await;
    let waits: Vec<_> = run.times().windows(2).map(|pair| pair[1] - pair[0]).collect();
    let asked = [7 * SECOND, LONGEST_RETRY_AFTER, 9 * SECOND];
    assert_eq!(waits.len(), 3, "{waits:?}");
    for (wait, asked) in waits.iter().zip(asked) {
        assert!((asked..=asked * 5 / 4).contains(wait), "waited {wait:?} where {asked:?} was asked");
    }
}

/// Seen: a server that lags behind its peers answers a list with what was before a policy.
#[tokio::test(start_paused = true)]
async fn a_list_is_never_older_than_what_was_seen() {
    let run = Run::of(60 * SECOND, |n, _| match n {
        0 => list(&["a"], 90, Then::EndAfter(6 * SECOND)),
        1 => gone(),
        // Does not heed the parameter.
        2 => list(&[], 80, Then::Silence),
        // The store is asked: it is the one that was seen.
        3 => page(&[], 95, ""),
        // Heeds it.
        4 => refusal(504, "Timeout", "Timeout: Too large resource version: 95, current: 80"),
        5 => page(&[], 96, ""),
        _ => list(&["a", "b"], 97, Then::Silence),
    });
    let run = run.await;
    assert_eq!(run.changes(), ["=a", "=a,b"], "{:?}", run.queries());
    let queries = run.queries();
    assert!(queries[2].contains("NotOlderThan") && queries[2].ends_with("resourceVersion=90"), "{queries:?}");
    assert!(!queries[3].contains("resourceVersion"), "a consistent read: {queries:?}");
    assert!(queries[6].ends_with("resourceVersion=90"), "no newer than what was seen of these objects: {queries:?}");
}

#[tokio::test(start_paused = true)]
async fn pages_are_no_older_than_what_was_seen_either() {
    let run = Run::of(60 * SECOND, |n, query| match n {
        _ if is_list(query) => refusal(422, "Invalid", "sendInitialEvents: Forbidden"),
        1 => page(&["a"], 90, ""),
        2 => refusal(410, "Expired", "too old"),
        3 => page(&[], 80, ""),
        4 => page(&[], 90, ""),
        5 => page(&["a", "b"], 91, ""),
        _ => lines(&[], Then::Silence),
    });
    let run = run.await;
    assert_eq!(run.changes(), ["=a", "=a,b"], "{:?}", run.queries());
    assert!(run.queries()[3].contains("resourceVersion=90"), "{:?}", run.queries());
}

#[tokio::test(start_paused = true)]
async fn a_cluster_that_was_restored_is_listed_anew_after_a_while() {
    let run = Run::of(180 * SECOND, |n, query| match n {
        0 => list(&["a"], 90, Then::EndAfter(6 * SECOND)),
        1 => gone(),
        _ if query.ends_with("resourceVersion=90") => refusal(504, "Timeout", "Too large resource version: 90"),
        _ if is_watch(query) => list(&["b"], 7, Then::Silence),
        _ => page(&[], 7, ""),
    });
    let run = run.await;
    assert_eq!(run.changes(), ["=a", "=b"]);
    let last = *run.times().last().unwrap();
    assert!(last >= super::super::version::DOUBT, "listed anew after {last:?}");
    assert!(last <= 2 * super::super::version::DOUBT, "listed anew after {last:?}");
}

#[tokio::test(start_paused = true)]
async fn a_watch_in_the_future_of_a_restored_cluster_is_noticed() {
    // From a version that it does not have yet, a server says nothing at all, for ever.
    let run = Run::of(600 * SECOND, |n, query| match n {
        0 => list(&["a"], 90, Then::EndAfter(6 * SECOND)),
        _ if is_list(query) && query.ends_with("resourceVersion=") => list(&["b"], 7, Then::Silence),
        _ if is_watch(query) => lines(&[], Then::EndAfter(240 * SECOND)),
        _ => page(&[], 7, ""),
    });
    let run = run.await;
    assert_eq!(run.changes().get(..2), Some(&["=a".to_owned(), "=b".to_owned()][..]), "{:?}", run.changes());
}

#[tokio::test(start_paused = true)]
async fn a_token_that_expires_begins_the_list_again() {
    let run = Run::of(60 * SECOND, |n, query| match n {
        _ if is_list(query) => refusal(400, "BadRequest", "unknown parameter"),
        1 => page(&["a"], 5, "next"),
        2 => refusal(410, "Expired", "the continue token has expired"),
        3 => page(&["a", "b"], 6, ""),
        _ => lines(&[], Then::Silence),
    });
    let run = run.await;
    let queries = run.queries();
    assert!(queries[1].contains("limit=500") && queries[2].contains("continue=next"), "{queries:?}");
    assert!(!queries[3].contains("limit") && !queries[3].contains("continue"), "{queries:?}");
    assert_eq!(run.changes(), ["=a,b"]);
}

/// Also the list that is asked for all at once is given in pages here, as by a server that has a limit of its own.
#[tokio::test(start_paused = true)]
async fn tokens_that_always_expire_are_a_failure_with_a_pause() {
    let run = Run::of(120 * SECOND, |_, query| match query {
        _ if is_list(query) => refusal(400, "BadRequest", "unknown parameter"),
        _ if query.contains("continue=") => refusal(410, "Expired", "the continue token has expired"),
        _ => page(&["a"], 5, "next"),
    });
    let run = run.await;
    assert_eq!(run.changes(), Vec::<String>::new(), "half a list is none");
    let requests = run.times().len();
    // Four or five in each attempt, and the pauses are drawn. Without them there would be thousands.
    assert!((8..=250).contains(&requests), "{requests} in two minutes");
}

/// Seen: a policy in force 279 s after a hole in the network.
#[tokio::test(start_paused = true)]
async fn silence_is_given_up_within_30_s() {
    // Over HTTP/1.1, where nothing else would notice.
    let old = |mut answer: Response<Body>| {
        *answer.version_mut() = Version::HTTP_11;
        answer
    };
    let run = Run::of(60 * SECOND, move |n, _| match n {
        0 => old(list(&["a"], 5, Then::Silence)),
        1 => old(lines(&[event("ADDED", "b", 6)], Then::Silence)),
        _ => old(lines(&[event("ADDED", "c", 7)], Then::Silence)),
    });
    let run = run.await;
    assert_eq!(run.changes()[..3], ["=a", "+b", "+c"]);
    let (times, queries) = (run.times(), run.queries());
    assert!(times[2] - times[1] <= 30 * SECOND, "{times:?}");
    assert!(queries[1].contains("timeoutSeconds=1"), "{queries:?}");
}

#[tokio::test(start_paused = true)]
async fn a_list_that_does_not_go_on_is_given_up_and_read_in_pages() {
    let run = Run::of(60 * SECOND, |n, query| match n {
        0 => lines(&[event("ADDED", "a", 1)], Then::Silence),
        _ if is_watch(query) => lines(&[], Then::Silence),
        _ => page(&["a", "b"], 6, ""),
    });
    let run = run.await;
    assert!(run.times()[1] <= 30 * SECOND, "{:?}", run.times());
    assert_eq!(run.changes(), ["=a,b"]);
}

#[tokio::test(start_paused = true)]
async fn odd_things_stop_nothing() {
    let nameless = json!({"type": "ADDED", "object": {"metadata": {"resourceVersion": "6"}}}).to_string();
    let versionless = json!({"type": "ADDED", "object": {"metadata": {"name": "b"}}}).to_string();
    let odd =
        vec![event("RENAMED", "x", 6), nameless, versionless, "{\"type\":\"BOOKMARK\"".to_owned(), "\n".to_owned()];
    let long = format!("{{\"type\":\"ADDED\",\"object\":\"{}\"}}", "x".repeat(LONGEST_LINE));
    let run = Run::of(120 * SECOND, move |n, _| match n {
        0 => lines(&[vec![event("ADDED", "a", 1), bookmark(5, true)], odd.clone()].concat(), Then::Silence),
        // What could not be read may have mattered, so all is listed again.
        1 => lines(&[event("ADDED", "a", 1), bookmark(7, true), long.clone()], Then::Silence),
        _ => lines(&[event("ADDED", "a", 1), bookmark(8, true), event("ADDED", "c", 9)], Then::Silence),
    });
    let run = run.await;
    assert_eq!(run.changes(), ["=a", "+b", "=a", "=a", "+c"]);
    assert_eq!(run.queries().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_list_that_lacks_what_is_known_is_not_taken_at_once() {
    let run = Run::of(120 * SECOND, |n, _| match n {
        0 => list(&["a"], 5, Then::EndAfter(6 * SECOND)),
        1 => gone(),
        _ => lines(&["garbage".to_owned(), event("ADDED", "b", 1), bookmark(9, true)], Then::Silence),
    });
    let run = run.await;
    assert_eq!(run.changes(), ["=a", "=b"]);
    assert_eq!(run.queries().len(), 3 + usize::try_from(LISTS_WITH_HOLES).unwrap());
}

#[tokio::test(start_paused = true)]
async fn readyz_says_that_news_cannot_come() {
    let run = Run::of(50 * SECOND, |n, _| match n {
        0 => list(&["a"], 5, Then::EndAfter(6 * SECOND)),
        _ => refusal(503, "ServiceUnavailable", "starting"),
    });
    let run = run.await;
    assert!(run.told.starts_with("note: Namespaces: no word from the API server for 50 s (503 "), "{}", run.told);
    assert!(run.readiness.status().waiting_for.iter().all(|what| !what.contains("Namespaces")), "{:?}", run.readiness);
    let metrics = run.metrics();
    assert_eq!(metrics.matches("postern_watch_silence_seconds{kind=\"Namespace\"}").count(), 0, "it has ended");
}

/// An event that is read beside the watch.
fn large_event(kind: &str, name: &str, version: u32) -> String {
    event_of(LARGE, kind, name, version)
}

/// An event of at least so many bytes.
fn event_of(bytes: usize, kind: &str, name: &str, version: u32) -> String {
    let mut object = object(name, version);
    object["metadata"]["annotations"] = json!({"long": "x".repeat(bytes)});
    json!({"type": kind, "object": object}).to_string()
}

/// What comes of events after a list of `a`, while large ones are not read for a second.
async fn beside_large(events: Vec<String>, then: fn() -> Then) -> Run {
    let reader = Reader::new();
    let held = reader.hold().await;
    tokio::spawn(async move {
        tokio::time::sleep(SECOND).await;
        drop(held);
    });
    let run = Run::reading_with(reader, 30 * SECOND, move |n, query| match n {
        0 => lines(&[vec![event("ADDED", "a", 1), bookmark(5, true)], events.clone()].concat(), then()),
        _ if is_list(query) => list(&["anew"], 20, Then::Silence),
        _ => lines(&[], Then::Silence),
    });
    run.await
}

/// Seen: a policy of 1.8 MiB held up those of other tenants for 60 ms and more.
#[tokio::test(start_paused = true)]
async fn a_large_object_holds_up_no_events_but_its_own() {
    let events = vec![
        large_event("ADDED", "large", 6),
        event("ADDED", "b", 7),
        bookmark(8, false),
        event("DELETED", "large", 9),
        event("ADDED", "c", 10),
    ];
    let run = beside_large(events, || Then::Silence).await;
    assert_eq!(run.changes(), ["=a", "+b", "+c", "+large", "-large"]);
    let events = vec![large_event("ADDED", "large", 6), large_event("DELETED", "large", 7), event("ADDED", "b", 8)];
    let run = beside_large(events, || Then::Silence).await;
    assert_eq!(run.changes(), ["=a", "+b", "+large", "-large"]);
}

#[tokio::test(start_paused = true)]
async fn no_more_than_so_many_bytes_of_large_objects_are_held_at_once() {
    let names: Vec<_> = (0..=4).map(|n| format!("large-{n}")).collect();
    let large = |(name, version): (&String, u32)| event_of(large::MOST / 4, "ADDED", name, version);
    let mut events: Vec<_> = names.iter().zip(6..).map(large).collect();
    events.push(event("ADDED", "b", 20));
    let changes = beside_large(events, || Then::Silence).await.changes();
    let place = |what: &str| changes.iter().position(|change| change[1..] == *what);
    let places: Vec<_> = names.iter().map(|name| place(name).expect("each is passed on")).collect();
    assert!(places.is_sorted(), "{changes:?}");
    assert!(place("b") > Some(places[0]), "{changes:?}");
}

#[tokio::test(start_paused = true)]
async fn a_large_object_outlives_its_watch_and_goes_before_the_next() {
    let events = vec![large_event("ADDED", "large", 6), event("ADDED", "b", 7)];
    let run = beside_large(events.clone(), || Then::End).await;
    assert_eq!(run.changes(), ["=a", "+b", "+large"]);
    assert!(run.queries()[1].contains("resourceVersion=7"), "{:?}", run.queries());
    assert!(run.times()[1] >= SECOND, "{:?}", run.times());
}

#[tokio::test(start_paused = true)]
async fn a_large_object_that_cannot_be_read_is_listed_anew() {
    let broken = large_event("ADDED", "broken", 6) + "}";
    let events = vec![broken, large_event("ADDED", "other", 7), event("ADDED", "b", 8)];
    let run = beside_large(events, || Then::Silence).await;
    assert_eq!(run.changes(), ["=a", "+other", "+b", "=anew"]);
    assert!(is_list(&run.queries()[1]), "{:?}", run.queries());
    // Also where the watch has ended meanwhile: it has been told of what came later, and would not be told of this again.
    let events = vec![large_event("ADDED", "broken", 6) + "}", event("ADDED", "b", 7)];
    let run = beside_large(events, || Then::End).await;
    assert_eq!(run.changes(), ["=a", "+b", "=anew"]);
    assert!(is_list(&run.queries()[1]), "{:?}", run.queries());
}
