//! `GET /api/v1/status` and `GET /api/v1/status/history`: the state of the whole, for the operator
//! page and for scripts.
//!
//! Nothing here waits for the disk, the broker or the database: it answers best when they do not.

use std::time::Duration;

use rocket::serde::json::Json;
use rocket::{Route, State, get, routes};
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use super::AppState;
use super::error::ApiError;
use super::query::{RawQuery, bad};
use crate::base::time::Timestamp;
use crate::flusher;
use crate::status::health::WalState;
use crate::status::history as kept;
use crate::wal::Room;

mod summary;

use summary::{Level, Moment};

/// What "now" means in a rate.
const SHORT: Duration = Duration::from_secs(10);
const MINUTE: Duration = Duration::from_secs(60);
const LONG: Duration = Duration::from_secs(5 * 60);

pub(super) fn routes() -> Vec<Route> {
    routes![status, history]
}

/// The state of the whole
///
/// Ages are by a clock that nobody sets, and instants are told by them and the box's clock as it is now:
/// they move with it.
#[utoipa::path(
    get,
    tag = "health",
    path = "/api/v1/status",
    responses((status = 200, description = "It, now.", body = Status))
)]
#[get("/status")]
pub(super) fn status(
    query: RawQuery<'_>,
    state: &State<AppState>,
) -> Result<Json<Status>, ApiError> {
    query.must_be_empty()?;
    Ok(Json(Status::of(state)))
}

/// The last 15 minutes, a point a second
///
/// Kept by the process itself, from its start on. Columns of one length, oldest first.
#[utoipa::path(
    get,
    tag = "health",
    path = "/api/v1/status/history",
    params(Query),
    responses((status = 200, description = "All points, or the newer ones.", body = Points))
)]
#[get("/status/history")]
pub(super) fn history(
    query: RawQuery<'_>,
    state: &State<AppState>,
) -> Result<Json<Points>, ApiError> {
    let Query { run, after } = Query::read(&query)?;
    Ok(Json(Points::from(state.history.points(run.as_deref(), after))))
}

/// Four times what a process calls its run.
const RUN_MAX_CHARS: usize = 64;

#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
struct Query {
    /// `run` of an earlier answer.
    #[param(required = false, max_length = 64)]
    run: Option<String>,
    /// `last` of an earlier answer: only what came later, if the process is still that of `run`.
    #[param(required = false, minimum = 0, maximum = 18_446_744_073_709_551_615_u64)]
    after: Option<u64>,
}

impl Query {
    fn read(query: &RawQuery<'_>) -> Result<Self, ApiError> {
        let parameters = query.parameters(&["run", "after"])?;
        let run = parameters.text("run").map(str::to_owned);
        if run.as_ref().is_some_and(|run| run.chars().count() > RUN_MAX_CHARS) {
            return Err(bad("run", &format!("must have at most {RUN_MAX_CHARS} characters")));
        }
        Ok(Self { run, after: parameters.number("after", 0..=u64::MAX)? })
    }
}

/// The state of the whole.
#[derive(Serialize, ToSchema)]
pub(super) struct Status {
    /// What is happening, in a sentence or two.
    #[schema(
        example = "Database unreachable for 12 min. 143,200 readings are safe in the log, room for 31 h at this rate."
    )]
    summary: String,
    /// How much that matters.
    level: Level,
    /// As `/health/ready` has it.
    ready: bool,
    #[schema(example = "0.1.0")]
    version: &'static str,
    #[schema(example = 86_400.0)]
    uptime_seconds: f64,
    /// The box's clock.
    #[schema(value_type = String, format = DateTime, example = "2025-10-05T12:34:56Z")]
    now: Timestamp,
    broker: Broker,
    log: Log,
    database: Database,
    /// What the flow into the database is doing: `idle`, `flushing`, `backing_off` or `paused`.
    #[schema(value_type = String, pattern = "^(idle|flushing|backing_off|paused)$", example = "flushing")]
    flusher: flusher::State,
    rates: Rates,
    latency: Latencies,
    /// Records that wait in the log.
    #[schema(example = 143_200)]
    pending_records: u64,
    /// How long the oldest of them has, by the box's clock; 0 without any.
    #[schema(example = 720.0)]
    oldest_pending_seconds: f64,
    disk: Disk,
    /// Records that come in more than go out, a second; negative if the log drains.
    #[schema(example = 200.0)]
    net_records_per_second: f64,
    /// How long the disk lasts if it goes on like this; null unless the log fills.
    #[schema(required, example = 111_600.0)]
    full_in_seconds: Option<f64>,
    /// How long until nothing waits any more; null unless the log drains.
    #[schema(required, example = json!(null))]
    drained_in_seconds: Option<f64>,
    /// Rejected messages that are kept.
    #[schema(example = 3)]
    dead_letters: u64,
    /// Whether there is a token for `/admin`.
    #[schema(example = true)]
    admin_enabled: bool,
}

/// The broker, as seen from here.
#[derive(Serialize, ToSchema)]
struct Broker {
    /// `connected` or `disconnected`.
    #[schema(pattern = "^(connected|disconnected)$", example = "connected")]
    state: &'static str,
    #[serde(flatten)]
    since: Since,
    /// How long ago the last message came in; null if none has since the start.
    #[schema(required, example = 0.4)]
    last_message_seconds: Option<f64>,
}

/// The log, which is what makes readings safe.
#[derive(Serialize, ToSchema)]
#[schema(as = LogState)]
struct Log {
    /// `ok`, `full`: not until there is room again, `failed`: the process is about to end.
    #[schema(value_type = String, pattern = "^(ok|full|failed)$", example = "ok")]
    state: WalState,
    #[serde(flatten)]
    since: Since,
    /// Why it is full; null if it is not.
    #[schema(required, example = json!(null))]
    reason: Option<String>,
}

/// The database, as the flusher last found it.
#[derive(Serialize, ToSchema)]
#[schema(as = DatabaseState)]
struct Database {
    /// `up` or `down`.
    #[schema(pattern = "^(up|down)$", example = "down")]
    state: &'static str,
    #[serde(flatten)]
    since: Since,
    /// While it is down: `unreachable`, or `refusing`: it answers, and somebody has to mend a login, a
    /// right or the schema. Else null. The reason is in the service's log and in `/admin/wal`.
    #[schema(required, pattern = "^(unreachable|refusing)$", example = "unreachable")]
    problem: Option<&'static str>,
}

/// Since when something is as it is.
#[derive(Serialize, ToSchema)]
struct Since {
    #[schema(value_type = String, format = DateTime, example = "2025-10-05T12:22:56Z")]
    since: Timestamp,
    #[schema(example = 720.0)]
    for_seconds: f64,
}

impl Since {
    fn of(now: Timestamp, age: Duration) -> Self {
        let micros = i64::try_from(age.as_micros()).unwrap_or(i64::MAX);
        let since = Timestamp::from_micros(now.as_micros().saturating_sub(micros));
        Self { since: since.unwrap_or(now), for_seconds: age.as_secs_f64() }
    }
}

/// How much came and went, a second.
#[derive(Serialize, ToSchema)]
struct Rates {
    over_10_s: Flow,
    over_5_min: Flow,
}

/// How much came and went, a second, over a time or since the start if that is shorter.
#[derive(Serialize, ToSchema)]
struct Flow {
    /// MQTT messages received.
    #[schema(example = 200.0)]
    messages: f64,
    /// Readings accepted into the log.
    #[schema(example = 200.0)]
    readings: f64,
    /// Readings rejected.
    #[schema(example = 0.0)]
    rejected: f64,
    /// Rows that the database took.
    #[schema(example = 0.0)]
    rows: f64,
}

impl From<kept::Rates> for Flow {
    fn from(rates: kept::Rates) -> Self {
        let kept::Rates { messages, readings, rejected, rows } = rates;
        Self { messages, readings, rejected, rows }
    }
}

/// How long things took in the last minute.
#[derive(Serialize, ToSchema)]
struct Latencies {
    /// One commit of the log.
    commit: Quantiles,
    /// Receipt of a message to its rows in the database.
    end_to_end: Quantiles,
}

/// Half of them, and all but one in a hundred, took so many seconds at most; null without any.
#[derive(Serialize, ToSchema)]
struct Quantiles {
    #[schema(required, example = 0.002)]
    p50_seconds: Option<f64>,
    #[schema(required, example = 0.007)]
    p99_seconds: Option<f64>,
}

impl From<kept::Quantiles> for Quantiles {
    fn from(quantiles: kept::Quantiles) -> Self {
        Self { p50_seconds: quantiles.p50, p99_seconds: quantiles.p99 }
    }
}

/// The log on the disk.
#[derive(Serialize, ToSchema)]
#[expect(clippy::struct_field_names, reason = "their unit belongs to their names")]
struct Disk {
    /// Bytes that the log takes.
    #[schema(example = 28_000_000)]
    used_bytes: u64,
    /// Bytes at which it counts as full.
    #[schema(example = 1_073_741_824)]
    max_bytes: u64,
    /// Bytes that its filesystem has free, as of a second ago.
    #[schema(example = 52_000_000_000_u64)]
    free_bytes: u64,
    /// Bytes that it may still grow by, whichever limit comes first.
    #[schema(example = 1_045_741_824)]
    left_bytes: u64,
}

impl Status {
    fn of(state: &AppState) -> Self {
        let AppState { history, health, log, metrics, .. } = state;
        let (report, ages) = (health.report(), health.ages());
        let (waiting, flushing) = (log.stats(), state.flusher.status());
        let now = Timestamp::now();
        let space = history.space(log);
        let is_up = health.is_database_up();
        let trend = history.trend(space, (!is_up).then_some(ages.database));
        let reason = match &*log.room().borrow() {
            Room::Full(reason) => Some(reason.clone()),
            Room::Open => None,
        };
        let mut status = Self {
            summary: String::new(),
            level: Level::Ok,
            ready: report.is_ready(),
            version: env!("CARGO_PKG_VERSION"),
            uptime_seconds: history.uptime().as_secs_f64(),
            now,
            broker: Broker {
                state: report.mqtt,
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
            admin_enabled: state.admin_token.is_some(),
        };
        let moment = Moment {
            is_stopping: health.is_stopping(),
            committed_within: history.commits(SHORT).p99,
            stored_within: history.ends_to_end(SHORT).p99,
        };
        (status.level, status.summary) = summary::of(&status, moment);
        status
    }
}

/// Points of the last 15 minutes, oldest first: a column each, all of one length.
#[derive(Serialize, ToSchema)]
#[schema(as = History)]
pub(super) struct Points {
    /// Names the process that they are of.
    #[schema(example = "5f0d3e9a7c1b2846")]
    run: String,
    /// The number of the last point.
    #[schema(example = 899)]
    last: u64,
    /// How long ago.
    #[schema(example = json!([1.2, 0.2]))]
    age_seconds: Vec<f64>,
    /// MQTT messages received.
    #[schema(example = json!([200.0, 201.0]))]
    messages_per_second: Vec<f64>,
    /// Rows that the database took.
    #[schema(example = json!([200.0, 200.0]))]
    rows_per_second: Vec<f64>,
    /// Records waiting in the log.
    #[schema(example = json!([12, 10]))]
    pending_records: Vec<u64>,
    /// All but one commit in a hundred took so long at most; null in a second without any.
    #[schema(example = json!([0.002, 0.002]))]
    commit_p99_seconds: Vec<Option<f64>>,
    /// The same, from receipt to the database.
    #[schema(example = json!([0.08, null]))]
    end_to_end_p99_seconds: Vec<Option<f64>>,
}

impl From<kept::Points> for Points {
    fn from(points: kept::Points) -> Self {
        let kept::Points { run, last, age, messages, rows, pending, commit, end_to_end } = points;
        Self {
            run,
            last,
            age_seconds: age,
            messages_per_second: messages,
            rows_per_second: rows,
            pending_records: pending,
            commit_p99_seconds: commit,
            end_to_end_p99_seconds: end_to_end,
        }
    }
}
