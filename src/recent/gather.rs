//! Keeps the newest of what matches, each device and time once, and counts them.
//!
//! A reading may stand in the log more than once: a broker delivers a message again, a device sends the same
//! time twice. The table makes one row of them, for each of whose columns the first value counts, and so does
//! this.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use super::ask::{Ask, Key};
use crate::base::time::Timestamp;
use crate::telemetry::Record;
use crate::telemetry::fields::{FIELDS, Values};
use crate::telemetry::mapping::Cell;
use crate::wal::Offset;
use crate::wal::log::LastValues;

/// A row as the log has it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct LogRow {
    /// What names it.
    pub(crate) key: Key,
    /// What was measured.
    pub(crate) values: RowValues,
}

/// What a row has beside device and time.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum RowValues {
    /// A reading of the built-in shape.
    Fields(Values),
    /// By the names of their columns.
    Cells(Vec<(String, Cell)>),
    /// A row of the table, as a JSON object.
    Row(Box<str>),
}

impl RowValues {
    fn of(record: Record) -> Self {
        match record {
            Record::BuiltIn(reading) => Self::Fields(reading.values),
            Record::Mapped(row) => {
                let cell = |(column, cell): (&crate::telemetry::mapping::Column, &Cell)| {
                    (column.name.clone(), cell.clone())
                };
                Self::Cells(row.values().map(cell).collect())
            }
        }
    }

    pub(super) fn of_last(last: LastValues) -> Self {
        match last {
            LastValues::Fields(values) => Self::Fields(values),
            LastValues::Cells(shape, cells) => {
                let name = |at: u16| Some(shape.columns.get(usize::from(at))?.name.clone());
                let cells = cells.into_iter();
                Self::Cells(cells.filter_map(|(at, cell)| Some((name(at)?, cell))).collect())
            }
            LastValues::Row(text) => Self::Row(text),
        }
    }

    /// By the names of their columns; none of a row of the table.
    #[must_use]
    pub(crate) fn cells(self) -> Vec<(String, Cell)> {
        match self {
            Self::Fields(values) => {
                let cell = |(field, value): (&crate::telemetry::fields::Field, f64)| {
                    (field.name.to_owned(), Cell::Float(value))
                };
                FIELDS.iter().zip(values).map(cell).collect()
            }
            Self::Cells(cells) => cells,
            Self::Row(_) => Vec::new(),
        }
    }

    /// Adds what `later` has in columns that this has nothing in. A reading of the built-in shape fills up
    /// nothing.
    fn fill(&mut self, later: Self) {
        let Self::Cells(later) = later else { return };
        let mut cells = std::mem::replace(self, Self::Cells(Vec::new())).cells();
        for (name, cell) in later {
            if cells.iter().all(|(known, _)| *known != name) {
                cells.push((name, cell));
            }
        }
        *self = Self::Cells(cells);
    }
}

/// What is gathered of the log.
pub(super) struct Gather<'a> {
    ask: &'a Ask,
    /// The newest rows, as many as are wanted, in the records that make them.
    rows: BTreeMap<Key, Vec<(Offset, Record)>>,
    keys: HashSet<Key>,
    names: HashSet<Arc<str>>,
    bytes: usize,
    /// Whether there was a record of the table.
    has_table: bool,
    /// Whether there was one of another.
    has_other: bool,
}

/// More than a row or a key takes beside the text of it.
const ROW_BYTES: usize = 200;
const KEY_BYTES: usize = 48;

impl<'a> Gather<'a> {
    pub(super) fn new(ask: &'a Ask) -> Self {
        Self {
            ask,
            rows: BTreeMap::new(),
            keys: HashSet::new(),
            names: HashSet::new(),
            bytes: 0,
            has_table: false,
            has_other: false,
        }
    }

    pub(super) fn add(&mut self, offset: Offset, record: &Record) {
        if record.table() != self.ask.table {
            self.has_other = true;
            return;
        }
        self.has_table = true;
        if !self.ask.matches(record) {
            return;
        }
        let (timestamp, device_id) = (record.timestamp(), record.device_id());
        let is_counted = self.is_counting();
        let is_returned = self.is_returned(timestamp, device_id);
        if !is_counted && !is_returned {
            return;
        }
        let key = Key { timestamp, device_id: self.name(device_id) };
        if is_counted && self.keys.insert(key.clone()) {
            self.bytes += KEY_BYTES;
        }
        if !is_returned {
            return;
        }
        self.bytes += ROW_BYTES + weight(record);
        self.rows.entry(key).or_default().push((offset, record.clone()));
        while self.rows.len() > self.ask.wanted {
            if let Some((_, records)) = self.rows.pop_first() {
                let bytes = records.iter().map(|(_, record)| ROW_BYTES + weight(record));
                self.bytes = self.bytes.saturating_sub(bytes.sum());
            }
        }
    }

    /// Whether a reading of that time and device belongs among the rows, as far as they are known.
    fn is_returned(&self, at: Timestamp, device_id: &str) -> bool {
        let is_full = self.rows.len() >= self.ask.wanted;
        let last = self.rows.first_key_value().filter(|_| is_full);
        let is_before_last = |last: &Key| (at, device_id) < (last.timestamp, &*last.device_id);
        self.ask.wanted > 0
            && self.ask.is_behind(at, device_id)
            && !last.is_some_and(|(last, _)| is_before_last(last))
    }

    /// Where nothing is counted the names of what is dropped again are of no use.
    fn name(&mut self, device_id: &str) -> Arc<str> {
        if self.ask.counted == 0 {
            return device_id.into();
        }
        if let Some(known) = self.names.get(device_id) {
            return Arc::clone(known);
        }
        let name: Arc<str> = device_id.into();
        self.bytes += KEY_BYTES + name.len();
        self.names.insert(Arc::clone(&name));
        name
    }

    /// Whether one of the readings from `oldest` to `newest` could be among the rows.
    pub(super) fn lacks(&self, oldest: Timestamp, newest: Timestamp) -> bool {
        let behind = self.ask.behind.as_ref().map(|(micros, _)| *micros);
        let may_be = behind.is_none_or(|behind| oldest.as_micros() <= behind);
        let newest = behind.map_or(newest.as_micros(), |behind| newest.as_micros().min(behind));
        // One of the same moment may come before the last by its name, or belong to its row.
        let last = || self.rows.first_key_value().map(|(last, _)| last.timestamp.as_micros());
        may_be
            && self.ask.wanted > 0
            && (self.rows.len() < self.ask.wanted || last().is_none_or(|last| newest >= last))
    }

    pub(super) fn is_counting(&self) -> bool {
        self.keys.len() < self.ask.counted
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn has_table(&self) -> bool {
        self.has_table
    }

    pub(super) fn has_other(&self) -> bool {
        self.has_other
    }

    /// The rows, newest first, and what names everything that matches: the rows in their order, then the
    /// rest.
    pub(super) fn finish(self) -> (Vec<LogRow>, Vec<Key>) {
        let row = |(key, mut records): (Key, Vec<(Offset, Record)>)| {
            records.sort_by_key(|(offset, _)| *offset);
            let values = records.into_iter().map(|(_, record)| RowValues::of(record));
            let values = values.reduce(|mut first, later| {
                first.fill(later);
                first
            })?;
            Some(LogRow { key, values })
        };
        let rows: Vec<LogRow> = self.rows.into_iter().rev().filter_map(row).collect();
        let mut rest = self.keys;
        let mut keys: Vec<Key> = rows.iter().map(|row| row.key.clone()).collect();
        for key in &keys {
            rest.remove(key);
        }
        keys.extend(rest);
        (rows, keys)
    }
}

fn weight(record: &Record) -> usize {
    record.mapped().map_or(0, |row| 2 * row.bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Reading;
    use crate::telemetry::mapping::{Column, Kind, MappedReading, SilentAfter, TableShape};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_millis(second * 1_000).unwrap()
    }

    fn reading(second: i64, device_id: &str, value: f64) -> Record {
        let device_id = device_id.to_owned();
        Record::from(Reading { device_id, timestamp: at(second), values: [value; 3] })
    }

    fn row(second: i64, cells: &[(&str, i64)]) -> Record {
        let column = |(name, _): &(&str, i64)| Column { name: (*name).to_owned(), kind: Kind::Int };
        let columns = cells.iter().map(column).collect();
        Record::from(MappedReading {
            table: Arc::new(TableShape { name: "power".to_owned(), columns }),
            device_id: "a".to_owned(),
            timestamp: at(second),
            cells: (0..).zip(cells).map(|(at, (_, value))| (at, Cell::Int(*value))).collect(),
            silent_after: SilentAfter::OfTable,
        })
    }

    fn ask(table: &str, wanted: usize) -> Ask {
        Ask {
            table: table.to_owned(),
            device_id: None,
            start: None,
            end: None,
            behind: None,
            wanted,
            counted: 10,
        }
    }

    fn gathered(ask: &Ask, records: &[Record]) -> (Vec<LogRow>, usize) {
        let mut gather = Gather::new(ask);
        for (offset, record) in (0..).zip(records) {
            gather.add(offset, record);
        }
        let (rows, keys) = gather.finish();
        (rows, keys.len())
    }

    fn places(rows: &[LogRow]) -> Vec<(i64, &str)> {
        let place = |row: &LogRow| row.key.timestamp.as_micros() / 1_000_000;
        rows.iter().map(|row| (place(row), &*row.key.device_id)).collect::<Vec<_>>()
    }

    #[test]
    fn the_newest_come_first_whenever_they_were_received() {
        let records = [(3, "a"), (9, "b"), (1, "a"), (9, "c"), (5, "a")]
            .map(|(second, device)| reading(second, device, 1.0));
        let (rows, counted) = gathered(&ask("telemetry", 3), &records);
        assert_eq!((places(&rows), counted), (vec![(9, "c"), (9, "b"), (5, "a")], 5));
        let of_a = Ask { device_id: Some("a".to_owned()), ..ask("telemetry", 2) };
        let (rows, counted) = gathered(&of_a, &records);
        assert_eq!((places(&rows), counted), (vec![(5, "a"), (3, "a")], 3));
        let span = Ask { start: Some(at(3)), end: Some(at(5)), ..ask("telemetry", 9) };
        assert_eq!(places(&gathered(&span, &records).0), [(5, "a"), (3, "a")]);
    }

    #[test]
    fn a_cursor_bounds_what_is_returned_and_not_what_is_counted() {
        let records = [(3, "a"), (9, "b"), (9, "c")].map(|(at, device)| reading(at, device, 1.0));
        let behind = Some((9_000_000, "c".to_owned()));
        let (rows, counted) = gathered(&Ask { behind, ..ask("telemetry", 9) }, &records);
        assert_eq!((places(&rows), counted), (vec![(9, "b"), (3, "a")], 3));
    }

    #[test]
    fn what_reaches_from_before_a_cursor_to_behind_it_is_looked_into() {
        let (early, late) = (at(5), at(20));
        let behind = Some((10_000_000, "c".to_owned()));
        let ask = Ask { behind, ..ask("telemetry", 2) };
        let mut gather = Gather::new(&ask);
        assert!(gather.lacks(early, late) && gather.lacks(at(10), late));
        assert!(!gather.lacks(at(11), late));
        for (offset, second) in [(0, 9), (1, 8), (2, 15)] {
            gather.add(offset, &reading(second, "a", 1.0));
        }
        assert!(gather.lacks(early, late) && gather.lacks(early, at(8)));
        assert!(!gather.lacks(early, at(7)));
        assert_eq!(places(&gather.finish().0), [(9, "a"), (8, "a")]);
    }

    #[test]
    fn of_one_device_and_time_the_first_counts_also_if_it_is_read_last() {
        let ask = ask("telemetry", 9);
        let mut gather = Gather::new(&ask);
        gather.add(8, &reading(1, "a", 2.0));
        gather.add(7, &reading(1, "a", 1.0));
        let (rows, keys) = gather.finish();
        assert_eq!((rows.len(), keys.len()), (1, 1));
        assert_eq!(rows[0].values, RowValues::Fields([1.0; 3]));
    }

    #[test]
    fn rows_of_a_mapping_are_filled_up_column_by_column() {
        let records = [row(1, &[("power", 1)]), row(1, &[("count", 7), ("power", 2)])];
        let (rows, counted) = gathered(&ask("power", 9), &records);
        let expected = [("power", 1), ("count", 7)];
        let expected = expected.map(|(name, value)| (name.to_owned(), Cell::Int(value)));
        assert_eq!(rows[0].values, RowValues::Cells(expected.to_vec()));
        assert_eq!((rows.len(), counted), (1, 1));
        assert!(gathered(&ask("telemetry", 9), &records).0.is_empty());
    }
}
