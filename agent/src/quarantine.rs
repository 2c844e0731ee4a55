//! Tells of policies that are not enforced as they are written: in the log, on `/readyz`, as a metric, and as a
//! Kubernetes Event on the policy.
//!
//! It reads snapshots, so that nobody waits for it; an API server that takes no Events costs a line in the log.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use anyhow::anyhow;
use compiler::api::{NodeName, PolicyKey};
use compiler::cluster::Quarantine;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::PostParams;
use tokio::sync::watch::Receiver;
use tokio::time::timeout;
use tracing::{debug, info, warn};

use crate::metrics::SyncMetrics;
use crate::readiness::{Guard, Readiness};
use crate::sync::Snapshot;
use crate::watch::Access;

/// How long to wait between two looks: a policy that is changed all the time makes no more Events than that.
const INTERVAL: Duration = Duration::from_secs(1);
/// The most policies that `/readyz` names.
const MOST_NAMED: usize = 10;
/// What is told of a policy in quarantine, and of so many more.
const IS_QUARANTINED: &str = " is quarantined and allows nothing: ";
const ARE_QUARANTINED: &str = " more NetworkPolicies are quarantined";
/// The most characters of a note. An Event takes 1,024 bytes (`events.k8s.io/v1`, `Event.note`).
const LONGEST_NOTE: usize = 256;

/// How long the API server may take for an Event, which is worth no more.
const PATIENCE: Duration = Duration::from_secs(5);

/// Tells of every policy that comes into quarantine or out of it, for ever. Without an API there are no Events.
pub async fn follow(
    access: Option<Access>,
    node: &NodeName,
    mut snapshots: Receiver<Arc<Snapshot>>,
    readiness: &Readiness,
    metrics: &SyncMetrics,
) -> Infallible {
    let mut known: BTreeMap<PolicyKey, Quarantine> = BTreeMap::new();
    // Held for `/readyz`, which shows them.
    let mut _notes: Vec<Guard> = Vec::new();
    loop {
        let now = snapshots.borrow_and_update().quarantined();
        if now != known {
            let mut takes_events = true;
            metrics.set_quarantined(now.len());
            _notes = notes_of(&now, readiness);
            for key in known.keys().filter(|key| !now.contains_key(*key)) {
                info!(policy = %key, "out of quarantine, enforced as written or gone");
            }
            for (key, reason) in now.iter().filter(|(key, reason)| !is_told(known.get(*key), reason)) {
                warn!(policy = %key, %reason, "quarantined: it isolates its pods and allows nothing; all others are enforced");
                let Some(access) = access.as_ref().filter(|_| takes_events) else { continue };
                let published = timeout(PATIENCE, publish(access, node, key, reason)).await;
                if let Err(error) = published.unwrap_or_else(|_| Err(anyhow!("no answer within {PATIENCE:?}"))) {
                    // The rest would only keep waiting what is said here.
                    takes_events = false;
                    warn!(policy = %key, error = format!("{error:#}"), "the API server took no Event, and is sent no more for now");
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

/// Whether a note is one of those that tell of policies in quarantine.
pub fn is_told_by(note: &str) -> bool {
    note.starts_with("NetworkPolicy ") && note.contains(IS_QUARANTINED) || note.ends_with(ARE_QUARANTINED)
}

fn notes_of(quarantined: &BTreeMap<PolicyKey, Quarantine>, readiness: &Readiness) -> Vec<Guard> {
    let named = quarantined.iter().take(MOST_NAMED);
    let mut notes: Vec<Guard> =
        named.map(|(key, reason)| readiness.note(format!("NetworkPolicy {key}{IS_QUARANTINED}{reason}"))).collect();
    if let Some(more) = quarantined.len().checked_sub(MOST_NAMED + 1) {
        notes.push(readiness.note(format!("{}{ARE_QUARANTINED}", more + 1)));
    }
    notes
}

async fn publish(access: &Access, node: &NodeName, key: &PolicyKey, reason: &Quarantine) -> anyhow::Result<()> {
    let note = format!("Isolates its pods on this node and allows nothing: {reason}");
    let event = Event {
        metadata: ObjectMeta { generate_name: Some("postern-".to_owned()), ..ObjectMeta::default() },
        event_time: Some(MicroTime(Timestamp::now())),
        reporting_controller: Some("postern".to_owned()),
        reporting_instance: Some(node.to_string()),
        action: Some("Enforce".to_owned()),
        reason: Some("Quarantined".to_owned()),
        type_: Some("Warning".to_owned()),
        note: Some(note.chars().take(LONGEST_NOTE).collect()),
        regarding: Some(ObjectReference {
            api_version: Some("networking.k8s.io/v1".to_owned()),
            kind: Some("NetworkPolicy".to_owned()),
            namespace: Some(key.namespace.to_string()),
            name: Some(key.name.to_string()),
            ..ObjectReference::default()
        }),
        ..Event::default()
    };
    let client = access.seat().client(false).await?;
    Api::namespaced(client, &key.namespace).create(&PostParams::default(), &event).await?;
    debug!(policy = %key, "Event created");
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use compiler::Compiler;
    use compiler::api::{Item, Object, parse};
    use compiler::cluster::{Change, Event as ClusterEvent, Measure, PodSource, Spender};
    use compiler::diff::Generation;
    use compiler::nft::Deny;
    use http::{Request, Response};
    use kube::Client;
    use tokio::sync::watch::channel;
    use tokio::time::Instant;

    use super::*;
    use crate::metrics::Metrics;
    use crate::sync::Enforced;
    use crate::telemetry::logged::Logged;

    const NODE: &str = "node-1";

    /// What is in force where the kernel refuses policies of these names, which isolate a pod of the node.
    fn snapshot_with_refused(names: &[&str]) -> Arc<Snapshot> {
        let mut compiler = Compiler::new(NodeName(NODE.into()), Deny::Drop);
        let pod = serde_json::json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "shop", "name": "web"},
            "spec": {"nodeName": NODE}, "status": {"podIPs": [{"ip": "10.0.0.1"}]},
        });
        let policies = names.iter().map(|name| {
            serde_json::json!({
                "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
                "metadata": {"namespace": "shop", "name": name}, "spec": {"podSelector": {}},
            })
        });
        for value in std::iter::once(pod).chain(policies) {
            let Some(Item::Object { parsed, .. }) = parse(&(&value).into(), "test").into_iter().next() else {
                panic!("{value}")
            };
            compiler.apply(match parsed.value {
                Object::Pod(pod) => ClusterEvent::Pods(PodSource::Cluster, Change::Applied(pod)),
                Object::NetworkPolicy(policy) => ClusterEvent::Policies(Change::Applied(policy)),
                other @ (Object::Namespace(_) | Object::Service(_) | Object::EndpointSlice(_) | Object::Node(_)) => {
                    panic!("{other:?}")
                }
            });
        }
        for name in names {
            compiler.refuse(&PolicyKey { namespace: "shop".into(), name: (*name).into() }, "EINVAL".to_owned());
        }
        let (ir, table) = (compiler.ir(), Arc::new(compiler.table()));
        let enforced = Some(Arc::new(Enforced { generation: Generation(1), since: Default::default(), ir, table }));
        Arc::new(Snapshot {
            epoch: 1,
            objects: Vec::new(),
            pods: compiler.state().pods().clone(),
            policies: Default::default(),
            namespaces: Default::default(),
            links: Default::default(),
            enforced,
        })
    }

    /// A server that answers nothing, and how long after the begin it was asked.
    fn silent_server() -> (Access, Arc<Mutex<Vec<Duration>>>) {
        let (asked, begun) = (Arc::<Mutex<Vec<Duration>>>::default(), Instant::now());
        let server = tower::service_fn({
            let asked = asked.clone();
            move |_: Request<kube::client::Body>| {
                asked.lock().unwrap().push(begun.elapsed());
                std::future::pending::<Result<Response<axum::body::Body>, Infallible>>()
            }
        });
        (Access::fixed(Client::new(server, "default")), asked)
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_takes_no_event_is_left_alone_until_there_is_more_to_tell() {
        let log = Logged::default();
        let lines = log.clone();
        let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || lines.clone()).finish();
        let _logged = tracing::subscriber::set_default(subscriber);
        let (access, asked) = silent_server();
        let (sender, receiver) = channel(snapshot_with_refused(&["a", "b", "c"]));
        let (node, readiness, metrics) = (NodeName(NODE.into()), Readiness::new(), Metrics::new());
        let telling = follow(Some(access), &node, receiver, &readiness, &metrics.sync);
        let play = async {
            tokio::time::sleep(4 * PATIENCE).await;
            sender.send_replace(snapshot_with_refused(&["a", "b", "c", "d"]));
            tokio::time::sleep(4 * PATIENCE).await;
        };
        tokio::select! {
            never = telling => match never {},
            () = play => {}
        }
        assert_eq!(*asked.lock().unwrap(), [Duration::ZERO, 4 * PATIENCE], "the first of each look");
        let log = log.text();
        let with = |text: &str| log.lines().filter(|line| line.contains(text)).count();
        assert_eq!(with("the API server took no Event, and is sent no more for now"), 2, "{log}");
        assert_eq!(with("no answer within 5s"), 2, "{log}");
        assert_eq!(with("quarantined: it isolates its pods"), 4, "each policy is told of all the same: {log}");
    }

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
