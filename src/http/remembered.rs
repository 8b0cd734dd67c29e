//! Devices by the last values that the service keeps: all of them while the database does not answer, and those
//! that are silent, which nobody else knows.

use std::sync::Arc;

use super::error::ApiError;
use super::query::bad;
use super::state::AppState;
use super::together::{Partial, as_stored, probe};
use crate::postgres::{DeviceFilter, Relation, StoredReading};
use crate::recent::{DevicesAsk, LastRow, Recent};

/// Which devices.
pub(super) struct Asked {
    pub(super) relation: Relation,
    pub(super) filter: DeviceFilter,
    /// Only those that are silent, or only those that are not.
    pub(super) silent: Option<bool>,
    pub(super) offset: u32,
    pub(super) limit: u32,
}

/// Those devices.
pub(super) struct Remembered {
    recent: Arc<Recent>,
    relation: Relation,
    names: Vec<Arc<str>>,
    /// How many match.
    pub(super) total: u64,
    /// Set if some may be missing.
    pub(super) partial: Option<Partial>,
}

/// Finds them.
pub(super) async fn find(state: &AppState, asked: &Asked) -> Result<Remembered, ApiError> {
    let filter = asked.filter.clone();
    let ask = DevicesAsk {
        table: asked.relation.name().to_owned(),
        matches: move |name: &str| filter.matches(name),
        silent: asked.silent,
        newest_first: asked.filter.newest_first,
        offset: asked.offset as usize,
        limit: asked.limit as usize,
    };
    let found = state.recent.devices(ask).await;
    let (names, total) = found.map_err(|error| ApiError::internal(&error))?;
    let (recent, relation) = (Arc::clone(&state.recent), asked.relation.clone());
    Ok(Remembered { recent, relation, names, total, partial: partial(state, &asked.relation) })
}

/// Whether a device may be missing, or have sent to others since.
fn partial(state: &AppState, relation: &Relation) -> Option<Partial> {
    let is_doubtful = state.health.is_database_doubtful();
    if is_doubtful {
        probe(state);
    }
    let is_up = state.health.is_database_up() && !is_doubtful;
    if is_up && state.recent.knows_all(relation.name()) {
        return None;
    }
    Some(Partial { complete_from: state.recent.complete_from(relation.name(), None) })
}

/// A device as its last value.
pub(super) struct Device {
    pub(super) latest: StoredReading,
    /// Seconds since anything of it was received.
    pub(super) silent_seconds: f64,
}

impl Remembered {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.names.len()
    }

    /// Up to `most` of them from `from` on. A device of which nothing is kept any more is left out.
    pub(super) fn rows(&self, from: usize, most: usize) -> impl Iterator<Item = Device> {
        let names = self.names.get(from..).unwrap_or_default();
        let rows = self.recent.last_values(self.relation.name(), &names[..most.min(names.len())]);
        rows.map(|LastRow { row, silent_for }| Device {
            latest: as_stored(&self.relation, row),
            silent_seconds: silent_for.as_secs_f64(),
        })
    }
}

/// Refuses to say who is silent where nobody ever is.
pub(super) fn check(state: &AppState, silent: Option<bool>) -> Result<(), ApiError> {
    if silent.is_none() || state.recent.knows_silence() {
        return Ok(());
    }
    let problem = "needs to know after which time a device is silent; set SILENT_AFTER_SECS, or `silent_after` of a mapping";
    Err(bad("silent", problem))
}
