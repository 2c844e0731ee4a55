//! The objects, as the list of all that ever happened to them: the state of any version can be told.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

/// What has happened, in the order of versions. The version of an event is its place, from 1.
#[derive(Debug, Default)]
pub(super) struct Store {
    events: Vec<Event>,
    /// Those that there are now.
    known: BTreeSet<Key>,
    /// Watches from before this version are told 410.
    oldest: u64,
}

/// Something that happened to an object.
#[derive(Debug, Clone)]
pub(super) struct Event {
    pub(super) version: u64,
    /// `ADDED`, `MODIFIED` or `DELETED`.
    pub(super) kind: &'static str,
    pub(super) key: Key,
    /// As it was from then on, or last, with the version.
    pub(super) object: Value,
}

/// What tells an object from others.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    collection: String,
    namespace: String,
    name: String,
}

/// Which objects are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Selection {
    pub(super) collection: String,
    pub(super) namespace: Option<String>,
    /// Pods of a node.
    pub(super) node: Option<String>,
    /// Objects with these labels: of each key one of some values, or any where there are none.
    pub(super) labels: Vec<(String, Vec<String>)>,
}

// === impl Store ===

impl Store {
    /// The version of the last event.
    pub(super) fn version(&self) -> u64 {
        self.events.len() as u64
    }

    /// Creates or changes an object.
    pub(super) fn apply(&mut self, object: Value) -> Result<()> {
        let key = Key::of(&object)?;
        let is_new = self.known.insert(key.clone());
        self.add(if is_new { "ADDED" } else { "MODIFIED" }, key, object);
        Ok(())
    }

    /// Deletes an object that there is.
    pub(super) fn delete(&mut self, collection: &str, namespace: &str, name: &str) -> Result<()> {
        let key = Key { collection: collection.into(), namespace: namespace.into(), name: name.into() };
        let object = self.at(self.version()).remove(&key).cloned();
        let object = object.with_context(|| format!("no {collection} {namespace}/{name}"))?;
        self.known.remove(&key);
        self.add("DELETED", key, object);
        Ok(())
    }

    /// From now on nothing can be watched from before this moment.
    pub(super) fn compact(&mut self) {
        self.oldest = self.version();
    }

    /// Whether what happened since a version can still be told.
    pub(super) fn reaches(&self, version: u64) -> bool {
        version >= self.oldest
    }

    /// The selected objects as they were at a version.
    pub(super) fn list(&self, selection: &Selection, version: u64) -> Vec<Value> {
        let all = self.at(version).into_iter();
        all.filter(|(key, object)| selection.has(key, object)).map(|(_, object)| object.clone()).collect()
    }

    /// What happened to the selected objects after a version, up to another: one that begins to be among them is added,
    /// and one that ceases to be is deleted, and told as it was before, as the real server does it.
    pub(super) fn since(&self, selection: &Selection, after: u64, until: u64) -> Vec<Event> {
        let mut selected: BTreeMap<Key, &Value> = BTreeMap::new();
        let mut told = Vec::new();
        for event in self.events.iter().take_while(|event| event.version <= until) {
            let is = event.kind != "DELETED" && selection.has(&event.key, &event.object);
            let was = match is {
                true => selected.insert(event.key.clone(), &event.object),
                false => selected.remove(&event.key),
            };
            let (kind, object) = match (was, is) {
                (None, true) => ("ADDED", &event.object),
                (Some(_), true) => ("MODIFIED", &event.object),
                (Some(before), false) => ("DELETED", before),
                (None, false) => continue,
            };
            if event.version > after {
                let mut object = object.clone();
                object["metadata"]["resourceVersion"] = json!(event.version.to_string());
                told.push(Event { kind, object, version: event.version, key: event.key.clone() });
            }
        }
        told
    }

    fn at(&self, version: u64) -> BTreeMap<Key, &Value> {
        let mut objects = BTreeMap::new();
        for event in self.events.iter().take_while(|event| event.version <= version) {
            match event.kind {
                "DELETED" => objects.remove(&event.key),
                _ => objects.insert(event.key.clone(), &event.object),
            };
        }
        objects
    }

    fn add(&mut self, kind: &'static str, key: Key, mut object: Value) {
        let version = self.version() + 1;
        object["metadata"]["resourceVersion"] = json!(version.to_string());
        self.events.push(Event { version, kind, key, object });
    }
}

// === impl Key ===

impl Key {
    fn of(object: &Value) -> Result<Key> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let kind = text(&object["kind"]);
        ensure!(matches!(&*kind, "Pod" | "Namespace" | "NetworkPolicy"), "{kind} is not served");
        let plural = if kind == "NetworkPolicy" { "networkpolicies".into() } else { kind.to_lowercase() + "s" };
        let metadata = &object["metadata"];
        Ok(Key { collection: plural, namespace: text(&metadata["namespace"]), name: text(&metadata["name"]) })
    }
}

// === impl Selection ===

impl Selection {
    fn has(&self, key: &Key, object: &Value) -> bool {
        key.collection == self.collection
            && self.namespace.as_ref().is_none_or(|namespace| *namespace == key.namespace)
            && self.node.as_ref().is_none_or(|node| object["spec"]["nodeName"].as_str() == Some(node))
            && self.labels.iter().all(|(key, values)| {
                let value = object["metadata"]["labels"][key].as_str();
                value.is_some_and(|value| values.is_empty() || values.iter().any(|known| known == value))
            })
    }
}
