//! A document as a tree of values.
//!
//! A `serde_json::Value` keeps each object in nodes with room for eleven entries. Most objects of a policy have one entry,
//! so that one of 1.5 MiB, the most that the API server takes, became 80 MiB. Here an object is as long as it is.

use std::collections::BTreeSet;
use std::fmt;

use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, Error, IntoDeserializer, MapAccess, SeqAccess, Unexpected, Visitor,
};
use serde::forward_to_deserialize_any;
use serde_json::{Number, Value};

use super::Str;

/// Any value of JSON, or of YAML that could be JSON. A key stands once in an object: reading one that does not fails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Json {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// `1`
    Number(Number),
    /// `"text"`
    String(Box<str>),
    /// `[1, 2]`
    List(Box<[Json]>),
    /// `{"key": "value"}`
    Object(Entries),
}

/// The entries of an object, by key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Entries(Box<[(Str, Json)]>);

// === impl Json ===

impl Json {
    /// An entry, if this is an object that has it.
    pub fn get(&self, key: &str) -> Option<&Json> {
        self.as_object()?.get(key)
    }

    /// The value to which these keys lead, one after the other.
    pub fn at(&self, keys: &[&str]) -> Option<&Json> {
        keys.iter().try_fold(self, |value, key| value.get(key))
    }

    /// The same, whose entries can be taken over; one without entries where it is no object.
    pub(super) fn entries(&self) -> impl Iterator<Item = (Str, Json)> {
        self.as_object().into_iter().flat_map(Entries::iter).map(|(key, value)| (key.into(), value.clone()))
    }

    /// Whether it is `null`.
    pub fn is_null(&self) -> bool {
        *self == Json::Null
    }

    /// The text, if it is one.
    pub fn as_str(&self) -> Option<&str> {
        if let Json::String(text) = self { Some(text) } else { None }
    }

    /// The number, if it is one.
    pub fn as_number(&self) -> Option<&Number> {
        if let Json::Number(number) = self { Some(number) } else { None }
    }

    /// The values of a list, if it is one.
    pub fn as_list(&self) -> Option<&[Json]> {
        if let Json::List(values) = self { Some(values) } else { None }
    }

    /// The entries, if it is an object.
    pub fn as_object(&self) -> Option<&Entries> {
        if let Json::Object(entries) = self { Some(entries) } else { None }
    }

    fn unexpected(&self) -> Unexpected<'_> {
        match self {
            Json::Null => Unexpected::Unit,
            Json::Bool(flag) => Unexpected::Bool(*flag),
            Json::Number(_) => Unexpected::Other("number"),
            Json::String(text) => Unexpected::Str(text),
            Json::List(_) => Unexpected::Seq,
            Json::Object(_) => Unexpected::Map,
        }
    }
}

impl From<&Value> for Json {
    fn from(value: &Value) -> Json {
        match value {
            Value::Null => Json::Null,
            Value::Bool(flag) => Json::Bool(*flag),
            Value::Number(number) => Json::Number(number.clone()),
            Value::String(text) => Json::String(text.as_str().into()),
            Value::Array(values) => Json::List(values.iter().map(Json::from).collect()),
            Value::Object(map) => map.iter().map(|(key, value)| (key.as_str().into(), value.into())).collect(),
        }
    }
}

impl From<Value> for Json {
    fn from(value: Value) -> Json {
        Json::from(&value)
    }
}

impl FromIterator<(Str, Json)> for Json {
    /// An object. Of entries with one key the last counts.
    fn from_iter<I: IntoIterator<Item = (Str, Json)>>(entries: I) -> Json {
        let mut entries: Vec<(Str, Json)> = entries.into_iter().collect();
        entries.reverse();
        entries.sort_by(|(one, _), (other, _)| one.cmp(other));
        entries.dedup_by(|(one, _), (other, _)| one == other);
        Json::Object(Entries(entries.into()))
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Json, D::Error> {
        Reading(&mut Unfinished::default()).deserialize(deserializer)
    }
}

/// What has been read of the lists and objects that have not come to their end yet, the innermost last.
///
/// So each of them is made once, as long as it is: grown one by one and cut to size afterwards, those of a policy of
/// 1.5 MiB took twice the time.
#[derive(Default)]
struct Unfinished {
    values: Vec<Json>,
    entries: Vec<(Str, Json)>,
    /// Keys that have been read, as most of them come again.
    keys: BTreeSet<Str>,
}

/// How many different keys of a document are kept to be used again: more than the API has names for fields of a policy.
const MOST_KEYS: usize = 64;

struct Reading<'u>(&'u mut Unfinished);

impl<'de> DeserializeSeed<'de> for Reading<'_> {
    type Value = Json;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Json, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Reading<'_> {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_none<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Json, D::Error> {
        self.deserialize(deserializer)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Json, E> {
        Ok(Json::Bool(flag))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Json, E> {
        Ok(Json::Number(number.into()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Json, E> {
        Ok(Json::Number(number.into()))
    }

    /// JSON has no infinite numbers, and none that are not one: `null` stands for them.
    fn visit_f64<E>(self, number: f64) -> Result<Json, E> {
        Ok(Number::from_f64(number).map_or(Json::Null, Json::Number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Json, E> {
        Ok(Json::String(text.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Json, A::Error> {
        let Reading(unfinished) = self;
        let begin = unfinished.values.len();
        while let Some(value) = list.next_element_seed(Reading(unfinished))? {
            unfinished.values.push(value);
        }
        Ok(Json::List(unfinished.values.drain(begin..).collect()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json, A::Error> {
        let Reading(unfinished) = self;
        let begin = unfinished.entries.len();
        while let Some(key) = map.next_key_seed(ReadingKey(&mut unfinished.keys))? {
            let value = map.next_value_seed(Reading(unfinished))?;
            unfinished.entries.push((key, value));
        }
        let entries = &mut unfinished.entries[begin..];
        entries.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        if let Some(twice) = entries.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            return Err(A::Error::custom(format_args!("key {:?} stands twice", twice[0].0)));
        }
        Ok(Json::Object(Entries(unfinished.entries.drain(begin..).collect())))
    }
}

struct ReadingKey<'k>(&'k mut BTreeSet<Str>);

impl<'de> DeserializeSeed<'de> for ReadingKey<'_> {
    type Value = Str;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Str, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for ReadingKey<'_> {
    type Value = Str;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, text: &str) -> Result<Str, E> {
        let ReadingKey(keys) = self;
        if let Some(key) = keys.get(text) {
            return Ok(key.clone());
        }
        let key = Str::from(text);
        if keys.len() < MOST_KEYS {
            keys.insert(key.clone());
        }
        Ok(key)
    }
}

impl<'de> IntoDeserializer<'de, serde_json::Error> for &'de Json {
    type Deserializer = &'de Json;

    fn into_deserializer(self) -> &'de Json {
        self
    }
}

impl<'de> Deserializer<'de> for &'de Json {
    type Error = serde_json::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, serde_json::Error> {
        match self {
            Json::Null => visitor.visit_unit(),
            Json::Bool(flag) => visitor.visit_bool(*flag),
            Json::Number(number) => number.deserialize_any(visitor),
            Json::String(text) => visitor.visit_borrowed_str(text),
            Json::List(values) => visitor.visit_seq(SeqDeserializer::new(values.iter())),
            Json::Object(entries) => visitor.visit_map(MapDeserializer::new(entries.iter())),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, serde_json::Error> {
        if self.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, serde_json::Error> {
        visitor.visit_newtype_struct(self)
    }

    /// Only names of variants: no object of the API has others.
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, serde_json::Error> {
        match self.as_str() {
            Some(text) => visitor.visit_enum(text.into_deserializer()),
            None => Err(Error::invalid_type(self.unexpected(), &"a string")),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map struct identifier ignored_any
    }
}

// === impl Entries ===

impl Entries {
    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Json> {
        let at = self.0.binary_search_by(|(known, _)| (**known).cmp(key)).ok()?;
        Some(&self.0[at].1)
    }

    /// All of them, in the order of the keys.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Json)> {
        self.0.iter().map(|(key, value)| (&**key, value))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn is_read_as_a_value_is() {
        for text in [
            r#"{"a": [1, -2, 3.5, "x\u00e9\n", true, null, {}], "b": {"c": ""}, "B": []}"#,
            r#"{"big": 18446744073709551615, "exponent": 1e3}"#,
            "7",
        ] {
            let by_value: Value = serde_json::from_str(text).unwrap();
            let json: Json = serde_json::from_str(text).unwrap();
            assert_eq!(json, by_value.clone().into(), "{text}");
            assert_eq!(Value::deserialize(&json).unwrap(), by_value, "{text}");
        }
    }

    #[test]
    fn a_key_that_stands_twice_is_an_error() {
        for text in [r#"{"a": 1, "a": 1}"#, r#"{"x": [{"b": 1, "a": 1, "b": 2}]}"#] {
            let error = serde_json::from_str::<Json>(text).unwrap_err().to_string();
            assert!(error.contains("stands twice"), "{error}");
        }
    }

    #[test]
    fn keys_lead_to_values() {
        let json: Json = json!({"metadata": {"name": "web", "labels": {}}, "ports": [80]}).into();
        assert_eq!(json.at(&["metadata", "name"]).and_then(Json::as_str), Some("web"));
        assert_eq!(json.at(&["metadata", "labels", "app"]), None);
        assert_eq!(json.at(&["ports", "name"]), None);
        assert_eq!(json.get("ports").and_then(Json::as_list).and_then(|ports| ports[0].as_number()), Some(&80.into()));
        let twice: Json = [("a".into(), Json::Null), ("a".into(), Json::Bool(true))].into_iter().collect();
        assert_eq!(twice, json!({"a": true}).into());
    }

    #[test]
    fn an_object_is_as_large_as_what_it_holds() {
        assert_eq!(size_of::<(Str, Json)>(), 40);
    }
}
