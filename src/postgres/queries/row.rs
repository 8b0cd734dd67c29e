//! A row of the table, whoever has put it in, and whatever the types of its columns.

use std::cmp::Ordering;

use sqlx::postgres::PgRow;
use sqlx::{FromRow, Row as _};

use super::cursor::Cursor;
use crate::base::time::Timestamp;
use crate::postgres::instant::Instant;
use crate::telemetry::fields::{COUNT, Values};

/// A reading as the table has it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct StoredReading {
    /// Empty if the row has none, as only another application's can.
    pub(crate) device_id: String,
    /// When the device measured; `None` if that cannot be said in RFC 3339.
    pub(crate) timestamp: Option<Timestamp>,
    /// What it measured.
    pub(crate) values: StoredValues,
    ts: Instant,
}

/// What a row has beside device and time.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum StoredValues {
    /// The fields of the built-in shape; NaN where the row has nothing.
    Fields(Values),
    /// All of its columns, as a JSON object.
    Row(String),
}

/// How many columns are selected where the last one is the whole row.
const WHOLE_ROW: usize = 3;
const _: () = assert!(2 + COUNT != WHOLE_ROW);

impl StoredReading {
    /// Why there is no timestamp.
    #[must_use]
    pub(crate) fn note(&self) -> Option<&'static str> {
        self.timestamp.is_none().then_some(match self.ts {
            Instant::INFINITY => "the row's time is infinity",
            Instant::MINUS_INFINITY => "the row's time is -infinity",
            _ => "the row's time lies outside the years 0 to 9999",
        })
    }
}

impl StoredReading {
    /// As the table will have it.
    #[must_use]
    pub(crate) fn of_log(device_id: String, timestamp: Timestamp, values: StoredValues) -> Self {
        Self { device_id, timestamp: Some(timestamp), values, ts: timestamp.into() }
    }

    /// The newest come last, and those of one moment by device.
    #[must_use]
    pub(crate) fn compare(&self, timestamp: Timestamp, device_id: &str) -> Ordering {
        self.ts.cmp(&timestamp.into()).then_with(|| self.device_id.as_str().cmp(device_id))
    }

    /// Its place.
    #[must_use]
    pub(crate) fn cursor(&self) -> Cursor {
        Cursor { ts: self.ts, device_id: self.device_id.clone() }
    }

    /// About what it takes of memory.
    pub(super) fn bytes(&self) -> usize {
        let row = match &self.values {
            StoredValues::Fields(_) => 0,
            StoredValues::Row(text) => text.len(),
        };
        size_of::<Self>() + self.device_id.len() + row
    }

    pub(super) fn ts(&self) -> Instant {
        self.ts
    }
}

impl FromRow<'_, PgRow> for StoredReading {
    fn from_row(row: &PgRow) -> sqlx::Result<Self> {
        let values = if row.len() == WHOLE_ROW {
            StoredValues::Row(row.try_get(WHOLE_ROW - 1)?)
        } else {
            let mut values = Values::default();
            for (at, value) in values.iter_mut().enumerate() {
                *value = row.try_get::<Option<f64>, _>(2 + at)?.unwrap_or(f64::NAN);
            }
            StoredValues::Fields(values)
        };
        let device_id = row.try_get::<Option<String>, _>(0)?.unwrap_or_default();
        // A null sorts before all others.
        let ts = row.try_get::<Option<Instant>, _>(1)?.unwrap_or(Instant::INFINITY);
        Ok(Self { device_id, timestamp: ts.timestamp(), values, ts })
    }
}
