//! What is in a block. The only file that knows bincode.
//!
//! Version 1 is a `Vec<RecordV1>` in bincode's fixed-width encoding, versions 2 and 3 are [`ColumnsV2`]
//! and [`TableV3`] in its variable one. Version 2 is written of readings of the built-in shape, version
//! 3 of rows of one table that mappings fill; all are read. A block of version 3 says itself what the
//! table and its columns are, so that no file is needed to understand it. bincode is positional: all are
//! frozen, a change is a new version beside them.

use std::sync::Arc;

use bincode::Options as _;
use serde::{Deserialize, Serialize};

use crate::base::time::Timestamp;
use crate::telemetry::fields::COUNT;
use crate::telemetry::mapping::{Cell, Column, Kind, MappedReading, TableShape};
use crate::telemetry::{Reading, Record};

/// The newest version; all from 1 to this are read.
pub(super) const VERSION: u16 = 3;

/// Fields of a reading in versions 1 and 2. Frozen: with other fields there have to be other versions.
const BUILT_IN: usize = 3;
const _: () = assert!(BUILT_IN == COUNT);

/// Version 1 of a record. Frozen.
#[derive(Deserialize)]
struct RecordV1 {
    device_id: String,
    timestamp_micros: i64,
    /// Temperature, humidity, battery.
    values: [f64; BUILT_IN],
}

/// Version 2 of a body: what is alike stands together. Frozen.
#[derive(Serialize, Deserialize)]
struct ColumnsV2<'r> {
    #[serde(borrow)]
    device_ids: Vec<&'r str>,
    /// Each from the one before it, wrapping; the first from 0.
    timestamp_steps_micros: Vec<i64>,
    /// Temperatures, humidities, batteries.
    values: [Vec<f64>; BUILT_IN],
}

/// Version 3 of a body: rows of one table. Frozen.
#[derive(Serialize, Deserialize)]
struct TableV3<'r> {
    table: &'r str,
    #[serde(borrow)]
    device_ids: Vec<&'r str>,
    /// As in version 2.
    timestamp_steps_micros: Vec<i64>,
    /// Those that have a value in one row or more.
    #[serde(borrow)]
    columns: Vec<ColumnV3<'r>>,
    /// Of the messages whose readings got the time of their arrival.
    receipts: Vec<ReceiptV3>,
}

/// A column of version 3. Frozen.
#[derive(Serialize, Deserialize)]
struct ColumnV3<'r> {
    name: &'r str,
    /// A bit a row, from the lowest of the first byte on; empty if every row has a value.
    presence: Vec<u8>,
    /// Those that are there.
    #[serde(borrow)]
    values: ValuesV3<'r>,
}

/// The values of a column of version 3. Frozen.
#[derive(Serialize, Deserialize)]
enum ValuesV3<'r> {
    Float(Vec<f64>),
    Int(Vec<i64>),
    Bool(Vec<bool>),
    #[serde(borrow)]
    Text(Vec<&'r str>),
    #[serde(borrow)]
    Json(Vec<&'r str>),
}

/// What a repeated delivery is recognised by. Frozen.
#[derive(Serialize, Deserialize)]
struct ReceiptV3 {
    packet_id: u16,
    /// Of topic and payload.
    hash: u64,
    timestamp_micros: i64,
}

/// Times, each from the one before it, wrapping; the first from 0.
fn steps(times: impl Iterator<Item = Timestamp>) -> Vec<i64> {
    let mut before = 0;
    let step = |time: Timestamp| {
        let now = time.as_micros();
        now.wrapping_sub(std::mem::replace(&mut before, now))
    };
    times.map(step).collect()
}

/// The opposite of [`steps`]; `None` if a time cannot be.
fn times(steps: &[i64]) -> Option<Vec<Timestamp>> {
    let mut micros = 0_i64;
    let time = |step: &i64| {
        micros = micros.wrapping_add(*step);
        Timestamp::from_micros(micros)
    };
    steps.iter().map(time).collect()
}

impl<'r> ColumnsV2<'r> {
    fn of(readings: &[&'r Reading]) -> Self {
        Self {
            device_ids: readings.iter().map(|reading| reading.device_id.as_str()).collect(),
            timestamp_steps_micros: steps(readings.iter().map(|reading| reading.timestamp)),
            values: std::array::from_fn(|field| {
                readings.iter().map(|reading| reading.values[field]).collect()
            }),
        }
    }

    /// `None` if the columns do not belong together, or a time cannot be.
    fn readings(self) -> Option<Vec<Record>> {
        let count = self.device_ids.len();
        if self.timestamp_steps_micros.len() != count
            || self.values.iter().any(|column| column.len() != count)
        {
            return None;
        }
        let times = times(&self.timestamp_steps_micros)?;
        let reading = |(at, (device_id, timestamp)): (usize, (&&str, Timestamp))| {
            let values = std::array::from_fn(|field| self.values[field][at]);
            Record::BuiltIn(Reading { device_id: (*device_id).to_owned(), timestamp, values })
        };
        Some(self.device_ids.iter().zip(times).enumerate().map(reading).collect())
    }
}

impl<'r> TableV3<'r> {
    /// Of rows of one table.
    fn of(table: &'r TableShape, rows: &[&'r MappedReading]) -> Self {
        let column = |(at, column): (u16, &'r Column)| {
            let cells: Vec<Option<&Cell>> = rows.iter().map(|row| cell(row, at)).collect();
            let there = cells.iter().flatten().count();
            (there > 0).then(|| ColumnV3 {
                name: &column.name,
                presence: if there == rows.len() { Vec::new() } else { bits(&cells) },
                values: ValuesV3::of(column.kind, cells.into_iter().flatten()),
            })
        };
        Self {
            table: &table.name,
            device_ids: rows.iter().map(|row| row.device_id.as_str()).collect(),
            timestamp_steps_micros: steps(rows.iter().map(|row| row.timestamp)),
            columns: (0..).zip(&table.columns).filter_map(column).collect(),
            receipts: Vec::new(),
        }
    }

    /// `None` if the columns do not belong together, or a time cannot be.
    fn rows(self) -> Option<Vec<Record>> {
        let count = self.device_ids.len();
        if self.timestamp_steps_micros.len() != count {
            return None;
        }
        let columns = self
            .columns
            .iter()
            .map(|column| Column { name: column.name.to_owned(), kind: column.values.kind() });
        let table =
            Arc::new(TableShape { name: self.table.to_owned(), columns: columns.collect() });
        let row = |(device_id, timestamp): (&&str, Timestamp)| MappedReading {
            table: Arc::clone(&table),
            device_id: (*device_id).to_owned(),
            timestamp,
            cells: Vec::with_capacity(self.columns.len()),
        };
        let times = times(&self.timestamp_steps_micros)?;
        let mut rows: Vec<MappedReading> = self.device_ids.iter().zip(times).map(row).collect();
        for (at, column) in self.columns.iter().enumerate() {
            let at = u16::try_from(at).ok()?;
            let mut values = column.values.cells();
            if !column.presence.is_empty() && column.presence.len() != count.div_ceil(8) {
                return None;
            }
            for (index, row) in rows.iter_mut().enumerate() {
                let byte = column.presence.get(index / 8);
                if byte.is_none_or(|byte| byte & (1 << (index % 8)) != 0) {
                    row.cells.push((at, values.next()?));
                }
            }
            if values.next().is_some() {
                return None;
            }
        }
        Some(rows.into_iter().map(Record::from).collect())
    }
}

impl<'r> ValuesV3<'r> {
    /// Of cells of one kind; one of another kind, which there is none of, would be left out.
    fn of(kind: Kind, cells: impl Iterator<Item = &'r Cell>) -> Self {
        let text = |cell: &'r Cell| match cell {
            Cell::Text(text) | Cell::Json(text) => Some(text.as_str()),
            _ => None,
        };
        match kind {
            Kind::Float => Self::Float(
                cells
                    .filter_map(|cell| if let Cell::Float(v) = cell { Some(*v) } else { None })
                    .collect(),
            ),
            Kind::Int => Self::Int(
                cells
                    .filter_map(|cell| if let Cell::Int(v) = cell { Some(*v) } else { None })
                    .collect(),
            ),
            Kind::Bool => Self::Bool(
                cells
                    .filter_map(|cell| if let Cell::Bool(v) = cell { Some(*v) } else { None })
                    .collect(),
            ),
            Kind::Text => Self::Text(cells.filter_map(text).collect()),
            Kind::Json => Self::Json(cells.filter_map(text).collect()),
        }
    }

    fn kind(&self) -> Kind {
        match self {
            Self::Float(_) => Kind::Float,
            Self::Int(_) => Kind::Int,
            Self::Bool(_) => Kind::Bool,
            Self::Text(_) => Kind::Text,
            Self::Json(_) => Kind::Json,
        }
    }

    fn cells(&self) -> Box<dyn Iterator<Item = Cell> + '_> {
        match self {
            Self::Float(values) => Box::new(values.iter().map(|value| Cell::Float(*value))),
            Self::Int(values) => Box::new(values.iter().map(|value| Cell::Int(*value))),
            Self::Bool(values) => Box::new(values.iter().map(|value| Cell::Bool(*value))),
            Self::Text(values) => {
                Box::new(values.iter().map(|text| Cell::Text((*text).to_owned())))
            }
            Self::Json(values) => {
                Box::new(values.iter().map(|text| Cell::Json((*text).to_owned())))
            }
        }
    }
}

/// What `row` has in the column `at`.
fn cell(row: &MappedReading, at: u16) -> Option<&Cell> {
    let found = row.cells.binary_search_by_key(&at, |(column, _)| *column).ok()?;
    row.cells.get(found).map(|(_, cell)| cell)
}

/// Which cells are there, a bit each.
fn bits(cells: &[Option<&Cell>]) -> Vec<u8> {
    let byte = |cells: &[Option<&Cell>]| {
        cells.iter().rev().fold(0_u8, |byte, cell| byte << 1 | u8::from(cell.is_some()))
    };
    cells.chunks(8).map(byte).collect()
}

/// A body of records that are all alike, and its version.
///
/// # Errors
/// If bincode fails, which it does not for data of this kind.
pub(super) fn encode(records: &[Record]) -> std::io::Result<(u16, Vec<u8>)> {
    let body = if let Some(Record::Mapped(first)) = records.first() {
        let rows: Vec<&MappedReading> = records.iter().filter_map(Record::mapped).collect();
        variable().serialize(&TableV3::of(&first.table, &rows)).map(|body| (3, body))
    } else {
        let readings: Vec<&Reading> = records.iter().filter_map(Record::built_in).collect();
        variable().serialize(&ColumnsV2::of(&readings)).map(|body| (2, body))
    };
    body.map_err(std::io::Error::other)
}

/// The records in a body; `None` if the version is unknown, or this is no body of it.
pub(super) fn decode(version: u16, raw: &[u8]) -> Option<Vec<Record>> {
    match version {
        1 => bincode::deserialize(raw).ok().and_then(readings_v1),
        2 => variable().deserialize(raw).ok().and_then(ColumnsV2::readings),
        3 => variable().deserialize(raw).ok().and_then(TableV3::rows),
        _ => None,
    }
}

/// bincode's encoding of versions 2 and 3: lengths and steps take as many bytes as they need.
fn variable() -> impl bincode::Options {
    bincode::DefaultOptions::new()
}

/// `None` if a time cannot be.
fn readings_v1(records: Vec<RecordV1>) -> Option<Vec<Record>> {
    let reading = |record: RecordV1| {
        Some(Record::BuiltIn(Reading {
            device_id: record.device_id,
            timestamp: Timestamp::from_micros(record.timestamp_micros)?,
            values: record.values,
        }))
    };
    records.into_iter().map(reading).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(device_id: &str) -> Reading {
        let timestamp = Timestamp::from_millis(1_759_667_696_000).unwrap();
        let device_id = device_id.to_owned();
        Reading { device_id, timestamp, values: [1.0, 65.2, 87.3] }
    }

    #[test]
    fn columns_of_different_lengths_are_no_block() {
        let readings = ["a", "b"].map(reading);
        let readings: Vec<&Reading> = readings.iter().collect();
        let shorten: [fn(&mut ColumnsV2<'_>); 5] = [
            |columns| columns.device_ids.truncate(1),
            |columns| columns.timestamp_steps_micros.truncate(1),
            |columns| columns.values[0].truncate(1),
            |columns| columns.values[1].truncate(1),
            |columns| columns.values[2].truncate(1),
        ];
        for shorten in shorten {
            let mut columns = ColumnsV2::of(&readings);
            shorten(&mut columns);
            assert_eq!(columns.readings(), None);
        }
        let back = ColumnsV2::of(&readings).readings().unwrap();
        assert!(back.iter().zip(readings).all(|(record, reading)| record == reading));
    }

    fn rows() -> Vec<MappedReading> {
        let column = |name: &str, kind| Column { name: name.to_owned(), kind };
        let table = Arc::new(TableShape {
            name: "climate".to_owned(),
            columns: vec![
                column("contact", Kind::Bool),
                column("extra", Kind::Json),
                column("level", Kind::Int),
                column("model", Kind::Text),
                column("never", Kind::Float),
                column("temperature", Kind::Float),
            ],
        });
        let row = |at: i64, cells: Vec<(u16, Cell)>| MappedReading {
            table: Arc::clone(&table),
            device_id: format!("d{at}"),
            timestamp: Timestamp::from_millis(1_759_667_696_000 - at).unwrap(),
            cells,
        };
        (0..10)
            .map(|at| {
                let mut cells = vec![(2, Cell::Int(-at)), (5, Cell::Float(21.5))];
                if at == 9 {
                    cells.insert(0, (0, Cell::Bool(true)));
                    cells.insert(1, (1, Cell::Json("{\"a\":1.50}".to_owned())));
                }
                if at == 3 {
                    cells = vec![(3, Cell::Text("ü".to_owned()))];
                }
                row(at, cells)
            })
            .collect()
    }

    #[test]
    fn rows_of_a_table_read_back_with_the_columns_that_have_a_value() {
        let rows = rows();
        let records: Vec<Record> = rows.iter().cloned().map(Record::from).collect();
        let (version, body) = encode(&records).unwrap();
        assert_eq!(version, 3);
        let back = decode(version, &body).unwrap();
        let json = |record: &Record| serde_json::to_string(record).unwrap();
        assert_eq!(
            back.iter().map(json).collect::<Vec<_>>(),
            records.iter().map(json).collect::<Vec<_>>()
        );
        let names: Vec<_> =
            back[0].mapped().unwrap().table.columns.iter().map(|column| &column.name).collect();
        assert_eq!(names, ["contact", "extra", "level", "model", "temperature"]);
    }

    #[test]
    fn a_table_whose_parts_do_not_fit_is_no_block() {
        let rows = rows();
        let rows: Vec<&MappedReading> = rows.iter().collect();
        let spoil: [fn(&mut TableV3<'_>); 5] = [
            |table| table.device_ids.truncate(1),
            |table| table.timestamp_steps_micros.truncate(1),
            |table| table.columns[0].presence.truncate(1),
            |table| table.columns[0].presence.push(0),
            |table| table.columns[2].values = ValuesV3::Int(vec![1]),
        ];
        for spoil in spoil {
            let mut table = TableV3::of(&rows[0].table, &rows);
            spoil(&mut table);
            assert_eq!(table.rows(), None);
        }
    }
}
