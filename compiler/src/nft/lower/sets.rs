//! Sets: what selectors, named ports, CIDR lists and long lists of ports mean.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;

use super::super::{Comment, Family, Key, KeyType, Set, SetName, Table};
use crate::api::{NamespaceScope, PodSelector, PortRange};
use crate::cluster::PortSelector;
use crate::policy::AddressRange;

/// The sets of one kind of selector, which follow the pods of the cluster.
#[derive(Debug)]
pub(super) struct Followed<K, M> {
    /// Each selector with what it meant, and the sets that were made of that.
    lowered: BTreeMap<Arc<K>, (M, Vec<NamedSet>)>,
}

/// A set and its name.
pub(super) type NamedSet = (SetName, Arc<Set>);

impl<K, M> Default for Followed<K, M> {
    fn default() -> Self {
        Followed { lowered: BTreeMap::new() }
    }
}

impl<K: Ord, T> Followed<K, Arc<T>> {
    /// Brings the sets in the table in line with what the selectors mean now. `lower` makes the set of one family.
    pub(super) fn follow(
        &mut self,
        now: &BTreeMap<Arc<K>, Arc<T>>,
        families: &[Family],
        lower: impl Fn(&K, &T, Family) -> NamedSet,
        table: &mut Table,
    ) {
        let same_selectors = now.len() == self.lowered.len()
            && now.keys().zip(self.lowered.keys()).all(|(new, old)| Arc::ptr_eq(new, old));
        if !same_selectors {
            self.forget_gone(now, table);
        }
        let changed: Vec<_> = if same_selectors {
            let pairs = now.iter().zip(self.lowered.values());
            pairs.filter(|((_, new), (old, _))| !Arc::ptr_eq(new, old)).map(|(pair, _)| pair).collect()
        } else {
            let known = |selector, new| self.lowered.get(selector).is_some_and(|(old, _)| Arc::ptr_eq(new, old));
            now.iter().filter(|(selector, new)| !known(*selector, new)).collect()
        };
        for (selector, members) in changed {
            let sets: Vec<NamedSet> = families.iter().map(|family| lower(selector, members, *family)).collect();
            table.sets.extend(sets.iter().cloned());
            self.lowered.insert(selector.clone(), (members.clone(), sets));
        }
    }

    fn forget_gone(&mut self, now: &BTreeMap<Arc<K>, Arc<T>>, table: &mut Table) {
        self.lowered.retain(|selector, (_, sets)| {
            let stays = now.get_key_value(selector).is_some_and(|(same, _)| Arc::ptr_eq(same, selector));
            if !stays {
                sets.iter().for_each(|(name, _)| drop(table.sets.remove(name)));
            }
            stays
        });
    }
}

/// The set of the addresses that a selector means.
pub(super) fn pods_name(selector: &PodSelector, family: Family) -> SetName {
    SetName::hashed("pods", &describe_pods(selector), &family.to_string())
}

/// The same with its members of one family.
pub(super) fn pods_set(selector: &PodSelector, members: &[IpAddr], family: Family) -> NamedSet {
    let of_family = members.iter().filter(|address| Family::of(**address) == family);
    let set = Set {
        key_type: KeyType::Address(family),
        comment: Some(Comment::new(&describe_pods(selector))),
        keys: Arc::new(of_family.map(|address| Key::address(*address)).collect()),
    };
    (pods_name(selector, family), Arc::new(set))
}

/// The set of the endpoints that a named port means.
pub(super) fn endpoints_name(selector: &PortSelector, family: Family) -> SetName {
    SetName::hashed("port", &describe_port(selector), &format!("{}-{family}", selector.name))
}

/// The same with its endpoints of one family.
pub(super) fn endpoints_set(selector: &PortSelector, endpoints: &[(IpAddr, u16)], family: Family) -> NamedSet {
    let of_family = endpoints.iter().filter(|(address, _)| Family::of(*address) == family);
    let set = Set {
        key_type: KeyType::Endpoint(family),
        comment: Some(Comment::new(&describe_port(selector))),
        keys: Arc::new(of_family.map(|(address, port)| Key::endpoint(*address, selector.protocol, *port)).collect()),
    };
    (endpoints_name(selector, family), Arc::new(set))
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
    Some((name, Arc::new(Set { key_type: KeyType::AddressRange(family), comment, keys: Arc::new(keys) })))
}

/// The set of the ports in joined ranges.
pub(super) fn port_set(ranges: &[PortRange]) -> (SetName, Arc<Set>) {
    let text = ranges.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let keys = ranges.iter().copied().map(Key::Ports).collect();
    let set = Set { key_type: KeyType::PortRange, comment: Some(Comment::new(&text)), keys: Arc::new(keys) };
    (SetName::hashed("ports", &text, ""), Arc::new(set))
}

/// `ns=prod pods{tier=frontend}`, `ns{team=a} pods{}`
fn describe_pods(selector: &PodSelector) -> String {
    let mut text = match &selector.namespaces {
        NamespaceScope::Named(name) => format!("ns={name}"),
        NamespaceScope::Selected(labels) => format!("ns{{{labels}}}"),
    };
    write!(text, " pods{{{}}}", selector.pods).expect("writing to a String does not fail");
    text
}

/// `port http/TCP of local pods`, `port http/TCP of ns=prod pods{tier=frontend}`
fn describe_port(selector: &PortSelector) -> String {
    let pods = selector.pods.as_ref().map_or_else(|| "local pods".to_string(), describe_pods);
    format!("port {}/{} of {pods}", selector.name, selector.protocol)
}
