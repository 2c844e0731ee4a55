//! How an agent stands with one policy: which text of it is known, and which is enforced.

use compiler::api::{PolicyKey, Revision};
use serde::{Deserialize, Serialize};

use crate::sync::Snapshot;

/// Where the agent tells it, below which the namespace and the name stand.
pub(super) const PREFIX: &str = "/debug/policy";
/// The same for a router.
pub const POLICY_PATH: &str = "/debug/policy/{namespace}/{name}";

/// How an agent stands with a policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyStatus {
    /// The agent's node.
    pub node: String,
    /// `namespace/name`
    pub policy: String,
    /// What the agent knows of it; null where it knows no such policy.
    pub known: Option<RevisionStatus>,
    /// What the kernel holds of it; null where it holds nothing.
    pub enforced: Option<RevisionStatus>,
    /// How many pods of the node it selects, as it is known.
    pub pods: usize,
    /// Why it is not enforced as it is written, if so.
    pub quarantined: Option<String>,
}

/// Which text of an object it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevisionStatus {
    /// `metadata.uid`
    pub uid: Option<String>,
    /// `metadata.generation`
    pub generation: u64,
}

// === impl PolicyStatus ===

impl PolicyStatus {
    pub(crate) fn of(snapshot: &Snapshot, key: &PolicyKey) -> PolicyStatus {
        let known = snapshot.policies.get(key);
        let enforced = snapshot.enforced.as_ref().and_then(|enforced| enforced.ir.policies.get(key));
        let selected = known.map_or(0, |policy| {
            let local = snapshot.pods.local().filter(|pod| pod.is_policed() && pod.key.namespace == key.namespace);
            local.filter(|pod| policy.pod_selector.matches(&pod.labels)).count()
        });
        PolicyStatus {
            node: snapshot.pods.node().to_string(),
            policy: key.to_string(),
            known: known.map(|policy| RevisionStatus::of(&policy.revision)),
            enforced: enforced.map(|rules| RevisionStatus::of(&rules.source.revision)),
            pods: selected,
            quarantined: enforced.and_then(|rules| Some(rules.quarantine.as_ref()?.to_string())),
        }
    }

    /// Why the node does not enforce this text or a later one; `None` where it does, or has no pod of the policy.
    pub fn lacks(&self, due: &RevisionStatus) -> Option<String> {
        let Some(known) = &self.known else { return Some("it does not know the policy yet".to_owned()) };
        if !known.is_from(due) {
            return Some(format!("it knows {} of {}", known.in_words(due), due.generation));
        }
        if let Some(reason) = &self.quarantined {
            return Some(format!("the policy is quarantined: {reason}"));
        }
        match &self.enforced {
            _ if self.pods == 0 => None,
            Some(enforced) if enforced.is_from(due) => None,
            Some(enforced) => Some(format!("it enforces {} of {}", enforced.in_words(due), due.generation)),
            None => Some("it does not enforce the policy yet".to_owned()),
        }
    }
}

// === impl RevisionStatus ===

impl RevisionStatus {
    /// What is told of a revision.
    pub fn of(revision: &Revision) -> RevisionStatus {
        RevisionStatus { uid: revision.uid.as_deref().map(str::to_owned), generation: revision.generation }
    }

    /// Whether it is the same object, as it was then or later.
    fn is_from(&self, due: &RevisionStatus) -> bool {
        self.uid == due.uid && self.generation >= due.generation
    }

    fn in_words(&self, due: &RevisionStatus) -> String {
        let object = if self.uid == due.uid { "" } else { " of an object that was deleted since," };
        format!("generation {}{object}", self.generation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn revision(uid: &str, generation: u64) -> RevisionStatus {
        RevisionStatus { uid: Some(uid.to_owned()), generation }
    }

    fn status(known: Option<RevisionStatus>, enforced: Option<RevisionStatus>, pods: usize) -> PolicyStatus {
        PolicyStatus { node: "n1".to_owned(), policy: "shop/db".to_owned(), known, enforced, pods, quarantined: None }
    }

    #[test]
    fn a_node_lacks_what_it_does_not_know_or_enforce() {
        let due = revision("a", 3);
        let now = || Some(revision("a", 3));
        for (status, lacks) in [
            (status(None, None, 0), Some("it does not know the policy yet")),
            (status(Some(revision("a", 2)), None, 0), Some("it knows generation 2 of 3")),
            (status(now(), None, 0), None),
            (status(now(), None, 1), Some("it does not enforce the policy yet")),
            (status(now(), Some(revision("a", 2)), 1), Some("it enforces generation 2 of 3")),
            (status(now(), now(), 1), None),
            (status(Some(revision("a", 4)), Some(revision("a", 4)), 1), None),
            // Deleted and made anew, so that generations begin again.
            (
                status(Some(revision("b", 7)), Some(revision("b", 7)), 1),
                Some("it knows generation 7 of an object that was deleted since, of 3"),
            ),
        ] {
            assert_eq!(status.lacks(&due).as_deref(), lacks, "{status:?}");
        }
        let quarantined = PolicyStatus { quarantined: Some("too large".to_owned()), ..status(now(), now(), 1) };
        assert_eq!(quarantined.lacks(&due).as_deref(), Some("the policy is quarantined: too large"));
    }
}
