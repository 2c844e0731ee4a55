//! What whoever asks may do at the API server of what the agent does there, and how long an answer takes. In the agent's
//! own pod that is what the agent may do.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use kube::core::Request;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::Check;
use crate::watch::Access;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// From when on an answer is slow.
const SLOW: Duration = Duration::from_secs(1);
/// What the agent does there, as in its ClusterRole: the verb, the group, the resource, and whether it cannot do without.
const NEEDED: [(&str, &str, &str, bool); 8] = [
    ("list", "", "namespaces", true),
    ("watch", "", "namespaces", true),
    ("list", "", "pods", true),
    ("watch", "", "pods", true),
    ("list", "networking.k8s.io", "networkpolicies", true),
    ("watch", "networking.k8s.io", "networkpolicies", true),
    ("list", "", "nodes", false),
    ("create", "events.k8s.io", "events", false),
];

/// Nothing is asked of an API of which the agent knows nothing, unless a kubeconfig is given.
pub(super) fn checks(kubeconfig: Option<PathBuf>, follows_files: bool) -> Vec<Check> {
    if follows_files && kubeconfig.is_none() {
        return Vec::new();
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let asked = runtime.context("cannot start").and_then(|runtime| {
        let asked = runtime.block_on(async { timeout(PATIENCE, ask(kubeconfig)).await });
        // A name that is being resolved must not delay the end.
        runtime.shutdown_background();
        asked.unwrap_or_else(|_| Err(anyhow::anyhow!("no answer within {} s", PATIENCE.as_secs())))
    });
    match asked {
        Ok((missing, fastest)) => vec![rights(&missing), latency(fastest)],
        Err(error) => vec![Check::note(
            "API server",
            format!("not asked: {error:#}"),
            "whether the agent may read what it needs cannot be told by this command",
            "run this in the agent's own pod, or give --kubeconfig",
        )],
    }
}

/// What of the needed is not allowed, and the fastest answer.
async fn ask(kubeconfig: Option<PathBuf>) -> anyhow::Result<(Vec<usize>, Duration)> {
    let access = match kubeconfig {
        Some(path) => Access::by_kubeconfig(&path).await?,
        None => Access::by_default().await?,
    };
    let client = access.seat().client(false).await?;
    let (mut missing, mut fastest) = (Vec::new(), Duration::MAX);
    for (at, (verb, group, resource, _)) in NEEDED.iter().enumerate() {
        let review = json!({
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": {"verb": verb, "group": group, "resource": resource}},
        });
        let request = Request::new("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews");
        let request = request.create(&Default::default(), serde_json::to_vec(&review)?)?;
        let begun = Instant::now();
        let answer: Value = client.request(request).await?;
        fastest = fastest.min(begun.elapsed());
        if answer["status"]["allowed"] != true {
            missing.push(at);
        }
    }
    Ok((missing, fastest))
}

fn rights(missing: &[usize]) -> Check {
    let remedy = "apply the ClusterRole and its binding of the install, see manifests/base/clusterrole.yaml";
    let name = |at: &usize| {
        let (verb, group, resource, _) = NEEDED[*at];
        let group = if group.is_empty() { String::new() } else { format!(".{group}") };
        format!("{verb} {resource}{group}")
    };
    let found = || format!("missing: {}", missing.iter().map(name).collect::<Vec<_>>().join(", "));
    let is_needed = |at: &usize| NEEDED[*at].3;
    if missing.is_empty() {
        Check::ok("rights", "whoever asks here may do all that the agent does at the API server")
    } else if missing.iter().any(is_needed) {
        Check::wrong("rights", found(), "what may not be read is not enforced as it is", remedy)
    } else {
        Check::note(
            "rights",
            found(),
            "the gate goes by the Node's ranges, and Events tell of quarantined policies",
            remedy,
        )
    }
}

fn latency(fastest: Duration) -> Check {
    let found = format!("answers in {} ms", fastest.as_millis());
    if fastest < SLOW {
        return Check::ok("API server", found);
    }
    Check::note(
        "API server",
        found,
        "changes of policies and pods come late",
        "see the load of the API server and the network to it",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::State;

    #[test]
    fn what_is_needed_weighs_more_than_what_is_of_use() {
        assert_eq!(rights(&[]).state, State::Ok);
        let events = rights(&[7]);
        assert_eq!((events.state, &*events.found), (State::Note, "missing: create events.events.k8s.io"));
        let both = rights(&[5, 7]);
        let found = "missing: watch networkpolicies.networking.k8s.io, create events.events.k8s.io";
        assert_eq!((both.state, &*both.found), (State::Wrong, found));
        assert_eq!(latency(Duration::from_millis(12)).found, "answers in 12 ms");
        assert_eq!(latency(SLOW).state, State::Note);
    }
}
