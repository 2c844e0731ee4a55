//! The streams against servers that the real one cannot be made to be: old ones, and ones with odd objects.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use compiler::cluster::Budget;
use compiler::diff::Limits;
use compiler::nft::Deny;
use compiler::policy::OwnAddresses;
use kube::Config;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::*;
use crate::metrics::Metrics;
use crate::sync::{self, Origin, Settings};

/// A server with one pod on `node-1`, one Namespace and one odd NetworkPolicy.
#[derive(Clone)]
struct Server {
    /// Whether it does streaming lists.
    streams: bool,
    /// Requests for streaming lists.
    streaming: Arc<AtomicUsize>,
    /// Plain lists.
    lists: Arc<AtomicUsize>,
}

impl Server {
    fn new(streams: bool) -> Server {
        Server { streams, streaming: Arc::default(), lists: Arc::default() }
    }

    /// Serves, and returns the way to it.
    async fn start(&self) -> Access {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let uri = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(answer).with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Access::fixed(connect::connect(&Config::new(uri.parse().unwrap())).unwrap())
    }
}

fn items(path: &str) -> Vec<Value> {
    let meta = |name: &str| json!({"name": name, "namespace": "shop", "resourceVersion": "5"});
    match path.rsplit('/').next().unwrap() {
        "pods" => vec![
            // Labels and ports of types that the API does not have.
            json!({"metadata": {"name": "odd", "namespace": "shop", "resourceVersion": "4", "labels": {"app": 7}},
                "spec": {"nodeName": "node-1", "containers": "none"}, "status": []}),
            json!({"metadata": meta("web"), "spec": {"nodeName": "node-1"},
                "status": {"phase": "Running", "podIPs": [{"ip": "10.0.0.1"}]}}),
        ],
        "namespaces" => vec![json!({"metadata": {"name": "shop", "resourceVersion": "3"}})],
        "networkpolicies" => vec![json!({"metadata": meta("web"), "spec": {"podSelector": {"matchLabels": []}}})],
        other => panic!("{other} is not watched"),
    }
}

async fn answer(State(server): State<Server>, uri: Uri) -> Response {
    let query = uri.query().unwrap_or_default();
    if query.contains("sendInitialEvents=true") {
        server.streaming.fetch_add(1, Ordering::Relaxed);
        if !server.streams {
            let message =
                "sendInitialEvents: Forbidden: is forbidden for watch unless the WatchList feature gate is on";
            let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 422,
                "reason": "Invalid", "message": message});
            return (StatusCode::UNPROCESSABLE_ENTITY, status.to_string()).into_response();
        }
        let added = items(uri.path()).into_iter().map(|object| json!({"type": "ADDED", "object": object}));
        let end = json!({"type": "BOOKMARK", "object": {"kind": "Any", "apiVersion": "v1", "metadata":
            {"resourceVersion": "9", "annotations": {"k8s.io/initial-events-end": "true"}}}});
        return watch_of(added.chain([end]).collect());
    }
    if query.contains("watch=true") {
        return watch_of(Vec::new());
    }
    server.lists.fetch_add(1, Ordering::Relaxed);
    let list =
        json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": "9"}, "items": items(uri.path())});
    list.to_string().into_response()
}

/// These events, and then silence.
fn watch_of(events: Vec<Value>) -> Response {
    let lines = events.into_iter().map(|event| Ok::<_, std::io::Error>(format!("{event}\n")));
    let stream = futures::StreamExt::chain(futures::stream::iter(lines), futures::stream::pending());
    Body::from_stream(stream).into_response()
}

/// A sync thread that has no kernel to write to.
pub(super) fn without_kernel(readiness: &Readiness, metrics: &Metrics) -> Handle {
    let settings = Settings {
        node: NodeName("node-1".into()),
        deny: Deny::Drop,
        log: None,
        origin: Origin::Api,
        limits: Limits::default(),
        budget: Budget::default(),
        own_addresses: OwnAddresses::Off,
        verify_interval: Duration::from_secs(60),
    };
    let no_kernel = || {
        let source = std::io::Error::other("there is none");
        Err::<netlink::Connection, _>(netlink::Error::Socket { what: "reach the kernel", source })
    };
    sync::spawn(settings, no_kernel, None, readiness, metrics.sync.clone()).unwrap().0
}

/// Follows a server until it is known what it holds, without a kernel to write to. Returns the metrics.
async fn follow_until_known(server: &Server) -> String {
    let access = server.start().await;
    let (readiness, metrics) = (Readiness::new(), Metrics::new());
    let sync = without_kernel(&readiness, &metrics);
    let options = Options { node: NodeName("node-1".into()), legacy_namespace_isolation: false };
    let watching = follow(access, options, sync.clone(), &readiness, metrics.watch.clone());
    let known = async {
        loop {
            let snapshot = sync.snapshot();
            let all = [("Namespace", 1), ("NetworkPolicy", 1), ("Pod", 2)];
            if all.iter().all(|known| snapshot.objects.contains(known)) {
                return metrics.encode(&snapshot, &std::collections::BTreeMap::new());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        never = watching => match never {},
        known = tokio::time::timeout(Duration::from_secs(20), known) => known.expect("the lists arrive"),
    }
}

#[tokio::test]
async fn lists_are_streamed() {
    let server = Server::new(true);
    let metrics = follow_until_known(&server).await;
    assert_eq!((server.streaming.load(Ordering::Relaxed), server.lists.load(Ordering::Relaxed)), (3, 0));
    assert!(!metrics.contains("postern_watch_errors_total{"), "{metrics}");
}

#[tokio::test]
async fn a_server_that_does_not_stream_is_asked_for_pages() {
    let server = Server::new(false);
    let metrics = follow_until_known(&server).await;
    assert_eq!(server.lists.load(Ordering::Relaxed), 3);
    assert!(!metrics.contains("postern_watch_errors_total{"), "a refusal is no error: {metrics}");
}

#[tokio::test]
async fn an_odd_object_stops_no_list() {
    let metrics = follow_until_known(&Server::new(true)).await;
    for line in ["postern_invalid_objects{kind=\"Pod\"} 1", "postern_invalid_objects{kind=\"NetworkPolicy\"} 1"] {
        assert!(metrics.lines().any(|have| have == line), "{line} is not in\n{metrics}");
    }
}
