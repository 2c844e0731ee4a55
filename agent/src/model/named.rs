//! The names of ends, as people write them.
//!
//! ```text
//! 10.0.0.1                an address
//! shop/web, web           a pod, of namespace default where none is named; or else a Service of this name
//! pod/.., svc/..          the one and not the other: svc/web, svc/shop/web
//! node/n1                 a node
//! deploy/web, ns/shop ..  the pods of a workload, or of a namespace
//! ```

use std::fmt;
use std::net::IpAddr;

use compiler::api::WorkloadKind;

use super::EndError;

/// What a name may be the name of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum EndKind {
    /// `pod/`
    Pod,
    /// `svc/`
    Service,
    /// `node/`
    Node,
    /// `ns/`
    Namespace,
    /// `deploy/`, `ds/` and the like
    Workload(WorkloadKind),
}

/// The name of an end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Named {
    /// An address.
    Address(IpAddr),
    /// A pod, or else a Service.
    Plain {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// Something of a kind.
    Of {
        /// Its kind.
        kind: EndKind,
        /// Its namespace; empty for nodes and namespaces.
        namespace: String,
        /// Its name.
        name: String,
        /// Whether no namespace is written. `svc/web` may then be meant for a pod `web` in a namespace `svc`.
        is_short: bool,
    },
}

/// The words for each kind that kubectl takes.
const WORDS: [(EndKind, &[&str]); 11] = [
    (EndKind::Pod, &["pod", "pods", "po"]),
    (EndKind::Service, &["svc", "service", "services"]),
    (EndKind::Node, &["node", "nodes", "no"]),
    (EndKind::Namespace, &["ns", "namespace", "namespaces"]),
    (EndKind::Workload(WorkloadKind::Deployment), &["deploy", "deployment", "deployments"]),
    (EndKind::Workload(WorkloadKind::DaemonSet), &["ds", "daemonset", "daemonsets"]),
    (EndKind::Workload(WorkloadKind::StatefulSet), &["sts", "statefulset", "statefulsets"]),
    (EndKind::Workload(WorkloadKind::ReplicaSet), &["rs", "replicaset", "replicasets"]),
    (
        EndKind::Workload(WorkloadKind::ReplicationController),
        &["rc", "replicationcontroller", "replicationcontrollers"],
    ),
    (EndKind::Workload(WorkloadKind::Job), &["job", "jobs"]),
    (EndKind::Workload(WorkloadKind::CronJob), &["cronjob", "cronjobs", "cj"]),
];

/// The longest name that an end may have: the longest word for a kind, a namespace and a name, with slashes between.
const LONGEST: usize = 22 + 1 + 63 + 1 + 253;
/// How many letters the names that are told of may differ by.
const MOST_SLIPS: usize = 4;

impl Named {
    /// Reads a name.
    ///
    /// # Errors
    ///
    /// If it has no form of those above.
    pub fn read(text: &str) -> Result<Named, EndError> {
        if let Ok(address) = text.parse() {
            return Ok(Named::Address(address));
        }
        let parts: Vec<&str> = text.split('/').collect();
        let malformed = || EndError::Malformed(text.chars().take(LONGEST).collect());
        if parts.iter().any(|part| part.is_empty()) || text.len() > LONGEST {
            return Err(malformed());
        }
        let kind = EndKind::of_word(parts[0]);
        let (namespace, name, is_short) = match (kind, &parts[..]) {
            (_, [name]) => return Ok(Named::Plain { namespace: "default".into(), name: (*name).into() }),
            (None, [namespace, name]) => {
                return Ok(Named::Plain { namespace: (*namespace).into(), name: (*name).into() });
            }
            (Some(EndKind::Node | EndKind::Namespace), [_, name]) => ("", *name, true),
            (Some(_), [_, name]) => ("default", *name, true),
            (Some(kind), [_, namespace, name]) if !matches!(kind, EndKind::Node | EndKind::Namespace) => {
                (*namespace, *name, false)
            }
            _ => return Err(malformed()),
        };
        let kind = kind.ok_or_else(malformed)?;
        Ok(Named::Of { kind, namespace: namespace.into(), name: name.into(), is_short })
    }
}

impl EndKind {
    fn of_word(word: &str) -> Option<EndKind> {
        WORDS.iter().find(|(_, words)| words.contains(&word)).map(|(kind, _)| *kind)
    }

    /// The word for it that is used here: `svc`.
    pub fn word(self) -> &'static str {
        WORDS.iter().find(|(kind, _)| *kind == self).map_or("", |(_, words)| words[0])
    }

    /// `kind` of the API.
    pub fn as_str(self) -> &'static str {
        match self {
            EndKind::Pod => "pod",
            EndKind::Service => "Service",
            EndKind::Node => "node",
            EndKind::Namespace => "namespace",
            EndKind::Workload(kind) => kind.as_str(),
        }
    }
}

impl fmt::Display for EndKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// `; did you mean ..?` with up to three of the names that are near to one that is not there; nothing where none is.
pub fn nearest(missing: &str, names: impl Iterator<Item = String>) -> String {
    let bare = |name: &str| name.rsplit('/').next().unwrap_or_default().to_owned();
    let is_near = |distance: usize, name: &str| distance <= (name.len() / 3).clamp(1, MOST_SLIPS);
    let mut near: Vec<(usize, String)> = names
        .filter_map(|name| {
            // A name in another namespace is as near as a slip of the keyboard.
            let whole = distance(missing, name.strip_prefix("svc/").unwrap_or(&name));
            let elsewhere = if bare(missing) == bare(&name) { 2 } else { usize::MAX };
            (is_near(whole, &bare(missing)) || elsewhere == 2).then(|| (whole.min(elsewhere), name))
        })
        .collect();
    near.sort();
    near.dedup();
    let near: Vec<String> = near.into_iter().take(3).map(|(_, name)| name).collect();
    if near.is_empty() { String::new() } else { format!("; did you mean {}?", near.join(" or ")) }
}

/// How many letters have to be put in, left out or changed to make one text of the other; where they differ in length by
/// more than matters, just as many.
fn distance(a: &str, b: &str) -> usize {
    let lengths = a.chars().count().abs_diff(b.chars().count());
    if lengths > MOST_SLIPS {
        return lengths;
    }
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, of_a) in a.chars().enumerate() {
        let mut before = row[0];
        row[0] = i + 1;
        for (j, of_b) in b.iter().enumerate() {
            let changed = before + usize::from(of_a != *of_b);
            before = row[j + 1];
            row[j + 1] = changed.min(before + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_kubectl_reads_them() {
        let read = |text: &str| match Named::read(text) {
            Ok(Named::Address(address)) => format!("address {address}"),
            Ok(Named::Plain { namespace, name }) => format!("plain {namespace} {name}"),
            Ok(Named::Of { kind, namespace, name, is_short }) => format!("{kind} {namespace} {name} {is_short}"),
            Err(error) => error.to_string(),
        };
        assert_eq!(read("10.0.0.1"), "address 10.0.0.1");
        assert_eq!(read("fd00::1"), "address fd00::1");
        assert_eq!(read("web"), "plain default web");
        assert_eq!(read("shop/web"), "plain shop web");
        assert_eq!(read("svc/web"), "Service default web true");
        assert_eq!(read("services/shop/web"), "Service shop web false");
        assert_eq!(read("deploy/shop/web"), "Deployment shop web false");
        assert_eq!(read("node/n1"), "node  n1 true");
        for text in ["", "/", "a/", "/b", "a/b/c", "svc/a/b/c", "node/a/b", "svc//b", &"x".repeat(400)] {
            assert!(matches!(Named::read(text), Err(EndError::Malformed(_))), "{text}");
        }
    }

    #[test]
    fn near_names_are_told() {
        let names = ["shop/web", "svc/shop/wed", "shop/database", "other/db"];
        let told = |missing: &str| nearest(missing, names.iter().map(|name| (*name).to_owned()));
        assert_eq!(told("shop/wbe"), "");
        assert_eq!(told("shop/weh"), "; did you mean shop/web or svc/shop/wed?");
        assert_eq!(told("shop/databse"), "; did you mean shop/database?");
        assert_eq!(told("shop/db"), "; did you mean other/db?");
        assert_eq!(told("shop/quite-another"), "");
    }
}
