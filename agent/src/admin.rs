//! What the agent tells over HTTP: `/livez`, `/readyz`, `/metrics`, `/debug/table`, `/debug/status`, `/debug/policy/`,
//! `/debug/explain` and `/debug/flows/` to anybody on the node, and on its [`socket`] `/denials` to root.

mod flows;
mod server;
pub mod socket;

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use compiler::api::PolicyKey;
use serde::Serialize;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;
use tokio::task::JoinError;

use crate::denials;
use crate::explanation::{self, explain_snapshot};
use crate::kernel::Counters;
use crate::metrics::Metrics;
use crate::readiness::Readiness;
use crate::status::{self, PolicyStatus, Status};
use crate::sync::Handle;

/// How long the sync thread may be silent. It speaks up once a second, and not during a commit, the longest of which
/// take some seconds.
const LONGEST_SILENCE: Duration = Duration::from_secs(60);
/// The longest body of a request. A question is some hundred bytes.
const LONGEST_BODY: usize = 16 * 1024;
/// The same of a probe with the pods that it is about, and their labels.
const LONGEST_EXPLAINED: usize = 256 * 1024;
/// The media type of what `/metrics` answers.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What is told about.
#[derive(Debug, Clone)]
pub struct Admin {
    /// The sync thread.
    pub sync: Handle,
    /// What is waited for.
    pub readiness: Readiness,
    /// All metrics.
    pub metrics: Arc<Metrics>,
    /// What reads the counters of the table.
    pub counters: Counters,
    /// Whether refused packets are told of, as far as the agent is to.
    pub tells_denials: bool,
    /// The table as it was printed last, with the epoch of which it is; gone when everybody has it who was being answered.
    pub printed: Arc<Mutex<(u64, Weak<String>)>>,
}

/// A text that answers share.
struct Shared(Arc<String>);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

/// Answers requests, for ever.
pub async fn serve(listener: TcpListener, admin: Admin) -> Infallible {
    let metrics_of_server = admin.metrics.admin.clone();
    let router = Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route(status::TABLE_PATH, get(table))
        .route(status::PATH, get(status))
        .route(status::POLICY_PATH, get(policy))
        .route(explanation::PATH, post(explain).layer(DefaultBodyLimit::max(LONGEST_EXPLAINED)))
        .merge(flows::router())
        .layer(DefaultBodyLimit::max(LONGEST_BODY))
        .with_state(admin);
    server::serve(listener, router, metrics_of_server).await
}

/// Answers requests on the socket for root of the node, for ever.
pub async fn serve_private(listener: UnixListener, admin: Admin) -> Infallible {
    let metrics_of_server = admin.metrics.admin.clone();
    let router =
        Router::new().route(denials::PATH, post(denials)).layer(DefaultBodyLimit::max(LONGEST_BODY)).with_state(admin);
    server::serve(listener, router, metrics_of_server).await
}

async fn livez(State(admin): State<Admin>) -> Response {
    let silence = admin.sync.silence();
    if silence > LONGEST_SILENCE {
        let text = format!("the sync thread has not been seen for {} s\n", silence.as_secs());
        return (StatusCode::SERVICE_UNAVAILABLE, text).into_response();
    }
    "alive\n".into_response()
}

async fn readyz(State(admin): State<Admin>) -> Response {
    let status = admin.readiness.status();
    let code = if status.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, format!("{status}{}", admin.metrics.watch.freshness())).into_response()
}

async fn metrics(State(admin): State<Admin>) -> Response {
    let counters = admin.counters.read().await;
    ([(CONTENT_TYPE, OPENMETRICS)], admin.metrics.encode(&admin.sync.snapshot(), &counters)).into_response()
}

/// What the agent is and waits for, for programs.
async fn status(State(admin): State<Admin>) -> Response {
    json(&Status::of(&admin.sync.snapshot(), &admin.readiness, &admin.metrics))
}

/// How it stands with one policy.
async fn policy(State(admin): State<Admin>, Path((namespace, name)): Path<(String, String)>) -> Response {
    let key = PolicyKey { namespace: namespace.into(), name: name.into() };
    json(&PolicyStatus::of(&admin.sync.snapshot(), &key))
}

fn json(value: &impl Serialize) -> Response {
    match serde_json::to_string(value) {
        Ok(json) => ([(CONTENT_TYPE, "application/json")], json).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

/// What the kernel holds as far as the agent knows, as nft prints it.
async fn table(State(admin): State<Admin>) -> Response {
    match at_leisure(&ANYBODYS_TURN, move || admin.printed_table()).await {
        Ok(text) => ([(CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

/// The turn of whoever asks on the address of the agent, and that of root on its socket, whom nobody else keeps waiting.
static ANYBODYS_TURN: Semaphore = Semaphore::const_new(1);
static ROOTS_TURN: Semaphore = Semaphore::const_new(1);

/// Does what takes a while, one after the other, so that nobody who asks takes more than one core of the node, and on a thread
/// on which nothing else waits: watches are read on that of the server.
async fn at_leisure<T: Send + 'static>(
    turn: &'static Semaphore,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, JoinError> {
    // It is never closed. Who has gone meanwhile is not answered, and who goes while he is leaves his turn when it ends.
    let turn = turn.acquire().await.ok();
    tokio::task::spawn_blocking(move || {
        let _turn = turn;
        work()
    })
    .await
}

impl Admin {
    /// The table, printed once for all that are being answered while it is the same: it may be tens of megabytes.
    fn printed_table(&self) -> Bytes {
        let snapshot = self.sync.snapshot();
        let mut printed = self.printed.lock().unwrap_or_else(PoisonError::into_inner);
        let (epoch, last) = &*printed;
        if let Some(text) = last.upgrade().filter(|_| *epoch == snapshot.epoch) {
            return Bytes::from_owner(Shared(text));
        }
        let text = Arc::new(snapshot.table().map_or_else(String::new, ToString::to_string));
        *printed = (snapshot.epoch, Arc::downgrade(&text));
        Bytes::from_owner(Shared(text))
    }
}

/// What the policies of this node say of a probe.
async fn explain(State(admin): State<Admin>, body: String) -> Response {
    let asked = match serde_json::from_str(&body) {
        Ok(asked) => asked,
        Err(error) => return (StatusCode::BAD_REQUEST, format!("{error}\n")).into_response(),
    };
    // A pod may have thousands of rules, of which the nearest is looked for.
    let answering = at_leisure(&ANYBODYS_TURN, move || explain_snapshot(&admin.sync.snapshot(), &asked));
    match answering.await.map(|answer| answer.map(|explanation| serde_json::to_string(&explanation))) {
        Ok(Ok(Ok(json))) => ([(CONTENT_TYPE, "application/json")], json).into_response(),
        Ok(Err(reason)) => (StatusCode::BAD_REQUEST, format!("{reason}\n")).into_response(),
        Ok(Ok(Err(error))) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

/// What was refused.
async fn denials(State(admin): State<Admin>, body: String) -> Response {
    let asked = match serde_json::from_str(&body) {
        Ok(asked) => asked,
        Err(error) => return (StatusCode::BAD_REQUEST, format!("{error}\n")).into_response(),
    };
    // Ten thousand are judged again, which takes a while.
    let answering = at_leisure(&ROOTS_TURN, move || {
        let notes = admin.readiness.status().notes;
        let note = notes.into_iter().find(|note| note.starts_with(denials::UNTOLD));
        let note = if admin.tells_denials { note } else { Some("the agent runs with --denials=off".to_owned()) };
        let answer = denials::answer(&admin.metrics.ledger, &admin.sync.snapshot(), note, &asked);
        serde_json::to_string(&answer).map_err(|error| error.to_string())
    });
    match answering.await.map_err(|error| error.to_string()).flatten() {
        Ok(json) => ([(CONTENT_TYPE, "application/json")], json).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}
