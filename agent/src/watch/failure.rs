//! What went wrong with a watch, in one line that says what to do about it.

use kube::core::Status;
use kube::runtime::watcher::Error;

use crate::telemetry::Causes;

/// The error in one line.
pub(super) fn describe(error: &Error) -> String {
    match status(error) {
        Some(status) if status.code == 403 => {
            format!("forbidden: {}; the ClusterRole must grant list and watch", status.message)
        }
        Some(status) if status.code == 401 => format!("not authenticated: {}", status.message),
        Some(status) => format!("{} {}: {}", status.code, status.reason, status.message),
        None => match error {
            Error::InitialListFailed(source) | Error::WatchStartFailed(source) | Error::WatchFailed(source) => {
                Causes(source).to_string()
            }
            Error::WatchError(_) | Error::NoResourceVersion => Causes(error).to_string(),
        },
    }
}

/// Whether the server does not do streaming lists: it is older than Kubernetes 1.32, or has the feature off. It then
/// finds a parameter of the request invalid, or forbidden in the sense of validation, which is not that of 403.
pub(super) fn is_refused_streaming(error: &Error) -> bool {
    matches!(error, Error::WatchStartFailed(_)) && status(error).is_some_and(|status| matches!(status.code, 400 | 422))
}

/// Whether this is how a watch ends in the course of things: what it asked for has expired, and a list follows.
pub(super) fn is_expired(error: &Error) -> bool {
    status(error).is_some_and(|status| status.code == 410)
}

fn status(error: &Error) -> Option<&Status> {
    match error {
        Error::WatchError(status) => Some(status),
        Error::InitialListFailed(kube::Error::Api(status))
        | Error::WatchStartFailed(kube::Error::Api(status))
        | Error::WatchFailed(kube::Error::Api(status)) => Some(status),
        Error::InitialListFailed(_) | Error::WatchStartFailed(_) | Error::WatchFailed(_) | Error::NoResourceVersion => {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(code: u16, reason: &str, message: &str) -> Error {
        Error::WatchStartFailed(kube::Error::Api(Status::failure(message, reason).with_code(code).boxed()))
    }

    #[test]
    fn a_refusal_is_in_the_servers_words() {
        let error = refusal(403, "Forbidden", r#"pods is forbidden: User "x" cannot watch resource "pods""#);
        let text = describe(&error);
        assert!(text.starts_with("forbidden: pods is forbidden") && text.ends_with("list and watch"), "{text}");
        assert!(!is_refused_streaming(&error));
    }

    #[test]
    fn an_old_server_is_known_by_what_it_finds_invalid() {
        let message = "sendInitialEvents: Forbidden: sendInitialEvents is forbidden for watch unless the WatchList \
            feature gate is enabled";
        assert!(is_refused_streaming(&refusal(422, "Invalid", message)));
        assert!(!is_refused_streaming(&refusal(500, "InternalError", "etcd")));
        assert!(is_expired(&Error::WatchError(Status::failure("too old", "Expired").with_code(410).boxed())));
    }
}
