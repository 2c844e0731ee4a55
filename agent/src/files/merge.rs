//! What several files say, as one cluster.

use std::collections::{BTreeMap, BTreeSet};

use compiler::api::{ApiGeneration, Finding, Labels, Namespace, Object, ObjectRef, Str, Workload, WorkloadKey};

use super::content::{Content, Gathered};
use super::making::{Made, make};
use super::{Loaded, Note};

/// The label that the API server sets on every Namespace, with its name for a value.
pub(super) const NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// The annotation by which a Namespace of Kubernetes 1.3 isolates its pods.
const ISOLATION_ANNOTATION: &str = "net.beta.kubernetes.io/network-policy";

/// What becomes of Deployments and the like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Workloads {
    /// The Pods that a cluster would make of them are made.
    Run,
    /// They are passed over, with a note: an agent enforces for Pods that are there.
    PassedOver,
}

/// Gathers the objects, the later one of two with one name in the place of the earlier.
pub(super) fn merge<'a>(contents: impl Iterator<Item = &'a Content>, workloads: Workloads) -> Loaded {
    let mut loaded = Loaded::default();
    let mut objects: BTreeMap<ObjectRef, (usize, &Gathered)> = BTreeMap::new();
    let mut read = 0;
    let mut doubted = Vec::new();
    let mut makers: BTreeMap<WorkloadKey, (&Vec<Finding>, &Workload)> = BTreeMap::new();
    let mut owners = BTreeMap::new();
    for content in contents {
        for (place, maker) in &content.workloads {
            let (key, place) = (&maker.value.key, place.clone());
            if workloads == Workloads::PassedOver {
                loaded.notes.push(Note::NotRun { place, workload: key.clone() });
            } else if makers.insert(key.clone(), (&maker.findings, &maker.value)).is_some() {
                loaded.notes.push(Note::Replaced { place, object: key.reference() });
            }
        }
        loaded.notes.extend(content.notes.iter().cloned());
        doubted.extend(content.findings.iter().cloned());
        for gathered in &content.objects {
            let reference = gathered.object.reference();
            read += 1;
            if objects.insert(reference.clone(), (read, gathered)).is_some() {
                loaded.notes.push(Note::Replaced { place: gathered.place.clone(), object: reference });
            }
        }
    }
    let mut in_order: Vec<_> = objects.into_values().collect();
    in_order.sort_by_key(|(read, _)| *read);
    for (_, Gathered { place: _, object, findings, declared_ports, has_status, is_unready, owner }) in in_order {
        loaded.findings.extend(findings.iter().cloned());
        if let Object::Pod(pod) = object {
            if !declared_ports.is_empty() {
                loaded.declared_ports.insert(pod.key.clone(), declared_ports.clone());
            }
            if *has_status && pod.ips.is_empty() {
                loaded.without_address.insert(pod.key.clone());
            }
            if *is_unready {
                loaded.unready.insert(pod.key.clone());
            }
            if let Some(owner) = owner {
                owners.insert(pod.key.clone(), owner.clone());
            }
        }
        loaded.objects.push(object.clone());
    }
    loaded.findings.extend(makers.values().flat_map(|(findings, _)| findings.iter().cloned()));
    let makers = makers.into_iter().map(|(key, (_, maker))| (key, maker.clone())).collect();
    let Made { pods, workloads, notes } = make(&loaded.objects, &owners, &makers);
    loaded.notes.extend(notes);
    loaded.workloads = workloads;
    for (pod, declared_ports) in pods {
        loaded.declared_ports.insert(pod.key.clone(), declared_ports);
        loaded.objects.push(Object::Pod(pod));
    }
    complete_namespaces(&mut loaded.objects);
    loaded.findings.extend(without_effect(&loaded.objects));
    loaded.findings.extend(doubted);
    loaded
}

/// The policies of the first generation whose Namespace does not isolate: they isolate nobody, and so only add to what
/// other policies allow.
fn without_effect(objects: &[Object]) -> Vec<Finding> {
    let isolating: BTreeSet<&Str> = objects
        .iter()
        .filter_map(|object| match object {
            Object::Namespace(namespace) if namespace.default_deny_ingress => Some(&namespace.name),
            Object::Namespace(_)
            | Object::Pod(_)
            | Object::NetworkPolicy(_)
            | Object::Service(_)
            | Object::EndpointSlice(_)
            | Object::Node(_) => None,
        })
        .collect();
    let finding = |object: &Object| match object {
        Object::NetworkPolicy(policy)
            if policy.api == ApiGeneration::First && !isolating.contains(&policy.key.namespace) =>
        {
            Some(Finding {
                object: object.reference(),
                field: "apiVersion".to_string(),
                reason: format!(
                    "a policy of extensions/v1beta1 isolates nobody, and Namespace {} has no annotation {ISOLATION_ANNOTATION} \
                     that would; the policy is without effect",
                    policy.key.namespace
                ),
            })
        }
        Object::NetworkPolicy(_)
        | Object::Namespace(_)
        | Object::Pod(_)
        | Object::Service(_)
        | Object::EndpointSlice(_)
        | Object::Node(_) => None,
    };
    objects.iter().filter_map(finding).collect()
}

/// Does to Namespaces what the API server would: sets the label with their name, and lets none be missing.
fn complete_namespaces(objects: &mut Vec<Object>) {
    let mut named = BTreeSet::new();
    let mut defined = BTreeSet::new();
    for object in objects.iter_mut() {
        match object {
            Object::Namespace(namespace) => {
                let name_label = (Str::from(NAME_LABEL), namespace.name.clone());
                namespace.labels = labels_with(&namespace.labels, name_label);
                defined.insert(namespace.name.clone());
            }
            Object::Pod(pod) => _ = named.insert(pod.key.namespace.clone()),
            Object::NetworkPolicy(policy) => _ = named.insert(policy.key.namespace.clone()),
            Object::Service(service) => _ = named.insert(service.namespace.clone()),
            Object::EndpointSlice(slice) => _ = named.insert(slice.namespace.clone()),
            Object::Node(_) => {}
        }
    }
    objects.extend(named.difference(&defined).map(|name| {
        let labels = labels_with(&Labels::default(), (Str::from(NAME_LABEL), name.clone()));
        Object::Namespace(Namespace { name: name.clone(), labels, default_deny_ingress: false })
    }));
}

/// The labels and one more, which counts where both have its key.
fn labels_with(labels: &Labels, label: (Str, Str)) -> Labels {
    labels.iter().map(|(key, value)| (key.clone(), value.clone())).chain([label]).collect()
}
