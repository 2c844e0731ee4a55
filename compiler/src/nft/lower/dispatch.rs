//! From the address of a local pod to the chains of its policies.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use imbl::OrdMap;

use super::super::gate::add_gate;
use super::super::skeleton::{
    KnownLinks, base_chains, checked_links, deny_chain, dispatch_map, egress_links, own_source, rule, self_set,
    shared_links,
};
use super::super::{
    Chain, ChainName, Comment, Family, Key, KeyType, MapElement, Set, SetName, Stmt, Table, Verdict, VerdictMap,
};
use crate::api::{Direction, LinkName, PodKey, PolicyKey, Str};
use crate::cluster::ListId;
use crate::policy::{Ir, Isolation, PodLinks};

/// The elements of one dispatch map.
type Elements = BTreeMap<Key, MapElement>;

/// The base chains, the dispatch maps, the chains to which they lead, and the sets of the pods' pairs with themselves.
/// What `groups` knows of unchanged groups is used again, and it knows the present ones afterwards.
pub(super) fn lower(ir: &Ir, groups: &mut Groups) -> Table {
    let Ir { pods, policies, links, gate, .. } = ir;
    let mut known = std::mem::take(groups);
    groups.left_out =
        policies.values().filter(|rules| rules.quarantine.is_some()).map(|rules| rules.key.clone()).collect();
    if known.left_out != groups.left_out {
        known.by_slot.clear();
    }
    let mut elements: BTreeMap<(Direction, Family), Elements> = BTreeMap::new();
    let mut pairs: BTreeMap<Family, Vec<Key>> = BTreeMap::new();
    let mut by_link = Elements::new();
    let links_of = links_by_pod(links);
    for pod in pods.iter() {
        let comment = Comment::new(&pod.key.to_string());
        for direction in Direction::ALL {
            let Some(isolation) = pod.isolation(direction) else { continue };
            let chain = groups.chain(direction, isolation, &mut known);
            if direction == Direction::Egress {
                for link in links_of.get(&pod.key).into_iter().flatten() {
                    let verdict = Verdict::Goto(chain.clone());
                    by_link.insert(Key::Link(*link), MapElement { verdict, comment: Some(comment.clone()) });
                }
            }
            for address in &pod.addresses {
                let verdict = Verdict::Goto(chain.clone());
                let element = MapElement { verdict, comment: Some(comment.clone()) };
                let slot = (direction, Family::of(*address));
                elements.entry(slot).or_default().insert(Key::address(*address), element);
            }
        }
        if pod.is_isolated() {
            for address in &pod.addresses {
                pairs.entry(Family::of(*address)).or_default().push(Key::pair(*address));
            }
        }
    }
    let chains = groups.by_slot.values().map(|group| (group.name.clone(), group.chain.clone())).collect();
    let mut table = Table { chains, maps: maps(elements), sets: self_sets(pairs), ..Table::default() };
    add_links(&mut table, links, by_link, &mut groups.base_chains, known.base_chains);
    add_gate(&mut table, gate, pods);
    table
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
        Arc::new(Set { key_type: KeyType::Link, comment: comment(text), keys })
    };
    if known.checked {
        table.chains.extend([own_source()]);
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

/// The chains of the pods that the same policies isolate, by the shared list of policies, the namespace if it isolates
/// too, and the direction.
#[derive(Debug, Default)]
pub(super) struct Groups {
    by_slot: BTreeMap<(ListId, Option<Str>, Direction), Group>,
    /// The policies that allow nothing because they are in quarantine. To be led to them costs, and is of no use.
    left_out: BTreeSet<PolicyKey>,
    base_chains: Option<BaseChains>,
}

/// The base chains where so much is known of links.
#[derive(Debug)]
struct BaseChains {
    links: KnownLinks,
    chains: [(ChainName, Arc<Chain>); 3],
}

#[derive(Debug)]
struct Group {
    name: ChainName,
    chain: Arc<Chain>,
}

impl Groups {
    /// The chain of an isolation, taken from the known ones if it is there.
    fn chain(&mut self, direction: Direction, isolation: &Isolation, known: &mut Groups) -> &ChainName {
        let slot = (isolation.policies.id(), isolation.by_namespace.clone(), direction);
        let Groups { by_slot, left_out, base_chains: _ } = self;
        let group = by_slot.entry(slot).or_insert_with_key(|slot| {
            known.by_slot.remove(slot).unwrap_or_else(|| {
                let (name, chain) = group_chain(direction, isolation, left_out);
                Group { name, chain: Arc::new(chain) }
            })
        });
        &group.name
    }
}

/// The chain of the pods that one list of policies isolates: the chain of each policy that is not left out, and then no
/// more.
fn group_chain(direction: Direction, isolation: &Isolation, left_out: &BTreeSet<PolicyKey>) -> (ChainName, Chain) {
    let annotation = isolation.by_namespace.iter().map(|name| format!("annotation of Namespace {name}"));
    let isolating: Vec<String> = annotation.chain(isolation.policies.iter().map(ToString::to_string)).collect();
    let name = ChainName::hashed(&format!("{}-pods", direction.as_str()), &isolating.join("\n"), "");
    let jump = |key| rule([Stmt::Verdict(Verdict::Jump(ChainName::of_policy(direction, key)))], None);
    let mut rules: Vec<_> = isolation.policies.iter().filter(|key| !left_out.contains(*key)).map(jump).collect();
    rules.push(rule([Stmt::Verdict(Verdict::Goto(deny_chain(direction)))], None));
    let comment = Some(Comment::new(&format!("isolated by {}", isolating.join(", "))));
    (name, Chain { base: None, comment, rules })
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
        (self_set(family), Arc::new(Set { key_type: KeyType::Pair(family), comment, keys: Arc::new(keys) }))
    };
    Family::ALL.into_iter().map(set).collect()
}
