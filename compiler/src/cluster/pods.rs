//! The Pods, and whose an address is.

use std::cmp::Reverse;
use std::net::IpAddr;
use std::sync::Arc;

use imbl::OrdMap;
use ipnet::IpNet;

use super::PodSource;
use super::sandboxes::{Sandbox, Sandboxes};
use crate::api::{NodeName, Phase, Pod, PodKey};

/// The Pods, by key and by address.
///
/// A clone costs nothing and shares everything: what changes afterwards is what the two do not share any more. So it
/// can be given away after each event, however many pods there are.
#[derive(Debug, Clone)]
pub struct Pods {
    node: NodeName,
    by_key: OrdMap<PodKey, Arc<Known>>,
    by_ip: OrdMap<IpAddr, Claims>,
    /// The pods that are this node's to police.
    local: OrdMap<PodKey, Arc<Pod>>,
    sandboxes: Sandboxes,
}

/// What is known of one pod.
#[derive(Debug, Clone, Default)]
struct Known {
    /// What each watch says of it, by watch; never empty, and one is the rule.
    copies: Vec<Copied>,
    /// What is believed: the newest copy, completed by the pod's sandboxes.
    believed: Option<Arc<Pod>>,
}

/// What one watch says of a pod.
#[derive(Debug, Clone)]
struct Copied {
    source: PodSource,
    /// Of the pod when that was said.
    version: u64,
    /// Shared with other copies that say the same.
    pod: Arc<Pod>,
}

/// The policed pods that claim an address, the one that has it first. One is the rule; there are several for a moment
/// when an address passes from a pod that ends to a new one.
type Claims = Arc<Vec<Arc<Pod>>>;

impl Pods {
    pub(super) fn new(node: NodeName) -> Pods {
        Pods {
            node,
            by_key: OrdMap::new(),
            by_ip: OrdMap::new(),
            local: OrdMap::new(),
            sandboxes: Sandboxes::default(),
        }
    }

    /// The node whose pods are local.
    pub fn node(&self) -> &NodeName {
        &self.node
    }

    /// How many there are.
    #[allow(clippy::len_without_is_empty, reason = "nobody asks whether there are none")]
    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    /// One pod.
    pub fn get(&self, key: &PodKey) -> Option<&Arc<Pod>> {
        self.by_key.get(key).and_then(|known| known.believed.as_ref())
    }

    /// All pods, by namespace and name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Pod>> {
        self.by_key.values().filter_map(|known| known.believed.as_ref())
    }

    /// The pods of one namespace, by name.
    pub fn in_namespace<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = &'a Arc<Pod>> {
        let first = PodKey { namespace: namespace.into(), name: "".into() };
        self.by_key
            .range(first..)
            .take_while(move |(key, _)| &*key.namespace == namespace)
            .filter_map(|(_, known)| known.believed.as_ref())
    }

    /// The pods that are this node's to police, by namespace and name.
    pub fn local(&self) -> impl ExactSizeIterator<Item = &Arc<Pod>> {
        self.local.values()
    }

    /// Whether a pod is this node's to police.
    pub fn is_local(&self, pod: &Pod) -> bool {
        pod.is_policed() && pod.node.as_ref() == Some(&self.node)
    }

    /// The sandboxes of the node's pods.
    pub fn sandboxes(&self) -> &Sandboxes {
        &self.sandboxes
    }

    /// The sandboxes of a pod: of its name, and not of another pod that had the name.
    pub fn sandboxes_of<'a>(&'a self, pod: &'a Pod) -> impl Iterator<Item = &'a Sandbox> {
        self.sandboxes.of(pod)
    }

    /// The pod that has an address: of the policed pods that claim it, one that has it by its sandbox, else the newest that
    /// runs, and last one that is being deleted.
    pub fn owner(&self, address: IpAddr) -> Option<&Arc<Pod>> {
        self.by_ip.get(&address).and_then(has)
    }

    /// The pod of this node that has an address, whatever pods elsewhere claim: packets of this node's links are
    /// its, and what pods elsewhere are known must not decide how it is isolated.
    pub fn local_owner(&self, address: IpAddr) -> Option<&Arc<Pod>> {
        self.by_ip.get(&address).and_then(|claims| claims.iter().find(|pod| self.is_local(pod)))
    }

    /// The pods of this node that have an address together, as far as their isolation goes: those whose claim is as good as
    /// that of [`Pods::local_owner`], which comes first. Who of them is behind the address is not known.
    pub fn local_owners(&self, address: IpAddr) -> impl Iterator<Item = &Arc<Pod>> {
        let claims = self.by_ip.get(&address).into_iter().flat_map(|claims| claims.iter());
        let mut local = claims.filter(|pod| self.is_local(pod)).peekable();
        let best = local.peek().map(|first| right(first, address));
        local.take_while(move |pod| Some(right(pod, address)) == best)
    }

    /// All addresses of policed pods, each with the pod that has it, in ascending order.
    pub fn addresses(&self) -> impl Iterator<Item = (IpAddr, &Arc<Pod>)> {
        self.by_ip.iter().filter_map(|(address, claims)| has(claims).map(|pod| (*address, pod)))
    }

    /// The first address of a range that a pod of another node has, and one such pod.
    pub fn elsewhere(&self, range: &IpNet) -> Option<(IpAddr, &Arc<Pod>)> {
        let is_elsewhere = |pod: &&Arc<Pod>| pod.node.as_ref().is_some_and(|node| *node != self.node);
        let mut within = self.by_ip.range(range.network()..=range.broadcast());
        within.find_map(|(address, claims)| Some((*address, claims.iter().find(is_elsewhere)?)))
    }

    /// The policed pods that claim an address, whether one has it or not.
    pub(super) fn claimants(&self, address: IpAddr) -> impl Iterator<Item = &Arc<Pod>> {
        self.by_ip.get(&address).into_iter().flat_map(|claims| claims.iter())
    }

    /// All addresses of policed pods, in ascending order, also those that only a pod has that lingers.
    pub(super) fn claimed(&self) -> impl Iterator<Item = IpAddr> {
        self.by_ip.keys().copied()
    }

    /// The pods that a watch has reported; those that linger have been by one that does not any more.
    pub fn of_source(&self, source: &PodSource) -> Vec<PodKey> {
        let of_source = self.by_key.iter().filter(|(_, known)| place(&known.copies, source).is_ok());
        of_source.map(|(key, _)| key.clone()).collect()
    }

    /// Whether a watch reports a pod, and no other one does.
    pub fn is_only_of(&self, key: &PodKey, source: &PodSource) -> bool {
        self.by_key.get(key).is_some_and(|known| known.copies.iter().all(|copy| copy.source == *source))
    }

    /// What is reported of a pod, completed by its sandboxes, whether or not one lingers under its name.
    pub(super) fn reported(&self, key: &PodKey) -> Option<Arc<Pod>> {
        let copies = self.by_key.get(key)?.copies.iter().filter(|copy| copy.source != PodSource::Lingering);
        Some(self.sandboxes.complete(&self.node, &newest(copies)?.pod))
    }

    /// Whether a pod has a sandbox.
    pub(super) fn has_sandbox(&self, pod: &Pod) -> bool {
        self.sandboxes.of(pod).next().is_some()
    }

    /// Takes over the sandboxes of the node, and says for which pods they are others than before. What is believed of those
    /// is brought in line by [`Pods::complete`].
    pub(super) fn put_sandboxes(&mut self, list: Vec<Sandbox>) -> Vec<PodKey> {
        let sandboxes = Sandboxes::new(list);
        let before = std::mem::replace(&mut self.sandboxes, sandboxes);
        before.differ(&self.sandboxes)
    }

    /// Takes over what a watch says of a pod, `None` being that it is gone. Gives back what was believed of the pod
    /// before, and what is now.
    pub(super) fn put(
        &mut self,
        source: PodSource,
        key: &PodKey,
        pod: Option<Pod>,
    ) -> (Option<Arc<Pod>>, Option<Arc<Pod>>) {
        let known = self.by_key.entry(key.clone()).or_default();
        let copied = pod.map(|mut pod| {
            let version = std::mem::take(&mut pod.version);
            let same = known.copies.iter().find(|copy| *copy.pod == pod).map(|copy| copy.pod.clone());
            Copied { source: source.clone(), version, pod: same.unwrap_or_else(|| Arc::new(pod)) }
        });
        match (place(&known.copies, &source), copied) {
            (Ok(at), Some(copied)) => {
                let before = &known.copies[at];
                if before.version != copied.version || !Arc::ptr_eq(&before.pod, &copied.pod) {
                    Arc::make_mut(known).copies[at] = copied;
                }
            }
            (Err(at), Some(copied)) => {
                let copies = &mut Arc::make_mut(known).copies;
                copies.reserve_exact(1);
                copies.insert(at, copied);
            }
            (Ok(at), None) => drop(Arc::make_mut(known).copies.remove(at)),
            (Err(_), None) => {}
        }
        self.complete(key)
    }

    /// Works out what is believed of a pod, and gives back what was before, and what is now.
    pub(super) fn complete(&mut self, key: &PodKey) -> (Option<Arc<Pod>>, Option<Arc<Pod>>) {
        let Some(known) = self.by_key.get_mut(key) else { return (None, None) };
        let before = known.believed.clone();
        let after = newest(known.copies.iter()).map(|copy| self.sandboxes.complete(&self.node, &copy.pod));
        if before != after {
            Arc::make_mut(known).believed.clone_from(&after);
        }
        if known.copies.is_empty() {
            self.by_key.remove(key);
        }
        if before != after {
            before.iter().for_each(|pod| self.unclaim(pod));
            after.iter().for_each(|pod| self.claim(pod));
            match after.as_ref().filter(|pod| self.is_local(pod)) {
                Some(pod) => self.local.insert(key.clone(), pod.clone()),
                None => self.local.remove(key),
            };
        }
        (before, after)
    }

    fn claim(&mut self, pod: &Arc<Pod>) {
        if !pod.is_policed() {
            return;
        }
        for address in &pod.ips {
            let claims = Arc::make_mut(self.by_ip.entry(*address).or_default());
            let at = claims.partition_point(|other| rank(other, *address) < rank(pod, *address));
            claims.insert(at, pod.clone());
        }
    }

    fn unclaim(&mut self, pod: &Arc<Pod>) {
        for address in &pod.ips {
            if let Some(claims) = self.by_ip.get_mut(address) {
                Arc::make_mut(claims).retain(|other| other.key != pod.key);
                if claims.is_empty() {
                    self.by_ip.remove(address);
                }
            }
        }
    }
}

/// The pod that has an address. One of which only the network is left has none in the eyes of others.
fn has(claims: &Claims) -> Option<&Arc<Pod>> {
    claims.iter().find(|pod| !pod.lingering)
}

/// Where what a watch says stands, or would stand.
fn place(copies: &[Copied], source: &PodSource) -> Result<usize, usize> {
    copies.binary_search_by(|copy| copy.source.cmp(source))
}

/// The copy that is believed: that of a pod that lingers, which nobody reports any more, else the newest, and of equals the
/// first by watch.
fn newest<'a>(mut copies: impl Iterator<Item = &'a Copied>) -> Option<&'a Copied> {
    let first = copies.next()?;
    if first.source == PodSource::Lingering {
        return Some(first);
    }
    Some(copies.fold(first, |newest, copy| if copy.version > newest.version { copy } else { newest }))
}

/// Lower has the better claim to an address: the better right to it, then one that stays before one that goes, running
/// before not, newer before older. The rest makes the order total.
fn rank(pod: &Pod, address: IpAddr) -> ((bool, bool), bool, bool, Reverse<i64>, &PodKey) {
    (right(pod, address), pod.terminating, pod.phase != Phase::Running, Reverse(pod.created), &pod.key)
}

/// By what a pod claims an address: one that has it by its sandbox goes before one that only says so, and that before one
/// that lingers, for the link that still leads there is the other's.
fn right(pod: &Pod, address: IpAddr) -> (bool, bool) {
    let holds = pod.holds(address);
    (!holds, pod.lingering && !holds)
}
