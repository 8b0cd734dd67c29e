//! Version 3 of a body: rows of one table that mappings fill.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::steps::{steps, times};
use crate::base::time::Timestamp;
use crate::telemetry::Record;
use crate::telemetry::mapping::{Cell, Column, Kind, MappedReading, SilentAfter, TableShape};
use crate::wal::receipt::Receipt;

/// Version 3 of a body: rows of one table. Frozen.
#[derive(Serialize, Deserialize)]
pub(super) struct TableV3<'r> {
    table: &'r str,
    #[serde(borrow)]
    pub(super) device_ids: Vec<&'r str>,
    /// As in version 2.
    pub(super) timestamp_steps_micros: Vec<i64>,
    /// Those that have a value in one row or more.
    #[serde(borrow)]
    pub(super) columns: Vec<ColumnV3<'r>>,
    /// Of the messages whose readings got the time of their arrival.
    receipts: Vec<ReceiptV3>,
}

/// A column of version 3. Frozen.
#[derive(Serialize, Deserialize)]
pub(super) struct ColumnV3<'r> {
    name: &'r str,
    /// A bit a row, from the lowest of the first byte on; empty if every row has a value.
    pub(super) presence: Vec<u8>,
    /// Those that are there.
    #[serde(borrow)]
    pub(super) values: ValuesV3<'r>,
}

/// The values of a column of version 3. Frozen.
#[derive(Serialize, Deserialize)]
pub(super) enum ValuesV3<'r> {
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

impl<'r> TableV3<'r> {
    /// Of rows of one table.
    pub(super) fn of(
        table: &'r TableShape,
        rows: &[&'r MappedReading],
        receipts: &[Receipt],
    ) -> Self {
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
            receipts: receipts.iter().map(ReceiptV3::of).collect(),
        }
    }

    /// `None` if a time cannot be.
    pub(super) fn receipts(&self) -> Option<Vec<Receipt>> {
        self.receipts.iter().map(ReceiptV3::receipt).collect()
    }

    /// `None` if the columns do not belong together, or a time cannot be.
    pub(super) fn rows(self) -> Option<Vec<Record>> {
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
            silent_after: SilentAfter::OfTable,
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

impl ReceiptV3 {
    fn of(receipt: &Receipt) -> Self {
        let Receipt { packet_id, hash, time } = *receipt;
        Self { packet_id, hash, timestamp_micros: time.as_micros() }
    }

    fn receipt(&self) -> Option<Receipt> {
        let Self { packet_id, hash, timestamp_micros } = *self;
        Some(Receipt { packet_id, hash, time: Timestamp::from_micros(timestamp_micros)? })
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
