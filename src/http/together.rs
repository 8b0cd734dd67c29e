//! Table and log as one: what is acknowledged can be read, whether it is in the table yet or not.
//!
//! The log is asked first and the table then. So a reading that is flushed meanwhile is found in both, and
//! in neither never. Where both have it, it is told by its device and time, and the table's row counts; what a
//! row of a mapping lacks there, and the log brings, is filled up, as it will be in the table.
//!
//! By cursor a page begins at a place in the order, which is the same in both. By offset it begins behind a
//! number of rows: as many rows of the table are read before it as the log has rows, and then both are
//! counted off together.
//!
//! Without an answer from the database the log alone is asked, including what it still has of what was
//! flushed.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::error::ApiError;
use super::state::AppState;
use crate::base::time::Timestamp;
use crate::postgres::{
    Cursor, Failure, LogKey, Position, QUERY_TIMEOUT, Relation, StoredReading, StoredValues,
    TOTAL_EXACT_UP_TO, TelemetryFilter, TelemetrySlice, Total,
};
use crate::recent::{Ask, Found, LogPart, LogRow, RecentError, RowValues, Unread};
use crate::telemetry::mapping::{BUILT_IN_TABLE, Cell, fill_row, fill_row_from};

/// Longest wait for the database, all queries of an answer together: a query that only takes long is ended by
/// PostgreSQL before that.
const PATIENCE: Duration = QUERY_TIMEOUT.saturating_sub(Duration::from_millis(50));
/// Longest wait for one that has failed the flusher or was silent: it may be back, or refuse rows alone.
const PATIENCE_IN_DOUBT: Duration = Duration::from_millis(300);

/// A page of table and log.
pub(super) struct Page {
    /// Newest first.
    pub(super) readings: Vec<StoredReading>,
    pub(super) total: Total,
    pub(super) next: Option<Cursor>,
    /// Set if something may be missing.
    pub(super) partial: Option<Partial>,
}

impl Page {
    /// What was not read of the log may lie between what was found: the page ends before it, and the next one
    /// begins there, so that whoever goes on by cursor comes by all of it. It stays as it is where nothing is
    /// known of what was not read, and on pages that are counted off.
    fn ended_before(mut self, unread: Option<Unread>, asked: &Question) -> Self {
        let Some(from) = unread.and_then(Unread::after) else { return self };
        let is_counted_off = matches!(asked.position, Position::Offset(skipped) if skipped > 0);
        if is_counted_off || asked.is_stuck(unread) {
            return self;
        }
        let certain = self.readings.partition_point(|reading| reading.compare(from, "").is_ge());
        if certain < self.readings.len() || self.next.is_none() {
            self.readings.truncate(certain);
            self.next = Some(Cursor::before(from));
        }
        self
    }
}

/// Something may be missing. In JSON it is the time, or null.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub(super) struct Partial {
    /// But not from this time on; `None` if nothing is certain.
    pub(super) complete_from: Option<Timestamp>,
}

/// What is asked for.
pub(super) struct Question {
    pub(super) relation: Relation,
    pub(super) filter: TelemetryFilter,
    pub(super) position: Position,
    pub(super) limit: u32,
}

pub(super) async fn telemetry(state: &AppState, asked: &Question) -> Result<Page, ApiError> {
    let ask = Arc::new(asked.of_log());
    let is_doubtful = state.health.is_database_doubtful();
    let part = if is_doubtful { LogPart::Retained } else { LogPart::Pending };
    let flushed = state.recent.flushed();
    let find = async |part| {
        let found = state.recent.find(&ask, part).await?;
        if asked.is_stuck(found.unread) {
            state.recent.find_whole(&ask, part).await
        } else {
            Ok(found)
        }
    };
    let broken = |error: RecentError| ApiError::internal(&error);
    let found = find(part).await.map_err(broken)?;
    let failure = match patiently(state, is_doubtful, of_table(state, asked, &found)).await {
        Ok(slice) => {
            if asked.is_whole() && matches!(asked.position, Position::Offset(0)) {
                let newest = slice.readings.first().map(|reading| reading.timestamp);
                if newest != Some(None) {
                    state.recent.note_newest(asked.relation.name(), newest.flatten(), flushed);
                }
            }
            let unread = found.unread;
            let mut page = merged(asked, slice, found).ended_before(unread, asked);
            page.partial = unread.map(|unread| Partial { complete_from: unread.after() });
            return Ok(page);
        }
        Err(failure) => failure,
    };
    if !ApiError::is_outage(&failure) {
        return Err(ApiError::of_query(&state.health, &failure, "device_id"));
    }
    let found = match part {
        LogPart::Retained => found,
        LogPart::Pending => find(LogPart::Retained).await.map_err(broken)?,
    };
    if !found.has_table {
        return Err(ApiError::of_query(&state.health, &failure, "device_id"));
    }
    let unread = found.unread;
    let complete_from = state.recent.complete_from(asked.relation.name(), unread);
    let mut page = of_log(asked, found).ended_before(unread, asked);
    page.partial = Some(Partial { complete_from });
    Ok(page)
}

async fn of_table(
    state: &AppState,
    asked: &Question,
    found: &Found,
) -> Result<TelemetrySlice, Failure> {
    let keys: Vec<LogKey<'_>> =
        found.keys.iter().map(|key| (&*key.device_id, key.timestamp)).collect();
    let (position, most) = asked.of_table(found.rows.len());
    state.database.telemetry(&asked.relation, &asked.filter, &position, most, &keys).await
}

/// What the database answers, for which a while is waited.
pub(super) async fn patiently<T, E: std::convert::From<Failure>>(
    state: &AppState,
    is_doubtful: bool,
    answer: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    if is_doubtful {
        probe(state);
    }
    let patience = if is_doubtful { PATIENCE_IN_DOUBT } else { PATIENCE };
    let outcome = tokio::time::timeout(patience, answer).await;
    // That it was not waited for long says nothing new.
    if matches!(outcome, Ok(Ok(_))) {
        state.health.note_query(true);
    } else if outcome.is_err() && !is_doubtful {
        state.health.note_query(false);
    }
    outcome.unwrap_or_else(|_| {
        let seconds = patience.as_secs_f64();
        let reason = format!("no answer from the database within {seconds} s");
        Err(Failure::TimedOut { reason }.into())
    })
}

/// Finds out, beside the requests, whether a database that was silent answers again, if only it is given the
/// time: in doubt no request gives it that.
pub(super) fn probe(state: &AppState) {
    if !state.health.is_probe_due() {
        return;
    }
    let (health, database) = (Arc::clone(&state.health), state.database.clone());
    tokio::spawn(async move {
        if database.columns(BUILT_IN_TABLE).await.is_ok() {
            health.note_query(true);
        }
    });
}

impl Question {
    /// Whether no filter is set.
    fn is_whole(&self) -> bool {
        self.filter == TelemetryFilter::default()
    }

    /// Whether what was not read of the log may come first behind the cursor, so that there is no way on.
    fn is_stuck(&self, unread: Option<Unread>) -> bool {
        let Position::After(cursor) = &self.position else { return false };
        let is_before = |from: Timestamp| (from.as_micros(), "") < cursor.place();
        unread.is_some_and(|unread| !unread.after().is_some_and(is_before))
    }

    fn of_log(&self) -> Ask {
        let TelemetryFilter { device_id, start, end } = self.filter.clone();
        let (skipped, behind) = match &self.position {
            Position::Offset(skipped) => (*skipped as usize, None),
            Position::After(cursor) => {
                let (micros, device_id) = cursor.place();
                (0, Some((micros, device_id.to_owned())))
            }
        };
        Ask {
            table: self.relation.name().to_owned(),
            device_id,
            start,
            end,
            behind,
            // One more tells whether there is a next page.
            wanted: skipped + self.limit as usize + 1,
            counted: TOTAL_EXACT_UP_TO as usize + 1,
        }
    }

    /// Where to begin in the table if the log has so many rows, and how many to read.
    fn of_table(&self, log_rows: usize) -> (Position, u32) {
        let most = self.limit.saturating_add(1);
        match &self.position {
            Position::After(cursor) => (Position::After(cursor.clone()), most),
            Position::Offset(skipped) => {
                let before = skipped.saturating_sub(u32::try_from(log_rows).unwrap_or(u32::MAX));
                (Position::Offset(before), most.saturating_add(skipped - before))
            }
        }
    }

    fn page(&self, mut readings: Vec<StoredReading>, total: Total) -> Page {
        let has_next = readings.len() > self.limit as usize;
        readings.truncate(self.limit as usize);
        let next = readings.last().filter(|_| has_next).map(StoredReading::cursor);
        Page { readings, total, next, partial: None }
    }

    fn stored(&self, row: LogRow) -> StoredReading {
        as_stored(&self.relation, row)
    }
}

/// The row as the table will have it.
pub(super) fn as_stored(relation: &Relation, row: LogRow) -> StoredReading {
    let values = match row.values {
        RowValues::Fields(values) if !relation.is_whole() => StoredValues::Fields(values),
        RowValues::Row(text) => StoredValues::Row(text.into()),
        values => StoredValues::Row(json(&values.cells())),
    };
    StoredReading::of_log(row.key.device_id.to_string(), row.key.timestamp, values)
}

/// The page of the log alone.
fn of_log(asked: &Question, found: Found) -> Page {
    let skipped = match asked.position {
        Position::Offset(skipped) => skipped as usize,
        Position::After(_) => 0,
    };
    let total = total(found.keys.len() as u64, &found);
    let rows = found.rows.into_iter().skip(skipped);
    asked.page(rows.map(|row| asked.stored(row)).collect(), total)
}

/// Of so many rows, and more if not all were counted.
fn total(counted: u64, found: &Found) -> Total {
    let total = Total::of(if found.is_plenty { u64::MAX } else { counted });
    Total { exact: total.exact && found.is_counted, ..total }
}

/// The page of both.
fn merged(asked: &Question, slice: TelemetrySlice, found: Found) -> Page {
    let (before, most) = asked.of_table(found.rows.len());
    let to_skip = match (&asked.position, before) {
        (Position::Offset(skipped), Position::Offset(before)) => (skipped - before) as usize,
        _ => 0,
    };
    let known = slice.known.unwrap_or_default();
    let new = found.keys.len() - known.iter().filter(|known| **known).count();
    let total = total(slice.counted.saturating_add(new as u64), &found);
    let mut of_table = slice.readings.into_iter().peekable();
    let mut of_log = found.rows.into_iter().enumerate().peekable();
    let mut readings = Vec::new();
    while readings.len() < most as usize {
        let order = match (of_table.peek(), of_log.peek()) {
            (Some(stored), Some((_, row))) => stored.compare(row.key.timestamp, &row.key.device_id),
            (Some(_), None) => Ordering::Greater,
            (None, Some(_)) => Ordering::Less,
            (None, None) => break,
        };
        let stored = if order.is_ge() { of_table.next() } else { None };
        let row = if order.is_le() { of_log.next() } else { None };
        match (stored, row) {
            (Some(stored), Some((_, row))) => readings.push(filled(stored, row)),
            (Some(stored), None) => readings.push(stored),
            // One that is in the table stands before what was read of it.
            (None, Some((at, row))) if known.get(at) != Some(&true) => {
                readings.push(asked.stored(row));
            }
            (None, _) => {}
        }
    }
    asked.page(readings.into_iter().skip(to_skip).collect(), total)
}

/// The rows of both, newest first, behind one place. It ends where either has more than was read, as `true`
/// says of it.
pub(super) fn joined(
    relation: &Relation,
    (of_table, is_table_cut): (Vec<StoredReading>, bool),
    (of_log, is_log_cut): (Vec<LogRow>, bool),
) -> Vec<StoredReading> {
    let mut of_table = of_table.into_iter().peekable();
    let mut of_log = of_log.into_iter().peekable();
    let mut readings = Vec::with_capacity(of_table.len() + of_log.len());
    loop {
        let order = match (of_table.peek(), of_log.peek()) {
            (None, _) if is_table_cut => break,
            (_, None) if is_log_cut => break,
            (Some(stored), Some(row)) => stored.compare(row.key.timestamp, &row.key.device_id),
            (Some(_), None) => Ordering::Greater,
            (None, Some(_)) => Ordering::Less,
            (None, None) => break,
        };
        let stored = if order.is_ge() { of_table.next() } else { None };
        let row = if order.is_le() { of_log.next() } else { None };
        readings.extend(match (stored, row) {
            (Some(stored), Some(row)) => Some(filled(stored, row)),
            (stored, row) => stored.or_else(|| Some(as_stored(relation, row?))),
        });
    }
    readings
}

/// The latest reading of a device: of the table, or of the log where that has a newer one or fills it up.
pub(super) fn latest(
    relation: &Relation,
    stored: Option<StoredReading>,
    last: Option<LogRow>,
) -> Option<StoredReading> {
    match (stored, last) {
        (Some(stored), Some(row)) => {
            Some(match stored.compare(row.key.timestamp, &row.key.device_id) {
                Ordering::Less => as_stored(relation, row),
                Ordering::Equal => filled(stored, row),
                Ordering::Greater => stored,
            })
        }
        (stored, last) => stored.or_else(|| Some(as_stored(relation, last?))),
    }
}

/// The row of the table, with what it lacks and the log brings.
fn filled(mut stored: StoredReading, row: LogRow) -> StoredReading {
    let StoredValues::Row(text) = &stored.values else { return stored };
    let filled = match row.values {
        RowValues::Cells(cells) => {
            fill_row(text, cells.iter().map(|(name, cell)| (name.as_str(), cell)))
        }
        RowValues::Row(other) => fill_row_from(text, &other),
        RowValues::Fields(_) => None,
    };
    if let Some(text) = filled {
        stored.values = StoredValues::Row(text);
    }
    stored
}

/// Cells as PostgreSQL writes a row.
fn json(cells: &[(String, Cell)]) -> String {
    let object: BTreeMap<&str, &Cell> =
        cells.iter().map(|(name, cell)| (name.as_str(), cell)).collect();
    serde_json::to_string(&object).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::base::properties::seeded;
    use crate::recent::Key;

    type Place = (i64, &'static str);

    fn at(second: i64) -> Timestamp {
        Timestamp::from_millis(second * 1_000).unwrap()
    }

    fn asked(position: Position, limit: u32) -> Question {
        let (relation, filter) = (Relation::built_in(), TelemetryFilter::default());
        Question { relation, filter, position, limit }
    }

    /// What the log answers that has these.
    fn found(asked: &Question, log: &BTreeSet<Place>) -> Found {
        let ask = asked.of_log();
        let key =
            |(second, device): &Place| Key { timestamp: at(*second), device_id: (*device).into() };
        let behind = |place: &&Place| ask.is_behind(at(place.0), place.1);
        let row = |place| LogRow { key: key(place), values: RowValues::Fields([1.0; 3]) };
        let rows: Vec<_> = log.iter().rev().filter(behind).take(ask.wanted).map(row).collect();
        let mut keys: Vec<Key> = rows.iter().map(|row| row.key.clone()).collect();
        let rest: Vec<Key> = log.iter().map(key).filter(|key| !keys.contains(key)).collect();
        keys.extend(rest);
        Found { rows, keys, is_counted: true, ..Found::default() }
    }

    /// What the table answers that has these.
    fn slice(asked: &Question, table: &BTreeSet<Place>, found: &Found) -> TelemetrySlice {
        let (position, most) = asked.of_table(found.rows.len());
        let stored = |(second, device): &Place| {
            let values = StoredValues::Fields([2.0; 3]);
            StoredReading::of_log((*device).to_owned(), at(*second), values)
        };
        let (skipped, behind) = match &position {
            Position::Offset(skipped) => (*skipped as usize, None),
            Position::After(cursor) => (0, Some(cursor.place())),
        };
        let is_behind = |(second, device): &&Place| {
            behind.is_none_or(|behind| (at(*second).as_micros(), *device) < behind)
        };
        let rows = table.iter().rev().filter(is_behind).skip(skipped).take(most as usize);
        let is_known = |key: &Key| {
            table
                .iter()
                .any(|(second, device)| at(*second) == key.timestamp && **device == *key.device_id)
        };
        TelemetrySlice {
            readings: rows.map(stored).collect(),
            counted: table.len() as u64,
            known: Some(found.keys.iter().map(is_known).collect()),
        }
    }

    fn places() -> impl Strategy<Value = BTreeSet<Place>> {
        let device = prop_oneof![Just("a"), Just("b"), Just("c")];
        prop::collection::btree_set((0_i64..12, device), 0..25)
    }

    proptest! {
        #![proptest_config(seeded())]

        #[test]
        fn pages_of_both_show_each_reading_once_and_the_tables_where_both_have_it(
            table in places(),
            log in places(),
            limit in 1_u32..9,
            by_offset: bool,
        ) {
            let mut seen = Vec::new();
            let mut position = Position::Offset(0);
            loop {
                let asked = asked(position, limit);
                let found = found(&asked, &log);
                let slice = slice(&asked, &table, &found);
                let page = merged(&asked, slice, found);
                prop_assert_eq!(page.total.rows, table.union(&log).count() as u64);
                prop_assert!(page.readings.len() <= limit as usize);
                let shown = |reading: &StoredReading| {
                    let second = reading.cursor().place().0 / 1_000_000;
                    let is_tables = reading.values == StoredValues::Fields([2.0; 3]);
                    (second, reading.device_id.clone(), is_tables)
                };
                seen.extend(page.readings.iter().map(shown));
                position = match page.next {
                    None => break,
                    Some(_) if by_offset => Position::Offset(u32::try_from(seen.len()).unwrap()),
                    Some(cursor) => Position::After(cursor),
                };
            }
            // A union is in order, and not to be walked backwards.
            let union: BTreeSet<Place> = table.union(&log).copied().collect();
            let expected: Vec<_> = union.iter().rev().map(|place| {
                (place.0, place.1.to_owned(), table.contains(place))
            }).collect();
            prop_assert_eq!(seen, expected);
        }
    }

    proptest! {
        #![proptest_config(seeded())]

        #[test]
        fn a_way_through_both_by_cursor_shows_each_reading_once_however_little_is_read_of_either(
            table in places(),
            log in places(),
            of_table in 1_usize..9,
            of_log in 1_usize..9,
        ) {
            let mut seen: Vec<(Place, bool)> = Vec::new();
            loop {
                let last = seen.last().map(|(place, _)| *place);
                let behind = |all: &BTreeSet<Place>, most: usize| -> Vec<Place> {
                    let behind = |place: &&Place| last.is_none_or(|last| **place < last);
                    all.iter().rev().filter(behind).take(most).copied().collect()
                };
                let log: Vec<Place> = behind(&log, of_log);
                let is_log_cut = log.len() == of_log;
                // Of the table nothing is read that lies behind what was read of the log.
                let since = log.last().filter(|_| is_log_cut).map(|(second, _)| *second);
                let mut table: Vec<Place> = behind(&table, usize::MAX);
                table.retain(|(second, _)| since.is_none_or(|since| *second >= since));
                table.truncate(of_table);
                let is_table_cut = table.len() == of_table;
                let stored = |(second, device): &Place| {
                    let values = StoredValues::Fields([2.0; 3]);
                    StoredReading::of_log((*device).to_owned(), at(*second), values)
                };
                let row = |(second, device): &Place| LogRow {
                    key: Key { timestamp: at(*second), device_id: (*device).into() },
                    values: RowValues::Fields([1.0; 3]),
                };
                let is_end = log.is_empty() && table.is_empty();
                let page = joined(
                    &Relation::built_in(),
                    (table.iter().map(stored).collect(), is_table_cut),
                    (log.iter().map(row).collect(), is_log_cut),
                );
                prop_assert_eq!(page.is_empty(), is_end, "each page brings it further");
                if is_end {
                    break;
                }
                for reading in page {
                    let device = ["a", "b", "c"].into_iter().find(|name| *name == reading.device_id);
                    let place = (reading.cursor().place().0 / 1_000_000, device.unwrap());
                    seen.push((place, reading.values == StoredValues::Fields([2.0; 3])));
                }
            }
            let union: BTreeSet<Place> = table.union(&log).copied().collect();
            let expected: Vec<_> =
                union.iter().rev().map(|place| (*place, table.contains(place))).collect();
            prop_assert_eq!(seen, expected);
        }
    }

    proptest! {
        #![proptest_config(seeded())]

        #[test]
        fn pages_come_by_each_reading_once_however_little_of_the_log_is_read(
            table in places(),
            log in places(),
            limit in 1_u32..9,
            // How many seconds are read behind the place. What reaches over it may not be, nor be known.
            seconds in -1_i64..5,
            is_known: bool,
            is_outage: bool,
        ) {
            let (mut seen, mut pages) = (Vec::new(), 0);
            let mut position = Position::Offset(0);
            loop {
                let asked = asked(position, limit);
                let mut found = found(&asked, &log);
                let is_first = matches!(asked.position, Position::Offset(_));
                let newest = found.rows.first().map(|row| row.key.timestamp.as_micros() / 1_000_000);
                let is_old = |row: &LogRow| {
                    let second = row.key.timestamp.as_micros() / 1_000_000;
                    newest.is_some_and(|newest| second <= newest - seconds)
                };
                if found.rows.iter().any(is_old) {
                    let until = newest.map(|newest| at(newest - seconds));
                    let unread = Unread { newest: until.filter(|_| is_known || is_first) };
                    if !asked.is_stuck(Some(unread)) {
                        found.unread = Some(unread);
                        // Of the others a part.
                        found.rows.retain(|row| {
                            !is_old(row) || row.key.timestamp.as_micros() / 1_000_000 % 2 == 0
                        });
                        found.keys.retain(|key| found.rows.iter().any(|row| row.key == *key));
                    }
                }
                let unread = found.unread;
                let page = if is_outage {
                    of_log(&asked, found)
                } else {
                    let slice = slice(&asked, &table, &found);
                    merged(&asked, slice, found)
                };
                let page = page.ended_before(unread, &asked);
                prop_assert!(page.readings.len() <= limit as usize);
                seen.extend(page.readings.iter().map(|reading| {
                    (reading.cursor().place().0 / 1_000_000, reading.device_id.clone())
                }));
                match page.next {
                    None => break,
                    Some(cursor) => position = Position::After(cursor),
                }
                pages += 1;
                prop_assert!(pages <= 100, "it goes round in circles");
            }
            let all: BTreeSet<Place> =
                if is_outage { log } else { table.union(&log).copied().collect() };
            let expected: Vec<_> =
                all.iter().rev().map(|place| (place.0, place.1.to_owned())).collect();
            prop_assert_eq!(seen, expected);
        }
    }

    #[test]
    fn a_row_of_the_table_is_filled_up_where_it_has_nothing() {
        let values = StoredValues::Row(r#"{"power":1.5,"count":null}"#.to_owned());
        let stored = StoredReading::of_log("a".to_owned(), at(1), values);
        let cells = [("power", 9), ("count", 7), ("level", 3)];
        let cells = cells.map(|(name, value)| (name.to_owned(), Cell::Int(value)));
        let key = Key { timestamp: at(1), device_id: "a".into() };
        let row = LogRow { key, values: RowValues::Cells(cells.to_vec()) };
        let expected = StoredValues::Row(r#"{"count":7,"level":3,"power":1.5}"#.to_owned());
        assert_eq!(filled(stored, row).values, expected);
    }
}
