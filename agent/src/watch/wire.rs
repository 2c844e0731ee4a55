//! What lines of a watch and pages of a list say.

use std::borrow::Cow;
use std::fmt;
use std::time::{Duration, SystemTime};

use compiler::api::seconds;
use kube::core::Status;
use serde::Deserialize;
use serde::de::{Deserializer, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::kind::Kind;

/// An event of a watch.
pub(super) enum WatchEvent<K: Kind> {
    /// An object was added or, if it was known, changed.
    Applied { object: K::Wire, was_known: bool },
    /// An object was deleted, or left what is asked for.
    Deleted(K::Wire),
    /// All is said up to a version; with `ends_list` also all objects that there were at the begin.
    Bookmark { version: Option<String>, ends_list: bool },
    /// The watch has failed.
    Error(Box<Status>),
    /// A type of event that is not known.
    Unknown(String),
}

/// A page of a list.
pub(super) struct Page<K: Kind> {
    /// Of the whole list.
    pub(super) version: Option<String>,
    /// Leads to the next page, if there is one.
    pub(super) token: Option<String>,
    pub(super) items: Vec<K::Wire>,
    /// How many objects could not be read.
    pub(super) holes: usize,
}

#[derive(Deserialize)]
struct EventWire<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    object: Option<&'a RawValue>,
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

#[derive(Deserialize)]
struct ChangeWire<'a> {
    #[serde(borrow)]
    object: ChangedWire<'a>,
}

#[derive(Deserialize)]
struct ChangedWire<'a> {
    #[serde(borrow)]
    metadata: ChangedMeta<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ChangedMeta<'a> {
    creation_timestamp: Option<&'a str>,
    #[serde(default)]
    managed_fields: Newest,
}

/// The newest of the times of a list of `managedFields`, in seconds since 1970. Nothing else of it is kept.
#[derive(Default)]
struct Newest(Option<i64>);

#[derive(Deserialize)]
struct ManagedWire<'a> {
    time: Option<&'a str>,
}

/// When the object of a watch's line was last changed, as far as the API server has written it down: in
/// `metadata.managedFields`, and in `creationTimestamp`. Whole seconds, by the API server's clock.
pub(super) fn changed_at(line: &[u8]) -> Option<SystemTime> {
    let ChangeWire { object: ChangedWire { metadata } } = serde_json::from_slice(line).ok()?;
    let created = metadata.creation_timestamp.and_then(seconds);
    let seconds = u64::try_from(created.max(metadata.managed_fields.0)?).ok()?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

// === impl Newest ===

impl<'de> Deserialize<'de> for Newest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Newest, D::Error> {
        deserializer.deserialize_seq(NewestVisitor)
    }
}

struct NewestVisitor;

impl<'de> Visitor<'de> for NewestVisitor {
    type Value = Newest;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of managed fields")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<Newest, A::Error> {
        let mut newest = None;
        while let Some(ManagedWire { time }) = entries.next_element()? {
            newest = newest.max(time.and_then(seconds));
        }
        Ok(Newest(newest))
    }
}

// === impl WatchEvent ===

impl<K: Kind> WatchEvent<K> {
    /// Reads a line, or says why it cannot be read.
    pub(super) fn read(line: &[u8]) -> Result<WatchEvent<K>, String> {
        let broken = |error: serde_json::Error| format!("a line of a watch cannot be read: {error}");
        let EventWire { kind, object } = serde_json::from_slice(line).map_err(broken)?;
        let object = || object.map_or("null", RawValue::get);
        Ok(match &*kind {
            "ADDED" | "MODIFIED" => {
                let object = serde_json::from_str(object()).map_err(broken)?;
                WatchEvent::Applied { object, was_known: kind == "MODIFIED" }
            }
            "DELETED" => WatchEvent::Deleted(serde_json::from_str(object()).map_err(broken)?),
            "BOOKMARK" => {
                let BookmarkWire { metadata } = serde_json::from_str(object()).map_err(broken)?;
                let ends_list = metadata.annotations.and_then(|annotations| annotations.ends_list);
                let ends_list = ends_list.is_some_and(|value| value == "true");
                WatchEvent::Bookmark { version: metadata.resource_version, ends_list }
            }
            "ERROR" => WatchEvent::Error(serde_json::from_str(object()).map_err(broken)?),
            other => WatchEvent::Unknown(other.chars().take(40).collect()),
        })
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
        let items: Vec<K::Wire> = raw.iter().filter_map(|item| serde_json::from_str(item.get()).ok()).collect();
        let holes = raw.len() - items.len();
        let token = metadata.token.filter(|token| !token.is_empty());
        Ok(Page { version: metadata.resource_version, token, items, holes })
    }
}

#[cfg(test)]
mod tests {
    use super::super::kind::{NetworkPolicies, Pods};
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
    fn the_newest_time_of_an_object_is_when_it_was_changed() {
        let at = |metadata: &str| {
            let line = format!(r#"{{"type":"MODIFIED","object":{{"spec":{{"a":[1]}},"metadata":{metadata}}}}}"#);
            let since_1970 = changed_at(line.as_bytes())?.duration_since(SystemTime::UNIX_EPOCH);
            Some(since_1970.unwrap().as_secs())
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
        for none in ["{}", "7", r#"{"creationTimestamp":null}"#, r#"{"creationTimestamp":"1960-01-01T00:00:00Z"}"#] {
            assert_eq!(at(none), None, "{none}");
        }
        assert_eq!(changed_at(b"garbage"), None);
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
