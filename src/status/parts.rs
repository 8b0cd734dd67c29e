//! The parts of a [`Snapshot`](super::Snapshot), as they are served.

use std::time::Duration;

use serde::Serialize;
use utoipa::ToSchema;

use super::health::WalState;
use super::history;
use crate::base::time::Timestamp;

/// The connection to the broker.
#[derive(Serialize, ToSchema)]
pub(super) struct Broker {
    /// `connected`; `unsubscribed`: connected, but the broker has not granted every topic filter;
    /// `disconnected`.
    #[schema(pattern = "^(connected|unsubscribed|disconnected)$", example = "connected")]
    pub(super) state: &'static str,
    /// Topic filters that the broker has not granted, while it is connected.
    pub(super) missing_filters: Vec<String>,
    /// Why the service stays away from the broker by itself; null if it does not.
    #[schema(value_type = Option<String>, required, example = json!(null))]
    pub(super) reason: Option<&'static str>,
    #[serde(flatten)]
    pub(super) since: Since,
    /// Seconds since the last message came in; null if none has since the start.
    #[schema(required, example = 0.4)]
    pub(super) last_message_seconds: Option<f64>,
    /// Messages since the start that came with QoS 0: they are stored like all others, but one that is
    /// lost on the way is not sent again.
    #[schema(example = 0)]
    pub(super) qos0_messages: u64,
}

/// The write-ahead log, in which readings are durable before they are acknowledged.
#[derive(Serialize, ToSchema)]
#[schema(as = LogState)]
pub(super) struct Log {
    /// `ok`; `full`: no writes until there is room again; `failed`: a commit failed, and the process is
    /// about to end.
    #[schema(value_type = String, pattern = "^(ok|full|failed)$", example = "ok")]
    pub(super) state: WalState,
    #[serde(flatten)]
    pub(super) since: Since,
    /// Why the log is full; null if it is not.
    #[schema(required, example = json!(null))]
    pub(super) reason: Option<String>,
}

/// The database, as the flusher last found it.
#[derive(Serialize, ToSchema)]
#[schema(as = DatabaseState)]
pub(super) struct Database {
    /// `up` or `down`.
    #[schema(pattern = "^(up|down)$", example = "down")]
    pub(super) state: &'static str,
    #[serde(flatten)]
    pub(super) since: Since,
    /// `unreachable`: the database does not answer; `refusing`: it answers, and a login, a permission or
    /// the schema must be repaired; null while it is up. The reason is in the log output of the service
    /// and in `/admin/wal`.
    #[schema(required, pattern = "^(unreachable|refusing)$", example = "unreachable")]
    pub(super) problem: Option<&'static str>,
    /// Records that it had stored and that are yet to arrive again, since it went back in time.
    #[schema(example = 0)]
    pub(super) resending_records: u64,
    /// Settings and properties of the database because of which it may lose rows that it has confirmed,
    /// each with what to do about it.
    #[schema(value_type = Vec<String>)]
    pub(super) warnings: Vec<&'static str>,
}

/// Since when a part has been in its state.
#[derive(Serialize, ToSchema)]
pub(super) struct Since {
    /// When the state began, in UTC.
    #[schema(value_type = String, format = DateTime, example = "2025-10-05T12:22:56Z")]
    pub(super) since: Timestamp,
    /// Seconds since then.
    #[schema(example = 720.0)]
    pub(super) for_seconds: f64,
}

impl Since {
    pub(super) fn of(now: Timestamp, age: Duration) -> Self {
        let micros = i64::try_from(age.as_micros()).unwrap_or(i64::MAX);
        let since = Timestamp::from_micros(now.as_micros().saturating_sub(micros));
        Self { since: since.unwrap_or(now), for_seconds: age.as_secs_f64() }
    }
}

/// Rates, per second.
#[derive(Serialize, ToSchema)]
pub(super) struct Rates {
    pub(super) over_10_s: Flow,
    pub(super) over_5_min: Flow,
}

/// Rates per second, over a period or since the start if that is shorter.
#[derive(Serialize, ToSchema)]
pub(super) struct Flow {
    /// MQTT messages received per second.
    #[schema(example = 200.0)]
    pub(super) messages: f64,
    /// Readings accepted into the log per second.
    #[schema(example = 200.0)]
    pub(super) readings: f64,
    /// Readings rejected per second.
    #[schema(example = 0.0)]
    pub(super) rejected: f64,
    /// Rows written to the database per second.
    #[schema(example = 0.0)]
    pub(super) rows: f64,
}

impl From<history::Rates> for Flow {
    fn from(rates: history::Rates) -> Self {
        let history::Rates { messages, readings, rejected, rows } = rates;
        Self { messages, readings, rejected, rows }
    }
}

/// Latencies of the last minute.
#[derive(Serialize, ToSchema)]
pub(super) struct Latencies {
    /// The duration of one commit of the log.
    pub(super) commit: Quantiles,
    /// The time from the receipt of a message to its rows in the database.
    pub(super) end_to_end: Quantiles,
}

/// The median and the 99th percentile, in seconds; null if there was nothing to measure.
#[derive(Serialize, ToSchema)]
pub(super) struct Quantiles {
    #[schema(required, example = 0.002)]
    pub(super) p50_seconds: Option<f64>,
    #[schema(required, example = 0.007)]
    pub(super) p99_seconds: Option<f64>,
}

impl From<history::Quantiles> for Quantiles {
    fn from(quantiles: history::Quantiles) -> Self {
        Self { p50_seconds: quantiles.p50, p99_seconds: quantiles.p99 }
    }
}

/// The disk space of the log.
#[derive(Serialize, ToSchema)]
#[expect(clippy::struct_field_names, reason = "their unit belongs to their names")]
pub(super) struct Disk {
    /// Bytes that the log takes.
    #[schema(example = 28_000_000)]
    pub(super) used_bytes: u64,
    /// Bytes at which the log counts as full.
    #[schema(example = 1_073_741_824)]
    pub(super) max_bytes: u64,
    /// Free bytes of its filesystem, as of a second ago.
    #[schema(example = 52_000_000_000_u64)]
    pub(super) free_bytes: u64,
    /// Bytes by which the log may still grow, whichever limit comes first.
    #[schema(example = 1_045_741_824)]
    pub(super) left_bytes: u64,
}

/// `ok`: nothing has to be done. `warning`: nothing is lost, and somebody should look. `critical`: readings
/// do not come in, or soon will not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = Level)]
pub(super) enum Level {
    Ok,
    Warning,
    Critical,
}
