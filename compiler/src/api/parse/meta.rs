//! `metadata`, the same for all kinds.

use sha2::{Digest as _, Sha256};

use crate::api::findings::{Findings, quoted};
use crate::api::lenient::{Entries, Lenient, Record};
use crate::api::wire::{AnnotationsWire, MetaWire};
use crate::api::{Labels, ObjectRef, Str};

use super::syntax::{is_dns_label, is_dns_subdomain, is_label_key, is_label_value};
use super::time::seconds;

/// The namespace of objects that name none, as for kubectl without a context.
const DEFAULT_NAMESPACE: &str = "default";

/// `metadata`, read.
pub(super) struct Meta {
    /// `namespace`; empty for kinds that have none.
    pub(super) namespace: Str,
    /// `name`
    pub(super) name: Str,
    /// `uid`, as it is written.
    pub(super) uid: Option<Str>,
    /// `labels`
    pub(super) labels: Labels,
    /// `annotations`, as far as they are used.
    pub(super) annotations: AnnotationsWire,
    /// `creationTimestamp` in seconds since 1970; 0 where the object has none.
    pub(super) created: i64,
    /// Whether `deletionTimestamp` is set.
    pub(super) terminating: bool,
}

/// Whether objects of a kind have a namespace.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    Namespaced,
    Cluster,
}

/// Reads `metadata`. An object without a name goes by `stand_in`.
///
/// Names end up in nftables' names and comments. What leaves here has the characters of a legal name and no
/// others, whatever the object says.
pub(super) fn meta(kind: &str, scope: Scope, wire: Lenient<Record<MetaWire>>, stand_in: &str) -> (Meta, Findings) {
    let (wire, metadata_is) = match wire {
        Lenient::Good(Record(wire)) => (wire, None),
        Lenient::Absent => (MetaWire::default(), Some("is missing")),
        Lenient::Wrong(_) => (MetaWire::default(), Some("is not an object")),
    };
    let given = |field: &Lenient<Str>| match field {
        Lenient::Good(text) if !text.is_empty() => Some(text.clone()),
        Lenient::Good(_) | Lenient::Absent | Lenient::Wrong(_) => None,
    };
    let name = given(&wire.name).unwrap_or_else(|| Str::from(stand_in));
    let namespace = given(&wire.namespace).unwrap_or_else(|| Str::from(DEFAULT_NAMESPACE));
    let mut findings = Findings::new(ObjectRef {
        kind: Str::from(kind),
        namespace: (scope == Scope::Namespaced).then(|| namespace.clone()),
        name: name.clone(),
    });
    match metadata_is {
        Some(reason) => findings.add("metadata", reason),
        None => check_names(scope, &wire, &mut findings),
    }
    let meta = Meta {
        uid: given(&wire.uid),
        namespace: match scope {
            Scope::Namespaced => legal(namespace, 63, is_dns_label, false),
            Scope::Cluster => Str::from(""),
        },
        name: legal(name, 253, is_dns_subdomain, true),
        labels: labels(wire.labels, "metadata.labels", &mut findings),
        annotations: match wire.annotations.read(&mut findings, || "metadata.annotations".into()) {
            Some(Record(annotations)) => annotations,
            None => AnnotationsWire::default(),
        },
        created: created(wire.creation_timestamp, &mut findings),
        terminating: wire.deletion_timestamp.is_present(),
    };
    (meta, findings)
}

/// Labels of an object. Keys and values that no label can have are kept as they are: a selector that names them
/// is refused in its turn.
pub(super) fn labels(wire: Lenient<Entries>, path: &str, findings: &mut Findings) -> Labels {
    let Some(Entries(entries)) = wire.read(findings, || path.to_owned()) else {
        return Labels::default();
    };
    let mut labels = Vec::with_capacity(entries.len());
    for (key, value) in entries {
        if !is_label_key(&key) {
            findings.add(format!("{path}.{key}"), not_a_label_key(&key));
        }
        // A null is an empty string to the API.
        let is_null = value == Lenient::Absent;
        let Some(value) = value.read(findings, || format!("{path}.{key}")).or(is_null.then(|| Str::from(""))) else {
            continue;
        };
        if !is_label_value(&value) {
            findings.add(format!("{path}.{key}"), not_a_label_value(&value));
        }
        labels.push((key, value));
    }
    labels.into_iter().collect()
}

/// What is said of a key that no label can have.
pub(super) fn not_a_label_key(key: &str) -> String {
    format!(
        "{} is not a label key (up to 63 letters, digits, '-', '_' and '.', perhaps after a DNS name and '/')",
        quoted(key)
    )
}

/// What is said of a value that no label can have.
pub(super) fn not_a_label_value(value: &str) -> String {
    format!("{} is not a label value (up to 63 letters, digits, '-', '_' and '.')", quoted(value))
}

fn check_names(scope: Scope, wire: &MetaWire, findings: &mut Findings) {
    match &wire.name {
        Lenient::Absent => findings.add("metadata.name", "is missing"),
        Lenient::Good(name) if is_dns_subdomain(name) => {}
        Lenient::Good(name) => {
            findings.add(
                "metadata.name",
                format!("{} is not a name (lower-case letters, digits, '-' and '.')", quoted(name)),
            );
        }
        wrong @ Lenient::Wrong(_) => {
            wrong.clone().read(findings, || "metadata.name".into());
        }
    }
    match &wire.namespace {
        Lenient::Good(namespace) if scope == Scope::Namespaced && !is_dns_label(namespace) && !namespace.is_empty() => {
            findings.add(
                "metadata.namespace",
                format!("{} is not the name of a namespace (lower-case letters, digits and '-')", quoted(namespace)),
            );
        }
        Lenient::Absent | Lenient::Good(_) => {}
        wrong @ Lenient::Wrong(_) => {
            wrong.clone().read(findings, || "metadata.namespace".into());
            if scope == Scope::Namespaced {
                findings.add("metadata.namespace", format!("it is taken for {DEFAULT_NAMESPACE}"));
            }
        }
    }
}

/// The name itself if it is legal, else its legal characters with dashes for the others, and behind them a mark of what
/// it is: two names that differ stay apart, so that neither object takes the place of the other.
fn legal(name: Str, longest: usize, is_legal: impl Fn(&str) -> bool, takes_dots: bool) -> Str {
    if is_legal(&name) {
        return name;
    }
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || takes_dots && c == '.';
    let digest = Sha256::digest(name.as_bytes());
    let mark: String = digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    let kept = name.chars().map(|c| if is_plain(c) { c } else { '-' }).take(longest - mark.len() - 1);
    format!("{}-{mark}", kept.collect::<String>()).into()
}

fn created(wire: Lenient<Str>, findings: &mut Findings) -> i64 {
    const FIELD: &str = "metadata.creationTimestamp";
    let Some(text) = wire.read(findings, || FIELD.into()) else {
        return 0;
    };
    seconds(&text).unwrap_or_else(|| {
        findings.add(FIELD, format!("{} is not a time such as 2026-01-31T23:59:59Z; it is left out", quoted(&text)));
        0
    })
}
