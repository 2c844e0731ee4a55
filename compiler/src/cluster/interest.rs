//! Which pods of other nodes have to be watched.

mod of_policy;

use std::collections::BTreeSet;

use super::{PodScope, State};
use crate::api::{NamespaceScope, Str};

/// Past this many namespaces one watch of all pods is cheaper for the API server than one watch each.
const MOST_NAMESPACES: usize = 16;

/// The pods elsewhere that the policies in use speak about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Interest {
    /// The pods of these namespaces; none, where no policy that selects a local pod names pods.
    Namespaces(BTreeSet<Str>),
    /// All pods: a selector spans the cluster.
    Cluster,
}

impl Interest {
    /// What the policies that select a local pod need to know.
    pub fn of(state: &State) -> Interest {
        let mut needed = BTreeSet::new();
        // The peers of named ports are peers of the same rules.
        if state.memberships().endpoints().keys().any(|port| port.pods == PodScope::All) {
            return Interest::Cluster;
        }
        for selector in state.memberships().members().keys().flat_map(|peers| peers.selectors()) {
            match &selector.namespaces {
                NamespaceScope::Named(name) => {
                    needed.insert(name.clone());
                }
                NamespaceScope::Selected(labels) if labels.is_everything() => return Interest::Cluster,
                NamespaceScope::Selected(labels) => {
                    let matching = state.namespaces().iter().filter(|namespace| labels.matches(&namespace.labels));
                    needed.extend(matching.map(|namespace| namespace.name.clone()));
                }
            }
        }
        Interest::of_namespaces(needed)
    }

    /// What both need to know.
    #[must_use]
    pub fn and(self, other: Interest) -> Interest {
        match (self, other) {
            (Interest::Namespaces(mut needed), Interest::Namespaces(more)) => {
                needed.extend(more);
                Interest::of_namespaces(needed)
            }
            (Interest::Cluster, _) | (_, Interest::Cluster) => Interest::Cluster,
        }
    }

    fn of_namespaces(needed: BTreeSet<Str>) -> Interest {
        if needed.len() > MOST_NAMESPACES { Interest::Cluster } else { Interest::Namespaces(needed) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_needs_of_two_become_the_cluster_where_they_are_many() {
        let named = |range: std::ops::Range<usize>| {
            Interest::Namespaces(range.map(|i| Str::from(format!("ns-{i:02}"))).collect())
        };
        for (one, other, both) in [
            (named(0..10), named(0..10), named(0..10)),
            (named(0..MOST_NAMESPACES), named(0..0), named(0..MOST_NAMESPACES)),
            (named(0..10), named(8..MOST_NAMESPACES), named(0..MOST_NAMESPACES)),
            (named(0..10), named(8..MOST_NAMESPACES + 1), Interest::Cluster),
            (named(0..1), Interest::Cluster, Interest::Cluster),
            (Interest::Cluster, named(0..1), Interest::Cluster),
        ] {
            assert_eq!(one.clone().and(other.clone()), both, "{one:?} and {other:?}");
        }
    }
}
