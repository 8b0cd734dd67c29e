//! What is left: flattened into one object of plain values, as pipelines do that keep what they do not
//! know.
//!
//! Names are joined with `_`, elements of arrays have their index as a name. Numbers stay as written.
//! What is null or means "not there" is left out, like what a field has taken. Of two values of one
//! name the first stays.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use smallvec::SmallVec;

use super::jsonb::is_numeric;
use super::path::Step;
use super::value::{Literal, Raw, push_quoted};

/// Deeper than this a value is left out.
const MOST_LEVELS: usize = 32;

/// Longest number that is kept as one.
const NUMBER_MAX_BYTES: usize = 64;

/// An object to be.
pub(super) struct Flat<'a> {
    max: usize,
    missing: &'a [Literal],
    names: Vec<String>,
    /// The object so far, without its end.
    json: String,
}

impl<'a> Flat<'a> {
    pub(super) fn new(max: usize, missing: &'a [Literal]) -> Self {
        Self { max, missing, names: Vec::new(), json: String::new() }
    }

    /// Adds what `raw` holds, under `name`, but for what stands where `taken` leads to.
    pub(super) fn add(&mut self, name: &str, raw: &Raw<'_>, taken: &[&[Step]]) {
        match raw {
            _ if taken.iter().any(|steps| steps.is_empty()) => {}
            Raw::Array(text) | Raw::Object(text) => self.add_json(name, text, taken, 0),
            plain => self.add_plain(name, plain),
        }
    }

    /// The object, as JSON text; `None` if there is nothing in it.
    pub(super) fn into_json(mut self) -> Option<String> {
        self.json.push('}');
        (!self.names.is_empty()).then_some(self.json)
    }

    fn is_full(&self) -> bool {
        self.names.len() >= self.max
    }

    fn add_json(&mut self, name: &str, text: &str, taken: &[&[Step]], level: usize) {
        match Raw::of_json(text) {
            Raw::Array(_) | Raw::Object(_) if level >= MOST_LEVELS => {}
            Raw::Array(text) | Raw::Object(text) => {
                let inside = Inside { flat: self, name, taken, level };
                // It was read before, so that it is JSON.
                inside.deserialize(&mut serde_json::Deserializer::from_str(text)).ok();
            }
            plain => self.add_plain(name, &plain),
        }
    }

    fn add_plain(&mut self, name: &str, raw: &Raw<'_>) {
        if self.missing.iter().any(|literal| literal.is_written(raw)) {
            return;
        }
        let is_plain =
            |text: &str| text.len() <= NUMBER_MAX_BYTES && is_finite(text) && is_numeric(text);
        let (value, is_text) = match raw {
            Raw::Bool(true) => ("true", false),
            Raw::Bool(false) => ("false", false),
            Raw::Number(text) => (*text, !is_plain(text)),
            Raw::Text(text) => (&**text, true),
            Raw::Null | Raw::Broken | Raw::TooLong(_) | Raw::Array(_) | Raw::Object(_) => return,
        };
        let name = if name.is_empty() { "value" } else { name };
        if self.is_full() || self.names.iter().any(|other| other == name) {
            return;
        }
        self.json.push(if self.names.is_empty() { '{' } else { ',' });
        push_text(name, &mut self.json);
        self.json.push(':');
        if is_text {
            push_text(value, &mut self.json);
        } else {
            self.json.push_str(value);
        }
        self.names.push(name.to_owned());
    }
}

fn is_finite(text: &str) -> bool {
    text.parse::<f64>().is_ok_and(f64::is_finite)
}

/// Writes a string of JSON, without what PostgreSQL's text cannot hold.
fn push_text(text: &str, out: &mut String) {
    if text.contains('\0') {
        push_quoted(&text.replace('\0', "\u{fffd}"), out);
    } else {
        push_quoted(text, out);
    }
}

/// Reads an array or an object.
struct Inside<'f, 'a, 'n> {
    flat: &'f mut Flat<'a>,
    name: &'n str,
    taken: &'n [&'n [Step]],
    level: usize,
}

impl<'n> Inside<'_, '_, 'n> {
    /// Adds what stands one step further in; `is` says of a step whether it is that one.
    fn add(&mut self, name: &str, is: impl Fn(&Step) -> bool, raw: &RawValue) {
        let behind = |steps: &&'n [Step]| match steps.split_first() {
            Some((first, behind)) if is(first) => Some(behind),
            _ => None,
        };
        let taken: SmallVec<[&[Step]; 8]> = self.taken.iter().filter_map(behind).collect();
        if taken.iter().any(|steps| steps.is_empty()) {
            return;
        }
        let joined = match self.name {
            "" => Cow::Borrowed(name),
            above => Cow::Owned([above, "_", name].concat()),
        };
        self.flat.add_json(&joined, raw.get(), &taken, self.level + 1);
    }
}

impl<'de> DeserializeSeed<'de> for Inside<'_, '_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Inside<'_, '_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array or an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<&'de RawValue>()? {
            let Raw::Text(key) = Raw::of_json(key.get()) else {
                // It is not Unicode, which is no reason to leave out those behind it.
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            let is_key = |step: &Step| matches!(step, Step::Key(other) if *other == key);
            self.add(&key, is_key, map.next_value()?);
            // What follows need not even be read.
            if self.flat.is_full() {
                break;
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<(), A::Error> {
        let mut index = 0;
        while let Some(value) = seq.next_element::<&'de RawValue>()? {
            self.add(&index.to_string(), |step| *step == Step::Index(index), value);
            index += 1;
            if self.flat.is_full() {
                break;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::mapping::path::Path;

    fn flat(json: &str, max: usize) -> Option<String> {
        let missing = [Literal::Text("NULL".to_owned())];
        let mut flat = Flat::new(max, &missing);
        flat.add("", &Raw::of_json(json), &[]);
        flat.into_json()
    }

    #[test]
    fn what_is_left_is_one_object_of_plain_values() {
        let json = r#"{"a":{"b":1.50,"c":[true,{"d":"x"}]},"n":null,"m":"NULL","e":"a\u0000b"}"#;
        let expected = "{\"a_b\":1.50,\"a_c_0\":true,\"a_c_1_d\":\"x\",\"e\":\"a\u{fffd}b\"}";
        assert_eq!(flat(json, 64).as_deref(), Some(expected));
        assert_eq!(flat(json, 1).as_deref(), Some(r#"{"a_b":1.50}"#));
        assert_eq!(flat("{}", 64), None);
        assert_eq!(flat("7", 64).as_deref(), Some(r#"{"value":7}"#));
    }

    #[test]
    fn what_a_field_has_taken_is_not_left() {
        let path = |text| Path::parse(text).unwrap().steps;
        let taken = [path("a.b"), path("c[1]"), path("d")];
        let taken: Vec<&[Step]> = taken.iter().map(Vec::as_slice).collect();
        let mut flat = Flat::new(64, &[]);
        let json = r#"{"a":{"b":1,"x":2},"c":[3,4],"d":{"e":5},"b":6}"#;
        flat.add("", &Raw::of_json(json), &taken);
        assert_eq!(flat.into_json().as_deref(), Some(r#"{"a_x":2,"c_0":3,"b":6}"#));
    }

    #[test]
    fn a_number_beyond_a_double_is_kept_as_text_and_the_first_of_a_name_stays() {
        assert_eq!(flat(r#"{"a":1e999}"#, 64).as_deref(), Some(r#"{"a":"1e999"}"#));
        assert_eq!(flat(r#"{"a_b":1,"a":{"b":2}}"#, 64).as_deref(), Some(r#"{"a_b":1}"#));
    }

    #[test]
    fn a_name_that_is_no_text_is_left_out_and_those_behind_it_are_not() {
        let json = r#"{"a":1,"\ud800":{"b":2},"c":{"\udc00":3,"\u00fc":4},"d\u0000":5}"#;
        let expected = "{\"a\":1,\"c_ü\":4,\"d\u{fffd}\":5}";
        assert_eq!(flat(json, 64).as_deref(), Some(expected));
    }

    #[test]
    fn a_number_that_postgresql_refuses_is_kept_as_text() {
        for number in ["1e-20000", "0e-20000", "0E-9999999999999999999999", "0e99999999"] {
            let expected = format!(r#"{{"a":"{number}"}}"#);
            assert_eq!(flat(&format!(r#"{{"a":{number}}}"#), 64), Some(expected));
        }
        for number in ["1e-300", "-1.50E+0300", "0e0", "-0.0", "9007199254740993"] {
            let json = format!(r#"{{"a":{number}}}"#);
            assert_eq!(flat(&json, 64).as_deref(), Some(&*json));
        }
    }

    #[test]
    fn what_is_nested_without_end_is_left_out() {
        let deep = format!("{}1{}", "[".repeat(50_000), "]".repeat(50_000));
        assert_eq!(flat(&format!("{{\"a\":{deep},\"b\":1}}"), 64).as_deref(), Some(r#"{"b":1}"#));
    }
}
