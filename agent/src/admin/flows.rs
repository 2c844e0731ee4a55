//! The agent's part of `postern flows`: what it thinks of flows that it is shown.

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{ANYBODYS_TURN, Admin, at_leisure};
use crate::flows::{self, JUDGE_PATH, MOST_ASKED, SCOPE_PATH};
use crate::kernel::own_addresses;
use crate::sync::Snapshot;

/// The longest body of a request: that many flows between the longest addresses, and a filter.
const LONGEST_BODY: usize = MOST_ASKED * 180 + 1024;

pub(super) fn router() -> Router<Admin> {
    Router::new()
        .route(SCOPE_PATH, post(scope))
        .route(JUDGE_PATH, post(judge))
        .layer(DefaultBodyLimit::max(LONGEST_BODY))
}

async fn scope(State(admin): State<Admin>, body: String) -> Response {
    answer(admin, body, |snapshot, wanted| flows::scope(snapshot, &wanted)).await
}

async fn judge(State(admin): State<Admin>, body: String) -> Response {
    answer(admin, body, |snapshot, asked| {
        let own = own_addresses().map_err(|error| format!("{:#}", anyhow::Error::from(error)))?;
        flows::judge(snapshot, &own, &asked)
    })
    .await
}

/// Answers from the present snapshot, on a thread on which nothing else waits.
async fn answer<Q: DeserializeOwned + 'static, A: Serialize + 'static>(
    admin: Admin,
    body: String,
    answer: fn(&Snapshot, Q) -> Result<A, String>,
) -> Response {
    let failed =
        |error: &dyn std::error::Error| (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response();
    let snapshot: Arc<Snapshot> = admin.sync.snapshot();
    let work = move || {
        let question = serde_json::from_str(&body).map_err(|error| error.to_string())?;
        let answer = answer(&snapshot, question)?;
        serde_json::to_string(&answer).map_err(|error| error.to_string())
    };
    match at_leisure(&ANYBODYS_TURN, work).await {
        Ok(Ok(json)) => ([(CONTENT_TYPE, "application/json")], json).into_response(),
        Ok(Err(reason)) => (StatusCode::BAD_REQUEST, format!("{reason}\n")).into_response(),
        Err(error) => failed(&error),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;
    use crate::flows::{Asked, AskedFlow};

    #[test]
    fn the_longest_question_fits() {
        let longest = Ipv6Addr::from(u128::MAX).into();
        let flow = AskedFlow { client: longest, server: longest, protocol: 255, ports: Some((65535, 65535)) };
        let policy = format!("{}/{}", "n".repeat(63), "p".repeat(253));
        let asked = Asked { flows: vec![flow; MOST_ASKED], policy: Some(policy), refused: false };
        assert!(serde_json::to_string(&asked).unwrap().len() <= LONGEST_BODY);
    }
}
