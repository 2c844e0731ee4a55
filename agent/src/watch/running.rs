//! The subscriptions that run.

use std::collections::BTreeMap;

use compiler::cluster::PodSource;

use crate::sync::{SubscriptionId, Subscriptions};

/// The subscriptions that run, each with what ends it.
#[derive(Debug)]
pub(super) struct Running<T>(BTreeMap<PodSource, (SubscriptionId, T)>);

// === impl Running ===

impl<T> Running<T> {
    /// None.
    pub(super) fn new() -> Running<T> {
        Running(BTreeMap::new())
    }

    /// Ends those that are not wanted any more, and begins those that do not run yet. One of another name is another
    /// one, though its source be the same: what the old one has reported is forgotten, and only a new list brings it
    /// back.
    pub(super) fn update(
        &mut self,
        wanted: &Subscriptions,
        mut end: impl FnMut(&T),
        mut begin: impl FnMut(&PodSource, SubscriptionId) -> T,
    ) {
        self.0.retain(|source, (id, running)| {
            let stays = wanted.get(source) == Some(id);
            if !stays {
                end(running);
            }
            stays
        });
        for (source, id) in wanted {
            self.0.entry(source.clone()).or_insert_with(|| (*id, begin(source, *id)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_subscription_to_the_same_source_begins_anew() {
        let all = PodSource::Cluster;
        let mut running = Running::new();
        let mut update = |wanted: &[(PodSource, u64)]| {
            let wanted = wanted.iter().map(|(source, id)| (source.clone(), SubscriptionId(*id))).collect();
            let (mut ended, mut begun) = (Vec::new(), Vec::new());
            running.update(
                &wanted,
                |id: &u64| ended.push(*id),
                |_, SubscriptionId(id)| {
                    begun.push(id);
                    id
                },
            );
            (ended, begun)
        };
        assert_eq!(update(&[(PodSource::Node, 0), (all.clone(), 1)]), (vec![], vec![0, 1]));
        assert_eq!(update(&[(PodSource::Node, 0), (all.clone(), 1)]), (vec![], vec![]));
        assert_eq!(update(&[(PodSource::Node, 0), (all, 2)]), (vec![1], vec![2]));
        assert_eq!(update(&[(PodSource::Node, 0)]), (vec![2], vec![]));
    }
}
