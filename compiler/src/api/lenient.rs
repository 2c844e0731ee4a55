//! Fields of any type, so that one of the wrong type spoils itself only.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::Str;
use super::findings::{Findings, wrong_type};

/// A field as it is in the object. Decoding one never fails on its type: what has another type is passed over
/// without being stored, and remembered as such.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) enum Lenient<T> {
    /// Absent or null, which the API takes for the same.
    #[default]
    Absent,
    /// Of the type that is due.
    Good(T),
    /// Of another type: `a number`.
    Wrong(&'static str),
}

/// An object with the fields of `T`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record<T>(pub(super) T);

/// A map of strings, such as labels, in the order of the document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entries(pub(super) Vec<(Str, Lenient<Str>)>);

/// A type that a field can have: which of JSON's shapes it takes, `None` of all others.
pub(super) trait Shape<'de>: Sized {
    /// The type in words: `a string`.
    const DUE: &'static str;

    /// From a string.
    fn from_text(_: &str) -> Option<Self> {
        None
    }

    /// From a boolean.
    fn from_flag(_: bool) -> Option<Self> {
        None
    }

    /// From a whole number.
    fn from_integer(_: i64) -> Option<Self> {
        None
    }

    /// From a list, which must be read to its end.
    fn from_list<A: SeqAccess<'de>>(mut list: A) -> Result<Option<Self>, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(None)
    }

    /// From an object, which must be read to its end.
    fn from_map<A: MapAccess<'de>>(mut map: A) -> Result<Option<Self>, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(None)
    }
}

struct LenientVisitor<T>(PhantomData<T>);

// === impl Lenient ===

impl<T> Lenient<T> {
    /// The value; `None` with a finding where the type is wrong, `None` without where it is absent.
    pub(super) fn read<'de>(self, findings: &mut Findings, field: impl FnOnce() -> String) -> Option<T>
    where
        T: Shape<'de>,
    {
        match self {
            Lenient::Absent => None,
            Lenient::Good(value) => Some(value),
            Lenient::Wrong(found) => {
                findings.add(field(), wrong_type(found, T::DUE));
                None
            }
        }
    }

    /// Whether the field is there, whatever its type.
    pub(super) fn is_present(&self) -> bool {
        match self {
            Lenient::Absent => false,
            Lenient::Good(_) | Lenient::Wrong(_) => true,
        }
    }
}

impl<'de, T: Shape<'de>> Deserialize<'de> for Lenient<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(LenientVisitor(PhantomData))
    }
}

// === impl Shape ===

impl Shape<'_> for Str {
    const DUE: &'static str = "a string";

    fn from_text(text: &str) -> Option<Self> {
        Some(Str::from(text))
    }
}

impl Shape<'_> for bool {
    const DUE: &'static str = "true or false";

    fn from_flag(flag: bool) -> Option<Self> {
        Some(flag)
    }
}

impl Shape<'_> for i64 {
    const DUE: &'static str = "a whole number";

    fn from_integer(number: i64) -> Option<Self> {
        Some(number)
    }
}

impl<'de, T: Deserialize<'de>> Shape<'de> for Vec<T> {
    const DUE: &'static str = "a list";

    fn from_list<A: SeqAccess<'de>>(mut list: A) -> Result<Option<Self>, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element()? {
            items.push(item);
        }
        Ok(Some(items))
    }
}

impl<'de, T: Deserialize<'de>> Shape<'de> for Record<T> {
    const DUE: &'static str = "an object";

    fn from_map<A: MapAccess<'de>>(map: A) -> Result<Option<Self>, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(|value| Some(Record(value)))
    }
}

impl<'de> Shape<'de> for Entries {
    const DUE: &'static str = "an object";

    fn from_map<A: MapAccess<'de>>(mut map: A) -> Result<Option<Self>, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry::<Str, Lenient<Str>>()? {
            entries.push(entry);
        }
        Ok(Some(Entries(entries)))
    }
}

// === impl LenientVisitor ===

impl<'de, T: Shape<'de>> Visitor<'de> for LenientVisitor<T> {
    type Value = Lenient<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(Lenient::Absent)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(T::from_text(text).map_or(Lenient::Wrong("a string"), Lenient::Good))
    }

    fn visit_bool<E: Error>(self, flag: bool) -> Result<Self::Value, E> {
        Ok(T::from_flag(flag).map_or(Lenient::Wrong("a boolean"), Lenient::Good))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Self::Value, E> {
        Ok(T::from_integer(number).map_or(Lenient::Wrong("a number"), Lenient::Good))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Self::Value, E> {
        match i64::try_from(number) {
            Ok(number) => self.visit_i64(number),
            Err(_) => Ok(Lenient::Wrong("a number")),
        }
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Self::Value, E> {
        Ok(Lenient::Wrong("a number"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Self::Value, A::Error> {
        Ok(T::from_list(list)?.map_or(Lenient::Wrong("a list"), Lenient::Good))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        Ok(T::from_map(map)?.map_or(Lenient::Wrong("an object"), Lenient::Good))
    }
}
