//! Readings that are told apart by their number, and their comparison with the table.

use std::collections::HashMap;
use std::ops::Range;

use chrono::{DateTime, SecondsFormat};

use super::{PATIENCE, Postgres, try_within};

/// 2025-06-01T00:00:00Z, in microseconds.
const BEGINNING: i64 = 1_748_736_000_000_000;

const DEVICES: u64 = 100;

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Reading {
    pub(crate) device_id: String,
    /// Since the Unix epoch.
    pub(crate) micros: i64,
    pub(crate) temperature: f64,
    pub(crate) humidity: f64,
    pub(crate) battery: f64,
}

impl Reading {
    pub(crate) fn topic(&self) -> String {
        format!("telemetry/{}", self.device_id)
    }

    /// RFC 3339 in UTC.
    pub(crate) fn timestamp(&self) -> String {
        let at = DateTime::from_timestamp_micros(self.micros).unwrap();
        at.to_rfc3339_opts(SecondsFormat::Micros, true)
    }

    pub(crate) fn payload(&self) -> String {
        let Self { device_id, temperature, humidity, battery, .. } = self;
        let timestamp = self.timestamp();
        format!(
            r#"{{"device_id":"{device_id}","timestamp":"{timestamp}","temperature":{temperature},"humidity":{humidity},"battery":{battery}}}"#
        )
    }
}

/// The reading of this number: no other has its device and time, and its values use every digit.
pub(crate) fn reading(number: u64) -> Reading {
    Reading {
        device_id: format!("device-{:03}", number % DEVICES),
        micros: BEGINNING + i64::try_from(number).unwrap(),
        temperature: spread(number * 3, -50.0, 100.0),
        humidity: spread(number * 3 + 1, 0.0, 100.0),
        battery: spread(number * 3 + 2, 0.0, 100.0),
    }
}

pub(crate) fn readings(numbers: Range<u64>) -> Vec<Reading> {
    numbers.map(reading).collect()
}

/// The message that is an array of these.
pub(crate) fn array(readings: &[Reading]) -> String {
    let elements: Vec<_> = readings.iter().map(Reading::payload).collect();
    format!("[{}]", elements.join(","))
}

/// Scatters numbers evenly (splitmix64).
#[expect(clippy::cast_precision_loss, reason = "the upper 53 bits fit")]
fn spread(number: u64, min: f64, max: f64) -> f64 {
    let mut z = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    min + ((z ^ z >> 31) >> 11) as f64 / (1_u64 << 53) as f64 * (max - min)
}

impl Postgres {
    /// Waits until the table has as many rows as `expected`, and compares: nothing is missing,
    /// nothing is there twice, and every value is right to the last bit.
    #[track_caller]
    pub(crate) fn await_exactly(&self, expected: &[Reading]) {
        self.await_rows(expected.len());
        self.assert_exactly(expected);
    }

    /// Waits until the table has that many rows, and no more.
    #[track_caller]
    pub(crate) fn await_count(&self, rows: usize) {
        self.await_rows(rows);
        assert_eq!(self.count(), rows);
    }

    /// Waits for `rows`, for as long as there come more.
    fn await_rows(&self, rows: usize) {
        let mut seen = self.count();
        while seen < rows {
            let more = || Some(self.count()).filter(|count| *count > seen);
            match try_within(PATIENCE, more) {
                Some(count) => seen = count,
                None => return,
            }
        }
    }

    /// As [`Self::await_exactly`], without waiting.
    #[track_caller]
    pub(crate) fn assert_exactly(&self, expected: &[Reading]) {
        let rows = self.readings();
        let mut by_key: HashMap<_, &Reading> = expected
            .iter()
            .map(|reading| ((&reading.device_id, reading.micros), reading))
            .collect();
        assert_eq!(by_key.len(), expected.len(), "the test expects a reading twice");
        let mut twice_or_unknown = Vec::new();
        let mut wrong = Vec::new();
        for row in &rows {
            match by_key.remove(&(&row.device_id, row.micros)) {
                None => twice_or_unknown.push(row),
                Some(reading) if reading != row => wrong.push((reading, row)),
                Some(_) => {}
            }
        }
        let mut missing: Vec<_> = by_key.into_values().collect();
        missing.sort_by_key(|reading| reading.micros);
        assert!(
            missing.is_empty() && twice_or_unknown.is_empty() && wrong.is_empty(),
            "expected {} rows, the table has {}; {} are missing: {:?}; {} are there twice or were \
             never published: {:?}; {} differ (published, stored): {:?}",
            expected.len(),
            rows.len(),
            missing.len(),
            few(&missing),
            twice_or_unknown.len(),
            few(&twice_or_unknown),
            wrong.len(),
            few(&wrong),
        );
    }
}

fn few<T>(all: &[T]) -> &[T] {
    &all[..all.len().min(3)]
}
