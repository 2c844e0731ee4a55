//! Label selectors.

use std::collections::BTreeSet;
use std::fmt;

use super::{Labels, Str};

/// A label selector: `matchLabels` and `matchExpressions` as one list, all of which must hold.
///
/// Requirements are sorted and each stands once, so that selectors that are written differently and mean the same
/// list are equal. Without requirements it matches everything.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Selector(BTreeSet<Requirement>);

/// One condition on the labels of an object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Requirement {
    /// The key of the label.
    pub key: Str,
    /// What must hold for it.
    pub operator: Operator,
}

/// The operators of `matchExpressions`. An entry of `matchLabels` is `In` with one value.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operator {
    /// The label exists and has one of these values.
    In(BTreeSet<Str>),
    /// The label has none of these values, or does not exist.
    NotIn(BTreeSet<Str>),
    /// The label exists, whatever its value.
    Exists,
    /// The label does not exist.
    DoesNotExist,
}

impl Selector {
    /// Whether all requirements hold for these labels.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.0.iter().all(|requirement| requirement.matches(labels))
    }

    /// Whether the selector matches everything, whatever the labels.
    pub fn is_everything(&self) -> bool {
        self.0.is_empty()
    }

    /// The requirements, in their canonical order.
    pub fn requirements(&self) -> impl Iterator<Item = &Requirement> {
        self.0.iter()
    }
}

impl FromIterator<Requirement> for Selector {
    fn from_iter<I: IntoIterator<Item = Requirement>>(requirements: I) -> Self {
        Selector(requirements.into_iter().collect())
    }
}

impl Requirement {
    /// Whether the requirement holds for these labels.
    pub fn matches(&self, labels: &Labels) -> bool {
        let value = labels.get(&self.key);
        match &self.operator {
            Operator::In(values) => value.is_some_and(|value| values.contains(value)),
            Operator::NotIn(values) => value.is_none_or(|value| !values.contains(value)),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
        }
    }
}

impl fmt::Display for Selector {
    /// As kubectl takes it after `-l`: `tier=db,env in (a,b),!gone`. Empty for a selector of everything.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, Requirement { key, operator }) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            let list = |values: &BTreeSet<Str>| values.iter().map(|v| &**v).collect::<Vec<_>>().join(",");
            match operator {
                Operator::In(values) if values.len() == 1 => write!(f, "{key}={}", list(values))?,
                Operator::In(values) => write!(f, "{key} in ({})", list(values))?,
                Operator::NotIn(values) if values.len() == 1 => write!(f, "{key}!={}", list(values))?,
                Operator::NotIn(values) => write!(f, "{key} notin ({})", list(values))?,
                Operator::Exists => write!(f, "{key}")?,
                Operator::DoesNotExist => write!(f, "!{key}")?,
            }
        }
        Ok(())
    }
}
