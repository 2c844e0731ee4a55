//! Label selectors.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use super::{Labels, Str};

/// A label selector: `matchLabels` and `matchExpressions` as one list, all of which must hold.
///
/// Requirements are sorted, and each operator stands once for a label, so that selectors that are written differently and
/// mean the same list are equal, and so that a tenant who writes ten thousand about one label has no object looked at ten
/// thousand times. Without requirements it matches everything.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Selector {
    /// Sorted, and shared by all copies: a policy may have tens of thousands, and stands in several places.
    requirements: Arc<[Requirement]>,
    /// How many different labels an object must have, by `In` and `Exists`.
    present: usize,
}

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
        // A tenant may write ten thousand requirements, but no pod has so many labels.
        if self.requirements.len() > labels.len() {
            return self.matches_by_label(labels);
        }
        self.requirements.iter().all(|requirement| requirement.matches(labels.get(&requirement.key)))
    }

    /// The same by a look at the labels: a requirement of another label holds unless it wants the label to be there.
    fn matches_by_label(&self, labels: &Labels) -> bool {
        if self.present > labels.len() {
            return false;
        }
        let mut found = 0;
        for (key, value) in labels.iter() {
            let mut is_wanted = false;
            for requirement in self.about(key) {
                if !requirement.matches(Some(value)) {
                    return false;
                }
                is_wanted |= requirement.operator.wants_presence();
            }
            found += usize::from(is_wanted);
        }
        found == self.present
    }

    /// The requirements of one label.
    fn about<'a>(&'a self, key: &'a Str) -> impl Iterator<Item = &'a Requirement> {
        let first = self.requirements.partition_point(|requirement| requirement.key < *key);
        self.requirements[first..].iter().take_while(move |requirement| requirement.key == *key)
    }

    /// Whether the selector matches everything, whatever the labels.
    pub fn is_everything(&self) -> bool {
        self.requirements.is_empty()
    }

    /// The keys of the labels that matter to it, ascending; one may come several times.
    pub fn keys(&self) -> impl Iterator<Item = &Str> {
        self.requirements.iter().map(|requirement| &requirement.key)
    }

    /// The requirements, in their canonical order.
    pub(crate) fn requirements(&self) -> impl Iterator<Item = &Requirement> {
        self.requirements.iter()
    }
}

impl FromIterator<Requirement> for Selector {
    fn from_iter<I: IntoIterator<Item = Requirement>>(requirements: I) -> Self {
        let mut by_label: BTreeMap<Str, Conditions> = BTreeMap::new();
        for Requirement { key, operator } in requirements {
            by_label.entry(key).or_default().add(operator);
        }
        let of_label = |(key, conditions): (Str, Conditions)| {
            conditions.operators().map(move |operator| Requirement { key: key.clone(), operator })
        };
        // Labels come in their order, and the operators of each in theirs.
        let requirements: Arc<[Requirement]> = by_label.into_iter().flat_map(of_label).collect();
        let wanted = requirements.iter().filter(|requirement| requirement.operator.wants_presence());
        let mut wanted: Vec<&Str> = wanted.map(|requirement| &requirement.key).collect();
        wanted.dedup();
        let present = wanted.len();
        Selector { requirements, present }
    }
}

/// All that is required of one label.
#[derive(Default)]
struct Conditions {
    within: Option<BTreeSet<Str>>,
    without: BTreeSet<Str>,
    exists: bool,
    does_not_exist: bool,
}

impl Conditions {
    fn add(&mut self, operator: Operator) {
        match operator {
            Operator::In(values) => match &mut self.within {
                Some(within) => within.retain(|value| values.contains(value)),
                None => self.within = Some(values),
            },
            Operator::NotIn(values) => self.without.extend(values),
            Operator::Exists => self.exists = true,
            Operator::DoesNotExist => self.does_not_exist = true,
        }
    }

    /// The same with each operator once.
    fn operators(self) -> impl Iterator<Item = Operator> {
        let Conditions { within, without, exists, does_not_exist } = self;
        // Values that exclude each other: no label has them, which is written as kubectl can read it.
        let is_void = within.as_ref().is_some_and(BTreeSet::is_empty);
        let within = within.filter(|values| !values.is_empty()).map(Operator::In);
        let without = (!without.is_empty()).then_some(Operator::NotIn(without));
        let exists = (exists || is_void).then_some(Operator::Exists);
        let does_not_exist = (does_not_exist || is_void).then_some(Operator::DoesNotExist);
        [within, without, exists, does_not_exist].into_iter().flatten()
    }
}

impl Operator {
    /// Whether an object without the label does not match.
    fn wants_presence(&self) -> bool {
        match self {
            Operator::In(_) | Operator::Exists => true,
            Operator::NotIn(_) | Operator::DoesNotExist => false,
        }
    }
}

impl Requirement {
    /// Whether the requirement holds where its label has this value, or is not there.
    pub(crate) fn matches(&self, value: Option<&Str>) -> bool {
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
        for (i, Requirement { key, operator }) in self.requirements.iter().enumerate() {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn requirement(key: &str, operator: Operator) -> Requirement {
        Requirement { key: key.into(), operator }
    }

    fn values(list: &[&str]) -> BTreeSet<Str> {
        list.iter().map(|value| Str::from(*value)).collect()
    }

    #[test]
    fn each_operator_on_a_label_that_is_there_or_not() {
        let labels: Labels = [("app", "web"), ("empty", "")].map(|(k, v)| (k.into(), v.into())).into_iter().collect();
        for (key, operator, expected) in [
            ("app", Operator::In(values(&["db", "web"])), true),
            ("app", Operator::In(values(&["db"])), false),
            ("none", Operator::In(values(&["", "web"])), false),
            ("empty", Operator::In(values(&[""])), true),
            ("app", Operator::NotIn(values(&["db", "web"])), false),
            ("app", Operator::NotIn(values(&["db"])), true),
            ("none", Operator::NotIn(values(&["web"])), true),
            ("empty", Operator::NotIn(values(&[""])), false),
            ("app", Operator::Exists, true),
            ("empty", Operator::Exists, true),
            ("none", Operator::Exists, false),
            ("app", Operator::DoesNotExist, false),
            ("none", Operator::DoesNotExist, true),
        ] {
            let selector: Selector = [requirement(key, operator)].into_iter().collect();
            assert_eq!(selector.matches(&labels), expected, "{selector:?}");
            // The other way of looking, which is taken where the requirements are more than the labels.
            assert_eq!(selector.matches_by_label(&labels), expected, "{selector:?}, by label");
        }
    }

    #[test]
    fn many_requirements_are_looked_up_by_the_labels() {
        let labels: Labels = [("app".into(), "web".into())].into_iter().collect();
        let absent = |i: usize| requirement(&format!("k{i}"), Operator::DoesNotExist);
        let with = |more: Requirement| (0..100).map(absent).chain([more]).collect::<Selector>();
        for (more, expected) in [
            (requirement("app", Operator::Exists), true),
            (requirement("app", Operator::NotIn(values(&["db"]))), true),
            (requirement("app", Operator::NotIn(values(&["web"]))), false),
            (requirement("app", Operator::In(values(&["db"]))), false),
            (requirement("tier", Operator::Exists), false),
        ] {
            assert_eq!(with(more.clone()).matches(&labels), expected, "{more:?}");
        }
    }

    #[test]
    fn all_requirements_must_hold() {
        let labels: Labels = [("app".into(), "web".into())].into_iter().collect();
        let both = |other| -> Selector { [requirement("app", Operator::Exists), other].into_iter().collect() };
        assert!(both(requirement("tier", Operator::DoesNotExist)).matches(&labels));
        assert!(!both(requirement("tier", Operator::Exists)).matches(&labels));
        assert!(Selector::default().matches(&labels) && Selector::default().is_everything());
    }

    #[test]
    fn many_requirements_of_one_label_are_few() {
        let labels: Labels = [("app".into(), "web".into())].into_iter().collect();
        let (with, without) =
            (|list: &[&str]| Operator::In(values(list)), |list: &[&str]| Operator::NotIn(values(list)));
        for (operators, matches, printed) in [
            (vec![without(&["a"]), without(&["b"]), without(&["c", "a"])], true, "app notin (a,b,c)"),
            (vec![without(&["a"]), without(&["web"])], false, "app notin (a,web)"),
            (vec![with(&["a", "web"]), with(&["b", "web"])], true, "app=web"),
            (vec![with(&["a"]), with(&["b"])], false, "app,!app"),
            (vec![with(&["web"]), Operator::DoesNotExist], false, "app=web,!app"),
            (vec![with(&["web"]), Operator::Exists, without(&["b"])], true, "app=web,app!=b,app"),
        ] {
            let selector: Selector = operators.into_iter().map(|operator| requirement("app", operator)).collect();
            assert_eq!((selector.matches(&labels), &*selector.to_string()), (matches, printed));
            assert_eq!(selector.matches_by_label(&labels), matches, "{printed}, by label");
            assert!(
                !selector.matches(&Labels::default())
                    || !selector.requirements().any(|of| of.operator.wants_presence())
            );
        }
        let many: Selector = (0..10_000).map(|i| requirement("app", without(&[&i.to_string()]))).collect();
        assert_eq!(many.requirements().count(), 1);
    }

    #[test]
    fn prints_as_kubectl_takes_it() {
        let selector: Selector = [
            requirement("a", Operator::In(values(&["1"]))),
            requirement("b", Operator::In(values(&["1", "2"]))),
            requirement("c", Operator::NotIn(values(&["1"]))),
            requirement("d", Operator::NotIn(values(&["1", "2"]))),
            requirement("e", Operator::Exists),
            requirement("f", Operator::DoesNotExist),
        ]
        .into_iter()
        .collect();
        assert_eq!(selector.to_string(), "a=1,b in (1,2),c!=1,d notin (1,2),e,!f");
    }
}
