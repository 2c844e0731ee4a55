//! From the address of a local pod to the chains of its policies.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use imbl::OrdMap;

use super::super::denials::add_log;
use super::super::gate::add_gate;
use super::super::skeleton::{
    KnownLinks, base_chains, checked_links, deny_chain, dispatch_map, egress_links, own_source, self_set, shared_links,
};
use super::super::{
    Chain, ChainName, Comment, Family, Key, KeyType, LogGroup, MapElement, Refusal, Set, SetName, Table, Verdict,
    VerdictMap,
};
use crate::api::{Direction, LinkName, PodKey, Str};
use crate::cluster::{ListId, PolicyList};
use crate::policy::{Ir, Isolation, PodLinks, SharedAddress};

/// The elements of one dispatch map.
type Elements = BTreeMap<Key, MapElement>;

/// The base chains, the dispatch maps, and the sets of the pods' pairs with themselves.
/// What `groups` knows of unchanged groups is used again, and it knows the present ones afterwards.
pub(super) fn lower(ir: &Ir, groups: &mut Groups, log: Option<LogGroup>) -> Table {
    let Ir { pods, links, gate, .. } = ir;
    let mut known = std::mem::take(groups);
    let mut elements: BTreeMap<(Direction, Family), Elements> = BTreeMap::new();
    let mut pairs: BTreeMap<Family, Vec<Key>> = BTreeMap::new();
    let mut by_link = Elements::new();
    let links_of = links_by_pod(links);
    for pod in pods.iter() {
        let comment = Comment::new(&pod.key.to_string());
        for (link, isolation) in links_of.get(&pod.key).into_iter().flatten().zip(pod.egress.iter().cycle()) {
            let verdict = Verdict::Goto(groups.chain(Direction::Egress, isolation, &mut known).clone());
            by_link.insert(Key::Link(*link), MapElement { verdict, comment: Some(comment.clone()) });
        }
        for direction in Direction::ALL {
            for address in &pod.addresses {
                let chain = match pod.isolations_at(*address, direction) {
                    [] => continue,
                    [isolation] => groups.chain(direction, isolation, &mut known).clone(),
                    _ => deny_chain(direction),
                };
                let comment = pod.shared_at(*address).map_or_else(|| comment.clone(), all_pods);
                let element = MapElement { verdict: Verdict::Goto(chain), comment: Some(comment) };
                let slot = (direction, Family::of(*address));
                elements.entry(slot).or_default().insert(Key::address(*address), element);
            }
        }
        for address in pod.addresses.iter().filter(|address| pod.is_isolated_at(**address)) {
            pairs.entry(Family::of(*address)).or_default().push(Key::pair(*address));
        }
    }
    let mut table = Table { maps: maps(elements), sets: self_sets(pairs), ..Table::default() };
    add_links(&mut table, links, by_link, &mut groups.base_chains, known.base_chains);
    if !links.checked.is_empty() {
        table.chains.extend([own_source(log)]);
        add_log(&mut table, Refusal::Source, log);
    }
    add_gate(&mut table, gate, pods, links, log);
    table
}

/// All pods that have an address.
fn all_pods(shared: &SharedAddress) -> Comment {
    Comment::new(&shared.pods.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
}

/// The links that lead to one pod each.
fn links_by_pod(links: &PodLinks) -> BTreeMap<&PodKey, Vec<LinkName>> {
    let mut by_pod: BTreeMap<&PodKey, Vec<LinkName>> = BTreeMap::new();
    for (link, pod) in &links.own {
        by_pod.entry(pod).or_default().push(*link);
    }
    by_pod
}

/// The base chains, and the sets and maps in which they look links up.
fn add_links(
    table: &mut Table,
    links: &PodLinks,
    egress: Elements,
    now: &mut Option<BaseChains>,
    before: Option<BaseChains>,
) {
    let known =
        KnownLinks { checked: !links.checked.is_empty(), egress: !egress.is_empty(), shared: !links.shared.is_empty() };
    let same = before.filter(|before| before.links == known);
    let base = now.insert(same.unwrap_or_else(|| BaseChains { links: known, chains: base_chains(known) }));
    table.chains.extend(base.chains.iter().cloned());
    let comment = |text| Some(Comment::new(text));
    let set = |names: &BTreeSet<LinkName>, text| {
        let keys = Arc::new(names.iter().copied().map(Key::Link).collect());
        Arc::new(Set { key_type: KeyType::Link, comment: comment(text), keys, filled: None })
    };
    if known.checked {
        table.sets.insert(checked_links(), set(&links.checked, "links of local pods, whose sources are checked"));
    }
    if known.egress {
        let comment = comment("links of local pods that are isolated for egress");
        let map = VerdictMap { key_type: KeyType::Link, comment, elements: Arc::new(egress) };
        table.maps.insert(egress_links(), Arc::new(map));
    }
    if known.shared {
        table.sets.insert(shared_links(), set(&links.shared, "links behind which there are several pods"));
    }
}

/// The groups of pods that the same policies isolate.
#[derive(Debug, Default)]
pub(super) struct Groups {
    pub(super) by_slot: BTreeMap<Slot, Arc<Group>>,
    base_chains: Option<BaseChains>,
}

/// What tells groups apart: the shared list of policies, the namespace if it isolates too, and the direction.
pub(super) type Slot = (ListId, Option<Str>, Direction);

/// The pods that the same policies isolate in one direction.
#[derive(Debug)]
pub(super) struct Group {
    /// The name of the chain that judges their packets.
    pub(super) chain: ChainName,
    pub(super) direction: Direction,
    pub(super) policies: PolicyList,
    /// What isolates them, one a line. Groups that have the same have the same chain.
    pub(super) isolated_by: String,
}

/// The base chains where so much is known of links.
#[derive(Debug)]
struct BaseChains {
    links: KnownLinks,
    chains: [(ChainName, Arc<Chain>); 3],
}

impl Groups {
    /// The chain of an isolation; its group is taken from the known ones if it is there.
    fn chain(&mut self, direction: Direction, isolation: &Isolation, known: &mut Groups) -> &ChainName {
        let slot = (isolation.policies.id(), isolation.by_namespace.clone(), direction);
        let group = self.by_slot.entry(slot).or_insert_with_key(|slot| {
            known.by_slot.remove(slot).unwrap_or_else(|| Arc::new(Group::new(direction, isolation)))
        });
        &group.chain
    }
}

impl Group {
    fn new(direction: Direction, isolation: &Isolation) -> Group {
        let annotation = isolation.by_namespace.iter().map(|name| format!("annotation of Namespace {name}"));
        let isolating: Vec<String> = annotation.chain(isolation.policies.iter().map(ToString::to_string)).collect();
        let isolated_by = isolating.join("\n");
        let chain = ChainName::hashed(&format!("{}-pods", direction.as_str()), &isolated_by, "");
        Group { chain, direction, policies: isolation.policies.clone(), isolated_by }
    }
}

/// All dispatch maps, also the empty ones: the base chains refer to them.
fn maps(mut elements: BTreeMap<(Direction, Family), Elements>) -> OrdMap<SetName, Arc<VerdictMap>> {
    let mut maps = OrdMap::new();
    for direction in Direction::ALL {
        for family in Family::ALL {
            let map = VerdictMap {
                key_type: KeyType::Address(family),
                comment: Some(Comment::new(&format!("isolated for {}", direction.as_str()))),
                elements: Arc::new(elements.remove(&(direction, family)).unwrap_or_default()),
            };
            maps.insert(dispatch_map(direction, family), Arc::new(map));
        }
    }
    maps
}

fn self_sets(mut pairs: BTreeMap<Family, Vec<Key>>) -> OrdMap<SetName, Arc<Set>> {
    let set = |family| {
        let mut keys = pairs.remove(&family).unwrap_or_default();
        keys.sort_unstable();
        keys.dedup();
        let comment = Some(Comment::new("every isolated pod with itself"));
        (
            self_set(family),
            Arc::new(Set { key_type: KeyType::Pair(family), comment, keys: Arc::new(keys), filled: None }),
        )
    };
    Family::ALL.into_iter().map(set).collect()
}
