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

/// The state of the whole.
#[derive(Serialize, ToSchema)]
#[schema(as = Status)]
pub(crate) struct Snapshot {
    /// What is happening, in a sentence or two.
    #[schema(
        example = "Database unreachable for 12 min. 143,200 readings are safe in the log, room for 31 h at this rate."
    )]
    pub(super) summary: String,
    /// How much that matters.
    pub(super) level: Level,
    /// As `/health/ready` has it.
    pub(super) ready: bool,
    #[schema(example = "0.1.0")]
    pub(super) version: &'static str,
    #[schema(example = 86_400.0)]
    pub(super) uptime_seconds: f64,
    /// The box's clock.
    #[schema(value_type = String, format = DateTime, example = "2025-10-05T12:34:56Z")]
    pub(super) now: Timestamp,
    /// Whether that can be right: not before the program was built, as on a box that starts in 1970.
    #[schema(example = true)]
    pub(super) clock_is_set: bool,
    pub(super) broker: Broker,
    pub(super) log: Log,
    pub(super) database: Database,
    /// What the flow into the database is doing: `idle`, `flushing`, `backing_off` or `paused`.
    #[schema(value_type = String, pattern = "^(idle|flushing|backing_off|paused)$", example = "flushing")]
    pub(super) flusher: flusher::State,
    pub(super) rates: Rates,
    pub(super) latency: Latencies,
    /// Records that wait in the log.
    #[schema(example = 143_200)]
    pub(super) pending_records: u64,
    /// How long the oldest of them has; 0 without any.
    #[schema(example = 720.0)]
    pub(super) oldest_pending_seconds: f64,
    pub(super) disk: Disk,
    /// Records that come in more than go out, a second; negative if the log drains.
    #[schema(example = 200.0)]
    pub(super) net_records_per_second: f64,
    /// How long the disk lasts if it goes on like this; null unless the log fills.
    #[schema(required, example = 111_600.0)]
    pub(super) full_in_seconds: Option<f64>,
    /// How long until nothing waits any more; null unless the log drains.
    #[schema(required, example = json!(null))]
    pub(super) drained_in_seconds: Option<f64>,
    /// Rejected messages that are kept.
    #[schema(example = 3)]
    pub(super) dead_letters: u64,
    /// Whether there is a token for `/admin`.
    #[schema(example = true)]
    pub(super) admin_enabled: bool,
}

/// The broker, as seen from here.
#[derive(Serialize, ToSchema)]
pub(super) struct Broker {
    /// `connected`; `unsubscribed`: connected, but the broker has not granted a filter; `disconnected`.
    #[schema(pattern = "^(connected|unsubscribed|disconnected)$", example = "connected")]
    pub(super) state: &'static str,
    /// Filters that the broker has not granted, while it is connected.
    pub(super) missing_filters: Vec<String>,
    #[serde(flatten)]
    pub(super) since: Since,
    /// How long ago the last message came in; null if none has since the start.
    #[schema(required, example = 0.4)]
    pub(super) last_message_seconds: Option<f64>,
}

/// The log, which is what makes readings safe.
#[derive(Serialize, ToSchema)]
#[schema(as = LogState)]
pub(super) struct Log {
    /// `ok`, `full`: not until there is room again, `failed`: the process is about to end.
    #[schema(value_type = String, pattern = "^(ok|full|failed)$", example = "ok")]
    pub(super) state: WalState,
    #[serde(flatten)]
    pub(super) since: Since,
    /// Why it is full; null if it is not.
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
    /// While it is down: `unreachable`, or `refusing`: it answers, and somebody has to mend a login, a
    /// right or the schema. Else null. The reason is in the service's log and in `/admin/wal`.
    #[schema(required, pattern = "^(unreachable|refusing)$", example = "unreachable")]
    pub(super) problem: Option<&'static str>,
    /// What keeps it from keeping what it confirms, each with what mends it.
    #[schema(value_type = Vec<String>)]
    pub(super) warnings: Vec<&'static str>,
}

/// Since when something is as it is.
#[derive(Serialize, ToSchema)]
pub(super) struct Since {
    #[schema(value_type = String, format = DateTime, example = "2025-10-05T12:22:56Z")]
    pub(super) since: Timestamp,
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

/// How much came and went, a second.
#[derive(Serialize, ToSchema)]
pub(super) struct Rates {
    pub(super) over_10_s: Flow,
    pub(super) over_5_min: Flow,
}

/// How much came and went, a second, over a time or since the start if that is shorter.
#[derive(Serialize, ToSchema)]
pub(super) struct Flow {
    /// MQTT messages received.
    #[schema(example = 200.0)]
    pub(super) messages: f64,
    /// Readings accepted into the log.
    #[schema(example = 200.0)]
    pub(super) readings: f64,
    /// Readings rejected.
    #[schema(example = 0.0)]
    pub(super) rejected: f64,
    /// Rows that the database took.
    #[schema(example = 0.0)]
    pub(super) rows: f64,
}

impl From<history::Rates> for Flow {
    fn from(rates: history::Rates) -> Self {
        let history::Rates { messages, readings, rejected, rows } = rates;
        Self { messages, readings, rejected, rows }
    }
}

/// How long things took in the last minute.
#[derive(Serialize, ToSchema)]
pub(super) struct Latencies {
    /// One commit of the log.
    pub(super) commit: Quantiles,
    /// Receipt of a message to its rows in the database.
    pub(super) end_to_end: Quantiles,
}

/// Half of them, and all but one in a hundred, took so many seconds at most; null without any.
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

/// The log on the disk.
#[derive(Serialize, ToSchema)]
#[expect(clippy::struct_field_names, reason = "their unit belongs to their names")]
pub(super) struct Disk {
    /// Bytes that the log takes.
    #[schema(example = 28_000_000)]
    pub(super) used_bytes: u64,
    /// Bytes at which it counts as full.
    #[schema(example = 1_073_741_824)]
    pub(super) max_bytes: u64,
    /// Bytes that its filesystem has free, as of a second ago.
    #[schema(example = 52_000_000_000_u64)]
    pub(super) free_bytes: u64,
    /// Bytes that it may still grow by, whichever limit comes first.
    #[schema(example = 1_045_741_824)]
    pub(super) left_bytes: u64,
}

/// `ok`: nothing to do. `warning`: nothing is lost, and somebody should look. `critical`: readings
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
    /// What keeps the database from keeping what it confirms.
    pub(crate) findings: &'p [&'static str],
    /// Whether there is a token for `/admin`.
    pub(crate) admin_enabled: bool,
}

impl Snapshot {
    /// Takes it; what to say of it in words is left open.
    pub(super) fn take(parts: &Parts<'_>) -> Self {
        let Parts { health, history, log, flusher, metrics, findings, admin_enabled } = *parts;
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
            version: env!("CARGO_PKG_VERSION"),
            uptime_seconds: history.uptime().as_secs_f64(),
            now,
            clock_is_set: TimeOfDay::at(now).is_plausible(),
            broker: Broker {
                state: report.mqtt,
                missing_filters: health.missing_filters(),
                since: Since::of(now, ages.mqtt),
                last_message_seconds: history.last_message().map(|age| age.as_secs_f64()),
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
