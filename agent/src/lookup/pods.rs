//! Pods by their addresses.

use std::net::IpAddr;
use std::time::Duration;

use compiler::api::Pod;
use kube::api::ListParams;

use super::{Collection, Lookup, Missing, pods};

/// How long the list of all pods may take, which has a hundred megabytes in a large cluster.
const PATIENCE: Duration = Duration::from_secs(60);

impl Lookup {
    /// The pod that has an address for its own, if one has.
    pub fn pod_at(&mut self, address: IpAddr) -> Result<Option<Pod>, Missing> {
        // The API finds pods by their first address only.
        let by_field = ListParams::default().fields(&format!("status.podIP={address}"));
        let has = |pod: &Pod| pod.is_policed() && pod.ips.contains(&address);
        if let Some(pod) = self.all_pods(by_field)?.into_iter().find(has) {
            return Ok(Some(pod));
        }
        if self.pods.is_none() {
            let patience = std::mem::replace(&mut self.patience, PATIENCE);
            let all = self.all_pods(ListParams::default());
            self.patience = patience;
            self.pods = Some(all?);
        }
        Ok(self.pods.iter().flatten().find(|pod| has(pod)).cloned())
    }

    fn all_pods(&mut self, params: ListParams) -> Result<Vec<Pod>, Missing> {
        let collection = Collection { group: "", version: "v1", plural: "pods", namespace: None };
        Ok(pods(self.list(&collection, params)?).into_iter().map(|(pod, _)| pod).collect())
    }
}
