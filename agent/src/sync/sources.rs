//! Which lists have to be there before the kernel may be written, and which pods are subscribed to.
//!
//! First come the Namespaces, the NetworkPolicies and the pods of the node; from these follows which pods elsewhere
//! are needed. A subscription that is not needed any more lingers: its events still count, so that whoever needs it
//! again has its pods at once, and a policy that comes and goes does not cost the API server a list each time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use compiler::cluster::{Change, Event, Interest, PodSource};
use tokio::sync::watch::Sender;

use super::Origin;

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
    next_id: u64,
    running: Sender<Subscriptions>,
}

#[derive(Debug)]
struct Subscription {
    id: SubscriptionId,
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

    /// Begins the subscriptions that are needed, lets the others linger, and gives back the sources of those that end:
    /// their pods are to be forgotten.
    pub(super) fn subscribe(&mut self, needed: BTreeSet<PodSource>, now: Instant) -> Vec<PodSource> {
        let (base, next_id) = (self.base(), self.next_id);
        for (source, subscription) in &mut self.by_source {
            match needed.contains(source) || *source == base {
                true => subscription.lingers_since = None,
                false => _ = subscription.lingers_since.get_or_insert(now),
            }
        }
        for source in needed {
            if !self.by_source.contains_key(&source) {
                self.begin(source);
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

    /// Those that have lingered long enough, and the oldest of too many. Nothing ends for its age while a list is under
    /// way: until it is there, what lingers may know the same pods.
    fn to_end(&self, now: Instant) -> Vec<PodSource> {
        let since = |(source, of): (&PodSource, &Subscription)| Some((of.lingers_since?, source.clone()));
        let mut lingering: Vec<_> = self.by_source.iter().filter_map(since).collect();
        lingering.sort_unstable();
        let too_many = lingering.len().saturating_sub(MOST_LINGERING);
        let in_sync = self.are_in_sync();
        let ends = |(place, (since, _)): &(usize, (Instant, _))| *place < too_many || in_sync && *since + LINGER <= now;
        lingering.into_iter().enumerate().filter(ends).map(|(_, (_, source))| source).collect()
    }

    /// When the next one has lingered long enough.
    pub(super) fn ends_at(&self) -> Option<Instant> {
        let since = self.by_source.values().filter_map(|subscription| subscription.lingers_since).min();
        since.map(|since| since + LINGER).filter(|_| self.are_in_sync())
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
        let everything = self.is_in_sync(&PodSource::Cluster);
        everything || sources_of(interest).all(|source| self.is_in_sync(&source))
    }

    fn is_in_sync(&self, source: &PodSource) -> bool {
        self.by_source.get(source).is_some_and(|subscription| subscription.in_sync)
    }

    fn begin(&mut self, source: PodSource) {
        let id = SubscriptionId(self.next_id);
        self.next_id += 1;
        self.by_source.insert(source, Subscription { id, in_sync: false, lingers_since: None });
    }

    fn publish(&self) {
        self.running.send_replace(self.by_source.iter().map(|(source, of)| (source.clone(), of.id)).collect());
    }
}

/// Where the pods of interest come from, those of this node aside.
pub(super) fn sources_of(interest: &Interest) -> impl Iterator<Item = PodSource> {
    let (names, everything) = match interest {
        Interest::Namespaces(names) => (Some(names), None),
        Interest::Cluster => (None, Some(PodSource::Cluster)),
    };
    names.into_iter().flatten().cloned().map(PodSource::Namespace).chain(everything)
}

#[cfg(test)]
mod tests {
    use tokio::sync::watch::{Receiver, channel};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Sources whose base is there, and what they tell.
    fn sources() -> (Sources, Receiver<Subscriptions>) {
        let (sender, told) = channel(Subscriptions::new());
        let mut sources = Sources::new(Origin::Api, sender);
        sources.admit(&Event::Namespaces(Change::Reset(Vec::new())), None);
        sources.admit(&Event::Policies(Change::Reset(Vec::new())), None);
        list(&mut sources, PodSource::Node, None);
        (sources, told)
    }

    fn namespace(name: &str) -> PodSource {
        PodSource::Namespace(name.into())
    }

    fn list(sources: &mut Sources, source: PodSource, id: Option<SubscriptionId>) -> bool {
        sources.admit(&Event::Pods(source, Change::Reset(Vec::new())), id)
    }

    #[test]
    fn what_is_wanted_again_begins_with_a_list() {
        let (mut sources, told) = sources();
        let now = Instant::now();
        let id = || told.borrow().get(&namespace("a")).copied();
        sources.subscribe(BTreeSet::from([namespace("a")]), now);
        let first = id();
        assert!(list(&mut sources, namespace("a"), first));
        sources.subscribe(BTreeSet::new(), now);
        // It ends and is wanted again before anybody looks at what is told.
        assert_eq!(sources.subscribe(BTreeSet::new(), now + LINGER), [namespace("a")]);
        sources.subscribe(BTreeSet::from([namespace("a")]), now + LINGER);
        assert!(id().is_some() && id() != first, "whoever runs subscriptions sees that it is another");
        assert!(!sources.are_in_sync());
        assert!(!list(&mut sources, namespace("a"), first), "what the first one had sent does not count");
        assert!(!list(&mut sources, namespace("a"), None), "nor what comes from nowhere");
        assert!(!sources.are_in_sync());
        assert!(list(&mut sources, namespace("a"), id()));
        assert!(sources.are_in_sync());
    }

    #[test]
    fn what_is_not_needed_lingers() {
        let (mut sources, told) = sources();
        let now = Instant::now();
        sources.subscribe(BTreeSet::from([namespace("a")]), now);
        let id = told.borrow()[&namespace("a")];
        list(&mut sources, namespace("a"), Some(id));
        for minutes in 1..10 {
            let at = now + 60 * minutes * SECOND;
            assert!(sources.subscribe(BTreeSet::new(), at).is_empty());
            assert_eq!(sources.ends_at(), Some(at + LINGER));
            assert!(list(&mut sources, namespace("a"), Some(id)), "its events count");
            assert!(sources.subscribe(BTreeSet::from([namespace("a")]), at + SECOND).is_empty());
            assert!(sources.are_in_sync(), "it is there at once");
            assert_eq!((told.borrow()[&namespace("a")], sources.ends_at()), (id, None));
        }
    }

    #[test]
    fn nothing_ends_for_its_age_while_a_list_is_under_way() {
        let (mut sources, told) = sources();
        let now = Instant::now();
        sources.subscribe(BTreeSet::from([namespace("a")]), now);
        sources.subscribe(BTreeSet::from([PodSource::Cluster]), now);
        assert!(sources.subscribe(BTreeSet::from([PodSource::Cluster]), now + LINGER).is_empty());
        assert_eq!(sources.ends_at(), None);
        let id = told.borrow().get(&PodSource::Cluster).copied();
        list(&mut sources, PodSource::Cluster, id);
        assert_eq!(sources.subscribe(BTreeSet::from([PodSource::Cluster]), now + LINGER), [namespace("a")]);
    }

    #[test]
    fn so_many_linger_and_no_more() {
        let (mut sources, told) = sources();
        let now = Instant::now();
        let mut ended = Vec::new();
        for n in 0..40_u32 {
            ended.extend(sources.subscribe(BTreeSet::from([namespace(&format!("n{n:02}"))]), now + n * SECOND));
        }
        let expected: Vec<_> = (0..7).map(|n| namespace(&format!("n{n:02}"))).collect();
        assert_eq!(ended, expected, "the oldest end");
        // Beside those that linger there are the needed one and the node's.
        assert_eq!(told.borrow().len(), MOST_LINGERING + 2);
    }

    #[test]
    fn all_pods_are_also_those_of_a_namespace() {
        let (mut sources, told) = sources();
        let interest = Interest::Namespaces(BTreeSet::from(["a".into()]));
        assert!(sources.cover(&Interest::Namespaces(BTreeSet::new())));
        sources.subscribe(BTreeSet::from([PodSource::Cluster]), Instant::now());
        assert!(!sources.cover(&interest) && !sources.cover(&Interest::Cluster));
        let id = told.borrow().get(&PodSource::Cluster).copied();
        list(&mut sources, PodSource::Cluster, id);
        assert!(sources.cover(&interest) && sources.cover(&Interest::Cluster));
    }
}
