//! What is counted and measured at one moment, and what happened between two of them.

use std::time::Duration;

use crate::base::metrics::{Distribution, Metrics};
use crate::wal::Log;

/// Counters and gauges at one moment.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    /// Since the start of the process.
    pub(super) at: Duration,
    /// MQTT messages received.
    pub(super) messages: u64,
    /// Readings accepted into the log.
    pub(super) readings: u64,
    /// Readings rejected.
    pub(super) rejected: u64,
    /// Rows that the database took, those that it had already included.
    pub(super) rows: u64,
    /// Records that wait in the log.
    pub(super) pending: u64,
    /// Bytes of the log on disk.
    pub(super) disk_bytes: u64,
    /// How long commits took.
    pub(super) commits: Distribution,
    /// How long it took from receipt to the database.
    pub(super) ends_to_end: Distribution,
}

impl Sample {
    pub(super) fn take(at: Duration, metrics: &Metrics, log: &Log) -> Self {
        let stats = log.stats();
        Self {
            at,
            messages: metrics.messages.get(),
            readings: metrics.valid_messages.get(),
            rejected: metrics.invalid_messages.get(),
            rows: metrics.db_inserts.get() + metrics.duplicates.get(),
            pending: stats.pending_records,
            disk_bytes: stats.disk_bytes,
            commits: metrics.commits(),
            ends_to_end: metrics.ends_to_end(),
        }
    }
}

/// How much came and went, a second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Rates {
    /// MQTT messages received.
    pub(crate) messages: f64,
    /// Readings accepted into the log.
    pub(crate) readings: f64,
    /// Readings rejected.
    pub(crate) rejected: f64,
    /// Rows that the database took.
    pub(crate) rows: f64,
}

/// How long things took: half of them, and all but one in a hundred. `None` if there were none.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Quantiles {
    /// Seconds.
    pub(crate) p50: Option<f64>,
    /// Seconds.
    pub(crate) p99: Option<f64>,
}

/// Two samples, and what happened between them.
pub(super) struct Window<'s> {
    pub(super) from: &'s Sample,
    pub(super) to: &'s Sample,
}

impl Window<'_> {
    pub(super) fn seconds(&self) -> f64 {
        self.to.at.saturating_sub(self.from.at).as_secs_f64()
    }

    #[expect(clippy::cast_precision_loss, reason = "a rate for a person")]
    pub(super) fn rate(&self, count: impl Fn(&Sample) -> u64) -> f64 {
        let seconds = self.seconds();
        let more = count(self.to).saturating_sub(count(self.from));
        if seconds > 0.0 { more as f64 / seconds } else { 0.0 }
    }

    pub(super) fn rates(&self) -> Rates {
        Rates {
            messages: self.rate(|s| s.messages),
            readings: self.rate(|s| s.readings),
            rejected: self.rate(|s| s.rejected),
            rows: self.rate(|s| s.rows),
        }
    }

    pub(super) fn quantiles(&self, distribution: impl Fn(&Sample) -> &Distribution) -> Quantiles {
        let quantile = |q| distribution(self.to).quantile_since(distribution(self.from), q);
        Quantiles { p50: quantile(0.5), p99: quantile(0.99) }
    }
}
