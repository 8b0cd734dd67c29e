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

impl StoredReading {
    /// Its place.
    pub(super) fn cursor(&self) -> Cursor {
        Cursor { ts: self.ts, device_id: self.device_id.clone() }
    }

    pub(super) fn ts(&self) -> Instant {
        self.ts
    }
}

impl FromRow<'_, PgRow> for StoredReading {
    fn from_row(row: &PgRow) -> sqlx::Result<Self> {
        let mut values = Values::default();
        for (at, value) in values.iter_mut().enumerate() {
            *value = row.try_get::<Option<f64>, _>(2 + at)?.unwrap_or(f64::NAN);
        }
        let device_id = row.try_get::<Option<String>, _>(0)?.unwrap_or_default();
        // A null sorts before all others.
        let ts = row.try_get::<Option<Instant>, _>(1)?.unwrap_or(Instant::INFINITY);
        Ok(Self { device_id, timestamp: ts.timestamp(), values, ts })
    }
}
