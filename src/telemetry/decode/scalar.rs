//! The value of a known field, read whatever its type, so that a wrong one can be named.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::base::time::Timestamp;
use crate::telemetry::rejection::{Reason, Rejection};

/// What the object has of a known field.
#[derive(Default)]
pub(super) enum Slot<'de> {
    #[default]
    Missing,
    Once(Scalar<'de>),
    Again,
}

impl<'de> Slot<'de> {
    pub(super) fn set(&mut self, value: Scalar<'de>) {
        *self = if matches!(self, Self::Missing) { Self::Once(value) } else { Self::Again };
    }

    pub(super) fn take(self, name: &str) -> Result<Scalar<'de>, Rejection> {
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
pub(super) enum Scalar<'de> {
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

    pub(super) fn into_text(self, field: &str) -> Result<String, Rejection> {
        match self {
            Self::Text(text) => Ok(text.into_owned()),
            other => Err(other.wrong_type(field, "a string")),
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "a JSON number means the nearest double")]
    pub(super) fn into_number(self, field: &str) -> Result<f64, Rejection> {
        match self {
            Self::Float(value) => Ok(value),
            Self::Signed(value) => Ok(value as f64),
            Self::Unsigned(value) => Ok(value as f64),
            other => Err(other.wrong_type(field, "a number")),
        }
    }

    pub(super) fn into_timestamp(self) -> Result<Timestamp, Rejection> {
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
