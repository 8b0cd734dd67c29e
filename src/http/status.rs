//! `GET /api/v1/status` and `GET /api/v1/status/history`: the state of the whole, for the operator
//! page and for scripts.

use rocket::serde::json::Json;
use rocket::{Route, State, get, routes};
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use super::error::ApiError;
use super::guards::Reader;
use super::query::{RawQuery, bad};
use super::state::AppState;
use crate::status::{Parts, Snapshot, history as kept, snapshot};

pub(super) fn routes() -> Vec<Route> {
    routes![status, history]
}

/// The state of the whole service
///
/// Ages are measured by the monotonic clock. Instants are computed from them and the wall clock as it is
/// now, so they move when the wall clock is set.
#[utoipa::path(
    get,
    tag = "health",
    path = "/api/v1/status",
    responses((status = 200, description = "The state at this moment.", body = Snapshot))
)]
#[get("/status")]
pub(super) fn status(
    _reader: Reader,
    query: RawQuery<'_>,
    state: &State<AppState>,
) -> Result<Json<Snapshot>, ApiError> {
    query.must_be_empty()?;
    Ok(Json(snapshot(&Parts {
        now: state.clock.wall(),
        health: &state.health,
        history: &state.history,
        log: &state.log,
        flusher: &state.flusher,
        metrics: &state.metrics,
        seen: &state.seen,
        findings: &state.database.findings(),
        instance: &state.instance,
        silent_devices: state.recent.silent(),
        admin_enabled: state.access.is_admin_enabled(),
    })))
}

/// The last 15 minutes, one point per second
///
/// The process keeps these points itself, from its start on. The columns have one length and begin with
/// the oldest point.
#[utoipa::path(
    get,
    tag = "health",
    path = "/api/v1/status/history",
    params(Query),
    responses((status = 200, description = "All points, or those after the point asked for.", body = Points))
)]
#[get("/status/history")]
pub(super) fn history(
    _reader: Reader,
    query: RawQuery<'_>,
    state: &State<AppState>,
) -> Result<Json<Points>, ApiError> {
    let Query { run, after } = Query::read(&query)?;
    Ok(Json(Points::from(state.history.points(run.as_deref(), after))))
}

/// Four times the length of a run's name.
const RUN_MAX_CHARS: usize = 64;

#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
struct Query {
    /// The `run` of an earlier answer.
    #[param(required = false, max_length = 64)]
    run: Option<String>,
    /// The `last` of an earlier answer: only later points are sent, if the process is still that of
    /// `run`.
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

/// Points of the last 15 minutes, oldest first: one array per figure, all of the same length.
#[derive(Serialize, ToSchema)]
#[schema(as = History)]
pub(super) struct Points {
    /// The name of this run of the process.
    #[schema(example = "5f0d3e9a7c1b2846")]
    run: String,
    /// The number of the last point.
    #[schema(example = 899)]
    last: u64,
    /// Seconds since the point was taken.
    #[schema(example = json!([1.2, 0.2]))]
    age_seconds: Vec<f64>,
    /// MQTT messages received per second.
    #[schema(example = json!([200.0, 201.0]))]
    messages_per_second: Vec<f64>,
    /// Rows written to the database per second.
    #[schema(example = json!([200.0, 200.0]))]
    rows_per_second: Vec<f64>,
    /// Records that wait in the log.
    #[schema(example = json!([12, 10]))]
    pending_records: Vec<u64>,
    /// The 99th percentile of the duration of a commit, in seconds; null in a second without one.
    #[schema(example = json!([0.002, 0.002]))]
    commit_p99_seconds: Vec<Option<f64>>,
    /// The 99th percentile of the time from receipt to the row in the database, in seconds; null in a
    /// second without one.
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
