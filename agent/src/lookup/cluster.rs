//! All of a running cluster that policies depend on, read once.

use std::time::Duration;

use compiler::api::{Item, Object, WorkloadKind};
use kube::api::ListParams;

use super::{Collection, Lookup, Missing};
use crate::files::Loaded;
use crate::model::owners_of;

/// How long each list may take. Those of a large cluster have a hundred megabytes.
const PATIENCE: Duration = Duration::from_secs(60);
/// Namespaces, policies, pods and nodes.
const COLLECTIONS: [(&str, &str); 4] =
    [("", "namespaces"), ("networking.k8s.io", "networkpolicies"), ("", "pods"), ("", "nodes")];

impl Lookup {
    /// The cluster, as if files held it.
    ///
    /// # Errors
    ///
    /// If any of it cannot be listed.
    pub fn cluster(&mut self) -> Result<Loaded, Missing> {
        self.patience = PATIENCE;
        // Who may not list Jobs is told by their names which CronJob they are of.
        let jobs = self.owners(WorkloadKind::Job, None).unwrap_or_default();
        let mut loaded = Loaded::default();
        for (group, plural) in COLLECTIONS {
            let collection = Collection { group, version: "v1", plural, namespace: None };
            for item in self.items(&collection, ListParams::default())? {
                let Item::Object { parsed, is_unready, owner, .. } = item else { continue };
                loaded.findings.extend(parsed.findings);
                if let Object::Pod(pod) = &parsed.value {
                    if let Some(owner) = owner {
                        loaded.workloads.add(&owners_of(&owner, &pod.labels, &jobs), &pod.key);
                    }
                    if is_unready {
                        loaded.unready.insert(pod.key.clone());
                    }
                    if pod.ips.is_empty() {
                        loaded.without_address.insert(pod.key.clone());
                    }
                }
                loaded.objects.push(parsed.value);
            }
        }
        Ok(loaded)
    }
}
