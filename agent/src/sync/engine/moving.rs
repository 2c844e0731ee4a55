//! Pods that one watch does not report any more, while another one may be about to.
//!
//! Watches ask for labels, and each is a stream of its own: that a pod has left the labels of one may be told before it is
//! told that it has those of another. In between it would be nobody's peer, packets would be refused that are allowed
//! before and after, and its open flows would be cut. So what was last reported of it stands until another watch reports
//! the pod, and for a moment at most. What really ends is not held: an API server tells of a pod that left and of one that
//! is gone by the same words, `DELETED` and the object as it was before, but nearly all that go have been marked before.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use compiler::api::{Pod, PodKey};
use compiler::cluster::{Change, Event, PodSource, State};

use crate::sync::Arrival;
use crate::sync::sources::Sources;

/// How long a pod is kept that may be on its way from one watch to another. Watches of one API server are some
/// milliseconds apart; a pod that has left the labels of all of them, or was deleted by force, stays a peer for so long.
pub(super) const LONGEST_MOVE: Duration = Duration::from_millis(100);

/// The reports that stand though their watches have taken them back.
#[derive(Debug, Default)]
pub(super) struct Moving {
    by_key: BTreeMap<PodKey, BTreeMap<PodSource, Left>>,
}

/// When a watch took its report back, and when that counts at the latest.
#[derive(Debug, Clone, Copy)]
struct Left {
    arrival: Arrival,
    until: Instant,
}

// === impl Moving ===

impl Moving {
    /// Keeps back what takes a pod away that may be on its way to another watch. Returns what takes effect now, in order:
    /// a pod that has arrived is reported before the report is taken back that stood for it.
    pub(super) fn admit(
        &mut self,
        event: Event,
        arrival: Arrival,
        state: &State,
        sources: &Sources,
    ) -> Vec<(Event, Arrival)> {
        let Event::Pods(source, change) = event else { return vec![(event, arrival)] };
        match change {
            Change::Deleted(key) => {
                if may_move(&source, &key, state, sources) {
                    self.put(source, key, arrival);
                    return Vec::new();
                }
                self.remove(&source, &key);
                vec![(Event::Pods(source, Change::Deleted(key)), arrival)]
            }
            Change::Applied(pod) => {
                self.remove(&source, &pod.key);
                let ended = self.ended_by(std::slice::from_ref(&pod), state);
                let applied = Event::Pods(source, Change::Applied(pod));
                std::iter::once((applied, arrival)).chain(ended).collect()
            }
            Change::Reset(mut pods) => {
                let missing = self.missing(&source, &pods, state, sources);
                for key in self.of_source(&source).iter().filter(|key| !missing.contains(key)) {
                    self.remove(&source, key);
                }
                let ended = self.ended_by(&pods, state);
                for key in missing {
                    pods.extend(state.pods().get(&key).map(|pod| Pod::clone(pod)));
                    self.put(source.clone(), key, arrival);
                }
                let reset = Event::Pods(source, Change::Reset(pods));
                std::iter::once((reset, arrival)).chain(ended).collect()
            }
        }
    }

    /// What no other watch has reported in time.
    pub(super) fn release(&mut self, now: Instant) -> Vec<(Event, Arrival)> {
        let due = self.by_key.iter().filter(|(_, left)| left.values().any(|left| left.until <= now));
        let due: Vec<PodKey> = due.map(|(key, _)| key.clone()).collect();
        due.into_iter().flat_map(|key| self.take(&key)).collect()
    }

    /// When the next one counts at the latest.
    pub(super) fn release_at(&self) -> Option<Instant> {
        self.by_key.values().flat_map(BTreeMap::values).map(|left| left.until).min()
    }

    /// The pods that a list lacks, and that may be on their way to another watch.
    fn missing(&self, source: &PodSource, listed: &[Pod], state: &State, sources: &Sources) -> BTreeSet<PodKey> {
        if !matches!(source, PodSource::Labelled(_)) {
            return BTreeSet::new();
        }
        let reported = Reported::new(listed);
        let missing = state.pods().of_source(source).into_iter();
        missing.filter(|key| !reported.replace(key, state) && may_move(source, key, state, sources)).collect()
    }

    /// The reports that end because these pods are reported.
    fn ended_by(&mut self, pods: &[Pod], state: &State) -> Vec<(Event, Arrival)> {
        if self.by_key.is_empty() {
            return Vec::new();
        }
        let reported = Reported::new(pods);
        let ended: Vec<PodKey> = self.by_key.keys().filter(|key| reported.replace(key, state)).cloned().collect();
        ended.into_iter().flat_map(|key| self.take(&key)).collect()
    }

    fn put(&mut self, source: PodSource, key: PodKey, arrival: Arrival) {
        let until = arrival.received + LONGEST_MOVE;
        self.by_key.entry(key).or_default().entry(source).or_insert(Left { arrival, until });
    }

    fn remove(&mut self, source: &PodSource, key: &PodKey) {
        if let Some(left) = self.by_key.get_mut(key) {
            left.remove(source);
            if left.is_empty() {
                self.by_key.remove(key);
            }
        }
    }

    fn take(&mut self, key: &PodKey) -> impl Iterator<Item = (Event, Arrival)> + use<> {
        let (key, left) = (key.clone(), self.by_key.remove(key).unwrap_or_default());
        left.into_iter().map(move |(source, left)| (Event::Pods(source, Change::Deleted(key.clone())), left.arrival))
    }

    fn of_source(&self, source: &PodSource) -> Vec<PodKey> {
        self.by_key.iter().filter(|(_, left)| left.contains_key(source)).map(|(key, _)| key.clone()).collect()
    }
}

/// Pods that are reported now.
struct Reported<'a> {
    keys: BTreeSet<&'a PodKey>,
    addresses: BTreeSet<&'a IpAddr>,
}

impl<'a> Reported<'a> {
    fn new(pods: &'a [Pod]) -> Reported<'a> {
        let addresses = pods.iter().flat_map(|pod| &pod.ips).collect();
        Reported { keys: pods.iter().map(|pod| &pod.key).collect(), addresses }
    }

    /// Whether they take the place of what is known of a pod: it is one of them, or one has its address by now.
    fn replace(&self, key: &PodKey, state: &State) -> bool {
        let has_address = |pod: &Pod| pod.ips.iter().any(|address| self.addresses.contains(address));
        self.keys.contains(key) || state.pods().get(key).is_some_and(|pod| has_address(pod))
    }
}

/// Whether a pod that a watch does not report any more would be unknown, and may only have got the labels of another watch.
fn may_move(source: &PodSource, key: &PodKey, state: &State, sources: &Sources) -> bool {
    let PodSource::Labelled(query) = source else { return false };
    let is_whole = |pod: &Pod| pod.is_policed() && !pod.terminating;
    state.pods().get(key).is_some_and(|pod| is_whole(pod))
        && state.pods().is_only_of(key, source)
        && sources.may_bring_others(query, &key.namespace)
}
