//! The NetworkPolicies.

use std::sync::Arc;

use imbl::OrdMap;

use crate::api::{NetworkPolicy, PolicyKey};

/// The NetworkPolicies, by namespace and name.
#[derive(Debug, Clone, Default)]
pub struct Policies {
    // Shared with snapshots of the state.
    by_key: OrdMap<PolicyKey, Arc<NetworkPolicy>>,
}

impl Policies {
    /// One policy.
    pub fn get(&self, key: &PolicyKey) -> Option<&Arc<NetworkPolicy>> {
        self.by_key.get(key)
    }

    /// The policies of one namespace, by name.
    pub fn in_namespace<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = &'a Arc<NetworkPolicy>> {
        let first = PolicyKey { namespace: namespace.into(), name: "".into() };
        self.by_key.range(first..).take_while(move |(key, _)| &*key.namespace == namespace).map(|(_, policy)| policy)
    }

    /// How many there are.
    #[allow(clippy::len_without_is_empty, reason = "nobody asks whether there are none")]
    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    /// All policies, by namespace and name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<NetworkPolicy>> {
        self.by_key.values()
    }

    /// Takes over a policy, and gives back what it was before.
    pub(super) fn put(&mut self, policy: Arc<NetworkPolicy>) -> Option<Arc<NetworkPolicy>> {
        self.by_key.insert(policy.key.clone(), policy)
    }

    /// Forgets a policy, and gives it back.
    pub(super) fn remove(&mut self, key: &PolicyKey) -> Option<Arc<NetworkPolicy>> {
        self.by_key.remove(key)
    }
}
