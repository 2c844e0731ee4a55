//! Whether the node name may be wrong: an agent that looks for the pods of another name polices nothing, and is content.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use tracing::{info, warn};

use crate::readiness::Readiness;
use crate::sync::Snapshot;

/// How often pods are looked for: a node that is new has none for a moment.
const INTERVAL: Duration = Duration::from_secs(10);
/// How often while there are none.
const INTERVAL_WHILE_TOLD: Duration = Duration::from_secs(1);

/// Tells while no pod is on the node, for ever.
pub(super) async fn look_for_pods(snapshot: impl Fn() -> Arc<Snapshot>, readiness: &Readiness) -> Infallible {
    loop {
        sleep(INTERVAL).await;
        if !lacks_pods(&snapshot()) {
            continue;
        }
        let text = format!("no pod that is known is on node {}: is --node-name right?", snapshot().pods.node());
        warn!("{text}");
        let note = readiness.note(text);
        while lacks_pods(&snapshot()) {
            sleep(INTERVAL_WHILE_TOLD).await;
        }
        drop(note);
        info!("there are pods on this node now");
    }
}

/// Whether the rules are in force and no pod is on the node. One in the network of the node, as the agent itself may be,
/// is there as well as any.
fn lacks_pods(snapshot: &Snapshot) -> bool {
    let pods = &snapshot.pods;
    let is_here = || pods.iter().any(|pod| pod.node.as_ref() == Some(pods.node()));
    snapshot.enforced.is_some() && pods.local().len() == 0 && !is_here()
}

#[cfg(test)]
mod tests {
    use compiler::Compiler;
    use compiler::api::{Item, NodeName, Object, parse};
    use compiler::cluster::{Change, Event, PodSource};
    use compiler::diff::Generation;
    use compiler::nft::Deny;
    use tokio::sync::watch::channel;

    use super::*;
    use crate::sync::Enforced;

    /// What is known where one pod is on a node, after the first commit.
    fn snapshot_with_pod_on(node: &str) -> Snapshot {
        let pod = serde_json::json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "kube-system", "name": "a"},
            "spec": {"nodeName": node, "hostNetwork": true}, "status": {"podIPs": [{"ip": "192.0.2.1"}]},
        });
        let Some(Item::Object { parsed, .. }) = parse(&pod.into(), "test").into_iter().next() else {
            panic!("not an object")
        };
        let Object::Pod(pod) = parsed.value else { panic!("not a pod") };
        let mut compiler = Compiler::new(NodeName("node-1".into()), Deny::Drop);
        compiler.apply(Event::Pods(PodSource::Cluster, Change::Applied(pod)));
        let (ir, table) = (compiler.ir(), Arc::new(compiler.table()));
        let enforced = Some(Arc::new(Enforced { generation: Generation(1), since: Default::default(), ir, table }));
        Snapshot {
            epoch: 1,
            objects: Vec::new(),
            pods: compiler.state().pods().clone(),
            policies: Default::default(),
            namespaces: Default::default(),
            links: Default::default(),
            enforced,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_without_pods_is_told_of_until_one_appears() {
        let readiness = Readiness::new();
        let notes = || readiness.status().notes;
        let before = Snapshot { enforced: None, ..snapshot_with_pod_on("node-2") };
        let (sender, receiver) = channel(Arc::new(before));
        let snapshot = || receiver.borrow().clone();
        let look = async { match look_for_pods(snapshot, &readiness).await {} };
        let play = async {
            sleep(3 * INTERVAL).await;
            assert_eq!(notes(), [""; 0], "nothing is known before the first commit");
            sender.send_replace(Arc::new(snapshot_with_pod_on("node-2")));
            sleep(2 * INTERVAL).await;
            assert_eq!(notes(), ["no pod that is known is on node node-1: is --node-name right?"]);
            assert!(readiness.status().is_ready());
            sender.send_replace(Arc::new(snapshot_with_pod_on("node-1")));
            sleep(2 * INTERVAL_WHILE_TOLD).await;
            assert_eq!(notes(), [""; 0]);
        };
        tokio::select! {
            () = look => {}
            () = play => {}
        }
    }
}
