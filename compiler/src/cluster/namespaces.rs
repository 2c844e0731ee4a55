//! The Namespaces.

use imbl::OrdMap;

use crate::api::{Labels, Namespace, Str};

/// The Namespaces, by name. A clone costs nothing and shares everything, as that of [`Pods`](super::Pods) does.
#[derive(Debug, Clone, Default)]
pub struct Namespaces {
    by_name: OrdMap<Str, Namespace>,
}

impl Namespaces {
    /// The labels of a namespace. `None` where it is unknown: then no `namespaceSelector` matches it, not even an
    /// empty one, because its labels will come.
    pub fn labels(&self, name: &str) -> Option<&Labels> {
        self.by_name.get(name).map(|namespace| &namespace.labels)
    }

    /// Whether the namespace isolates all its pods for ingress by the annotation of Kubernetes 1.3.
    pub fn default_deny_ingress(&self, name: &str) -> bool {
        self.by_name.get(name).is_some_and(|namespace| namespace.default_deny_ingress)
    }

    /// How many there are.
    #[allow(clippy::len_without_is_empty, reason = "nobody asks whether there are none")]
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Namespace> {
        self.by_name.values()
    }

    /// Takes over a namespace, and gives back what it was before.
    pub(super) fn put(&mut self, namespace: Namespace) -> Option<Namespace> {
        self.by_name.insert(namespace.name.clone(), namespace)
    }

    /// Forgets a namespace, and gives it back.
    pub(super) fn remove(&mut self, name: &str) -> Option<Namespace> {
        self.by_name.remove(name)
    }
}
