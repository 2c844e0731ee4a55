//! Requests and their answers, as the fault of the moment has it.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::header::{LOCATION, RETRY_AFTER};
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use futures::stream;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

use super::store::Selection;
use super::{Fault, Shared};

/// How often a watch has a bookmark.
const BOOKMARK: Duration = Duration::from_secs(10);

/// Answers a request.
pub(super) async fn serve(
    State(shared): State<Arc<Shared>>,
    method: Method,
    uri: Uri,
    Query(query): Query<BTreeMap<String, String>>,
) -> Response {
    shared.requests.fetch_add(1, Ordering::Relaxed);
    if method != Method::GET {
        // Events are taken, and nobody reads them.
        return (StatusCode::CREATED, json!({}).to_string()).into_response();
    }
    let Some(selection) = selection(uri.path(), &query) else {
        return refusal(404, "NotFound", &format!("{uri} is not served"));
    };
    let is_watch = query.get("watch").is_some_and(|value| value == "true");
    let fault = shared.state().fault;
    match fault.map(|(fault, _)| fault) {
        Some(Fault::Stall) => std::future::pending().await,
        Some(Fault::Redirect) => (StatusCode::FOUND, [(LOCATION, uri.to_string())]).into_response(),
        Some(Fault::Busy) => {
            let mut answer = refusal(429, "TooManyRequests", "there are too many requests");
            answer.headers_mut().insert(RETRY_AFTER, 1.into());
            answer
        }
        Some(Fault::Internal) => refusal(500, "InternalError", "etcdserver: request timed out"),
        Some(Fault::Gone) if is_watch => refusal(410, "Expired", "too old resource version"),
        _ if is_watch => watch(shared, selection, &query),
        _ => list(&shared, &selection, &query),
    }
}

/// The path is that of a collection, of all namespaces or of one.
fn selection(path: &str, query: &BTreeMap<String, String>) -> Option<Selection> {
    let path = path.strip_prefix("/api/v1/").or_else(|| path.strip_prefix("/apis/networking.k8s.io/v1/"))?;
    let (namespace, collection) = match path.split('/').collect::<Vec<_>>()[..] {
        [collection] => (None, collection),
        ["namespaces", namespace, collection] => (Some(namespace.to_owned()), collection),
        _ => return None,
    };
    let node = query.get("fieldSelector").and_then(|fields| fields.strip_prefix("spec.nodeName="));
    let labels = query.get("labelSelector").map(|text| labels(text)).unwrap_or_default();
    Some(Selection { collection: collection.to_owned(), namespace, node: node.map(str::to_owned), labels })
}

/// Reads `app=web`, `app in (web,db)` and `app`, several of which have commas between them. Nobody here asks for others.
fn labels(text: &str) -> Vec<(String, Vec<String>)> {
    let mut labels: Vec<(String, Vec<String>)> = Vec::new();
    let mut is_list = false;
    for part in text.split(',') {
        if is_list && let Some((_, values)) = labels.last_mut() {
            values.push(part.trim_end_matches(')').to_owned());
        } else if let Some((key, first)) = part.split_once(" in (") {
            labels.push((key.to_owned(), vec![first.trim_end_matches(')').to_owned()]));
            is_list = true;
        } else if let Some((key, value)) = part.split_once('=') {
            labels.push((key.to_owned(), vec![value.to_owned()]));
        } else {
            labels.push((part.to_owned(), Vec::new()));
        }
        is_list &= !part.ends_with(')');
    }
    labels
}

fn list(shared: &Shared, selection: &Selection, query: &BTreeMap<String, String>) -> Response {
    let state = shared.state();
    let newest = state.store.version();
    let asked: Option<u64> = query.get("resourceVersion").and_then(|version| version.parse().ok());
    let version = match state.fault {
        // Without a version a read is consistent, whatever the server that is asked knows by itself.
        Some((Fault::Lag, known)) if asked.is_some() => known,
        Some((Fault::LagUnsaid, known)) => known,
        _ => newest,
    };
    if asked.is_some_and(|asked| asked > version) && !matches!(state.fault, Some((Fault::LagUnsaid, _))) {
        return too_large(asked.unwrap_or_default(), version);
    }
    let items = state.store.list(selection, version);
    let metadata = json!({"resourceVersion": version.to_string()});
    json!({"kind": "List", "apiVersion": "v1", "metadata": metadata, "items": items}).to_string().into_response()
}

/// A watch at work.
struct Watch {
    shared: Arc<Shared>,
    changed: watch::Receiver<()>,
    selection: Selection,
    /// What has been told.
    at: u64,
    ends: Instant,
    bookmark: Instant,
    is_over: bool,
    /// Whether what is odd has been sent.
    was_odd: bool,
}

fn watch(shared: Arc<Shared>, selection: Selection, query: &BTreeMap<String, String>) -> Response {
    let asked: Option<u64> = query.get("resourceVersion").and_then(|version| version.parse().ok());
    let begins_with_list = query.get("sendInitialEvents").is_some_and(|value| value == "true");
    let (at, first) = {
        let state = shared.state();
        let known = match state.fault {
            Some((Fault::Lag | Fault::LagUnsaid, known)) => known,
            _ => state.store.version(),
        };
        if begins_with_list {
            if asked.is_some_and(|asked| asked > known) && !matches!(state.fault, Some((Fault::LagUnsaid, _))) {
                return too_large(asked.unwrap_or_default(), known);
            }
            let added = state.store.list(&selection, known).into_iter().map(|object| event("ADDED", &object));
            (known, added.chain([bookmark(known, true)]).collect::<String>())
        } else {
            let at = asked.unwrap_or(known);
            if !state.store.reaches(at) {
                return refusal(410, "Expired", "too old resource version");
            }
            (at, String::new())
        }
    };
    let timeout: u64 = query.get("timeoutSeconds").and_then(|seconds| seconds.parse().ok()).unwrap_or(300);
    let (changed, now) = (shared.changed.subscribe(), Instant::now());
    let (ends, bookmark) = (now + Duration::from_secs(timeout), now + BOOKMARK);
    let watch = Watch { shared, changed, selection, at, ends, bookmark, is_over: false, was_odd: false };
    let begin = stream::iter((!first.is_empty()).then_some(Ok::<_, Infallible>(first)));
    let events = stream::unfold(watch, async |mut watch| watch.next().await.map(|text| (Ok(text), watch)));
    Body::from_stream(futures::StreamExt::chain(begin, events)).into_response()
}

// === impl Watch ===

impl Watch {
    /// The next lines, or the end.
    async fn next(&mut self) -> Option<String> {
        while !self.is_over {
            self.changed.mark_unchanged();
            let lines = self.lines();
            if !lines.is_empty() || self.is_over {
                return (!lines.is_empty()).then_some(lines);
            }
            tokio::select! {
                // The other end is dropped with the server.
                _ = self.changed.changed() => {}
                () = tokio::time::sleep_until(self.ends.min(self.bookmark)) => {}
            }
        }
        None
    }

    /// What there is to tell now.
    fn lines(&mut self) -> String {
        let state = self.shared.state();
        let (fault, known) = state.fault.map_or((None, state.store.version()), |(fault, known)| (Some(fault), known));
        match fault {
            Some(Fault::Stall | Fault::Lag | Fault::LagUnsaid) if self.at >= known => return String::new(),
            Some(Fault::Cut) => {
                self.is_over = true;
                return String::new();
            }
            Some(Fault::GoneInWatch) => {
                self.is_over = true;
                return event("ERROR", &status(410, "Expired", "too old resource version"));
            }
            Some(Fault::Garbage) if !self.was_odd => {
                self.was_odd = true;
                return "{\"type\": \"ADDED\", \"object\": <html>\n".to_owned();
            }
            Some(Fault::Odd) if !self.was_odd => {
                self.was_odd = true;
                return odd();
            }
            _ => {}
        }
        let now = Instant::now();
        self.is_over = now >= self.ends;
        let until = if matches!(fault, Some(Fault::Lag | Fault::LagUnsaid | Fault::Stall)) { known } else { u64::MAX };
        let events = state.store.since(&self.selection, self.at, until);
        let mut lines: String = events.iter().map(|happened| event(happened.kind, &happened.object)).collect();
        self.at = self.at.max(state.store.version().min(until));
        if now >= self.bookmark {
            self.bookmark = now + BOOKMARK;
            lines += &bookmark(self.at, false);
        }
        lines
    }
}

/// Events that no API server sends, after which a watch can go on.
fn odd() -> String {
    let meta = json!({"name": "odd", "namespace": "clients", "labels": 7});
    let odd = json!({"metadata": meta, "spec": [], "status": "none"});
    let nameless = json!({"metadata": {}, "spec": {}});
    event("SURPRISE", &odd) + &event("ADDED", &odd) + &event("MODIFIED", &nameless)
}

fn event(kind: &str, object: &Value) -> String {
    format!("{}\n", json!({"type": kind, "object": object}))
}

fn bookmark(version: u64, ends_list: bool) -> String {
    let annotations = if ends_list { json!({"k8s.io/initial-events-end": "true"}) } else { json!({}) };
    let metadata = json!({"resourceVersion": version.to_string(), "annotations": annotations});
    event("BOOKMARK", &json!({"kind": "Any", "apiVersion": "v1", "metadata": metadata}))
}

fn too_large(asked: u64, known: u64) -> Response {
    refusal(504, "Timeout", &format!("Timeout: Too large resource version: {asked}, current: {known}"))
}

fn status(code: u16, reason: &str, message: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": message})
}

fn refusal(code: u16, reason: &str, message: &str) -> Response {
    let code = StatusCode::from_u16(code).expect("the codes above are between 100 and 999");
    (code, status(code.as_u16(), reason, message).to_string()).into_response()
}
