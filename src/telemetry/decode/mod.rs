//! From the bytes of a payload to readings; pure functions.
//!
//! A payload is one JSON object or an array of them. Each element of an array stands alone: it is
//! decoded from its own slice of the text, so a bad one takes none of its neighbours with it. The
//! parser is serde's, typed: no document tree is built, unknown fields are skipped without
//! recursion, whatever their depth.

mod scalar;
#[cfg(test)]
mod tests;

use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use self::scalar::Slot;
use super::fields::{COUNT, FIELDS, Values};
use super::reading::Reading;
use super::rejection::{Reason, Rejection};

/// Calls `each` with the raw text and the outcome of every reading in `payload`, in order.
///
/// A payload that cannot be split into readings at all is one rejection with all of its bytes.
pub fn decode<'p>(payload: &'p [u8], mut each: impl FnMut(&'p [u8], Result<Reading, Rejection>)) {
    let text = match std::str::from_utf8(payload) {
        Ok(text) => text,
        Err(error) => {
            let at = error.valid_up_to();
            let rejection = Rejection::new(Reason::NotUtf8, format!("not UTF-8 from byte {at}"));
            return each(payload, Err(rejection));
        }
    };
    if !text.trim_start_matches([' ', '\t', '\n', '\r']).starts_with('[') {
        return each(payload, decode_one(text));
    }
    match serde_json::from_str::<Vec<&RawValue>>(text) {
        Ok(elements) if elements.is_empty() => {
            let rejection = Rejection::new(Reason::EmptyArray, "the array holds no reading");
            each(payload, Err(rejection));
        }
        Ok(elements) => {
            for element in elements {
                each(element.get().as_bytes(), decode_one(element.get()));
            }
        }
        Err(error) => each(payload, Err(syntax(&error))),
    }
}

fn decode_one(text: &str) -> Result<Reading, Rejection> {
    match serde_json::from_str::<Element>(text) {
        Ok(Element(outcome)) => outcome,
        Err(error) => Err(syntax(&error)),
    }
}

/// What is left to serde's own errors: text that is not JSON, and numbers beyond a double.
fn syntax(error: &serde_json::Error) -> Rejection {
    let detail = error.to_string();
    if detail.starts_with("number out of range") {
        Rejection::new(Reason::NumberOutOfRange, "a number is too large for a double")
    } else {
        Rejection::new(Reason::InvalidJson, format!("not valid JSON: {detail}"))
    }
}

/// One element, with its rejection as a value, so that the rest of the text is still parsed and
/// no reason has to be read back out of an error message.
struct Element(Result<Reading, Rejection>);

/// A key of the object.
enum Key {
    DeviceId,
    Timestamp,
    /// Index into [`FIELDS`].
    Measured(usize),
    Unknown,
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_identifier(KeyVisitor)
    }
}

struct KeyVisitor;

impl Visitor<'_> for KeyVisitor {
    type Value = Key;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<Key, E> {
        Ok(match key {
            "device_id" => Key::DeviceId,
            "timestamp" => Key::Timestamp,
            _ => FIELDS
                .iter()
                .position(|field| field.name == key)
                .map_or(Key::Unknown, Key::Measured),
        })
    }
}

/// Puts no string together at run time: a message may hold tens of thousands of numbers.
macro_rules! not_an_object {
    ($found:literal) => {{
        let message = concat!("a reading is a JSON object, this is ", $found);
        Element(Err(Rejection::new(Reason::NotAnObject, message)))
    }};
}

impl<'de> Deserialize<'de> for Element {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ElementVisitor)
    }
}

struct ElementVisitor;

impl<'de> Visitor<'de> for ElementVisitor {
    type Value = Element;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Element, A::Error> {
        let mut fields = Fields::default();
        while let Some(key) = map.next_key::<Key>()? {
            match key {
                Key::DeviceId => fields.device_id.set(map.next_value()?),
                Key::Timestamp => fields.timestamp.set(map.next_value()?),
                Key::Measured(at) => fields.measured[at].set(map.next_value()?),
                Key::Unknown => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(Element(fields.into_reading()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Element, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(not_an_object!("an array"))
    }

    fn visit_str<E>(self, _: &str) -> Result<Element, E> {
        Ok(not_an_object!("a string"))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Element, E> {
        Ok(not_an_object!("a boolean"))
    }

    fn visit_unit<E>(self) -> Result<Element, E> {
        Ok(not_an_object!("null"))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Element, E> {
        Ok(not_an_object!("a number"))
    }

    fn visit_u64<E>(self, _: u64) -> Result<Element, E> {
        Ok(not_an_object!("a number"))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Element, E> {
        Ok(not_an_object!("a number"))
    }
}

#[derive(Default)]
struct Fields<'de> {
    device_id: Slot<'de>,
    timestamp: Slot<'de>,
    measured: [Slot<'de>; COUNT],
}

impl Fields<'_> {
    fn into_reading(self) -> Result<Reading, Rejection> {
        let device_id = self.device_id.take("device_id")?.into_text("device_id")?;
        let timestamp = self.timestamp.take("timestamp")?.into_timestamp()?;
        let mut values = Values::default();
        for ((value, slot), field) in values.iter_mut().zip(self.measured).zip(&FIELDS) {
            *value = slot.take(field.name)?.into_number(field.name)?;
        }
        Ok(Reading { device_id, timestamp, values })
    }
}
