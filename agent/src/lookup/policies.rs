//! Policies as the API has them now.

use compiler::api::{NetworkPolicy, Object, PolicyKey};
use kube::api::ListParams;

use super::{Collection, Lookup, Missing};
use crate::model::nearest;

impl Lookup {
    /// One policy.
    ///
    /// # Errors
    ///
    /// If it cannot be read, or there is none.
    pub fn policy(&mut self, key: &PolicyKey) -> Result<NetworkPolicy, Missing> {
        let policies = self.policies(key, ListParams::default().fields(&format!("metadata.name={}", key.name)))?;
        if let Some(policy) = policies.into_iter().next() {
            return Ok(policy);
        }
        let names = self.policies(key, ListParams::default())?.into_iter().map(|policy| policy.key.to_string());
        Err(Missing::Failure(format!("there is no NetworkPolicy {key}{}", nearest(&key.to_string(), names))))
    }

    fn policies(&mut self, key: &PolicyKey, params: ListParams) -> Result<Vec<NetworkPolicy>, Missing> {
        let collection = Collection {
            group: "networking.k8s.io",
            version: "v1",
            plural: "networkpolicies",
            namespace: Some(&key.namespace),
        };
        let policy = |(object, _)| if let Object::NetworkPolicy(policy) = object { Some(policy) } else { None };
        Ok(self.list(&collection, params)?.into_iter().filter_map(policy).collect())
    }
}
