//! Sets: what selectors, named ports, CIDR lists and long lists of ports mean.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;

use super::super::{Comment, Family, Key, KeyType, Set, SetName, Table};
use crate::api::{NamespaceScope, PodSelector, PortRange};
use crate::cluster::{Endpoint, PodPeers, PodScope, PortSelector};
use crate::policy::AddressRange;

/// The sets of one kind of selector, which follow the pods of the cluster.
#[derive(Debug)]
pub(super) struct Followed<K, M> {
    /// Each with what it meant, and the sets that were made of that, one a family.
    lowered: BTreeMap<Arc<K>, (M, Vec<NamedSet>)>,
}

/// How many characters of names of ports stand in the name of a set.
const MOST_NAMES: usize = 64;

/// A set and its name.
pub(super) type NamedSet = (SetName, Arc<Set>);

impl<K, M> Default for Followed<K, M> {
    fn default() -> Self {
        Followed { lowered: BTreeMap::new() }
    }
}

impl<K: Ord, T> Followed<K, Arc<Vec<T>>> {
    /// Brings the sets in the table in line with what the selectors mean now. `declare` makes the empty set of one
    /// family, and `keys` what is in it. Gives the selectors that mean something else than before, or are new.
    pub(super) fn keep_up(
        &mut self,
        now: &BTreeMap<Arc<K>, Arc<Vec<T>>>,
        families: &[Family],
        declare: impl Fn(&K, Family) -> NamedSet,
        keys: impl Fn(&[T], Family) -> Vec<Key>,
        table: &mut Table,
    ) -> Vec<Arc<K>> {
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
        for (selector, members) in &changed {
            let (selector, members) = (*selector, *members);
            // A declaration may be long, and does not change.
            let declared = self.lowered.remove(selector).map(|(_, sets)| sets);
            let declared =
                declared.unwrap_or_else(|| families.iter().map(|family| declare(selector, *family)).collect());
            let filled = declared.into_iter().zip(families).map(|((name, set), family)| {
                let keys = Arc::new(keys(members, *family));
                (name, Arc::new(Set { keys, key_type: set.key_type, comment: set.comment.clone(), filled: None }))
            });
            let sets: Vec<NamedSet> = filled.collect();
            table.sets.extend(sets.iter().cloned());
            self.lowered.insert(selector.clone(), (members.clone(), sets));
        }
        changed.into_iter().map(|(selector, _)| selector.clone()).collect()
    }

    fn forget_gone(&mut self, now: &BTreeMap<Arc<K>, Arc<Vec<T>>>, table: &mut Table) {
        self.lowered.retain(|selector, (_, sets)| {
            let stays = now.get_key_value(selector).is_some_and(|(same, _)| Arc::ptr_eq(same, selector));
            if !stays {
                sets.iter().for_each(|(name, _)| drop(table.sets.remove(name)));
            }
            stays
        });
    }
}

/// The set of the pods that a rule names.
pub(super) fn pods_name(peers: &PodPeers, family: Family) -> SetName {
    SetName::hashed("pods", &describe_peers(peers), &family.to_string())
}

/// The same without its members.
pub(super) fn declare_pods(peers: &PodPeers, family: Family) -> NamedSet {
    let comment = Some(Comment::new(&describe_peers(peers)));
    let set = Set { key_type: KeyType::Address(family), comment, keys: Arc::default(), filled: None };
    (pods_name(peers, family), Arc::new(set))
}

/// Its members of one family.
pub(super) fn pods_keys(members: &[IpAddr], family: Family) -> Vec<Key> {
    let of_family = members.iter().filter(|address| Family::of(**address) == family);
    of_family.map(|address| Key::address(*address)).collect()
}

/// The set of the endpoints that the named ports of a rule mean.
pub(super) fn endpoints_name(selector: &PortSelector, family: Family) -> SetName {
    let names = selector.names.iter().map(|(_, name)| &**name).collect::<Vec<_>>().join(".");
    let names: String = names.chars().take(MOST_NAMES).collect();
    SetName::hashed("port", &describe_port(selector), &format!("{names}-{family}"))
}

/// The same without its endpoints.
pub(super) fn declare_endpoints(selector: &PortSelector, family: Family) -> NamedSet {
    let comment = Some(Comment::new(&describe_port(selector)));
    let set = Set { key_type: KeyType::Endpoint(family), comment, keys: Arc::default(), filled: None };
    (endpoints_name(selector, family), Arc::new(set))
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
    peers.selectors().iter().map(describe_pods).collect::<Vec<_>>().join("; ")
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
