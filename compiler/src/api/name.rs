//! Identities. No bare string crosses a stage.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A shared, immutable string: names, label keys and label values occur in many objects.
pub type Str = Arc<str>;

/// A Pod, by namespace and name. Ordered by namespace first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodKey {
    /// `metadata.namespace`
    pub namespace: Str,
    /// `metadata.name`
    pub name: Str,
}

/// A NetworkPolicy, by namespace and name. Ordered by namespace first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicyKey {
    /// `metadata.namespace`
    pub namespace: Str,
    /// `metadata.name`
    pub name: Str,
}

/// The name of a Node, as in `spec.nodeName` of a Pod.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeName(pub Str);

impl fmt::Display for PodKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl fmt::Display for PolicyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
