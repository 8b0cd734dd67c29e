//! What is in a block. The only file that knows bincode.
//!
//! Version 1 is a `Vec<RecordV1>` in bincode's fixed-width encoding, versions 2 and 3 are [`ColumnsV2`]
//! and [`TableV3`] in its variable one. Version 2 is written of readings of the built-in shape, version
//! 3 of rows of one table that mappings fill; all are read. A block of version 3 says itself what the
//! table and its columns are, so that no file is needed to understand it. bincode is positional: all are
//! frozen, a change is a new version beside them.

mod columns;
mod steps;
mod table;
#[cfg(test)]
mod tests;

use bincode::Options as _;
use serde::Deserialize;

use self::columns::{BUILT_IN, ColumnsV2};
use self::table::TableV3;
use crate::base::time::Timestamp;
use crate::telemetry::mapping::MappedReading;
use crate::telemetry::{Reading, Record};
use crate::wal::receipt::Receipt;

/// The newest version; all from 1 to this are read.
pub(super) const VERSION: u16 = 3;

/// Version 1 of a record. Frozen.
#[derive(Deserialize)]
struct RecordV1 {
    device_id: String,
    timestamp_micros: i64,
    /// Temperature, humidity, battery.
    values: [f64; BUILT_IN],
}

/// A body of records that are all alike, and its version. Receipts go with rows of mappings alone.
///
/// # Errors
/// If bincode fails, which it does not for data of this kind.
pub(super) fn encode(records: &[Record], receipts: &[Receipt]) -> std::io::Result<(u16, Vec<u8>)> {
    let body = if let Some(Record::Mapped(first)) = records.first() {
        let rows: Vec<&MappedReading> = records.iter().filter_map(Record::mapped).collect();
        variable().serialize(&TableV3::of(&first.table, &rows, receipts)).map(|body| (3, body))
    } else {
        let readings: Vec<&Reading> = records.iter().filter_map(Record::built_in).collect();
        variable().serialize(&ColumnsV2::of(&readings)).map(|body| (2, body))
    };
    body.map_err(std::io::Error::other)
}

/// The records in a body, and the receipts; `None` if the version is unknown, or this is no body of it.
pub(super) fn decode(version: u16, raw: &[u8]) -> Option<(Vec<Record>, Vec<Receipt>)> {
    let records = match version {
        1 => bincode::deserialize(raw).ok().and_then(readings_v1),
        2 => variable().deserialize(raw).ok().and_then(ColumnsV2::readings),
        3 => {
            let table: TableV3<'_> = variable().deserialize(raw).ok()?;
            let receipts = table.receipts()?;
            return table.rows().map(|rows| (rows, receipts));
        }
        _ => None,
    };
    records.map(|records| (records, Vec::new()))
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
