//! `SenML`, RFC 8428: records that leave out what those before them have said.
//!
//! Each record becomes an object of its own that is whole: its names as the RFC has them, `bn`, `n`, `u`,
//! `v`, `vs`, `vb`, `vd`, `s`, `t` and `ut`, with the base fields added in, and `value`, whichever of the
//! four kinds it is. Only the base name stays apart, as it is the device. A time that is none, or less
//! than 2^28 seconds, is one relative to the arrival.

use std::borrow::Cow;
use std::fmt::Write as _;

use serde_json::value::RawValue;

use super::super::entries::Entries;
use super::super::time::{Unit, since_epoch};
use super::super::value::{Raw, push_quoted};
use super::document::{Document, Elements, Fault};
use crate::base::time::Timestamp;
use crate::telemetry::rejection::Reason;

/// Times from here on are since 1970, in microseconds.
const ABSOLUTE_FROM_MICROS: i64 = (1 << 28) * 1_000_000;

/// The version of `SenML` that is read, and the ones before it.
const VERSION: i64 = 10;

/// The names of what is in a record, and the numbers that stand for them in CBOR.
const LABELS: [(&str, &str); 15] = [
    ("bver", "-1"),
    ("bn", "-2"),
    ("bt", "-3"),
    ("bu", "-4"),
    ("bv", "-5"),
    ("bs", "-6"),
    ("n", "0"),
    ("u", "1"),
    ("v", "2"),
    ("vs", "3"),
    ("vb", "4"),
    ("s", "5"),
    ("t", "6"),
    ("ut", "7"),
    ("vd", "8"),
];

/// What the records before have said for those behind them.
#[derive(Default)]
struct Base<'p> {
    name: Option<Cow<'p, str>>,
    unit: Option<Cow<'p, str>>,
    time: i64,
    value: f64,
    sum: f64,
}

/// A record, by its labels.
#[derive(Default)]
struct Record<'p> {
    values: [Option<Raw<'p>>; LABELS.len()],
}

/// The array of the records, each of them whole.
pub(super) fn read(text: &str, received_at: Timestamp) -> Result<Document<'static>, Fault> {
    let records: Vec<&RawValue> = serde_json::from_str(text).map_err(|error| {
        (Reason::InvalidJson, format!("not an array of SenML records: {error}").into())
    })?;
    let mut elements = Elements::with_room(2 * text.len());
    let mut base = Base::default();
    let mut is_by_arrival = false;
    for (number, record) in (1..).zip(records) {
        let at = |what: &str| Cow::from(format!("record {number}: {what}"));
        // What comes behind it stands on its base fields.
        let record = Record::read(record.get()).map_err(|(reason, what)| (reason, at(&what)))?;
        base.take(&record).map_err(|(reason, what)| (reason, at(&what)))?;
        match record.resolved(&base, received_at) {
            Ok((object, is_relative)) => {
                is_by_arrival |= is_relative;
                elements.begin()?;
                elements.text.push_str(&object);
            }
            Err((reason, what)) => elements.set_aside(Some((reason, at(&what))))?,
        }
    }
    Ok(Document { is_by_arrival, ..elements.finish() })
}

impl<'p> Base<'p> {
    fn take(&mut self, record: &Record<'p>) -> Result<(), Fault> {
        if let Some(version) = record.number("bver")?
            && version.parse::<i64>().is_ok_and(|version| version > VERSION)
        {
            let what = format!("its version is {version}, {VERSION} is read");
            return Err((Reason::InvalidFormat, what.into()));
        }
        if let Some(name) = record.text("bn")? {
            self.name = Some(name.clone());
        }
        if let Some(unit) = record.text("bu")? {
            self.unit = Some(unit.clone());
        }
        if let Some(time) = record.micros("bt")? {
            self.time = time;
        }
        if let Some(value) = record.double("bv")? {
            self.value = value;
        }
        if let Some(sum) = record.double("bs")? {
            self.sum = sum;
        }
        Ok(())
    }
}

impl<'p> Record<'p> {
    fn read(text: &'p str) -> Result<Self, Fault> {
        let Entries(entries) = serde_json::from_str(text)
            .map_err(|_| (Reason::NotAnObject, "it is no object".into()))?;
        let mut record = Self::default();
        for (key, value) in entries {
            let known = LABELS.iter().position(|(name, number)| key == *name || key == *number);
            let Some(at) = known else {
                if key.ends_with('_') {
                    let what = format!("{key:?} must be understood, and is not");
                    return Err((Reason::InvalidFormat, what.into()));
                }
                continue;
            };
            if record.values[at].replace(Raw::of_json(value.get())).is_some() {
                let what = format!("the key {key:?} stands twice in an object");
                return Err((Reason::DuplicateField, what.into()));
            }
        }
        Ok(record)
    }

    fn get(&self, label: &str) -> Option<&Raw<'p>> {
        let at = LABELS.iter().position(|(name, _)| *name == label)?;
        self.values[at].as_ref()
    }

    fn text(&self, label: &str) -> Result<Option<&Cow<'p, str>>, Fault> {
        match self.get(label) {
            None => Ok(None),
            Some(Raw::Text(text)) => Ok(Some(text)),
            Some(other) => Err(wrong_type(label, "a string", other)),
        }
    }

    fn number(&self, label: &str) -> Result<Option<&'p str>, Fault> {
        match self.get(label) {
            None => Ok(None),
            Some(Raw::Number(text)) => Ok(Some(text)),
            Some(other) => Err(wrong_type(label, "a number", other)),
        }
    }

    fn double(&self, label: &str) -> Result<Option<f64>, Fault> {
        let Some(text) = self.number(label)? else { return Ok(None) };
        match text.parse::<f64>() {
            Ok(value) if value.is_finite() => Ok(Some(value)),
            _ => Err(too_large(label)),
        }
    }

    fn micros(&self, label: &str) -> Result<Option<i64>, Fault> {
        let Some(text) = self.number(label)? else { return Ok(None) };
        let micros = since_epoch(text, Unit::Seconds);
        micros
            .map(Some)
            .ok_or_else(|| (Reason::InvalidTimestamp, format!("{label}: {text} is no time").into()))
    }

    /// A number with that of the base added; as written, if there is none to add.
    fn sum(&self, label: &str, base: f64) -> Result<Option<Cow<'p, str>>, Fault> {
        let (Some(text), Some(value)) = (self.number(label)?, self.double(label)?) else {
            return Ok(None);
        };
        if base == 0.0 {
            return Ok(Some(text.into()));
        }
        let sum = value + base;
        if sum.is_finite() { Ok(Some(format!("{sum:?}").into())) } else { Err(too_large(label)) }
    }

    /// The object that says all, and whether its time is relative to the arrival.
    fn resolved(&self, base: &Base<'_>, received_at: Timestamp) -> Result<(String, bool), Fault> {
        let time = self.micros("t")?.unwrap_or(0).checked_add(base.time);
        let is_relative = time.is_some_and(|micros| micros < ABSOLUTE_FROM_MICROS);
        let since = if is_relative { received_at.as_micros() } else { 0 };
        let micros = time
            .and_then(|micros| micros.checked_add(since))
            .filter(|micros| *micros >= 0)
            .ok_or_else(|| (Reason::InvalidTimestamp, "its time is none".into()))?;
        let mut object = Object::default();
        if let Some(name) = &base.name {
            object.text("bn", name);
        }
        object.text("n", self.text("n")?.map_or("", |name| name));
        if let Some(unit) = self.text("u")?.or(base.unit.as_ref()) {
            object.text("u", unit);
        }
        object.plain("t", &format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000));
        if let Some(update) = self.number("ut")? {
            object.plain("ut", update);
        }
        if let Some(sum) = self.sum("s", base.sum)? {
            object.plain("s", &sum);
        }
        let mut values = 0;
        if let Some(value) = self.sum("v", base.value)? {
            object.plain("v", &value);
            object.plain("value", &value);
            values += 1;
        }
        for label in ["vs", "vd"] {
            if let Some(text) = self.text(label)? {
                object.text(label, text);
                object.text("value", text);
                values += 1;
            }
        }
        match self.get("vb") {
            None => {}
            Some(Raw::Bool(flag)) => {
                object.plain("vb", &flag.to_string());
                object.plain("value", &flag.to_string());
                values += 1;
            }
            Some(other) => return Err(wrong_type("vb", "true or false", other)),
        }
        if values > 1 {
            return Err((Reason::InvalidFormat, "it has more than one value".into()));
        }
        Ok((object.finish(), is_relative))
    }
}

fn wrong_type(label: &str, expected: &str, found: &Raw<'_>) -> Fault {
    (Reason::WrongType, format!("{label}: expected {expected}, found {}", found.shown()).into())
}

fn too_large(label: &str) -> Fault {
    (Reason::NumberOutOfRange, format!("{label}: the number is too large for a double").into())
}

/// An object that is written.
#[derive(Default)]
struct Object(String);

impl Object {
    fn key(&mut self, key: &str) {
        let before = if self.0.is_empty() { '{' } else { ',' };
        // Writing to a string does not fail.
        write!(self.0, "{before}\"{key}\":").ok();
    }

    fn text(&mut self, key: &str, text: &str) {
        self.key(key);
        push_quoted(text, &mut self.0);
    }

    fn plain(&mut self, key: &str, value: &str) {
        self.key(key);
        self.0.push_str(value);
    }

    fn finish(mut self) -> String {
        self.0.push('}');
        self.0
    }
}
