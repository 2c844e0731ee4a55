//! What a running cluster would hold after `kubectl apply -f`.

use std::collections::{BTreeMap, BTreeSet};

use compiler::api::{Object, ObjectRef, PodKey, WorkloadKey};

use super::Loaded;
use super::merge::NAME_LABEL;

/// The objects of a cluster with those of files in the place of what they replace, and the pods of files' workloads in the
/// place of the pods that these workloads have now. Nothing is deleted besides, as `kubectl apply` deletes nothing.
pub fn applied(cluster: &Loaded, files: &Loaded) -> Loaded {
    let workloads: BTreeSet<&WorkloadKey> = files.workloads.keys().collect();
    let is_replaced = |pod: &PodKey| {
        let owners = cluster.workloads.owners(pod);
        owners.into_iter().any(|owner| workloads.contains(owner))
    };
    let mut objects: BTreeMap<ObjectRef, &Object> = BTreeMap::new();
    let mut stays = BTreeSet::new();
    for object in &cluster.objects {
        if let Object::Pod(pod) = object {
            if is_replaced(&pod.key) {
                continue;
            }
            stays.insert(pod.key.clone());
        }
        objects.insert(object.reference(), object);
    }
    for object in &files.objects {
        let reference = object.reference();
        // A Namespace that files only name, or whose labels they do not say, keeps its own.
        if is_only_named(object) && objects.contains_key(&reference) {
            continue;
        }
        if let Object::Pod(pod) = object {
            stays.remove(&pod.key);
        }
        objects.insert(reference, object);
    }
    let of_cluster = |pods: &BTreeSet<PodKey>| pods.intersection(&stays).cloned().collect::<BTreeSet<_>>();
    Loaded {
        objects: objects.into_values().cloned().collect(),
        without_address: &of_cluster(&cluster.without_address) | &files.without_address,
        unready: &of_cluster(&cluster.unready) | &files.unready,
        workloads: cluster.workloads.only(&stays).with(&files.workloads),
        ..Loaded::default()
    }
}

fn is_only_named(object: &Object) -> bool {
    let Object::Namespace(namespace) = object else { return false };
    !namespace.default_deny_ingress && namespace.labels.iter().all(|(key, _)| &**key == NAME_LABEL)
}
