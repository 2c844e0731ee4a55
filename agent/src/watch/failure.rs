//! What went wrong with a watch, in one line that says what to do about it.

use std::time::Duration;

use kube::core::Status;
use kube::core::response::StatusCause;

use crate::telemetry::Causes;

/// Why a list or watch did not go on.
#[derive(Debug)]
pub(super) enum Failure {
    /// The server refused, by its status code or in the course of a watch.
    Refused {
        /// What it said. The code is always there.
        status: Box<Status>,
        /// How long it asks to be left alone.
        retry_after: Option<Duration>,
    },
    /// There was no connection, or it broke.
    Broken(String),
    /// Nothing came for so long.
    Silent { waited_for: &'static str, time: Duration },
    /// The watch ended in good order, but right after its begin.
    Early,
    /// The list ended before it was complete.
    Incomplete,
    /// The server said what cannot be understood.
    Odd(String),
    /// The server answered with an older state than was seen.
    Older { version: String, seen: u64 },
}

// === impl Failure ===

impl Failure {
    /// The failure in one line.
    pub(super) fn describe(&self) -> String {
        match self {
            Failure::Refused { status, .. } => match status.code {
                403 => format!("forbidden: {}; the ClusterRole must grant list and watch", status.message),
                401 => format!("not authenticated: {}", status.message),
                code => format!("{code} {}: {}", status.reason, status.message),
            },
            Failure::Broken(text) => text.clone(),
            Failure::Silent { waited_for, time } => {
                format!("silent: no {waited_for} for {} s, the connection is given up", time.as_secs())
            }
            Failure::Early => "the server ends the watch right after its begin".to_owned(),
            Failure::Incomplete => "the server ended the list before it was complete".to_owned(),
            Failure::Odd(text) => text.clone(),
            Failure::Older { version, seen } => {
                format!("the server lags: it answers as of version {version}, and {seen} was seen")
            }
        }
    }

    /// From the client, or from the body of an answer.
    pub(super) fn broken(error: &(dyn std::error::Error + 'static)) -> Failure {
        Failure::Broken(Causes(error).to_string())
    }

    /// How long the server asks to be left alone.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        let Failure::Refused { status, retry_after } = self else { return None };
        let seconds = status.details.as_ref().map_or(0, |details| details.retry_after_seconds);
        retry_after.or_else(|| (seconds > 0).then(|| Duration::from_secs(seconds.into())))
    }

    /// Whether the server does not do streaming lists: it is older than Kubernetes 1.32, or has the feature off. It then
    /// finds a parameter of the request invalid, or forbidden in the sense of validation, which is not that of 403.
    pub(super) fn is_refused_streaming(&self) -> bool {
        matches!(self.code(), Some(400 | 422))
    }

    /// Whether a streaming list was begun and not completed, as by a server that does not know the parameter.
    pub(super) fn is_unfinished_streaming(&self) -> bool {
        matches!(self, Failure::Incomplete | Failure::Silent { .. })
    }

    /// Whether the version, or the token of a page, has expired.
    pub(super) fn is_expired(&self) -> bool {
        self.code() == Some(410)
    }

    /// Whether the server does not take who is asking.
    pub(super) fn is_unauthenticated(&self) -> bool {
        self.code() == Some(401)
    }

    /// Whether another server, or a list, is no use before it is known whether the store is still the same.
    pub(super) fn is_doubtful(&self) -> bool {
        match self {
            Failure::Older { .. } => true,
            Failure::Refused { status, .. } => {
                let causes = status.details.iter().flat_map(|details| &details.causes);
                causes.into_iter().any(|StatusCause { reason, .. }| reason == "ResourceVersionTooLarge")
                    || status.message.contains("Too large resource version")
            }
            Failure::Broken(_) | Failure::Silent { .. } | Failure::Early | Failure::Incomplete | Failure::Odd(_) => {
                false
            }
        }
    }

    /// Whether the next attempt is a list: a watch from the same version would meet the same thing.
    pub(super) fn needs_list(&self) -> bool {
        match self {
            Failure::Refused { status, .. } => {
                !self.is_doubtful() && matches!(status.code, 400..=499) && !matches!(status.code, 401 | 403 | 429)
            }
            Failure::Odd(_) | Failure::Older { .. } | Failure::Incomplete => true,
            Failure::Broken(_) | Failure::Silent { .. } | Failure::Early => false,
        }
    }

    fn code(&self) -> Option<u16> {
        match self {
            Failure::Refused { status, .. } => Some(status.code),
            Failure::Broken(_)
            | Failure::Silent { .. }
            | Failure::Early
            | Failure::Incomplete
            | Failure::Odd(_)
            | Failure::Older { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(code: u16, reason: &str, message: &str) -> Failure {
        let status = Status::failure(message, reason).with_code(code).boxed();
        Failure::Refused { status, retry_after: None }
    }

    #[test]
    fn a_refusal_is_in_the_servers_words() {
        let failure = refusal(403, "Forbidden", r#"pods is forbidden: User "x" cannot watch resource "pods""#);
        let text = failure.describe();
        assert!(text.starts_with("forbidden: pods is forbidden") && text.ends_with("list and watch"), "{text}");
        assert!(!failure.is_refused_streaming() && !failure.needs_list());
    }

    #[test]
    fn an_old_server_is_known_by_what_it_finds_invalid() {
        let message = "sendInitialEvents: Forbidden: sendInitialEvents is forbidden for watch unless the WatchList \
            feature gate is enabled";
        assert!(refusal(422, "Invalid", message).is_refused_streaming());
        assert!(!refusal(500, "InternalError", "etcd").is_refused_streaming());
        assert!(refusal(410, "Expired", "too old").is_expired());
    }

    #[test]
    fn a_server_that_lags_is_known_by_its_words() {
        let lags = refusal(504, "Timeout", "Timeout: Too large resource version: 90, current: 80");
        assert!(lags.is_doubtful() && !lags.needs_list());
        assert!(!refusal(504, "Timeout", "etcd").is_doubtful());
    }
}
