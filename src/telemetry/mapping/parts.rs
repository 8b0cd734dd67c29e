//! The parts of a mapping that may hold captures and paths: templates, conditions, time, value, extra.

use rocket::figment::value::{Dict, Value};

use super::compiled::{Condition, Extra, One, Piece, Template, Time};
use super::field::read_paths;
use super::format::Format;
use super::keys::{Keys, literals};
use super::path::{Container, Path, quoted};
use super::template::{self, Part};
use super::time::{self, Unit, Zone};
use super::topic::Filter;
use super::tree::{Slot, Tree};

/// Entries that `extra` takes unless the file says otherwise, and at most.
const EXTRA_ENTRIES: usize = 64;
const EXTRA_MAX_ENTRIES: usize = 1_024;

/// More filters of `except`, conditions or words of one kind are in no mapping.
pub(super) const MOST_ENTRIES: usize = 256;

/// More topics are in no mapping.
pub(super) const MOST_TOPICS: usize = 1_000;

/// Notes that a list is longer than `most`.
pub(super) fn too_many(keys: &mut Keys<'_, '_>, key: &str, count: usize, most: usize) {
    if count > most {
        keys.mistake(format_args!("{key}: has {count} entries, {most} are allowed"));
    }
}

/// The conditions of a table and of those in it: a dotted key without quotes is a table within a table.
fn flatten<'d>(dict: &'d Dict, above: &str, all: &mut Vec<(String, &'d Value)>) {
    for (key, value) in dict {
        let path = match above {
            "" => key.clone(),
            above => format!("{above}.{}", quoted(key)),
        };
        match value {
            Value::Dict(_, inner) if !inner.is_empty() => flatten(inner, &path, all),
            value => all.push((path, value)),
        }
    }
}

/// Reads what may hold captures and paths.
pub(super) struct Reader<'a> {
    pub(super) filters: &'a [Filter],
    pub(super) format: &'a Format,
    pub(super) each: Option<&'a (Path, Container)>,
    pub(super) tree: &'a mut Tree,
}

impl Reader<'_> {
    /// What the device is called: in `SenML` the base name, unless the file says otherwise.
    pub(super) fn device(&mut self, keys: &mut Keys<'_, '_>) -> Template {
        if self.format.is_senml() && keys.value("device").is_none() {
            return self.label("bn");
        }
        self.template(keys, "device", true)
    }

    /// A template of what an element has under one key.
    fn label(&mut self, key: &str) -> Template {
        let path = Path::of_key(key);
        Template {
            pieces: vec![Piece::Value(self.tree.slot(&path), path)],
            text: format!("{{.{key}}}"),
        }
    }

    pub(super) fn template(
        &mut self,
        keys: &mut Keys<'_, '_>,
        key: &'static str,
        must_be: bool,
    ) -> Template {
        let Some(text) = keys.text(key) else {
            if must_be && keys.value(key).is_none() {
                keys.mistake(format_args!("{key}: is missing"));
            }
            return Template::default();
        };
        let parts = template::parse(text).unwrap_or_else(|what| {
            keys.mistake(format_args!("{key}: {what}"));
            Vec::new()
        });
        for part in &parts {
            if let Some(fault) = self.part_fault(part) {
                keys.mistake(format_args!("{key}: {fault}"));
            }
        }
        Template::new(text, parts, self.tree)
    }

    fn part_fault(&self, part: &Part) -> Option<String> {
        let container = self.each.map(|(_, container)| *container);
        match part {
            Part::Capture(name) => {
                let lacks = |filter: &&Filter| !filter.captures().any(|other| other == name);
                let without = self.filters.iter().find(lacks)?;
                Some(format!("topic `{}` has no `{{{name}}}`", without.text))
            }
            Part::Key if container != Some(Container::Object) => {
                Some("`{key}` needs an `each` that ends in `*`".to_owned())
            }
            Part::Index if container != Some(Container::Array) => {
                Some("`{index}` needs an `each` that ends in `[*]`".to_owned())
            }
            Part::Value(_) if self.format.is_text() => {
                Some("a text is one value and has no paths".to_owned())
            }
            Part::Text(_) | Part::Key | Part::Index | Part::Value(_) => None,
        }
    }

    pub(super) fn conditions(
        &mut self,
        keys: &mut Keys<'_, '_>,
    ) -> (Vec<Condition>, Vec<(Path, Slot)>) {
        let (mut when, mut has) = (Vec::new(), Vec::new());
        let mut wanted = Vec::new();
        if let Some(dict) = keys.dict("when") {
            flatten(dict, "", &mut wanted);
        }
        too_many(keys, "when", wanted.len(), MOST_ENTRIES);
        for (path, value) in wanted {
            let any_of = literals(value).filter(|values| !values.is_empty()).unwrap_or_else(|| {
                keys.mistake(format_args!(
                    "when, {path}: expected a plain value or a list of such"
                ));
                Vec::new()
            });
            match Path::parse(&path) {
                Ok(path) => when.push(Condition { slot: self.tree.slot(&path), path, any_of }),
                Err(what) => keys.mistake(format_args!("when: {what}")),
            }
        }
        let paths = keys.texts("has").unwrap_or_default();
        too_many(keys, "has", paths.len(), MOST_ENTRIES);
        for path in paths {
            match Path::parse(path) {
                Ok(path) => has.push((path.clone(), self.tree.slot(&path))),
                Err(what) => keys.mistake(format_args!("has: {what}")),
            }
        }
        if self.format.is_text() && (!when.is_empty() || !has.is_empty()) {
            keys.mistake("when, has: a text is one value and has no paths");
        }
        (when, has)
    }

    pub(super) fn time(&mut self, keys: &mut Keys<'_, '_>) -> Time {
        let options = match keys.value("time") {
            Some(Value::String(_, text)) if text == "received" => return Time::Received,
            Some(Value::Dict(_, options)) => options,
            Some(other) => {
                let expected = "\"received\", or { path, format, zone, fallback }";
                return keys.unexpected("time", expected, other).unwrap_or(Time::Received);
            }
            None if self.format.is_senml() => {
                let path = Path::of_key("t");
                return Time::Payload {
                    slots: vec![self.tree.slot(&path)],
                    paths: vec![path],
                    format: time::Format::Since(Unit::Seconds),
                    or_received: false,
                };
            }
            None => {
                keys.mistake("time: is missing; say \"received\", or where it stands");
                return Time::Received;
            }
        };
        if self.format.is_text() {
            keys.mistake("time: a text is one value and has no paths; say \"received\"");
        }
        keys.within(options, "time", |keys| self.payload_time(keys))
    }

    fn payload_time(&mut self, keys: &mut Keys<'_, '_>) -> Time {
        let paths = read_paths(keys, "path", false).unwrap_or_else(|| {
            if keys.value("path").is_none() {
                keys.mistake("path: is missing");
            }
            Vec::new()
        });
        let zone = keys.text("zone");
        let name = keys.text("format").unwrap_or("rfc3339");
        let since = |unit| Some(time::Format::Since(unit));
        let format = match name {
            "rfc3339" => Some(time::Format::Rfc3339),
            "s" => since(Unit::Seconds),
            "ms" => since(Unit::Millis),
            "us" => since(Unit::Micros),
            "ns" => since(Unit::Nanos),
            "local" => match zone.map(Zone::parse) {
                Some(Ok(zone)) => Some(time::Format::Local(zone)),
                Some(Err(what)) => {
                    keys.mistake(format_args!("zone: {what}"));
                    None
                }
                None => {
                    keys.mistake("zone: a local time needs one, such as UTC, +01:00 or system");
                    None
                }
            },
            other => {
                keys.mistake(format_args!(
                    "format: expected rfc3339, local, s, ms, us or ns, found \"{other}\""
                ));
                None
            }
        };
        if zone.is_some() && name != "local" {
            keys.mistake(format_args!("zone: only a local time has it, and the format is {name}"));
        }
        let or_received = match keys.text("fallback") {
            Some("received") => true,
            Some(other) => {
                keys.mistake(format_args!("fallback: expected \"received\", found \"{other}\""));
                false
            }
            None => false,
        };
        let slots = paths.iter().map(|path| self.tree.slot(path)).collect();
        let format = format.unwrap_or(time::Format::Rfc3339);
        Time::Payload { paths, slots, format, or_received }
    }

    pub(super) fn one(&mut self, keys: &mut Keys<'_, '_>) -> Option<One> {
        let is_named = keys.value("field").is_some();
        let value = keys.text("value");
        if value.is_some() && !is_named && !self.format.is_senml() {
            keys.mistake("value: goes with `field`, which says what its column is");
        }
        if value.is_some() && self.format.is_text() {
            keys.mistake("value: in a text it is the text itself");
        }
        let is_senml = self.format.is_senml();
        if !is_named && !is_senml {
            return None;
        }
        let name = if is_named { self.template(keys, "field", false) } else { self.label("n") };
        let itself = if self.each.is_some() { "." } else { "$" };
        let value = value.or(is_senml.then_some("value"));
        let path = Path::parse(value.unwrap_or(itself)).map_err(|what| {
            keys.mistake(format_args!("value: {what}"));
        });
        let path = path.ok()?;
        let slot = self.tree.slot(&path);
        Some(One { name, slot, path: value.is_some().then_some(path) })
    }

    pub(super) fn extra(&mut self, keys: &mut Keys<'_, '_>, is_one: bool) -> Option<Extra> {
        let options = keys.dict("extra")?;
        let is_one = is_one || self.format.is_text();
        keys.within(options, "extra", |keys| {
            let max = keys.whole("max", 1, EXTRA_MAX_ENTRIES).unwrap_or(EXTRA_ENTRIES);
            let path = keys.text("path");
            if is_one && path.is_some() {
                keys.mistake("path: with `field` it is the value that no column takes");
            }
            let itself = if self.each.is_some() { "." } else { "$" };
            let path = Path::parse(path.unwrap_or(itself)).map_err(|what| {
                keys.mistake(format_args!("path: {what}"));
            });
            let from = match path {
                Ok(path) if !is_one => Some((self.tree.slot(&path), path)),
                _ => None,
            };
            Some(Extra { from, max, column: 0 })
        })
    }
}
