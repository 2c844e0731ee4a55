//! What is wrong with the objects of one list: logged when it changes, counted as long as it stays.

use std::collections::BTreeMap;
use std::fmt;

use compiler::api::Finding;
use tracing::warn;

use crate::metrics::WatchMetrics;

/// How many findings of one object a line shows.
const MOST_SHOWN: usize = 20;

/// The findings of the objects of one kind, by what names them.
pub(super) struct Findings<K: Ord> {
    kind: &'static str,
    by_object: BTreeMap<K, Vec<Finding>>,
    metrics: WatchMetrics,
}

// === impl Findings ===

impl<K: Ord> Findings<K> {
    /// None yet.
    pub(super) fn new(kind: &'static str, metrics: WatchMetrics) -> Self {
        Findings { kind, by_object: BTreeMap::new(), metrics }
    }

    /// What is found in an object as it is now.
    pub(super) fn put(&mut self, key: K, findings: Vec<Finding>) {
        let before = self.by_object.len();
        if findings.is_empty() {
            self.by_object.remove(&key);
        } else if self.by_object.get(&key) != Some(&findings) {
            log(&findings);
            self.by_object.insert(key, findings);
        }
        self.count_from(before);
    }

    /// The object is gone.
    pub(super) fn remove(&mut self, key: &K) {
        let before = self.by_object.len();
        self.by_object.remove(key);
        self.count_from(before);
    }

    /// What is found in all objects, those without findings left out.
    pub(super) fn reset(&mut self, all: BTreeMap<K, Vec<Finding>>) {
        let before = self.by_object.len();
        for (key, findings) in &all {
            if self.by_object.get(key) != Some(findings) {
                log(findings);
            }
        }
        self.by_object = all;
        self.count_from(before);
    }

    fn count_from(&self, before: usize) {
        let size = |size: usize| i64::try_from(size).unwrap_or(i64::MAX);
        if before != self.by_object.len() {
            self.metrics.invalid_changed(self.kind, size(self.by_object.len()) - size(before));
        }
    }
}

impl<K: Ord> Drop for Findings<K> {
    fn drop(&mut self) {
        self.reset(BTreeMap::new());
    }
}

/// One line for an object, so that one with many findings hides no others.
fn log(findings: &[Finding]) {
    let Some(first) = findings.first() else { return };
    warn!(object = %first.object, "{}", Listed(findings));
}

/// Findings of one object, the first of them if there are many.
struct Listed<'a>(&'a [Finding]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, finding) in self.0.iter().take(MOST_SHOWN).enumerate() {
            let (separator, colon) =
                (if at == 0 { "" } else { "; " }, if finding.field.is_empty() { "" } else { ": " });
            write!(f, "{separator}{}{colon}{}", finding.field, finding.reason)?;
        }
        let more = self.0.len().saturating_sub(MOST_SHOWN);
        if more > 0 { write!(f, "; and {more} more") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use compiler::api::{ObjectRef, Str};

    use super::*;

    fn findings(count: usize) -> Vec<Finding> {
        let object = ObjectRef { kind: Str::from("Pod"), namespace: Some(Str::from("a")), name: Str::from("b") };
        let field = |n| if n == 0 { String::new() } else { format!("spec.f{n}") };
        (0..count).map(|n| Finding { object: object.clone(), field: field(n), reason: format!("odd {n}") }).collect()
    }

    #[test]
    fn many_findings_of_an_object_are_cut() {
        assert_eq!(Listed(&findings(2)).to_string(), "odd 0; spec.f1: odd 1");
        let many = Listed(&findings(25)).to_string();
        assert!(many.ends_with("spec.f19: odd 19; and 5 more"), "{many}");
    }
}
