//! What is in a block. The only file that knows bincode.
//!
//! Version 1 is a `Vec<RecordV1>` in bincode's fixed-width encoding, version 2 is [`ColumnsV2`] in
//! its variable one. Version 2 is written, both are read. bincode is positional: both are frozen, a
//! change is a new version beside them.

use bincode::Options as _;
use serde::{Deserialize, Serialize};

use crate::base::time::Timestamp;
use crate::telemetry::Reading;
use crate::telemetry::fields::COUNT;

/// The version that is written; all from 1 to this are read.
pub(super) const VERSION: u16 = 2;

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

impl<'r> ColumnsV2<'r> {
    fn of(readings: &'r [Reading]) -> Self {
        let mut before = 0;
        let step = |reading: &Reading| {
            let now = reading.timestamp.as_micros();
            now.wrapping_sub(std::mem::replace(&mut before, now))
        };
        Self {
            device_ids: readings.iter().map(|reading| reading.device_id.as_str()).collect(),
            timestamp_steps_micros: readings.iter().map(step).collect(),
            values: std::array::from_fn(|field| {
                readings.iter().map(|reading| reading.values[field]).collect()
            }),
        }
    }

    /// `None` if the columns do not belong together, or a time cannot be.
    fn readings(self) -> Option<Vec<Reading>> {
        let count = self.device_ids.len();
        if self.timestamp_steps_micros.len() != count
            || self.values.iter().any(|column| column.len() != count)
        {
            return None;
        }
        let mut micros = 0_i64;
        let reading = |(at, device_id): (usize, &str)| {
            micros = micros.wrapping_add(self.timestamp_steps_micros[at]);
            Some(Reading {
                device_id: device_id.to_owned(),
                timestamp: Timestamp::from_micros(micros)?,
                values: std::array::from_fn(|field| self.values[field][at]),
            })
        };
        self.device_ids.iter().copied().enumerate().map(reading).collect()
    }
}

/// A body of [`VERSION`].
///
/// # Errors
/// If bincode fails, which it does not for data of this kind.
pub(super) fn encode(readings: &[Reading]) -> std::io::Result<Vec<u8>> {
    variable().serialize(&ColumnsV2::of(readings)).map_err(std::io::Error::other)
}

/// The readings in a body; `None` if the version is unknown, or this is no body of it.
pub(super) fn decode(version: u16, raw: &[u8]) -> Option<Vec<Reading>> {
    match version {
        1 => bincode::deserialize(raw).ok().and_then(readings_v1),
        2 => variable().deserialize(raw).ok().and_then(ColumnsV2::readings),
        _ => None,
    }
}

/// bincode's encoding of version 2: lengths and steps take as many bytes as they need.
fn variable() -> impl bincode::Options {
    bincode::DefaultOptions::new()
}

/// `None` if a time cannot be.
fn readings_v1(records: Vec<RecordV1>) -> Option<Vec<Reading>> {
    let reading = |record: RecordV1| {
        Some(Reading {
            device_id: record.device_id,
            timestamp: Timestamp::from_micros(record.timestamp_micros)?,
            values: record.values,
        })
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
        assert_eq!(ColumnsV2::of(&readings).readings().as_deref(), Some(&readings[..]));
    }
}
