//! What lines of a watch and pages of a list say.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use compiler::api::Parsed;
use kube::core::Status;
use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::kind::Kind;

/// An event of a watch.
pub(super) enum WatchEvent<K: Kind> {
    /// An object was added or, if it was known, changed.
    Applied { object: Object<K>, was_known: bool },
    /// An object was deleted, or left what is asked for.
    Deleted(Object<K>),
    /// All is said up to a version; with `ends_list` also all objects that there were at the begin.
    Bookmark { version: Option<String>, ends_list: bool },
    /// The watch has failed.
    Error(Box<Status>),
    /// A type of event that is not known.
    Unknown(String),
}

/// What an event says of its object.
pub(super) struct Object<K: Kind> {
    /// `metadata.resourceVersion`
    pub(super) version: Option<String>,
    /// When it was last changed, in seconds since 1970.
    pub(super) changed_at: Option<i64>,
    pub(super) parsed: Parsed<K::Model>,
}

/// A page of a list.
pub(super) struct Page<K: Kind> {
    /// Of the whole list.
    pub(super) version: Option<String>,
    /// Leads to the next page, if there is one.
    pub(super) token: Option<String>,
    pub(super) items: Vec<Parsed<K::Model>>,
    /// How many objects could not be read.
    pub(super) holes: usize,
}

/// A line of a watch.
struct EventWire<'a, W> {
    kind: Option<String>,
    object: Option<ObjectWire<'a, W>>,
}

/// What an event is about.
enum ObjectWire<'a, W> {
    /// An object of the kind that is watched. They are read as they come, since they may be large.
    Watched(W),
    /// Another one, or one of which the event had not said yet what it is.
    Raw(&'a RawValue),
}

#[derive(Deserialize)]
struct BookmarkWire {
    metadata: BookmarkMeta,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BookmarkMeta {
    resource_version: Option<String>,
    annotations: Option<BookmarkAnnotations>,
}

#[derive(Deserialize)]
struct BookmarkAnnotations {
    #[serde(rename = "k8s.io/initial-events-end")]
    ends_list: Option<String>,
}

#[derive(Deserialize)]
struct PageWire<'a> {
    kind: Option<Cow<'a, str>>,
    metadata: Option<PageMeta>,
    #[serde(borrow)]
    items: Option<Vec<&'a RawValue>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PageMeta {
    resource_version: Option<String>,
    #[serde(rename = "continue")]
    token: Option<String>,
}

// === impl EventWire ===

impl<'de: 'a, 'a, W: DeserializeOwned> Deserialize<'de> for EventWire<'a, W> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(EventVisitor(PhantomData))
    }
}

struct EventVisitor<W>(PhantomData<W>);

impl<'de, W: DeserializeOwned> Visitor<'de> for EventVisitor<W> {
    type Value = EventWire<'de, W>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an event")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Self::Value, A::Error> {
        let mut event = EventWire { kind: None, object: None };
        while let Some(field) = fields.next_key::<Cow<'de, str>>()? {
            match &*field {
                "type" => event.kind = Some(fields.next_value()?),
                "object" if event.kind.as_deref().is_some_and(is_of_object) => {
                    event.object = Some(ObjectWire::Watched(fields.next_value()?));
                }
                "object" => event.object = fields.next_value::<Option<&RawValue>>()?.map(ObjectWire::Raw),
                _ => _ = fields.next_value::<IgnoredAny>()?,
            }
        }
        Ok(event)
    }
}

/// Whether events of this type are about objects of the kind that is watched.
fn is_of_object(kind: &str) -> bool {
    matches!(kind, "ADDED" | "MODIFIED" | "DELETED")
}

// === impl ObjectWire ===

impl<W: DeserializeOwned> ObjectWire<'_, W> {
    fn watched(self) -> Result<W, serde_json::Error> {
        match self {
            ObjectWire::Watched(object) => Ok(object),
            ObjectWire::Raw(raw) => serde_json::from_str(raw.get()),
        }
    }

    fn another<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        match self {
            ObjectWire::Watched(_) => Err(Error::custom("two types")),
            ObjectWire::Raw(raw) => serde_json::from_str(raw.get()),
        }
    }
}

// === impl WatchEvent ===

impl<K: Kind> WatchEvent<K> {
    /// Reads a line, or says why it cannot be read.
    pub(super) fn read(line: &[u8]) -> Result<WatchEvent<K>, String> {
        let broken = |error: serde_json::Error| format!("a line of a watch cannot be read: {error}");
        let EventWire { kind, object } = serde_json::from_slice::<EventWire<'_, K::Wire>>(line).map_err(broken)?;
        let kind = kind.ok_or_else(|| broken(Error::missing_field("type")))?;
        let object = object.ok_or_else(|| broken(Error::missing_field("object")));
        Ok(match &*kind {
            "ADDED" | "MODIFIED" => {
                let object = Object::of(object?.watched().map_err(broken)?);
                WatchEvent::Applied { object, was_known: kind == "MODIFIED" }
            }
            "DELETED" => WatchEvent::Deleted(Object::of(object?.watched().map_err(broken)?)),
            "BOOKMARK" => {
                let BookmarkWire { metadata } = object?.another().map_err(broken)?;
                let ends_list = metadata.annotations.and_then(|annotations| annotations.ends_list);
                let ends_list = ends_list.is_some_and(|value| value == "true");
                WatchEvent::Bookmark { version: metadata.resource_version, ends_list }
            }
            "ERROR" => WatchEvent::Error(object?.another().map_err(broken)?),
            other => WatchEvent::Unknown(other.chars().take(40).collect()),
        })
    }
}

// === impl Object ===

impl<K: Kind> Object<K> {
    fn of(wire: K::Wire) -> Object<K> {
        let version = K::resource_version(&wire).map(str::to_owned);
        Object { version, changed_at: K::changed_at(&wire), parsed: K::parse(wire) }
    }
}

// === impl Page ===

impl<K: Kind> Page<K> {
    /// Reads an answer, or says why it is no list.
    pub(super) fn read(text: &[u8]) -> Result<Page<K>, String> {
        let page: PageWire<'_> =
            serde_json::from_slice(text).map_err(|error| format!("a list cannot be read: {error}"))?;
        let kind = page.kind.unwrap_or_default();
        let Some(metadata) = page.metadata.filter(|_| kind.ends_with("List")) else {
            return Err(format!(
                "the server sent a {:?} in place of a list",
                kind.chars().take(40).collect::<String>()
            ));
        };
        let raw = page.items.unwrap_or_default();
        let items = raw.iter().filter_map(|item| serde_json::from_str(item.get()).ok()).map(K::parse);
        let items: Vec<Parsed<K::Model>> = items.collect();
        let holes = raw.len() - items.len();
        let token = metadata.token.filter(|token| !token.is_empty());
        Ok(Page { version: metadata.resource_version, token, items, holes })
    }
}

#[cfg(test)]
mod tests {
    use super::super::kind::{Namespaces, NetworkPolicies, Pods};
    use super::*;

    #[test]
    fn events_are_told_apart() {
        let read = |line: &str| WatchEvent::<Pods>::read(line.as_bytes());
        let added = r#"{"type":"ADDED","object":{"metadata":{"name":"a","resourceVersion":"7"}}}"#;
        assert!(matches!(read(added), Ok(WatchEvent::Applied { was_known: false, .. })));
        assert!(matches!(read(&added.replace("ADDED", "DELETED")), Ok(WatchEvent::Deleted(_))));
        let end = r#"{"object":{"metadata":{"resourceVersion":"9","annotations":{"k8s.io/initial-events-end":"true"}}},
            "type":"BOOKMARK"}"#;
        assert!(matches!(read(end), Ok(WatchEvent::Bookmark { version: Some(v), ends_list: true }) if v == "9"));
        let gone = r#"{"type":"ERROR","object":{"kind":"Status","code":410,"message":"too old"}}"#;
        assert!(matches!(read(gone), Ok(WatchEvent::Error(status)) if status.code == 410));
        assert!(matches!(read(r#"{"type":"RENAMED"}"#), Ok(WatchEvent::Unknown(kind)) if kind == "RENAMED"));
        for garbage in ["", "7", "{\"type\":\"ADDED\"}", "<html>", "{\"type\":\"BOOKMARK\",\"object\":7}"] {
            assert!(read(garbage).is_err(), "{garbage}");
        }
    }

    #[test]
    fn an_object_may_come_before_its_type() {
        let read = |line: &str| WatchEvent::<Pods>::read(line.as_bytes());
        let line = r#"{"object":{"metadata":{"name":"a","resourceVersion":"7"}},"type":"MODIFIED","later":[1]}"#;
        let Ok(WatchEvent::Applied { object, was_known: true }) = read(line) else { panic!("is read otherwise") };
        assert_eq!(object.version.as_deref(), Some("7"));
        for two in
            [r#"{"type":"ADDED","object":{},"type":"ERROR"}"#, r#"{"type":"ADDED","object":null,"type":"BOOKMARK"}"#]
        {
            assert!(read(two).is_err(), "{two}");
        }
    }

    #[test]
    fn the_newest_time_of_an_object_is_when_it_was_changed() {
        let at = |metadata: &str| {
            let line = format!(r#"{{"type":"MODIFIED","object":{{"spec":{{"a":[1]}},"metadata":{metadata}}}}}"#);
            fn of<K: Kind>(line: &str) -> Option<i64> {
                let Ok(WatchEvent::Applied { object, .. }) = WatchEvent::<K>::read(line.as_bytes()) else {
                    panic!("not read: {line}")
                };
                object.changed_at
            }
            let times = [of::<Pods>(&line), of::<Namespaces>(&line), of::<NetworkPolicies>(&line)];
            assert!(times.iter().all(|time| *time == times[0]), "{line}: {times:?}");
            times[0]
        };
        let created = r#""creationTimestamp":"1970-01-01T00:01:00Z""#;
        let managed = |times: &[&str]| {
            let entry = |time: &&str| {
                format!(r#"{{"manager":"m\"x","operation":"Update","fieldsV1":{{"f:spec":{{}}}}{time}}}"#)
            };
            format!(r#""managedFields":[{}]"#, times.iter().map(entry).collect::<Vec<_>>().join(","))
        };
        let [two, three] = [2, 3].map(|minute| format!(r#","time":"1970-01-01T00:0{minute}:00Z""#));
        assert_eq!(at(&format!("{{{created}}}")), Some(60));
        assert_eq!(at(&format!("{{{created},{}}}", managed(&[&two, "", &three, &two]))), Some(180));
        assert_eq!(at(&format!("{{{}}}", managed(&[&two]))), Some(120));
        assert_eq!(at(&format!("{{{},{created}}}", managed(&["", r#","time":"soon""#]))), Some(60));
        for none in
            ["{}", "7", r#"{"creationTimestamp":null}"#, r#"{"managedFields":[7,null]}"#, r#"{"managedFields":7}"#]
        {
            assert_eq!(at(none), None, "{none}");
        }
    }

    #[test]
    fn only_a_list_is_a_list() {
        let page = Page::<Pods>::read(
            br#"{"kind":"PodList","metadata":{"resourceVersion":"5","continue":"x"},"items":[{"metadata":{}},7]}"#,
        );
        let page = page.unwrap_or_else(|error| panic!("{error}"));
        assert_eq!((page.items.len(), page.holes), (1, 1));
        assert_eq!((page.version.as_deref(), page.token.as_deref()), (Some("5"), Some("x")));
        let status = br#"{"kind":"Status","metadata":{},"status":"Success"}"#;
        let error = Page::<NetworkPolicies>::read(status).err().unwrap();
        assert_eq!(error, r#"the server sent a "Status" in place of a list"#);
        assert!(Page::<NetworkPolicies>::read(b"<html>").is_err());
    }
}
