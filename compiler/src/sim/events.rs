//! What watches might report on the way from one cluster to the next.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use ipnet::IpNet;

use super::Dice;
use super::cluster::ParsedCluster;
use crate::Compiler;
use crate::api::{Namespace, NetworkPolicy, NodeName, Operator, Pod, PodKey, PolicyKey, Requirement, Str};
use crate::cluster::{Change, Event, PodQuery, PodSource, Sandbox};
use crate::nft::Deny;

/// Which watches report the pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Watches {
    /// One of all pods.
    Cluster,
    /// One of the node's pods, and one of all.
    NodeAndCluster,
    /// One of the node's pods, and one of each namespace.
    NodeAndNamespaces,
    /// One of the node's pods, and some by labels: every pod is of one of them at least, and most of several.
    NodeAndLabels,
}

/// What has been reported so far: what an agent that starts now would be told.
#[derive(Debug, Clone)]
pub struct Reported {
    node: NodeName,
    namespaces: BTreeMap<Str, Namespace>,
    policies: BTreeMap<PolicyKey, NetworkPolicy>,
    pods: BTreeMap<PodSource, BTreeMap<PodKey, Pod>>,
    sandboxes: Vec<Sandbox>,
    pod_ranges: Vec<IpNet>,
}

impl Reported {
    /// Nothing yet, to the agent of a node.
    pub fn new(node: NodeName) -> Reported {
        Reported {
            node,
            namespaces: BTreeMap::new(),
            policies: BTreeMap::new(),
            pods: BTreeMap::new(),
            sandboxes: Vec::new(),
            pod_ranges: Vec::new(),
        }
    }

    /// Takes over an event.
    pub fn apply(&mut self, event: &Event) {
        match event {
            Event::Namespaces(change) => apply(&mut self.namespaces, change, |namespace| namespace.name.clone()),
            Event::Policies(change) => apply(&mut self.policies, change, |policy| policy.key.clone()),
            Event::Links(_) => {}
            Event::Sandboxes(sandboxes) => self.sandboxes.clone_from(sandboxes),
            Event::PodRanges(ranges) => self.pod_ranges.clone_from(ranges),
            Event::Pods(source, change) => {
                apply(self.pods.entry(source.clone()).or_default(), change, |pod| pod.key.clone());
            }
        }
    }

    /// A compiler that has been told all of this at once, and nothing of how it came to be.
    pub fn fresh_compiler(&self, deny: Deny, most_jumps: usize) -> Compiler {
        let mut compiler = Compiler::new(self.node.clone(), deny).with_most_jumps(most_jumps);
        for (source, pods) in &self.pods {
            compiler.apply(Event::Pods(source.clone(), Change::Reset(pods.values().cloned().collect())));
        }
        compiler.apply(Event::Policies(Change::Reset(self.policies.values().cloned().collect())));
        compiler.apply(Event::Namespaces(Change::Reset(self.namespaces.values().cloned().collect())));
        compiler.apply(Event::Sandboxes(self.sandboxes.clone()));
        compiler.apply(Event::PodRanges(self.pod_ranges.clone()));
        compiler
    }

    /// Events after which the watches have reported another cluster: in any order, some doubled, some of them taken
    /// back and sent again, some states left out, and some lists instead of single events.
    pub fn events_to(&self, next: &ParsedCluster, watches: Watches, dice: &mut Dice) -> Vec<Event> {
        let mut rows = Vec::new();
        let namespaces = next.namespaces.iter().map(|namespace| (namespace.name.clone(), namespace.clone())).collect();
        rows_of_kind(&self.namespaces, &namespaces, Event::Namespaces, dice, &mut rows);
        let policies = next.policies.iter().map(|policy| (policy.key.clone(), policy.clone())).collect();
        rows_of_kind(&self.policies, &policies, Event::Policies, dice, &mut rows);
        let mut by_source = watches.pods(&self.node, &next.pods);
        for source in self.pods.keys() {
            by_source.entry(source.clone()).or_default();
        }
        let nothing = BTreeMap::new();
        for (source, pods) in by_source {
            let event = |change| Event::Pods(source.clone(), change);
            rows_of_kind(self.pods.get(&source).unwrap_or(&nothing), &pods, event, dice, &mut rows);
        }
        let sandboxes = next.sandboxes_of(&self.node);
        if sandboxes != self.sandboxes || dice.once_in(4) {
            let mut row = VecDeque::new();
            if dice.once_in(3) {
                row.push_back(Event::Sandboxes(Vec::new()));
            }
            row.push_back(Event::Sandboxes(sandboxes));
            rows.push(row);
        }
        let pod_ranges = next.pod_ranges_of(&self.node);
        if pod_ranges != self.pod_ranges {
            rows.push(VecDeque::from([Event::PodRanges(pod_ranges)]));
        }
        merge(rows, dice)
    }
}

impl Watches {
    /// All of them.
    pub const ALL: [Watches; 4] =
        [Watches::Cluster, Watches::NodeAndCluster, Watches::NodeAndNamespaces, Watches::NodeAndLabels];

    /// What each watch reports of these pods.
    fn pods(self, node: &NodeName, pods: &[Pod]) -> BTreeMap<PodSource, BTreeMap<PodKey, Pod>> {
        let mut by_source: BTreeMap<PodSource, BTreeMap<PodKey, Pod>> = BTreeMap::new();
        for pod in pods {
            let of_node = (pod.node.as_ref() == Some(node)).then_some(PodSource::Node);
            let sources = match self {
                Watches::Cluster => vec![PodSource::Cluster],
                Watches::NodeAndCluster => of_node.into_iter().chain([PodSource::Cluster]).collect(),
                Watches::NodeAndNamespaces => {
                    of_node.into_iter().chain([PodSource::Namespace(pod.key.namespace.clone())]).collect()
                }
                Watches::NodeAndLabels => {
                    let having = by_labels().into_iter().filter(|query| query.has(pod));
                    of_node.into_iter().chain(having.map(PodSource::from)).collect()
                }
            };
            for source in sources {
                by_source.entry(source).or_default().insert(pod.key.clone(), pod.clone());
            }
        }
        by_source
    }
}

/// Queries that overlap, of which every pod is of one.
fn by_labels() -> [PodQuery; 5] {
    let values = |values: &[&str]| values.iter().map(|value| Str::from(*value)).collect();
    let query = |key: &str, operator| PodQuery {
        namespace: None,
        labels: [Requirement { key: key.into(), operator }].into_iter().collect(),
    };
    [
        query("app", Operator::In(values(&["a", "b"]))),
        query("app", Operator::In(values(&["b", "c"]))),
        query("app", Operator::NotIn(values(&["a"]))),
        query("tier", Operator::Exists),
        query("tier", Operator::DoesNotExist),
    ]
}

fn apply<T: Clone, K: Ord + Clone>(known: &mut BTreeMap<K, T>, change: &Change<T, K>, key: impl Fn(&T) -> K) {
    match change {
        Change::Applied(object) => {
            known.insert(key(object), object.clone());
        }
        Change::Deleted(key) => {
            known.remove(key);
        }
        Change::Reset(objects) => *known = objects.iter().map(|object| (key(object), object.clone())).collect(),
    }
}

/// One row of events an object, the last of which leaves it as it should be, and perhaps a list of them all. However the
/// rows are merged, the end is the same.
fn rows_of_kind<T: Clone + PartialEq, K: Ord + Clone>(
    before: &BTreeMap<K, T>,
    after: &BTreeMap<K, T>,
    event: impl Fn(Change<T, K>) -> Event,
    dice: &mut Dice,
    rows: &mut Vec<VecDeque<Event>>,
) {
    let keys: BTreeSet<&K> = before.keys().chain(after.keys()).collect();
    for key in keys {
        let (old, new) = (before.get(key), after.get(key));
        if old == new && !dice.once_in(4) {
            continue;
        }
        let state = |object: Option<&T>| {
            event(object.map_or_else(|| Change::Deleted(key.clone()), |object| Change::Applied(object.clone())))
        };
        let mut row = VecDeque::new();
        if dice.once_in(4) {
            // Forth, and back.
            row.extend([state(new), state(old)]);
        }
        if dice.once_in(6) {
            row.push_back(event(Change::Deleted(key.clone())));
        }
        row.push_back(state(new));
        if dice.once_in(4) {
            row.push_back(state(new));
        }
        rows.push(row);
    }
    if dice.once_in(3) {
        rows.push(VecDeque::from([event(Change::Reset(after.values().cloned().collect()))]));
    }
}

/// Puts rows into one, each in its own order.
fn merge(mut rows: Vec<VecDeque<Event>>, dice: &mut Dice) -> Vec<Event> {
    let mut events = Vec::new();
    while !rows.is_empty() {
        let index = dice.below(rows.len());
        events.extend(rows[index].pop_front());
        if rows[index].is_empty() {
            rows.swap_remove(index);
        }
    }
    events
}
