//! CBOR and `MessagePack`, written out as JSON.
//!
//! Numbers keep all their digits; what is no number to JSON is the text `nan`, `inf` or `-inf`, which
//! `missing` may name. Bytes are text in hexadecimal digits, a tag of CBOR is passed over and what it
//! tags is read, a timestamp of `MessagePack` is a number of seconds, any other extension its bytes. Keys
//! that are numbers or booleans are their text.
//!
//! Nothing is made room for that is only announced: both readers take a length for what it is when the
//! bytes have come.

use std::fmt::{self, Write as _};

use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, EnumAccess, Error, IgnoredAny, MapAccess,
    SeqAccess, VariantAccess, Visitor,
};

use super::super::value::push_quoted;
use super::document::Fault;
use crate::telemetry::rejection::Reason;

/// Deeper than this a message is not read, as with JSON.
const MOST_LEVELS: usize = 128;

/// Which extension of `MessagePack` is a timestamp.
const TIMESTAMP: i64 = -1;

/// Whether a payload is an array of CBOR, which no JSON begins like.
pub(super) fn is_cbor_array(payload: &[u8]) -> bool {
    payload.first().is_some_and(|first| (0x80..=0x9f).contains(first))
}

/// A payload of CBOR as JSON.
pub(super) fn cbor(payload: &[u8]) -> Result<String, Fault> {
    let mut rest = payload;
    let read = ciborium::de::from_reader_with_recursion_limit::<Json, _>(&mut rest, MOST_LEVELS);
    let Json(text) = read.map_err(|error| match error {
        ciborium::de::Error::Io(_) => invalid("CBOR", "it ends too early"),
        ciborium::de::Error::Syntax(at) => invalid("CBOR", &format!("it breaks off at byte {at}")),
        ciborium::de::Error::Semantic(_, what) => invalid("CBOR", &what),
        ciborium::de::Error::RecursionLimitExceeded => too_deep("CBOR"),
    })?;
    if rest.is_empty() { Ok(text) } else { Err(trailing("CBOR", rest.len())) }
}

/// A payload of `MessagePack` as JSON.
pub(super) fn msgpack(payload: &[u8]) -> Result<String, Fault> {
    let mut rest = payload;
    let mut reader = rmp_serde::Deserializer::new(&mut rest);
    reader.set_max_depth(MOST_LEVELS);
    let Json(text) = Json::deserialize(&mut reader).map_err(|error| match error {
        rmp_serde::decode::Error::DepthLimitExceeded => too_deep("MessagePack"),
        rmp_serde::decode::Error::InvalidMarkerRead(_)
        | rmp_serde::decode::Error::InvalidDataRead(_) => {
            invalid("MessagePack", "it ends too early")
        }
        error => invalid("MessagePack", &error.to_string()),
    })?;
    if rest.is_empty() { Ok(text) } else { Err(trailing("MessagePack", rest.len())) }
}

fn invalid(name: &str, what: &str) -> Fault {
    (Reason::InvalidFormat, format!("not valid {name}: {what}").into())
}

fn too_deep(name: &str) -> Fault {
    invalid(name, &format!("it is nested deeper than {MOST_LEVELS} levels"))
}

fn trailing(name: &str, bytes: usize) -> Fault {
    invalid(name, &format!("{bytes} bytes follow the message"))
}

/// A value, written as JSON.
struct Json(String);

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut text = String::new();
        Writer { out: &mut text, is_key: false }.deserialize(deserializer)?;
        Ok(Self(text))
    }
}

/// Writes one value.
struct Writer<'o> {
    out: &'o mut String,
    /// Whether it is the key of an object, which is text whatever it is.
    is_key: bool,
}

impl Writer<'_> {
    fn plain(self, value: impl fmt::Display) {
        let quote = if self.is_key { "\"" } else { "" };
        // Writing to a string does not fail.
        write!(self.out, "{quote}{value}{quote}").ok();
    }

    fn double(self, value: f64) {
        if value.is_finite() {
            // Of this form it is JSON, and short however large it is.
            self.plain(format_args!("{value:?}"));
        } else if value.is_nan() {
            self.out.push_str("\"nan\"");
        } else {
            self.out.push_str(if value > 0.0 { "\"inf\"" } else { "\"-inf\"" });
        }
    }

    fn hex(self, bytes: &[u8]) {
        self.out.push('"');
        for byte in bytes {
            write!(self.out, "{byte:02x}").ok();
        }
        self.out.push('"');
    }

    fn container<E: Error>(&self) -> Result<(), E> {
        if self.is_key {
            return Err(E::custom("a key is an array or an object"));
        }
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Writer<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Writer<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        self.plain(value);
        Ok(())
    }

    fn visit_i64<E>(self, value: i64) -> Result<(), E> {
        self.plain(value);
        Ok(())
    }

    fn visit_u64<E>(self, value: u64) -> Result<(), E> {
        self.plain(value);
        Ok(())
    }

    fn visit_i128<E>(self, value: i128) -> Result<(), E> {
        self.plain(value);
        Ok(())
    }

    fn visit_u128<E>(self, value: u128) -> Result<(), E> {
        self.plain(value);
        Ok(())
    }

    fn visit_f64<E>(self, value: f64) -> Result<(), E> {
        self.double(value);
        Ok(())
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        push_quoted(text, self.out);
        Ok(())
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<(), E> {
        self.hex(bytes);
        Ok(())
    }

    fn visit_none<E>(self) -> Result<(), E> {
        self.plain("null");
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.plain("null");
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        self.container()?;
        self.out.push('[');
        let start = self.out.len();
        loop {
            let before = self.out.len();
            if before > start {
                self.out.push(',');
            }
            if seq.next_element_seed(Writer { out: &mut *self.out, is_key: false })?.is_none() {
                self.out.truncate(before);
                self.out.push(']');
                return Ok(());
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        self.container()?;
        self.out.push('{');
        let start = self.out.len();
        loop {
            let before = self.out.len();
            if before > start {
                self.out.push(',');
            }
            if map.next_key_seed(Writer { out: &mut *self.out, is_key: true })?.is_none() {
                self.out.truncate(before);
                self.out.push('}');
                return Ok(());
            }
            self.out.push(':');
            map.next_value_seed(Writer { out: &mut *self.out, is_key: false })?;
        }
    }

    /// What CBOR has tagged.
    fn visit_enum<A: EnumAccess<'de>>(self, data: A) -> Result<(), A::Error> {
        let (IgnoredAny, tagged) = data.variant()?;
        tagged.tuple_variant(2, Tagged(self))
    }

    /// An extension of `MessagePack`.
    fn visit_newtype_struct<D: Deserializer<'de>>(self, extension: D) -> Result<(), D::Error> {
        extension.deserialize_any(Extension(self))
    }
}

/// Reads a tag and what is tagged with it.
struct Tagged<'o>(Writer<'o>);

impl<'de> Visitor<'de> for Tagged<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a tag and a value")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        seq.next_element::<u64>()?;
        seq.next_element_seed(self.0)?.ok_or_else(|| A::Error::custom("a tag without a value"))
    }
}

/// Reads the type of an extension and its bytes.
struct Extension<'o>(Writer<'o>);

impl<'de> Visitor<'de> for Extension<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an extension")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let kind = seq.next_element::<i64>()?;
        let bytes = seq.next_element::<Json>()?;
        let (Some(kind), Some(Json(bytes))) = (kind, bytes) else {
            return Err(A::Error::custom("an extension without bytes"));
        };
        match timestamp(bytes.trim_matches('"')).filter(|_| kind == TIMESTAMP) {
            Some((seconds, nanos)) => self.0.plain(format_args!("{seconds}.{nanos:09}")),
            None => self.0.out.push_str(&bytes),
        }
        Ok(())
    }
}

/// Seconds since the Unix epoch, and nanoseconds beside them, in one of the three lengths that there are.
/// Before the epoch the two could not be written behind each other; no device sends that.
fn timestamp(hex: &str) -> Option<(i64, u64)> {
    let number = |hex: &str| u64::from_str_radix(hex, 16).ok();
    let (seconds, nanos) = match hex.len() {
        8 => (number(hex)?, 0),
        16 => (number(hex)? & 0x3_ffff_ffff, number(hex)? >> 34),
        24 => (number(&hex[8..])?, number(&hex[..8])?),
        _ => return None,
    };
    (nanos < 1_000_000_000).then_some((i64::try_from(seconds).ok()?, nanos))
}
