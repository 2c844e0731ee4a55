//! The chains of groups of pods, and how much there may be of what leads to policies by peer.

mod place;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::super::skeleton::{deny_chain, rule};
use super::super::{Chain, ChainName, Comment, Family, Stmt, Table, Verdict};
use super::by_peer::{ByPeer, jump_to};
use super::dispatch::{Group, Groups, Slot};
use super::naming::Naming;
use super::sets::Turned;
use crate::api::{PodPeers, PolicyKey};
use crate::policy::{Ir, PolicyRules};
use place::Place;

/// A group with more policies than this, those in quarantine aside, is led to them by peer.
///
/// By the benchmark `connections` a new connection costs 1.11, 1.16 and 1.20 times that between empty chains where one, two
/// and three policies are asked in turn, and 1.12 where it is led to them, however many there are. So few as two
/// are still asked: that is 0.15 us more, and a table that is read at a glance, with sets that need no care for chains.
pub(super) const MOST_JUMPS: usize = 2;

/// There are no more mentions (see [`MOST_MENTIONS`](super::naming::MOST_MENTIONS)) in all groups together that are led
/// by peer. Whatever comes into a verdict map, the kernel follows the elements of all of them: 1,000 took it 0.35 ms,
/// 5,000 took it 3.7 ms (Linux 6.18.44). Past that the groups with the most mentions ask their policies in turn.
const MOST_MENTIONS_IN_ALL: usize = 2_048;

/// The chains of all groups, and what they lead to, as it stands in the table.
#[derive(Debug)]
pub(super) struct GroupPart {
    most_jumps: usize,
    by_slot: BTreeMap<Slot, Lowered>,
    /// The groups that are led by peer by the words of pods that their policies name.
    by_selector: BTreeMap<Arc<PodPeers>, BTreeSet<Slot>>,
    /// The groups that are led by peer as they stand in the table.
    by_peer: BTreeSet<Slot>,
    /// How many groups lead to the chain of each list.
    lists: BTreeMap<ChainName, usize>,
}

/// What is not as it was when groups were last lowered.
pub(super) struct Changed<'a> {
    /// Whether there may be other groups.
    pub(super) groups: bool,
    /// Policies, whatever has changed about them.
    pub(super) policies: &'a BTreeSet<PolicyKey>,
    pub(super) selectors: &'a [Turned<PodPeers, IpAddr>],
}

/// One group.
#[derive(Debug)]
struct Lowered {
    group: Arc<Group>,
    /// What it was made of.
    policies: Vec<Arc<PolicyRules>>,
    /// Whom its policies name, where there are many.
    naming: Option<Naming>,
    /// Which of them are broad, and how many mentions there are of the others.
    broad: (Vec<bool>, usize),
    /// What leads to them by peer, where there is room for it.
    by_peer: Option<ByPeer>,
    state: State,
}

/// The selectors of a group that mean somebody else, and the addresses by which they differ.
type Differing<'a> = (Vec<&'a Turned<PodPeers, IpAddr>>, BTreeSet<IpAddr>);

/// How a group stands in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// As it is.
    Placed,
    /// As it was before some elements changed.
    Behind,
    /// Not yet.
    New,
}

// === impl GroupPart ===

impl GroupPart {
    /// No groups. Those that come are led to their policies by peer if these are more than `most_jumps`.
    pub(super) fn new(most_jumps: usize) -> GroupPart {
        let (by_slot, by_selector, by_peer) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
        GroupPart { most_jumps, by_slot, by_selector, by_peer, lists: BTreeMap::new() }
    }

    /// How many policies a group may have that asks them in turn.
    pub(super) fn most_jumps(&self) -> usize {
        self.most_jumps
    }

    /// Brings the chains and maps in the table in line with the groups, their policies, and the selectors that mean
    /// something else than before. Groups that none of that concerns are not looked into.
    pub(super) fn keep_up(
        &mut self,
        ir: &Ir,
        groups: &Groups,
        families: &[Family],
        changed: &Changed<'_>,
        table: &mut Table,
    ) {
        let mut lists = std::mem::take(&mut self.lists);
        let mut place = Place::new(&mut lists, table);
        let (mut touched, mut has_room) = (BTreeSet::new(), false);
        if changed.groups || !changed.policies.is_empty() {
            has_room = self.take_out_groups(ir, groups, changed, &mut place);
            touched = self.lower_groups(ir, groups);
        }
        touched.extend(self.follow(changed.selectors));
        if has_room || !touched.is_empty() {
            let by_peer = slots_by_peer(&self.by_slot);
            touched.extend(by_peer.symmetric_difference(&self.by_peer).cloned());
            self.by_peer = by_peer;
        }
        for slot in &touched {
            let Some(lowered) = self.by_slot.get_mut(slot) else { continue };
            place.bring_up(lowered, self.by_peer.contains(slot), families);
        }
        self.lists = lists;
    }

    /// Takes out the groups that go, or that have to be lowered anew, and says whether there are any.
    fn take_out_groups(&mut self, ir: &Ir, groups: &Groups, changed: &Changed<'_>, place: &mut Place<'_>) -> bool {
        let mut gone = Vec::new();
        for (slot, lowered) in &mut self.by_slot {
            let stays = groups.by_slot.contains_key(slot) && lowered.take_over(changed.policies, ir);
            if !stays {
                gone.push(slot.clone());
            }
        }
        for slot in &gone {
            let Some(lowered) = self.by_slot.remove(slot) else { continue };
            place.take_out(&lowered);
            for selector in lowered.naming.iter().flat_map(Naming::selectors) {
                if let Some(slots) = self.by_selector.get_mut(selector) {
                    slots.remove(slot);
                    if slots.is_empty() {
                        self.by_selector.remove(selector);
                    }
                }
            }
        }
        !gone.is_empty()
    }

    /// Lowers the groups that come.
    fn lower_groups(&mut self, ir: &Ir, groups: &Groups) -> BTreeSet<Slot> {
        let mut come = BTreeSet::new();
        for (slot, group) in &groups.by_slot {
            if self.by_slot.contains_key(slot) {
                continue;
            }
            let lowered = Lowered::new(group, ir, self.most_jumps);
            for selector in lowered.naming.iter().flat_map(Naming::selectors) {
                self.by_selector.entry(selector.clone()).or_default().insert(slot.clone());
            }
            come.insert(slot.clone());
            self.by_slot.insert(slot.clone(), lowered);
        }
        come
    }

    /// Takes over whom selectors mean now, and gives the groups whose policies name them.
    ///
    /// A group follows all of its selectors at once: who led to its policies anew for each would take a time that grows with
    /// the square of how many there are, where one label of one pod turns them all.
    fn follow(&mut self, selectors: &[Turned<PodPeers, IpAddr>]) -> BTreeSet<Slot> {
        let mut by_slot: BTreeMap<&Slot, Differing<'_>> = BTreeMap::new();
        for turned in selectors {
            let Some(slots) = self.by_selector.get(&turned.selector) else { continue };
            let addresses = turned.differing();
            for slot in slots {
                let (of_slot, differing) = by_slot.entry(slot).or_default();
                of_slot.push(turned);
                differing.extend(&addresses);
            }
        }
        for (slot, (selectors, addresses)) in &by_slot {
            if let Some(lowered) = self.by_slot.get_mut(*slot) {
                lowered.follow(selectors, addresses);
            }
        }
        by_slot.into_keys().cloned().collect()
    }
}

/// The groups that are led by peer: those with the fewest mentions, as many as there is room for.
fn slots_by_peer(groups: &BTreeMap<Slot, Lowered>) -> BTreeSet<Slot> {
    let many = groups.iter().filter(|(_, lowered)| lowered.naming.is_some());
    let mut order: Vec<_> = many.map(|(slot, lowered)| (lowered.broad.1, &lowered.group.chain, slot)).collect();
    order.sort_unstable();
    let mut room = MOST_MENTIONS_IN_ALL;
    let fits = |(mentions, _, slot): (usize, &ChainName, &Slot)| {
        room = room.checked_sub(mentions)?;
        Some(slot.clone())
    };
    order.into_iter().map_while(fits).collect()
}

// === impl Lowered ===

impl Lowered {
    fn new(group: &Arc<Group>, ir: &Ir, most_jumps: usize) -> Lowered {
        let policies: Vec<_> = group.policies.iter().filter_map(|key| ir.policies.get(key)).cloned().collect();
        let asked = || asked(&policies).cloned().collect::<Vec<_>>();
        let is_by_peer = asked().len() > most_jumps;
        let naming = is_by_peer.then(|| Naming::of(group.direction, asked(), &ir.members));
        let broad = naming.as_ref().map(Naming::broad).unwrap_or_default();
        Lowered { group: group.clone(), policies, naming, broad, by_peer: None, state: State::New }
    }

    /// Takes over policies that have changed and still name the same. Says no where any of its own has changed otherwise.
    fn take_over(&mut self, changed: &BTreeSet<PolicyKey>, ir: &Ir) -> bool {
        let Some(namespace) = self.group.policies.first().map(|first| &first.namespace) else { return true };
        let first = PolicyKey { namespace: namespace.clone(), name: "".into() };
        let of_namespace = changed.range(first..).take_while(|key| key.namespace == *namespace);
        let mut own = of_namespace.filter(|key| self.group.policies.binary_search(key).is_ok());
        own.all(|key| {
            let at = self.policies.binary_search_by(|policy| policy.key.cmp(key));
            let (Ok(at), Some(now)) = (at, ir.policies.get(key)) else { return false };
            let known = &mut self.policies[at];
            let is_asked_alike = known.quarantine.is_some() == now.quarantine.is_some();
            let is_alike = match &mut self.naming {
                Some(naming) if now.quarantine.is_none() => naming.replace(self.group.direction, now),
                Some(_) | None => true,
            };
            known.clone_from(now);
            is_asked_alike && is_alike
        })
    }

    /// Takes over whom these selectors mean now, which differs by these addresses.
    fn follow(&mut self, selectors: &[&Turned<PodPeers, IpAddr>], addresses: &BTreeSet<IpAddr>) {
        let Some(naming) = &mut self.naming else { return };
        for turned in selectors {
            naming.update(&turned.selector, &turned.now);
        }
        self.broad = naming.broad();
        // Where others are broad, its elements do not tell what changed, and the group is lowered anew.
        if let Some(by_peer) = self.by_peer.as_mut().filter(|by_peer| by_peer.broad() == self.broad.0) {
            by_peer.update(addresses, naming);
            self.state = State::Behind;
        }
    }

    fn chain(&self) -> Chain {
        let Group { direction, isolated_by, .. } = &*self.group;
        let mut rules = match &self.by_peer {
            Some(by_peer) => by_peer.rules().to_vec(),
            None => asked(&self.policies).map(|policy| jump_to(*direction, &policy.key)).collect(),
        };
        rules.push(rule([Stmt::Verdict(Verdict::Goto(deny_chain(*direction)))], None));
        let comment = Some(Comment::new(&format!("isolated by {}", isolated_by.replace('\n', ", "))));
        Chain { base: None, comment, rules }
    }
}

/// The policies that may allow something. To be led to one in quarantine costs, and is of no use.
fn asked(policies: &[Arc<PolicyRules>]) -> impl Iterator<Item = &Arc<PolicyRules>> {
    policies.iter().filter(|policy| policy.quarantine.is_none())
}
