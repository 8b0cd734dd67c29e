//! A row of the table, whoever has put it in, and whatever the types of its columns.

use std::fmt::Write as _;

use sqlx::postgres::PgRow;
use sqlx::{FromRow, Row as _};

use super::cursor::Cursor;
use crate::base::time::Timestamp;
use crate::postgres::instant::Instant;
use crate::postgres::table::COLUMNS;
use crate::telemetry::fields::Values;

/// A reading as the table has it.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredReading {
    /// Empty if the row has none, as only another application's can.
    pub device_id: String,
    /// When the device measured; `None` if that cannot be said in RFC 3339.
    pub timestamp: Option<Timestamp>,
    /// What it measured; NaN where the row has nothing.
    pub values: Values,
    ts: Instant,
}

impl StoredReading {
    /// Why there is no timestamp.
    #[must_use]
    pub fn note(&self) -> Option<&'static str> {
        self.timestamp.is_none().then_some(match self.ts {
            Instant::INFINITY => "the row's time is infinity",
            Instant::MINUS_INFINITY => "the row's time is -infinity",
            _ => "the row's time lies outside the years 0 to 9999",
        })
    }
}

/// The columns of a reading, in the order of [`COLUMNS`], as the types that are read here. Where a
/// column is of its type already this costs nothing.
pub(super) fn columns() -> String {
    let mut list = format!("{}::text, {}::timestamptz", COLUMNS[0], COLUMNS[1]);
    for column in &COLUMNS[2..] {
        write!(list, ", {column}::float8").ok();
    }
    list
}

/// A row with its place.
pub(super) struct TelemetryRow {
    id: i64,
    pub(super) reading: StoredReading,
}

impl TelemetryRow {
    pub(super) fn cursor(&self) -> Cursor {
        Cursor { ts: self.reading.ts, id: self.id }
    }
}

impl FromRow<'_, PgRow> for TelemetryRow {
    fn from_row(row: &PgRow) -> sqlx::Result<Self> {
        Ok(Self { id: row.try_get(0)?, reading: reading(row)? })
    }
}

/// A total, and a reading, which is null if the page is empty.
pub(super) struct DeviceRow {
    pub(super) total: i64,
    pub(super) reading: Option<StoredReading>,
}

impl FromRow<'_, PgRow> for DeviceRow {
    fn from_row(row: &PgRow) -> sqlx::Result<Self> {
        let is_there = row.try_get::<Option<String>, _>(1)?.is_some();
        let reading = is_there.then(|| reading(row)).transpose()?;
        Ok(Self { total: row.try_get(0)?, reading })
    }
}

/// The reading that stands in all columns but the first.
fn reading(row: &PgRow) -> sqlx::Result<StoredReading> {
    let mut values = Values::default();
    for (at, value) in values.iter_mut().enumerate() {
        *value = row.try_get::<Option<f64>, _>(3 + at)?.unwrap_or(f64::NAN);
    }
    let device_id = row.try_get::<Option<String>, _>(1)?.unwrap_or_default();
    // A null sorts before all others.
    let ts = row.try_get::<Option<Instant>, _>(2)?.unwrap_or(Instant::INFINITY);
    Ok(StoredReading { device_id, timestamp: ts.timestamp(), values, ts })
}
