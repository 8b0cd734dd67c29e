//! Which readings are wanted.

use std::sync::Arc;

use crate::base::time::Timestamp;
use crate::telemetry::Record;

/// What names a reading.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Key {
    /// When the device measured.
    pub(crate) timestamp: Timestamp,
    /// Whose it is.
    pub(crate) device_id: Arc<str>,
}

/// Which readings, and how many; all that is set must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ask {
    /// Of this table.
    pub(crate) table: String,
    /// Of this device alone.
    pub(crate) device_id: Option<String>,
    /// Not measured before.
    pub(crate) start: Option<Timestamp>,
    /// Not measured after.
    pub(crate) end: Option<Timestamp>,
    /// Behind this place in "newest first", in microseconds since the Unix epoch and by device. It bounds
    /// what is returned, and not what is counted.
    pub(crate) behind: Option<(i64, String)>,
    /// How many of the newest are returned.
    pub(crate) wanted: usize,
    /// How many are counted.
    pub(crate) counted: usize,
}

impl Ask {
    /// Whether `record`, of the table, is to be counted.
    pub(super) fn matches(&self, record: &Record) -> bool {
        let at = record.timestamp();
        self.start.is_none_or(|start| at >= start)
            && self.end.is_none_or(|end| at <= end)
            && self.device_id.as_ref().is_none_or(|id| id == record.device_id())
    }

    /// Whether every record of the table matches.
    pub(super) fn is_whole(&self) -> bool {
        self.device_id.is_none() && self.start.is_none() && self.end.is_none()
    }

    /// Whether a reading of that time and device may be returned.
    #[must_use]
    pub(crate) fn is_behind(&self, at: Timestamp, device_id: &str) -> bool {
        let behind = self.behind.as_ref();
        behind.is_none_or(|(micros, id)| (at.as_micros(), device_id) < (*micros, id.as_str()))
    }

    /// Whether one of the times from `oldest` to `newest` is asked for.
    pub(super) fn overlaps(&self, oldest: Timestamp, newest: Timestamp) -> bool {
        self.start.is_none_or(|start| newest >= start) && self.end.is_none_or(|end| oldest <= end)
    }
}
