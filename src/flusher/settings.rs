//! How rows travel to PostgreSQL.

use std::time::Duration;

use crate::base::settings::{Setting, Sources};

/// What can be set here, and what holds if it is not.
pub(crate) const SETTINGS: &[Setting] = &[
    Setting::new("BATCH_SIZE", "2000", "rows per insert"),
    Setting::new("BATCH_TIMEOUT_MS", "50", "longest wait to fill a batch"),
    Setting::new("FLUSH_CONNECTIONS", "2", "batches in flight to PostgreSQL at once"),
];

/// How rows travel to PostgreSQL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Rows an insert.
    pub batch_size: usize,
    /// Longest wait for a batch to fill.
    pub batch_timeout: Duration,
    /// Batches in flight at once.
    pub connections: usize,
}

impl Settings {
    /// Reads them.
    #[must_use]
    pub fn read(from: &mut Sources) -> Self {
        let batch_timeout_ms = from.number("BATCH_TIMEOUT_MS", 50, 0..=60_000);
        Self {
            batch_size: from.number("BATCH_SIZE", 2_000, 1..=100_000),
            batch_timeout: Duration::from_millis(batch_timeout_ms),
            connections: from.number("FLUSH_CONNECTIONS", 2, 1..=64),
        }
    }

    /// Every setting as name and value.
    #[must_use]
    pub(crate) fn describe(&self) -> Vec<(&'static str, String)> {
        vec![
            ("BATCH_SIZE", self.batch_size.to_string()),
            ("BATCH_TIMEOUT_MS", self.batch_timeout.as_millis().to_string()),
            ("FLUSH_CONNECTIONS", self.connections.to_string()),
        ]
    }
}
