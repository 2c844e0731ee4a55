//! The labels of an object.

use super::Str;
use std::sync::Arc;

/// The labels of one object: keys with their values, sorted by key, each key once.
///
/// A shared slice and not a map: an object has a handful of labels, a cluster has many objects.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Labels(Arc<[(Str, Str)]>);

impl Labels {
    /// The value of a label, if the object has it. An empty value is a value.
    pub fn get(&self, key: &str) -> Option<&Str> {
        self.0.binary_search_by(|(have, _)| (**have).cmp(key)).ok().map(|at| &self.0[at].1)
    }

    /// How many labels the object has.
    #[allow(clippy::len_without_is_empty, reason = "nobody asks")]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// All labels, by key.
    pub fn iter(&self) -> impl Iterator<Item = (&Str, &Str)> {
        self.0.iter().map(|(key, value)| (key, value))
    }
}

impl Default for Labels {
    fn default() -> Self {
        Labels(Arc::from([]))
    }
}

impl FromIterator<(Str, Str)> for Labels {
    /// Of two entries with one key the later one counts, as in JSON.
    fn from_iter<I: IntoIterator<Item = (Str, Str)>>(labels: I) -> Self {
        let sorted: std::collections::BTreeMap<Str, Str> = labels.into_iter().collect();
        Labels(sorted.into_iter().collect())
    }
}
