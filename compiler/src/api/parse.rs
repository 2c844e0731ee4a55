//! From a document to objects.

mod address;
mod endpoint_slice;
mod kind;
mod meta;
mod namespace;
mod network_policy;
mod node;
mod pod;
mod port;
mod rule;
mod selector;
mod service;
mod syntax;
mod time;
mod workload;

use std::fmt;

use serde::de::DeserializeOwned;

pub use kind::Doubt;
pub use network_policy::parse_network_policy;
pub use time::{changed_at, seconds};

use network_policy::parse_network_policy_as;
use workload::{owner_of, parse_workload};

use super::json::Json;
use super::text::escaped;
use super::wire::{EndpointSliceWire, NamespaceWire, NodeWire, PodWire, ServiceWire};
use super::{
    EndpointSlice, Namespace, NetworkPolicy, Node, ObjectRef, Parsed, Pod, Protocol, Service, Str, Workload,
    WorkloadKey, WorkloadKind,
};

/// The `apiVersion` of NetworkPolicies.
const CURRENT: &str = "networking.k8s.io/v1";
/// The `apiVersion` of NetworkPolicies of the first generation.
const FIRST_GENERATION: &str = "extensions/v1beta1";

/// An object of a kind that matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Object {
    /// `v1` Pod
    Pod(Pod),
    /// `v1` Namespace
    Namespace(Namespace),
    /// `networking.k8s.io` or `extensions` NetworkPolicy
    NetworkPolicy(NetworkPolicy),
    /// `v1` Service
    Service(Service),
    /// `discovery.k8s.io/v1` EndpointSlice
    EndpointSlice(EndpointSlice),
    /// `v1` Node
    Node(Node),
}

/// What one object of a document turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// An object that matters, as far as it could be read.
    Object {
        /// The object.
        parsed: Parsed<Object>,
        /// The ports that the containers of a Pod declare, named or not: what is worth probing. To policies they mean
        /// nothing, so the Pod itself keeps the named ones only.
        declared_ports: Vec<(Protocol, u16)>,
        /// Whether the object is a Pod and says what has become of it: its status has fields.
        has_status: bool,
        /// Whether the object is a Pod whose status says by its conditions that it is not ready. To policies that means
        /// nothing, so the Pod itself does not keep it.
        is_unready: bool,
        /// The workload that made the object, if it is a Pod. To policies that means nothing.
        owner: Option<WorkloadKey>,
    },
    /// An object from which a cluster makes Pods.
    Workload(Box<Parsed<Workload>>),
    /// An object of another kind.
    Skipped(SkippedKind),
    /// No object at all.
    Invalid(InvalidObject),
}

/// An object of a kind that policies are not about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SkippedKind {
    /// `apiVersion`
    pub api_version: String,
    /// `kind`
    pub kind: String,
    /// `metadata.name`, if it has one.
    pub name: Option<String>,
    /// Why it deserves more than a note.
    pub doubt: Option<Doubt>,
}

/// Something that stands where an object is due and is none.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
#[error("{}{reason}", if path.is_empty() { String::new() } else { format!("{path}: ") })]
pub struct InvalidObject {
    /// Where in the document it stands; empty for the document itself.
    pub path: String,
    /// What it is or lacks.
    pub reason: String,
}

/// Reads a document: one object, or a list of them.
///
/// Lists are taken apart, also lists in lists. Objects without `metadata.namespace` are in `default`. An object
/// without a name goes by `stand_in`, so that a policy without one still isolates; in a list with its place there.
pub fn parse(document: &Json, stand_in: &str) -> Vec<Item> {
    let mut items = Vec::new();
    // A stack and no recursion: how deep lists are nested is up to the document.
    let mut rest = vec![Place { value: document, path: String::new(), kind_by_list: None }];
    while let Some(place) = rest.pop() {
        match object(&place, stand_in) {
            Read::Item(item) => items.push(*item),
            Read::List(places) => rest.extend(places.into_iter().rev()),
        }
    }
    items
}

/// A value that should be an object, and where it stands.
struct Place<'a> {
    value: &'a Json,
    path: String,
    /// `apiVersion` and `kind` of the items of a list such as PodList, which leave them out.
    kind_by_list: Option<(&'a str, &'a str)>,
}

enum Read<'a> {
    Item(Box<Item>),
    List(Vec<Place<'a>>),
}

fn object<'a>(place: &Place<'a>, stand_in: &str) -> Read<'a> {
    let invalid = |reason: &str| {
        Read::Item(Box::new(Item::Invalid(InvalidObject { path: place.path.clone(), reason: reason.to_owned() })))
    };
    if place.value.as_object().is_none() {
        return invalid("is not an object");
    }
    let text = |name: &str| place.value.get(name).and_then(Json::as_str).filter(|text| !text.is_empty());
    let Some(kind) = text("kind").or(place.kind_by_list.map(|(_, kind)| kind)) else {
        return invalid("has no kind");
    };
    let Some(api_version) = text("apiVersion").or(place.kind_by_list.map(|(api_version, _)| api_version)) else {
        return invalid("has no apiVersion");
    };
    if let Some(kind_of_items) = kind.strip_suffix("List") {
        let kind_by_list = (!kind_of_items.is_empty()).then_some((api_version, kind_of_items));
        let prefix = if place.path.is_empty() { String::new() } else { format!("{}.", place.path) };
        return match place.value.get("items") {
            None | Some(Json::Null) => Read::List(Vec::new()),
            Some(Json::List(values)) => Read::List(
                values
                    .iter()
                    .enumerate()
                    .map(|(i, value)| Place { value, path: format!("{prefix}items[{i}]"), kind_by_list })
                    .collect(),
            ),
            Some(Json::Bool(_) | Json::Number(_) | Json::String(_) | Json::Object(_)) => {
                invalid("has items that are not a list")
            }
        };
    }
    let stand_in = if place.path.is_empty() { stand_in.to_owned() } else { format!("{stand_in}.{}", place.path) };
    let item = match (api_version, kind) {
        ("v1", "Pod") => decoded(place, |wire: PodWire| {
            let declared_ports = wire.declared_ports();
            let has_status =
                place.value.get("status").and_then(Json::as_object).is_some_and(|status| !status.is_empty());
            let is_unready = is_unready(place.value);
            let parsed = wire.parse_as(&stand_in);
            let owner = owner_of(place.value, &parsed.value.key.namespace);
            Item::Object { parsed: parsed.map(Object::Pod), declared_ports, has_status, is_unready, owner }
        }),
        ("v1", "Namespace") => {
            decoded(place, |wire: NamespaceWire| portless(wire.parse_as(&stand_in).map(Object::Namespace)))
        }
        ("v1", "Service") => {
            decoded(place, |wire: ServiceWire| portless(wire.parse_as(&stand_in).map(Object::Service)))
        }
        ("discovery.k8s.io/v1", "EndpointSlice") => decoded(place, |wire: EndpointSliceWire| {
            let has_names = place.value.get("addressType").and_then(Json::as_str) == Some("FQDN");
            portless(wire.parse_as(&stand_in, has_names).map(Object::EndpointSlice))
        }),
        ("v1", "Node") => decoded(place, |wire: NodeWire| portless(wire.parse_as(&stand_in).map(Object::Node))),
        // Of any version: a policy that is passed over would leave open what it isolates.
        (api_version, "NetworkPolicy") if is_group_of_policies(api_version) => {
            portless(parse_network_policy_as(place.value, &stand_in).map(Object::NetworkPolicy))
        }
        _ => match WorkloadKind::of(kind).filter(|kind| kind.is_in(api_version)) {
            Some(kind) => Item::Workload(Box::new(parse_workload(kind, place.value, &stand_in))),
            None => Item::Skipped(SkippedKind {
                api_version: api_version.to_owned(),
                kind: kind.to_owned(),
                name: place.value.at(&["metadata", "name"]).and_then(Json::as_str).map(str::to_owned),
                doubt: kind::doubt(api_version, kind, place.value, &stand_in),
            }),
        },
    };
    Read::Item(Box::new(item))
}

fn is_group_of_policies(api_version: &str) -> bool {
    let group = api_version.split_once('/').map(|(group, _)| group);
    matches!(group, Some("networking.k8s.io" | "extensions"))
}

fn decoded<W: DeserializeOwned>(place: &Place<'_>, read: impl FnOnce(W) -> Item) -> Item {
    match W::deserialize(place.value) {
        Ok(wire) => read(wire),
        Err(error) => Item::Invalid(InvalidObject { path: place.path.clone(), reason: error.to_string() }),
    }
}

fn portless(parsed: Parsed<Object>) -> Item {
    Item::Object { parsed, declared_ports: Vec::new(), has_status: false, is_unready: false, owner: None }
}

/// Whether the conditions of a Pod are there and do not say that it is ready.
fn is_unready(pod: &Json) -> bool {
    let conditions = pod.at(&["status", "conditions"]).and_then(Json::as_list);
    let text = |condition: &Json, name: &str| condition.get(name).and_then(Json::as_str).map(str::to_owned);
    let is_ready = |condition: &Json| {
        text(condition, "type").as_deref() == Some("Ready") && text(condition, "status").as_deref() == Some("True")
    };
    conditions.is_some_and(|conditions| !conditions.is_empty() && !conditions.iter().any(is_ready))
}

// === impl Object ===

impl Object {
    /// Kind, namespace and name.
    pub fn reference(&self) -> ObjectRef {
        let (kind, namespace, name) = match self {
            Object::Pod(pod) => ("Pod", Some(&pod.key.namespace), &pod.key.name),
            Object::Namespace(namespace) => ("Namespace", None, &namespace.name),
            Object::NetworkPolicy(policy) => ("NetworkPolicy", Some(&policy.key.namespace), &policy.key.name),
            Object::Service(service) => ("Service", Some(&service.namespace), &service.name),
            Object::EndpointSlice(slice) => ("EndpointSlice", Some(&slice.namespace), &slice.name),
            Object::Node(node) => ("Node", None, &node.name.0),
        };
        ObjectRef { kind: Str::from(kind), namespace: namespace.cloned(), name: name.clone() }
    }
}

// === impl SkippedKind ===

impl fmt::Display for SkippedKind {
    /// `ConfigMap settings (v1): not of a kind that policies are about, skipped`, and of what makes Pods, that it takes
    /// the Pods themselves.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let SkippedKind { api_version, kind, name, doubt: _ } = self;
        write!(f, "{}", escaped(kind))?;
        if let Some(name) = name {
            write!(f, " {}", escaped(name))?;
        }
        write!(f, " ({}): not of a kind that policies are about, skipped", escaped(api_version))?;
        if WorkloadKind::ALL.iter().any(|maker| maker.as_str() == kind) {
            write!(f, "; its Pods are not made from it")
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests;
