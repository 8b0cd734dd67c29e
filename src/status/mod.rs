//! The state of the whole: what each part reports of itself, and the last minutes of it.

pub(crate) mod health;
pub(crate) mod history;
mod mappings;
mod parts;
mod snapshot;
mod summary;

pub(crate) use snapshot::{Parts, Snapshot};

/// The state of the whole now, summed up in words.
pub(crate) fn snapshot(parts: &Parts<'_>) -> Snapshot {
    let mut snapshot = Snapshot::take(parts);
    let moment = summary::Moment::of(parts.health, parts.history, parts.metrics);
    (snapshot.level, snapshot.summary) = summary::of(&snapshot, moment);
    snapshot
}
