//! The last value of each device, in memory.
//!
//! It is fed with what is committed, and with what is read back after a start; the newest by the device's own
//! time stays, whatever the order. Past [`MOST`] devices, or the bytes that so many may take, those go that
//! have been silent for longest. When a device was last heard of goes by the arrival of whatever it sends,
//! also of readings that are older than its newest. It is in parts with a lock each, so that who looks at all devices keeps
//! nobody waiting for longer than a part takes: a fraction of a millisecond.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lru::LruCache;

use super::heard::Heard;
use crate::base::time::Timestamp;
use crate::telemetry::Record;
use crate::telemetry::fields::Values;
use crate::telemetry::mapping::{Cell, SilentAfter, TableShape, fill_row, moved};

/// Devices that are kept.
const MOST: usize = 200_000;
const PARTS: usize = 64;
const MOST_BYTES: usize = MOST * 200;
/// What a device takes beside its name and the values of a mapping.
const DEVICE_BYTES: usize = 176;

/// The newest reading of a device.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Last {
    /// When the device measured.
    pub(crate) timestamp: Timestamp,
    /// What it measured.
    pub(crate) values: LastValues,
    /// When it was last heard of, by whatever reading.
    pub(crate) heard: Heard,
    /// For how long it may be silent, by the last reading of which that is known.
    pub(crate) silent_after: SilentAfter,
}

/// What the newest reading of a device has beside device and time.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum LastValues {
    /// The fields of the built-in shape.
    Fields(Values),
    /// The columns of a mapping, by index.
    Cells(Arc<TableShape>, Box<[(u16, Cell)]>),
    /// A row of the table, as a JSON object.
    Row(Box<str>),
}

impl LastValues {
    fn bytes(&self) -> usize {
        match self {
            Self::Fields(_) => 0,
            Self::Cells(_, cells) => {
                let text = |cell: &Cell| match cell {
                    Cell::Text(text) | Cell::Json(text) => text.len(),
                    _ => 0,
                };
                cells.iter().map(|(_, cell)| size_of::<(u16, Cell)>() + text(cell)).sum()
            }
            Self::Row(text) => text.len(),
        }
    }

    /// Of two messages of one moment: the first, and in columns that it has nothing in the second, as in the
    /// table. What that has already is there first. `union` is a shape with the columns of both, kept for the next.
    fn filled(self, second: Self, union: &mut Option<Arc<TableShape>>) -> Self {
        match (self, second) {
            (Self::Cells(shape, cells), Self::Cells(other, more)) => {
                let (shape, mut cells, more) = if shape == other {
                    (shape, cells.into_vec(), more)
                } else {
                    let both = union_of(union, &shape, &other);
                    let cells = moved(cells, &shape, &both).into_vec();
                    let more = moved(more, &other, &both);
                    (both, cells, more)
                };
                for (at, cell) in more {
                    if let Err(place) = cells.binary_search_by_key(&at, |(at, _)| *at) {
                        cells.insert(place, (at, cell));
                    }
                }
                Self::Cells(shape, cells.into())
            }
            (Self::Row(row), Self::Cells(shape, cells))
            | (Self::Cells(shape, cells), Self::Row(row)) => {
                let name = |at: u16| Some(shape.columns.get(usize::from(at))?.name.as_str());
                let named = cells.iter().filter_map(|(at, cell)| Some((name(*at)?, cell)));
                Self::Row(fill_row(&row, named).map_or(row, Into::into))
            }
            (first, _) => first,
        }
    }
}

/// The one that is kept, if it has the columns of both; else it is made, and kept.
fn union_of(
    kept: &mut Option<Arc<TableShape>>,
    one: &TableShape,
    other: &TableShape,
) -> Arc<TableShape> {
    let mut both = kept.as_deref().unwrap_or(one).with_columns_of(one);
    if let Some(more) = both.as_ref().or(kept.as_deref()).unwrap_or(one).with_columns_of(other) {
        both = Some(more);
    }
    match (both, &*kept) {
        (None, Some(kept)) => Arc::clone(kept),
        (both, _) => Arc::clone(kept.insert(Arc::new(both.unwrap_or_else(|| one.clone())))),
    }
}

/// The last value of each device of each table.
pub(crate) struct Latest {
    parts: Vec<Mutex<Part>>,
    has_evicted: AtomicBool,
}

#[derive(Default)]
struct Part {
    tables: Vec<Table>,
    devices: usize,
    bytes: usize,
}

struct Table {
    name: Box<str>,
    devices: LruCache<Arc<str>, Last>,
    /// That of the last row, which the next one shares: each block that is read back brings its own.
    shape: Option<Arc<TableShape>>,
    /// That of rows that messages of several mappings fill.
    union: Option<Arc<TableShape>>,
}

impl Default for Latest {
    fn default() -> Self {
        let parts = (0..PARTS).map(|_| Mutex::default()).collect();
        Self { parts, has_evicted: AtomicBool::new(false) }
    }
}

impl Latest {
    /// Keeps `record`, which was received then, if its device has none that is newer. One of the same moment
    /// fills what that has nothing in.
    pub(super) fn offer(&self, record: &Record, heard: Heard) {
        let silent_after = match record {
            Record::BuiltIn(_) => SilentAfter::OfAll,
            Record::Mapped(row) => row.silent_after,
        };
        let of = Of { table: record.table(), device_id: record.device_id(), heard, silent_after };
        self.put(of, record.timestamp(), |table| match record {
            Record::BuiltIn(reading) => LastValues::Fields(reading.values),
            Record::Mapped(row) => {
                let shape = match &table.shape {
                    Some(shape) if *shape == row.table => Arc::clone(shape),
                    _ => Arc::clone(table.shape.insert(Arc::clone(&row.table))),
                };
                LastValues::Cells(shape, row.cells.clone().into_boxed_slice())
            }
        });
    }

    /// Keeps a row of the table, if its device has none that is newer; likewise.
    pub(super) fn offer_stored(
        &self,
        (table, device_id): (&str, &str),
        timestamp: Timestamp,
        values: LastValues,
        heard: Heard,
    ) {
        let of = Of { table, device_id, heard, silent_after: SilentAfter::OfTable };
        self.put(of, timestamp, |_| values);
    }

    fn put(&self, of: Of<'_>, timestamp: Timestamp, values: impl FnOnce(&mut Table) -> LastValues) {
        let Of { table, device_id, heard, silent_after } = of;
        let mut part = lock(self.part(device_id));
        let part = &mut *part;
        let at = part.tables.iter().position(|known| *known.name == *table);
        let at = at.unwrap_or_else(|| {
            part.tables.push(Table {
                name: table.into(),
                devices: LruCache::unbounded(),
                shape: None,
                union: None,
            });
            part.tables.len() - 1
        });
        let table = &mut part.tables[at];
        let mut before = table.devices.get_mut(device_id);
        if let Some(before) = &mut before {
            before.hear(heard, silent_after);
            if before.timestamp > timestamp {
                return;
            }
        }
        let values = values(table);
        if let Some(last) = table.devices.get_mut(device_id) {
            part.bytes -= last.values.bytes();
            if last.timestamp == timestamp {
                let first = std::mem::replace(&mut last.values, LastValues::Row(Box::default()));
                last.values = first.filled(values, &mut table.union);
            } else {
                (last.timestamp, last.values) = (timestamp, values);
            }
            part.bytes += last.values.bytes();
        } else {
            part.bytes += DEVICE_BYTES + device_id.len() + values.bytes();
            let last = Last { timestamp, values, heard, silent_after };
            table.devices.put(device_id.into(), last);
            part.devices += 1;
        }
        while part.devices > MOST / PARTS || part.bytes > MOST_BYTES / PARTS {
            if !part.evict() {
                break;
            }
            self.has_evicted.store(true, Ordering::Relaxed);
        }
    }

    fn part(&self, device_id: &str) -> &Mutex<Part> {
        &self.parts[crc32fast::hash(device_id.as_bytes()) as usize % PARTS]
    }

    /// The last value of a device.
    #[must_use]
    pub(crate) fn get(&self, table: &str, device_id: &str) -> Option<Last> {
        let part = lock(self.part(device_id));
        let table = part.tables.iter().find(|known| *known.name == *table)?;
        table.devices.peek(device_id).cloned()
    }

    /// The devices of `table` that match, each with the time of its last value, in no order.
    #[must_use]
    pub(crate) fn devices(
        &self,
        table: &str,
        matches: impl Fn(&str, &Last) -> bool,
    ) -> Vec<(Arc<str>, Timestamp)> {
        let mut all = Vec::new();
        for part in &self.parts {
            let part = lock(part);
            let Some(table) = part.tables.iter().find(|known| *known.name == *table) else {
                continue;
            };
            let devices = table.devices.iter();
            let matching = devices.filter(|(device_id, last)| matches(device_id, last));
            all.extend(matching.map(|(device_id, last)| (Arc::clone(device_id), last.timestamp)));
        }
        all
    }

    /// How many devices match, of all tables, by the name of the table and the last value.
    #[must_use]
    pub(crate) fn count(&self, matches: impl Fn(&str, &Last) -> bool) -> u64 {
        let of_table = |table: &Table| {
            table.devices.iter().filter(|(_, last)| matches(&table.name, last)).count() as u64
        };
        let of_part = |part| lock(part).tables.iter().map(of_table).sum::<u64>();
        self.parts.iter().map(of_part).sum()
    }

    /// Whether a device had to go.
    #[must_use]
    pub(crate) fn has_evicted(&self) -> bool {
        self.has_evicted.load(Ordering::Relaxed)
    }
}

/// What a reading says of its device.
#[derive(Clone, Copy)]
struct Of<'r> {
    table: &'r str,
    device_id: &'r str,
    heard: Heard,
    silent_after: SilentAfter,
}

impl Last {
    fn hear(&mut self, heard: Heard, silent_after: SilentAfter) {
        let is_newer = heard >= self.heard;
        self.heard = self.heard.max(heard);
        let is_known = silent_after != SilentAfter::OfTable;
        if is_known && (is_newer || self.silent_after == SilentAfter::OfTable) {
            self.silent_after = silent_after;
        }
    }
}

fn lock(part: &Mutex<Part>) -> MutexGuard<'_, Part> {
    // Last values are worth no second panic.
    part.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Part {
    /// Lets go of the device that has been silent for longest, in the table that has most.
    fn evict(&mut self) -> bool {
        let fullest = self.tables.iter_mut().max_by_key(|table| table.devices.len());
        let Some((device_id, last)) = fullest.and_then(|table| table.devices.pop_lru()) else {
            return false;
        };
        self.devices -= 1;
        self.bytes -= DEVICE_BYTES + device_id.len() + last.values.bytes();
        true
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::telemetry::Reading;
    use crate::telemetry::mapping::{Column, Kind, MappedReading};

    fn reading(device_id: &str, second: i64, value: f64) -> Record {
        let timestamp = Timestamp::from_millis(second * 1_000).unwrap();
        Record::from(Reading { device_id: device_id.to_owned(), timestamp, values: [value; 3] })
    }

    fn heard(second: i64) -> Heard {
        Heard::at(Duration::from_secs(second.unsigned_abs()))
    }

    #[test]
    fn the_newest_by_its_own_time_stays_and_of_one_moment_the_first() {
        let latest = Latest::default();
        for (second, value) in [(5, 1.0), (3, 2.0), (5, 3.0)] {
            latest.offer(&reading("a", second, value), heard(second));
        }
        let last = latest.get("telemetry", "a").unwrap();
        assert_eq!(last.values, LastValues::Fields([1.0; 3]));
        assert_eq!(latest.get("telemetry", "b"), None);
        assert_eq!(latest.get("power", "a"), None);
    }

    /// One row of a table that mappings fill.
    fn row(columns: &[&str], cells: &[(u16, i64)]) -> Record {
        let column = |name: &&str| Column { name: (*name).to_owned(), kind: Kind::Int };
        let columns = columns.iter().map(column).collect();
        Record::from(MappedReading {
            table: Arc::new(TableShape { name: "power".to_owned(), columns }),
            device_id: "a".to_owned(),
            timestamp: Timestamp::from_millis(5_000).unwrap(),
            cells: cells.iter().map(|(at, value)| (*at, Cell::Int(*value))).collect(),
            silent_after: SilentAfter::OfTable,
        })
    }

    #[test]
    fn messages_of_one_moment_fill_one_row_whatever_their_mappings() {
        let latest = Latest::default();
        let last = || match latest.get("power", "a").unwrap().values {
            LastValues::Cells(shape, cells) => {
                let named = |(at, cell): &(u16, Cell)| match cell {
                    Cell::Int(value) => (shape.columns[usize::from(*at)].name.clone(), *value),
                    _ => panic!("{cell:?}"),
                };
                cells.iter().map(named).map(|(name, value)| format!("{name}={value}")).collect()
            }
            LastValues::Row(text) => vec![text.into_string()],
            LastValues::Fields(_) => panic!("it is mapped"),
        };
        latest.offer(&row(&["b", "d"], &[(1, 1)]), heard(1));
        latest.offer(&row(&["b", "d"], &[(0, 2), (1, 3)]), heard(1));
        assert_eq!(last(), ["b=2", "d=1"]);
        latest.offer(&row(&["a", "b", "c"], &[(0, 4), (1, 5), (2, 6)]), heard(1));
        assert_eq!(last(), ["a=4", "b=2", "c=6", "d=1"]);
        latest.offer(&row(&["c", "e"], &[(0, 7), (1, 8)]), heard(1));
        assert_eq!(last(), ["a=4", "b=2", "c=6", "d=1", "e=8"]);
        // The table has had one of them before.
        let stored = LastValues::Row(r#"{"a":0,"b":null,"f":"text"}"#.into());
        let at = Timestamp::from_millis(5_000).unwrap();
        latest.offer_stored(("power", "a"), at, stored, heard(1));
        assert_eq!(last(), [r#"{"a":0,"b":2,"c":6,"d":1,"e":8,"f":"text"}"#]);
        latest.offer(&row(&["a", "g"], &[(0, 9), (1, 10)]), heard(1));
        assert_eq!(last(), [r#"{"a":0,"b":2,"c":6,"d":1,"e":8,"f":"text","g":10}"#]);
        let bytes: usize = latest.parts.iter().map(|part| lock(part).bytes).sum();
        assert_eq!(bytes, DEVICE_BYTES + 1 + last()[0].len());
    }

    #[test]
    fn past_the_bound_those_go_that_have_been_silent_for_longest() {
        let latest = Latest::default();
        latest.offer(&reading("kept", 1, 1.0), heard(0));
        for device in 0..MOST + 20_000 {
            latest.offer(&reading(&format!("device-{device}"), 1, 1.0), heard(0));
            if device % 100 == 0 {
                let second = 2 + i64::try_from(device).unwrap();
                latest.offer(&reading("kept", second, 1.0), heard(0));
            }
        }
        let devices = latest.devices("telemetry", |_, _| true).len();
        assert!((MOST * 9 / 10..=MOST).contains(&devices), "{devices}");
        assert!(latest.get("telemetry", "kept").is_some() && latest.has_evicted());
        assert!(latest.get("telemetry", "device-0").is_none());
        let bytes: usize = latest.parts.iter().map(|part| lock(part).bytes).sum();
        assert!(bytes <= MOST_BYTES, "{bytes}");
    }

    #[test]
    fn whatever_arrives_is_heard_of_and_the_rule_is_that_of_the_last_of_which_it_is_known() {
        let latest = Latest::default();
        let last = || latest.get("telemetry", "a").unwrap();
        let stored = |second: i64, at: i64| {
            let at = Timestamp::from_millis(at * 1_000).unwrap();
            let values = LastValues::Fields([0.0; 3]);
            latest.offer_stored(("telemetry", "a"), at, values, heard(second));
        };
        stored(3, 90);
        assert_eq!((last().heard, last().silent_after), (heard(3), SilentAfter::OfTable));
        // Its clock is behind.
        latest.offer(&reading("a", 50, 1.0), heard(7));
        assert_eq!((last().heard, last().silent_after), (heard(7), SilentAfter::OfAll));
        assert_eq!(last().timestamp, Timestamp::from_millis(90_000).unwrap());
        stored(4, 95);
        assert_eq!((last().heard, last().silent_after), (heard(7), SilentAfter::OfAll));
        assert_eq!(latest.count(|table, last| table == "telemetry" && last.heard == heard(7)), 1);
    }
}
