//! Sets: what selectors, named ports, CIDR lists and long lists of ports mean.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;

use imbl::OrdMap;
use imbl::ordmap::DiffItem;

use super::super::{Comment, Family, Key, KeyType, Set, SetName, Table};
use crate::api::{NamespaceScope, PodPeers, PodSelector, PortRange};
use crate::cluster::{Endpoint, PodScope, PortSelector};
use crate::policy::AddressRange;
#[cfg(test)]
use crate::work::{self, Work};

/// The sets of one kind of selector, which follow the pods of the cluster.
#[derive(Debug)]
pub(super) struct Followed<K: Ord, T> {
    /// What the selectors meant.
    meant: OrdMap<Arc<K>, Arc<Vec<T>>>,
    /// The sets of each as they are declared, one a family.
    declared: BTreeMap<Arc<K>, Vec<NamedSet>>,
}

/// A selector that is new, or means something else than before.
#[derive(Debug)]
pub(super) struct Turned<K, T> {
    pub(super) selector: Arc<K>,
    pub(super) before: Option<Arc<Vec<T>>>,
    pub(super) now: Arc<Vec<T>>,
}

/// How many characters of names of ports stand in the name of a set.
const MOST_NAMES: usize = 64;

/// A set and its name.
pub(super) type NamedSet = (SetName, Arc<Set>);

impl<K: Ord, T> Default for Followed<K, T> {
    fn default() -> Self {
        Followed { meant: OrdMap::new(), declared: BTreeMap::new() }
    }
}

impl<K: Ord, T> Followed<K, T> {
    /// The names of the sets of a selector, one a family; by `declare` where they are not in the table. To find them is less
    /// than to describe a selector, which may be long.
    pub(super) fn names(
        &self,
        selector: &K,
        families: &[Family],
        declare: impl Fn(&K, &[Family]) -> Vec<NamedSet>,
    ) -> Vec<SetName> {
        match self.declared.get(selector) {
            Some(declared) => declared.iter().map(|(name, _)| name.clone()).collect(),
            None => declare(selector, families).into_iter().map(|(name, _)| name).collect(),
        }
    }
}

impl<K: Ord, T: Eq> Followed<K, T> {
    /// Brings the sets in the table in line with what the selectors mean now. `declare` makes the empty sets, one
    /// a family, and `keys` what is in them. Gives the selectors that mean something else than before, or are new.
    pub(super) fn keep_up(
        &mut self,
        now: &OrdMap<Arc<K>, Arc<Vec<T>>>,
        families: &[Family],
        declare: impl Fn(&K, &[Family]) -> Vec<NamedSet>,
        keys: impl Fn(&[T], Family) -> Vec<Key>,
        table: &mut Table,
    ) -> Vec<Turned<K, T>> {
        let before = std::mem::replace(&mut self.meant, now.clone());
        let mut turned = Vec::new();
        for item in before.diff(now) {
            let (selector, before, now) = match item {
                DiffItem::Add(selector, now) => (selector, None, now),
                DiffItem::Update { old: (_, before), new: (selector, now) } => (selector, Some(before.clone()), now),
                DiffItem::Remove(selector, _) => {
                    let sets = self.declared.remove(selector).into_iter().flatten();
                    sets.for_each(|(name, _)| drop(table.sets.remove(&name)));
                    continue;
                }
            };
            // A declaration may be long, and does not change.
            let declared =
                self.declared.entry(selector.clone()).or_insert_with_key(|selector| declare(selector, families));
            for ((name, set), family) in declared.iter().zip(families) {
                #[cfg(test)]
                work::count(Work::SetFilled);
                let keys = Arc::new(keys(now, *family));
                let filled = Set { keys, key_type: set.key_type, comment: set.comment.clone(), filled: None };
                table.sets.insert(name.clone(), Arc::new(filled));
            }
            turned.push(Turned { selector: selector.clone(), before, now: now.clone() });
        }
        turned
    }
}

impl<K, T: Ord + Copy> Turned<K, T> {
    /// What the selector did not mean before, or does not any more.
    pub(super) fn differing(&self) -> Vec<T> {
        let (mut before, mut now) =
            (self.before.iter().flat_map(|of| of.iter()).peekable(), self.now.iter().peekable());
        let mut differing = Vec::new();
        loop {
            match (before.peek(), now.peek()) {
                (None, None) => return differing,
                (Some(old), Some(new)) if old == new => {
                    before.next();
                    now.next();
                }
                (Some(old), Some(new)) if old < new => differing.extend(before.next()),
                (Some(_), None) => differing.extend(before.next()),
                (_, Some(_)) => differing.extend(now.next()),
            }
        }
    }
}

/// The set of the pods that a rule names, as [`describe_peers`] has them.
fn pods_name(described: &str, family: Family) -> SetName {
    SetName::hashed("pods", described, &family.to_string())
}

/// The same without its members.
pub(super) fn declare_pods(peers: &PodPeers, families: &[Family]) -> Vec<NamedSet> {
    let described = describe_peers(peers);
    declare(&described, families, KeyType::Address, |family| pods_name(&described, family))
}

/// Its members of one family.
pub(super) fn pods_keys(members: &[IpAddr], family: Family) -> Vec<Key> {
    let of_family = members.iter().filter(|address| Family::of(**address) == family);
    of_family.map(|address| Key::address(*address)).collect()
}

/// The set of the endpoints that the named ports of a rule mean, as [`describe_port`] has them.
fn endpoints_name(described: &str, selector: &PortSelector, family: Family) -> SetName {
    let names = selector.names.iter().map(|(_, name)| &**name).collect::<Vec<_>>().join(".");
    let names: String = names.chars().take(MOST_NAMES).collect();
    SetName::hashed("port", described, &format!("{names}-{family}"))
}

/// The same without its endpoints.
pub(super) fn declare_endpoints(selector: &PortSelector, families: &[Family]) -> Vec<NamedSet> {
    let described = describe_port(selector);
    declare(&described, families, KeyType::Endpoint, |family| endpoints_name(&described, selector, family))
}

/// An empty set for each family. What it holds is described once, since that may be long.
fn declare(
    described: &str,
    families: &[Family],
    key_type: fn(Family) -> KeyType,
    name: impl Fn(Family) -> SetName,
) -> Vec<NamedSet> {
    let comment = Some(Comment::new(described));
    let set = |family| Set { key_type: key_type(family), comment: comment.clone(), keys: Arc::default(), filled: None };
    families.iter().map(|family| (name(*family), Arc::new(set(*family)))).collect()
}

/// Its endpoints of one family.
pub(super) fn endpoints_keys(endpoints: &[Endpoint], family: Family) -> Vec<Key> {
    let of_family = endpoints.iter().filter(|(address, ..)| Family::of(*address) == family);
    of_family.map(|(address, protocol, port)| Key::endpoint(*address, *protocol, *port)).collect()
}

/// The set of the addresses of one family in normalised ranges, if there are any.
pub(super) fn cidr_set(ranges: &[AddressRange], family: Family, text: &str) -> Option<(SetName, Arc<Set>)> {
    let of_family = |range: &AddressRange| match (range, family) {
        (AddressRange::V4(first, last), Family::V4) => Some(Key::V4Range(*first, *last)),
        (AddressRange::V6(first, last), Family::V6) => Some(Key::V6Range(*first, *last)),
        (AddressRange::V4(..), Family::V6) | (AddressRange::V6(..), Family::V4) => None,
    };
    let keys: Vec<Key> = ranges.iter().filter_map(of_family).collect();
    if keys.is_empty() {
        return None;
    }
    // By the manifest's words and not by the ranges alone: they are what the set's comment shows.
    let name = SetName::hashed("cidr", text, &family.to_string());
    let comment = Some(Comment::new(text));
    Some((name, Arc::new(Set { key_type: KeyType::AddressRange(family), comment, keys: Arc::new(keys), filled: None })))
}

/// The set of the ports in joined ranges.
pub(super) fn port_set(ranges: &[PortRange]) -> (SetName, Arc<Set>) {
    let text = ranges.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let keys = ranges.iter().copied().map(Key::Ports).collect();
    let set =
        Set { key_type: KeyType::PortRange, comment: Some(Comment::new(&text)), keys: Arc::new(keys), filled: None };
    (SetName::hashed("ports", &text, ""), Arc::new(set))
}

/// `ns=prod pods{tier=frontend}; ns{team=a} pods{}`
fn describe_peers(peers: &PodPeers) -> String {
    let mut text = String::new();
    for PodSelector { namespaces, pods } in peers.selectors() {
        let separator = if text.is_empty() { "" } else { "; " };
        match namespaces {
            NamespaceScope::Named(name) => write!(text, "{separator}ns={name}"),
            NamespaceScope::Selected(labels) => write!(text, "{separator}ns{{{labels}}}"),
        }
        .and_then(|()| write!(text, " pods{{{pods}}}"))
        .expect("writing to a String does not fail");
    }
    text
}

/// `port http/TCP of local pods`, `port http/TCP of all pods`, `port dns/UDP, http/TCP of ns=prod pods{tier=frontend}`
fn describe_port(selector: &PortSelector) -> String {
    let pods = match &selector.pods {
        PodScope::Local => "local pods".to_owned(),
        PodScope::Peers(peers) => describe_peers(peers),
        PodScope::All => "all pods".to_owned(),
    };
    let names = selector.names.iter().map(|(protocol, name)| format!("{name}/{protocol}")).collect::<Vec<_>>();
    format!("port {} of {pods}", names.join(", "))
}
