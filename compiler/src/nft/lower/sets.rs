//! Sets: what selectors, named ports, CIDR lists and long lists of ports mean.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use super::super::{Comment, Family, Key, KeyType, Set, SetName, Table};
use crate::api::{NamespaceScope, PodSelector, PortRange};
use crate::cluster::{Endpoints, Members, PortSelector};
use crate::policy::{AddressRange, Ir};

/// The sets that follow the pods of the cluster, and what they were made of.
#[derive(Debug, Default)]
pub(super) struct LoweredSets {
    pods: BTreeMap<(PodSelector, Family), (Members, SetName, Arc<Set>)>,
    endpoints: BTreeMap<(PortSelector, Family), (Endpoints, SetName, Arc<Set>)>,
}

impl LoweredSets {
    /// Adds to the table the sets of all selectors and named ports of an IR.
    pub(super) fn lower(&mut self, ir: &Ir, families: &[Family], table: &mut Table) {
        let mut pods = BTreeMap::new();
        for (selector, members) in &ir.members {
            for family in families.iter().copied() {
                let slot = (selector.clone(), family);
                let known = self.pods.remove(&slot).filter(|(from, ..)| Arc::ptr_eq(from, members));
                let lowered = known.unwrap_or_else(|| {
                    (members.clone(), pods_name(selector, family), Arc::new(pods_set(selector, members, family)))
                });
                table.sets.insert(lowered.1.clone(), lowered.2.clone());
                pods.insert(slot, lowered);
            }
        }
        self.pods = pods;
        let mut endpoints = BTreeMap::new();
        for (selector, known_endpoints) in &ir.endpoints {
            for family in families.iter().copied() {
                let slot = (selector.clone(), family);
                let known = self.endpoints.remove(&slot).filter(|(from, ..)| Arc::ptr_eq(from, known_endpoints));
                let lowered = known.unwrap_or_else(|| {
                    let set = endpoints_set(selector, known_endpoints, family);
                    (known_endpoints.clone(), endpoints_name(selector, family), Arc::new(set))
                });
                table.sets.insert(lowered.1.clone(), lowered.2.clone());
                endpoints.insert(slot, lowered);
            }
        }
        self.endpoints = endpoints;
    }
}

/// The set of the addresses that a selector means.
pub(super) fn pods_name(selector: &PodSelector, family: Family) -> SetName {
    SetName::hashed("pods", &describe_pods(selector), &family.to_string())
}

fn pods_set(selector: &PodSelector, members: &Members, family: Family) -> Set {
    let of_family = members.iter().filter(|address| Family::of(**address) == family);
    Set {
        key_type: KeyType::Address(family),
        comment: Some(Comment::new(&describe_pods(selector))),
        keys: Arc::new(of_family.map(|address| Key::address(*address)).collect()),
    }
}

/// The set of the endpoints that a named port means.
pub(super) fn endpoints_name(selector: &PortSelector, family: Family) -> SetName {
    SetName::hashed("port", &describe_port(selector), &format!("{}-{family}", selector.name))
}

fn endpoints_set(selector: &PortSelector, endpoints: &Endpoints, family: Family) -> Set {
    let of_family = endpoints.iter().filter(|(address, _)| Family::of(*address) == family);
    Set {
        key_type: KeyType::Endpoint(family),
        comment: Some(Comment::new(&describe_port(selector))),
        keys: Arc::new(of_family.map(|(address, port)| Key::endpoint(*address, selector.protocol, *port)).collect()),
    }
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
