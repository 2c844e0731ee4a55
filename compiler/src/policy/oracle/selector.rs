//! Label selectors.

use serde_json::Value;

/// *v1*, `LabelSelector`: "The result of matchLabels and matchExpressions are ANDed. An empty label selector matches
/// all objects."
pub(super) fn matches(selector: &Value, object: &Value) -> bool {
    let labels = &object["metadata"]["labels"];
    let pairs = selector["matchLabels"].as_object().into_iter().flatten();
    let expressions = selector["matchExpressions"].as_array().into_iter().flatten();
    pairs.into_iter().all(|(key, value)| pair_matches(key, value, labels))
        && expressions.into_iter().all(|expression| expression_matches(expression, labels))
}

/// *v1*, `LabelSelector.matchLabels`: "A single {key,value} in the matchLabels map is equivalent to an element of
/// matchExpressions, whose key field is "key", the operator is "In", and the values array contains only "value"."
fn pair_matches(key: &str, value: &Value, labels: &Value) -> bool {
    labels.get(key) == Some(value)
}

/// *v1*, `LabelSelectorRequirement.operator`: "represents a key's relationship to a set of values. Valid operators are
/// In, NotIn, Exists and DoesNotExist."
///
/// The page "Labels and Selectors" says what each means, and of `notin`: it selects also "all resources with no labels
/// with the [...] key".
fn expression_matches(expression: &Value, labels: &Value) -> bool {
    let label = labels.get(expression["key"].as_str().expect("a stored requirement has a key"));
    let is_listed = |label: &Value| expression["values"].as_array().expect("stored with values").contains(label);
    match expression["operator"].as_str().expect("a stored requirement has an operator") {
        "In" => label.is_some_and(is_listed),
        "NotIn" => !label.is_some_and(is_listed),
        "Exists" => label.is_some(),
        "DoesNotExist" => label.is_none(),
        other => unreachable!("no API server stores the operator {other}"),
    }
}
