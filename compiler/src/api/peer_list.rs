//! The peers of a rule, with those that are selectors of pods taken together.

use std::ops::Deref;
use std::sync::Arc;

use super::pod_peers::MOST_TRIED;
use super::{Peer, PodPeers};

/// `from` or `to` of a rule as it is listed.
///
/// To take many selectors together takes long. So it is done as the list is made, which is by whoever reads the object, and
/// not by those who ask; a short list, of which there are many, is taken together when somebody asks.
#[derive(Debug, Clone, Default)]
pub struct PeerList {
    listed: Vec<Peer>,
    /// `None` where the list is short.
    pods: Option<Arc<PodPeers>>,
}

impl PeerList {
    /// The selectors among the peers, if there are any.
    pub fn pods(&self) -> Option<Arc<PodPeers>> {
        self.pods.clone().or_else(|| PodPeers::of(&self.listed).map(Arc::new))
    }
}

impl FromIterator<Peer> for PeerList {
    fn from_iter<I: IntoIterator<Item = Peer>>(peers: I) -> PeerList {
        let listed: Vec<Peer> = peers.into_iter().collect();
        let is_long = listed.len() > MOST_TRIED;
        PeerList { pods: if is_long { PodPeers::of(&listed).map(Arc::new) } else { None }, listed }
    }
}

impl Deref for PeerList {
    type Target = [Peer];

    fn deref(&self) -> &[Peer] {
        &self.listed
    }
}

impl PartialEq for PeerList {
    fn eq(&self, other: &Self) -> bool {
        self.listed == other.listed
    }
}

impl Eq for PeerList {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{NamespaceScope, Operator, PodSelector, Requirement};

    fn peers(count: usize) -> PeerList {
        let of = |number: usize| {
            let operator = Operator::In([number.to_string().as_str().into()].into());
            let pods = [Requirement { key: "app".into(), operator }].into_iter().collect();
            Peer::Pods(PodSelector { namespaces: NamespaceScope::Named("a".into()), pods })
        };
        (0..count).map(of).collect()
    }

    #[test]
    fn who_asks_for_the_selectors_of_a_long_list_makes_nothing() {
        for count in [0, 1, MOST_TRIED, MOST_TRIED + 1, 100] {
            let list = peers(count);
            let (Some(one), Some(other)) = (list.pods(), list.clone().pods()) else {
                assert_eq!(count, 0);
                continue;
            };
            assert_eq!((one.selectors().len(), &one), (count, &other));
            assert_eq!(Arc::ptr_eq(&one, &other), count > MOST_TRIED, "{count}");
        }
    }
}
