//! Which lists have to be there before the kernel may be written, and which watches of pods are wanted.
//!
//! First come the Namespaces, the NetworkPolicies and the pods of the node; from these follows which pods elsewhere
//! matter. When that changes later, the new watches are begun first, and the old ones end when the new ones are in
//! sync, so that no address is missing in between.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use compiler::cluster::{Change, Event, Interest, PodSource, State};
use tokio::sync::watch;

use super::Origin;

/// How long a commit waits for the watches that a new policy needs. Without them the policy would refuse, for a
/// moment, peers that it allows; without end, an API server that is slow would keep it from taking effect.
const PATIENCE: Duration = Duration::from_secs(1);

/// The lists that are wanted, and those that are there.
#[derive(Debug)]
pub(super) struct Sources {
    origin: Origin,
    has_namespaces: bool,
    has_policies: bool,
    /// The pod watches that have delivered their list.
    in_sync: BTreeSet<PodSource>,
    /// The pod watches that what is known now needs.
    wanted: BTreeSet<PodSource>,
    /// Those that run: the wanted ones, and until they are in sync the ones before.
    followed: watch::Sender<BTreeSet<PodSource>>,
    /// Until when a commit waits for the wanted ones.
    wait_until: Option<Instant>,
}

// === impl Sources ===

impl Sources {
    pub(super) fn new(origin: Origin, followed: watch::Sender<BTreeSet<PodSource>>) -> Sources {
        let first = Sources::basic(origin);
        followed.send_replace(BTreeSet::from([first.clone()]));
        Sources {
            origin,
            has_namespaces: false,
            has_policies: false,
            in_sync: BTreeSet::new(),
            wanted: BTreeSet::from([first]),
            followed,
            wait_until: None,
        }
    }

    /// The pod watch that is always wanted.
    fn basic(origin: Origin) -> PodSource {
        match origin {
            Origin::Api => PodSource::Node,
            Origin::Files => PodSource::Cluster,
        }
    }

    /// Notes the lists that events bring, and says whether the event counts: what a watch that has been ended had
    /// sent before does not.
    pub(super) fn admit(&mut self, event: &Event) -> bool {
        match event {
            Event::Namespaces(change) => self.has_namespaces |= matches!(change, Change::Reset(_)),
            Event::Policies(change) => self.has_policies |= matches!(change, Change::Reset(_)),
            Event::Pods(source, change) => {
                if !self.followed.borrow().contains(source) {
                    return false;
                }
                if matches!(change, Change::Reset(_)) {
                    self.in_sync.insert(source.clone());
                }
            }
        }
        true
    }

    /// Follows what the state needs to know, and returns the sources that are to be forgotten.
    pub(super) fn follow(&mut self, state: &State, now: Instant) -> Vec<PodSource> {
        if self.origin == Origin::Files || !self.has_base() {
            return Vec::new();
        }
        let mut wanted = BTreeSet::from([PodSource::Node]);
        match Interest::of(state) {
            Interest::Namespaces(names) => wanted.extend(names.into_iter().map(PodSource::Namespace)),
            Interest::Cluster => _ = wanted.insert(PodSource::Cluster),
        }
        if wanted != self.wanted {
            self.wait_until = Some(now + PATIENCE);
            self.wanted = wanted;
        }
        let in_sync = self.wanted.is_subset(&self.in_sync);
        let mut forgotten = Vec::new();
        let (own, known) = (&self.wanted, &mut self.in_sync);
        self.followed.send_if_modified(|followed| {
            let before = followed.len();
            followed.extend(own.iter().cloned());
            let begun = followed.len() > before;
            if in_sync {
                forgotten = followed.difference(own).cloned().collect();
                followed.retain(|source| own.contains(source));
            }
            begun || !forgotten.is_empty()
        });
        for source in &forgotten {
            known.remove(source);
        }
        if in_sync {
            self.wait_until = None;
        }
        forgotten
    }

    /// Whether every list is there.
    pub(super) fn are_in_sync(&self) -> bool {
        self.has_base() && self.wanted.is_subset(&self.in_sync)
    }

    /// Until when a commit that is not the first has to wait; `None` if it may go ahead.
    pub(super) fn wait_until(&self, now: Instant) -> Option<Instant> {
        self.wait_until.filter(|until| *until > now)
    }

    fn has_base(&self) -> bool {
        self.has_namespaces && self.has_policies && self.in_sync.contains(&Sources::basic(self.origin))
    }
}
