//! From which ranges this node gives its pods addresses, and whether the gate stands that goes by them.
//!
//! The API server has the ranges in the Node's `spec.podCIDRs`. They are set once in its life, so that a question now and
//! then is enough and no watch is kept for it. What an earlier life knew stands in the kernel's table until then.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use compiler::api::NodeName;
use compiler::cluster::Event;
use compiler::policy::OpenGate;
use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::ListParams;
use tokio::sync::watch::Receiver;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use crate::backoff::Backoff;
use crate::readiness::{Guard, Readiness};
use crate::sync::{self, Snapshot};
use crate::watch::Access;

/// How often the Node is asked for: it may be another one of the name one day.
const INTERVAL: Duration = Duration::from_secs(600);
/// The same while it has no ranges: it is given them soon after it has come, where it is given any.
const INTERVAL_WITHOUT: Duration = Duration::from_secs(60);
/// How long the API server may take.
const PATIENCE: Duration = Duration::from_secs(25);
/// How long to wait after something was told.
const PAUSE: Duration = Duration::from_secs(1);

/// Where the ranges are known from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PodRanges {
    /// Nowhere: nothing is refused for them.
    Off,
    /// From the command line.
    Given(Vec<IpNet>),
    /// From the Node.
    OfNode,
}

/// Asks for the Node's ranges, and tells the sync thread, for ever. Without an API whoever reads files tells.
pub async fn follow(access: Option<Access>, node: &NodeName, sync: &sync::Handle, readiness: &Readiness) -> Infallible {
    let Some(access) = access else { return std::future::pending().await };
    let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
    let (mut told, mut note) = (None, None::<(String, Guard)>);
    loop {
        let asked = timeout(PATIENCE, ask(&access, node)).await;
        match asked.unwrap_or_else(|_| Err(anyhow!("no answer within {PATIENCE:?}"))) {
            Ok(ranges) => {
                backoff.reset();
                note = None;
                let interval = if ranges.is_empty() { INTERVAL_WITHOUT } else { INTERVAL };
                if told.as_ref() != Some(&ranges) {
                    info!(?ranges, "the ranges of this node's pods");
                    sync.event(Event::PodRanges(ranges.clone()));
                    told = Some(ranges);
                }
                sleep(interval).await;
            }
            Err(error) => {
                let text =
                    format!("the pod ranges of Node {node} cannot be read, what was known of them stands: {error:#}");
                if note.as_ref().is_none_or(|(before, _)| *before != text) {
                    warn!("{text}");
                    note = Some((text.clone(), readiness.note(text)));
                }
                sleep(backoff.next_wait()).await;
            }
        }
    }
}

/// The ranges of the Node; none where there is no such Node, or it has none.
async fn ask(access: &Access, node: &NodeName) -> Result<Vec<IpNet>> {
    let client = access.seat().client(false).await?;
    let named = ListParams::default().fields(&format!("metadata.name={node}"));
    let nodes = Api::<Node>::all(client).list(&named).await.context("cannot list it")?;
    let of_node = nodes.items.into_iter().filter(|found| found.metadata.name.as_deref() == Some(&*node.0));
    Ok(of_node.flat_map(ranges_of).collect())
}

fn ranges_of(node: Node) -> Vec<IpNet> {
    let spec = node.spec.unwrap_or_default();
    let listed = spec.pod_cidrs.filter(|listed| !listed.is_empty());
    let texts = listed.unwrap_or_else(|| spec.pod_cidr.into_iter().collect());
    // The API server has checked them.
    texts.iter().filter_map(|text| text.parse().ok()).collect()
}

/// Tells whether the gate stands, and if not why, for ever.
pub async fn tell(mut snapshots: Receiver<Arc<Snapshot>>, readiness: &Readiness) -> Infallible {
    let mut told: Option<(Option<OpenGate>, Option<Guard>)> = None;
    loop {
        let enforced = snapshots.borrow_and_update().enforced.clone();
        if let Some(enforced) = enforced {
            let open = enforced.ir.gate.open_because().cloned();
            if told.as_ref().is_none_or(|(before, _)| *before != open) {
                // The former note goes before the new one comes.
                drop(told.take());
                let note = match &open {
                    Some(reason) => {
                        info!(%reason, "the gate is open: new pods may send and receive until they are known");
                        Some(readiness.note(format!("the gate is open: {reason}")))
                    }
                    None => {
                        info!(ranges = ?enforced.ir.gate.ranges(), "the gate stands");
                        None
                    }
                };
                told = Some((open, note));
                // Pods that come and go may open and shut it all the time.
                sleep(PAUSE).await;
            }
        }
        if snapshots.changed().await.is_err() {
            // The sync thread has ended, and whoever started it knows.
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use compiler::Compiler;
    use compiler::cluster::Link;
    use compiler::diff::Generation;
    use compiler::nft::Deny;
    use serde_json::{Value, json};
    use tokio::sync::watch::channel;

    use super::*;
    use crate::sync::Enforced;

    #[test]
    fn the_list_counts_before_the_single_range() {
        let ranges = |spec: Value| -> Vec<String> {
            let node = serde_json::from_value(json!({"metadata": {"name": "n"}, "spec": spec})).unwrap();
            ranges_of(node).iter().map(ToString::to_string).collect()
        };
        let both = json!({"podCIDR": "10.9.0.0/24", "podCIDRs": ["10.1.0.0/24", "fd00::/64"]});
        assert_eq!(ranges(both), ["10.1.0.0/24", "fd00::/64"]);
        assert_eq!(ranges(json!({"podCIDR": "10.9.0.0/24"})), ["10.9.0.0/24"]);
        assert_eq!(ranges(json!({})), [""; 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn why_the_gate_is_open_is_told_as_long_as_it_is() {
        let readiness = Readiness::new();
        let mut compiler = Compiler::new(NodeName("n".into()), Deny::Drop);
        let mut snapshot = |events: Vec<Event>| {
            for event in events {
                compiler.apply(event);
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
        };
        let (sender, receiver) = channel(snapshot(Vec::new()));
        let notes = || readiness.status().notes;
        let play = async {
            sleep(PAUSE * 2).await;
            assert_eq!(notes(), ["the gate is open: the ranges of this node's pods are not known"]);
            let range: IpNet = "10.1.0.0/24".parse().unwrap();
            sender.send_replace(snapshot(vec![Event::PodRanges(vec![range])]));
            sleep(PAUSE * 2).await;
            assert_eq!(
                notes(),
                ["the gate is open: no pod and no link of this node has an address of its pod ranges yet"]
            );
            let name = compiler::api::LinkName::new("cni0").unwrap();
            sender.send_replace(snapshot(vec![Event::Links(vec![Link {
                name,
                is_bridge: true,
                prefixes: vec![range],
                ports: vec![],
                is_cable: false,
            }])]));
            sleep(PAUSE * 2).await;
            assert_eq!(notes(), [""; 0]);
        };
        tokio::select! {
            never = tell(receiver, &readiness) => match never {},
            () = play => {}
        }
    }
}
