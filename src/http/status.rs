//! `GET /api/v1/status` and `GET /api/v1/status/history`: the state of the whole, for the operator
//! page and for scripts.

use rocket::serde::json::Json;
use rocket::{Route, State, get, routes};
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use super::AppState;
use super::access::Reader;
use super::error::ApiError;
use super::query::{RawQuery, bad};
use crate::status::{Parts, Snapshot, history as kept, snapshot};

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
    responses((status = 200, description = "It, now.", body = Snapshot))
)]
#[get("/status")]
pub(super) fn status(
    _reader: Reader,
    query: RawQuery<'_>,
    state: &State<AppState>,
) -> Result<Json<Snapshot>, ApiError> {
    query.must_be_empty()?;
    Ok(Json(snapshot(&Parts {
        health: &state.health,
        history: &state.history,
        log: &state.log,
        flusher: &state.flusher,
        metrics: &state.metrics,
        findings: &state.database.findings(),
        admin_enabled: state.access.is_admin_enabled(),
    })))
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
    _reader: Reader,
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
