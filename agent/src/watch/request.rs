//! Requests for lists and watches, and the begin of their answers.

use std::time::Duration;

use http::header::{LOCATION, RETRY_AFTER};
use http::{HeaderMap, Request, Response, StatusCode, Version};
use kube::Client;
use kube::api::{ListParams, VersionMatch, WatchParams};
use kube::client::Body;
use kube::core::Status;
use kube::core::request;

use super::body::Bytes;
use super::failure::Failure;

/// How long the begin of an answer, the next piece of a list, or the rest of a line may take. A server that is busy
/// queues a request for up to 15 s.
pub(super) const PATIENCE: Duration = Duration::from_secs(25);
/// How many objects a page has.
pub(super) const PAGE: u32 = 500;
/// How much is read of the words of a refusal.
const LONGEST_REFUSAL: usize = 64 * 1024;

/// What is asked for: a collection, or the part of it that selectors leave.
#[derive(Debug, Clone)]
pub(super) struct Collection {
    /// `/api/v1/pods`
    pub(super) path: String,
    /// The field selector.
    pub(super) fields: Option<String>,
    /// The label selector.
    pub(super) labels: Option<String>,
}

/// An answer that began well.
pub(super) struct Answer {
    pub(super) body: Bytes,
    /// Whether a connection that dies is noticed by itself, see [`connect`](super::connect).
    pub(super) pinged: bool,
}

// === impl Collection ===

impl Collection {
    /// Asks for all objects, by a watch that begins with them and is no older than a version.
    pub(super) async fn stream(&self, client: &Client, floor: Option<&str>, time: Duration) -> Result<Answer, Failure> {
        let params = WatchParams { send_initial_events: true, ..self.watch_params(time) };
        send(client, request::Request::new(&self.path).watch(&params, floor.unwrap_or_default())).await
    }

    /// Asks for what happens after a version.
    pub(super) async fn watch(&self, client: &Client, version: &str, time: Duration) -> Result<Answer, Failure> {
        send(client, request::Request::new(&self.path).watch(&self.watch_params(time), version)).await
    }

    /// Asks for a page of a list that is no older than a version, or for the one that a token leads to.
    pub(super) async fn page(
        &self,
        client: &Client,
        floor: Option<String>,
        limit: Option<u32>,
        token: Option<String>,
    ) -> Result<Answer, Failure> {
        let (version_match, resource_version) = match floor {
            // The token says of which version its page is.
            Some(floor) if token.is_none() => (Some(VersionMatch::NotOlderThan), Some(floor)),
            _ => (None, None),
        };
        let params = ListParams {
            field_selector: self.fields.clone(),
            label_selector: self.labels.clone(),
            limit,
            continue_token: token,
            version_match,
            resource_version,
            ..ListParams::default()
        };
        send(client, request::Request::new(&self.path).list(&params)).await
    }

    fn watch_params(&self, time: Duration) -> WatchParams {
        let timeout = u32::try_from(time.as_secs()).ok();
        WatchParams {
            field_selector: self.fields.clone(),
            label_selector: self.labels.clone(),
            timeout,
            bookmarks: true,
            ..WatchParams::default()
        }
    }
}

async fn send(client: &Client, request: Result<Request<Vec<u8>>, request::Error>) -> Result<Answer, Failure> {
    let request = request.map_err(|error| Failure::broken(&error))?.map(Body::from);
    let silent = |_| Failure::Silent { waited_for: "answer", time: PATIENCE };
    let answer = tokio::time::timeout(PATIENCE, client.send(request)).await.map_err(silent)?;
    let answer = answer.map_err(|error| Failure::broken(&error))?;
    if answer.status() == StatusCode::OK {
        let pinged = answer.version() == Version::HTTP_2;
        return Ok(Answer { body: Bytes::new(answer.into_body()), pinged });
    }
    Err(refusal(answer).await)
}

/// What an answer with another status than 200 says. Redirects are not followed: an API server sends none, and who
/// does may send the credentials elsewhere.
async fn refusal(answer: Response<Body>) -> Failure {
    let code = answer.status();
    let retry_after = retry_after(answer.headers());
    if code.is_redirection() {
        let to = answer.headers().get(LOCATION).map_or("nowhere".into(), |to| String::from_utf8_lossy(to.as_bytes()));
        // Each request has another query, and what differs is told anew.
        let to = to.split('?').next().unwrap_or_default();
        let message = format!("redirected to {to}, which is not followed; the address of the API server is wrong");
        return Failure::Refused { status: status(code, message), retry_after };
    }
    let mut body = Bytes::new(answer.into_body());
    // Words that do not come are not worth a failure of their own.
    let text = body.all(LONGEST_REFUSAL).await.unwrap_or_default();
    let said = serde_json::from_slice::<Status>(&text).ok().filter(|status| !status.message.is_empty());
    let status = match said {
        Some(said) => Box::new(Status { code: code.as_u16(), ..said }),
        None => status(code, String::from_utf8_lossy(&text).trim().chars().take(200).collect()),
    };
    Failure::Refused { status, retry_after }
}

fn status(code: StatusCode, message: String) -> Box<Status> {
    let reason = code.canonical_reason().unwrap_or("of no known meaning").to_owned();
    Box::new(Status { code: code.as_u16(), reason, message, ..Status::default() })
}

/// The header in seconds; API servers send no dates.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}
