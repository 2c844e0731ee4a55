//! Label selectors.

use std::collections::BTreeSet;

use crate::api::findings::{Broken, Findings, quoted};
use crate::api::reader::{Path, Reader};
use crate::api::{Operator, Requirement, Selector, Str};

use super::meta::{not_a_label_key, not_a_label_value};
use super::syntax::{is_label_key, is_label_value};

/// A selector as far as it could be read.
pub(super) struct ReadSelector {
    /// The requirements that are whole. With some left out it matches more than was meant.
    pub(super) selector: Selector,
    /// Whether something was left out.
    pub(super) is_broken: bool,
}

/// Reads a selector. Whoever asks decides what a broken one means: more is safe for the pods that a policy
/// isolates, and is not for the peers that it lets in.
pub(super) fn selector(reader: &Reader<'_>, findings: &mut Findings) -> ReadSelector {
    let mut read = ReadSelector { selector: Selector::default(), is_broken: false };
    let Ok(fields) = reader.fields(findings) else {
        read.is_broken = true;
        return read;
    };
    for name in fields.unknown(&["matchLabels", "matchExpressions"]) {
        findings.add(fields.path_of(name), "is not a field of a selector (matchLabels, matchExpressions)");
        read.is_broken = true;
    }
    let mut requirements = Vec::new();
    if let Some(labels) = fields.get("matchLabels") {
        requirements.extend(match labels.fields(findings) {
            Ok(labels) => labels.entries().map(|(key, value)| match_label(key, &value, findings)).collect(),
            Err(broken) => vec![Err(broken)],
        });
    }
    if let Some(expressions) = fields.get("matchExpressions") {
        requirements.extend(match expressions.items(findings) {
            Ok(items) => items.iter().map(|item| match_expression(item, findings)).collect(),
            Err(broken) => vec![Err(broken)],
        });
    }
    read.is_broken |= requirements.iter().any(Result::is_err);
    read.selector = requirements.into_iter().flatten().collect();
    read
}

fn match_label(key: &str, value: &Reader<'_>, findings: &mut Findings) -> Result<Requirement, Broken> {
    let key = label_key(key, value.path(), findings);
    let value = label_value(value, findings);
    Ok(Requirement { key: key?, operator: Operator::In(BTreeSet::from([value?])) })
}

fn match_expression(item: &Reader<'_>, findings: &mut Findings) -> Result<Requirement, Broken> {
    let fields = item.fields(findings)?;
    let mut broken = None;
    for name in fields.unknown(&["key", "operator", "values"]) {
        broken = Some(findings.broken(fields.path_of(name), "is not a field of an expression (key, operator, values)"));
    }
    let key = match fields.get("key") {
        Some(key) => key.text(findings).and_then(|text| label_key(text, key.path(), findings)),
        None => Err(findings.broken(fields.path_of("key"), "is missing")),
    };
    let values = match fields.get("values") {
        Some(values) => values.items(findings).and_then(|values| {
            // Each value is read, so that each finding is there.
            let values: Vec<_> = values.iter().map(|value| label_value(value, findings)).collect();
            values.into_iter().collect::<Result<BTreeSet<_>, _>>()
        }),
        None => Ok(BTreeSet::new()),
    };
    let operator = match fields.get("operator") {
        Some(operator) => operator.text(findings).map(|text| (text, operator.path().clone())),
        None => Err(findings.broken(fields.path_of("operator"), "is missing")),
    };
    let (key, values, (operator, path)) = (key?, values?, operator?);
    let needs_values = |findings: &mut Findings| match values.is_empty() {
        true => Err(findings.broken(fields.path_of("values"), format!("{operator} needs at least one value"))),
        false => Ok(values.clone()),
    };
    let takes_none = |findings: &mut Findings, operator_: Operator| match values.is_empty() {
        true => Ok(operator_),
        false => Err(findings.broken(fields.path_of("values"), format!("{operator} takes no values"))),
    };
    let operator = match operator {
        "In" => Operator::In(needs_values(findings)?),
        "NotIn" => Operator::NotIn(needs_values(findings)?),
        "Exists" => takes_none(findings, Operator::Exists)?,
        "DoesNotExist" => takes_none(findings, Operator::DoesNotExist)?,
        other => {
            let reason = format!("{} is not an operator (In, NotIn, Exists, DoesNotExist)", quoted(other));
            return Err(findings.broken(path, reason));
        }
    };
    broken.map_or(Ok(Requirement { key, operator }), Err)
}

fn label_key(key: &str, path: &Path<'_>, findings: &mut Findings) -> Result<Str, Broken> {
    if is_label_key(key) { Ok(Str::from(key)) } else { Err(findings.broken(path, not_a_label_key(key))) }
}

fn label_value(value: &Reader<'_>, findings: &mut Findings) -> Result<Str, Broken> {
    let text = value.text(findings)?;
    if is_label_value(text) { Ok(Str::from(text)) } else { Err(findings.broken(value.path(), not_a_label_value(text))) }
}
