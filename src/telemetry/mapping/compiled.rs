//! One mapping, compiled.

use super::field::Field;
use super::format::Format;
use super::path::{Container, Path};
use super::shape::SilentAfter;
use super::template::Part;
use super::time;
use super::topic::{Except, Filter};
use super::tree::{Slot, Tree};
use super::value::Literal;

/// A part of a template, its paths found.
#[derive(Clone, Debug)]
pub(super) enum Piece {
    Text(String),
    Capture(String),
    Key,
    Index,
    Value(Slot, Path),
}

/// Text with what the topic, the element and the payload put into it.
#[derive(Clone, Debug, Default)]
pub(super) struct Template {
    pub(super) pieces: Vec<Piece>,
    /// As it was written.
    pub(super) text: String,
}

impl Template {
    /// Finds the slots of a template's paths.
    pub(super) fn new(text: &str, parts: Vec<Part>, tree: &mut Tree) -> Self {
        let piece = |part| match part {
            Part::Text(text) => Piece::Text(text),
            Part::Capture(name) => Piece::Capture(name),
            Part::Key => Piece::Key,
            Part::Index => Piece::Index,
            Part::Value(path) => Piece::Value(tree.slot(&path), path),
        };
        Self { pieces: parts.into_iter().map(piece).collect(), text: text.to_owned() }
    }

    /// The paths of the payload that it takes something from.
    pub(super) fn paths(&self) -> impl Iterator<Item = &Path> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Value(_, path) => Some(path),
            _ => None,
        })
    }
}

/// A condition on a value.
#[derive(Clone, Debug)]
pub(super) struct Condition {
    pub(super) path: Path,
    pub(super) slot: Slot,
    pub(super) any_of: Vec<Literal>,
}

/// Where the time of a reading comes from.
#[derive(Clone, Debug)]
pub(super) enum Time {
    /// When the message came in.
    Received,
    /// The payload.
    Payload {
        paths: Vec<Path>,
        slots: Vec<Slot>,
        format: time::Format,
        /// Whether the arrival is taken where that is none.
        or_received: bool,
    },
}

/// One value a message or element: what names its column, and where it is.
#[derive(Clone, Debug)]
pub(super) struct One {
    pub(super) name: Template,
    pub(super) slot: Slot,
    /// Empty if the value is the element or the message itself.
    pub(super) path: Option<Path>,
}

/// What is left goes here.
#[derive(Clone, Debug)]
pub(super) struct Extra {
    /// Where it is left. `None` if all there is has one name and one value.
    pub(super) from: Option<(Slot, Path)>,
    pub(super) max: usize,
    /// Index of the column in its table.
    pub(super) column: u16,
}

/// What becomes of messages that the broker had kept for whoever subscribes. They come again with each
/// subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Retained {
    /// They are stored.
    Store,
    /// They are left alone.
    Skip,
    /// Readings with a time of their own are stored: they are the same row each time. That of the arrival
    /// would say nothing, and another thing each time.
    StoreTimed,
}

/// One mapping, compiled.
#[derive(Clone, Debug)]
pub(crate) struct Mapping {
    /// Unique.
    pub name: String,
    pub(super) filters: Vec<Filter>,
    pub(super) except: Vec<Except>,
    pub(super) format: Format,
    pub(super) each: Option<(Path, Container)>,
    pub(super) tree: Tree,
    pub(super) when: Vec<Condition>,
    pub(super) has: Vec<(Path, Slot)>,
    pub(super) device: Template,
    pub(super) time: Time,
    pub(super) one: Option<One>,
    pub(super) fields: Vec<Field>,
    pub(super) extra: Option<Extra>,
    pub(super) missing: Vec<Literal>,
    /// Its name; the shape is that of all mappings into it.
    pub(super) table: String,
    /// What becomes of messages that the broker had kept.
    pub(super) retained: Retained,
    /// When a device of it counts as silent.
    pub(super) silent_after: SilentAfter,
}

/// Longest silence that can be set, in seconds: a year.
pub(crate) const SILENT_AFTER_MAX_SECS: u32 = 31_536_000;

impl Mapping {
    /// Whether a reading of it can get the time of its arrival.
    #[must_use]
    pub(crate) fn uses_arrival(&self) -> bool {
        match &self.time {
            Time::Received => true,
            Time::Payload { or_received, .. } => *or_received || self.format.is_senml(),
        }
    }

    /// Its topic filters, as they are written in the file.
    pub(crate) fn topics(&self) -> impl Iterator<Item = &str> {
        self.filters.iter().map(|filter| filter.text.as_str())
    }

    /// What it subscribes to.
    pub(crate) fn subscriptions(&self) -> impl Iterator<Item = &str> {
        self.filters.iter().map(|filter| filter.subscription.as_str())
    }

    /// The table that it fills.
    #[must_use]
    pub(crate) fn table(&self) -> &str {
        &self.table
    }

    /// When a device of it counts as silent.
    #[must_use]
    pub(crate) fn silent_after(&self) -> SilentAfter {
        self.silent_after
    }

    /// Whether each of its rows has a value in `column`.
    #[must_use]
    pub(crate) fn always_fills(&self, column: &str) -> bool {
        self.one.is_none()
            && self
                .fields
                .iter()
                .any(|field| field.name == column && (field.required || field.default.is_some()))
    }
}
