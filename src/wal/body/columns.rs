//! Version 2 of a body: readings of the built-in shape.

use serde::{Deserialize, Serialize};

use super::steps::{steps, times};
use crate::base::time::Timestamp;
use crate::telemetry::fields::COUNT;
use crate::telemetry::{Reading, Record};

/// Fields of a reading in versions 1 and 2. Frozen: with other fields there have to be other versions.
pub(super) const BUILT_IN: usize = 3;
const _: () = assert!(BUILT_IN == COUNT);

/// Version 2 of a body: what is alike stands together. Frozen.
#[derive(Serialize, Deserialize)]
pub(super) struct ColumnsV2<'r> {
    #[serde(borrow)]
    pub(super) device_ids: Vec<&'r str>,
    /// Each from the one before it, wrapping; the first from 0.
    pub(super) timestamp_steps_micros: Vec<i64>,
    /// Temperatures, humidities, batteries.
    pub(super) values: [Vec<f64>; BUILT_IN],
}

impl<'r> ColumnsV2<'r> {
    pub(super) fn of(readings: &[&'r Reading]) -> Self {
        Self {
            device_ids: readings.iter().map(|reading| reading.device_id.as_str()).collect(),
            timestamp_steps_micros: steps(readings.iter().map(|reading| reading.timestamp)),
            values: std::array::from_fn(|field| {
                readings.iter().map(|reading| reading.values[field]).collect()
            }),
        }
    }

    /// `None` if the columns do not belong together, or a time cannot be.
    pub(super) fn readings(self) -> Option<Vec<Record>> {
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
