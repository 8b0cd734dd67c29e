//! The state of the whole at one moment: the value that `/api/v1/status` serves.
//!
//! Nothing here waits for the disk, the broker or the database: it answers best when they do not.

use std::time::Duration;

use serde::Serialize;
use utoipa::ToSchema;

use super::health::{Health, WalState};
use super::history::{self, History};
use crate::base::metrics::Metrics;
use crate::base::time::Timestamp;
use crate::flusher::{self, Control};
use crate::telemetry::validate::TimeOfDay;
use crate::wal::{self, Room};

/// What "now" means in a rate.
pub(super) const SHORT: Duration = Duration::from_secs(10);
const MINUTE: Duration = Duration::from_secs(60);
const LONG: Duration = Duration::from_secs(5 * 60);

/// The state of the whole service.
#[derive(Serialize, ToSchema)]
#[schema(as = Status)]
pub(crate) struct Snapshot {
    /// What is happening, in a sentence or two.
    #[schema(
        example = "Database unreachable for 12 min. 143,200 readings are safe in the log, room for 31 h at this rate."
    )]
    pub(super) summary: String,
    /// How urgent that is.
    pub(super) level: Level,
    /// Whether `/health/ready` answers 200.
    pub(super) ready: bool,
    /// Which of several ingestors answers: its `MQTT_CLIENT_ID`.
    #[schema(example = "iot-ingestor-box-1")]
    pub(super) instance: String,
    /// The version of the service.
    #[schema(example = "0.1.0")]
    pub(super) version: &'static str,
    /// Seconds since the process started.
    #[schema(example = 86_400.0)]
    pub(super) uptime_seconds: f64,
    /// The wall clock of the machine.
    #[schema(value_type = String, format = DateTime, example = "2025-10-05T12:34:56Z")]
    pub(super) now: Timestamp,
    /// Whether that clock is plausible: it is not before the program was built.
    #[schema(example = true)]
    pub(super) clock_is_set: bool,
    pub(super) broker: Broker,
    pub(super) log: Log,
    pub(super) database: Database,
    /// The state of the flusher, which writes the log to the database: `idle`, `flushing`,
    /// `backing_off` or `paused`.
    #[schema(value_type = String, pattern = "^(idle|flushing|backing_off|paused)$", example = "flushing")]
    pub(super) flusher: flusher::State,
    pub(super) rates: Rates,
    pub(super) latency: Latencies,
    /// Records that wait in the log.
    #[schema(example = 143_200)]
    pub(super) pending_records: u64,
    /// Seconds that the oldest of them has waited; 0 if none waits.
    #[schema(example = 720.0)]
    pub(super) oldest_pending_seconds: f64,
    pub(super) disk: Disk,
    /// Records per second by which the log grows; negative while it drains.
    #[schema(example = 200.0)]
    pub(super) net_records_per_second: f64,
    /// Seconds until the log is full at this rate; null unless it grows.
    #[schema(required, example = 111_600.0)]
    pub(super) full_in_seconds: Option<f64>,
    /// Seconds until nothing waits any more at this rate; null unless the log drains.
    #[schema(required, example = json!(null))]
    pub(super) drained_in_seconds: Option<f64>,
    /// Dead letters in the store.
    #[schema(example = 3)]
    pub(super) dead_letters: u64,
    /// Whether an admin token is configured.
    #[schema(example = true)]
    pub(super) admin_enabled: bool,
}

/// The connection to the broker.
#[derive(Serialize, ToSchema)]
pub(super) struct Broker {
    /// `connected`; `unsubscribed`: connected, but the broker has not granted every topic filter;
    /// `disconnected`.
    #[schema(pattern = "^(connected|unsubscribed|disconnected)$", example = "connected")]
    pub(super) state: &'static str,
    /// Topic filters that the broker has not granted, while it is connected.
    pub(super) missing_filters: Vec<String>,
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

/// Whom a snapshot is taken of.
pub(crate) struct Parts<'p> {
    pub(crate) health: &'p Health,
    pub(crate) history: &'p History,
    pub(crate) log: &'p wal::Log,
    pub(crate) flusher: &'p Control,
    pub(crate) metrics: &'p Metrics,
    /// Which of several ingestors this is.
    pub(crate) instance: &'p str,
    /// What keeps the database from keeping what it confirms.
    pub(crate) findings: &'p [&'static str],
    /// Whether there is a token for `/admin`.
    pub(crate) admin_enabled: bool,
}

impl Snapshot {
    /// Takes it; what to say of it in words is left open.
    pub(super) fn take(parts: &Parts<'_>) -> Self {
        let Parts { health, history, log, flusher, metrics, .. } = *parts;
        let Parts { instance, findings, admin_enabled, .. } = *parts;
        let (report, ages) = (health.report(), health.ages());
        let (waiting, flushing) = (log.stats(), flusher.status());
        let now = Timestamp::now();
        let space = history.space(log);
        let is_up = health.is_database_up();
        let trend = history.trend(space, (!is_up).then_some(ages.database));
        let reason = match &*log.room().borrow() {
            Room::Full(reason) => Some(reason.clone()),
            Room::Open => None,
        };
        Self {
            summary: String::new(),
            level: Level::Ok,
            ready: report.is_ready(),
            instance: instance.to_owned(),
            version: env!("CARGO_PKG_VERSION"),
            uptime_seconds: history.uptime().as_secs_f64(),
            now,
            clock_is_set: TimeOfDay::at(now).is_plausible(),
            broker: Broker {
                state: report.mqtt,
                missing_filters: health.missing_filters(),
                since: Since::of(now, ages.mqtt),
                last_message_seconds: history.last_message().map(|age| age.as_secs_f64()),
                qos0_messages: metrics.qos0_messages.get(),
            },
            log: Log { state: report.wal, since: Since::of(now, ages.wal), reason },
            database: Database {
                state: report.database,
                since: Since::of(now, ages.database),
                problem: (!is_up).then_some(if flushing.is_refused {
                    "refusing"
                } else {
                    "unreachable"
                }),
                resending_records: flushing.resending,
                warnings: findings.to_vec(),
            },
            flusher: flushing.state,
            rates: Rates {
                over_10_s: history.rates(SHORT).into(),
                over_5_min: history.rates(LONG).into(),
            },
            latency: Latencies {
                commit: history.commits(MINUTE).into(),
                end_to_end: history.ends_to_end(MINUTE).into(),
            },
            pending_records: waiting.pending_records,
            oldest_pending_seconds: log.oldest_pending_seconds(),
            disk: Disk {
                used_bytes: space.used_bytes,
                max_bytes: space.max_bytes,
                free_bytes: space.free_bytes,
                left_bytes: space.left_bytes(),
            },
            net_records_per_second: trend.net_records_per_second,
            full_in_seconds: trend.full_in,
            drained_in_seconds: trend.drained_in,
            dead_letters: metrics.dead_letters.get().unsigned_abs(),
            admin_enabled,
        }
    }
}
