//! From the bytes of a payload to readings; pure functions.
//!
//! A payload is one JSON object or an array of them. Each element of an array stands alone: it is
//! decoded from its own slice of the text, so a bad one takes none of its neighbours with it. The
//! parser is serde's, typed: no document tree is built, unknown fields are skipped without
//! recursion, whatever their depth.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::fields::{COUNT, FIELDS, Values};
use super::reading::Reading;
use super::rejection::{Reason, Rejection};
use crate::base::time::Timestamp;

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

#[derive(Default)]
enum Slot<'de> {
    #[default]
    Missing,
    Once(Scalar<'de>),
    Again,
}

impl<'de> Slot<'de> {
    fn set(&mut self, value: Scalar<'de>) {
        *self = if matches!(self, Self::Missing) { Self::Once(value) } else { Self::Again };
    }

    fn take(self, name: &str) -> Result<Scalar<'de>, Rejection> {
        match self {
            Self::Once(value) => Ok(value),
            Self::Missing => {
                Err(Rejection::new(Reason::MissingField, format!("field `{name}` is missing")))
            }
            Self::Again => Err(Rejection::new(
                Reason::DuplicateField,
                format!("field `{name}` stands there more than once"),
            )),
        }
    }
}

/// The value of a known field, whatever its type.
enum Scalar<'de> {
    Text(Cow<'de, str>),
    Signed(i64),
    Unsigned(u64),
    Float(f64),
    Other(&'static str),
}

impl Scalar<'_> {
    fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "a string",
            Self::Signed(_) | Self::Unsigned(_) => "an integer",
            Self::Float(_) => "a number with decimals",
            Self::Other(kind) => kind,
        }
    }

    fn wrong_type(&self, field: &str, expected: &str) -> Rejection {
        let message = format!("field `{field}` must be {expected}, this is {}", self.kind());
        Rejection::new(Reason::WrongType, message)
    }

    fn into_text(self, field: &str) -> Result<String, Rejection> {
        match self {
            Self::Text(text) => Ok(text.into_owned()),
            other => Err(other.wrong_type(field, "a string")),
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "a JSON number means the nearest double")]
    fn into_number(self, field: &str) -> Result<f64, Rejection> {
        match self {
            Self::Float(value) => Ok(value),
            Self::Signed(value) => Ok(value as f64),
            Self::Unsigned(value) => Ok(value as f64),
            other => Err(other.wrong_type(field, "a number")),
        }
    }

    fn into_timestamp(self) -> Result<Timestamp, Rejection> {
        let timestamp = match self {
            Self::Text(text) => {
                return Timestamp::from_rfc3339(&text).ok_or_else(|| {
                    Rejection::new(Reason::InvalidTimestamp, "`timestamp` is not RFC 3339")
                });
            }
            Self::Signed(millis) => Timestamp::from_millis(millis),
            Self::Unsigned(millis) => i64::try_from(millis).ok().and_then(Timestamp::from_millis),
            other => {
                let expected = "an RFC 3339 string or integer milliseconds";
                return Err(other.wrong_type("timestamp", expected));
            }
        };
        timestamp.ok_or_else(|| {
            Rejection::new(Reason::InvalidTimestamp, "`timestamp` is beyond the calendar")
        })
    }
}

impl<'de> Deserialize<'de> for Scalar<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ScalarVisitor)
    }
}

struct ScalarVisitor;

impl<'de> Visitor<'de> for ScalarVisitor {
    type Value = Scalar<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Signed(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Unsigned(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Float(value))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Other("a boolean"))
    }

    fn visit_unit<E>(self) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Other("null"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Scalar<'de>, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Scalar::Other("an array"))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Scalar<'de>, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Scalar::Other("an object"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcomes(payload: &[u8]) -> Vec<Result<Reading, Reason>> {
        let mut all = Vec::new();
        decode(payload, |_, outcome| all.push(outcome.map_err(|rejection| rejection.reason)));
        all
    }

    fn reason(payload: &str) -> Reason {
        match outcomes(payload.as_bytes()).as_slice() {
            [Err(reason)] => *reason,
            other => panic!("expected one rejection of {payload}, got {other:?}"),
        }
    }

    fn with(field: &str, value: &str) -> String {
        let fields = [
            ("device_id", "\"a\""),
            ("timestamp", "1759667696000"),
            ("temperature", "23.5"),
            ("humidity", "65.2"),
            ("battery", "87.3"),
        ];
        let body: Vec<_> = fields
            .iter()
            .map(|(name, good)| format!("\"{name}\":{}", if *name == field { value } else { good }))
            .collect();
        format!("{{{}}}", body.join(","))
    }

    #[test]
    fn the_contracts_example_is_read() {
        let payload = br#"{"device_id":"sensor-001","timestamp":"2025-10-05T12:34:56Z","temperature":23.5,"humidity":65.2,"battery":87.3}"#;
        let expected = Reading {
            device_id: "sensor-001".to_owned(),
            timestamp: Timestamp::from_millis(1_759_667_696_000).unwrap(),
            values: [23.5, 65.2, 87.3],
        };
        assert_eq!(outcomes(payload), [Ok(expected)]);
    }

    #[test]
    fn integer_milliseconds_and_integer_values_are_read() {
        let reading = outcomes(with("temperature", "-3").as_bytes()).remove(0).unwrap();
        assert_eq!(reading.values[0].to_bits(), (-3.0_f64).to_bits());
        assert_eq!(reading.timestamp.to_string(), "2025-10-05T12:34:56Z");
    }

    #[test]
    fn numbers_become_the_nearest_double_to_the_last_digit() {
        for text in ["31.245270191439438", "0.1", "51.24817837550540_4", "9007199254740993"] {
            let text = text.replace('_', "");
            let reading = outcomes(with("humidity", &text).as_bytes()).remove(0).unwrap();
            assert_eq!(
                reading.values[1].to_bits(),
                text.parse::<f64>().unwrap().to_bits(),
                "{text}"
            );
        }
    }

    #[test]
    fn unknown_fields_of_any_depth_are_ignored() {
        let deep = format!("{}1{}", "[".repeat(60_000), "]".repeat(60_000));
        let payload = with("battery", &format!("1,\"extra\":{deep},\"huge\":1e999"));
        assert!(outcomes(payload.as_bytes())[0].is_ok());
    }

    #[test]
    fn each_way_to_be_wrong_has_its_own_reason() {
        assert_eq!(reason(""), Reason::InvalidJson);
        assert_eq!(reason("{"), Reason::InvalidJson);
        assert_eq!(reason("{} {}"), Reason::InvalidJson);
        assert_eq!(reason("[{},"), Reason::InvalidJson);
        assert_eq!(reason(&with("battery", "NaN")), Reason::InvalidJson);
        assert_eq!(reason("[]"), Reason::EmptyArray);
        assert_eq!(reason("null"), Reason::NotAnObject);
        assert_eq!(reason("17"), Reason::NotAnObject);
        assert_eq!(reason("\"text\""), Reason::NotAnObject);
        assert_eq!(reason("[[]]"), Reason::NotAnObject);
        assert_eq!(reason("{}"), Reason::MissingField);
        assert_eq!(reason(&with("battery", "1,\"battery\":1")), Reason::DuplicateField);
        assert_eq!(reason(&with("battery", "\"87\"")), Reason::WrongType);
        assert_eq!(reason(&with("battery", "null")), Reason::WrongType);
        assert_eq!(reason(&with("battery", "[1]")), Reason::WrongType);
        assert_eq!(reason(&with("device_id", "7")), Reason::WrongType);
        assert_eq!(reason(&with("timestamp", "1759667696000.5")), Reason::WrongType);
        assert_eq!(reason(&with("timestamp", "\"yesterday\"")), Reason::InvalidTimestamp);
        assert_eq!(reason(&with("timestamp", "18446744073709551615")), Reason::InvalidTimestamp);
        assert_eq!(reason(&with("battery", "1e999")), Reason::NumberOutOfRange);
        assert_eq!(outcomes(b"\xff{}"), [Err(Reason::NotUtf8)]);
    }

    #[test]
    fn in_an_array_each_element_stands_alone() {
        let payload = format!(" [{}, 7, {}, {{}}]", with("", ""), with("battery", "1e999"));
        let all = outcomes(payload.as_bytes());
        assert!(all[0].is_ok());
        assert_eq!(all[1], Err(Reason::NotAnObject));
        assert_eq!(all[2], Err(Reason::NumberOutOfRange));
        assert_eq!(all[3], Err(Reason::MissingField));
    }

    #[test]
    fn a_rejected_element_is_handed_on_as_it_stood_in_the_text() {
        let mut raw = Vec::new();
        decode(b"[ {\"device_id\" : 1} , 2 ]", |bytes, _| raw.push(bytes));
        assert_eq!(raw, [b"{\"device_id\" : 1}".as_slice(), b"2"]);
    }
}
