//! Whom the policies of a group name.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::segments;
use crate::api::{Direction, PodPeers};
use crate::cluster::{Members, MembersByPeers};
use crate::policy::{PeerSet, PolicyRules, ResolvedRule};

/// Past so many mentions in a group its largest policies are asked about every packet. A mention is a pod that a policy
/// names, or a segment of its address blocks.
///
/// There are no more elements in the maps of a group, and no more jumps in their lists of policies, than mentions, which
/// keeps small what the kernel follows with every element that comes into a verdict map. So many are 1,000 policies that
/// name two pods each.
pub(super) const MOST_MENTIONS: usize = 2_048;

/// Whom each policy of a group names in one direction, where it does not name everybody.
#[derive(Debug)]
pub(super) struct Naming {
    /// By name.
    policies: Vec<Arc<PolicyRules>>,
    /// The policies with a rule for anyone, by their place.
    open: Vec<bool>,
    selectors: BTreeMap<Arc<PodPeers>, Selector>,
    ranges: Vec<segments::Named>,
    /// How many mentions there are of each policy: the segments that its ranges take, and the pods that it names.
    mentions: Vec<usize>,
    /// In all.
    all: usize,
}

/// The pods that some policies name by the same words.
#[derive(Debug)]
struct Selector {
    members: Members,
    policies: Vec<usize>,
}

impl Naming {
    /// What the rules of these policies say in one direction. What is not known to be somebody counts as everybody.
    pub(super) fn of(direction: Direction, policies: Vec<Arc<PolicyRules>>, members: &MembersByPeers) -> Naming {
        let count = policies.len();
        let (selectors, ranges, mentions) = (BTreeMap::new(), Vec::new(), vec![0; count]);
        let mut naming = Naming { policies, open: vec![false; count], selectors, ranges, mentions, all: 0 };
        for place in 0..count {
            let policy = naming.policies[place].clone();
            naming.open[place] = !naming.add(place, policy.rules(direction).unwrap_or_default(), members);
        }
        let Naming { open, selectors, ranges, mentions, .. } = &mut naming;
        selectors.values_mut().for_each(|selector| selector.policies.retain(|place| !open[*place]));
        ranges.retain(|(place, _)| !open[*place]);
        segments::count(ranges, mentions);
        for selector in selectors.values() {
            selector.policies.iter().for_each(|place| mentions[*place] += selector.members.len());
        }
        naming.all = naming.mentions.iter().sum();
        naming
    }

    /// Takes over whom a policy names, or says that it names everybody, or more than a group may.
    fn add(&mut self, place: usize, rules: &[ResolvedRule], members: &MembersByPeers) -> bool {
        let mut ranges = 0;
        for rule in rules {
            let PeerSet::These { pods, blocks, blocks_text: _ } = &rule.peers else { return false };
            ranges += blocks.len();
            if ranges > MOST_MENTIONS {
                return false;
            }
            self.ranges.extend(blocks.iter().map(|range| (place, *range)));
            let Some(pods) = pods else { continue };
            let Some((pods, members)) = members.get_key_value(pods) else { return false };
            let new = || Selector { members: members.clone(), policies: Vec::new() };
            let selector = self.selectors.entry(pods.clone()).or_insert_with(new);
            if selector.policies.last() != Some(&place) {
                selector.policies.push(place);
            }
        }
        true
    }

    /// The policies, each at its place.
    pub(super) fn policies(&self) -> &[Arc<PolicyRules>] {
        &self.policies
    }

    /// The pods that are named, by their words.
    pub(super) fn selectors(&self) -> impl Iterator<Item = &Arc<PodPeers>> {
        self.selectors.keys()
    }

    /// Takes over whom a selector means now.
    pub(super) fn update(&mut self, selector: &PodPeers, now: &Members) {
        let Some(selector) = self.selectors.get_mut(selector) else { return };
        let before = std::mem::replace(&mut selector.members, now.clone());
        for place in &selector.policies {
            self.mentions[*place] = self.mentions[*place] + now.len() - before.len();
            self.all = self.all + now.len() - before.len();
        }
    }

    /// Takes over another version of a policy that names the same, and says whether it does.
    pub(super) fn replace(&mut self, direction: Direction, now: &Arc<PolicyRules>) -> bool {
        let Ok(place) = self.policies.binary_search_by(|policy| policy.key.cmp(&now.key)) else { return false };
        let known = &mut self.policies[place];
        let is_alike = names_alike(direction, known, now);
        known.clone_from(now);
        is_alike
    }

    /// Which policies have to be asked about every packet, and how many mentions there are of the others.
    pub(super) fn broad(&self) -> (Vec<bool>, usize) {
        let mut broad = self.open.clone();
        if self.all <= MOST_MENTIONS {
            return (broad, self.all);
        }
        let mentions = &self.mentions;
        // Those that name the fewest first: so most are asked by peer.
        let mut order: Vec<usize> = (0..broad.len()).filter(|place| !broad[*place]).collect();
        order.sort_by_key(|place| (mentions[*place], *place));
        let mut spent = 0;
        for place in order {
            if spent + mentions[place] > MOST_MENTIONS {
                broad[place] = true;
            } else {
                spent += mentions[place];
            }
        }
        (broad, spent)
    }

    /// The places of the policies that name a pod with this address, broad ones aside.
    pub(super) fn naming(&self, address: IpAddr, broad: &[bool]) -> Vec<usize> {
        let naming = self.selectors.values().filter(|selector| selector.members.binary_search(&address).is_ok());
        let mut places: Vec<usize> =
            naming.flat_map(|selector| &selector.policies).copied().filter(|place| !broad[*place]).collect();
        places.sort_unstable();
        places.dedup();
        places
    }

    /// The same for every address that has any.
    pub(super) fn by_address(&self, broad: &[bool]) -> BTreeMap<IpAddr, Vec<usize>> {
        let mut by_address: BTreeMap<IpAddr, Vec<usize>> = BTreeMap::new();
        for selector in self.selectors.values() {
            let mut places = selector.policies.iter().copied().filter(|place| !broad[*place]).peekable();
            if places.peek().is_some() {
                let places: Vec<usize> = places.collect();
                for address in selector.members.iter() {
                    by_address.entry(*address).or_default().extend(&places);
                }
            }
        }
        for places in by_address.values_mut() {
            places.sort_unstable();
            places.dedup();
        }
        by_address
    }

    /// Whether any policy that is not broad names pods.
    pub(super) fn names_pods(&self, broad: &[bool]) -> bool {
        self.selectors.values().flat_map(|selector| &selector.policies).any(|place| !broad[*place])
    }

    /// The address ranges that policies name, broad ones aside.
    pub(super) fn ranges(&self, broad: &[bool]) -> Vec<segments::Named> {
        self.ranges.iter().filter(|(place, _)| !broad[*place]).copied().collect()
    }
}

/// Whether the rules of two versions of a policy name the same, whatever their ports.
fn names_alike(direction: Direction, one: &PolicyRules, other: &PolicyRules) -> bool {
    let [one, other] = [one, other].map(|policy| policy.rules(direction).unwrap_or_default());
    one.len() == other.len() && one.iter().zip(other).all(|(one, other)| one.peers == other.peers)
}
