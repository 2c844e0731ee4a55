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

/// The unique id of a Pod: a name may be used again, an id never is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodUid([u8; 16]);

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

impl PodUid {
    /// Reads 32 hexadecimal digits with or without dashes: `metadata.uid`, or what kubelet makes up for a static pod. `None`
    /// is neither.
    pub fn parse(text: &str) -> Option<PodUid> {
        let digits: Vec<char> = text.chars().filter(|digit| *digit != '-').collect();
        if digits.len() != 32 || text.len() > 36 {
            return None;
        }
        let mut bytes = [0; 16];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
            let digit = |place: usize| pair[place].to_digit(16).and_then(|digit| u8::try_from(digit).ok());
            *byte = digit(0)? << 4 | digit(1)?;
        }
        Some(PodUid(bytes))
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uids_are_read_with_and_without_dashes() {
        let uid = PodUid::parse("f81d4fae-7dec-11d0-a765-00a0c91e6bf6");
        assert!(uid.is_some());
        assert_eq!(PodUid::parse("F81D4FAE7DEC11D0A76500A0C91E6BF6"), uid);
        for text in ["", "1", "f81d4fae-7dec-11d0-a765-00a0c91e6bf", "g81d4fae-7dec-11d0-a765-00a0c91e6bf6", "é", "--"]
        {
            assert_eq!(PodUid::parse(text), None, "{text}");
        }
    }
}
