//! Which lists have to be there before the kernel may be written, and which pods are subscribed to.
//!
//! First come the Namespaces, the NetworkPolicies and the pods of the node; from these follows which pods elsewhere
//! are needed, and by which watches ([`Plan`]). A subscription that is not planned any more lingers: its events still
//! count, so that whoever needs it again has its pods at once, and a policy that comes and goes does not cost the API
//! server a list each time.

mod plan;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use compiler::api::Str;
use compiler::cluster::{Change, Event, Interest, PodQuery, PodSource};
use tokio::sync::watch::Sender;

use super::Origin;
use plan::Plan;

/// How long a subscription lingers after it was needed. A job that runs every few minutes finds it again.
const LINGER: Duration = Duration::from_secs(5 * 60);
/// How many may linger. Past that the oldest ends, since each holds a connection and keeps pods in memory.
const MOST_LINGERING: usize = 32;

/// Names one subscription to the pods of a source. What the source reported under another one is not what it knows
/// now: a subscription that ends and begins again has another name, and begins with a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubscriptionId(pub(crate) u64);

/// The subscriptions that are to run.
pub type Subscriptions = BTreeMap<PodSource, SubscriptionId>;

/// The lists that are there, and the subscriptions.
#[derive(Debug)]
pub(super) struct Sources {
    origin: Origin,
    has_namespaces: bool,
    has_policies: bool,
    by_source: BTreeMap<PodSource, Subscription>,
    plan: Plan,
    next_id: u64,
    running: Sender<Subscriptions>,
}

#[derive(Debug)]
struct Subscription {
    id: SubscriptionId,
    /// What it asks for; nothing where it is of the node's pods.
    query: Option<PodQuery>,
    /// Whether its list has come.
    in_sync: bool,
    /// Since when nobody needs it.
    lingers_since: Option<Instant>,
}

// === impl Sources ===

impl Sources {
    pub(super) fn new(origin: Origin, running: Sender<Subscriptions>) -> Sources {
        let mut sources = Sources {
            origin,
            has_namespaces: false,
            has_policies: false,
            by_source: BTreeMap::new(),
            plan: Plan::default(),
            next_id: 0,
            running,
        };
        sources.begin(sources.base());
        sources.publish();
        sources
    }

    /// The pods that are always needed.
    fn base(&self) -> PodSource {
        match self.origin {
            Origin::Api => PodSource::Node,
            Origin::Files => PodSource::Cluster,
        }
    }

    /// Notes the lists that events bring, and says whether the event counts. What is reported under a subscription
    /// that has ended does not; what is reported under none counts for the pods that are always needed.
    pub(super) fn admit(&mut self, event: &Event, id: Option<SubscriptionId>) -> bool {
        match event {
            Event::Namespaces(change) => self.has_namespaces |= matches!(change, Change::Reset(_)),
            Event::Policies(change) => self.has_policies |= matches!(change, Change::Reset(_)),
            Event::Links(_) | Event::Sandboxes(_) | Event::PodRanges(_) => {}
            Event::Pods(source, change) => {
                let is_base = *source == self.base();
                let Some(subscription) = self.by_source.get_mut(source) else { return false };
                if id.map_or(!is_base, |id| id != subscription.id) {
                    return false;
                }
                subscription.in_sync |= matches!(change, Change::Reset(_));
            }
        }
        true
    }

    /// Whether subscriptions follow from what is known. They do not before the lists from which they would follow, and
    /// not where files are all there is.
    pub(super) fn can_subscribe(&self) -> bool {
        self.origin == Origin::Api && self.has_base()
    }

    /// Begins the subscriptions that bring what is of interest, lets the others linger, and gives back the sources of those
    /// that end: their pods are to be forgotten.
    pub(super) fn subscribe(&mut self, interest: &Arc<Interest>, now: Instant) -> Vec<PodSource> {
        let next_id = self.next_id;
        let running = self.by_source.values().filter_map(|subscription| subscription.query.as_ref());
        if let Some(followed) = self.plan.follow(interest, running, now) {
            let planned: BTreeSet<PodSource> = self.plan.queries().cloned().map(PodSource::from).collect();
            for (source, subscription) in &mut self.by_source {
                match planned.contains(source) || subscription.query.is_none() {
                    true => subscription.lingers_since = None,
                    false => _ = subscription.lingers_since.get_or_insert(followed.unplanned_since),
                }
            }
            for source in planned {
                if !self.by_source.contains_key(&source) {
                    self.begin(source);
                }
            }
        }
        let ended = self.to_end(now);
        for source in &ended {
            self.by_source.remove(source);
        }
        if self.next_id != next_id || !ended.is_empty() {
            self.publish();
        }
        ended
    }

    /// Those that have lingered long enough or bring only what others do, and the oldest of too many. Nothing else ends
    /// while a list is under way: until it is there, what lingers may know the same pods.
    fn to_end(&self, now: Instant) -> Vec<PodSource> {
        let since = |(source, of): (&PodSource, &Subscription)| Some((of.lingers_since?, source.clone()));
        let mut lingering: Vec<_> = self.by_source.iter().filter_map(since).collect();
        if lingering.is_empty() {
            return Vec::new();
        }
        lingering.sort_unstable();
        let too_many = lingering.len().saturating_sub(MOST_LINGERING);
        let in_sync = self.are_in_sync();
        let is_needless = |source: &PodSource| source.query().is_some_and(|query| self.plan.brings(&query));
        let ends = |(place, (since, source)): &(usize, (Instant, PodSource))| {
            *place < too_many || in_sync && (*since + LINGER <= now || is_needless(source))
        };
        lingering.into_iter().enumerate().filter(ends).map(|(_, (_, source))| source).collect()
    }

    /// When the next one has lingered long enough, or there is a narrower plan.
    pub(super) fn ends_at(&self) -> Option<Instant> {
        let since = self.by_source.values().filter_map(|subscription| subscription.lingers_since);
        since.chain(self.plan.loose_since()).min().map(|since| since + LINGER).filter(|_| self.are_in_sync())
    }

    /// The lists from which everything else follows: who is isolated, and which pods elsewhere are needed.
    pub(super) fn has_base(&self) -> bool {
        self.has_namespaces && self.has_policies && self.is_in_sync(&self.base())
    }

    /// Whether every list that is needed is there.
    pub(super) fn are_in_sync(&self) -> bool {
        let mut needed = self.by_source.values().filter(|subscription| subscription.lingers_since.is_none());
        self.has_base() && needed.all(|subscription| subscription.in_sync)
    }

    /// Whether the pods of interest are known.
    pub(super) fn cover(&self, interest: &Interest) -> bool {
        let in_sync = self.by_source.values().filter(|subscription| subscription.in_sync);
        interest.missing(in_sync.filter_map(|subscription| subscription.query.as_ref())).is_empty()
    }

    /// Whether a pod of a namespace that a watch does not bring any more may be one that another watch is about to bring.
    pub(super) fn may_bring_others(&self, than: &PodQuery, namespace: &Str) -> bool {
        let mut queries = self.by_source.values().filter_map(|subscription| subscription.query.as_ref());
        queries.any(|query| query.namespace.as_ref().is_none_or(|of| of == namespace) && !than.covers(query))
    }

    fn is_in_sync(&self, source: &PodSource) -> bool {
        self.by_source.get(source).is_some_and(|subscription| subscription.in_sync)
    }

    fn begin(&mut self, source: PodSource) {
        let id = SubscriptionId(self.next_id);
        self.next_id += 1;
        let query = source.query();
        self.by_source.insert(source, Subscription { id, query, in_sync: false, lingers_since: None });
    }

    fn publish(&self) {
        self.running.send_replace(self.by_source.iter().map(|(source, of)| (source.clone(), of.id)).collect());
    }
}

#[cfg(test)]
mod tests;
