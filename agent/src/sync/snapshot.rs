//! What the sync thread gives away for others to read.

use std::collections::BTreeMap;
use std::sync::Arc;

use compiler::api::PolicyKey;
use compiler::cluster::{Links, Namespaces, Pods, Policies, Quarantine, State};
use compiler::diff::Generation;
use compiler::nft::Table;
use compiler::policy::Ir;
use jiff::Timestamp;
use tokio::sync::watch::{Receiver, Sender, channel};

/// What is known and what is enforced, at one moment. It never changes; whoever answers a question reads one, and so
/// never keeps the sync thread waiting.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// Grows with each snapshot.
    pub epoch: u64,
    /// How many objects are known, by kind.
    pub objects: Vec<(&'static str, usize)>,
    /// The pods that are known, and whose an address is.
    pub pods: Pods,
    /// The NetworkPolicies that are known.
    pub policies: Policies,
    /// The Namespaces that are known.
    pub namespaces: Namespaces,
    /// The links of the node that may lead to pods.
    pub links: Links,
    /// What the kernel holds; `None` before the first commit.
    pub enforced: Option<Arc<Enforced>>,
}

/// What the kernel was last brought to. While it refuses something newer, this is what stays in force.
#[derive(Debug)]
pub struct Enforced {
    /// The kernel's generation since then.
    pub generation: Generation,
    /// When that was.
    pub since: Timestamp,
    /// Who may talk to whom.
    pub ir: Ir,
    /// The table that enforces it.
    pub table: Arc<Table>,
}

/// Makes snapshots, on the sync thread.
#[derive(Debug)]
pub(super) struct Publisher {
    sender: Sender<Arc<Snapshot>>,
    /// Whether something is not in the last snapshot.
    is_stale: bool,
}

// === impl Snapshot ===

impl Snapshot {
    fn of(state: &State, epoch: u64, enforced: Option<Arc<Enforced>>) -> Snapshot {
        let objects = vec![
            ("Namespace", state.namespaces().len()),
            ("NetworkPolicy", state.policies().len()),
            ("Pod", state.pods().len()),
            ("LocalPod", state.pods().local().len()),
        ];
        Snapshot {
            epoch,
            objects,
            pods: state.pods().clone(),
            policies: state.policies().clone(),
            namespaces: state.namespaces().clone(),
            links: state.links().clone(),
            enforced,
        }
    }

    /// The policies that are not enforced as they are written, and why.
    pub fn quarantined(&self) -> BTreeMap<PolicyKey, Quarantine> {
        let policies = self.enforced.iter().flat_map(|enforced| enforced.ir.policies.iter());
        policies.filter_map(|(key, rules)| Some((key.clone(), rules.quarantine.clone()?))).collect()
    }

    /// The table that the kernel holds; `None` before the first commit.
    pub fn table(&self) -> Option<&Arc<Table>> {
        self.enforced.as_ref().map(|enforced| &enforced.table)
    }
}

// === impl Publisher ===

impl Publisher {
    /// A publisher, and where its snapshots can be read. The first one shows the state as it is now.
    pub(super) fn new(state: &State) -> (Publisher, Receiver<Arc<Snapshot>>) {
        let (sender, receiver) = channel(Arc::new(Snapshot::of(state, 0, None)));
        (Publisher { sender, is_stale: false }, receiver)
    }

    /// The state is not as it was.
    pub(super) fn state_changed(&mut self) {
        self.is_stale = true;
    }

    /// Shows what is known, and what is enforced if that is news.
    pub(super) fn publish(&mut self, state: &State, enforced: Option<Enforced>) {
        if !self.is_stale && enforced.is_none() {
            return;
        }
        self.is_stale = false;
        let last = self.sender.borrow().clone();
        let enforced = enforced.map(|enforced| match &last.enforced {
            // What is known anew of a table that stays is no news of the kernel.
            Some(before) if before.generation == enforced.generation => Enforced { since: before.since, ..enforced },
            Some(_) | None => enforced,
        });
        let enforced = enforced.map(Arc::new).or_else(|| last.enforced.clone());
        self.sender.send_replace(Arc::new(Snapshot::of(state, last.epoch + 1, enforced)));
    }
}
