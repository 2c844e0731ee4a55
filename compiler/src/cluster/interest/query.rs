//! What one watch of pods asks for, and whether it brings the pods that another one would.

use std::collections::BTreeSet;
use std::fmt;

use crate::api::{Operator, Pod, Requirement, Selector, Str};

/// Pods by their labels, of one namespace or of all: what one watch can ask the API server for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodQuery {
    /// `None` where all are meant.
    pub namespace: Option<Str>,
    /// As a `labelSelector`; without requirements it is left out.
    pub labels: Selector,
}

impl PodQuery {
    /// All pods.
    pub fn of_all() -> PodQuery {
        PodQuery { namespace: None, labels: Selector::default() }
    }

    /// The pods of a namespace.
    pub fn of_namespace(name: Str) -> PodQuery {
        PodQuery { namespace: Some(name), labels: Selector::default() }
    }

    /// Whether the pod is asked for.
    pub fn has(&self, pod: &Pod) -> bool {
        self.namespace.as_ref().is_none_or(|name| *name == pod.key.namespace) && self.labels.matches(&pod.labels)
    }

    /// Whether it brings every pod that the other one does. It may do so and this may not see it.
    pub fn covers(&self, other: &PodQuery) -> bool {
        let in_scope = self.namespace.is_none() || self.namespace == other.namespace;
        in_scope && self.labels.requirements().all(|wanted| follows(wanted, &other.labels))
    }

    /// Whether these together bring every pod that it does: each its own share of the values of one label, perhaps.
    pub fn is_covered_by<'a>(&self, others: impl Iterator<Item = &'a PodQuery> + Clone) -> bool {
        let covers = |query: &PodQuery| others.clone().any(|other| other.covers(query));
        covers(self) || self.by_value().is_some_and(|mut values| values.all(|query| covers(&query)))
    }

    /// Whether it brings pods that the other one does.
    pub(super) fn is_part_of(&self, other: &PodQuery) -> bool {
        self.covers(other) || other.by_value().is_some_and(|mut values| values.any(|query| self.covers(&query)))
    }

    /// The same, asked for by one value of a label at a time, if there are several.
    fn by_value(&self) -> Option<impl Iterator<Item = PodQuery> + '_> {
        let (key, values) = telling(&self.labels).filter(|(_, values)| values.len() > 1)?;
        Some(values.iter().map(|value| {
            let only = Operator::In(BTreeSet::from([value.clone()]));
            let requirements = self.labels.requirements().cloned();
            let labels = requirements.chain([Requirement { key: key.clone(), operator: only }]).collect();
            PodQuery { namespace: self.namespace.clone(), labels }
        }))
    }
}

impl fmt::Display for PodQuery {
    /// For people: `Pods of namespace shop with app=web`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.namespace, self.labels.is_everything()) {
            (None, true) => return f.write_str("Pods of the other nodes"),
            (None, false) => f.write_str("Pods")?,
            (Some(name), _) => write!(f, "Pods of namespace {name}")?,
        }
        if self.labels.is_everything() { Ok(()) } else { write!(f, " with {}", self.labels) }
    }
}

/// The values of the label that tells most of what a selector means: that of which it takes the fewest.
pub(super) fn telling(selector: &Selector) -> Option<(&Str, &BTreeSet<Str>)> {
    let of_values = |requirement: &'_ Requirement| match &requirement.operator {
        Operator::In(values) => Some(values.len()),
        Operator::NotIn(_) | Operator::Exists | Operator::DoesNotExist => None,
    };
    let (_, telling) =
        selector.requirements().filter_map(|of| Some((of_values(of)?, of))).min_by_key(|(len, _)| *len)?;
    match &telling.operator {
        Operator::In(values) => Some((&telling.key, values)),
        Operator::NotIn(_) | Operator::Exists | Operator::DoesNotExist => None,
    }
}

/// Whether one requirement of a selector is enough for another to hold.
fn follows(wanted: &Requirement, selector: &Selector) -> bool {
    let mut given = selector.requirements().filter(|requirement| requirement.key == wanted.key);
    given.any(|given| match (&wanted.operator, &given.operator) {
        (Operator::In(wanted), Operator::In(given)) => given.is_subset(wanted),
        (Operator::NotIn(wanted), Operator::In(given)) => given.is_disjoint(wanted),
        (Operator::NotIn(wanted), Operator::NotIn(given)) => wanted.is_subset(given),
        (Operator::Exists, Operator::In(_) | Operator::Exists)
        | (Operator::NotIn(_) | Operator::DoesNotExist, Operator::DoesNotExist) => true,
        (Operator::In(_), Operator::NotIn(_) | Operator::Exists | Operator::DoesNotExist)
        | (Operator::NotIn(_), Operator::Exists)
        | (Operator::Exists, Operator::NotIn(_) | Operator::DoesNotExist)
        | (Operator::DoesNotExist, Operator::In(_) | Operator::NotIn(_) | Operator::Exists) => false,
    })
}
