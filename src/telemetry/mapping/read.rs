//! What a mapping makes of a message that was read along its paths.

use std::fmt::Write as _;
use std::sync::Arc;

use super::compiled::{Mapping, One};
use super::convert::{Unfit, convert};
use super::extra::Flat;
use super::field::Field;
use super::found::View;
use super::path::Path;
use super::shape::{Cell, MappedReading, READING_MAX_BYTES, TableShape};
use super::tree::Slot;
use super::value::Raw;
use crate::base::time::Timestamp;
use crate::telemetry::rejection::{Reason, Rejection};
use crate::telemetry::validate::{Rules, TimeOfDay};

/// What holds for every message.
#[derive(Clone, Copy)]
pub(super) struct Surroundings<'a> {
    pub(super) rules: &'a Rules,
    pub(super) clock: TimeOfDay,
    pub(super) received_at: Timestamp,
    /// Whether it is noted where each value came from.
    pub(super) notes_sources: bool,
}

/// What a reading was made of, beside the message.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a> {
    pub(super) mapping: &'a Mapping,
    pub(super) table: &'a Arc<TableShape>,
    /// Of the mapping, the one that matches the topic.
    pub(super) filter: usize,
    pub(super) topic: &'a str,
    /// Readings without a time of their own are left alone.
    pub(super) wants_time: bool,
    pub(super) around: Surroundings<'a>,
    /// Whether the message tells its times by when it was received.
    pub(super) is_by_arrival: bool,
}

/// Where a value came from.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Source<'m> {
    /// A path of the payload.
    Path(&'m Path),
    /// The one value of the message or the element, of this name.
    Named(String),
    /// What the file says where there is none.
    Default,
}

/// A reading, and what it was made of.
#[derive(Debug)]
pub(super) struct Made<'m> {
    pub(super) reading: MappedReading,
    /// Whether its time is that of its arrival.
    pub(super) by_arrival: bool,
    /// Index into the mapping's fields, and where its value came from; empty unless that is noted.
    pub(super) sources: Vec<(usize, Source<'m>)>,
    pub(super) time_path: Option<&'m Path>,
}

/// Why a message or an element is not a mapping's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Pass {
    /// A value that `when` names is another, or not there.
    When(String, String),
    /// A path of `has` is not there.
    Has(String),
    /// `each` goes through what is not there.
    NoContainer(String),
    /// None of the fields is there.
    NoField,
    /// `field` names none of the fields.
    UnknownName(String),
    /// It has no time of its own, and the broker had kept the message.
    RetainedWithoutTime,
}

impl<'a> Reader<'a> {
    /// What becomes of the message or the element that `view` shows.
    pub(super) fn read(&self, view: &View<'_, '_>) -> Result<Result<Made<'a>, Rejection>, Pass> {
        match self.read_any(view)? {
            Ok(made) if made.by_arrival && self.wants_time => Err(Pass::RetainedWithoutTime),
            outcome => Ok(outcome),
        }
    }

    fn read_any(&self, view: &View<'_, '_>) -> Result<Result<Made<'a>, Rejection>, Pass> {
        self.conditions(view, true)?;
        let Some(one) = &self.mapping.one else {
            // What stands beside the elements is in none of them.
            let is_own = |slot: &Slot| slot.is_of_element || self.mapping.each.is_none();
            let is_there = |field: &Field| {
                field.slots.iter().any(|slot| is_own(slot) && view.get(*slot).is_some())
            };
            let found = if self.mapping.fields.is_empty() {
                self.mapping.extra.as_ref().is_some_and(|extra| self.has_extra(extra, view))
            } else {
                self.mapping.fields.iter().any(is_there)
            };
            if !found {
                return Err(Pass::NoField);
            }
            return Ok(self.make(view, |made, taken| self.fields(view, made, taken)));
        };
        let Some(name) = self.render(&one.name, view) else { return Err(Pass::NoField) };
        let Some(raw) = view.get(one.slot) else { return Err(Pass::NoField) };
        let is_called =
            |field: &Field| field.paths.iter().any(|path| path.single_key() == Some(&*name));
        let field = self.mapping.fields.iter().position(is_called);
        if field.is_none() && self.mapping.extra.is_none() {
            return Err(Pass::UnknownName(name.into_owned()));
        }
        Ok(self.make(view, |made, taken| self.named(one, field, &name, raw, made, taken)))
    }

    /// Whether `when` and `has` hold, of the message and, if that is asked for, of the element.
    pub(super) fn conditions(&self, view: &View<'_, '_>, of_element: bool) -> Result<(), Pass> {
        let is_asked = |slot: Slot| of_element || !slot.is_of_element;
        for condition in self.mapping.when.iter().filter(|condition| is_asked(condition.slot)) {
            let found = view.get(condition.slot);
            if !found.is_some_and(|raw| condition.any_of.iter().any(|literal| literal.is(raw))) {
                let found = found.map_or_else(|| "not there".to_owned(), Raw::shown);
                return Err(Pass::When(condition.path.to_string(), found));
            }
        }
        for (path, slot) in self.mapping.has.iter().filter(|(_, slot)| is_asked(*slot)) {
            if view.get(*slot).is_none_or(|raw| *raw == Raw::Null) {
                return Err(Pass::Has(path.to_string()));
            }
        }
        Ok(())
    }

    /// Makes a reading; `fill` does what depends on how the fields are found, and notes which paths it
    /// has taken.
    fn make(
        &self,
        view: &View<'_, '_>,
        fill: impl FnOnce(&mut Made<'a>, &mut Vec<&'a Path>) -> Result<(), Rejection>,
    ) -> Result<Made<'a>, Rejection> {
        let device_id = self.device_id(view)?;
        let (timestamp, time_path) = self.timestamp(view)?;
        let by_arrival = time_path.is_none() || self.is_by_arrival;
        let table = Arc::clone(self.table);
        let silent_after = self.mapping.silent_after;
        let reading =
            MappedReading { table, device_id, timestamp, cells: Vec::new(), silent_after };
        let mut made = Made { reading, by_arrival, sources: Vec::new(), time_path };
        let mut taken = Vec::new();
        fill(&mut made, &mut taken)?;
        made.reading.cells.sort_unstable_by_key(|(column, _)| *column);
        match made.reading.bytes() {
            ..=READING_MAX_BYTES => Ok(made),
            bytes => Err(self.too_large(bytes)),
        }
    }

    pub(super) fn too_large(&self, bytes: usize) -> Rejection {
        let message =
            format!("the reading takes {bytes} bytes in the log, {READING_MAX_BYTES} are allowed");
        self.rejection(Reason::ReadingTooLarge, &message)
    }

    fn fields(
        &self,
        view: &View<'_, '_>,
        made: &mut Made<'a>,
        taken: &mut Vec<&'a Path>,
    ) -> Result<(), Rejection> {
        made.reading.cells.reserve_exact(self.mapping.fields.len());
        for (at, field) in self.mapping.fields.iter().enumerate() {
            let first = self.first_there(view, &field.slots);
            let source = first.map(|(path, _)| Source::Path(&field.paths[path]));
            self.take(at, field, first.map(|(_, raw)| raw), source, made)?;
            if self.mapping.extra.is_some() {
                taken.extend(first.map(|(path, _)| &field.paths[path]));
            }
        }
        match &self.mapping.extra {
            Some(extra) => self.leave(extra, view, taken, made),
            None => Ok(()),
        }
    }

    fn named(
        &self,
        one: &'a One,
        field: Option<usize>,
        name: &str,
        raw: &Raw<'_>,
        made: &mut Made<'a>,
        taken: &mut Vec<&'a Path>,
    ) -> Result<(), Rejection> {
        taken.extend(&one.path);
        let there = (!self.is_missing(raw)).then_some(raw);
        if let Some(at) = field {
            let is_noted = there.is_some() && self.around.notes_sources;
            let source = is_noted.then(|| Source::Named(name.to_owned()));
            self.take(at, &self.mapping.fields[at], there, source, made)?;
        }
        if let (None, Some(extra), Some(raw)) = (field, &self.mapping.extra, there) {
            if let Raw::TooLong(bytes) = raw {
                return Err(self.too_large(made.reading.bytes() + bytes));
            }
            let mut flat = Flat::new(extra.max, &self.mapping.missing);
            flat.add(name, raw, &[]);
            made.reading
                .cells
                .extend(flat.into_json().map(|json| (extra.column, Cell::Json(json))));
        }
        Ok(())
    }

    /// Puts the value of a field into its column, or what stands for it.
    fn take(
        &self,
        at: usize,
        field: &'a Field,
        raw: Option<&Raw<'_>>,
        source: Option<Source<'a>>,
        made: &mut Made<'a>,
    ) -> Result<(), Rejection> {
        let Some(raw) = raw else {
            if field.required {
                let what = "it is required, and not there";
                return Err(self.of_field(field, Reason::MissingField, what));
            }
            if let Some(default) = &field.default {
                made.reading.cells.push((field.column, default.clone()));
                self.note(made, at, Some(Source::Default));
            }
            return Ok(());
        };
        let cell =
            value(field, raw).map_err(|(reason, what)| self.of_field(field, reason, &what))?;
        made.reading.cells.push((field.column, cell));
        self.note(made, at, source);
        Ok(())
    }

    fn note(&self, made: &mut Made<'a>, field: usize, source: Option<Source<'a>>) {
        if self.around.notes_sources {
            made.sources.extend(source.map(|source| (field, source)));
        }
    }

    /// The first value that is there, and which of `slots` leads to it.
    pub(super) fn first_there<'f, 'p>(
        &self,
        view: &View<'f, 'p>,
        slots: &[Slot],
    ) -> Option<(usize, &'f Raw<'p>)> {
        let values = slots.iter().enumerate().filter_map(|(at, slot)| Some((at, view.get(*slot)?)));
        values.into_iter().find(|(_, raw)| !self.is_missing(raw))
    }

    pub(super) fn is_missing(&self, raw: &Raw<'_>) -> bool {
        *raw == Raw::Null || self.mapping.missing.iter().any(|word| word.is_written(raw))
    }

    fn of_field(&self, field: &Field, reason: Reason, what: &str) -> Rejection {
        self.rejection(reason, &format!("field \"{}\": {what}", field.name))
    }

    pub(super) fn rejection(&self, reason: Reason, what: &str) -> Rejection {
        let mut message = format!("mapping \"{}\", {what}", self.mapping.name);
        // A message must fit into a line of the log output, whatever the device has sent.
        if let Some((at, _)) = message.char_indices().nth(400) {
            message.truncate(at);
            write!(message, "…").ok();
        }
        Rejection::new(reason, message)
    }
}

/// What a column gets for `raw`, which is there.
fn value(field: &Field, raw: &Raw<'_>) -> Result<Cell, Unfit> {
    let mapped = raw.plain().and_then(|text| {
        field.map.iter().find(|(word, _)| word == text).map(|(_, cell)| cell.clone())
    });
    let cell = match mapped {
        Some(cell) => cell,
        None => convert(raw, field.kind, field.linear)?,
    };
    match field.fault(&cell) {
        None => Ok(cell),
        Some((true, what)) => Err((Reason::TextTooLong, what)),
        Some((false, what)) => Err((Reason::ValueOutOfRange, what)),
    }
}
