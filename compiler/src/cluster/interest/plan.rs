//! Which watches bring what is of interest: exactly that while they are few, and more where they would be too many.

use std::collections::{BTreeMap, BTreeSet};

use super::{Interest, PodQuery, telling};
use crate::api::{Operator, Requirement, Selector, Str};

/// The most watches of pods elsewhere that are planned. Each holds a request at the API server, which looks at every change
/// of a pod for each of them.
pub const MOST_WATCHES: usize = 32;
/// How long the text of a label selector may be in a request, in bytes as it is sent. Of an URL servers and proxies take
/// some 8 KiB.
const LONGEST_TEXT: usize = 3072;
/// How much of it may be for others than the values of one label.
const LONGEST_REST: usize = 1024;
/// Past this many questions it is not tried which of them bring what others ask for: they are too many anyway.
const FEW: usize = 4 * MOST_WATCHES;

impl Interest {
    /// The watches that bring what is of interest: [`MOST_WATCHES`] at most. Values of one label are asked for by one watch.
    /// Where that is not enough, less is said of the labels; then the namespaces are asked for whole; then one label in all
    /// namespaces; and then all pods.
    pub fn plan(&self) -> BTreeSet<PodQuery> {
        let whole = |query: &PodQuery| match &query.namespace {
            Some(name) => PodQuery::of_namespace(name.clone()),
            None => least(query),
        };
        let anywhere = |query: &PodQuery| PodQuery { namespace: None, ..least(query) };
        let ways: [&dyn Fn(&PodQuery) -> PodQuery; 4] = [&sayable, &least, &whole, &anywhere];
        let mut plans = ways.into_iter().map(|way| united(self.queries.iter().map(way)));
        plans.find(|plan| plan.len() <= MOST_WATCHES).unwrap_or_else(|| BTreeSet::from([PodQuery::of_all()]))
    }
}

/// The same pods or more, by words that an API server takes, and not too many.
fn sayable(query: &PodQuery) -> PodQuery {
    let telling = telling(&query.labels).map(|(key, _)| key.clone());
    let is_telling =
        |of: &Requirement| matches!(of.operator, Operator::In(_)) && telling.as_ref().is_some_and(|key| of.key == *key);
    let mut left = LONGEST_REST;
    let fits = |requirement: &&Requirement| {
        let rest = left.checked_sub(length(std::iter::once(*requirement)));
        left = rest.unwrap_or(left);
        rest.is_some()
    };
    // The values of the one label are divided among watches where they are too many.
    let (values, rest): (Vec<_>, Vec<_>) =
        query.labels.requirements().filter(|requirement| has_key(requirement)).partition(|of| is_telling(of));
    let labels = values.into_iter().chain(rest.into_iter().filter(fits)).cloned().collect();
    PodQuery { namespace: query.namespace.clone(), labels }
}

/// The same pods or more, by the one requirement that tells most.
fn least(query: &PodQuery) -> PodQuery {
    let PodQuery { namespace, labels } = sayable(query);
    let exists = |of: &&Requirement| matches!(of.operator, Operator::Exists);
    let least = match telling(&labels) {
        Some((key, values)) => Some(Requirement { key: key.clone(), operator: Operator::In(values.clone()) }),
        None => labels.requirements().find(exists).cloned(),
    };
    PodQuery { namespace, labels: least.into_iter().collect() }
}

/// As few watches as bring the same: what differs by the values of one label is one, and what another brings is none.
fn united(queries: impl Iterator<Item = PodQuery>) -> BTreeSet<PodQuery> {
    let mut by_label: BTreeMap<(Option<Str>, Str, Selector), BTreeSet<Str>> = BTreeMap::new();
    let mut plan = BTreeSet::new();
    for PodQuery { namespace, labels } in queries {
        match telling(&labels) {
            Some((key, values)) => {
                let is_rest = |of: &&Requirement| of.key != *key || !matches!(of.operator, Operator::In(_));
                let rest = labels.requirements().filter(is_rest).cloned().collect();
                by_label.entry((namespace, key.clone(), rest)).or_default().extend(values.iter().cloned());
            }
            None => _ = plan.insert(PodQuery { namespace, labels }),
        }
    }
    for ((namespace, key, rest), values) in by_label {
        for values in divided(&rest, &key, values) {
            let values = Requirement { key: key.clone(), operator: Operator::In(values) };
            let labels = rest.requirements().cloned().chain([values]).collect();
            plan.insert(PodQuery { namespace: namespace.clone(), labels });
        }
    }
    let whole = |query: &PodQuery| query.namespace.clone().map(PodQuery::of_namespace);
    if plan.contains(&PodQuery::of_all()) {
        return BTreeSet::from([PodQuery::of_all()]);
    }
    let wholes: BTreeSet<PodQuery> = plan.iter().filter(|query| query.labels.is_everything()).cloned().collect();
    plan.retain(|query| query.labels.is_everything() || whole(query).is_none_or(|whole| !wholes.contains(&whole)));
    if plan.len() <= FEW {
        // One after the other, so that of two that bring the same one stays.
        for query in plan.clone() {
            if plan.iter().any(|other| *other != query && other.covers(&query)) {
                plan.remove(&query);
            }
        }
    }
    plan
}

/// The values of a label in as many parts as there have to be for each to be asked for by one request.
fn divided(rest: &Selector, key: &Str, values: BTreeSet<Str>) -> Vec<BTreeSet<Str>> {
    let room = LONGEST_TEXT - length(rest.requirements());
    let (mut parts, mut used) = (vec![BTreeSet::new()], length_of_key(key));
    for value in values {
        let more = length_of(&value);
        if used + more > room && parts.last().is_some_and(|part| !part.is_empty()) {
            parts.push(BTreeSet::new());
            used = length_of_key(key);
        }
        used += more;
        parts.last_mut().expect("there is always one").insert(value);
    }
    parts
}

/// Whether a requirement can be written at all: the grammar of label selectors takes these keys for operators.
fn has_key(requirement: &Requirement) -> bool {
    !matches!(&*requirement.key, "in" | "notin")
}

/// How long requirements are in a request, at most.
fn length<'a>(requirements: impl Iterator<Item = &'a Requirement>) -> usize {
    let of_values = |values: &BTreeSet<Str>| values.iter().map(length_of).sum::<usize>();
    let of_operator = |operator: &Operator| match operator {
        Operator::In(values) | Operator::NotIn(values) => of_values(values),
        Operator::Exists | Operator::DoesNotExist => 0,
    };
    requirements.map(|requirement| length_of_key(&requirement.key) + of_operator(&requirement.operator)).sum()
}

/// Of a key, ` notin (`, `)` and the comma before it, in the encoding of forms.
fn length_of_key(key: &Str) -> usize {
    length_of(key) + "+notin+%28%29%2C".len()
}

/// Of a value and its comma.
fn length_of(text: &Str) -> usize {
    let of_byte = |byte: u8| if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.') { 1 } else { 3 };
    text.bytes().map(of_byte).sum::<usize>() + "%2C".len()
}
