//! Devices of table and log as one, each as its latest reading.
//!
//! The database knows all devices, and the service the last value of each, which may not be in the table yet.
//! So of a page of the table those values are newer where there are such, and devices of which there is
//! nothing in the table come in between. Without an answer from the database the last values are shown alone,
//! and always where it is asked which devices are silent.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};

use super::error::ApiError;
use super::remembered::{self, Asked};
use super::state::AppState;
use super::together::{self, Partial, as_stored, patiently};
use crate::postgres::{DevicePage, Failure, StoredReading, Total};
use crate::recent::LogRow;

/// Devices.
pub(super) struct Page {
    pub(super) latest: Vec<Device>,
    pub(super) total: Total,
    /// Set if something may be missing.
    pub(super) partial: Option<Partial>,
}

/// A device as its latest reading, and, if it is asked for, for how many seconds it has been silent.
pub(super) type Device = (StoredReading, Option<f64>);

pub(super) async fn page(state: &AppState, asked: &Asked) -> Result<Page, ApiError> {
    if asked.silent.is_some() {
        let found = remembered::find(state, asked).await?;
        let device = |device: remembered::Device| (device.latest, Some(device.silent_seconds));
        let latest = found.rows(0, found.len()).map(device).collect();
        return Ok(Page { latest, total: Total::of(found.total), partial: found.partial });
    }
    let table = asked.relation.name();
    let is_doubtful = state.health.is_database_doubtful();
    // First the log, then the table: what is flushed meanwhile is in both.
    let waiting = state.recent.waiting(table, |name| asked.filter.matches(name)).await;
    let (waiting, is_all) = waiting.map_err(|error| ApiError::internal(&error))?;
    let asked_of_table = of_table(state, asked, waiting, is_all);
    let failure = match patiently(state, is_doubtful, asked_of_table).await {
        Ok(page) => return Ok(page),
        Err(failure) => failure,
    };
    if !ApiError::is_outage(&failure) {
        return Err(ApiError::of_query(&state.health, &failure, "name_contains"));
    }
    let found = remembered::find(state, asked).await?;
    if found.total == 0 && state.recent.latest().devices(table, |_, _| true).is_empty() {
        return Err(ApiError::of_query(&state.health, &failure, "name_contains"));
    }
    let latest = found.rows(0, found.len()).map(|device| (device.latest, None)).collect();
    let complete_from = state.recent.complete_from(table, None);
    let partial = Some(Partial { complete_from });
    Ok(Page { latest, total: Total::of(found.total), partial })
}

/// The page of the table, with the last values of those devices of which something waits.
async fn of_table(
    state: &AppState,
    Asked { relation, filter, offset, limit, .. }: &Asked,
    waiting: Vec<LogRow>,
    is_all: bool,
) -> Result<Page, Failure> {
    let (offset, limit) = (*offset, *limit);
    let database = &state.database;
    let partial = (!is_all).then_some(Partial { complete_from: None });
    if waiting.is_empty() {
        let DevicePage { latest, total, .. } =
            database.devices(relation, filter, offset, limit).await?;
        return Ok(Page { latest: latest.into_iter().map(plain).collect(), total, partial });
    }
    let names: Vec<&str> = waiting.iter().map(|row| &*row.key.device_id).collect();
    let has = database.has_devices(relation, &names).await?;
    let new = has.iter().filter(|has| !**has).count();
    // By name only a new device moves others. By age every one does, so all before the page are read.
    let moved = if filter.newest_first { waiting.len() } else { new };
    let count = u32::try_from(moved).unwrap_or(u32::MAX);
    let before = if filter.newest_first { 0 } else { offset.saturating_sub(count) };
    let most = limit.saturating_add(offset - before).saturating_add(count);
    let DevicePage { latest, mut names, passed, total } =
        database.devices(relation, filter, before, most).await?;
    let is_end = passed < most;
    let mut waiting: HashMap<String, (LogRow, bool)> = waiting
        .into_iter()
        .zip(has)
        .map(|(row, has)| (row.key.device_id.to_string(), (row, has)))
        .collect();
    let mut all: HashMap<String, StoredReading> = HashMap::with_capacity(latest.len() + new);
    for stored in latest {
        let name = stored.device_id.clone();
        let row = waiting.remove(&name).map(|(row, _)| row);
        all.extend(together::latest(relation, Some(stored), row).map(|latest| (name, latest)));
    }
    let (skipped, limit) = ((offset - before) as usize, limit as usize);
    let latest: Vec<StoredReading> = if filter.newest_first {
        let waiting = waiting.into_values().map(|(row, _)| as_stored(relation, row));
        let mut latest: Vec<_> = all.into_values().chain(waiting).collect();
        latest.sort_by_cached_key(|reading| {
            (Reverse(reading.cursor().place().0), reading.device_id.clone())
        });
        latest.into_iter().skip(skipped).take(limit).collect()
    } else {
        // What the table has and is not among these is on another page.
        waiting.retain(|_, (_, has)| !*has);
        let last = names.last().cloned();
        if !waiting.is_empty() {
            let known: HashSet<&String> = names.iter().collect();
            let new: Vec<String> =
                waiting.keys().filter(|name| !known.contains(name)).cloned().collect();
            names.extend(new);
            names = database.in_order(relation, &names).await?;
        }
        if !is_end {
            let end = names.iter().position(|name| Some(name) == last.as_ref());
            names.truncate(end.map_or(0, |end| end + 1));
        }
        all.extend(waiting.into_iter().map(|(name, (row, _))| (name, as_stored(relation, row))));
        names.iter().skip(skipped).take(limit).filter_map(|name| all.remove(name)).collect()
    };
    let total = Total::of(if total.exact { total.rows + new as u64 } else { u64::MAX });
    let total = Total { exact: total.exact && is_all, ..total };
    Ok(Page { latest: latest.into_iter().map(plain).collect(), total, partial })
}

fn plain(latest: StoredReading) -> Device {
    (latest, None)
}
