//! From the other end of a packet to the policies whose rules may name it.
//!
//! ```text
//! chain ingress-pods-... {
//!     ip saddr vmap @ingress-peers-...-v4      # a pod that some policies name: jump to these
//!     ip saddr vmap @ingress-blocks-...-v4     # an address in some policies' blocks: jump to these
//!     jump ingress-np-...                      # a policy that names everybody, or very many
//!     goto deny-ingress
//! }
//! ```
//!
//! A look-up costs the same however many policies there are; to ask them in turn does not. The chains of the policies
//! still check everything: what leads to them only leaves those out that cannot match. All verdicts are jumps, so that
//! who finds nothing comes back, and is refused by the last rule. That also holds for a packet that finds a new
//! element on its way while the chain to which it leads is still empty for the rules by which the packet is judged.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::super::skeleton::rule;
use super::super::{
    Chain, ChainName, Comment, Family, Field, Key, KeyType, MapElement, Rule, SetName, Stmt, Verdict, VerdictMap,
};
use super::naming::Naming;
use super::segments;
use crate::api::{Direction, PolicyKey};
#[cfg(test)]
use crate::work::{self, Work};

/// What leads from peers to the policies of one group.
#[derive(Debug)]
pub(super) struct ByPeer {
    direction: Direction,
    broad: Vec<bool>,
    maps: BTreeMap<SetName, Arc<VerdictMap>>,
    /// The maps from pods; none where no policy names pods.
    peers: Vec<(Family, SetName)>,
    rules: Vec<Rule>,
    lists: BTreeMap<ChainName, List>,
}

/// Several policies of the group, to which elements of its maps lead together.
#[derive(Debug)]
struct List {
    chain: Arc<Chain>,
    elements: usize,
    /// Whether [`ByPeer::take_changes`] has told that it came.
    is_told: bool,
}

/// The chains of lists that came, and those that went.
#[derive(Debug, Default)]
pub(super) struct ListChanges {
    pub(super) come: Vec<(ChainName, Arc<Chain>)>,
    pub(super) gone: Vec<ChainName>,
}

type Elements = BTreeMap<Key, MapElement>;

/// The chains for policies at these places, as far as their names have been made.
type Names = BTreeMap<Vec<usize>, ChainName>;

impl ByPeer {
    /// What these policies need; those that are `broad` are jumped to whoever comes. `identity` is what the group is
    /// named by.
    pub(super) fn new(
        direction: Direction,
        families: &[Family],
        identity: &str,
        naming: &Naming,
        broad: Vec<bool>,
    ) -> ByPeer {
        let (maps, peers, rules, lists) = (BTreeMap::new(), Vec::new(), Vec::new(), BTreeMap::new());
        let mut by_peer = ByPeer { direction, broad, maps, peers, rules, lists };
        let mut names = Names::new();
        if naming.names_pods(&by_peer.broad) {
            let mut elements: BTreeMap<Family, Elements> = BTreeMap::new();
            // Where no pod has an address of a family there is no map for it, and so no element that counts.
            let is_here = |address: &IpAddr| families.contains(&Family::of(*address));
            for (address, places) in
                naming.by_address(&by_peer.broad).into_iter().filter(|(address, _)| is_here(address))
            {
                let element = by_peer.lead_to(places, naming, &mut names);
                elements.entry(Family::of(address)).or_default().insert(Key::address(address), element);
            }
            for family in families {
                let elements = elements.remove(family).unwrap_or_default();
                let map = by_peer.add_map("peers", identity, KeyType::Address(*family), *family, elements);
                by_peer.peers.push((*family, map));
            }
        }
        let ranges = naming.ranges(&by_peer.broad);
        for family in families {
            let segments = segments::of(&ranges, *family).into_iter();
            let elements: Elements =
                segments.map(|(key, places)| (key, by_peer.lead_to(places, naming, &mut names))).collect();
            if !elements.is_empty() {
                by_peer.add_map("blocks", identity, KeyType::AddressRange(*family), *family, elements);
            }
        }
        let broad = naming.policies().iter().zip(&by_peer.broad).filter(|(_, broad)| **broad);
        let jumps: Vec<Rule> = broad.map(|(policy, _)| jump_to(direction, &policy.key)).collect();
        by_peer.rules.extend(jumps);
        by_peer
    }

    /// Which policies are jumped to whoever comes.
    pub(super) fn broad(&self) -> &[bool] {
        &self.broad
    }

    /// The rules, in front of the one that refuses.
    pub(super) fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// The maps.
    pub(super) fn maps(&self) -> &BTreeMap<SetName, Arc<VerdictMap>> {
        &self.maps
    }

    /// Brings the elements of these addresses in line with who names them now.
    pub(super) fn update(&mut self, addresses: &BTreeSet<IpAddr>, naming: &Naming) {
        let mut names = Names::new();
        for address in addresses {
            let family = Family::of(*address);
            let Some((_, map)) = self.peers.iter().find(|(known, _)| *known == family) else { continue };
            let (map, key) = (map.clone(), Key::address(*address));
            let places = naming.naming(*address, &self.broad);
            let new = (!places.is_empty()).then(|| self.lead_to(places, naming, &mut names));
            let map = self.maps.get_mut(&map).expect("the names are those of the maps");
            let unused = if map.elements.get(&key) == new.as_ref() {
                // It has just been counted once more.
                new
            } else {
                let elements = Arc::make_mut(&mut Arc::make_mut(map).elements);
                match new {
                    Some(element) => elements.insert(key, element),
                    None => elements.remove(&key),
                }
            };
            if let Some(MapElement { verdict: Verdict::Jump(chain), .. }) = unused
                && let Some(list) = self.lists.get_mut(&chain)
            {
                list.elements -= 1;
            }
        }
    }

    /// The chains of the lists that were there at the last [`ByPeer::take_changes`].
    pub(super) fn told_lists(&self) -> impl Iterator<Item = &ChainName> {
        self.lists.iter().filter(|(_, list)| list.is_told).map(|(name, _)| name)
    }

    /// Which lists have come and gone since the last call.
    pub(super) fn take_changes(&mut self) -> ListChanges {
        let mut changes = ListChanges::default();
        self.lists.retain(|name, list| {
            let is_used = list.elements > 0;
            if is_used && !list.is_told {
                changes.come.push((name.clone(), list.chain.clone()));
                list.is_told = true;
            } else if !is_used && list.is_told {
                changes.gone.push(name.clone());
            }
            is_used
        });
        changes
    }

    /// One more element that leads to these policies: to the chain of the only one, or of their list.
    fn lead_to(&mut self, places: Vec<usize>, naming: &Naming, names: &mut Names) -> MapElement {
        let direction = self.direction;
        let keys = |places: &[usize]| places.iter().map(|place| &naming.policies()[*place].key).collect::<Vec<_>>();
        let is_list = places.len() > 1;
        let name = match names.get(&places) {
            Some(name) => name.clone(),
            None => {
                #[cfg(test)]
                work::count_many(Work::PolicyLedTo, places.len());
                let name = match keys(&places)[..] {
                    [policy] => ChainName::of_policy(direction, policy),
                    ref policies => ChainName::of_list(direction, policies),
                };
                names.insert(places.clone(), name.clone());
                name
            }
        };
        if is_list {
            let new = || List { chain: Arc::new(list_chain(direction, &keys(&places))), elements: 0, is_told: false };
            self.lists.entry(name.clone()).or_insert_with(new).elements += 1;
        }
        MapElement { verdict: Verdict::Jump(name), comment: None }
    }

    /// Adds a map and the rule that looks into it.
    fn add_map(
        &mut self,
        kind: &str,
        identity: &str,
        key_type: KeyType,
        family: Family,
        elements: Elements,
    ) -> SetName {
        let prefix = format!("{}-{kind}", self.direction.as_str());
        let name = SetName::hashed(&prefix, identity, &family.to_string());
        let comment = Some(Comment::new(&format!(
            "{kind} that policies name, of pods isolated by {}",
            identity.replace('\n', ", ")
        )));
        self.maps.insert(name.clone(), Arc::new(VerdictMap { key_type, comment, elements: Arc::new(elements) }));
        let peer = match self.direction {
            Direction::Ingress => Field::Source(family),
            Direction::Egress => Field::Destination(family),
        };
        self.rules.push(rule([Stmt::VerdictMap(peer, name.clone())], None));
        name
    }
}

/// The chain of each policy of a list, one after the other.
fn list_chain(direction: Direction, policies: &[&PolicyKey]) -> Chain {
    let names: Vec<String> = policies.iter().map(ToString::to_string).collect();
    let comment = Some(Comment::new(&format!("NetworkPolicies {}", names.join(", "))));
    Chain { base: None, comment, rules: policies.iter().map(|key| jump_to(direction, key)).collect() }
}

/// `jump ingress-np-...`
pub(super) fn jump_to(direction: Direction, policy: &PolicyKey) -> Rule {
    rule([Stmt::Verdict(Verdict::Jump(ChainName::of_policy(direction, policy)))], None)
}
