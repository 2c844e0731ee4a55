//! Objects as YAML that people like to read.

use std::fmt::Write;

use serde_json::{Map, Value};

/// A stream of YAML documents, one an object.
pub fn to_yaml(objects: &[Value]) -> String {
    let mut text = String::new();
    for object in objects {
        text.push_str("---\n");
        block(&mut text, object, 0);
    }
    text
}

/// One value as YAML, without the mark of a document.
pub fn value_to_yaml(value: &Value) -> String {
    let mut text = String::new();
    block(&mut text, value, 0);
    text
}

/// A value on lines of its own.
fn block(text: &mut String, value: &Value, indent: usize) {
    match value {
        Value::Object(fields) if !fits_a_line(value) => {
            for (name, value) in fields {
                indented(text, indent, &format!("{}:", scalar(&Value::from(name.as_str()))));
                after_colon(text, value, indent);
            }
        }
        Value::Array(items) if !fits_a_line(value) => {
            for item in items {
                let mut inner = String::new();
                block(&mut inner, item, indent + 2);
                // The first line stands behind the dash, where its indentation would be.
                indented(text, indent, "- ");
                text.push_str(&inner[indent + 2..]);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => {
            indented(text, indent, &flow(value));
            text.push('\n');
        }
    }
}

/// A value behind `name:`, on the same line where that stays legible.
fn after_colon(text: &mut String, value: &Value, indent: usize) {
    if fits_a_line(value) {
        writeln!(text, " {}", flow(value)).expect("a String takes all that is written");
    } else {
        text.push('\n');
        block(text, value, indent + 2);
    }
}

fn indented(text: &mut String, indent: usize, rest: &str) {
    write!(text, "{:indent$}{rest}", "").expect("a String takes all that is written");
}

/// Scalars, and small maps and lists of nothing but scalars.
fn fits_a_line(value: &Value) -> bool {
    let is_scalar = |value: &Value| !value.is_object() && !value.is_array();
    match value {
        Value::Object(fields) => fields.is_empty() || fields.len() <= 3 && fields.values().all(is_scalar),
        Value::Array(items) => items.is_empty() || items.len() <= 5 && items.iter().all(is_scalar),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => true,
    }
}

fn flow(value: &Value) -> String {
    let pairs = |fields: &Map<String, Value>| {
        fields.iter().map(|(name, value)| format!("{}: {}", scalar(&Value::from(name.as_str())), flow(value))).collect()
    };
    let join = |parts: Vec<String>| parts.join(", ");
    match value {
        Value::Object(fields) => format!("{{{}}}", join(pairs(fields))),
        Value::Array(items) => format!("[{}]", join(items.iter().map(flow).collect())),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => scalar(value),
    }
}

/// Plain where no reader could take it for anything but a string; JSON's quotes, which are YAML's too, elsewhere.
fn scalar(value: &Value) -> String {
    match value {
        Value::String(text) if is_plain(text) => text.clone(),
        Value::String(_) | Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            value.to_string()
        }
    }
}

/// Whether a text starts as no number does, has no mark of YAML in it, and is none of the words of YAML 1.1.
fn is_plain(text: &str) -> bool {
    const WORDS: [&str; 12] = ["y", "n", "yes", "no", "on", "off", "true", "false", "null", "inf", "nan", "e"];
    text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '/' | '-' | '_'))
        && !WORDS.contains(&text.to_ascii_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn reads_as_it_should() {
        let object = json!({
            "kind": "Pod", "yes": "no", "empty": {}, "none": [], "nothing": null,
            "spec": {"list": [{"a": 1, "b": {"c": [[1, 2], []]}}, {"d": "1.20"}, "x: y"], "deep": [[{"e": [{"f": "-"}]}]]},
        });
        let text = to_yaml(std::slice::from_ref(&object));
        let read: Value = serde_saphyr::from_str(&text).unwrap();
        assert_eq!(read, object, "{text}");
    }
}
