//! The state of the whole at one moment: the value that `/api/v1/status` serves.
//!
//! Nothing here waits for the disk, the broker or the database: it answers best when they do not.

use std::time::Duration;

use serde::Serialize;
use utoipa::ToSchema;

use super::health::Health;
use super::history::History;
use super::mappings::{self, MappingSeen, TopicSeen};
use super::parts::{Broker, Database, Disk, Latencies, Level, Log, Rates, Since};
use crate::base::metrics::Metrics;
use crate::base::time::Timestamp;
use crate::flusher::{self, Control};
use crate::intake::seen::Seen;
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
    /// Devices that are silent: `GET /api/v1/devices?silent=true` lists them, table by table. 0 if no time is
    /// set after which they are.
    #[schema(example = 0)]
    pub(super) silent_devices: u64,
    /// Whether an admin token is configured.
    #[schema(example = true)]
    pub(super) admin_enabled: bool,
    /// The mappings of the configuration, in their order; left out if there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Vec<MappingSeen>, required = false)]
    pub(super) mappings: Option<Vec<MappingSeen>>,
    /// The newest topics that no mapping takes, the newest first; left out if there are no mappings.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Vec<TopicSeen>, required = false)]
    pub(super) unmapped_topics: Option<Vec<TopicSeen>>,
}

/// Whom a snapshot is taken of.
pub(crate) struct Parts<'p> {
    /// The time of day.
    pub(crate) now: Timestamp,
    pub(crate) health: &'p Health,
    pub(crate) history: &'p History,
    pub(crate) log: &'p wal::Log,
    pub(crate) flusher: &'p Control,
    pub(crate) metrics: &'p Metrics,
    pub(crate) seen: &'p Seen,
    /// Which of several ingestors this is.
    pub(crate) instance: &'p str,
    /// What keeps the database from keeping what it confirms.
    pub(crate) findings: &'p [&'static str],
    /// How many devices are silent.
    pub(crate) silent_devices: u64,
    /// Whether there is a token for `/admin`.
    pub(crate) admin_enabled: bool,
}

impl Snapshot {
    /// Takes it; what to say of it in words is left open.
    pub(super) fn take(parts: &Parts<'_>) -> Self {
        let Parts { health, history, log, flusher, metrics, .. } = *parts;
        let Parts { now, instance, findings, silent_devices, admin_enabled, seen, .. } = *parts;
        let mappings = mappings::seen(seen);
        let (report, ages) = (health.report(), health.ages());
        let (waiting, flushing) = (log.stats(), flusher.status());
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
                reason: health.away(),
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
            silent_devices,
            admin_enabled,
            unmapped_topics: mappings.is_some().then(|| mappings::unmapped(seen)),
            mappings,
        }
    }
}
