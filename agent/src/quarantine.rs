//! Tells of policies that are not enforced as they are written: in the log, on `/readyz`, as a metric, and as a
//! Kubernetes Event on the policy.
//!
//! It reads snapshots, so that nobody waits for it; an API server that takes no Events costs a line in the log.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use compiler::api::{NodeName, PolicyKey};
use compiler::cluster::Quarantine;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use tokio::sync::watch::Receiver;
use tracing::{debug, info, warn};

use crate::metrics::SyncMetrics;
use crate::readiness::{Guard, Readiness};
use crate::sync::Snapshot;
use crate::telemetry::Causes;

/// How long to wait between two looks: a policy that is changed all the time makes no more Events than that.
const INTERVAL: Duration = Duration::from_secs(1);
/// The most policies that `/readyz` names.
const MOST_NAMED: usize = 10;
/// The most characters of a note. An Event takes 1,024 bytes (`events.k8s.io/v1`, `Event.note`).
const LONGEST_NOTE: usize = 256;

/// Tells of every policy that comes into quarantine or out of it, for ever. Without a client there are no Events.
pub async fn follow(
    client: Option<Client>,
    node: &NodeName,
    mut snapshots: Receiver<Arc<Snapshot>>,
    readiness: &Readiness,
    metrics: &SyncMetrics,
) -> Infallible {
    let reporter = || Reporter { controller: "postern".to_owned(), instance: Some(node.to_string()) };
    let recorder = client.map(|client| Recorder::new(client, reporter()));
    let mut known: BTreeMap<PolicyKey, Quarantine> = BTreeMap::new();
    // Held for `/readyz`, which shows them.
    let mut _notes: Vec<Guard> = Vec::new();
    loop {
        let now = snapshots.borrow_and_update().quarantined();
        if now != known {
            metrics.set_quarantined(now.len());
            _notes = notes_of(&now, readiness);
            for key in known.keys().filter(|key| !now.contains_key(*key)) {
                info!(policy = %key, "out of quarantine, enforced as written or gone");
            }
            for (key, reason) in now.iter().filter(|(key, reason)| !is_told(known.get(*key), reason)) {
                warn!(policy = %key, %reason, "quarantined: it isolates its pods and allows nothing; all others are enforced");
                if let Some(recorder) = &recorder {
                    publish(recorder, key, reason).await;
                }
            }
            known = now;
        }
        tokio::time::sleep(INTERVAL).await;
        if snapshots.changed().await.is_err() {
            // The sync thread has ended, and whoever started it knows.
            std::future::pending::<()>().await;
        }
    }
}

/// Whether the reason is the one that has been told; its numbers may be others.
fn is_told(told: Option<&Quarantine>, reason: &Quarantine) -> bool {
    match (told, reason) {
        (Some(Quarantine::OverBudget { by, of, .. }), Quarantine::OverBudget { by: now_by, of: now_of, .. }) => {
            (by, of) == (now_by, now_of)
        }
        (told, reason) => told == Some(reason),
    }
}

fn notes_of(quarantined: &BTreeMap<PolicyKey, Quarantine>, readiness: &Readiness) -> Vec<Guard> {
    let named = quarantined.iter().take(MOST_NAMED);
    let mut notes: Vec<Guard> = named
        .map(|(key, reason)| readiness.note(format!("NetworkPolicy {key} is quarantined and allows nothing: {reason}")))
        .collect();
    if let Some(more) = quarantined.len().checked_sub(MOST_NAMED + 1) {
        notes.push(readiness.note(format!("{} more NetworkPolicies are quarantined", more + 1)));
    }
    notes
}

async fn publish(recorder: &Recorder, key: &PolicyKey, reason: &Quarantine) {
    let note = format!("Isolates its pods on this node and allows nothing: {reason}");
    let note: String = note.chars().take(LONGEST_NOTE).collect();
    let event = Event {
        type_: EventType::Warning,
        reason: "Quarantined".to_owned(),
        note: Some(note),
        action: "Enforce".to_owned(),
        secondary: None,
    };
    let policy = ObjectReference {
        api_version: Some("networking.k8s.io/v1".to_owned()),
        kind: Some("NetworkPolicy".to_owned()),
        namespace: Some(key.namespace.to_string()),
        name: Some(key.name.to_string()),
        ..ObjectReference::default()
    };
    match recorder.publish(&event, &policy).await {
        Ok(()) => debug!(policy = %key, "Event created"),
        Err(error) => warn!(policy = %key, error = %Causes(&error), "the API server took no Event"),
    }
}

#[cfg(test)]
mod tests {
    use compiler::cluster::{Measure, Spender};

    use super::*;

    #[test]
    fn ready_names_the_first_and_counts_the_rest() {
        let readiness = Readiness::new();
        let reason = Quarantine::OverBudget { by: Spender::Policy, of: Measure::Rules, cost: 3000, limit: 2000 };
        let key = |i: usize| PolicyKey { namespace: "shop".into(), name: format!("p{i:02}").into() };
        let quarantined = |n: usize| (0..n).map(|i| (key(i), reason.clone())).collect::<BTreeMap<_, _>>();
        let notes = notes_of(&quarantined(1), &readiness);
        assert_eq!(
            readiness.status().to_string(),
            "ready\nnote: NetworkPolicy shop/p00 is quarantined and allows nothing: it costs 3000 rules in the kernel, \
             and a policy may cost 2000\n"
        );
        drop(notes);
        let _notes = notes_of(&quarantined(MOST_NAMED + 2), &readiness);
        let told = readiness.status().notes;
        assert_eq!((told.len(), told[MOST_NAMED].as_str()), (MOST_NAMED + 1, "2 more NetworkPolicies are quarantined"));
    }

    #[test]
    fn a_reason_is_told_once_whatever_its_numbers() {
        let over = |of, cost| Quarantine::OverBudget { by: Spender::Namespace, of, cost, limit: 10 };
        assert!(is_told(Some(&over(Measure::Sets, 11)), &over(Measure::Sets, 12)));
        assert!(!is_told(Some(&over(Measure::Sets, 11)), &over(Measure::Rules, 11)));
        assert!(!is_told(None, &over(Measure::Sets, 11)));
        let refused = |reason: &str| Quarantine::Refused { reason: reason.to_owned() };
        assert!(!is_told(Some(&refused("EINVAL")), &refused("ENOMEM")));
    }
}
