//! Objects with something in them that no API server takes.

use serde_json::{Value, json};

use super::Dice;

/// What may have become of a part of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Breach {
    /// One value has another type than is due, and is not null, which the API takes for absent.
    Type,
    /// One text is none that can stand there: no label, no CIDR, no operator, no protocol, no name.
    Text,
    /// One number is none that can stand there.
    Number,
    /// Anything at all, perhaps something that can stand there, or nothing any more.
    Anything,
}

/// Breaks one part of what stands below a field of an object, as `pointer` names it, and says which. `None` where
/// nothing there can be broken in this way.
pub fn break_one(object: &mut Value, pointer: &str, breach: Breach, dice: &mut Dice) -> Option<String> {
    let root = object.pointer(pointer)?;
    let mut places = Vec::new();
    gather(root, pointer, &mut places);
    places.retain(|place| object.pointer(place).is_some_and(|value| can_have(value, breach)));
    let place = (!places.is_empty()).then(|| dice.pick(&places).clone())?;
    let value = object.pointer_mut(&place)?;
    *value = match breach {
        Breach::Type => another_type(value, &place, dice),
        Breach::Text => json!(dice.pick(&TEXTS).repeat(if dice.once_in(8) { 1 << 16 } else { 1 })),
        Breach::Number => dice.pick(&numbers()).clone(),
        Breach::Anything => dice.pick(&anything()).clone(),
    };
    Some(place)
}

/// Not a label key or value, an operator, a protocol, a CIDR, the name of a port or a policy type.
const TEXTS: [&str; 6] = ["ingress ", "-x-", "10.0.0.0/33/", "In,", "\u{0}", "\u{1f9ff}/\n"];

/// Not ports.
fn numbers() -> [Value; 7] {
    [json!(0), json!(-1), json!(65_536), json!(i64::MIN), json!(u64::MAX), json!(80.5), json!(1e300)]
}

fn anything() -> [Value; 12] {
    let deep = (0..100).fold(json!(1), |inner, _| json!([inner]));
    [
        Value::Null,
        json!(true),
        json!(80),
        json!(-1),
        json!(1e300),
        json!(""),
        json!("x".repeat(1 << 20)),
        json!([]),
        json!({}),
        json!([null, {}, []]),
        json!({"": null, "podSelector": {}, "port": 1, "ports": [{}]}),
        deep,
    ]
}

/// All places at and below a value, as JSON pointers (RFC 6901).
fn gather(value: &Value, here: &str, places: &mut Vec<String>) {
    places.push(here.to_string());
    for (name, inner) in value.as_object().into_iter().flatten() {
        gather(inner, &format!("{here}/{}", name.replace('~', "~0").replace('/', "~1")), places);
    }
    for (index, inner) in value.as_array().into_iter().flatten().enumerate() {
        gather(inner, &format!("{here}/{index}"), places);
    }
}

fn can_have(value: &Value, breach: Breach) -> bool {
    match breach {
        Breach::Type => !value.is_null(),
        Breach::Text => value.is_string(),
        Breach::Number => value.is_number(),
        Breach::Anything => true,
    }
}

/// A value of a type that cannot stand in this place.
fn another_type(value: &Value, place: &str, dice: &mut Dice) -> Value {
    let is_port = place.ends_with("/port");
    let others = [json!(true), json!(7), json!("text"), json!(["text"]), json!({"text": "text"})];
    let is_other = |other: &&Value| {
        let same = std::mem::discriminant(*other) == std::mem::discriminant(value);
        // `port` is a number or a text.
        !same && !(is_port && (other.is_number() || other.is_string()))
    };
    let others: Vec<&Value> = others.iter().filter(is_other).collect();
    (*dice.pick(&others)).clone()
}
