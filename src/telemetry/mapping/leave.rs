//! What the fields of a mapping leave, and `extra` takes.

use std::rc::Rc;

use super::compiled::Extra;
use super::extra::Flat;
use super::field::Field;
use super::found::View;
use super::path::{Path, Step};
use super::read::{Made, Reader};
use super::shape::{Cell, READING_MAX_BYTES};
use super::tree::Slot;
use super::value::Raw;
use crate::telemetry::rejection::Rejection;

impl<'a> Reader<'a> {
    /// Whether anything is there that `extra` would take.
    pub(super) fn has_extra(&self, extra: &Extra, view: &View<'_, '_>) -> bool {
        let Some((slot, _)) = &extra.from else { return false };
        let Some(raw) = view.get(*slot) else { return false };
        let look = || matches!(raw, Raw::TooLong(_)) || self.flat(1, raw, &[]).is_some();
        if slot.is_of_element { look() } else { *view.left.is_any.get_or_init(look) }
    }

    /// Puts into its column what is left; the fields have taken what stands at `taken`.
    pub(super) fn leave(
        &self,
        extra: &Extra,
        view: &View<'_, '_>,
        taken: &[&'a Path],
        made: &mut Made<'a>,
    ) -> Result<(), Rejection> {
        let Some((slot, path)) = &extra.from else { return Ok(()) };
        let Some(raw) = view.get(*slot) else { return Ok(()) };
        if let Raw::TooLong(bytes) = raw {
            return Err(self.too_large(made.reading.bytes() + bytes));
        }
        let of_message = self.mapping.each.is_some() && !slot.is_of_element;
        let left = if of_message {
            let time = made.time_path.filter(|time| time.is_of_message);
            view.left.or_flatten(time, || {
                let taken = self.of_message(view).chain(time);
                self.left(extra.max, path, raw, taken)
            })
        } else {
            let taken = taken.iter().copied().chain(made.time_path);
            self.left(extra.max, path, raw, taken).map(Rc::from)
        };
        let Some(json) = left else { return Ok(()) };
        // Before it is copied for each of thousands of elements, none of which has room for it.
        if json.len() > READING_MAX_BYTES {
            return Err(self.too_large(made.reading.bytes() + json.len()));
        }
        made.reading.cells.push((extra.column, Cell::Json(json.as_ref().to_owned())));
        Ok(())
    }

    /// What the fields take of the message. It is left for no element, not even for one that has a value of its
    /// own instead.
    fn of_message(&self, view: &View<'_, '_>) -> impl Iterator<Item = &'a Path> {
        let is_there = |slot: Slot| {
            !slot.is_of_element && view.get(slot).is_some_and(|raw| !self.is_missing(raw))
        };
        self.mapping.fields.iter().filter_map(move |field: &'a Field| {
            let mut all = field.slots.iter().zip(&field.paths);
            all.find(|(slot, _)| is_there(**slot)).map(|(_, path)| path)
        })
    }

    /// What is left below `path`, where `raw` stands.
    fn left(
        &self,
        max: usize,
        path: &Path,
        raw: &Raw<'_>,
        taken: impl Iterator<Item = &'a Path>,
    ) -> Option<String> {
        let is_of_message = |path: &Path| self.mapping.each.is_none() || path.is_of_message;
        let taken: Vec<&[Step]> = taken
            .chain(self.mapping.device.paths())
            .filter(|other| is_of_message(other) == is_of_message(path))
            .filter_map(|other| other.steps.strip_prefix(path.steps.as_slice()))
            .collect();
        self.flat(max, raw, &taken)
    }

    fn flat(&self, max: usize, raw: &Raw<'_>, taken: &[&[Step]]) -> Option<String> {
        let mut flat = Flat::new(max, &self.mapping.missing);
        flat.add("", raw, taken);
        flat.into_json()
    }
}
