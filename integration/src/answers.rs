//! What `explain` and `try` answer.

use serde_json::{Error, Value};

/// An answer of `explain` or an error, a JSON line, without the rules that come nearest, of which packets tell nothing.
///
/// # Errors
///
/// If it is no JSON.
pub fn without_nearest(explained: &str) -> Result<Value, Error> {
    let mut answer = serde_json::from_str(explained)?;
    take_nearest(&mut answer);
    Ok(answer)
}

/// Wherever it stands: answers have sides of their own, and those of their endpoints.
fn take_nearest(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.remove("nearest");
            fields.values_mut().for_each(take_nearest);
        }
        Value::Array(items) => items.iter_mut().for_each(take_nearest),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
